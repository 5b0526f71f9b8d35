"""Decodes in slots of fixed length: every step has one shape, so that a GPU replays it as one CUDA graph.

A growing batch has a new shape at every step and asks the host for every token, so a GPU waits most of the time. Here
no shape changes, tokens are drawn on the device, and the host reads them some steps late. A finished row may run on for
a few tokens, which are never read. A prompt's last token is decoded rather than read, so that the first new token is
drawn like all others.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch

from socratune.inference.decoding.attention import SlotCache, replaceable
from socratune.inference.decoding.compilers import error_line
from socratune.inference.decoding.rows import (
    DecodingRow,
    DecodingSettings,
    bounded,
    draw,
    draw_unbounded,
    joining,
    portions,
)

STEPS = 4  # decoded between two looks at the tokens
_PREFILL_TOKENS = 16_384  # read at once, padding included
MEMORY_SHARE = 0.6  # of what is free on the device
LENGTH_STEP = 256  # positions; a slot is somewhat longer than asked for, as the next rows may want more
TOLERANCE = 0.1  # relative; bf16 gives 0.01, a wrong attention 1

log = logging.getLogger(__name__)


def slot_bytes(model: Any) -> int:
    """Returns the bytes of a position in the cache, or 0 if `SlotDecoder` does not answer as the model itself does.

    It looks at the model's kind, then compares the logits of a short text.
    """
    if not replaceable(model):
        return 0
    device = model.device
    ids = (torch.arange(1, 13, device=device) * 7919 % model.config.get_text_config().vocab_size)[None]
    cache = SlotCache(model.config, 1, 16, device)
    try:
        with torch.inference_mode():
            expected = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1].float()
            cache.filling = torch.zeros(1, dtype=torch.long, device=device)
            cache.forward(model, ids[:, :10], torch.arange(10, device=device)[None])
            cache.filling = None
            for at in (10, 11):
                cache.positions.fill_(at)
                logits = cache.forward(model, ids[:, at : at + 1], cache.positions[:, None]).float()
    except (NotImplementedError, AttributeError, TypeError, ValueError) as error:
        log.info("The student is decoded in a growing batch: %s", error_line(error))
        log.debug("Why it is decoded in a growing batch:", exc_info=error)
        return 0
    same = bool((logits - expected).norm() <= TOLERANCE * expected.norm())
    return cache.position_bytes if same else 0


class SlotDecoder:
    """A `Decoder` for models whose `slot_bytes` is not 0.

    Args:
        model: as for `GrowingDecoder`.
        pad_id: pads prompts on the right, where no token sees it.
        max_batch: slots, unless the memory holds fewer.
        position_bytes: the result of `slot_bytes`.
    """

    def __init__(self, model: Any, *, pad_id: int, max_batch: int, position_bytes: int) -> None:
        self._model, self._pad_id, self._max_batch = model, pad_id, max_batch
        self._position_bytes = position_bytes
        self._slots: _Slots | None = None

    @property
    def rows(self) -> list[DecodingRow]:
        return self._slots.unread if self._slots else []

    @torch.inference_mode()
    def step(self, waiting: list[DecodingRow]) -> list[tuple[DecodingRow, list[int]]]:
        if waiting:
            longest = max(len(row.ids) + row.sampling.max_new_tokens for row in waiting)
            if self._slots is None or longest > self._slots.length:
                if self._slots and self._slots.unread:
                    return self._slots.step([])  # longer slots are made when these are empty
                self._slots = None  # its memory goes first
                self._slots = self._make(longest)
        return self._slots.step(waiting) if self._slots else []

    def _make(self, longest: int) -> _Slots:
        length = -(-longest * 5 // 4 // LENGTH_STEP) * LENGTH_STEP
        count = self._max_batch
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
            free = torch.cuda.mem_get_info(self._model.device)[0] * MEMORY_SHARE
            count = max(1, min(count, int(free // (length * self._position_bytes))))
        return _Slots(self._model, count, length, self._pad_id)


_Step = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # (S, V) logits, (S,) the likeliest ids, (S,) uniforms


@dataclass(frozen=True, slots=True)
class _Taken:
    """Tokens that were decoded and not read yet: `(steps, S)` on the host once `ready`, and the row of each slot."""

    tokens: torch.Tensor
    ready: torch.cuda.Event | None
    rows: list[tuple[int, DecodingRow]]

    def read(self) -> list[tuple[DecodingRow, list[int]]]:
        if self.ready is not None:
            self.ready.synchronize()
        columns = self.tokens.T.tolist()
        return [(row, columns[slot]) for slot, row in self.rows if not row.done]


class _Slots:
    """S slots of one length, and what each of them does next."""

    def __init__(self, model: Any, count: int, length: int, pad_id: int) -> None:
        device = model.device
        self.model, self.count, self.length, self.pad_id, self.device = model, count, length, pad_id, device
        self.cache = SlotCache(model.config, count, length, device)
        self.held: list[DecodingRow | None] = [None] * count
        self.launched = [0] * count  # tokens decoded for the row that holds the slot
        self.pending: deque[_Taken] = deque()
        self.tokens = torch.full((count, 1), pad_id, dtype=torch.long, device=device)
        self.moving = torch.zeros(count, dtype=torch.long, device=device)  # 1 where a row holds the slot
        self.temperature = torch.ones(count, device=device)
        self.top_p = torch.ones(count, device=device)
        self.top_k = torch.ones(count, dtype=torch.long, device=device)
        self.drawn = torch.zeros(count, dtype=torch.bool, device=device)
        self.uniforms = torch.zeros(count, length, device=device)  # of the token that follows each position
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, _Step]] = {}
        self.capture = device.type == "cuda"

    @property
    def unread(self) -> list[DecodingRow]:
        """Returns the rows that still want tokens."""
        held = [row for row in self.held if row is not None]
        held += [row for taken in self.pending for _, row in taken.rows]
        return list({id(row): row for row in held if not row.done}.values())

    def step(self, waiting: list[DecodingRow]) -> list[tuple[DecodingRow, list[int]]]:
        """Admits and releases rows, launches the next steps, and reads the previous ones."""
        self._release()
        while self.pending and all(row.done for _, row in self.pending[0].rows):
            self.pending.popleft()  # a row's tokens after its last
        free = [slot for slot, row in enumerate(self.held) if row is None]
        if fresh := joining(waiting, len(free), self.count - len(free)):
            self._fill(list(zip(free, fresh, strict=False)))
            del waiting[: len(fresh)]
        active = [(slot, row) for slot, row in enumerate(self.held) if row is not None]
        if active:
            self._launch(active)
        if len(self.pending) > (1 if active else 0):
            return self.pending.popleft().read()
        return []

    def _release(self) -> None:
        """Frees the slots of rows that are done, or will be once the launched steps are read."""
        gone = [
            slot
            for slot, row in enumerate(self.held)
            if row is not None and (row.done or self.launched[slot] >= row.sampling.max_new_tokens)
        ]
        if gone:
            at = self._moved(gone)
            for each in (self.moving, self.cache.positions, self.drawn):
                each.index_fill_(0, at, 0)  # `each[at] = 0` would take the 0 to the device, and wait for it
            self.top_k.index_fill_(0, at, 1)
            for slot in gone:
                self.held[slot] = None

    def _fill(self, entries: list[tuple[int, DecodingRow]]) -> None:
        """Reads new rows' prompts, all but the last token, and sets their slots to decode it."""
        slot_of = {id(row): slot for slot, row in entries}
        for rows in portions([row for _, row in entries], _PREFILL_TOKENS):
            self._prefill([(slot_of[id(row)], row) for row in rows], len(rows[0].ids) - 1)
        slots = [slot for slot, _ in entries]
        rows = [row for _, row in entries]
        at = self._moved(slots)
        uniforms = torch.zeros(len(rows), self.length)
        for own, row in zip(uniforms, rows, strict=True):
            if row.uniforms is not None:
                own[len(row.ids) - 1 :][: len(row.uniforms)] = row.uniforms
        asked = [row.sampling for row in rows]
        self.uniforms[at] = self._moved(uniforms)
        self.tokens[at, 0] = self._moved([row.ids[-1] for row in rows])
        self.cache.positions[at] = self._moved([len(row.ids) - 1 for row in rows])
        self.moving.index_fill_(0, at, 1)
        self.drawn[at] = self._moved([row.uniforms is not None for row in rows])
        self.temperature[at] = self._moved([s.temperature or 1.0 for s in asked])
        self.top_k[at] = self._moved([s.top_k if s.temperature else 1 for s in asked])
        self.top_p[at] = self._moved([s.top_p for s in asked])
        for slot, row in entries:
            self.held[slot], self.launched[slot] = row, 0

    def _prefill(self, entries: list[tuple[int, DecodingRow]], longest: int) -> None:
        if not longest:
            return
        ids = [row.ids[:-1] + [self.pad_id] * (longest + 1 - len(row.ids)) for _, row in entries]
        positions = torch.arange(longest, device=self.device).expand(len(ids), -1)
        self.cache.filling = self._moved([slot for slot, _ in entries])
        try:
            self.cache.forward(self.model, self._moved(ids), positions)
        finally:
            self.cache.filling = None

    def _moved(self, values: Any) -> torch.Tensor:
        """Returns a tensor on the device, without waiting for the device's pending work."""
        moved = torch.as_tensor(values)
        return moved.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else moved

    def _launch(self, active: list[tuple[int, DecodingRow]]) -> None:
        """Launches some steps for all slots, without waiting for them."""
        steps = min(STEPS, max(row.sampling.max_new_tokens - self.launched[slot] for slot, row in active))
        reach = max(len(row.ids) + self.launched[slot] for slot, row in active) + steps
        if self.cache.kernel is None:
            self.cache.limit = min(self.length, -(-reach // LENGTH_STEP) * LENGTH_STEP)
        drawn = [row for _, row in active if row.uniforms is not None]
        taken = torch.empty(steps, self.count, dtype=torch.long, device=self.device)
        for step in range(steps):
            logits, chosen, uniform = self._next()
            if drawn:
                chosen = torch.where(self.drawn, self._draw(logits, uniform, drawn), chosen)
                self.tokens[:, 0] = chosen
            taken[step] = chosen
        for slot, _ in active:
            self.launched[slot] += steps
        self.pending.append(_on_its_way(taken, active))

    def _draw(self, logits: torch.Tensor, uniform: torch.Tensor, rows: list[DecodingRow]) -> torch.Tensor:
        """Draws a token for every slot; no row depends on another."""
        settings = DecodingSettings(self.temperature, self.top_k, self.top_p, uniform)
        if self.device.type != "cuda":
            return draw(logits, settings)
        free = draw_unbounded(logits, settings)
        if not any(map(bounded, rows)):
            return free
        return torch.where((self.top_k == 0) & (self.top_p >= 1), free, draw(logits, settings, cut=True))

    def _next(self) -> _Step:
        """Decodes one token for every slot."""
        if self.capture and self.cache.limit not in self.graphs:
            self._capture()
        if self.cache.limit not in self.graphs:
            return self._forward()
        graph, result = self.graphs[self.cache.limit]
        graph.replay()
        return result

    def _forward(self) -> _Step:
        """Feeds every slot's token, and replaces it by the likeliest next one."""
        logits = self.cache.forward(self.model, self.tokens, self.cache.positions[:, None])
        chosen = logits.argmax(-1)
        uniform = self.uniforms.gather(1, self.cache.positions[:, None])[:, 0]
        self.tokens[:, 0] = chosen
        self.cache.positions.add_(self.moving).clamp_(max=self.length - 1)
        return logits, chosen, uniform

    def _capture(self) -> None:
        """Records a step. A model that asks the host in between is decoded without a graph, slower and as correct."""
        tokens, positions = self.tokens.clone(), self.cache.positions.clone()
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self.graphs.values()))[0].pool() if self.graphs else None
        try:
            self._forward()  # what is made at a first call must exist before
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                result = self._forward()
            self.graphs[self.cache.limit] = (graph, result)
        except RuntimeError as error:
            log.info("The student is decoded without a CUDA graph: %s", error_line(error))
            log.debug("Why it is decoded without a CUDA graph:", exc_info=error)
            self.capture = False
        finally:
            self.tokens.copy_(tokens)
            self.cache.positions.copy_(positions)


def _on_its_way(tokens: torch.Tensor, rows: list[tuple[int, DecodingRow]]) -> _Taken:
    """Starts copying the tokens to the host."""
    if tokens.device.type != "cuda":
        return _Taken(tokens, None, rows)
    host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
    host.copy_(tokens, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record()
    return _Taken(host, ready, rows)

"""Decodes with a cache that grows, for any model and device; the fastest way on a CPU.

A finished row leaves the batch, and waiting rows join it, so no row runs to the length of its longest neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from socratune.inference.decoding.rows import DecodingRow, DecodingSettings, draw, joining, portions

_PREFILL_TOKENS = 4096  # read at once, with padding; more do not fit a CPU's cache and take twice as long
PROMPT_BYTES = 256 << 20  # of prompts kept for further answers


class GrowingDecoder:
    """A `Decoder` over a batch that changes its shape at every step.

    Args:
        model: a transformers causal language model in eval mode, on its device; may be a PEFT model.
        pad_id: pads on the left, and is masked.
        max_batch: rows decoded together.
    """

    def __init__(self, model: Any, *, pad_id: int, max_batch: int) -> None:
        self._model, self._pad_id, self._max_batch = model, pad_id, max_batch
        self._joins = kept(model.config) is not None  # else shorter rows cannot be padded on the left
        self._batch: _Batch | None = None
        self._prompts: dict[tuple[int, ...], _Batch] = {}  # the latest prompts of drawn answers

    @property
    def rows(self) -> list[DecodingRow]:
        return [row for row in self._batch.rows if not row.done] if self._batch else []

    @torch.inference_mode()
    def step(self, waiting: list[DecodingRow]) -> list[tuple[DecodingRow, list[int]]]:
        batch = self._batch
        if batch is not None:
            batch.release()
            if batch.rows:
                batch.decode(self._model)
            else:
                batch = None
        if batch is None or self._joins:
            active = len(batch.rows) if batch else 0
            if fresh := joining(waiting, self._max_batch - active, active):
                batch = self._read(batch, fresh)
                del waiting[: len(fresh)]
        self._batch = batch
        return [(row, [token]) for row, token in zip(batch.rows, batch.sample(), strict=True)] if batch else []

    def _read(self, batch: _Batch | None, fresh: list[DecodingRow]) -> _Batch:
        """Returns the batch with new rows and their prompts read; a prompt of several drawn answers is read once."""
        if not self._joins:
            return _Batch.prefill(self._model, fresh, self._pad_id)
        unread: list[DecodingRow] = []
        again: list[DecodingRow] = []
        known = set(self._prompts)
        for row in fresh:
            drawn, prompt = row.uniforms is not None, tuple(row.ids)
            (again if drawn and prompt in known else unread).append(row)
            known |= {prompt} if drawn else set()
        parts = [_Batch.prefill(self._model, rows, self._pad_id) for rows in portions(unread, _PREFILL_TOKENS)]
        for part in parts:
            drawn = [at for at, row in enumerate(part.rows) if row.uniforms is not None]
            self._prompts |= {tuple(part.rows[at].ids): part.prompt(at) for at in drawn}
        parts += [replace(self._prompts[tuple(row.ids)], rows=[row]) for row in again]
        self._forget()
        return _Batch.joined([batch, *parts] if batch else parts, self._model.config)

    def _forget(self) -> None:
        """Drops the oldest prompts until the others fit the memory allowed."""
        held = sum(prompt.nbytes for prompt in self._prompts.values())
        while held > PROMPT_BYTES:
            held -= self._prompts.pop(next(iter(self._prompts))).nbytes


@dataclass
class _Batch:
    """Rows that are decoded together, left-padded to one length. B rows, T positions so far, V vocabulary."""

    rows: list[DecodingRow]
    cache: Any
    mask: torch.Tensor  # (B, T), 0 on padding
    logits: torch.Tensor  # (B, V), of the next token

    @classmethod
    def prefill(cls, model: Any, rows: list[DecodingRow], pad_id: int) -> _Batch:
        """Reads the prompts of new rows."""
        longest = max(len(row.ids) for row in rows)
        ids = [[pad_id] * (longest - len(row.ids)) + row.ids for row in rows]
        mask = torch.tensor([[0] * (longest - len(r.ids)) + [1] * len(r.ids) for r in rows], device=model.device)
        batch = cls(rows, _empty_cache(model.config), mask, torch.empty(0))
        batch._forward(model, torch.tensor(ids, device=model.device))
        return batch

    @classmethod
    def joined(cls, parts: list[_Batch], config: Any) -> _Batch:
        """Returns all parts as one batch, the shorter padded on the left."""
        length = max(part.mask.shape[1] for part in parts)
        return cls(
            [row for part in parts for row in part.rows],
            joined_room([part.cache for part in parts], config),
            torch.cat([pad(part.mask, (length - part.mask.shape[1], 0)) for part in parts]),
            torch.cat([part.logits for part in parts]),
        )

    @property
    def nbytes(self) -> int:
        return self.logits.nbytes + sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)

    def prompt(self, at: int) -> _Batch:
        """Returns a copy of a row's prompt without padding, for other rows with the same prompt."""
        length = len(self.rows[at].ids)
        one = slice(at, at + 1)
        states = [(layer.keys[one, :, -length:], layer.values[one, :, -length:]) for layer in self.cache.layers]
        return _Batch([], DynamicCache(states), self.mask[one, -length:].clone(), self.logits[one].clone())

    def release(self) -> None:
        """Drops finished rows and the padding that only they needed. The last rows take their places."""
        going = [at for at, row in enumerate(self.rows) if row.done]
        count = len(self.rows) - len(going)
        if not going or not count:
            self.rows = self.rows[:count]
            return
        order = list(range(count))
        moving = (at for at in range(count, len(self.rows)) if not self.rows[at].done)
        for at, source in zip(going, moving, strict=False):
            order[at] = source
        index = torch.tensor(order, device=self.mask.device)
        self.rows = [self.rows[at] for at in order]
        self.mask, self.logits = self.mask[index], self.logits[index]
        self.cache.batch_select_indices(index)
        empty = int(self.mask.any(0).to(torch.int8).argmax())
        if empty and all(isinstance(layer, RoomLayer) for layer in self.cache.layers):
            self.mask = self.mask[:, empty:]
            for layer in self.cache.layers:
                layer.drop_first(empty)

    def decode(self, model: Any) -> None:
        """Computes one step for every row."""
        last = torch.tensor([[row.new_ids[-1]] for row in self.rows], device=self.mask.device)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=1)
        self._forward(model, last)

    def sample(self) -> list[int]:
        """Returns the next token of every row, by its own sampling settings."""
        chosen = self.logits.argmax(-1)
        drawn = [at for at, row in enumerate(self.rows) if row.uniforms is not None]
        if drawn:
            chosen[drawn] = draw(self.logits[drawn], self._settings([self.rows[at] for at in drawn]))
        return chosen.tolist()

    def _settings(self, rows: list[DecodingRow]) -> DecodingSettings:
        asked = [row.sampling for row in rows]
        device = self.logits.device
        return DecodingSettings(
            temperature=torch.tensor([sampling.temperature for sampling in asked], device=device),
            top_k=torch.tensor([sampling.top_k for sampling in asked], device=device),
            top_p=torch.tensor([sampling.top_p for sampling in asked], device=device),
            uniform=torch.stack([r.uniforms[len(r.new_ids)] for r in rows if r.uniforms is not None]).to(device),
        )

    def _forward(self, model: Any, ids: torch.Tensor) -> None:
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits = out.logits[:, -1]


# --- a cache that is written in place; the library's own copies all keys and values at every step -------------------

AHEAD = 64  # positions; all is copied once in so many steps


def kept(config: Any) -> list[int | None] | None:
    """Returns how many of the last tokens each layer of a model attends to, None for all of them.

    Returns None for a config with layers of another kind.
    """
    kinds = {"DynamicLayer", "DynamicSlidingWindowLayer"}
    layers: list[Any] = DynamicCache(config=config).layers
    text = config.get_text_config(decoder=True)
    if getattr(text, "attention_chunk_size", None) or len(layers) != text.num_hidden_layers:  # chunked; shared
        return None
    if any(type(layer).__name__ not in kinds for layer in layers):
        return None
    return [getattr(layer, "sliding_window", None) for layer in layers]


def _empty_cache(config: Any) -> DynamicCache:
    """Returns a cache that keeps every position, even in layers with a window, so that rows can be padded and join.

    The model's masks hold the window.
    """
    return DynamicCache() if kept(config) is not None else DynamicCache(config=config)


def joined_room(parts: list[DynamicCache], config: Any) -> DynamicCache:
    """Returns one cache of all rows of `parts`, the shorter padded on the left, for a config that `kept` knows.

    The first part is reused if it has room for the others.
    """
    layers = list(zip(*(part.layers for part in parts), strict=True))
    if all(isinstance(first, RoomLayer) and first.take(others) for first, *others in layers):
        return parts[0]
    cache = _empty_cache(config)
    cache.layers[:] = [RoomLayer(list(layer)) for layer in layers]
    return cache


class RoomLayer(DynamicLayer):
    """Keys and values `(B, H, T, D)` as the used part of a larger `(R, H, L, D)`, which has free positions."""

    def __init__(self, parts: list[Any]) -> None:
        super().__init__()
        self.lazy_initialization(parts[0].keys, parts[0].values)
        self._lay(parts)

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Writes the states of new positions, and returns those of all."""
        if self._end + key_states.shape[2] > self._room[0].shape[2]:
            self._lay([self])
        begin, self._end = self._end, self._end + key_states.shape[2]
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[: self._rows, :, begin : self._end] = states
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps only these rows. A row that keeps its place costs nothing."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero()[:, 0]
        for room in self._room:
            room[moved, :, : self._end] = room[indices[moved], :, : self._end]
        self._rows = len(indices)
        self._show()

    def take(self, parts: list[Any]) -> bool:
        """Appends the rows of other layers and returns True, if there is room for them."""
        rows, longest = sum(len(part.keys) for part in parts), max(part.keys.shape[2] for part in parts)
        if self._rows + rows > len(self._room[0]) or longest > self._end:
            return False
        self._first = min(self._first, self._end - longest)
        for part in parts:
            at = slice(self._rows, self._rows + len(part.keys))
            for room, states in zip(self._room, (part.keys, part.values), strict=True):
                _write(room[at, :, : self._end], states)
            self._rows = at.stop
        self._show()
        return True

    def drop_first(self, positions: int) -> None:
        """Drops the first positions."""
        self._first += positions
        self._show()

    def _lay(self, parts: list[Any]) -> None:
        """Moves the rows of all parts into a new room."""
        keys = [part.keys for part in parts]
        self._rows, self._first, self._end = sum(map(len, keys)), 0, max(part.shape[2] for part in keys)
        self._room = _room(keys, self._end), _room([part.values for part in parts], self._end)
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (room[: self._rows, :, self._first : self._end] for room in self._room)


def _room(parts: list[torch.Tensor], length: int) -> torch.Tensor:
    """Returns the rows of all parts, each with its last position at `length`, and room behind."""
    _, heads, _, size = parts[0].shape
    room = parts[0].new_empty(sum(map(len, parts)), heads, length + max(AHEAD, length // 4), size)
    at = 0
    for part in parts:
        _write(room[at : at + len(part), :, :length], part)
        at += len(part)
    return room


def _write(room: torch.Tensor, states: torch.Tensor) -> None:
    """Writes `(B, H, T, D)` to the end of `(B, H, L, D)`, and zeros before it, as masked values must be numbers."""
    missing = room.shape[2] - states.shape[2]
    room[:, :, :missing] = 0
    room[:, :, missing:] = states

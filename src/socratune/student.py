"""The student in this process: a `ChatModel` over the very weights that are trained.

Whatever rows wait are decoded together. A row that is finished leaves the batch, and waiting rows join it, so no row
runs to the length of its longest neighbour. Randomness belongs to the row (`Sampling.seed`), not to the batch.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from socratune.chat import end_of_turn_id, prompt_ids
from socratune.llm.base import Chat, Completion, Sampling
from socratune.sampling import choose_sampling, is_thinking

MAX_BATCH = 256
JOIN_SHARE = 0.25  # a prefill costs about one decode step, so it must enlarge the batch by this share to pay


@dataclass(slots=True)
class _Request:
    ids: list[int]
    sampling: Sampling
    deliver: Callable[[Completion | BaseException], None]
    new_ids: list[int] = field(default_factory=list)
    uniforms: torch.Tensor | None = None  # (max_new_tokens,), the row's own random numbers; None when greedy


class LocalStudent:
    """Answers with a transformers causal language model.

    Attributes:
        model, tokenizer: as given.
        thinking: it thinks before it answers.

    Args:
        model: in eval mode, on its device; may be a PEFT model.
        tokenizer: with the chat template the model is trained behind.
        name: for people.
        fingerprint: of weights, template and precision.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, fingerprint: str, max_batch: int = MAX_BATCH) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.thinking = is_thinking(tokenizer.chat_template)
        self.model = model
        self.tokenizer = tokenizer
        self._max_batch = max_batch
        self._end_ids = _end_ids(model, tokenizer)
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._work, name="student", daemon=True)
        self._worker.start()

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        """The answer to `messages`; waits while others are decoded."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Completion] = loop.create_future()

        def settle(result: Completion | BaseException) -> None:
            if answer.done():
                return
            if isinstance(result, BaseException):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        ids = prompt_ids(self.tokenizer, messages)

        def deliver(result: Completion | BaseException) -> None:
            with suppress(RuntimeError):  # the caller's loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result)

        self._requests.put(_Request(ids, sampling, deliver))
        return await answer

    def sampling(self, *, temperature: float | None, top_p: float | None, max_new_tokens: int) -> Sampling:
        """How its answers are drawn, with what was asked for; see `choose_sampling`."""
        return choose_sampling(
            self.model.generation_config.to_dict(),
            thinking=self.thinking,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
        )

    def exam_sampling(self, max_new_tokens: int) -> Sampling:
        """How answers are drawn that are compared: greedily, so that chance has no part; a thinking model as always."""
        if self.thinking:
            return self.sampling(temperature=None, top_p=None, max_new_tokens=max_new_tokens)
        return Sampling(temperature=0.0, max_new_tokens=max_new_tokens)

    def close(self) -> None:
        """End the worker thread; rows in flight are given up."""
        self._requests.put(None)
        self._worker.join()

    def _work(self) -> None:
        batch, waiting, live = None, [], True
        while live:
            live = self._take(waiting, block=batch is None and not waiting)
            try:
                batch = self._step(batch, waiting)
            except BaseException as error:  # handed to every caller that waits; the thread must not die silently
                for request in [*waiting, *(batch.requests if batch else [])]:
                    request.deliver(error)
                batch, waiting = None, []

    def _take(self, waiting: list[_Request], *, block: bool) -> bool:
        """Move what was asked into `waiting`; False when the student is closed."""
        while block or not self._requests.empty():
            request = self._requests.get()
            if request is None:
                return False
            waiting.append(request)
            block = False
        return True

    @torch.inference_mode()
    def _step(self, batch: _Batch | None, waiting: list[_Request]) -> _Batch | None:
        room = self._max_batch - (len(batch.requests) if batch else 0)
        if waiting and (batch is None or (batch.can_join and min(len(waiting), room) >= JOIN_SHARE * len(batch))):
            waiting.sort(key=lambda request: len(request.ids))
            fresh = _Batch.prefill(self.model, waiting[:room], self.tokenizer.pad_token_id or 0)
            batch = fresh if batch is None else batch.joined(fresh)
            del waiting[:room]
        if batch is None:
            return None
        keep = []
        for at, (request, token) in enumerate(zip(batch.requests, batch.sample(), strict=True)):
            request.new_ids.append(token)
            if token in self._end_ids or len(request.new_ids) >= request.sampling.max_new_tokens:
                request.deliver(self._completion(request))
            else:
                keep.append(at)
        if not keep:
            return None
        batch.keep(keep)
        batch.decode(self.model)
        return batch

    def _completion(self, request: _Request) -> Completion:
        ids = request.new_ids
        ended = ids[-1] in self._end_ids
        text = self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
        return Completion(
            text=text.strip(),
            stop="end" if ended else "length",
            prompt_tokens=len(request.ids),
            completion_tokens=len(ids),
            token_ids=tuple(ids[:-1] if ended else ids),
        )


class _Batch:
    """Rows that are decoded together, left-padded to one length. B rows, T positions so far, V vocabulary."""

    def __init__(self, requests: list[_Request], cache: Any, mask: torch.Tensor, logits: torch.Tensor) -> None:
        self.requests = requests
        self.cache = cache
        self.mask = mask  # (B, T), 0 on padding
        self.logits = logits  # (B, V), of the next token

    def __len__(self) -> int:
        return len(self.requests)

    @classmethod
    def prefill(cls, model: Any, requests: list[_Request], pad_id: int) -> _Batch:
        """Read the prompts of new rows."""
        longest = max(len(request.ids) for request in requests)
        rows = [[pad_id] * (longest - len(request.ids)) + request.ids for request in requests]
        mask = torch.tensor([[0] * (longest - len(r.ids)) + [1] * len(r.ids) for r in requests], device=model.device)
        for request in requests:
            if request.sampling.temperature > 0:
                generator = torch.Generator().manual_seed(request.sampling.seed)
                request.uniforms = torch.rand(request.sampling.max_new_tokens, generator=generator)
        batch = cls(requests, DynamicCache(config=model.config), mask, torch.empty(0))
        batch._forward(model, torch.tensor(rows, device=model.device))
        return batch

    @property
    def can_join(self) -> bool:
        """True where every layer keeps all positions, so that shorter rows can be padded on the left."""
        return all(type(layer).__name__ == "DynamicLayer" for layer in self.cache.layers)

    def joined(self, other: _Batch) -> _Batch:
        """Both batches as one; the shorter is padded on the left."""
        length = max(self.mask.shape[1], other.mask.shape[1])
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.keys = torch.cat([_pad_left(mine.keys, length), _pad_left(theirs.keys, length)])
            mine.values = torch.cat([_pad_left(mine.values, length), _pad_left(theirs.values, length)])
        mask = torch.cat([_pad_left(m[:, None, :, None], length)[:, 0, :, 0] for m in (self.mask, other.mask)])
        return _Batch(self.requests + other.requests, self.cache, mask, torch.cat([self.logits, other.logits]))

    def keep(self, rows: list[int]) -> None:
        """Let finished rows go, and the padding that only they needed room for."""
        if len(rows) == len(self.requests):
            return
        index = torch.tensor(rows, device=self.mask.device)
        self.requests = [self.requests[row] for row in rows]
        self.mask, self.logits = self.mask[index], self.logits[index]
        self.cache.batch_select_indices(index)
        empty = int(self.mask.any(0).to(torch.int8).argmax())
        if empty and self.can_join:
            self.mask = self.mask[:, empty:]
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, empty:], layer.values[:, :, empty:]

    def decode(self, model: Any) -> None:
        """One step for every row."""
        last = torch.tensor([[request.new_ids[-1]] for request in self.requests], device=self.mask.device)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.requests), 1)], dim=1)
        self._forward(model, last)

    def sample(self) -> list[int]:
        """The next token of every row, by its own sampling settings."""
        chosen = self.logits.argmax(-1)
        drawn = [at for at, request in enumerate(self.requests) if request.uniforms is not None]
        if drawn:
            chosen[drawn] = _draw(self.logits[drawn].float(), [self.requests[at] for at in drawn])
        return chosen.tolist()

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


def _draw(logits: torch.Tensor, requests: list[_Request]) -> torch.Tensor:
    """One token per row by inverse transform: `(B, V)` logits → `(B,)` ids, after temperature, top-k and top-p."""
    device = logits.device
    temperature = torch.tensor([r.sampling.temperature for r in requests], device=device)
    probs, order = (logits / temperature[:, None]).softmax(-1).sort(-1, descending=True)
    top_k = torch.tensor([r.sampling.top_k or logits.shape[1] for r in requests], device=device)
    top_p = torch.tensor([r.sampling.top_p for r in requests], device=device)
    rank = torch.arange(logits.shape[1], device=device)
    before = probs.cumsum(-1) - probs
    probs = probs.masked_fill((rank >= top_k[:, None]) | (before >= top_p[:, None]), 0.0)
    uniform = torch.stack([r.uniforms[len(r.new_ids)] for r in requests if r.uniforms is not None]).to(device)
    cumulative = probs.cumsum(-1)
    at = (cumulative <= (uniform[:, None] * cumulative[:, -1:])).sum(-1, keepdim=True).clamp(max=logits.shape[1] - 1)
    return order.gather(1, at)[:, 0]


def _pad_left(states: torch.Tensor, length: int) -> torch.Tensor:
    """`(B, H, T, D)` → `(B, H, length, D)` with zeros in front; the mask hides them."""
    missing = length - states.shape[2]
    return torch.nn.functional.pad(states, (0, 0, missing, 0)) if missing else states


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a turn: the template's, the tokenizer's, the generation config's."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*ids, tokenizer.eos_token_id, end_of_turn_id(tokenizer)] if token is not None)


@contextmanager
def serving(student: LocalStudent) -> Iterator[LocalStudent]:
    """The student until the block ends."""
    try:
        yield student
    finally:
        student.close()

"""What both decoders share: the row to answer, when waiting rows join, and the draw of its next token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Protocol

import torch

from socratune.llm import Completion, Sampling

JOIN_SHARE = 0.25  # a prefill costs about one decode step, so it must enlarge the batch by this share to pay
HEAD = 1024  # likeliest tokens that nearly always hold the drawn one; sorting 256 x 128k logits costs a decode step

BLOCK = 1024  # tokens of the vocabulary that are weighed together

ROUNDING = 1e-5  # of the sums of probabilities


@dataclass(slots=True)
class DecodingRow:
    """One prompt and its answer so far.

    Attributes:
        answer: the future that the caller awaits.
        uniforms: (max_new_tokens,) random numbers of this row, one per token; None when greedy.
        done: True once the row has its answer. The reader of the tokens sets it, and the decoder then drops the row.
        told: takes each token, in the thread that decodes, and ends the answer by returning True; None without a
            listener.
        heard: how many tokens `told` has taken.
    """

    ids: list[int]
    sampling: Sampling
    answer: Future[Completion]
    new_ids: list[int] = field(default_factory=list)
    uniforms: torch.Tensor | None = None
    done: bool = False
    told: Callable[[int], object] | None = None
    heard: int = 0

    def tell(self, count: int) -> bool:
        """Hands the first `count` tokens to `told`, each once; returns True if it ends the answer."""
        while self.told is not None and self.heard < count:
            self.heard += 1
            if self.told(self.new_ids[self.heard - 1]) is True:
                return True
        return False


class Decoder(Protocol):
    """Decodes rows together."""

    @property
    def rows(self) -> list[DecodingRow]:
        """Returns the rows that still want tokens."""
        ...

    def step(self, waiting: list[DecodingRow]) -> list[tuple[DecodingRow, list[int]]]:
        """Takes as many rows off `waiting` as there is room for, decodes a step, and returns the new tokens in order.

        Tokens after a row's last one are meaningless.
        """
        ...


def joining(waiting: list[DecodingRow], room: int, active: int) -> list[DecodingRow]:
    """Returns the rows worth a prefill now: none, or the shortest that fit, moved to the front of `waiting`."""
    if not waiting or not room or min(len(waiting), room) < JOIN_SHARE * active:
        return []
    waiting.sort(key=lambda row: len(row.ids))
    fresh = waiting[:room]
    for row in fresh:
        if row.sampling.temperature > 0:
            generator = torch.Generator().manual_seed(row.sampling.seed)
            row.uniforms = torch.rand(row.sampling.max_new_tokens, generator=generator)
    return fresh


def portions(rows: list[DecodingRow], most: int) -> Iterator[list[DecodingRow]]:
    """Yields rows of similar length, the longest first, `most` tokens at a time (with padding), or a single row."""
    left = sorted(rows, key=lambda row: -len(row.ids))
    while left:
        size = max(1, most // len(left[0].ids))
        yield left[:size]
        left = left[size:]


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """How each of B rows draws: temperature, top_p, uniform `(B,)` float, top_k `(B,)` with 0 for off."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    uniform: torch.Tensor

    def of(self, rows: torch.Tensor) -> DecodingSettings:
        """Returns the settings of the rows that the mask `(B,)` keeps."""
        return DecodingSettings(self.temperature[rows], self.top_k[rows], self.top_p[rows], self.uniform[rows])


def bounded(row: DecodingRow) -> bool:
    """Returns True if top-k or top-p excludes tokens that the row could get."""
    return bool(row.sampling.top_k) or row.sampling.top_p < 1


def draw_unbounded(logits: torch.Tensor, settings: DecodingSettings) -> torch.Tensor:
    """Draws as `draw` does for rows without top-k and top-p, with the same probabilities but other tokens.

    The tokens stay in the order of the vocabulary: first the block that holds `uniform` of the mass is chosen, then the
    token in it. So nothing is sorted and the host is not asked, which takes most of a GPU's step with 150,000 tokens.
    """
    highest = logits.amax(-1).float()
    masses = _block_masses(logits, highest, settings.temperature)
    block, goal = _holder(masses, settings.uniform * masses.sum(-1))
    at = block[:, None] * BLOCK + torch.arange(BLOCK, device=logits.device)
    inside = logits.gather(1, at.clamp(max=logits.shape[1] - 1)).float()
    odds = ((inside - highest[:, None]) / settings.temperature[:, None]).exp()
    place, _ = _holder(odds.masked_fill(at >= logits.shape[1], 0.0), goal)
    return block * BLOCK + place


def _block_masses(logits: torch.Tensor, highest: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Returns the weight of each `BLOCK` tokens of `(B, V)` logits: `(B, ceil(V / BLOCK))`, not normalised."""
    if logits.device.type == "cuda" and find_spec("triton"):
        from socratune.inference.decoding.kernel import block_masses

        return block_masses(logits, highest, temperature, BLOCK)
    odds = ((logits.float() - highest[:, None]) / temperature[:, None]).exp()
    filled = torch.nn.functional.pad(odds, (0, -odds.shape[1] % BLOCK))
    return filled.view(len(odds), -1, BLOCK).sum(-1)


def _holder(masses: torch.Tensor, goal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns where each row's running sum of `(B, N)` masses first exceeds its goal, and what is left of the goal."""
    reached = masses.cumsum(-1)
    goal = torch.minimum(goal, reached[:, -1] * (1 - ROUNDING))
    at = (reached <= goal[:, None]).sum(-1)
    before = reached.gather(1, at[:, None])[:, 0] - masses.gather(1, at[:, None])[:, 0]
    return at, (goal - before).clamp(min=0)


def draw(logits: torch.Tensor, settings: DecodingSettings, *, cut: bool = False) -> torch.Tensor:
    """Draws one token per row by inverse transform: `(B, V)` logits → `(B,)` ids, after temperature, top-k and top-p.

    Args:
        cut: draws from the `HEAD` likeliest tokens of a large vocabulary alone, however wide a row's bounds are, so
            that the device need not be asked whether they hold the drawn token.
    """
    probs = (logits.float() / settings.temperature[:, None]).softmax(-1)
    if logits.device.type != "cpu" and probs.shape[1] <= 4 * HEAD:  # a GPU sorts few faster than the host asks it
        return _invert(*probs.sort(-1, descending=True), settings)
    head, order = probs.topk(min(HEAD, probs.shape[1] // 16))
    mass, size = head.sum(-1), head.shape[1]
    unbounded = (settings.top_k == 0) & (settings.top_p >= 1)
    held = (mass >= settings.top_p) | ((settings.top_k > 0) & (settings.top_k <= size))
    held |= unbounded & (settings.uniform < mass - ROUNDING)
    rest = (1 - mass).clamp(min=0)[:, None]  # as one more token, which is not drawn
    chosen = _invert(torch.cat([head, rest], 1), torch.cat([order, order[:, :1]], 1), settings)
    if not cut and not held.all():  # only these rows are sorted: one of them would cost the others 20 decode steps
        open_rows = ~held
        whole = probs[open_rows].sort(-1, descending=True)
        chosen[open_rows] = _invert(*whole, settings.of(open_rows))
    return chosen


def _invert(probs: torch.Tensor, order: torch.Tensor, settings: DecodingSettings) -> torch.Tensor:
    """Returns the token at `uniform` of the kept mass. `probs` `(B, N)` falls, and `order` holds its token ids."""
    rank = torch.arange(probs.shape[1], device=probs.device)
    top_k = settings.top_k.masked_fill(settings.top_k == 0, probs.shape[1])
    before = probs.cumsum(-1) - probs
    probs = probs.masked_fill((rank >= top_k[:, None]) | (before >= settings.top_p[:, None]), 0.0)
    cumulative = probs.cumsum(-1)
    at = (cumulative <= settings.uniform[:, None] * cumulative[:, -1:]).sum(-1, keepdim=True)
    return order.gather(1, at.clamp(max=probs.shape[1] - 1))[:, 0]

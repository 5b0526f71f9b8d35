"""Self-distillation: at each token of its own attempt the student learns what the base says that sees the hint there.

Student and teacher are the same weights, one with the adapter and the plain question, the other without the adapter and
with the hint (or the solution) in view, on the very attempt the student made. The loss of a token is the KL divergence
of the student from the teacher, on the teacher's most likely tokens and one bucket for all others, without which it is
no divergence (arXiv:2601.20802, arXiv:2601.19897). The teacher never changes, so it looks once, before the first step.
Right answers in the same step have the loss of supervised training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from socratune.inference import Rendered, ranks
from socratune.training.packing import join_rows
from socratune.training.steps import token_mean
from socratune.training.weights import grouped

TOP = 20
"""Tokens of the teacher's that are looked at one by one; 20 are as good as all (68.0 and 68.0 % in tinker-cookbook)."""
CLIP = 1.0
"""Nats a token counts at most. Its gradient shrinks in the same measure and never vanishes: clamped entry by entry, as
published (.05), exactly the tokens at which hint and attempt part would teach nothing."""


@dataclass(frozen=True, slots=True)
class Distilled:
    """An attempt, as the student and as the teacher see it.

    Attributes:
        row: behind the plain question.
        seen: behind the question with what the teacher is told.
        likely: the teacher's most likely tokens at each token of the attempt, (L, TOP); on the CPU.
        told: log p of these, in nats; (L, TOP).
    """

    row: Rendered
    seen: Rendered
    likely: torch.Tensor | None = None
    told: torch.Tensor | None = None

    @property
    def id(self) -> str:
        """Of the row."""
        return self.row.id

    @property
    def ids(self) -> list[int]:
        """As the student sees it."""
        return self.row.ids

    @property
    def labels(self) -> list[int]:
        """As the student sees it."""
        return self.row.labels

    @property
    def trained_ids(self) -> list[int]:
        """Of the attempt."""
        return self.row.trained_ids


def with_teacher(engine: Any, items: list[Any], top: int = TOP) -> list[Any]:
    """The items, each attempt with what the base says that sees more than the question."""

    def look(logits: torch.Tensor, _: slice) -> tuple[torch.Tensor, torch.Tensor]:
        best = logits.topk(min(top, logits.shape[-1]))
        return best.indices.cpu(), (best.values - logits.logsumexp(-1, keepdim=True)).cpu()

    found = {}
    with engine.without_adapter():
        for item in items:
            if isinstance(item, Distilled):
                parts = engine.read_logits(join_rows([(item.seen.ids, item.seen.labels)]), look)
                likely, told = (torch.cat(each) for each in zip(*parts, strict=True))
                found[id(item)] = replace(item, likely=likely, told=told)
    return [found.get(id(item), item) for item in items]


def distil_mean(engine: Any, items: list[Any], clip: float = CLIP) -> Iterator[torch.Tensor]:
    """The mean over the items of a step: of a right answer its cross entropy, of an attempt the mean divergence of its
    tokens; see `steps.Losses`.
    """
    right = [item for item in items if not isinstance(item, Distilled)]
    attempts = [item for item in items if isinstance(item, Distilled)]
    if right:
        yield from (loss * len(right) / len(items) for loss in token_mean(engine, right))
    if not attempts:
        return
    for members, share in ranks.rank_passes(attempts, lambda own: grouped(own, engine.micro_tokens)):
        packed = join_rows([(item.ids, item.labels) for item in members])
        likely, told = (
            torch.cat([getattr(item, name) for item in members]).to(engine.model.device) for name in ("likely", "told")
        )

        def read(logits: torch.Tensor, part: slice, likely: Any = likely, told: Any = told) -> torch.Tensor:
            said = logits.gather(-1, likely[part]) - logits.logsumexp(-1, keepdim=True)
            return divergence(said, told[part], clip)

        losses = torch.cat(engine.read_logits(packed, read))
        lengths = losses.new_tensor([len(item.trained_ids) for item in members])
        yield (losses / lengths[packed.owners]).sum() * share / len(items)


def divergence(said: torch.Tensor, told: torch.Tensor, clip: float = CLIP) -> torch.Tensor:
    """(L,), KL(teacher ‖ student) in nats, on some tokens and the bucket of all others, scaled to `clip` at most.

    Args:
        said: log p of the student, (L, K).
        told: log p of the teacher, of the same tokens.
    """
    said, told = _with_rest(said), _with_rest(told)
    found = (told.exp() * (told - said)).sum(-1)
    return found * (clip / found.detach().clamp(min=clip) if math.isfinite(clip) else 1.0)


def _with_rest(logs: torch.Tensor) -> torch.Tensor:
    """(L, K + 1), with the log of the mass that is left."""
    mass = logs.logsumexp(-1, keepdim=True).clamp(max=-1e-7)
    return torch.cat([logs, (-mass.expm1()).log()], -1)

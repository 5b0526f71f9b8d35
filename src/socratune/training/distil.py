"""Self-distillation: at each token of its attempt, the student learns what the base predicts there if it sees the hint.

Student and teacher share their weights. The student has the adapter and sees the plain question. The teacher has no
adapter and sees the hint (or the solution). Both read the student's own attempt. The loss of a token is the KL
divergence of the student from the teacher, on the teacher's most likely tokens and one bucket for all others, without
which it is no divergence (arXiv:2601.20802, arXiv:2601.19897). The teacher never changes, so it is asked once, before
the first step. Right answers in the same step have the loss of supervised training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from socratune.inference import Rendered
from socratune.training.packing import join_items
from socratune.training.steps import micro_batches, token_mean
from socratune.training.weights import AnswerItem

TOP = 20
"""Number of the teacher's tokens that are compared one by one. 20 do as well as all (68.0 and 68.0 % in
tinker-cookbook)."""
CLIP = 1.0
"""The most that a token counts, in nats. A token above it is scaled down, so its gradient never vanishes. Clamping each
entry instead, as published (.05), would teach nothing at exactly the tokens where hint and attempt differ."""


@dataclass(frozen=True, slots=True)
class Distilled(AnswerItem):
    """An attempt, as the student and as the teacher see it.

    Attributes:
        row: the attempt after the plain question.
        seen: the attempt after the question and what only the teacher sees.
        likely: the teacher's most likely tokens at each token of the attempt, (L, TOP), on the CPU.
        logs: log p of these tokens, in nats, (L, TOP).
    """

    seen: Rendered
    likely: torch.Tensor | None = None
    logs: torch.Tensor | None = None


def with_teacher(engine: Any, items: list[Any], top: int = TOP) -> list[Any]:
    """Returns the items, each attempt with the predictions of the base that sees more than the question."""

    def look(logits: torch.Tensor, _: slice) -> tuple[torch.Tensor, torch.Tensor]:
        best = logits.topk(min(top, logits.shape[-1]))
        return best.indices.cpu(), (best.values - logits.logsumexp(-1, keepdim=True)).cpu()

    def complete(item: Any) -> Any:
        if not isinstance(item, Distilled):
            return item
        parts = engine.read_logits(join_items([item.seen]), look)
        likely, logs = (torch.cat(each) for each in zip(*parts, strict=True))
        return replace(item, likely=likely, logs=logs)

    with engine.without_adapter():
        return [complete(item) for item in items]


def distil_mean(engine: Any, items: list[Any], clip: float = CLIP) -> Iterator[torch.Tensor]:
    """Yields parts of the mean over the items of a step: the cross entropy of a right answer, and the mean divergence
    of an attempt's tokens. See `steps.Losses`.
    """
    right = [item for item in items if not isinstance(item, Distilled)]
    attempts = [item for item in items if isinstance(item, Distilled)]
    if right:
        yield from (loss * len(right) / len(items) for loss in token_mean(engine, right))
    if not attempts:
        return
    for members, packed, share in micro_batches(engine, attempts):
        likely, logs = (
            torch.cat([getattr(item, name) for item in members]).to(engine.model.device) for name in ("likely", "logs")
        )

        def read(logits: torch.Tensor, part: slice, likely: Any = likely, teacher: Any = logs) -> torch.Tensor:
            student = logits.gather(-1, likely[part]) - logits.logsumexp(-1, keepdim=True)
            return divergence(student, teacher[part], clip)

        losses = torch.cat(engine.read_logits(packed, read))
        lengths = losses.new_tensor([len(item.trained_ids) for item in members])
        yield (losses / lengths[packed.owners]).sum() * share / len(items)


def divergence(student: torch.Tensor, teacher: torch.Tensor, clip: float = CLIP) -> torch.Tensor:
    """Returns KL(teacher ‖ student) in nats, (L,), on some tokens and one bucket for all others, scaled to at most
    `clip`.

    Args:
        student: log p of the student, (L, K).
        teacher: log p of the teacher, for the same tokens.
    """
    student, teacher = _with_rest(student), _with_rest(teacher)
    nats = (teacher.exp() * (teacher - student)).sum(-1)
    return nats * (clip / nats.detach().clamp(min=clip) if math.isfinite(clip) else 1.0)


def _with_rest(logs: torch.Tensor) -> torch.Tensor:
    """Appends the log of the remaining mass: (L, K) → (L, K + 1)."""
    mass = logs.logsumexp(-1, keepdim=True).clamp(max=-1e-7)
    return torch.cat([logs, (-mass.expm1()).log()], -1)

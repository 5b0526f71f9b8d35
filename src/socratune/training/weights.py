"""Weights right answers by how much they teach: one weight per answer, in the loss of supervised training.

A hinted answer weighs R(hinted) − mean R(plain), the advantage that the hint has given (RLTF-SD, arXiv:2602.02482). An
answer that the student found alone weighs √(p(1 − p)), where p is the share of its samples that were right
(arXiv:2605.27765). Here that is doubled, so that an answer found every second time weighs as much as one never found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from socratune.inference import Rendered
from socratune.training.steps import micro_batches


@dataclass(frozen=True, slots=True)
class AnswerItem:
    """A rendered answer with what a method adds to it; a step takes its tokens."""

    row: Rendered

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def ids(self) -> list[int]:
        return self.row.ids

    @property
    def labels(self) -> list[int]:
        return self.row.labels

    @property
    def trained_ids(self) -> list[int]:
        return self.row.trained_ids


@dataclass(frozen=True, slots=True)
class Weighted(AnswerItem):
    """An answer and its weight, which may be negative."""

    weight: float


def answer_weight(pass_rate: float, *, alone: bool) -> float:
    """Returns the weight of a right answer, from 0 to 1.

    Args:
        pass_rate: the share of the samples without help that are right.
        alone: True if the answer is one of these samples.
    """
    return 2 * math.sqrt(pass_rate * (1 - pass_rate)) if alone else 1 - pass_rate


def weighted_mean(engine: Any, items: list[Weighted]) -> Iterator[torch.Tensor]:
    """Yields parts of the mean of weight · −log p over the trained tokens of a step. See `steps.Losses`."""
    trained = sum(len(item.trained_ids) for item in items)
    for members, packed, share in micro_batches(engine, items):
        losses = engine.token_losses(packed)
        yield (losses * losses.new_tensor([item.weight for item in members])[packed.owners]).sum() * share / trained

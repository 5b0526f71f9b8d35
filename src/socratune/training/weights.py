"""Right answers by how much they have to teach: one weight an answer, in the loss of supervised training.

A hinted answer weighs R(hinted) − mean R(plain), the advantage that the hint has given (RLTF-SD, arXiv:2602.02482); an
answer the student found alone √(p(1 − p)), p being the share of its samples that were right (arXiv:2605.27765), here
doubled, so that what it finds every second time weighs as much as what it never finds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from socratune.inference import Rendered, ranks
from socratune.training.packing import join_rows
from socratune.training.steps import groups


@dataclass(frozen=True, slots=True)
class Weighted:
    """An answer and what it counts, which may be less than nothing."""

    row: Rendered
    weight: float

    @property
    def id(self) -> str:
        """Of the row."""
        return self.row.id

    @property
    def ids(self) -> list[int]:
        """Of the row."""
        return self.row.ids

    @property
    def labels(self) -> list[int]:
        """Of the row."""
        return self.row.labels

    @property
    def trained_ids(self) -> list[int]:
        """Of the row."""
        return self.row.trained_ids


def answer_weight(pass_rate: float, *, alone: bool) -> float:
    """What a right answer counts, from 0 to 1.

    Args:
        pass_rate: of the samples without help.
        alone: it is one of them.
    """
    return 2 * math.sqrt(pass_rate * (1 - pass_rate)) if alone else 1 - pass_rate


def grouped(items: list[Any], micro_tokens: int) -> list[list[Any]]:
    """The items that share a packed row."""
    return [[items[at] for at in group] for group in groups([len(item.ids) for item in items], micro_tokens)]


def weighted_mean(engine: Any, items: list[Weighted]) -> Iterator[torch.Tensor]:
    """Σ weight · −log p over the trained tokens of a step, by their number; see `steps.Losses`."""
    trained = sum(len(item.trained_ids) for item in items)
    for members, share in ranks.rank_passes(items, lambda own: grouped(own, engine.micro_tokens)):
        packed = join_rows([(item.ids, item.labels) for item in members])
        losses = engine.token_losses(packed)
        yield (losses * losses.new_tensor([item.weight for item in members])[packed.owners]).sum() * share / trained

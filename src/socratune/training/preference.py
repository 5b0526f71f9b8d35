"""Direct preference optimisation for reasoning: the right answer against a wrong one.

The loss of a pair is −log σ(β·((log π(w) − log π₀(w)) − (log π(l) − log π₀(l)))) − α·log π(w) / |w|: w the right answer
of |w| tokens, l the wrong one, both to the same question, π₀ the base model, whose part is computed once, before the
first step. The first term is that of Rafailov et al. 2023 (arXiv:2305.18290). Alone it makes the right answer less
likely too, only less so than the wrong one. The second (Pang et al. 2024, arXiv:2404.19733) prevents that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from socratune.inference import Rendered, ranks
from socratune.training.packing import PackedRow, join_items
from socratune.training.steps import grouped

BETA = 0.1
"""How strongly a distance from the base model counts, as in the first paper and in TRL."""
ALPHA = 1.0
"""Weight of the right answer's own likelihood, as in the second paper."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one question.

    Attributes:
        base_margin: log π₀(chosen) − log π₀(rejected), in nats.
    """

    chosen: Rendered
    rejected: Rendered
    base_margin: float = math.nan

    @property
    def id(self) -> str:
        return self.chosen.id

    @property
    def ids(self) -> list[int]:
        """Returns the tokens of both answers, end to end."""
        return self.chosen.ids + self.rejected.ids

    @property
    def labels(self) -> list[int]:
        return self.chosen.labels + self.rejected.labels

    @property
    def trained_ids(self) -> list[int]:
        return self.chosen.trained_ids + self.rejected.trained_ids


def with_base_margins(engine: Any, pairs: list[Pair]) -> list[Pair]:
    """Returns the pairs with the base model's margins."""
    places = {id(pair): at for at, pair in enumerate(pairs)}
    margins = torch.zeros(len(pairs), device=engine.model.device)
    with engine.without_adapter():
        for members, weight in ranks.rank_passes(pairs, lambda own: grouped(own, engine.micro_tokens)):
            right, wrong = answer_losses(engine, members)
            if weight:
                margins[[places[id(pair)] for pair in members]] = wrong - right
    ranks.add_up([margins])
    return [replace(pair, base_margin=margin) for pair, margin in zip(pairs, margins.tolist(), strict=True)]


def pair_mean(engine: Any, pairs: list[Pair]) -> Iterator[torch.Tensor]:
    """Yields parts of the mean over the pairs of a step. See `steps.Losses`."""
    for members, weight in ranks.rank_passes(pairs, lambda own: grouped(own, engine.micro_tokens)):
        right, wrong = answer_losses(engine, members)
        base = right.new_tensor([pair.base_margin for pair in members])
        lengths = right.new_tensor([len(pair.chosen.trained_ids) for pair in members])
        preferred = -torch.nn.functional.logsigmoid(BETA * (wrong - right - base))
        yield (preferred + ALPHA * right / lengths).sum() * weight / len(pairs)


def answer_losses(engine: Any, pairs: list[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns −log p of the right and of the wrong answers, in nats: (P,) and (P,)."""
    documents = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    if engine.micro_tokens:
        sums = _document_losses(engine, join_items(documents))
    else:
        sums = torch.cat([_document_losses(engine, join_items([row])) for row in documents])
    return sums[::2], sums[1::2]


def _document_losses(engine: Any, row: PackedRow) -> torch.Tensor:
    """Returns −log p of the labelled tokens of each document of a packed row, in nats, (N,)."""
    losses = engine.token_losses(row)
    document = torch.from_numpy(row.owners).to(losses.device)
    return losses.new_zeros(len(row.boundaries) - 1).index_add(0, document, losses)

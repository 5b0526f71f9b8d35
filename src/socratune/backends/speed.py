"""How much of the card's rate a training uses: model FLOPs utilisation (Chowdhery et al. 2022, arXiv:2204.02311)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from socratune.cards import card_named
from socratune.memory import Shape
from socratune.timing import training_flops


def peak_flops() -> float | None:
    """FLOP/s of the card by its data sheet; None without a card, or for one that is not in the table."""
    if not torch.cuda.is_available():
        return None
    card = card_named(torch.cuda.get_device_name())
    return card.tflops * 1e12 if card else None


def flops_per_token(config: Mapping[str, Any], lengths: list[tuple[int, int]]) -> float | None:
    """`training_flops` by all tokens; None for a shape the arithmetic does not know."""
    try:
        shape = Shape.of(config)
    except KeyError:
        return None
    return training_flops(shape, lengths) / sum(tokens for tokens, _ in lengths)

"""How long training and answering take, by floating-point operations and the share of its rate that a machine reaches.

The shares were measured on one NVIDIA H200 (docs/guides/training.md) and are assumed of all cards.
"""

from __future__ import annotations

from collections.abc import Sequence

from socratune.memory import Shape, Training

USED, USED_BELOW_7B = 0.50, 0.43
"""Of the rate by the data sheet, in a training that keeps its activations: from 7 billion parameters on, and below."""
USED_RECOMPUTED = 0.35
"""The same where activations are computed twice."""
USED_CPU = 0.6
"""Of the rate of a matrix product that was measured."""
USED_ANSWERING, USED_ANSWERING_CPU = 0.1, 0.2
"""By many answers at once; the 57,000 tokens a second of a 1.2 billion model on an H200 are 0.14."""
USED_TOGETHER, USED_SHARDED = 0.9, 0.6
"""By each of several cards that train together: with the weights on each, and with the weights divided among them."""
STEP_S = 0.1
"""An optimizer step takes no less, however small the model."""


def training_flops(shape: Shape, lengths: Sequence[tuple[int, int]]) -> float:
    """Floating-point operations that LoRA training needs for documents of (tokens, labelled tokens).

    2N forward and 2N for the gradient of the activations, N the parameters of the linear layers that a token goes
    through; the frozen weights have no gradient, and the adapter (under 1 %) is left out. The output layer counts for
    labelled tokens. Causal attention: 2 L² d forward, 2.5 times that backward.
    """
    tokens, labelled = (sum(each) for each in zip(*lengths, strict=True))
    linear = shape.active_parameters * tokens + shape.hidden * shape.vocabulary * labelled
    width = shape.heads * shape.head_dim * shape.layers
    return 4.0 * linear + 3.5 * sum(2 * length**2 * width for length, _ in lengths)


def training_s(flops: float, shape: Shape, way: Training, *, peak: float, cards: int = 1, steps: int = 0) -> float:
    """Seconds of a training on `cards` with `peak` FLOP/s each (a CPU's: as measured)."""
    if way.cpu:
        return flops / (peak * USED_CPU)
    used = USED_RECOMPUTED if way.checkpointing else USED if shape.parameters >= 7e9 else USED_BELOW_7B
    together = 1.0 if cards == 1 else USED_SHARDED if way.shards > 1 else USED_TOGETHER
    return max(flops / (peak * used * cards * together), steps * STEP_S)


def answering_s(shape: Shape, tokens: float, *, peak: float, cpu: bool) -> float:
    """Seconds in which the model writes `tokens`, many answers at once."""
    per_token = 2.0 * (shape.active_parameters + shape.hidden * shape.vocabulary)
    return tokens * per_token / (peak * (USED_ANSWERING_CPU if cpu else USED_ANSWERING))

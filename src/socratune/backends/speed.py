"""How much of the card's rate a training uses: model FLOPs utilisation (Chowdhery et al. 2022, arXiv:2204.02311)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from socratune.memory import Shape

TFLOPS = {
    "B200": 2250, "GH200": 989, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L40": 181,
    "L4": 121, "A10G": 70, "A10": 125, "A40": 150, "RTX A6000": 155, "RTX 6000 Ada": 364, "RTX 5090": 210,
    "RTX 4090": 165, "RTX 3090": 71, "V100": 125, "T4": 65,
}  # fmt: skip
"""Dense 16-bit products with sums in 32 bits, by NVIDIA's data sheets. A name that holds another stands before it."""


def peak_flops() -> float | None:
    """FLOP/s of the card by its data sheet; None without a card, or for one that is not in the table."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((tflops * 1e12 for part, tflops in TFLOPS.items() if part in name), None)


def training_flops(shape: Shape, lengths: list[tuple[int, int]]) -> float:
    """Floating-point operations that LoRA training needs for documents of (tokens, labelled tokens).

    2N forward and 2N for the gradient of the activations, N the parameters of the linear layers; the frozen weights
    have no gradient, and the adapter (under 1 %) is left out. The output layer counts for labelled tokens. Causal
    attention: 2 L² d forward, 2.5 times that backward.
    """
    tokens, labelled = (sum(each) for each in zip(*lengths, strict=True))
    linear = shape.block_parameters * tokens + shape.hidden * shape.vocabulary * labelled
    width = shape.heads * shape.head_dim * shape.layers
    return 4.0 * linear + 3.5 * sum(2 * length**2 * width for length, _ in lengths)


def flops_per_token(config: Mapping[str, Any], lengths: list[tuple[int, int]]) -> float | None:
    """`training_flops` by all tokens; None for a shape the arithmetic does not know."""
    try:
        shape = Shape.of(config)
    except KeyError:
        return None
    return training_flops(shape, lengths) / sum(tokens for tokens, _ in lengths)

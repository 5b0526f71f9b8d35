"""A table of GPUs by name: what they compute, what they hold, and what RunPod charges. It asks no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from socratune.inference.memory import Shape, Training

FREE_SHARE, FREE_SHARE_ECC = 0.985, 0.92
"""The share of the memory in a GPU's name (in GiB) that a process can use; the second with error correction."""


@dataclass(frozen=True, slots=True)
class Card:
    """A kind of GPU.

    Attributes:
        name: its name at RunPod.
        tflops: dense 16-bit products with sums in 32 bits, by NVIDIA's data sheet.
        memory_gb: the memory in its name.
        corrects: True if error correction takes part of that.
        runpod_id: its id in RunPod's API; empty if RunPod rents none.
        secure_usd: price per hour in RunPod's own data centres, by the list of `priced`; None if unknown.
        community_usd: price per hour on a machine of others.
    """

    name: str
    tflops: float
    memory_gb: int
    corrects: bool = False
    runpod_id: str = ""
    secure_usd: float | None = None
    community_usd: float | None = None
    priced: str = ""

    @property
    def free_gib(self) -> float:
        """Returns the memory that a process can use."""
        return free_gib_by_card(self.name, self.memory_gb)

    def usd_per_hour(self, cloud: str) -> float | None:
        """Returns the list price of `secure` or `community`; None if unknown."""
        return self.secure_usd if cloud == "secure" else self.community_usd


CARDS = (
    Card("B200", 2250, 180, False, "NVIDIA B200", 6.79, 5.98, "2026-10-07"),
    Card("GH200", 989, 96),
    Card("H200 SXM", 989, 141, False, "NVIDIA H200", 4.59, 3.59, "2026-10-07"),
    Card("H100 PCIe", 756, 80, False, "NVIDIA H100 PCIe", 2.89, 1.99, "2026-11-09"),
    Card("H100 NVL", 835, 94, False, "NVIDIA H100 NVL", 3.19, 2.59, "2026-11-09"),
    Card("H100 SXM", 989, 80, False, "NVIDIA H100 80GB HBM3", 3.99, 2.69, "2026-11-09"),
    Card("A100 PCIe", 312, 80, False, "NVIDIA A100 80GB PCIe", 1.79, 1.19, "2026-11-09"),
    Card("A100 SXM", 312, 80, False, "NVIDIA A100-SXM4-80GB", 1.79, 1.39, "2026-11-09"),
    Card("L40S", 362, 48, True, "NVIDIA L40S", 0.86, 0.79, "2026-03-10"),
    Card("L40", 181, 48, True, "NVIDIA L40", 0.99, 0.69, "2026-03-10"),
    Card("L4", 121, 24, True, "NVIDIA L4", 0.44, None, "2026-03-10"),
    Card("A10G", 70, 24, True),
    Card("A10", 125, 24, True),
    Card("A40", 150, 48, True, "NVIDIA A40", 0.44, None, "2026-08-19"),
    Card("RTX A6000", 155, 48, False, "NVIDIA RTX A6000", 0.49, 0.33, "2026-03-10"),
    Card("RTX 6000 Ada", 364, 48, False, "NVIDIA RTX 6000 Ada Generation", 0.77, 0.74, "2026-03-10"),
    Card("RTX 5090", 210, 32, False, "NVIDIA GeForce RTX 5090", 0.89, 0.69, "2026-03-10"),
    Card("RTX 4090", 165, 24, False, "NVIDIA GeForce RTX 4090", 0.69, 0.34, "2026-03-10"),
    Card("RTX 3090", 71, 24, False, "NVIDIA GeForce RTX 3090", 0.46, 0.22, "2026-03-10"),
    Card("V100", 125, 16),
    Card("T4", 65, 16, True),
)
"""A GPU whose name begins with another one's main word stands after it. Prices are lists of the given day; before
anything is rented, the catalogue is asked for current prices."""


def card_named(name: str) -> Card | None:
    """Returns the GPU whose whole name, or else main word, is in a name by NVIDIA, RunPod or a person."""
    words = set(re.split(r"[\s_:-]+", re.sub(r"RTX(?=\d)", "RTX ", name.upper())))
    return next((card for card in CARDS if set(card.name.upper().split()) <= words), None) or next(
        (card for card in CARDS if _main_word(card) in words), None
    )


def _main_word(card: Card) -> str:
    """Returns the word with the model's number, H100 of 'H100 SXM'. PCIe and NVL are never meant by it alone."""
    if card.name in ("H100 PCIe", "H100 NVL", "A100 PCIe", "RTX 6000 Ada"):
        return card.name  # no single word is so
    return next(word for word in card.name.upper().split() if any(letter.isdigit() for letter in word))


def free_gib_by_card(name: str, memory_gb: float) -> float:
    """Returns the memory that a process can use on a GPU of this name and size."""
    card = card_named(name)
    return memory_gb * (FREE_SHARE_ECC if card and card.corrects else FREE_SHARE)


def rentable() -> list[Card]:
    """Returns the kinds that RunPod has, the cheapest first."""
    return sorted((card for card in CARDS if card.runpod_id), key=lambda card: card.secure_usd or float("inf"))


# --- how long training and answering take --------------------------------------------------------------------------

USED, USED_BELOW_7B = 0.50, 0.43
"""The share of the data sheet's rate that a training reaches if it keeps its activations: from 7 billion parameters on,
and below."""
USED_RECOMPUTED = 0.35
"""The same share if activations are computed twice."""
USED_CPU = 0.6
"""The share of the measured rate of a matrix product."""
USED_ANSWERING, USED_ANSWERING_CPU = 0.1, 0.2
"""The share that many answers at once reach; 57,000 tokens a second of a 1.2 billion model on an H200 are 0.14."""
USED_TOGETHER, USED_SHARDED = 0.9, 0.6
"""The share that each of several GPUs reaches in one training: with all weights on each, and with the
weights divided."""
STEP_S = 0.1
"""The least seconds of an optimizer step, however small the model."""


def training_flops(shape: Shape, lengths: Sequence[tuple[int, int]]) -> float:
    """Returns the floating-point operations of a LoRA training on documents of (tokens, labelled tokens).

    2N forward and 2N for the gradient of the activations, where N counts the parameters of a token's linear layers. The
    frozen weights have no gradient, and the adapter (under 1 %) is left out. The output layer counts for labelled
    tokens. Causal attention costs 2 L² d forward and 2.5 times that backward.
    """
    tokens, labelled = (sum(each) for each in zip(*lengths, strict=True))
    linear = shape.active_parameters * tokens + shape.hidden * shape.vocabulary * labelled
    width = shape.heads * shape.head_dim * shape.layers
    return 4.0 * linear + 3.5 * sum(2 * length**2 * width for length, _ in lengths)


def training_s(flops: float, shape: Shape, way: Training, *, peak: float, cards: int = 1, steps: int = 0) -> float:
    """Returns the seconds of a training on GPUs with `peak` FLOP/s each, or on a CPU with this measured rate."""
    if way.cpu:
        return flops / (peak * USED_CPU)
    used = USED_RECOMPUTED if way.checkpointing else USED if shape.parameters >= 7e9 else USED_BELOW_7B
    together = 1.0 if cards == 1 else USED_SHARDED if way.shards > 1 else USED_TOGETHER
    return max(flops / (peak * used * cards * together), steps * STEP_S)


def answering_s(shape: Shape, tokens: float, *, peak: float, cpu: bool) -> float:
    """Returns the seconds in which the model writes `tokens`, many answers at once."""
    per_token = 2.0 * (shape.active_parameters + shape.hidden * shape.vocabulary)
    return tokens * per_token / (peak * (USED_ANSWERING_CPU if cpu else USED_ANSWERING))

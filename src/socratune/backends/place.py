"""Where a model lives: the device, its precision, its free memory."""

from __future__ import annotations

import torch

from socratune.memory import CONTEXT_GIB, GIB


def device() -> torch.device:
    """CUDA or Apple's MPS where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def dtype_on(where: torch.device) -> torch.dtype:
    """The precision of base weights: bfloat16, float16 on cards without it (before Ampere), float32 on a CPU."""
    if where.type == "cpu":
        return torch.float32
    if where.type == "cuda" and torch.cuda.get_device_capability(where) < (8, 0):
        return torch.float16
    return torch.bfloat16


def free_gib() -> float:
    """What this process can fill on the card, what it has filled already included."""
    return (torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()) / GIB + CONTEXT_GIB

"""Liger's fused kernels for norms, the gated MLP and rotary positions, where they are installed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

Opened = Callable[[], AbstractContextManager[None]]


def use_liger(causal: Any) -> Opened:
    """Norms and MLP of this model from now on; rotary positions, a function of the whole model family, while open.

    The loss stays our own: Liger's waits for the card at every call. Without a CUDA GPU, or without Liger, or for a
    family it does not know, nothing happens.
    """
    if causal.device.type != "cuda" or find_spec("liger_kernel") is None:
        return nullcontext
    from transformers.integrations.liger import apply_liger_kernel

    logging.getLogger("liger_kernel").setLevel(logging.ERROR)  # it names every vendor whose kernels are not here
    family: Any = sys.modules[type(causal).__module__]
    before = getattr(family, "apply_rotary_pos_emb", None)
    apply_liger_kernel(causal, {"cross_entropy": False, "fused_linear_cross_entropy": False})
    after = getattr(family, "apply_rotary_pos_emb", None)
    if before is after:
        return nullcontext
    family.apply_rotary_pos_emb = before
    return lambda: _rotating(family, before, after)


@contextmanager
def _rotating(family: Any, before: Any, during: Any) -> Iterator[None]:
    family.apply_rotary_pos_emb = during
    try:
        yield
    finally:
        family.apply_rotary_pos_emb = before

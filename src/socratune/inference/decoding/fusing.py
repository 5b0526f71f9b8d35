"""Computes norm and rotation in one kernel each instead of transformers' eight, while the student answers.

A step of a small model takes as long as its number of kernels, and half of them are these. Each replacement is first
compared with the model's own function. If it differs, the original stays.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

ROTATION = "apply_rotary_pos_emb"
NEARLY = 0.02  # relative; one unit in the last place of bf16 is 0.008
_only_one = threading.Lock()  # the rotation is a name in transformers' module, which all models of a kind share


class Fused:
    """The replaceable parts of a model; none without a GPU and Triton."""

    def __init__(self, model: Any) -> None:
        self._norms: list[tuple[Any, Callable[[torch.Tensor], torch.Tensor]]] = []
        self._rotations: list[tuple[Any, Callable[..., Any], Callable[..., Any]]] = []
        if model.device.type == "cuda" and find_spec("triton"):
            self._look_at(model)

    def _look_at(self, model: Any) -> None:
        known: dict[type, bool | None] = {}
        for module in model.modules():
            kind = type(module)
            if kind.__name__.endswith("RMSNorm"):
                if kind not in known:
                    known[kind] = _one_more(module)
                if (one_more := known[kind]) is not None:
                    self._norms.append((module, partial(_norm, module, one_more)))
        homes = {sys.modules[type(module).__module__] for module in model.modules() if hasattr(module, "layer_idx")}
        for home in homes:
            own = getattr(home, ROTATION, None)
            if own is not None and _turns_alike(own, model):
                self._rotations.append((home, own, partial(_rotation, own)))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Replaces the parts of the model until the block ends."""
        with _only_one:
            try:
                for module, forward in self._norms:
                    module.forward = forward
                for home, _, rotation in self._rotations:
                    setattr(home, ROTATION, rotation)
                yield
            finally:
                for module, _ in self._norms:
                    vars(module).pop("forward", None)
                for home, own, _ in self._rotations:
                    setattr(home, ROTATION, own)


def _eps(module: Any) -> float:
    return float(getattr(module, "variance_epsilon", None) or module.eps)


def _norm(module: Any, one_more: bool, states: torch.Tensor) -> torch.Tensor:
    from socratune.inference.decoding.kernel import rms_norm

    return rms_norm(states, module.weight, _eps(module), one_more=one_more)


def _one_more(module: Any) -> bool | None:
    """Returns whether a norm adds one to its weight; None for another kind of norm."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() != 1 or "forward" in vars(module):
        return None
    states = torch.linspace(-3, 3, 2 * len(weight), device=weight.device).view(2, -1).to(weight.dtype)
    try:
        expected = module(states)
        return next((each for each in (False, True) if _alike(_norm(module, each, states), expected)), None)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None


def _rotation(own: Callable[..., Any], q: Any, k: Any, cos: Any, sin: Any, *more: Any, **named: Any) -> Any:
    from socratune.inference.decoding.kernel import rotated

    if more or named or q.dim() != 4 or cos.dim() != 3 or cos.shape[-1] != q.shape[-1]:
        return own(q, k, cos, sin, *more, **named)
    return rotated(q, cos, sin), rotated(k, cos, sin)


def _turns_alike(own: Callable[..., Any], model: Any) -> bool:
    made = torch.Generator(device=model.device).manual_seed(0)
    states = torch.randn(2, 3, 5, 64, generator=made, device=model.device, dtype=model.dtype)
    angles = torch.randn(2, 5, 64, generator=made, device=model.device, dtype=model.dtype)
    try:
        expected = own(states, states[:, :1], angles, -angles)
        rotated = _rotation(own, states, states[:, :1], angles, -angles)
        return all(_alike(*pair) for pair in zip(rotated, expected, strict=True))
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False


def _alike(result: torch.Tensor, expected: torch.Tensor) -> bool:
    close = (result.float() - expected.float()).norm() <= NEARLY * expected.float().norm()
    return result.shape == expected.shape and bool(close)

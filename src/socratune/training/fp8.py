"""Multiplies with the frozen weights in 8-bit floating point, a third faster on Hopper, Ada and later GPUs.

Each row of weights, states and gradients is rounded to e4m3 with a scale of its own. Sums stay in float32, and the
adapter's own products in 16 bits. The weights are held twice, for forward and backward, beside the 16-bit weights with
which the model answers: 2 bytes a parameter more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch

from socratune.inference import hush_compilers
from socratune.training.adapters import Frozen, frozen

LARGEST = 448.0  # of e4m3
MULTIPLE = 16  # of both widths, for the tensor cores

Rounded = tuple[torch.Tensor, torch.Tensor]


def available(device: torch.device) -> bool:
    """Returns True if the GPU has products in 8 bits."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def in_fp8(layer: torch.nn.Module) -> Frozen | None:
    """Wraps a base layer like `adapters.frozen`, in 8 bits where its widths allow it."""
    if type(layer) is torch.nn.Linear and not any(width % MULTIPLE for width in layer.weight.shape):
        return Float8(layer)
    return frozen(layer)


class Float8(Frozen):
    """A frozen linear layer, multiplied in 8 bits."""

    _last: tuple[torch.Tensor | None, Rounded | None] = (None, None)  # layers with one input round it once

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__(layer)
        weight = self.weight().detach()
        self._by_output, self._output_scales = _round(weight)
        self._by_input, self._input_scales = _round(weight.T.contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if Float8._last[0] is not x:
            Float8._last = (x, _rounding()(x))
        output = _product(Float8._last[1], self._by_output, self._output_scales, x.dtype)  # type: ignore[arg-type]
        return output if self.layer.bias is None else output.add_(self.layer.bias)  # type: ignore[arg-type]

    def backward(self, gradient: torch.Tensor, into: torch.Tensor | None) -> torch.Tensor:
        Float8._last = (None, None)
        product = _product(_rounding()(gradient.contiguous()), self._by_input, self._input_scales, gradient.dtype)
        return product if into is None else into.add_(product)


def _round(values: torch.Tensor) -> Rounded:
    """Rounds each row with a scale of its own."""
    scales = values.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (values.float() / scales).to(torch.float8_e4m3fn), scales


@cache
def _rounding() -> Callable[[torch.Tensor], Rounded]:
    hush_compilers()
    return torch.compile(_round, dynamic=True) if find_spec("triton") else _round


def _product(left: Rounded, right: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    values, rows = left
    product = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage]
    return product(values, right.T, scale_a=rows, scale_b=scales.T, out_dtype=dtype, use_fast_accum=True)

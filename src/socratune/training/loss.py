"""The loss of the labelled tokens alone, without the logits of the others and never all logits at once.

Prompts carry no loss, so their hidden states never meet the output layer (7 % of an 8B model's work, a fifth of a
1B model's). What is left goes through it in chunks, and the gradient of each chunk is taken on the spot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

log = logging.getLogger(__name__)

_CHUNK = 2**26
"""Logits held at once; 128 MiB in bfloat16. Chunks four times as large gain 0.3 % of a step."""

Slope = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def head_losses(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(L,), cross entropy of `hidden @ weight.T` with `targets`, in float32; differentiable in `hidden` alone.

    Args:
        hidden: (L, H), the states that predict a labelled token.
        weight: (V, H) of the output layer, frozen.
        targets: (L,).
    """
    return _HeadLoss.apply(hidden, weight, targets)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rows = max(1, _CHUNK // weight.shape[0])
        losses = torch.empty(len(targets), device=hidden.device)
        gradient = torch.empty_like(hidden)
        slope = _slope(hidden.device.type)
        for at in range(0, len(targets), rows):
            part = slice(at, at + rows)
            losses[part], logits_gradient = slope(hidden[part] @ weight.T, targets[part])
            torch.mm(logits_gradient, weight, out=gradient[part])
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return torch.mul(gradient, upstream[:, None], out=torch.empty_like(gradient)), None, None


def _plain_slope(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(L, V) logits → (L,) losses, and their gradient by the logits in their dtype: softmax minus one-hot."""
    exact = logits.float()
    total = exact.logsumexp(-1, keepdim=True)
    wanted = targets[:, None]
    losses = (total - exact.gather(1, wanted)).squeeze(1)
    share = (exact - total).exp()
    vocabulary = torch.arange(logits.shape[1], device=logits.device)
    return losses, torch.where(vocabulary == wanted, share - 1, share).to(logits.dtype)


@cache
def _slope(device: str) -> Slope:
    """The same in two passes over the logits where Triton can compile it (26 ms instead of 46 of an 8B step)."""
    if device != "cuda" or find_spec("triton") is None:
        return _plain_slope
    compiled: list[Slope] = [torch.compile(_plain_slope)]

    def slope(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        try:
            return compiled[0](logits, targets)
        except Exception as error:  # no C compiler, an unknown card: many libraries, many kinds
            if compiled[0] is _plain_slope or isinstance(error, torch.OutOfMemoryError):
                raise
            log.warning("The loss cannot be compiled (%s); it runs uncompiled.", type(error).__name__)
            compiled[0] = _plain_slope
            return _plain_slope(logits, targets)

    return slope

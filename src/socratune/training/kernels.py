"""Kernels of our own: attention within the documents of a packed row, and the loss of the labelled tokens.

Attention does not cross documents. On CUDA one kernel takes the boundaries (variable-length attention). Elsewhere,
PyTorch's own attention takes documents of similar length side by side, without a mask of T x T or work between
documents.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from transformers import AttentionInterface

from socratune.inference import hush_compilers
from socratune.training.packing import PackedRow

log = logging.getLogger(__name__)

NAME = "socratune_packed"
_LIKE = 0.75
"""A group holds documents of at least this share of its longest document's length."""
BEYOND = ("softcap", "s_aux", "position_bias")
"""Arguments by which models ask for more than plain attention."""


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Where documents begin, in the form that the kernels take: `starts`, or else the other fields.

    Attributes:
        longest: tokens of the longest document.
        starts: where each document begins, and T; (N+1,), int32.
        layout: the token of the row that fills each slot of the groups, (slots,).
        places: the slot of each token, (T,).
        groups: (documents, tokens) of each group.
    """

    longest: int
    starts: torch.Tensor | None = None
    layout: torch.Tensor | None = None
    places: torch.Tensor | None = None
    groups: tuple[tuple[int, int], ...] = ()


def boundaries(row: PackedRow, device: torch.device, dtype: torch.dtype) -> Boundaries:
    """Returns the boundaries of a row for a model of this dtype on this device."""
    starts = row.boundaries.tolist()
    lengths = [end - begin for begin, end in pairwise(starts)]
    if _has_kernel(device, dtype):
        pinned = torch.tensor(starts, dtype=torch.int32, pin_memory=True)
        return Boundaries(max(lengths), starts=pinned.to(device, non_blocking=True))
    order = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    layout: list[int] = []
    places = [0] * starts[-1]
    groups: list[tuple[int, int]] = []
    while order:
        longest = lengths[order[0]]
        group = [at for at in order if lengths[at] >= _LIKE * longest]
        order = order[len(group) :]
        groups.append((len(group), longest))
        for at in group:
            tokens = range(starts[at], starts[at + 1])
            places[tokens.start : tokens.stop] = range(len(layout), len(layout) + len(tokens))
            layout.extend(tokens)
            layout.extend([tokens[-1]] * (longest - len(tokens)))  # hidden by the causal mask
    on_device = [torch.tensor(values, device=device) for values in (layout, places)]
    return Boundaries(max(lengths), layout=on_device[0], places=on_device[1], groups=tuple(groups))


@contextmanager
def packed_attention(model: Any) -> Iterator[bool]:
    """Makes the model's attention obey `boundaries=…` in its forward pass until the block ends.

    Yields:
        False if the model's attention cannot be replaced; it is then unchanged.
    """
    before = model.config._attn_implementation
    AttentionInterface.register(NAME, _attend)
    model.set_attn_implementation(NAME)
    try:
        yield model.config._attn_implementation == NAME
    finally:
        model.set_attn_implementation(before)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    boundaries: Boundaries,
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Implements the attention interface of transformers: (1, H, T, D) queries and fewer heads in keys and values give
    (1, T, H, D).

    Raises:
        NotImplementedError: the model needs more than plain attention.
    """
    if dropout or any(others.get(name) is not None for name in BEYOND):
        raise NotImplementedError("attention with dropout, soft caps, sinks or biases")
    q, k, v = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))  # (T, H, D)
    if boundaries.starts is not None:
        return _varlen(q, k, v, boundaries.starts, boundaries.longest, scaling, sliding_window).unsqueeze(0), None
    q, k, v = (_Relay.apply(states, boundaries.layout, boundaries.places) for states in (q, k, v))
    outputs, begin = [], 0
    for count, longest in boundaries.groups:
        part = slice(begin, begin + count * longest)
        begin = part.stop
        sides = [states[part].unflatten(0, (count, longest)).transpose(1, 2) for states in (q, k, v)]
        mask = None
        if sliding_window is not None and longest > sliding_window:
            band = torch.ones(longest, longest, dtype=torch.bool, device=q.device)
            mask = band.tril().triu(1 - sliding_window)
        output = torch.nn.functional.scaled_dot_product_attention(
            *sides, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, boundaries.places).unsqueeze(0), None  # type: ignore[arg-type]


class _Relay(torch.autograd.Function):
    """Moves tokens into the slots of the groups. The padding has no gradient, so the way back is a selection."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, layout: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(places)
        return states.index_select(0, layout)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        return gradient.index_select(0, ctx.saved_tensors[0]), None, None


@cache
def _has_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Returns True if the GPU has the variable-length kernel: Ampere and later, in 16 bits."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    left = -1 if window is None else window - 1
    if _takes_fewer_heads():
        from torch.nn.attention.varlen import varlen_attn

        options: Any = {"scale": scale, "window_size": (left, 0), "enable_gqa": q.shape[1] != k.shape[1]}
        output: Any = varlen_attn(q, k, v, starts, starts, longest, longest, **options)
        return output
    # Before torch 2.13 the public function wants as many heads in keys and values as in queries. Its kernel never did,
    # and to repeat them costs an 8B model 3 % of its speed and 6 GiB.
    windows = {} if window is None else {"window_size_left": left, "window_size_right": 0}
    kernel = torch.ops.aten._flash_attention_forward
    return kernel(q, k, v, starts, starts, longest, longest, 0.0, True, False, scale=scale, **windows)[0]


@cache
def _takes_fewer_heads() -> bool:
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


# --- the loss ------------------------------------------------------------------------------------------------------
# Only the labelled tokens have logits, and never all of them at once.

LOGITS_AT_ONCE = 2**26
"""The most logits held at once, 128 MiB in bfloat16. Four times as many gain 0.3 % of a step."""
_PIECE = 2**23
"""The most logits whose softmax is taken at once without a compiler: in float32, several times over."""
_COMPILE_FROM = 2**39
"""Logits after which the loss is compiled. Uncompiled, each costs an H200 about 18 ps more (70 bytes of traffic, by
arithmetic): 10 s in all, about what compiling takes. That is 3.6 million labelled tokens of a vocabulary of 150,000."""

Slope = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def head_losses(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Returns the cross entropy of `hidden @ weight.T` with `targets`, (L,), float32; differentiable in `hidden` alone.

    Args:
        hidden: the states that predict a labelled token, (L, H).
        weight: the frozen weight of the output layer, (V, H).
        targets: the labelled tokens, (L,).
    """
    return _HeadLoss.apply(hidden, weight, targets)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rows = max(1, LOGITS_AT_ONCE // weight.shape[0])
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
    """Returns the losses (L,) of the logits (L, V), and their gradient in the logits' dtype: softmax minus one-hot."""
    exact = logits.float()
    total = exact.logsumexp(-1, keepdim=True)
    wanted = targets[:, None]
    losses = (total - exact.gather(1, wanted)).squeeze(1)
    share = (exact - total).exp()
    vocabulary = torch.arange(logits.shape[1], device=logits.device)
    return losses, torch.where(vocabulary == wanted, share - 1, share).to(logits.dtype)


@cache
def _slope(device: str) -> Slope:
    """Returns `_plain_slope`, compiled where Triton can and once a training is long enough to pay for that. Compiled,
    it takes two passes over the logits (26 ms instead of 46 of an 8B step).
    """
    if device != "cuda" or find_spec("triton") is None:
        return _plain_slope
    seen, now = 0, _slope_in_pieces

    def slope(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal seen, now
        before, seen = seen, seen + logits.numel()
        if before < _COMPILE_FROM <= seen:
            hush_compilers()
            now = torch.compile(_plain_slope)
        try:
            return now(logits, targets)
        except Exception as error:  # no C compiler, an unknown GPU: many libraries, many kinds
            if now is _slope_in_pieces or isinstance(error, torch.OutOfMemoryError):
                raise
            log.warning("The loss cannot be compiled (%s); it runs uncompiled.", type(error).__name__)
            now = _slope_in_pieces
            return now(logits, targets)

    return slope


def _slope_in_pieces(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes `_plain_slope` with less memory."""
    rows = max(1, _PIECE // logits.shape[1])
    pieces = zip(logits.split(rows), targets.split(rows), strict=True)
    losses, gradients = zip(*(_plain_slope(*piece) for piece in pieces), strict=True)
    return torch.cat(losses), torch.cat(gradients)

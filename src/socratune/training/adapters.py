"""Computes LoRA layers with less memory traffic than PEFT: y = Wx + s·B(Ax) and its gradient, in fewer passes.

PEFT computes every layer alone, and the adapter beside the frozen layer. Here the matrix product itself adds the
product with B. Layers that share an input (q, k, v; gate, up) share A's product and return one gradient. Float32
adapters are multiplied in the base model's 16 bits, but updated in float32. The parameters stay PEFT's own, and so do
saving, loading and every layer that this module does not know.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch.nn.functional import linear

from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown

How = Callable[[torch.nn.Module], "Frozen | None"]
SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of one module that receive the same states, in the order in which the module calls them."""


class Adapters:
    """The LoRA layers of a model, in groups that share an input."""

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype, how: How) -> None:
        """Groups the LoRA layers of `model`.

        Args:
            dtype: the dtype of the products.
            how: wraps a base layer as it shall be multiplied: `frozen`, or `in_fp8`.
        """
        self._groups = [_Group(layers, dtype, how) for layers in _shared_inputs(model)]
        self._a = [a for group in self._groups for a in group.a]
        self._a_parts = [part for group in self._groups for part in group.a_parts]
        self._b = [b for group in self._groups for b in group.b]
        self._scaled_b = [b for group in self._groups for b in group.scaled_b]
        self._scales = [scale for group in self._groups for scale in group.scales]
        self.refresh()

    @contextmanager
    def fast(self) -> Iterator[None]:
        """Computes the layers in groups until the block ends. Afterwards PEFT computes them again."""
        for group in self._groups:
            group.take_over()
        try:
            yield
        finally:
            for group in self._groups:
                group.give_back()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copies the parameters. Call it after loading them, and after each step of the optimizer."""
        if self._groups:
            torch._foreach_copy_(self._a_parts, self._a)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_copy_(self._scaled_b, self._b)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_mul_(self._scaled_b, self._scales)  # pyright: ignore[reportPrivateImportUsage]


def _shared_inputs(model: torch.nn.Module) -> Iterator[list[Any]]:
    for module in model.modules():
        children = {name: child for name, child in module.named_children() if _is_plain(child)}
        for names in SHARED_INPUT:
            if all(name in children for name in names):
                yield [children.pop(name) for name in names]
        yield from ([child] for child in children.values())


def _is_plain(layer: torch.nn.Module) -> bool:
    """Returns True for a LoRA layer as in Hu et al. (arXiv:2106.09685): one adapter, no dropout, no variant."""
    if not isinstance(layer, LoraLayer) or len(layer.active_adapters) != 1 or layer.merged:
        return False
    name = layer.active_adapters[0]
    return (
        frozen(layer.base_layer) is not None
        and isinstance(layer.lora_dropout[name], torch.nn.Identity)
        and name not in layer.lora_variant
        and layer.lora_B[name].bias is None
        and not getattr(layer, "fan_in_fan_out", False)
    )


class Frozen:
    """A frozen linear layer, which computes x → Wx + bias and g → Wᵀg."""

    def __init__(self, layer: torch.nn.Module) -> None:
        self.layer = layer

    def weight(self) -> torch.Tensor:
        """Returns the weight, (out, in)."""
        return self.layer.weight  # type: ignore[return-value]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (T, in) to (T, out), in a new tensor."""
        return linear(x, self.weight(), self.layer.bias)  # type: ignore[arg-type]

    def backward(self, gradient: torch.Tensor, into: torch.Tensor | None) -> torch.Tensor:
        """Maps (T, out) to (T, in), and adds the result to `into` if `into` is a tensor."""
        return gradient @ self.weight() if into is None else into.addmm_(gradient, self.weight())


class FourBit(Frozen):
    """A frozen linear layer with 4-bit weights of bitsandbytes, which are dequantised for each product."""

    def weight(self) -> torch.Tensor:
        """Returns the weight, (out, in), in the dtype of the states."""
        from bitsandbytes.functional import dequantize_4bit  # pyright: ignore[reportMissingImports]

        packed: Any = self.layer.weight
        return dequantize_4bit(packed.data, packed.quant_state)


def frozen(layer: torch.nn.Module) -> Frozen | None:
    """Wraps a base layer for multiplication, or returns None for an unknown kind of layer."""
    if type(layer) is torch.nn.Linear:
        return Frozen(layer)
    if type(layer).__name__ == "Linear4bit":
        return FourBit(layer)
    return None


class _Group:
    """LoRA layers with one input. R is the sum of their ranks."""

    def __init__(self, layers: list[Any], dtype: torch.dtype, how: How) -> None:
        self._layers = layers
        names = [layer.active_adapters[0] for layer in layers]
        self.frozen = [base for layer in layers if (base := how(layer.base_layer)) is not None]
        self.a: list[torch.Tensor] = [layer.lora_A[name].weight for layer, name in zip(layers, names, strict=True)]
        self.b: list[torch.Tensor] = [layer.lora_B[name].weight for layer, name in zip(layers, names, strict=True)]
        self.scales = [float(layer.scaling[name]) for layer, name in zip(layers, names, strict=True)]
        self.ranks = [a.shape[0] for a in self.a]
        self.stacked_a = torch.cat([a.detach().to(dtype) for a in self.a])  # (R, in)
        self.a_parts = self.stacked_a.split(self.ranks)
        self.scaled_b = [b.detach().clone().to(dtype) for b in self.b]  # (out, r) each, times the scale
        self.put_aside: Any = None  # by the last `_Enter`
        self._kept: tuple[torch.Tensor, tuple[torch.Tensor, ...]] | None = None

    def take_over(self) -> None:
        for at, layer in enumerate(self._layers):
            layer.forward = self._forward(at)

    def give_back(self) -> None:
        self._kept = self.put_aside = None
        for layer in self._layers:
            del layer.forward

    def _forward(self, at: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(x: torch.Tensor) -> torch.Tensor:
            if self._kept is None or self._kept[0] is not x:
                states, low = _Enter.apply(x.reshape(-1, x.shape[-1]), self, *self.a)
                self._kept = (x, _Lora.apply(states, low, self, x.requires_grad, *self.a, *self.b))
            output = self._kept[1][at]
            if at == len(self._layers) - 1:
                self._kept = None
            return output.view(*x.shape[:-1], -1)

        return forward


class _Enter(torch.autograd.Function):
    """Takes A's product and saves what the backward pass needs, before the large products are taken.

    So recomputing activations can skip a block's last product, which is not needed again (8 % of the work). The
    parameters are arguments only so that the backward pass reaches this function in the first block too.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, group: _Group, *parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        low = x @ group.stacked_a.T  # (T, R)
        ctx.save_for_backward(x, low)
        ctx.mark_non_differentiable(low)
        group.put_aside = ctx
        return x.view_as(x), low

    @staticmethod
    def backward(ctx: Any, gradient: Any, _low: None) -> tuple[Any, ...]:  # type: ignore[override]
        return (gradient, None, *[None] * len(ctx.needs_input_grad[2:]))


class _Lora(torch.autograd.Function):
    """Computes all layers of a group at once: (T, in) → (T, out) each."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, low: torch.Tensor, group: _Group, goes_on: bool, *parameters: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.group, ctx.goes_on, ctx.aside = group, goes_on, group.put_aside
        parts = low.split_with_sizes(group.ranks, 1)
        return tuple(
            base.forward(x).addmm_(part, b.T) for base, b, part in zip(group.frozen, group.scaled_b, parts, strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        group: _Group = ctx.group
        x, low = ctx.aside.saved_tensors
        parts = [gradient @ b for gradient, b in zip(gradients, group.scaled_b, strict=True)]
        low_gradient = parts[0] if len(parts) == 1 else torch.cat(parts, 1)  # (T, R)
        of_x = None
        if ctx.goes_on:
            for base, gradient in zip(group.frozen, gradients, strict=True):
                of_x = base.backward(gradient, of_x)
            of_x = of_x.addmm_(low_gradient, group.stacked_a)  # type: ignore[union-attr]
        of_a = _exact(low_gradient.T, x, group.a[0].dtype).split_with_sizes(group.ranks)
        low_parts = low.split_with_sizes(group.ranks, 1)
        of_b = (
            _exact(gradient.T, part, b.dtype).mul_(scale)
            for gradient, part, b, scale in zip(gradients, low_parts, group.b, group.scales, strict=True)
        )
        return (of_x, None, None, None, *of_a, *of_b)


def _exact(left: torch.Tensor, right: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns a product over all tokens in the adapter's dtype. The GPU sums in float32 in any case."""
    if left.is_cuda and dtype is torch.float32 and left.dtype is not dtype:
        return torch.mm(left, right, out_dtype=dtype)
    return (left @ right).to(dtype)


# --- the section `train` in the words of PEFT ----------------------------------------------------------------------

OWN = ("r", "lora_alpha", "lora_dropout", "target_modules")
"""Settings of PEFT that are fields of the section `train` itself."""

NOT_OURS = ("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
            "inference_mode", "runtime_config", "megatron_config", "megatron_core")  # fmt: skip
"""Settings of PEFT that a user cannot choose here."""

REWRITES_THE_BASE = ("pissa", "loftq", "olora", "corda", "lora_ga")
"""Initialisations that change the base weights. Their adapter fits only the changed base, which is not published."""


def lora_config(config: EnhancedTrainingConfig) -> LoraConfig:
    """Returns the section `train` as PEFT's configuration."""
    return LoraConfig(**{name: getattr(config, name) for name in OWN}, task_type="CAUSAL_LM", **config.peft)


def peft_faults(settings: dict[str, Any]) -> list[Fault]:
    """Returns a fault for each setting in `train.peft` that PEFT does not know or that we do not support."""
    known = [name for name in inspect.signature(LoraConfig).parameters if name not in (*OWN, *NOT_OURS)]
    faults = []
    for name, value in settings.items():
        where = f"train.peft.{name}"
        start = next((word for word in REWRITES_THE_BASE if word in f"{name} {value}".lower()), None)
        if name in OWN:
            faults.append(Fault(where, f"train.{name} instead", Shown("it here")))
        elif start:
            fix = "Leave it out: the adapter has to fit the base as it was published."
            faults.append(Fault(where, "a start that leaves the base weights as they are", value, fix))
        elif name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
            faults.append(Fault(where, "a setting of PEFT's LoraConfig", Shown("an unknown one"), fix))
    return faults

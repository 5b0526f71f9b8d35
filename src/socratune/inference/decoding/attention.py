"""A cache of fixed shape, and the attention over it, which replaces the model's own.

transformers looks an attention up by name at every call. The registered name acts as the original, unless a call passes
a `SlotCache`: then keys and values go into its slots. Other users of the model notice nothing.
"""

from __future__ import annotations

import logging
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from socratune.inference.decoding.compilers import error_line
from socratune.inference.decoding.fusing import Fused
from socratune.inference.decoding.growing import kept

PREFIX = "slots_or_"
log = logging.getLogger(__name__)
_UNKNOWN = ("softcap", "s_aux", "position_bias")  # options beyond plain attention


class SlotCache:
    """Keys and values of S slots of L positions. A layer's tensors are made at its first call.

    Attributes:
        filling: (B,) slots whose prompts are read; None while every slot gets one token.
        positions: (S,) position of the token that every slot gets next.
        fused: the parts of the model that are replaced at each call.
        limit: positions that are read without the kernel; at least the highest position plus one.
        windows: how many of the last positions each layer attends to; None for all.
    """

    def __init__(self, config: Any, slots: int, length: int, device: torch.device) -> None:
        self.slots, self.length = slots, length
        self.windows = kept(config) or []
        self.filling: torch.Tensor | None = None
        self.positions = torch.zeros(slots, dtype=torch.long, device=device)
        self.limit = length
        self.kernel = _kernel(device)
        self.fused: Fused | None = None
        self._every = torch.arange(slots, device=device)
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._calls = 0

    @property
    def position_bytes(self) -> int:
        """Returns the bytes of one position of one slot, in all layers called so far."""
        tensors = [states for pair in self._layers.values() for states in pair]
        return sum(t.nbytes for t in tensors) // (self.slots * self.length)

    def forward(self, model: Any, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Maps `(B, T)` tokens at their positions to the logits `(B, V)` after the last, and writes the cache.

        Raises:
            NotImplementedError: the model's attention is not, or not always, the one that was replaced.
        """
        self._calls = 0
        _take_over(model)
        if self.fused is None:
            self.fused = Fused(model)
        with self.fused.inside():
            out = model(
                input_ids=ids,
                attention_mask=ids.new_ones(
                    1, 1, 1, 1, dtype=torch.bool
                ),  # four dimensions count as a ready mask, which is not used
                position_ids=positions,
                use_cache=False,
                logits_to_keep=1,
                slots=self,
            )
        if not self._calls or self._calls != len(self._layers):
            raise NotImplementedError("not every layer attends through transformers' attention interface")
        return out.logits[:, -1]

    def attend(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None = None,
    ) -> torch.Tensor:
        """Writes a layer's `(B, K, T, D)` keys and values and attends: query `(B, H, T, D)` → `(B, T, H, D)`."""
        self._calls += 1
        layer = module.layer_idx
        if window != self.windows[layer]:
            raise NotImplementedError(
                f"layer {layer} attends to {window} tokens, its config says {self.windows[layer]}"
            )
        if layer not in self._layers:
            self._layers[layer] = (self._empty(key), self._empty(value))
        keys, values = self._layers[layer]
        if self.filling is not None:
            keys[self.filling, :, : key.shape[2]] = key
            values[self.filling, :, : value.shape[2]] = value
            shared = query.shape[1] != key.shape[1]
            near = None if window is None or window >= key.shape[2] else _band(key.shape[2], window, key.device)
            mixed = _sdpa(query, key, value, near, is_causal=near is None, scale=scale, enable_gqa=shared)
            return mixed.transpose(1, 2)
        if self.kernel is not None and key.shape == value.shape:
            return self.kernel(query, key, value, keys, values, self.positions, scale, window)
        keys[self._every, :, self.positions] = key[:, :, 0]
        values[self._every, :, self.positions] = value[:, :, 0]
        at = torch.arange(self.limit, device=query.device)
        seen = at <= self.positions[:, None]
        if window is not None:
            seen &= at > self.positions[:, None] - window
        # The query heads that share a key head become its queries: no key is copied, and one mask fits all.
        query = query.reshape(self.slots, key.shape[1], -1, query.shape[-1])
        mixed = _sdpa(
            query, keys[:, :, : self.limit], values[:, :, : self.limit], attn_mask=seen[:, None, None], scale=scale
        )
        return mixed.reshape(self.slots, 1, -1, value.shape[-1])

    def _empty(self, states: torch.Tensor) -> torch.Tensor:
        return states.new_zeros(self.slots, states.shape[1], self.length, states.shape[3])


@cache
def _kernel(device: torch.device) -> Any:
    """Returns the GPU kernel if it can be built and runs here; a machine may lack a C compiler."""
    if device.type != "cuda" or not find_spec("triton"):
        return None
    try:
        from socratune.inference.decoding.kernel import attend_slots

        one = torch.ones(1, 1, 1, 64, device=device, dtype=torch.bfloat16)
        attend_slots(
            one.clone(), one, one, one.clone(), one.clone(), torch.zeros(1, dtype=torch.long, device=device), 1.0
        )
    except Exception as error:  # building it may fail in many ways, and it is not needed
        log.info("The student is decoded without its GPU kernel: %s", error_line(error))
        return None
    return attend_slots


_sdpa = torch.nn.functional.scaled_dot_product_attention


def _band(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Returns what each of `length` tokens attends to: itself and its predecessors, `window` in all."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - window)


def replaceable(model: Any) -> bool:
    """Returns True if every layer attends to all or the last tokens, by an attention that is looked up by name."""
    if not isinstance(model, torch.nn.Module) or len({weight.device for weight in model.parameters()}) != 1:
        return False
    config: Any = model.config
    return kept(config) is not None and config.get_text_config()._attn_implementation in ALL_ATTENTION_FUNCTIONS


def hand_back(model: Any) -> None:
    """Undoes what decoding in slots changed in the model, since compiled training code reads the attention's name."""
    config = model.config.get_text_config()
    if (name := config._attn_implementation or "").startswith(PREFIX):
        config._attn_implementation = name.removeprefix(PREFIX)


def _take_over(model: Any) -> None:
    """Replaces the model's attention until `hand_back`."""
    config = model.config.get_text_config()
    replaced = config._attn_implementation
    if replaced.startswith(PREFIX):
        return
    name = PREFIX + replaced
    AttentionInterface.register(name, partial(_attention, ALL_ATTENTION_FUNCTIONS[replaced]))
    if replaced in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[replaced])
    config._attn_implementation = name


def _attention(
    replaced: Any, module: Any, query: Any, key: Any, value: Any, mask: Any, *, slots: Any = None, **options: Any
) -> tuple[torch.Tensor, Any]:
    """Calls the replaced attention, unless `slots` holds the earlier tokens."""
    if slots is None:
        return replaced(module, query, key, value, mask, **options)
    if unknown := [name for name in _UNKNOWN if options.get(name) is not None]:
        raise NotImplementedError(f"attention with {', '.join(unknown)}")
    return slots.attend(module, query, key, value, options["scaling"], options.get("sliding_window")), None

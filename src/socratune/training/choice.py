"""Which back end trains, and why."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown, UserError
from socratune.inference import ENOUGH_TOKENS, Shape, plan_memory

UNSLOTH_FAMILIES = frozenset(
    ("cohere", "falcon_h1", "gemma", "gemma2", "gemma3", "gemma3_text", "granite", "llama", "mistral", "qwen2", "qwen3")
)
"""`model_type`s that Unsloth has fast code for."""


def choose_backend(
    asked: Literal["auto", "hf", "unsloth"],
    model: Mapping[str, Any],
    config: EnhancedTrainingConfig,
    *,
    free_gib: float | None,
) -> tuple[str, str]:
    """`hf` or `unsloth`, and the reason for people.

    `auto` takes `hf`, which is faster on packed rows and equal on others, as long as the model fits that way.

    Args:
        model: the values of its `config.json`.
        free_gib: free memory of the card, weights included; None without a CUDA GPU.

    Raises:
        UserError: `unsloth` was asked for and is not installed, or cannot do it.
    """
    installed = find_spec("unsloth") is not None
    if asked == "hf":
        return "hf", "asked for"
    if asked == "unsloth":
        for name, given in (("method: dpo", config.method == "dpo"), ("fp8: true", config.fp8)):
            if given:
                raise UserError(Fault("--backend unsloth", "what Unsloth can do", Shown(name), "--backend hf."))
        if not installed:
            fix = "pip install 'socratune[gpu]', or --backend hf."
            raise UserError(Fault("--backend unsloth", "the package unsloth", Shown("not installed"), fix))
        return "unsloth", "asked for"
    family = model.get("text_config", model).get("model_type", "")
    if free_gib is None:
        return "hf", "there is no CUDA GPU, for which Unsloth's kernels are written"
    if not installed or config.method == "dpo" or config.fp8:
        return "hf", "Unsloth has neither dpo on packed rows nor fp8" if installed else "Unsloth is not installed"
    if family not in UNSLOTH_FAMILIES:
        return "hf", f"Unsloth has no fast code for models of the family {family!r}"
    try:
        shape = Shape.of(model)
    except KeyError as missing:
        return "hf", f"the model's memory cannot be counted ({missing} is not in its configuration)"
    four_bit = None if config.load_in_4bit == "auto" else config.load_in_4bit
    longest = ENOUGH_TOKENS if config.max_seq_length == "auto" else config.max_seq_length
    if plan_memory(shape, free_gib, longest=longest, rank=config.r, load_in_4bit=four_bit):
        return "hf", "the model fits, and packed rows are faster there than in Unsloth (1.3 to 1.6 times on one H200)"
    return "unsloth", f"the model does not fit {free_gib:.1f} GiB otherwise; Unsloth keeps activations in main memory"

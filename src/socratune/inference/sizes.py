"""Finds how large a model is without its weights: by its `config.json`, by counting, or by its files or name."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.inference.memory import Shape, is_exact
from socratune.llm import model_fault, model_file, model_json

_LIKE = (
    Shape(896, 24, 14, 2, 64, 4864, 151936, tied=True),
    Shape(2048, 16, 32, 8, 64, 8192, 128256, tied=True),
    Shape(3072, 28, 24, 8, 128, 8192, 128256, tied=True),
    Shape(4096, 32, 32, 8, 128, 14336, 128256),
    Shape(5120, 48, 40, 8, 128, 13824, 152064),
    Shape(5120, 64, 40, 8, 128, 27648, 152064),
    Shape(8192, 80, 64, 8, 128, 28672, 128256),
    Shape(16384, 126, 128, 8, 128, 53248, 128256),
)
"""Models of 0.5 to 405 billion parameters. The nearest one describes a model whose size alone is known."""
BY_CONFIG, BY_COUNT, BY_WEIGHTS, BY_NAME = "its config.json", "counting it", "its weight files", "its name"
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}
_IN_NAME = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")


@dataclass(frozen=True, slots=True)
class Size:
    """A model's shape, and how it is known.

    Attributes:
        by: one of the constants above; only by config and by count it is exact.
        four_bit: True if its weights are 4-bit, whatever the settings say.
    """

    shape: Shape
    by: str
    four_bit: bool = False


def size_of(name: str, where: str = "--model") -> Size:
    """Returns the size of a model: a folder, a Hub id, or `demo`.

    Raises:
        UserError: there is no such model, or nothing tells how large it is.
        OutsideError: the Hub could not be asked, and the name does not tell it either.
    """
    try:
        if fault := model_fault(name, where):
            raise UserError(fault)
        config = model_json(name, "config.json")
    except OutsideError as error:
        if shape := _by_name(name):
            return Size(shape, BY_NAME)
        raise OutsideError(f"{error} Nor does its name say how large it is.") from error
    four_bit = bool((config.get("quantization_config") or {}).get("load_in_4bit"))
    if is_exact(config):
        return Size(Shape.of(config), BY_CONFIG, four_bit)
    if shape := _by_count(config):
        return Size(shape, BY_COUNT, four_bit)
    if shape := _by_weights(name, config):
        return Size(shape, BY_WEIGHTS)
    if shape := _by_name(name):
        return Size(shape, BY_NAME)
    fix = "Name a model that transformers knows, or one with a size in its name, like 8B."
    got = Shown(f"model_type {config.get('model_type')!r}, no weight files")
    raise UserError(Fault(f"{where} {name}", "a model whose size can be told", got, fix))


def model_on_meta(config: Mapping[str, Any]) -> Any:
    """Returns the model that transformers builds from a `config.json`, on the meta device; None if it cannot."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    try:
        known = AutoConfig.for_model(**{key: value for key, value in config.items() if key != "quantization_config"})
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(known)
    except Exception as error:  # unknown kinds and values fail in many ways
        logging.getLogger(__name__).debug("Not made: %s", error)
        return None


def _by_count(config: Mapping[str, Any]) -> Shape | None:
    """Returns the shape with all parameters counted."""
    import torch

    model = model_on_meta(config)
    if model is None:
        return None
    inside = [module for name, module in model.named_modules() if re.search(r"\.\d+\.", name)]
    linear = [module for module in inside if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"]
    total = sum(weight.numel() for weight in model.parameters())
    in_blocks: int = sum(module.weight.numel() for module in linear)  # pyright: ignore[reportCallIssue]
    return replace(_about(model.config.get_text_config(), total), counted=(total, in_blocks))


def _about(config: Any, parameters: int) -> Shape:
    """Returns the shape of a kind that the arithmetic does not know, as far as its configuration tells it."""
    try:
        return Shape.of(config.to_dict())
    except (KeyError, TypeError):  # names of its own, which transformers translates
        pass
    try:
        hidden, heads = config.hidden_size, config.num_attention_heads
        inner = getattr(config, "intermediate_size", None) or 4 * hidden
        return Shape(hidden, config.num_hidden_layers, heads, heads, hidden // heads, inner, config.vocab_size)
    except (AttributeError, TypeError):  # no attention at all
        return _like(parameters)


def _by_weights(name: str, config: Mapping[str, Any]) -> Shape | None:
    """Returns the shape by the index of several weight files, or the header of a single one."""
    index = model_json(name, "model.safetensors.index.json").get("metadata", {})
    total = index.get("total_parameters")
    if not total and (size := index.get("total_size")):
        total = size // _BYTES.get(str(config.get("dtype") or config.get("torch_dtype")), 2)
    file = model_file(name, "model.safetensors") if Path(name).is_dir() else None  # never downloaded for this
    if not total and file:
        from safetensors import safe_open

        with safe_open(file, "np") as weights:
            total = sum(math.prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
    return _like(total) if total else None


def _by_name(name: str) -> Shape | None:
    """Returns the shape by the name: `70B` is 70 billion; `8x7B` has eight experts that share a sixth of them."""
    match = _IN_NAME.search(name.rsplit("/", 1)[-1].lower())
    if match is None:
        return None
    experts, number, unit = match.groups()
    total = float(number) * (1e9 if unit == "b" else 1e6)
    return _like(round(total * int(experts) * 5 / 6 if experts else total))


def _like(parameters: int) -> Shape:
    nearest = min(_LIKE, key=lambda shape: abs(math.log(shape.parameters / parameters)))
    outside = nearest.parameters - nearest.block_parameters
    return replace(nearest, counted=(parameters, max(parameters - outside, parameters // 2)))

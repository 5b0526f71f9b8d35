"""Checks that an adapter's files are intact and fit their base, before PEFT loads them.

Reads only headers and tensors of the adapter, and configuration and tokenizer of the base, never its weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from socratune.evaluation.question_sets import meter_rows
from socratune.inference import load_tokenizer
from socratune.llm import model_location, weights_hash
from socratune.runs import PROVENANCE, file_hash

WEIGHTS = "adapter_model.safetensors"
REQUIRED_FILES = ("adapter_config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json")
_SHOWN = 3
"""Number of layers that a problem names. The rest is counted."""

Shapes = dict[str, tuple[int, ...]]


def file_integrity(adapter: Path, model_name: str) -> dict[str, Any]:
    """Returns `passed`, the `problems` in words, and the `sha256` of every file in the folder by its relative path.

    Args:
        adapter: folder of a PEFT adapter with its tokenizer.
        model_name: the base that it was trained for: folder, Hub id or `demo`.
    """
    problems = [f"{name} is missing" for name in REQUIRED_FILES if not (adapter / name).is_file()]
    config, faults = _config(adapter / "adapter_config.json")
    problems += faults
    shapes: Shapes = {}
    if (adapter / WEIGHTS).is_file():
        shapes, faults = _weights(adapter / WEIGHTS)
        problems += faults
    if not problems:
        problems = base_problems(config, shapes, model_name) or _tokenizer_problems(adapter, model_name)
    return {"passed": not problems, "problems": problems, "sha256": adapter_manifest(adapter)}


def adapter_manifest(adapter: Path) -> dict[str, str]:
    """Returns the sha256 of every file in the folder by its relative path, except `provenance.json`."""
    files = sorted(path for path in adapter.rglob("*") if path.is_file())
    return {path.relative_to(adapter).as_posix(): file_hash(path) for path in files if path != adapter / PROVENANCE}


def _config(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Reads the adapter's configuration and returns it with its problems."""
    if not path.is_file():
        return {}, []
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError:
        return {}, [f"{path.name} is not JSON"]
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        return {}, [f"{path.name} does not describe a LoRA adapter"]
    return config, []


def _weights(path: Path) -> tuple[Shapes, list[str]]:
    """Returns the shape of every tensor, and the problems of the file or its numbers."""
    from safetensors import SafetensorError, safe_open

    shapes: Shapes = {}
    largest: dict[str, float] = {}
    try:
        with safe_open(str(path), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                tensor = tensors.get_tensor(name)
                shapes[name] = tuple(tensor.shape)
                largest[name] = float(tensor.float().abs().max()) if tensor.numel() else 0.0
    except (SafetensorError, OSError, ValueError) as error:
        return {}, [f"{path.name} cannot be read ({error})"]
    if not any(".lora_" in name for name in shapes):
        return {}, [f"{path.name} holds no LoRA matrix"]
    problems = [
        f"{name} holds a value that is not finite" for name, value in largest.items() if not math.isfinite(value)
    ]
    learned = [value for name, value in largest.items() if "lora_B" in name or "lora_embedding_B" in name]
    if learned and not any(learned):
        problems.append("the adapter is untrained: every lora_B matrix is zero")
    return shapes, problems


# --- the base ------------------------------------------------------------------------------------------------------


def base_problems(config: dict[str, Any], shapes: Shapes, model_name: str) -> list[str]:
    """Returns why the adapter belongs to another base than `model_name`, and an empty list if it fits.

    Args:
        config: `adapter_config.json`.
        shapes: shapes of the adapter's tensors.
        model_name: the base.
    """
    recorded = str(config.get("base_model_name_or_path") or "")
    if _another_model(recorded, model_name):
        return [f"the adapter was made for another base: {recorded}, not {model_name}"]
    misfits = list(_misfits(config, shapes, _base_layers(model_name)))
    if not misfits:
        return []
    more = f" and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
    return [f"the adapter is for another base than {model_name}: {'; '.join(misfits[:_SHOWN])}{more}"]


def _another_model(recorded: str, model_name: str) -> bool:
    """Returns True if the name in the adapter is surely another model's. A folder that was moved proves nothing."""
    ours = model_location(model_name)
    if not recorded or recorded == ours:
        return False
    folders = Path(recorded).is_dir(), Path(ours).is_dir()
    if all(folders):
        theirs = weights_hash(recorded)
        return theirs is not None and theirs != weights_hash(model_name)
    return not any(folders) and recorded.count("/") == ours.count("/") == 1


def _base_layers(model_name: str) -> Shapes:
    """Maps the path of each layer to (out, in) if it is linear, else to its weight's shape. Reads no weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_location(model_name)))
    found: Shapes = {}
    for path, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        shape = tuple(weight.shape) if weight is not None else ()
        found[path] = shape[::-1] if isinstance(layer, Conv1D) else shape
    return found


def _misfits(config: dict[str, Any], shapes: Shapes, base: Shapes) -> Iterator[str]:
    """Yields the parts of the adapter that do not fit the base."""
    ranks = {config.get("r"), *(config.get("rank_pattern") or {}).values()}
    for name, shape in shapes.items():
        layer, _, kind = name.removeprefix("base_model.model.").replace(".base_layer", "").partition(".lora_")
        if not kind:
            continue  # a full copy of a layer (modules_to_save), which PEFT compares itself
        if layer not in base:
            yield f"{layer} is not in it"
            continue
        wanted = base[layer]
        if len(wanted) != 2 or len(shape) != 2:
            continue
        side, rank, ours = (shape[1], shape[0], wanted[1]) if kind.startswith("A") else (shape[0], shape[1], wanted[0])
        if kind.startswith(("A", "B")) and side != ours:
            yield f"{layer} has {ours} {'inputs' if kind.startswith('A') else 'outputs'}, the adapter {side}"
        elif kind.startswith(("A", "B")) and rank not in ranks:
            yield f"{layer} has rank {rank}, adapter_config.json says {config.get('r')}"


def _tokenizer_problems(adapter: Path, model_name: str) -> list[str]:
    """Returns how the adapter's tokenizer behaves differently from the base's."""
    from transformers import AutoTokenizer

    ours = load_tokenizer(model_name)
    try:
        theirs = AutoTokenizer.from_pretrained(adapter)
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        return [f"the adapter's tokenizer cannot be read ({str(error).splitlines()[0] if str(error) else error!r})"]
    problems = []
    if ours.chat_template != theirs.chat_template:
        problems.append("the adapter's chat template is not the base's")
    if _what_it_does(ours) != _what_it_does(theirs):
        problems.append("the adapter's tokenizer is not the base's")
    return problems


def _what_it_does(tokenizer: Any) -> Any:
    """Returns its vocabulary, its special tokens, and the ids of texts in twelve languages.

    Not its file: versions of the library write the same tokenizer differently, and the caller sets the padding.
    """
    marks = {name: str(mark) for name, mark in tokenizer.special_tokens_map.items() if name != "pad_token"}
    texts = [row.question for row in meter_rows()]
    return tokenizer.get_vocab(), marks, tokenizer(texts, add_special_tokens=False)["input_ids"]

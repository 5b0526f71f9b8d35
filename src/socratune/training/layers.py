"""Checks before the weights are loaded that the names in a LoRA's settings exist in the model.

PEFT itself puts the adapter on the model on the meta device, so that whatever it refuses is refused now. Every name
must match something, since a name without a match silently trains less.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown, one_line
from socratune.inference import model_on_meta, note, recall
from socratune.llm import model_json, model_location

log = logging.getLogger(__name__)

_SHOWN = 24
_NUMBERED = re.compile(r"\.(\d+)(?:\.|$)")


def layer_faults(name: str, config: EnhancedTrainingConfig) -> list[Fault]:
    """Returns a fault for each of a LoRA's settings that matches nothing in a model or cannot be applied to it.

    Args:
        name: a folder, a Hub id, or `demo`. If transformers cannot build the model, its weight files give the names.

    Raises:
        OutsideError: the model is on the Hub, and the Hub could not be asked.
    """
    if config.peft:
        from socratune.training.adapters import peft_faults  # imports torch

        if peft_faults(config.peft):
            return []  # the settings' own check reports them
    of = config.model_dump(mode="json")
    if recall(name, "layers", of) is None:
        if faults := _faults(name, config):
            return faults
        note(name, "layers", of, value=True)
    return []


def _faults(name: str, config: EnhancedTrainingConfig) -> list[Fault]:
    from socratune.training.adapters import lora_config  # imports torch, as does what follows

    try:
        wanted = lora_config(config)
    except Exception as error:  # PEFT raises errors of many kinds
        return [Fault("train.peft", "settings that PEFT takes", one_line(error), "See PEFT's LoraConfig.")]
    model = model_on_meta(model_json(name, "config.json"))
    if model is None:
        return _by_weights(name, config)
    names = [path for path, _ in model.named_modules() if path]
    linear = [path for path, module in model.named_modules() if _is_linear(module)]
    has = f"{name} has {_listed(path.rpartition('.')[2] for path in linear)}."
    parameters, size = [path for path, _ in model.named_parameters()], model.get_input_embeddings().weight.shape[0]
    if faults := [*_unmatched(config, names, parameters, has), *_unknown_tokens(config, size)]:
        return faults
    return _put_on(model, wanted, config, has)


def _by_weights(name: str, config: EnhancedTrainingConfig) -> list[Fault]:
    """Returns the faults by the names in a model's weight files; none if these are not at hand."""
    weights: list[str] = [*(model_json(name, "model.safetensors.index.json").get("weight_map") or ())]
    file = Path(model_location(name)) / "model.safetensors"
    if not weights and file.is_file():
        from safetensors import safe_open

        with safe_open(file, "np") as stream:
            weights = list(stream.keys())
    names = list(dict.fromkeys(path.rpartition(".")[0] for path in weights))
    has = f"{name} has {_listed(path.rpartition('.')[2] for path in names)}."
    return [*_unmatched(config, names, weights, has)] if names else []


def _is_linear(module: Any) -> bool:
    from torch.nn import Linear

    return isinstance(module, Linear) or type(module).__name__ == "Conv1D"


def _listed(names: Iterable[Any]) -> str:
    distinct = list(dict.fromkeys(map(str, names)))
    return ", ".join(distinct[:_SHOWN]) + (", …" if len(distinct) > _SHOWN else "")


def _strings(value: Any) -> list[str]:
    return [str(name) for name in (value if isinstance(value, list | tuple | dict) else [value])] if value else []


def _ends(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _unmatched(config: EnhancedTrainingConfig, names: list[str], parameters: list[str], has: str) -> Iterator[Fault]:
    """Yields a fault for every setting with names, or numbers of layers, that nothing in the model has."""
    peft, targets = config.peft, config.target_modules
    numbers = sorted({int(number) for path in names for number in _NUMBERED.findall(path)})
    layers = f"It has layers {numbers[0]} to {numbers[-1]}." if numbers else "Its layers have no numbers."

    def missing(value: Any, among: list[str], matches: Callable[[str, str], Any]) -> list[str]:
        return [name for name in _strings(value) if not any(matches(path, name) for path in among)]

    def excluded(path: str, name: str) -> bool:
        return _is_pattern_of(name, path) if isinstance(peft.get("exclude_modules"), str) else _ends(path, name)

    def listed(path: str, name: str) -> bool:
        return f".{name}." in f".{path}."

    last = [path.rpartition(".")[2] for path in names]
    modules = f"It has {_listed(name for name in last if not name.isdigit())}."
    lists = f"It has {_listed(path for path in names if f'{path}.0' in names)}."
    targeted = [] if isinstance(targets, str) else missing(targets, names, _ends)
    numbered = [str(number) for number in _numbers(peft.get("layers_to_transform")) if number not in numbers]
    checks: tuple[tuple[str, list[str], str, str], ...] = (
        ("target_modules", targeted, "layers", has),
        ("peft.modules_to_save", missing(peft.get("modules_to_save"), names, str.endswith), "modules", modules),
        ("peft.exclude_modules", missing(peft.get("exclude_modules"), names, excluded), "layers", has),
        ("peft.layers_pattern", missing(peft.get("layers_pattern"), names, listed), "lists of layers", lists),
        ("peft.target_parameters", missing(peft.get("target_parameters"), parameters, _ends), "parameters", has),
        ("peft.layers_to_transform", numbered, "numbers of layers", layers),
    )
    for key, wrong, kind, fix in checks:
        if wrong:
            yield Fault(f"train.{key}", f"{kind} of the model", Shown(f"{', '.join(wrong)}, which match none"), fix)


def _numbers(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _put_on(model: Any, wanted: Any, config: EnhancedTrainingConfig, has: str) -> list[Fault]:
    """Returns what PEFT refuses, and the names that match only what another setting excludes."""
    import torch
    from peft import get_peft_model

    where = "train.target_modules" if not config.peft else "train.target_modules and train.peft"
    try:
        with warnings.catch_warnings(), torch.device("meta"):  # so that the adapter's own weights take no memory
            warnings.simplefilter("ignore")
            adapted: Any = get_peft_model(model, wanted)
    except Exception as error:  # PEFT raises errors of many kinds
        if "meta" in str(error):  # it needs values, which will exist then
            log.debug("Not put on: %s", error)
            return []
        return [Fault(where, "layers that LoRA can be put on", one_line(error), has)]
    reached = list(adapted.base_model.targeted_module_names)
    if not reached and not config.peft.get("target_parameters"):
        return [Fault(where, "layers that are left to train", Shown("none"), has)]
    return [*_idle(config, reached)]


def _idle(config: EnhancedTrainingConfig, reached: list[str]) -> Iterator[Fault]:
    """Yields a fault for names and numbers that the model has but of which nothing is trained."""
    peft, targets = config.peft, config.target_modules
    names = [] if isinstance(targets, str) else targets
    fix = f"Trained are {_listed(path.rpartition('.')[2] for path in reached)}."
    checks: tuple[tuple[str, list[Any], Callable[[str, Any], Any]], ...] = (
        ("target_modules", names, _ends),
        (
            "peft.layers_to_transform",
            _numbers(peft.get("layers_to_transform")),
            lambda path, number: f".{number}." in path,
        ),
        ("peft.rank_pattern", _strings(peft.get("rank_pattern")), lambda path, pattern: _is_pattern_of(pattern, path)),
        (
            "peft.alpha_pattern",
            _strings(peft.get("alpha_pattern")),
            lambda path, pattern: _is_pattern_of(pattern, path),
        ),
    )
    for key, wanted, matches in checks:
        if idle := [str(name) for name in wanted if not any(matches(path, name) for path in reached)]:
            yield Fault(f"train.{key}", "names and numbers of trained layers", Shown(", ".join(idle)), fix)


def _unknown_tokens(config: EnhancedTrainingConfig, size: Any) -> Iterator[Fault]:
    """Yields a fault for tokens to be trained for which the model has no row."""
    indices = config.peft.get("trainable_token_indices")
    ids = [token for part in indices.values() for token in part] if isinstance(indices, dict) else _numbers(indices)
    if wrong := [str(token) for token in ids if not isinstance(token, int) or not 0 <= token < size]:
        yield Fault("train.peft.trainable_token_indices", f"ids from 0 to {size - 1}", Shown(", ".join(wrong)))


def _is_pattern_of(pattern: Any, path: str) -> bool:
    try:
        return re.match(rf"(?:.*\.)?(?:{pattern})$", path) is not None
    except re.error:
        return False

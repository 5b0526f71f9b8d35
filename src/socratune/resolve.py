"""Builds the configuration: refuses unknown keys, reports every error at once, and records where each value comes from.

A value comes from, strongest first: a flag, the config file, the profile of the embedded model, the default.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from socratune.config import (
    DEMO,
    DEMO_DATA,
    FOREIGN_NAMES,
    MOVED,
    RENT_USD,
    EnhancedTrainingConfig,
    RunConfig,
    Section,
    read_template,
    section_faults,
    settings_of,
)
from socratune.errors import Fault, Shown, UserError

Kind = TypeVar("Kind", bound=Section)

METHOD_RATES = {"dpo": 0.1, "grpo": 0.3}
"""Learning rates as multiples of that of `sft`. dpo: 1e-5, ten times TRL's default for whole models, as TRL advises
for LoRA.
"""
BY_METHOD: dict[str, dict[str, Any]] = {
    "star": {"enhance.unsolved": "rewrite", "enhance.max_iterations": 1},
    "weights": {"enhance.enough": 64},  # a rate of all samples
    "grpo": {"enhance.enough": 64, "enhance.attempts": 8},  # whole groups
}
"""Settings that come with a method unless the user sets others."""

REQUIRED = ("model", "dataset", "output")
_OR_SOURCE = " (or --source or --env, to have the rows written)"


class Resolved(Section):
    """A complete configuration and the origin of its values."""

    config: RunConfig
    origins: dict[str, str]
    """`train.learning_rate` → `given` (file or flag), `demo profile`, `for METHOD` or `default`."""


def resolve_settings(given: dict[str, Any], *, where: str = "configuration") -> Resolved:
    """Returns the complete configuration for the given settings (a nested dict in the shape of the YAML file).

    Args:
        given: values from file and flags, already merged, without None.
        where: names the source in the faults.

    Raises:
        UserError: every unknown key, wrong type and missing value at once.
    """
    flat = flatten(renewed(given, where))
    if "train.model_name" in flat:
        flat.setdefault("model", flat["train.model_name"])
    for name in ("pod_name", "preferred_gpus"):  # the guide's place
        if (value := flat.pop(f"train.{name}", None)) is not None and flat.setdefault(f"where.{name}", value) != value:
            raise UserError(Fault(f"{where}: train.{name}", f"the same as where.{name}", value))
    profile: dict[str, Any] = flatten(demo_profile()) if flat.get("model") == DEMO else {}
    if source := flat.get("generate.source"):
        if flat.setdefault("dataset", source) != source:
            got, fix = flat["dataset"], "The rows are written out of the source, into qa.jsonl of the run folder."
            raise UserError(Fault(f"{where}: dataset", "none beside generate.source", got, fix))
    elif flat.get("dataset") == DEMO:
        profile.setdefault("split.held_out", DEMO)
    origin = dict.fromkeys(profile, "demo profile")
    if tasks := flat.get("env.tasks"):
        _take_environment(flat, str(tasks), where)
        origin = dict.fromkeys(ENVIRONMENT_ROLES, "for env") | origin
        profile = ENVIRONMENT_ROLES | profile
    if isinstance(method := flat.get("train.method"), str):
        own = {**BY_METHOD.get(method, {})}
        if method in METHOD_RATES:
            rate = profile.get("train.learning_rate", EnhancedTrainingConfig().learning_rate)
            own["train.learning_rate"] = rate * METHOD_RATES[method]
        profile |= own
        origin |= dict.fromkeys(own, f"for {method}")
    origin |= dict.fromkeys(flat, "given")
    config = validated(RunConfig, unflatten({**profile, **flat}), where)
    if flat.get("train.model_name") not in (None, config.model):
        expected = f"the model to train, {config.model!r}"
        raise UserError(Fault(f"{where}: train.model_name", expected, flat["train.model_name"]))
    origins = {name: origin.get(name, "default") for name in flatten(dump(config))}
    give_template(config.model, config.chat_template)
    return Resolved(config=config, origins=origins)


ENVIRONMENT_ROLES = {"enhance.judge_model": "rules/environment", "enhance.teacher_model": "rules/solution"}
"""The default judge and teacher of rows that come from an environment."""


def _take_environment(flat: dict[str, Any], tasks: str, where: str) -> None:
    """Replaces the data set with an environment."""
    if flat.get("generate.source"):
        raise UserError(Fault(f"{where}: env.tasks", "none beside generate.source", tasks, "Give one of them."))
    if flat.setdefault("dataset", tasks) != tasks:
        fix = "The environment makes the rows; for a test of your own give --held-out."
        raise UserError(Fault(f"{where}: dataset", "none beside env.tasks (--env)", flat["dataset"], fix))


_templates: dict[str, str] = {}
"""Maps a model to the chat template assigned to it. Everything that reads the files of a model must consult it."""


def give_template(model: str, template: str | None) -> None:
    """Assigns a chat template to a model in this process. None restores the template in the model's own files."""
    _templates.pop(model, None)
    if template is not None:
        _templates[model] = template


def take_template(model: str, meant: str, where: str = "--chat-template") -> None:
    """Assigns to a model the chat template that a setting means.

    Raises:
        UserError: there is none by that name.
    """
    try:
        give_template(model, read_template(meant))
    except ValueError as error:
        raise UserError(Fault(where, str(error), meant)) from None


def given_template(model: str) -> str | None:
    """Returns the chat template assigned to a model, or None if the model keeps its own."""
    return _templates.get(model)


def validated(kind: type[Kind], given: dict[str, Any], where: str) -> Kind:
    """Creates a section from plain values.

    Raises:
        UserError: every unknown key, wrong type and missing value at once.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        faults = section_faults(error, kind, given, where, nearest_key)
        raise UserError(*(_with_flag(fault, where) for fault in faults)) from None


def _with_flag(fault: Fault, where: str) -> Fault:
    """Returns the error with the name of the flag that sets a required setting."""
    name = fault.where.removeprefix(f"{where}: ")
    if name not in REQUIRED or fault.got != "nothing":
        return fault
    source = _OR_SOURCE if name == "dataset" else ""
    return replace(fault, fix=f"Give --{name}{source}, or '{name}:' in the config file.")


def renewed(given: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns `given` with the keys of earlier versions renamed to their present names (`config.MOVED`).

    Raises:
        UserError: a key is given under both names, with different values.
    """
    flat = flatten(given)
    if MOVED.keys().isdisjoint(flat):
        return given
    for old, new in MOVED.items():
        value = flat.pop(old, ...)
        if value is None:  # it was no limit
            value = "unlimited" if new == "budget.where" else ...
        elif (new, value) == ("budget.where", RENT_USD):  # the default, which every config.yaml of that time holds
            value = ...
        if value is ...:
            continue
        if flat.get(new) not in (None, value):
            raise UserError(Fault(f"{where}: {old}", f"the same as {new}, as it is called now", value))
        flat[new] = value
    return unflatten(flat)


def demo_profile() -> dict[str, Any]:
    """Returns settings that suit the embedded model of 0.4 million parameters. Other models keep the defaults."""
    return yaml.safe_load((DEMO_DATA / "profile.yaml").read_text("utf-8"))


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Returns the YAML mapping in a file.

    Raises:
        UserError: no such file, not text, not YAML, not a mapping.
    """
    where = f"--config {path}"
    try:
        text = Path(path).read_text("utf-8-sig")
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "bytes that are not UTF-8"
        raise UserError(Fault(where, "a readable YAML file", Shown(reason))) from None
    except RecursionError:
        raise UserError(Fault(where, "valid YAML", Shown("lists or mappings nested a thousand deep"))) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2024-13-45, which looks like a date
        raise UserError(Fault(where, "valid YAML", Shown(" ".join(str(error).split())))) from None
    if not isinstance(data, dict):
        raise UserError(Fault(where, "a mapping like 'train: {r: 16}'", data))
    return renewed(data, where)


def dump(config: BaseModel) -> dict[str, Any]:
    """Returns the configuration as plain nested values under the names of the YAML file."""
    return config.model_dump(mode="json", by_alias=True)


def defaults() -> dict[str, Any]:
    """Returns the default of every setting by its dotted name. A dash stands for a setting without a default."""
    return flatten(dump(RunConfig(**dict.fromkeys(REQUIRED, "-"))))


def to_yaml(resolved: Resolved) -> str:
    """Returns the resolved configuration as YAML. A comment gives the origin of each value that is not the default."""
    flat = flatten(dump(resolved.config))
    lines, section = ["# The configuration of this run. Values without a comment are defaults."], ""
    for name, value in flat.items():
        *parents, key = name.split(".")
        for depth, parent in enumerate(parents):
            prefix = ".".join(parents[: depth + 1])
            if not (section + ".").startswith(prefix + "."):
                lines.append(f"{'  ' * depth}{parent}:")
        section = ".".join(parents)
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).strip()
        text = text.removesuffix("\n...").removesuffix("...").strip()
        origin = resolved.origins[name]
        comment = "" if origin == "default" else f"  # {origin}"
        lines.append(f"{'  ' * len(parents)}{key}: {text}{comment}")
    return "\n".join(lines) + "\n"


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Converts `{"train": {"r": 16}}` to `{"train.r": 16}`. An empty mapping disappears.

    A mapping below `train.peft` whose keys are names of layers (`model.layers.0.mlp`) stays whole.
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        inner = value.model_dump(exclude_unset=True, by_alias=True) if isinstance(value, BaseModel) else value
        layers = prefix == "train.peft." and isinstance(inner, dict) and any("." in str(name) for name in inner)
        if isinstance(inner, dict) and not layers:
            flat.update(flatten(inner, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


def deep_merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merges two nested mappings; values in `over` win."""
    return unflatten({**flatten(under), **flatten(over)})


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """Inverts `flatten`.

    Raises:
        UserError: a name is both a value and a section.
    """
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, key = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UserError(Fault(parent, "a section", place, f"It also holds {name}."))
        place[key] = value
    return nested


def known_keys() -> list[str]:
    """Returns every dotted key of a run's configuration."""
    return [setting.key for setting in settings_of(RunConfig)]


MOST_NEAR = 8
"""The most keys that an error message names."""


def nearest_key(name: str) -> str:
    """Suggests what to write instead of an unknown key: 'Did you mean train.learning_rate?', or the few nearest
    keys.
    """
    section, _, leaf = name.rpartition(".")
    leaf = leaf.replace("-", "_").casefold()
    if meant := meant_by(leaf):
        return meant
    leaves: dict[str, list[str]] = {}
    for key in known_keys():
        leaves.setdefault(key.rpartition(".")[2].casefold(), []).append(key)
    for part in {key.split(".")[0] for key in known_keys() if "." in key}:  # a whole section, where none is named
        leaves.setdefault(part, []).insert(len(leaves.get(part, [])) if section else 0, part)
    if leaf in leaves:
        return f"Did you mean {' or '.join(leaves[leaf][:MOST_NEAR])}?"
    spelt = [one for one in difflib.get_close_matches(leaf, leaves, n=MOST_NEAR, cutoff=0.7) if len(one) > 2]
    if spelt and len(leaf) > 2:  # two letters are near to anything
        return f"Did you mean {_first_of(section, leaves[spelt[0]])}?"
    words = set(leaf.split("_"))
    near = [key for one, keys in leaves.items() if words & set(one.split("_")) for key in keys]
    near = sorted(near, key=lambda key: not key.startswith(f"{section}.")) or [
        key for key in known_keys() if section and key.startswith(f"{section}.")
    ]
    shown = f"Near it: {', '.join(near[:MOST_NEAR])}. " if near else ""
    return f"{shown}All keys: docs/reference/config.md."


def _first_of(section: str, keys: list[str]) -> str:
    """Returns, of several keys with the same ending, the one in this section or in the one that encloses it."""
    while section:
        if inside := [key for key in keys if key.startswith(f"{section}.")]:
            return inside[0]
        section = section.rpartition(".")[0]
    return keys[0]


def meant_by(name: str) -> str:
    """Translates another trainer's name for a setting into a sentence. It returns "" if no known trainer uses the
    name.
    """
    found = next((meant for meant, names in FOREIGN_NAMES.items() if name in names.split()), "")
    return found if not found or found.endswith(".") else f"Did you mean {found}?"

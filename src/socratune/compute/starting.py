"""Writes an initial configuration: the settings to consider, and what is known of model and data."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from socratune.compute.outlook import loop_outlook
from socratune.compute.plan import make_plan
from socratune.config import RunConfig, Setting, settings_of
from socratune.resolve import Resolved, flatten

WORTH_A_THOUGHT = (
    "max_usd", "hub_id",
    "split.held_out",
    "enhance.judge_model", "enhance.teacher_model", "enhance.attempts", "enhance.max_iterations",
    "enhance.max_new_tokens", "enhance.thinking_format",
    "curate.max_hinted_share", "curate.replay_share",
    "train.max_seq_length", "train.r", "train.lora_alpha", "train.num_train_epochs", "train.learning_rate",
    "validate.gate.min_gain", "validate.gate.max_forgetting",
    "where.place",
)  # fmt: skip
"""Dotted keys, in the order in which a run uses them."""
_GIVEN = ("model", "chat_template", "dataset", "env.tasks", "generate.source", "output")


def starting_config(resolved: Resolved) -> str:
    """Returns the text of a `run.yaml` for these settings, with further settings to consider as comments.

    It begins with what is known of model and data: size, rows, where it would be trained and why, and whether rules can
    judge the answers. The file means the same run as the settings.

    Raises:
        UserError: there is no such model or data set.
        OutsideError: the Hub could not be asked.
    """
    config = resolved.config
    plan, outlook = make_plan(config), loop_outlook(resolved, anew=True)
    notes = [
        "Check it: socratune plan --config FILE. Start it: socratune run --config FILE.",
        "A setting behind # shows its default. To change it, remove the #, also before its section.",
        f"{plan.size.shape.parameters / 1e6:,.1f} million parameters, {plan.load.rows} rows.",
        f"Trained: {plan.decision.where}; {plan.decision.reason}.",
        *(fault.fix or str(fault) for fault in outlook.faults),
        *outlook.notices,
        *plan.cautions,
    ]
    values = flatten(config.model_dump(mode="json", by_alias=True))
    given = {key for key in values if resolved.origins.get(key) == "given"}
    lines = [*_comment("\n".join(notes)), ""]
    known = {setting.key: setting for setting in settings_of(RunConfig)}
    keys = [*(key for key in _GIVEN if key in given), *WORTH_A_THOUGHT]
    keys += [key for key in given if key not in keys]
    return "\n".join([*lines, *_tree({key: known[key] for key in keys if key in known}, values, given)]) + "\n"


def _comment(text: str, indent: str = "") -> list[str]:
    width = 110 - len(indent)
    return [f"{indent}# {line}" for part in text.splitlines() for line in textwrap.wrap(part, width) or [""]]


def _tree(settings: dict[str, Setting], values: dict[str, Any], given: set[str], prefix: str = "") -> Iterator[str]:
    """Yields the settings below a prefix as YAML. A section without a given setting is a comment itself."""
    indent = "  " * prefix.count(".")
    done: set[str] = set()
    for key, setting in settings.items():
        if not key.startswith(prefix):
            continue
        name, dot, _ = key.removeprefix(prefix).partition(".")
        if not dot:
            yield from _comment(setting.meaning, indent)
            text = yaml.safe_dump({name: values.get(key)}, default_flow_style=True, allow_unicode=True, width=10_000)
            yield f"{indent}{'' if key in given else '# '}{text.strip().removeprefix('{').removesuffix('}')}"
        elif name not in done:
            done.add(name)
            section = f"{prefix}{name}."
            yield "" if not prefix else f"{indent}#"
            yield f"{indent}{'' if any(key.startswith(section) for key in given) else '# '}{name}:"
            yield from _tree(settings, values, given, section)

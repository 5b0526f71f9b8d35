"""The configuration that a command was given: file, `--set` and flags, and everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from socratune.errors import Fault, UserError
from socratune.preflight import check_run
from socratune.resolve import Resolved, deep_merge, flatten, read_config_file, renewed, unflatten
from socratune.runs import stage_faults

Stages = tuple[str | None, str | None, str | None]
"""First stage, last stage, first stage to redo."""


def resolved_by(
    given: dict[str, Any],
    config_file: str | None,
    settings: list[str],
    stages: Stages,
    known: Sequence[Fault],
) -> Resolved:
    """Returns the configuration of a command that can begin. All faults come at once."""
    faults = [*known, *stage_faults(*stages)]
    start, until, restart = stages if not faults else (None, None, None)
    merged, wrong = merged_settings(given, config_file, settings)
    faults += wrong
    try:
        where = f"--config {config_file}" if config_file else "socratune run"
        resolved = check_run(merged, where=where, start=start, until=until, restart=restart)
    except UserError as error:
        raise UserError(*faults, *error.faults) from None
    if faults:
        raise UserError(*faults)
    return resolved


def merged_settings(
    given: dict[str, Any], config_file: str | None, settings: list[str]
) -> tuple[dict[str, Any], list[Fault]]:
    """Returns file, `--set` and flags as one nested mapping, in which later ones win, and their faults."""
    merged: dict[str, Any] = {}
    faults: list[Fault] = []
    if config_file:
        try:
            merged = read_config_file(config_file)
        except UserError as error:
            faults += error.faults
    for pair in settings:
        key, equals, text = pair.partition("=")
        try:
            if not equals or not key.strip():
                raise ValueError
            merged = deep_merge(merged, renewed(unflatten({key.strip(): yaml.safe_load(text)}), "--set"))
        except (ValueError, yaml.YAMLError):
            faults.append(Fault("--set", "KEY=VALUE like train.r=32", pair))
    return deep_merge(merged, unflatten(given)), faults


def given_by(given: dict[str, Any], settings: list[str] | None) -> dict[str, Any]:
    """Returns flags and `--set` by dotted key.

    Raises:
        UserError: every pair of `--set` that is none.
    """
    merged, faults = merged_settings(given, None, settings or [])
    if faults:
        raise UserError(*faults)
    return flatten(merged)

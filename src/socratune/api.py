"""The Python door: `socratune.run(...)` is the command `socratune run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from socratune.config import EnhancedTrainingConfig, GrokkingConfig, StudentTeacherConfig
from socratune.errors import UserError
from socratune.preflight import check_run
from socratune.resolve import deep_merge, read_config_file
from socratune.rounds import run_rounds
from socratune.runs import STAGES, stage_faults


def run(
    *,
    model: str | None = None,
    dataset: str | Path | None = None,
    output: str | Path | None = None,
    hub_id: str | None = None,
    eval_file: str | Path | Sequence[str | Path] = (),
    enhance: StudentTeacherConfig | dict[str, Any] | None = None,
    train: EnhancedTrainingConfig | dict[str, Any] | None = None,
    grokking: GrokkingConfig | None = None,
    config: str | Path | dict[str, Any] | None = None,
    until: str = STAGES[-1],
    restart: str | None = None,
) -> dict[str, Any]:
    """Run the pipeline; the content of `pipeline_results.json`, whose `status` is the verdict.

    Args:
        model: folder or Hub id of the base model; also taken from `train.model_name`.
        dataset: JSONL file in the guide's format.
        output: run folder; an existing one is gone on with.
        hub_id: publish there when the adapter passed.
        eval_file: further tests; what they ask is not trained on.
        config: a YAML file, or the same as a nested dict, for everything else.
        until: the last stage to run.
        restart: the first stage to redo although it is done.

    Raises:
        UserError: something given is wrong; `faults` holds all of it.
        OutsideError: something outside failed; call again to go on.
    """
    given = config if isinstance(config, dict) else read_config_file(config) if config else {}
    named = {
        "model": model,
        "dataset": None if dataset is None else str(dataset),
        "output": None if output is None else str(output),
        "hub_id": hub_id,
        "enhance": enhance,
        "train": train,
    }
    given = deep_merge(given, {name: value for name, value in named.items() if value is not None})
    if eval_file:
        files = [eval_file] if isinstance(eval_file, str | Path) else eval_file
        given = deep_merge(given, {"split": {"eval_file": [str(file) for file in files]}})
    if grokking is not None:
        given = deep_merge(given, {"train": {"grokking": grokking}})
    faults = stage_faults(None, until, restart)
    if faults:
        raise UserError(*faults)
    resolved = check_run(given, where="socratune.run", until=until, restart=restart)
    return run_rounds(resolved, until=until, restart=restart, tell=lambda event, stage, entry: None)

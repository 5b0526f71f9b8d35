"""Runs the stage `train` on a rented machine: the same command, the same files, the same result."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from socratune.compute import job
from socratune.compute.renting import RentedMachine
from socratune.compute.shipping import fetch_checked, outfit, replace
from socratune.compute.ssh import ConnectionLost
from socratune.config import RunConfig, WhereConfig
from socratune.errors import OutsideError
from socratune.llm import model_location
from socratune.runs import RunDir, StageResult, Tick, write_text

log = logging.getLogger(__name__)

TICK_S = 5.0
_SYNC_S = 60.0
"""Seconds between two fetches of the checkpoints there: the most that a dying machine costs."""
LAST_LINES = 15

RESUMED_FROM = ["checkpoints", "replay.jsonl"]
RESULT = ["adapter", "trained.rejected.jsonl", *RESUMED_FROM, "tensorboard", "pipeline_results.json"]
_NOT_FIGURES = ("status", "seconds", "done", "total", "rows_in", "rows_out", "key", "error", "reason")


def train_remotely(
    run: RunDir, config: RunConfig, machine: RentedMachine, *, results: dict[str, Any], tick: Tick
) -> StageResult:
    """Trains on the machine with the run folder's rows. Afterwards `adapter/` and the rest are here.

    A process that starts again finds the training at work and only follows it. If the machine dies, another continues
    from the checkpoints that were last fetched.

    Args:
        results: the content of `pipeline_results.json`.

    Raises:
        UserError, StageFailed, OutsideError: as the training there ended, or the way there.
    """
    while True:
        try:
            outfit(machine.place, run, config, results, machine.folder)
            _train(run, config, machine, tick)
            return _brought_home(run, config, machine)
        except ConnectionLost as error:
            machine.renew(error)


def _train(run: RunDir, config: RunConfig, machine: RentedMachine, tick: Tick) -> None:
    """Starts the training, or follows a running one, until it has ended well."""
    place, lines = machine.place, []
    python = f"{place.base}/python/bin/python"
    if _entry(machine).get("status") != "done":  # else only its result is still to be fetched
        job.start_job(place, "train", [python, "-m", "socratune", "train", "run"], keys_for(config.where))
    looks = _Looks(run, machine, tick)

    def hear(line: str) -> None:
        lines.append(line)
        del lines[:-LAST_LINES]
        log.info("%s: %s", machine.pod.name, line)

    copy = machine.folder / f"{machine.pod.id}.log"
    code = job.attend_job(place, "train", copy, hear=hear, meanwhile=looks.turn)
    if code != 0:
        job.raise_as_there("train", code, _entry(machine).get("error") or "\n".join(lines))


def keys_for(where: WhereConfig) -> dict[str, str]:
    """Returns the keys that a rented machine gets: the Hub's, if configured, and never another."""
    wanted = ("HF_TOKEN",) if where.send_hf_token else ()
    return {name: os.environ[name] for name in wanted if name in os.environ}


@dataclass(slots=True)
class _Looks:
    """What is fetched while a training is followed: its progress, and its checkpoints."""

    run: RunDir
    machine: RentedMachine
    tick: Tick
    _ticked: float = field(default_factory=time.monotonic)
    _synced: float = field(default_factory=time.monotonic)

    def turn(self) -> None:
        """Fetches what is due."""
        now = time.monotonic()
        if now - self._ticked >= TICK_S:
            self._ticked = now
            entry = _entry(self.machine)
            if entry.get("total"):
                live = {key: value for key, value in entry.items() if key not in _NOT_FIGURES}
                self.tick(entry["done"], entry["total"], **live)
        if now - self._synced >= _SYNC_S:
            self._synced = now
            try:
                _take(self.run, self.machine, RESUMED_FROM)
            except ConnectionLost:
                raise
            except OutsideError as error:
                log.info("The checkpoints changed while they were fetched. Trying again in a minute (%s).", error)


def _take(run: RunDir, machine: RentedMachine, names: list[str]) -> None:
    """Fetches, compares, and only then replaces what the run folder has.

    The fetched files stay beside it, so that the next call fetches only what is new.
    """
    fetched = fetch_checked(machine.place, names, machine.folder / "fetched")
    for name in names:
        temporary = run / f".{name}.fetched"
        shutil.rmtree(temporary, ignore_errors=True)
        for path in fetched:
            if path.parts[0] == name and name != "pipeline_results.json":
                target = temporary / path.relative_to(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(machine.folder / "fetched" / "run" / path, target)
        if temporary.exists():
            replace(temporary, run / name)


def _brought_home(run: RunDir, config: RunConfig, machine: RentedMachine) -> StageResult:
    """Fetches the result into the run folder, and returns the result of the stage there."""
    _take(run, machine, RESULT)
    described = run.adapter / "adapter_config.json"
    here = json.loads(described.read_text("utf-8")) | {"base_model_name_or_path": model_location(config.model)}
    write_text(described, json.dumps(here, indent=2, sort_keys=True))
    return result_there(machine.folder / "fetched" / "run" / "pipeline_results.json", machine.pod.name)


def result_there(results: Path, machine: str) -> StageResult:
    """Returns the result of the stage on a machine, by the results of the run folder there."""
    entry = json.loads(results.read_text("utf-8"))["stages"]["train"]
    figures = {key: value for key, value in entry.items() if key not in _NOT_FIGURES}
    return StageResult(entry["rows_in"], entry["rows_out"], {**figures, "trained_on": machine})


def _entry(machine: RentedMachine) -> dict[str, Any]:
    """Returns the training's entry in the results there."""
    there = f"{machine.place.base}/run/pipeline_results.json"
    return json.loads(machine.place.ssh.run(["cat", there]))["stages"].get("train", {})

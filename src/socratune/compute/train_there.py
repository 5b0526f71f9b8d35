"""The stage `train` on a rented machine: the same command, the same files, the same result."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

from socratune.compute import job
from socratune.compute.renting import RentedMachine
from socratune.compute.shipping import fetch_checked, outfit, replace
from socratune.compute.ssh import ConnectionLost, is_full
from socratune.config import RunConfig, WhereConfig
from socratune.errors import Fault, OutsideError, Shown, StageFailed, UserError
from socratune.llm import model_location
from socratune.runs import RunDir, StageResult, Tick, write_text

log = logging.getLogger(__name__)

TICK_S = 5.0
_SYNC_S = 60.0
"""Between two looks at the checkpoints there: as much as a machine that dies may cost."""
LAST_LINES = 15

RESUMED_FROM = ["checkpoints", "replay.jsonl"]
RESULT = ["adapter", "trained.rejected.jsonl", *RESUMED_FROM, "tensorboard", "pipeline_results.json"]
_NOT_FIGURES = ("status", "seconds", "done", "total", "rows_in", "rows_out", "key", "error", "reason")


def train_remotely(
    run: RunDir, config: RunConfig, machine: RentedMachine, *, results: dict[str, Any], tick: Tick
) -> StageResult:
    """Train on the machine what the run folder holds; `adapter/` and the rest are here when this returns.

    A process that starts again finds the training at work and only listens. Where the machine dies, another goes on
    from the last checkpoints that were fetched.

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
    """Begin the training, or listen to the one at work, until it has ended well."""
    place, said = machine.place, []
    python = f"{place.base}/python/bin/python"
    if _entry(machine).get("status") != "done":  # else it ended well before, and only its result was not fetched
        job.start_job(place, "train", [python, "-m", "socratune", "train", "run"], keys_for(config.where))
    looking = _Looks(run, machine, tick)

    def hear(line: str) -> None:
        said.append(line)
        del said[:-LAST_LINES]
        log.info("%s: %s", machine.pod.name, line)

    copy = machine.folder / f"{machine.pod.id}.log"
    code = job.attend_job(place, "train", copy, hear=hear, meanwhile=looking.turn)
    if code != 0:
        _raise_as_there(machine, code, said)


def keys_for(where: WhereConfig) -> dict[str, str]:
    """The keys that a rented machine gets: the Hub's, where that was asked for, and no other ever."""
    wanted = ("HF_TOKEN",) if where.send_hf_token else ()
    return {name: os.environ[name] for name in wanted if name in os.environ}


class _Looks:
    """What is looked at while a training is listened to: how far it is, and its checkpoints."""

    def __init__(self, run: RunDir, machine: RentedMachine, tick: Tick) -> None:
        self._run = run
        self._machine = machine
        self._tick = tick
        self._ticked = self._synced = time.monotonic()

    def turn(self) -> None:
        """Look, where it is time again."""
        now = time.monotonic()
        if now - self._ticked >= TICK_S:
            self._ticked = now
            entry = _entry(self._machine)
            if entry.get("total"):
                live = {key: value for key, value in entry.items() if key not in _NOT_FIGURES}
                self._tick(entry["done"], entry["total"], **live)
        if now - self._synced >= _SYNC_S:
            self._synced = now
            try:
                _take(self._run, self._machine, RESUMED_FROM)
            except ConnectionLost:
                raise
            except OutsideError as error:
                log.info("The checkpoints changed while they were fetched; again in a minute (%s).", error)


def _take(run: RunDir, machine: RentedMachine, names: list[str]) -> None:
    """Fetch, compare, and only then put in the place of what the run folder has.

    What was fetched stays beside it, so that the next look fetches only what is new.
    """
    came = fetch_checked(machine.place, names, machine.folder / "fetched")
    for name in names:
        temporary = run / f".{name}.fetched"
        shutil.rmtree(temporary, ignore_errors=True)
        for path in came:
            if path.parts[0] == name and name != "pipeline_results.json":
                target = temporary / path.relative_to(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(machine.folder / "fetched" / "run" / path, target)
        if temporary.exists():
            replace(temporary, run / name)


def _brought_home(run: RunDir, config: RunConfig, machine: RentedMachine) -> StageResult:
    """The result in the run folder, and what the stage gave back there."""
    _take(run, machine, RESULT)
    described = run.adapter / "adapter_config.json"
    here = json.loads(described.read_text("utf-8")) | {"base_model_name_or_path": model_location(config.model)}
    write_text(described, json.dumps(here, indent=2, sort_keys=True))
    return result_there(machine.folder / "fetched" / "run" / "pipeline_results.json", machine.pod.name)


def result_there(results: Path, machine: str) -> StageResult:
    """What the stage gave back on a machine, by the results of the run folder there."""
    entry = json.loads(results.read_text("utf-8"))["stages"]["train"]
    figures = {key: value for key, value in entry.items() if key not in _NOT_FIGURES}
    return StageResult(entry["rows_in"], entry["rows_out"], {**figures, "trained_on": machine})


def _entry(machine: RentedMachine) -> dict[str, Any]:
    """What the results there say of the training."""
    there = f"{machine.place.base}/run/pipeline_results.json"
    return json.loads(machine.place.ssh.run(["cat", there]))["stages"].get("train", {})


def _raise_as_there(machine: RentedMachine, code: int | None, said: list[str]) -> None:
    """Raise what the training there ended with."""
    text = _entry(machine).get("error") or "\n".join(said)
    if code == StageFailed.exit_code:
        raise StageFailed(text)
    if code == UserError.exit_code:
        raise UserError(Fault("train on the rented machine", "a training that can begin", Shown(text)))
    killed = code is None or code < 0
    how = "it was killed; the machine's memory may be too small" if killed else f"exit code {code}"
    fix = " Raise where.disk_gb." if is_full(text) else ""
    raise OutsideError(f"The training on the rented machine did not end well ({how}).{fix}\n{text}")

"""A run that trains on a rented machine, as a process to be killed: `python runpod.py RUN API_BASE [KEY=VALUE …]`.

The pauses are those of a service that answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml
from fake_runpod import KEY, FakeRunPod

from socratune.cli.console import guarded
from socratune.compute import renting, runpod, ssh, train_there as remote_train
from socratune.compute.plan import budget_of
from socratune.llm import Limits
from socratune.resolve import deep_merge, read_config_file, resolve_settings, unflatten
from socratune.runs.folder import Results, RunDir, StageResult, Tick
from socratune.runs.journal import Journal
from socratune.runs.progress import do_stage


def hurry() -> None:
    """Pauses for a service on this machine."""
    runpod._PAUSES_S = (0.1, 0.2, 0.3)
    ssh._PAUSES_S = (0.1, 0.2, 0.3, 0.5)
    renting.POD_POLL_S = 0.1
    renting.POD_READY_LIMIT_S = float(os.environ.get("READY_LIMIT_S", "60"))
    remote_train.TICK_S = 0.2
    remote_train._SYNC_S = float(os.environ.get("SYNC_S", "0.3"))


def train_on_pod(folder: Path, api_base: str, settings: list[str]) -> int:
    """The stage `train` of a run folder on a rented machine; as the command's, its exit code."""
    hurry()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = unflatten({key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in settings)})

    def work() -> int:
        run = RunDir(folder)
        given_too = unflatten({"output": str(folder), "where.api_base": api_base})
        config = resolve_settings(deep_merge(deep_merge(read_config_file(run.config), given_too), given)).config
        with run.locked(), closing(Journal(run.journal)) as journal:
            results = Results(run)

            def stage(tick: Tick) -> StageResult:
                limits = Limits(budget_of(config, rented=True).limit("where", {}), None, "where")
                needed = {"memory_gb": 1, "disk_gb": 20, "least_hours": 0.0, "limits": limits}
                with renting.rented(run, config.where, journal, **needed) as machine:
                    return remote_train.train_remotely(run, config, machine, results=results.data, tick=tick)

            do_stage("train", "the key", stage, results, lambda event, stage, entry: None, missing=False)
        return 0

    return guarded(work)


class Client:
    """That process, beside the tests."""

    def __init__(self, run: Path, service: FakeRunPod, *settings: str, **env: str) -> None:
        self.log = run.with_suffix(".client.log")
        command = [sys.executable, __file__, str(run), service.api_base, *settings]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "RUNPOD_API_KEY": KEY, **env}
            )

    def wait(self, timeout_s: float = 240) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(self.said()) from None

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def until(self, what: str, happens: Callable[[], Any], timeout_s: float = 180) -> None:
        """Wait for something that has to come before the process ends."""
        deadline = time.monotonic() + timeout_s
        while not _safely(happens):
            assert self.process.poll() is None and time.monotonic() < deadline, f"{what} never came\n{self.said()}"
            time.sleep(0.01)


def _safely(happens: Callable[[], Any]) -> bool:
    try:
        return bool(happens())
    except (OSError, ValueError):  # a file that comes or goes
        return False


def entry_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "pipeline_results.json").read_text("utf-8"))["stages"]["train"]


if __name__ == "__main__":
    sys.exit(train_on_pod(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))

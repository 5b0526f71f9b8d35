"""Curves reach the trackers they were sent to; a tracker that is not there is said before anything begins."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import socratune

from socratune.training.monitor import tracker_faults, trackers


@pytest.mark.slow
def test_a_tracker_that_is_not_installed_is_refused_with_its_command(tmp_path: Path) -> None:
    if find_spec("trackio") is not None:
        pytest.skip("trackio is installed here")
    flags = ["--model", "demo", "--dataset", "demo", "--output", tmp_path / "o", "--report-to"]
    done = socratune("run", *flags, "trackio")
    assert done.returncode == 2 and "pip install trackio" in done.stderr
    assert not (tmp_path / "o").exists()
    assert "report_to: expected a list of wandb, mlflow or trackio" in socratune("run", *flags, "comet").stderr


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (board,) = trackers([], tmp_path, "run")
    for step in (1, 2):
        board.log({"train/loss": 1.0 / step}, step)
    board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(each.step, each.value) for each in events.Scalars("train/loss")] == [(1, 1.0), (2, 0.5)]


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed (pip install wandb)")
def test_wandb_keeps_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run = trackers(["wandb"], tmp_path, "mine")[1]
    run.log({"train/loss": 0.25}, 3)
    run.close()
    wandb.teardown()  # its own process may still be writing the file, until this process ends
    (kept,) = tmp_path.rglob("*.wandb")
    assert b"train/loss" in kept.read_bytes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed (pip install mlflow)")
def test_mlflow_keeps_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow  # pyright: ignore[reportMissingImports]

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    run = trackers(["mlflow"], tmp_path, "mine")[1]
    run.log({"train/loss": 0.25}, 3)
    active = mlflow.active_run()
    run.close()
    found = mlflow.get_run(active.info.run_id)
    assert found.data.metrics == {"train/loss": 0.25} and found.info.run_name == "mine"


def test_one_that_takes_wandbs_interface_is_told_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []

    class Run:
        def log(self, figures: dict[str, float], step: int) -> None:
            heard.append((figures, step))

        def finish(self) -> None:
            heard.append("finished")

    package = ModuleType("trackio")
    package.init = lambda **options: heard.append(options) or Run()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", package)
    run = trackers(["trackio"], tmp_path, "mine")[1]
    run.log({"dev/accuracy": 0.5}, 7)
    run.close()
    assert heard == [{"project": "socratune", "name": "mine"}, ({"dev/accuracy": 0.5}, 7), "finished"]
    assert tracker_faults([]) == []


def test_a_tracker_that_fails_ends_no_training_and_one_without_figures_leaves_no_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(**options: Any) -> Any:
        raise RuntimeError("api_key not configured (no-tty)")

    package = ModuleType("wandb")
    package.init = refused  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", package)
    board, run = trackers(["wandb"], tmp_path / "curves", "mine")
    board.close()
    run.close()
    assert not caplog.records and not (tmp_path / "curves").exists()
    for step in (1, 2):
        run.log({"train/loss": 0.25}, step)
    run.close()
    assert [record.getMessage() for record in caplog.records] == [
        "--report-to wandb gets no more curves: RuntimeError: api_key not configured (no-tty)"
    ]

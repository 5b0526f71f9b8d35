"""A training tells three trackers at once, each the real one, writing into a folder of this machine."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from conftest import demo_rows, socratune, write_rows
from programs import needs

TRACKERS = ("wandb", "mlflow", "trackio")
pytestmark = [*map(needs, TRACKERS), pytest.mark.slow, pytest.mark.filterwarnings("default")]


def test_a_run_leaves_its_figures_in_every_tracker(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 40))
    places = {
        "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "TRACKIO_DIR": str(tmp_path / "trackio"), "HOME": str(tmp_path),
    }  # fmt: skip
    flags = ["--model", "demo", "--dataset", rows, "--output", tmp_path / "run", "--until", "train"]
    done = socratune("run", *flags, "--report-to", ",".join(TRACKERS), "--set", "split.max_dev_rows=0", env=places)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gets no more curves" not in done.stderr
    steps = json.loads((tmp_path / "run" / "pipeline_results.json").read_text())["stages"]["train"]["steps"]
    (curves,) = tmp_path.rglob("*.wandb")
    assert b"train/loss" in curves.read_bytes()
    assert losses(tmp_path / "mlflow.db", "SELECT value FROM metrics WHERE key = 'train/loss'") == steps
    assert (
        losses(
            tmp_path / "trackio" / "socratune.db",
            "SELECT metrics FROM metrics WHERE CAST(metrics AS TEXT) LIKE '%train/loss%'",
        )
        == steps
    )


def losses(database: Path, query: str) -> int:
    """How many figures a tracker has kept."""
    with sqlite3.connect(database) as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return len(found)

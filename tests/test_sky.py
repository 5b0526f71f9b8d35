"""The SkyPilot task: what it says, that SkyPilot reads it, and that its script does the work."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import demo_rows, socratune, write_rows
from quick_python import quick_python

from socratune.config import RunConfig
from socratune.remote.sky import BASE, bundle, skypilot_fault, task_of
from socratune.rundir import RunDir


def config_of(**where: object) -> RunConfig:
    return RunConfig(model="demo", dataset="demo", output="out", where=where)  # pyright: ignore[reportArgumentType]


def test_the_task_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    task = task_of("socratune-1", config_of(gpu_count=2, max_usd=24, max_hours=12, sky={"cloud": "gcp"}), tmp_path)
    assert task["resources"]["accelerators"] == {"H100": 2} and task["resources"]["max_hourly_cost"] == 2.0
    assert task["resources"]["cloud"] == "gcp" and task["resources"]["autostop"]["down"] is True
    assert f"end=$(( $(date +%s) + {12 * 3600} ))" in task["run"]
    assert "canary" not in yaml.safe_dump(task)
    spot = task_of("socratune-1", config_of(spot=True, send_hf_token=True), tmp_path)
    assert spot["file_mounts"]["/socratune-store"] == {"name": "socratune-1", "mode": "MOUNT"}
    assert spot["secrets"] == {"HF_TOKEN": "hf_canary"}


@pytest.mark.filterwarnings("ignore")  # of SkyPilot's own libraries
def test_skypilot_reads_the_task(tmp_path: Path) -> None:
    if importlib.util.find_spec("sky") is None:
        pytest.skip("SkyPilot is not installed (pip install 'socratune[sky]')")
    import sky  # pyright: ignore[reportMissingImports]

    inputs = tmp_path / "in"
    inputs.mkdir()
    for where in ({}, {"spot": True, "gpu_count": 4}):
        task = sky.Task.from_yaml_config(task_of("socratune-1", config_of(**where), inputs))
        assert {accelerator for one in task.resources for accelerator in one.accelerators} == {"H100"}


@pytest.mark.slow
def test_a_dry_run_prints_it(tmp_path: Path) -> None:
    done = socratune("run", "--model", "demo", "--dataset", "demo", "--output", tmp_path / "out", "--where", "sky", "--dry-run")  # fmt: skip  # noqa: E501
    assert done.returncode == 0, done.stderr
    task = yaml.safe_load(done.stdout.partition("SkyPilot's task:")[2])
    assert task["resources"]["accelerators"] == {"H100": 1} and "validate run --answers-only" in task["run"]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_cannot_be_rented_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    done = socratune("run", "--model", "demo", "--dataset", "demo", "--output", tmp_path / "out", "--where", "runpod")
    assert done.returncode == 2 and "RUNPOD_API_KEY" in done.stderr and "--where local" in done.stderr
    assert not (tmp_path / "out" / "config.yaml").exists()


def test_without_skypilot_it_is_said_how_to_get_it() -> None:
    if importlib.util.find_spec("sky") is None:
        assert "socratune[sky]" in str(skypilot_fault())
    else:
        assert skypilot_fault() is None


@pytest.mark.slow
def test_the_script_trains_answers_and_goes_on_from_the_bucket(tmp_path: Path) -> None:
    """The task's own `run`, in a home of its own whose Python begins its commands here; the bucket is a folder."""
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 40))
    run, home, store = RunDir(tmp_path / "run"), tmp_path / "home", tmp_path / "store"
    begun = socratune("run", "--model", "demo", "--dataset", data, "--output", run.root, "--until", "curate")
    assert begun.returncode == 0, begun.stderr
    config = RunConfig.model_validate(yaml.safe_load(run.config.read_text("utf-8")))
    inputs = bundle(run, config, json.loads(run.results.read_text("utf-8")), home / "socratune" / "in")
    assert {path.name for path in (inputs / "run").iterdir()} >= {"config.yaml", "train.jsonl", "dev.jsonl"}
    assert not (inputs / "run" / "journal.sqlite").exists()
    python = home / "socratune" / "python" / "bin" / "python"
    python.parent.mkdir(parents=True)
    store.mkdir()
    task = task_of("socratune-1", config, inputs, store=str(store), every_s=1)
    environment = {**os.environ, "HOME": str(home)}
    for _ in range(2):  # the second time on another machine, with what the bucket has
        with quick_python(python):
            command = ["bash", "-c", task["run"]]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.rmtree(home / "socratune" / "run")
    assert (store / "adapter" / "adapter_model.safetensors").exists() and any((store / "checkpoints").glob("step-*"))
    for name in ("adapter", "exam.jsonl", "exam.json"):
        source = store / name
        shutil.copytree(source, run / name) if source.is_dir() else shutil.copy2(source, run / name)
    assert BASE.startswith("$HOME")
    proved = json.loads((run / "exam.json").read_text("utf-8"))
    assert proved["measured"]["performance"]["passed"]

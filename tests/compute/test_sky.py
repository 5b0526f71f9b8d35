"""The SkyPilot task: what it says, that SkyPilot reads it, and that its script does the work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import demo_rows, socratune, write_rows
from quick_python import quick_python

from socratune.compute.sky import BASE, bundle, launch, sky_task, skypilot_fault
from socratune.config import RunConfig
from socratune.errors import OutsideError, UserError
from socratune.runs.folder import RunDir


def config_of(**where: object) -> RunConfig:
    return RunConfig(model="demo", dataset="demo", output="out", where=where)  # pyright: ignore[reportArgumentType]


def test_the_task_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    task = sky_task("socratune-1", config_of(gpu_count=2, max_hours=12, sky={"cloud": "gcp"}), tmp_path, 24)
    assert task["resources"]["accelerators"] == {"H100": 2} and task["resources"]["max_hourly_cost"] == 2.0
    assert task["resources"]["cloud"] == "gcp" and task["resources"]["autostop"]["down"] is True
    assert f"end=$(( $(date +%s) + {12 * 3600} ))" in task["run"]
    assert "canary" not in yaml.safe_dump(task)
    spot = sky_task("socratune-1", config_of(spot=True, send_hf_token=True), tmp_path, None)
    assert spot["file_mounts"]["/socratune-store"] == {"name": "socratune-1", "mode": "MOUNT"}
    assert spot["secrets"] == {"HF_TOKEN": "hf_canary"}


def test_skypilot_reads_the_task(tmp_path: Path) -> None:
    """In the Python beside its command, which is not this one."""
    command = shutil.which("sky")
    if command is None:
        pytest.skip("SkyPilot is not installed (the command sky)")
    inputs = tmp_path / "in"
    inputs.mkdir()
    wheres: tuple[dict[str, Any], ...] = ({}, {"spot": True, "gpu_count": 4})
    tasks = [sky_task("socratune-1", config_of(**where), inputs, 50) for where in wheres]
    code = (
        "import sky, sys, yaml\n"
        "tasks = map(sky.Task.from_yaml_config, yaml.safe_load(sys.stdin))\n"
        "print(*(sorted({card for one in task.resources for card in one.accelerators}) for task in tasks))"
    )
    home = {**os.environ, "HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    python = [Path(command).resolve().with_name("python"), "-c", code]
    read = subprocess.run(
        python, input=yaml.safe_dump(tasks), env=home, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert read.returncode == 0, read.stderr
    assert read.stdout.splitlines()[-1] == "['H100'] ['H100']"
    for words, named in (("launch", "--cluster"), ("jobs launch", "--name")):
        asked = [command, *words.split(), "--help"]
        usage = subprocess.run(asked, env=home, capture_output=True, text=True, check=True).stdout
        assert {"--yes", "--secret", named} <= set(re.findall(r"--\w+", usage))


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `sky` and `rsync` were asked, which here only note their words; `sky` fails where `$FAILS` is the first."""
    file = tmp_path / "said"
    for name in ("sky", "rsync"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho {name} "$@" >>{file}\n[ "$1" != "$FAILS" ] || exit 100\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return file


def test_it_is_launched_fetched_and_ended(tmp_path: Path, said: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    fetched, name = tmp_path / "remote" / "fetched", "socratune-1"
    launch(name, sky_task(name, config_of(send_hf_token=True), tmp_path, None), fetched)
    file = tmp_path / "remote" / "task.yaml"
    launched, copied, ended = said.read_text("utf-8").splitlines()
    assert (
        launched == f"sky launch --cluster {name} --yes --secret=HF_TOKEN {file}" and ended == f"sky down --yes {name}"
    )
    assert copied.startswith("rsync ") and f"{name}:socratune/run/adapter " in copied and fetched.is_dir()
    assert yaml.safe_load(file.read_text("utf-8"))["name"] == name and "canary" not in file.read_text("utf-8")


def test_a_task_that_fails_says_how_to_look_and_fetches_nothing(
    tmp_path: Path, said: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "launch")
    with pytest.raises(OutsideError, match=r"failed \(100\).*sky logs socratune-1; sky down socratune-1"):
        launch("socratune-1", sky_task("socratune-1", config_of(), tmp_path, None), tmp_path / "remote" / "fetched")
    assert len(said.read_text("utf-8").splitlines()) == 1


def test_a_spot_job_leaves_its_results_in_the_bucket(tmp_path: Path, said: Path) -> None:
    with pytest.raises(UserError, match="they are in the bucket socratune-1"):
        launch(
            "socratune-1",
            sky_task("socratune-1", config_of(spot=True), tmp_path, None),
            tmp_path / "remote" / "fetched",
        )
    assert said.read_text("utf-8").startswith("sky jobs launch --name socratune-1 --yes /")


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


def test_without_skypilot_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "uv tool install 'skypilot" in str(skypilot_fault())
    with pytest.raises(UserError, match="it is not installed"):
        launch("socratune-1", sky_task("socratune-1", config_of(), tmp_path, None), tmp_path / "remote" / "fetched")


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
    task = sky_task("socratune-1", config, inputs, 50, store=str(store), every_s=1)
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

"""A prepared training in the real one's place on the pods of `fake_runpod`: its files come, and nothing is trained.

For tests of what may go wrong around a training; `compute/test_remote_run.py` compares a real one with those here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from fake_runpod import FakeRunPod

_TRAINING = r"""
import os, sys


def train():
    import json, shutil, time
    from pathlib import Path

    run, prepared = Path("run"), Path(ROOT, "trained")
    with Path(ROOT, "trainings").open("a") as stream:
        stream.write("begun\n")
    print("A prepared training begins.", flush=True)
    results = json.loads((run / "pipeline_results.json").read_text())
    trained = json.loads((prepared / "pipeline_results.json").read_text())["stages"]["train"]

    def note(entry):
        results["stages"]["train"] = entry
        (run / ".results").write_text(json.dumps(results))
        (run / ".results").replace(run / "pipeline_results.json")

    def put(name):
        source, hidden = prepared / name, run / ".coming"
        shutil.copytree(source, hidden) if source.is_dir() else shutil.copyfile(source, hidden)
        (run / name).parent.mkdir(exist_ok=True)
        if (run / name).is_dir():
            shutil.rmtree(run / name)
        hidden.replace(run / name)
        time.sleep(0.1)
        while Path(ROOT, "hold").exists():
            time.sleep(0.02)

    steps = sorted(path.name for path in (prepared / "checkpoints").glob("step-*"))
    note({"status": "running", "done": 0, "total": len(steps)})
    put("checkpoints/made_for.json")
    for at, step in enumerate(steps, start=1):
        put(f"checkpoints/{step}")
        note({"status": "running", "done": at, "total": len(steps)})
    for name in ("tensorboard", "trained.rejected.jsonl", "adapter"):
        put(name)
    note(trained)


if sys.orig_argv[1:] == ["-m", "socratune", "train", "run"]:
    code = 1
    try:
        train()
        code = 0
    except OSError as error:  # a disk may be full
        print(error, flush=True)
    finally:
        os._exit(code)
"""
"""Every Python of a pod imports it as `sitecustomize`; it takes the place of the one command that trains."""


def train_like(service: FakeRunPod, run: Path) -> None:
    """From now on the trainings on pods give what this trained run folder holds."""
    prepared, site = service.root / "trained", service.root / "site"
    for name in ("adapter", "checkpoints", "tensorboard"):
        shutil.copytree(run / name, prepared / name)
    for name in ("trained.rejected.jsonl", "pipeline_results.json"):
        shutil.copyfile(run / name, prepared / name)
    for path in (prepared, *prepared.rglob("*")):  # a pod is a user of its own
        path.chmod(0o755)
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"ROOT = {str(service.root)!r}\n{_TRAINING}", "utf-8")
    (service.root / "trainings").touch()
    (service.root / "trainings").chmod(0o666)
    service.image_environment["PYTHONPATH"] = str(site)


def trainings_begun(service: FakeRunPod) -> int:
    """How many such trainings were begun."""
    return len((service.root / "trainings").read_text("utf-8").splitlines())


def hold(service: FakeRunPod) -> Path:
    """While this file exists, the trainings of `train_like` wait behind their next file."""
    return service.root / "hold"

"""Rents in any other cloud, or spot machines: a task for SkyPilot, launched by its command `sky`.

The command has an environment of its own, as no version of click or uvicorn suits both SkyPilot and Socratune. SkyPilot
finds the machine, sets it up, runs the task and ends the machine. Training and answers use the same commands as
elsewhere. A spot machine keeps its checkpoints in a bucket, from which the job resumes elsewhere.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from socratune.compute.shipping import CONSTRAINTS, base_folder, make_wheel, needed_rows, replace, write_settings
from socratune.compute.train_there import result_there
from socratune.config import RunConfig
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.llm import Limits
from socratune.runs import RunDir, StageResult, Tick, fingerprint

BASE, STORE = "$HOME/socratune", "/socratune-store"
IDLE_MINUTES = 10
"""Idle minutes after which a machine ends itself, whatever has become of this process."""
RESULTS = ("adapter", "exam.jsonl", "exam.json", "trained.rejected.jsonl", "tensorboard", "pipeline_results.json")

_SETUP = f"""set -e
python3 -m venv --system-site-packages {BASE}/python
{BASE}/python/bin/pip install -q -c {BASE}/in/{CONSTRAINTS.name} "$(ls {BASE}/in/*.whl)[gpu]"
"""
_RUN = """set -e
mkdir -p {base}/run && cd {base} && cp -r in/run/. run/
if [ -d {store}/checkpoints ]; then cp -r {store}/checkpoints run/; fi
(while sleep {every_s}; do [ ! -d {store} ] || cp -ru run/checkpoints {store}/ 2>/dev/null || :; done) &
saving=$!
trap 'kill $saving' EXIT
end=$(( $(date +%s) + {seconds} ))
timeout $(( end - $(date +%s) )) python/bin/python -m socratune train run
timeout $(( end - $(date +%s) )) python/bin/python -m socratune validate run --answers-only
[ ! -d {store} ] || for one in {results}; do [ ! -e $one ] || cp -r $one {store}/; done
"""


def skypilot_fault(where: str = "where.place") -> Fault | None:
    """Returns why SkyPilot cannot be used from here, or None."""
    if shutil.which("sky") is not None:
        return None
    fix = "Run: uv tool install 'skypilot[aws]' (or pipx install, and the cloud you use); not into this environment."
    return Fault(where, "SkyPilot's command sky", Shown("it is not installed"), fix)


def bundle(run: RunDir, config: RunConfig, results: dict[str, Any], folder: Path) -> Path:
    """Fills a folder with wheel, constraints, a local base, and in `run/` what training needs of the run folder."""
    base = base_folder(config)
    shutil.rmtree(folder, ignore_errors=True)
    write_settings(folder / "run", config, results, "in/model" if base else None)  # from where the commands run
    for name in needed_rows(config):
        if run.rows(name).exists():
            shutil.copy2(run.rows(name), folder / "run")
    if run.checkpoints.exists():
        shutil.copytree(run.checkpoints, folder / "run" / "checkpoints")
    if base:
        shutil.copytree(base, folder / "model", ignore=shutil.ignore_patterns(".*"))
    shutil.copy2(CONSTRAINTS, folder)
    make_wheel(folder)
    return folder


def sky_task_name(run: RunDir, config: RunConfig) -> str:
    """Returns the fixed name of the run's task, machine and bucket."""
    return f"{config.where.pod_name}-{fingerprint(str(run.root.resolve()))[:8]}".lower()


def sky_task(
    name: str, config: RunConfig, inputs: Path, limit_usd: float | None, *, store: str = STORE, every_s: int = 60
) -> dict[str, Any]:
    """Returns the task in the form of SkyPilot's YAML.

    Args:
        name: from `sky_task_name`.
        inputs: from `bundle`.
        limit_usd: what the machine may cost; None is no limit.
        store: mount point of a spot job's bucket.
        every_s: seconds between two copies of the checkpoints into it.
    """
    where = config.where
    resources: dict[str, Any] = {
        "accelerators": dict.fromkeys((gpu.split()[0] for gpu in where.preferred_gpus), where.gpu_count),
        "disk_size": where.disk_gb or 200,
        "use_spot": where.spot,
        "autostop": {"idle_minutes": IDLE_MINUTES, "down": True},
    }
    if limit_usd is not None:
        resources["max_hourly_cost"] = round(limit_usd / where.max_hours, 4)
    saved = " ".join(f"run/{result}" for result in RESULTS)
    limit_s = round(where.max_hours * 3600)
    task: dict[str, Any] = {
        "name": name,
        "resources": resources | where.sky,
        "file_mounts": {"~/socratune/in": str(inputs.resolve())},
        "setup": _SETUP,
        "run": _RUN.format(base=BASE, store=store, seconds=limit_s, results=saved, every_s=every_s),
    }
    if where.spot:
        task["file_mounts"][store] = {"name": name, "mode": "MOUNT"}
    if where.send_hf_token and "HF_TOKEN" in os.environ:
        task["secrets"] = {"HF_TOKEN": os.environ["HF_TOKEN"]}
    return task


class BySkyPilot:
    """Runs training and the proof's answers through SkyPilot. The loop's student answers elsewhere."""

    with_student = None

    def __init__(self, run: RunDir, config: RunConfig, results: dict[str, Any], limits: Callable[[], Limits]) -> None:
        self._run = run
        self._config = config
        self._results = results
        self._limits = limits

    def __enter__(self) -> BySkyPilot:
        return self

    def __exit__(self, *error: object) -> None:
        pass  # the machine ends itself

    def train(self, tick: Tick) -> StageResult:
        """Trains there, otherwise as `stages.train_adapter`. The answers come with it.

        Raises:
            As `launch`.
        """
        run, folder = self._run, self._run / "remote"
        name = sky_task_name(run, self._config)
        if not (folder / "fetched" / "pipeline_results.json").exists():  # else the user has copied them out of a bucket
            inputs = bundle(run, self._config, self._results, folder / "in")
            launch(name, sky_task(name, self._config, inputs, self._limits().usd), folder / "fetched")
        for result in RESULTS[:-1]:
            if (folder / "fetched" / result).exists():
                replace(folder / "fetched" / result, run / result)
        result = result_there(folder / "fetched" / "pipeline_results.json", name)
        shutil.rmtree(folder)
        return result

    def take_exam(self) -> None:
        """Does nothing, as base and adapter have answered there already."""


def launch(name: str, task: dict[str, Any], fetched: Path) -> None:
    """Lets SkyPilot run the task. Afterwards `RESULTS` are in the folder `fetched`.

    Raises:
        UserError: SkyPilot is not installed; or the results of a spot job wait in its bucket.
        OutsideError: SkyPilot, or the task, failed.
    """
    if fault := skypilot_fault():
        raise UserError(fault)
    fetched.parent.mkdir(parents=True, exist_ok=True)
    file = fetched.with_name("task.yaml")
    file.write_text(yaml.safe_dump({key: value for key, value in task.items() if key != "secrets"}), "utf-8")
    secrets = (f"--secret={key}" for key in task.get("secrets", ()))  # sky reads their values from the environment
    arguments = ["--yes", *secrets, str(file)]
    if task["resources"]["use_spot"]:
        _must(name, "sky", "jobs", "launch", "--name", name, *arguments)
        got = Shown(f"they are in the bucket {name} (sky storage ls)")
        fix = f"Copy them into {fetched} and run the same command again."
        raise UserError(Fault("where.spot", "the job's results on this machine", got, fix))
    _must(name, "sky", "launch", "--cluster", name, *arguments)
    fetched.mkdir(exist_ok=True)
    there = [f"{name}:socratune/run/{result}" for result in RESULTS]
    _must(name, "rsync", "-rlpt", "--ignore-missing-args", *there, f"{fetched}/")
    _must(name, "sky", "down", "--yes", name)


def _must(name: str, *command: str) -> None:
    try:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    except OSError as error:
        code = error.strerror
    if code:
        fix = f"The machine, if there is one: sky logs {name}; sky down {name}."
        raise OutsideError(f"`{shlex.join(command)}` failed ({code}). {fix}")

"""Sends a rented machine the least that training needs, and fetches its result, every byte checked."""

from __future__ import annotations

import importlib.metadata
import io
import json
import logging
import os
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

import socratune
from socratune.compute.job import JobPlace, attend_job, start_job, stop_job
from socratune.compute.ssh import RemoteFailed, is_full
from socratune.config import RunConfig, is_free
from socratune.errors import OutsideError
from socratune.llm import model_location
from socratune.resolve import dump, flatten, unflatten
from socratune.runs import RunDir, file_hash, fingerprint, write_json, write_text

log = logging.getLogger(__name__)

CONSTRAINTS = Path(__file__).parent / "constraints-gpu.txt"
_SECTIONS = ("model", "chat_template", "seed", "curate", "enhance", "train", "validate")
"""Sections of the configuration for training and answering. The origin of the data and the publication stay here."""

_TIME = (2020, 1, 1, 0, 0, 0)
"""The time of every file in the wheel, so that equal contents give equal wheels."""


def make_wheel(folder: Path) -> Path:
    """Builds a wheel of this very package from its files, changes included, without network or build tool."""
    package, version = Path(socratune.__file__).parent, socratune.__version__
    meta = importlib.metadata.distribution("socratune")
    about = f"socratune-{version}.dist-info"
    head, _, rest = (meta.read_text("METADATA") or "").partition("\nVersion: ")
    files = {
        f"socratune/{path.relative_to(package)}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    files[f"{about}/METADATA"] = f"{head}\nVersion: {version}\n{rest.partition(chr(10))[2]}".encode()
    files[f"{about}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: socratune\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{about}/entry_points.txt"] = b"[console_scripts]\nsocratune = socratune.cli:main\n"
    files[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _TIME), content, zipfile.ZIP_DEFLATED)
    path = folder / f"socratune-{version}-py3-none-any.whl"
    path.write_bytes(packed.getvalue())
    return path


def outfit(place: JobPlace, run: RunDir, config: RunConfig, results: dict[str, Any], folder: Path) -> None:
    """Brings Socratune and the run's inputs to the machine, unless the same are there already.

    Args:
        results: results of the earlier stages.
        folder: a folder here, for files to send and the log of the installation.

    Raises:
        OutsideError: the installation failed, or the disk there is full.
    """
    base = base_folder(config)
    outgoing = folder / "outgoing"
    config_file, results_file = write_settings(outgoing, config, results, f"{place.base}/model" if base else None)
    wheel = make_wheel(folder)
    inputs = [path for name in needed_rows(config) if (path := run.rows(name)).exists()]
    mark = fingerprint([file_hash(path) for path in (wheel, config_file, *inputs)])
    if place.ssh.run(["sh", "-c", 'cat "$0" 2>/dev/null || :', f"{place.base}/run/.shipped"]).strip() == mark:
        return
    for job in ("train", "setup"):
        stop_job(place, job)
    place.ssh.run(["rm", "-rf", f"{place.base}/run"])
    place.ssh.run(["mkdir", "-p", f"{place.base}/run", f"{place.base}/model"])
    begun = [path for path in (run.checkpoints, run.rows("replay"), run.tensorboard) if path.exists()]
    try:
        _install(place, wheel, folder / "setup.log")
        if base:
            place.ssh.push(sorted(base.iterdir()), f"{place.base}/model")
        place.ssh.push([*inputs, *begun, config_file, results_file], f"{place.base}/run")
        place.ssh.run(["sh", "-c", 'printf %s "$0" > "$1"', mark, f"{place.base}/run/.shipped"])
    except RemoteFailed as error:
        text = f"The rented machine could not be set up: {error}"
        raise OutsideError(f"{text}{' Raise where.disk_gb.' if is_full(str(error)) else ''}") from None


def _install(place: JobPlace, wheel: Path, log_copy: Path) -> None:
    """Installs Socratune into an environment of its own there, with the libraries that the image lacks."""
    place.ssh.push([wheel, CONSTRAINTS], place.base)
    start_job(place, "setup", place.argv("setup", f"{place.base}/{wheel.name}", f"{place.base}/{CONSTRAINTS.name}"))
    lines: list[str] = []
    log_copy.unlink(missing_ok=True)
    code = attend_job(place, "setup", log_copy, hear=lines.append, meanwhile=lambda: None)
    if code != 0:
        raise RemoteFailed("\n".join(["the installation of Socratune there failed:", *lines[-15:]]), code or 1)


def write_settings(folder: Path, config: RunConfig, results: dict[str, Any], model: str | None) -> tuple[Path, Path]:
    """Writes the two files that a run folder elsewhere needs besides its rows, into a new folder.

    Args:
        model: the place of the base there, if it is sent.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = folder / "config.yaml", folder / "pipeline_results.json"
    write_text(written[0], yaml.safe_dump(shipped_config(config, model)))
    write_json(written[1], shipped_results(results))
    return written


def needed_rows(config: RunConfig) -> list[str]:
    """Returns the JSONL files of the run folder that training and its exam read."""
    names = ["train", "dev", "held_out", "recall"]
    names += ["train_in"] if config.train.grokking.enable_grokking else []
    return names + (["enhanced_dataset"] if config.train.reads_traces else [])


def base_folder(config: RunConfig) -> Path | None:
    """Returns the folder of a base on this machine; None if the other machine can fetch it."""
    folder = Path(model_location(config.model)).expanduser()
    return folder if folder.is_dir() and config.model != "demo" else None


def shipped_config(config: RunConfig, model: str | None) -> dict[str, Any]:
    """Returns the configuration for the other machine, without addresses and other settings that change no result."""
    every = flatten(dump(config)).items()
    kept = {key: value for key, value in every if key.split(".", maxsplit=1)[0] in _SECTIONS and not is_free(key)}
    kept.pop("enhance.student_model", None)  # the student is the base there, whatever its name is here
    if model is not None:
        kept |= {"model": model, "train.model_name": None}
    there = {"dataset": "train.jsonl", "output": "run", "where.place": "local", "where.gpus": config.where.gpu_count}
    return unflatten(kept | there)


def shipped_results(results: dict[str, Any]) -> dict[str, Any]:
    """Returns who wrote the traces, which later stages need of the earlier ones."""
    stages = results.get("stages", {})
    needed = {"enhance": ("student", "spent"), "curate": ("students", "outcomes")}
    kept = {
        stage: {key: stages[stage][key] for key in keys if key in stages.get(stage, {})}
        for stage, keys in needed.items()
    }
    return {"status": "incomplete", "shipped": True, "stages": kept}


def is_shipped(run: RunDir) -> bool:
    """Returns True if `outfit` has filled the folder."""
    with suppress(OSError, ValueError):
        results = json.loads(run.results.read_text("utf-8"))
        return isinstance(results, dict) and results.get("shipped") is True
    return False


def fetch_checked(place: JobPlace, names: list[str], folder: Path) -> list[Path]:
    """Fetches files and folders of `BASE/run`, compares each file with its sha256 there, and fetches differing ones
    again. Returns their paths below `run`.

    Raises:
        OutsideError: a file differs twice.
    """
    wanted: dict[str, str] = json.loads(place.helper("manifest", *(f"run/{name}" for name in names)))
    top = {"/".join(path.split("/")[:2]) for path in wanted}
    wrong: list[str] = []
    for _ in range(2):
        place.ssh.fetch([f"{place.base}/{name}" for name in sorted(top)], folder / "run")
        arrived = {path for path in wanted if (folder / path).is_file()}
        wrong = [path for path, digest in wanted.items() if path not in arrived or file_hash(folder / path) != digest]
        if not wrong:
            return [Path(path).relative_to("run") for path in wanted]
        log.info("These files differ from the rented machine's and are fetched again: %s.", ", ".join(wrong))
        for path in wrong:
            (folder / path).unlink(missing_ok=True)
    raise OutsideError(
        f"{', '.join(wrong)}: twice different from the rented machine's. Run again; nothing of it was kept."
    )


def replace(source: Path, target: Path) -> None:
    """Moves a file or folder to where another may exist."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    source.rename(target)
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)

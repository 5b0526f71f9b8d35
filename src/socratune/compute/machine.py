"""Finds what a machine has for training: GPUs with free memory, main memory, processors. It loads no torch."""

from __future__ import annotations

import csv
import importlib.metadata
import os
import re
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from socratune.errors import Fault, UserError
from socratune.inference import GIB, card_named, free_gib_by_card

FLOPS_A_CORE = 30e9
"""32-bit operations per second and core, if nothing is measured."""
MEASURED_FOR_S = 0.15
_CGROUP = Path("/sys/fs/cgroup/memory.max")
_GPU = re.compile(r"(?:(\d+)\s*[x×]\s*)?(.+?)(?::(\d+(?:\.\d+)?))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU.

    Attributes:
        free_gib: the memory that a process can use.
        tflops: by its data sheet; None for a kind that is not in the table.
    """

    name: str
    free_gib: float
    tflops: float | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """The resources of a machine.

    Attributes:
        free_ram_gib: free main memory.
        cpu_flops: 32-bit products of all cores together, FLOP/s.
    """

    gpus: tuple[Gpu, ...]
    free_ram_gib: float
    cpu_flops: float


def _gpu(name: str, free_gib: float) -> Gpu:
    known = card_named(name)
    return Gpu(name, free_gib, known.tflops if known else None)


def this_machine(*, gpu: str | None = None, measure: bool = False) -> Machine:
    """Returns this machine.

    Args:
        gpu: other GPUs instead of those here, as `described` reads them.
        measure: time a matrix product for `cpu_flops`, which takes a third of a second, instead of counting cores.

    Raises:
        UserError: `gpu` describes no GPUs.
    """
    gpus = described(gpu) if gpu is not None else nvidia_gpus()
    return Machine(gpus, free_ram_gib(), measured_flops() if measure and not gpus else counted_flops())


def described(text: str) -> tuple[Gpu, ...]:
    """Returns the GPUs that a text like `H100:80`, `2x RTX 4090` or `none` describes. The number is the GB in the GPU's
    name.

    Raises:
        UserError: it describes none, or a kind whose memory is unknown.
    """
    if text.strip().lower() in ("none", "cpu", ""):
        return ()
    match = _GPU.fullmatch(text.strip())
    assert match is not None
    count, name, size = match.groups()
    known = card_named(name)
    if not (size or known) or count == "0":
        fix = "Give its memory in GB after a colon, or none for a machine without a GPU."
        raise UserError(Fault("--gpu", "a GPU like H100:80, 2xA100:40 or none", text, fix))
    memory_gb = float(size) if size else known.memory_gb if known else 0.0
    return (_gpu(name, free_gib_by_card(name, memory_gb)),) * int(count or 1)


def nvidia_gpus() -> tuple[Gpu, ...]:
    """Returns the GPUs that PyTorch would see, by NVIDIA's own tool; none if PyTorch is built for CPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return ()
    if shutil.which("nvidia-smi") is None or _built_for_cpu():
        return ()
    query = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.free", "--format=csv,noheader,nounits"]
    try:
        table = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    gpus: dict[str, Gpu] = {}
    try:
        for index, uuid, name, free_mib in csv.reader(table.splitlines(), skipinitialspace=True):
            gpus[index] = gpus[uuid] = _gpu(name, float(free_mib) / 1024)
        wanted = [key for key in gpus if key.isdigit()] if visible is None else visible.split(",")
        return tuple(gpus[key.strip()] for key in wanted)
    except (ValueError, KeyError):  # parts of GPUs (MIG), short names
        return _gpus_of_torch()


def _gpus_of_torch() -> tuple[Gpu, ...]:
    import torch

    devices = range(torch.cuda.device_count())
    return tuple(_gpu(torch.cuda.get_device_name(at), torch.cuda.mem_get_info(at)[0] / GIB) for at in devices)


def _built_for_cpu() -> bool:
    try:
        return "+cpu" in importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False


def free_ram_gib() -> float:
    """Returns the main memory that a process can have, within a container's limit."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no such limit
        free = min(free, int(_CGROUP.read_text("ascii")))
    return free / GIB


def counted_flops() -> float:
    """Returns 32-bit operations per second, estimated from the number of cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return FLOPS_A_CORE * cores


def measured_flops() -> float:
    """Returns 32-bit operations per second by the fastest of some products, at least the estimate by cores."""
    import numpy as np

    size, fastest = 768, float("inf")
    matrix = np.ones((size, size), dtype=np.float32)
    end = time.perf_counter() + MEASURED_FOR_S
    while (began := time.perf_counter()) < end:
        _ = matrix @ matrix
        fastest = min(fastest, time.perf_counter() - began)
    return max(2 * size**3 / fastest, counted_flops())

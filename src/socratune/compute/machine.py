"""What a machine has to train with: its cards and their free memory, main memory, processors. Loads no torch."""

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
"""Of a core in 32-bit products, where nothing is measured."""
MEASURED_FOR_S = 0.15
_CGROUP = Path("/sys/fs/cgroup/memory.max")
_GPU = re.compile(r"(?:(\d+)\s*[x×]\s*)?(.+?)(?::(\d+(?:\.\d+)?))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card.

    Attributes:
        free_gib: what a process can fill.
        tflops: by its data sheet; None for a kind that is not in the table.
    """

    name: str
    free_gib: float
    tflops: float | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine has.

    Attributes:
        free_ram_gib: main memory that is free.
        cpu_flops: 32-bit products of all cores together, FLOP/s.
    """

    gpus: tuple[Gpu, ...]
    free_ram_gib: float
    cpu_flops: float


def this_machine(*, gpu: str | None = None, measure: bool = False) -> Machine:
    """This machine.

    Args:
        gpu: other cards in the place of those here, as `described` reads them.
        measure: time a matrix product for `cpu_flops`, which takes a third of a second, instead of counting cores.

    Raises:
        UserError: `gpu` says no cards.
    """
    gpus = described(gpu) if gpu is not None else nvidia_gpus()
    return Machine(gpus, free_ram_gib(), measured_flops() if measure and not gpus else counted_flops())


def described(text: str) -> tuple[Gpu, ...]:
    """The cards that a text like `H100:80`, `2x RTX 4090` or `none` means; the number is the GB in the card's name.

    Raises:
        UserError: it means none, or a kind whose memory is not known.
    """
    if text.strip().lower() in ("none", "cpu", ""):
        return ()
    found = _GPU.fullmatch(text.strip())
    assert found is not None
    count, name, size = found.groups()
    card = card_named(name)
    if not (size or card) or count == "0":
        fix = "Give its memory in GB behind a colon, or none for a machine without a card."
        raise UserError(Fault("--gpu", "a card like H100:80, 2xA100:40 or none", text, fix))
    memory_gb = float(size) if size else card.memory_gb if card else 0.0
    one = Gpu(name, free_gib_by_card(name, memory_gb), card.tflops if card else None)
    return (one,) * int(count or 1)


def nvidia_gpus() -> tuple[Gpu, ...]:
    """The cards PyTorch would see, by NVIDIA's own tool; none where PyTorch is a build for processors."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return ()
    if shutil.which("nvidia-smi") is None or _built_for_cpu():
        return ()
    query = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.free", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    gpus: dict[str, Gpu] = {}
    try:
        for index, uuid, name, free_mib in csv.reader(told.splitlines(), skipinitialspace=True):
            card = card_named(name)
            gpus[index] = gpus[uuid] = Gpu(name, float(free_mib) / 1024, card.tflops if card else None)
        wanted = [key for key in gpus if key.isdigit()] if visible is None else visible.split(",")
        return tuple(gpus[key.strip()] for key in wanted)
    except (ValueError, KeyError):  # parts of cards (MIG), short names of cards
        return _gpus_of_torch()


def _gpus_of_torch() -> tuple[Gpu, ...]:
    import torch

    found = []
    for at in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(at)
        card = card_named(name)
        found.append(Gpu(name, torch.cuda.mem_get_info(at)[0] / GIB, card.tflops if card else None))
    return tuple(found)


def _built_for_cpu() -> bool:
    try:
        return "+cpu" in importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False


def free_ram_gib() -> float:
    """Main memory a process can have, a container's limit included."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # no Linux
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no such limit
        free = min(free, int(_CGROUP.read_text("ascii")))
    return free / GIB


def counted_flops() -> float:
    """32-bit products a second, by the number of cores."""
    return FLOPS_A_CORE * _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measured_flops() -> float:
    """32-bit products a second, by the fastest of some; on a busy machine no less than by the number of cores."""
    import numpy as np

    size, fastest = 768, float("inf")
    matrix = np.ones((size, size), dtype=np.float32)
    end = time.perf_counter() + MEASURED_FOR_S
    while (began := time.perf_counter()) < end:
        _ = matrix @ matrix
        fastest = min(fastest, time.perf_counter() - began)
    return max(2 * size**3 / fastest, counted_flops())

"""One checkpoint per epoch, written whole or not at all, and found again after a kill."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from socratune.errors import OutsideError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class TrainState:
    """What a checkpoint restores besides weights and optimizer.

    Attributes:
        history: figures of each epoch.
        engine: how it was computed: memory by part in GiB, the reason, the measured peak.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    engine: dict[str, Any] = field(default_factory=dict)


def save(checkpoints: Path, model: Any, optimizer: torch.optim.Optimizer, state: TrainState) -> None:
    """Write `epoch-N` whole or not at all, and drop checkpoints nobody will read."""
    final = checkpoints / f"epoch-{state.epoch}"
    temporary = checkpoints / f".epoch-{state.epoch}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_faults(checkpoints):
        _write(temporary, model, optimizer, state)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for path in checkpoints.glob("epoch-*"):
        if path.name not in (final.name, f"epoch-{state.best_epoch}"):
            shutil.rmtree(path)


def restore(checkpoints: Path, model: Any, optimizer: torch.optim.Optimizer) -> TrainState:
    """The state of the last whole checkpoint, loaded into model and optimizer; the beginning where there is none."""
    found = sorted(checkpoints.glob("epoch-[0-9]*"), key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True)
    for path in found:
        try:
            saved = torch.load(path / "training.pt", weights_only=True)
            load_weights(model, path)
        except Exception as error:  # torch and safetensors raise many kinds for a damaged file
            log.warning("%s is damaged (%s); going on from the checkpoint before.", path, type(error).__name__)
            shutil.rmtree(path)
            continue
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        return TrainState(**saved["state"])
    return TrainState()


def load_weights(model: Any, folder: Path) -> None:
    """The adapter in `folder` into the adapter of `model`."""
    from peft import load_peft_weights, set_peft_model_state_dict

    set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))


@contextmanager
def disk_faults(place: Path) -> Iterator[None]:
    """A full disk is no bug of ours, in whatever words safetensors and torch report it."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if "No space left" in str(error) or "PytorchStreamWriter" in str(error):
            raise OutsideError(f"{place}: no space left on the disk. Make room; the same command goes on.") from error
        raise


def _write(folder: Path, model: Any, optimizer: torch.optim.Optimizer, state: TrainState) -> None:
    model.save_pretrained(folder)
    saved = {"optimizer": optimizer.state_dict(), "random": torch.get_rng_state(), "state": _as_dict(state)}
    torch.save(saved, folder / "training.pt")


def _as_dict(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in TrainState.__slots__}

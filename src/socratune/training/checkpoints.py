"""Checkpoints after every epoch and every few minutes, each written completely or not at all."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from socratune.errors import OutsideError
from socratune.inference import ranks

log = logging.getLogger(__name__)


@dataclass(slots=True)
class TrainState:
    """What a checkpoint restores besides weights and optimizer.

    Attributes:
        epoch: finished epochs.
        step: steps taken, including those of an unfinished epoch.
        history: the numbers of each finished epoch: `epoch`, `step` at its end, and `dev_accuracy` if there are dev
            rows.
        engine: how the training was computed: memory by part in GiB, the reason, the measured peak.
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    engine: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> dict[str, float]:
        """Returns the numbers of the best epoch, the latest of equals; zeros before the first epoch ends."""
        return max(reversed(self.history), key=_score, default={"epoch": 0.0, "step": 0.0})

    @property
    def best_epoch(self) -> int:
        return int(self.best["epoch"])

    @property
    def best_step(self) -> int:
        """Returns the step at which the best epoch ended."""
        return int(self.best["step"])

    @property
    def best_score(self) -> float:
        """Returns the dev accuracy of the best epoch, or the epoch's number if there are no dev rows."""
        return _score(self.best)


def _score(figures: dict[str, float]) -> float:
    return figures.get("dev_accuracy", figures["epoch"])


def save(checkpoints: Path, model: Any, optimizer: torch.optim.Optimizer, scaler: Any, state: TrainState) -> None:
    """Writes the checkpoint `step-N` completely or not at all. Keeps it, the previous one, and that of the best epoch.

    All ranks hold the same state, so only the leading rank writes.
    """
    if not ranks.leads():
        return
    final = at_step(checkpoints, state.step)
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_faults(checkpoints):
        _write(temporary, model, optimizer, scaler, state)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    kept = {path.name for path in _newest_first(checkpoints)[:2]} | {at_step(checkpoints, state.best_step).name}
    for path in _newest_first(checkpoints):
        if path.name not in kept:
            shutil.rmtree(path)


def restore(checkpoints: Path, model: Any, optimizer: torch.optim.Optimizer, scaler: Any) -> TrainState:
    """Loads the last intact checkpoint into model and optimizer and returns its state, or a new state without one."""
    for path in _newest_first(checkpoints):
        try:
            saved = torch.load(path / "training.pt", weights_only=True)
            known = {field.name for field in fields(TrainState)}  # earlier versions also kept what `history` contains
            state = TrainState(**{name: value for name, value in saved["state"].items() if name in known})
            if state.best_step and not at_step(checkpoints, state.best_step).is_dir():
                raise FileNotFoundError(at_step(checkpoints, state.best_step))
            load_weights(model, path)
        except Exception as error:  # torch and safetensors raise many kinds for a corrupt file
            log.warning("%s is corrupt (%s). Resuming from the previous checkpoint.", path, type(error).__name__)
            shutil.rmtree(path)
            continue
        optimizer.load_state_dict(saved["optimizer"])
        scaler.load_state_dict(saved["scaler"])
        if ranks.leads():  # the other ranks have their own noise
            torch.set_rng_state(saved["random"][0])
            if torch.cuda.is_available() and saved["random"][1:]:
                torch.cuda.set_rng_state(saved["random"][1])
        return state
    return TrainState()


def at_step(checkpoints: Path, step: int) -> Path:
    """Returns the folder of the checkpoint of a step."""
    return checkpoints / f"step-{step}"


def _newest_first(checkpoints: Path) -> list[Path]:
    folders = checkpoints.glob("step-[0-9]*")
    return sorted(folders, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def load_weights(model: Any, folder: Path) -> None:
    """Loads the adapter in `folder` into the adapter of `model`."""
    from peft import load_peft_weights, set_peft_model_state_dict

    set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))


@contextmanager
def disk_faults(place: Path) -> Iterator[None]:
    """Reports a full disk as an OutsideError, however safetensors and torch word it."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if "No space left" in str(error) or "PytorchStreamWriter" in str(error):
            raise OutsideError(
                f"{place}: no space is left on the disk. Make room, and run the same command again to resume."
            ) from error
        raise


def _write(folder: Path, model: Any, optimizer: torch.optim.Optimizer, scaler: Any, state: TrainState) -> None:
    model.save_pretrained(folder)
    on_gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    saved = {
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "random": [torch.get_rng_state(), *on_gpu],
        "state": asdict(state),
    }
    torch.save(saved, folder / "training.pt")

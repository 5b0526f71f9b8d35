"""Checkpoints: after every epoch and every few minutes, written whole or not at all, and found again after a kill."""

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
        epoch: finished ones.
        step: taken ones, those of an epoch that is not finished included.
        history: figures of each finished epoch; `epoch` and `step` at its end, `dev_accuracy` where there are dev rows.
        engine: how it was computed: memory by part in GiB, the reason, the measured peak.
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    engine: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> dict[str, float]:
        """The figures of the best epoch, the latest of equals; zeros where none is finished."""
        return max(reversed(self.history), key=_score, default={"epoch": 0.0, "step": 0.0})

    @property
    def best_epoch(self) -> int:
        """Its number."""
        return int(self.best["epoch"])

    @property
    def best_step(self) -> int:
        """At which it ended."""
        return int(self.best["step"])

    @property
    def best_score(self) -> float:
        """Its dev accuracy; where there are no dev rows its number, so that the last one is the best."""
        return _score(self.best)


def _score(figures: dict[str, float]) -> float:
    return figures.get("dev_accuracy", figures["epoch"])


def save(checkpoints: Path, model: Any, optimizer: torch.optim.Optimizer, scaler: Any, state: TrainState) -> None:
    """Write `step-N` whole or not at all; it, the one before and that of the best epoch are kept.

    Of several ranks, which all hold the same, the leading one writes.
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
    """The state of the last whole checkpoint, loaded into model and optimizer; the beginning where there is none."""
    for path in _newest_first(checkpoints):
        try:
            saved = torch.load(path / "training.pt", weights_only=True)
            known = {each.name for each in fields(TrainState)}  # earlier versions also kept what `history` tells
            state = TrainState(**{name: value for name, value in saved["state"].items() if name in known})
            if state.best_step and not at_step(checkpoints, state.best_step).is_dir():
                raise FileNotFoundError(at_step(checkpoints, state.best_step))
            load_weights(model, path)
        except Exception as error:  # torch and safetensors raise many kinds for a damaged file
            log.warning("%s is damaged (%s); going on from the checkpoint before.", path, type(error).__name__)
            shutil.rmtree(path)
            continue
        optimizer.load_state_dict(saved["optimizer"])
        scaler.load_state_dict(saved["scaler"])
        if ranks.leads():  # the others have noise of their own
            torch.set_rng_state(saved["random"][0])
            if torch.cuda.is_available() and saved["random"][1:]:
                torch.cuda.set_rng_state(saved["random"][1])
        return state
    return TrainState()


def at_step(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return checkpoints / f"step-{step}"


def _newest_first(checkpoints: Path) -> list[Path]:
    found = checkpoints.glob("step-[0-9]*")
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


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


def _write(folder: Path, model: Any, optimizer: torch.optim.Optimizer, scaler: Any, state: TrainState) -> None:
    model.save_pretrained(folder)
    on_card = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    saved = {
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "random": [torch.get_rng_state(), *on_card],
        "state": asdict(state),
    }
    torch.save(saved, folder / "training.pt")

"""Where the curves of a training go: TensorBoard always, other trackers by name.

A tracker is only told what TensorBoard is told; its own settings (project, address, key) come from its own environment
variables, as its documentation has them. One that fails is told nothing more: no training ends for want of its curves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from socratune.errors import Fault, Shown

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes figures by name, at a step."""

    def log(self, figures: dict[str, float], step: int) -> None: ...

    def close(self) -> None:
        """Write what waits."""
        ...


def tracker_faults(names: Sequence[str]) -> list[Fault]:
    """Trackers that are not installed."""
    return [
        Fault("--report-to", f"an installed package {name}", Shown("none of that name"), f"pip install {name}")
        for name in names
        if find_spec(name) is None
    ]


def trackers(names: Sequence[str], curves: Path, run_name: str) -> list[Tracker]:
    """TensorBoard with its files in `curves`, and the trackers of these names."""
    others = (Guarded(f"--report-to {name}", partial(TRACKERS[name], run_name)) for name in names)
    return [Guarded("TensorBoard", partial(TensorBoard, curves)), *others]


class Guarded:
    """A tracker that begins with its first figure, so that a training that is only loaded leaves none, and that is
    left alone once it has failed.
    """

    def __init__(self, name: str, begin: Callable[[], Tracker]) -> None:
        self._name, self._begin = name, begin
        self._tracker: Tracker | None = None
        self._failed = False

    def log(self, figures: dict[str, float], step: int) -> None:
        if not self._failed:
            self._try(lambda: self._begun().log(figures, step))

    def close(self) -> None:
        if self._tracker is not None:
            self._try(self._tracker.close)

    def _begun(self) -> Tracker:
        if self._tracker is None:
            self._tracker = self._begin()
        return self._tracker

    def _try(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:  # each has its own
            self._failed = True
            reason = " ".join(str(error).split())[:200]
            log.warning("%s gets no more curves: %s: %s", self._name, type(error).__name__, reason)


class TensorBoard:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), flush_secs=5)

    def log(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbLike:
    """Weights & Biases, and Trackio, which took over its interface."""

    def __init__(self, package: str, run_name: str) -> None:
        self._run = import_module(package).init(project="socratune", name=run_name)

    def log(self, figures: dict[str, float], step: int) -> None:
        self._run.log(figures, step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of the experiment that MLFLOW_EXPERIMENT_NAME names."""

    def __init__(self, run_name: str) -> None:
        self._mlflow = import_module("mlflow")
        self._mlflow.start_run(run_name=run_name)

    def log(self, figures: dict[str, float], step: int) -> None:
        self._mlflow.log_metrics(figures, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


TRACKERS = {
    "wandb": lambda run_name: WandbLike("wandb", run_name),
    "trackio": lambda run_name: WandbLike("trackio", run_name),
    "mlflow": MLflow,
}

"""Where the curves of a training go: TensorBoard always, other trackers by name.

A tracker is only told what TensorBoard is told; its own settings (project, address, key) come from its own environment
variables, as its documentation has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from socratune.errors import Fault, Shown


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
    return [TensorBoard(curves), *(TRACKERS[name](run_name) for name in names)]


class TensorBoard:
    """Files that are made with the first figure."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def log(self, figures: dict[str, float], step: int) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), flush_secs=5)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
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

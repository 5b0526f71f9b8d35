"""What a training shows while it runs: the cost of its steps, the accuracy of its epochs, and the curves of both."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from socratune.environments import environment_judge
from socratune.errors import Fault, Shown, one_line
from socratune.inference import Shape, card_named, training_flops
from socratune.rows import QARow
from socratune.runs import Tick
from socratune.teaching import accuracy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exam:
    """The questions answered after every epoch, by the name of their curve."""

    tokenizer: Any
    questions: Mapping[str, list[QARow]]
    max_new_tokens: int

    def take(self, model: Any) -> dict[str, float]:
        """Returns `NAME_accuracy` of each set that has rows. Rules, or a row's environment, judge: nothing is paid for.

        Ranks that train together share the questions, and all return the same numbers.
        """
        from socratune.inference import ranks, whole_on_each_rank

        right = dict.fromkeys((name for name, rows in self.questions.items() if rows), 0)
        with whole_on_each_rank(model):
            for name in right:
                if own := self.questions[name][ranks.rank() :: ranks.size()]:
                    right[name] = self._right(model, own)
        return {f"{name}_accuracy": ranks.total(count) / len(self.questions[name]) for name, count in right.items()}

    def _right(self, model: Any, rows: list[QARow]) -> int:
        from socratune.inference import LocalStudent, serving_student

        student = LocalStudent(model, self.tokenizer, name="adapter in training", fingerprint="dev")
        with serving_student(student):
            sampling = student.exam_sampling(self.max_new_tokens)
            share = accuracy(rows, student, environment_judge, sampling, concurrency=len(rows))
        return round(share * len(rows))


@dataclass(slots=True)
class TrainingMonitor:
    """Observes steps and epochs; its methods are the `training.steps.Hooks`.

    Attributes:
        trackers: where the curves go.
        flops_per_token: None if unknown.
        part: (this training, number of trainings); several share one progress bar.
    """

    trackers: list[Tracker]
    exam: Exam
    tick: Tick
    flops_per_token: float | None = None
    part: tuple[int, int] = (0, 1)
    _live: dict[str, float] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _first: int | None = None
    _done: int = 0
    _tokens: float = 0.0
    _seconds: float = 0.0

    def step(self, done: int, total: int, figures: dict[str, float]) -> None:
        """Records a step and advances the progress bar."""
        self._done = done
        self._first = done - 1 if self._first is None else self._first
        self._tokens += figures["tokens_per_second"] * figures["seconds"]
        self._seconds += figures["seconds"]
        self._live |= {"loss": round(figures["loss"], 4), **self.speed()}
        self._track({f"train/{name}": value for name, value in figures.items()})
        at, of = self.part
        passed, left = time.monotonic() - self._began, total - done + total * (of - 1 - at)
        self._live["left_s"] = round(passed / (done - self._first) * left)
        self.tick(at * total + done, of * total, **self._live)

    def evaluate(self, model: Any) -> dict[str, float]:
        """Returns the accuracies of the model in training, after an epoch."""
        figures = self.exam.take(model)
        self._live |= figures
        self._track({name.replace("_accuracy", "/accuracy"): value for name, value in figures.items()})
        return figures

    def close(self) -> None:
        """Writes what is buffered."""
        for tracker in self.trackers:
            tracker.close()

    def speed(self) -> dict[str, float]:
        """Returns tokens per second of the steps taken here, the share of the GPU's rate, and its memory."""
        import torch

        from socratune.inference import ranks

        if not self._seconds:
            return {}
        speed: dict[str, float] = {"tokens_per_second": round(self._tokens / self._seconds)}
        if torch.cuda.is_available():
            speed["memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        if (peak := peak_flops()) and self.flops_per_token:
            speed["mfu"] = round(self.flops_per_token * self._tokens / self._seconds / (peak * ranks.size()), 3)
        return speed

    def _track(self, figures: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(figures, self._done)


# --- model FLOPs utilisation (Chowdhery et al. 2022, arXiv:2204.02311) ----------------------------------------------


def peak_flops() -> float | None:
    """Returns the GPU's FLOP/s by its data sheet; None without a GPU, or for one that is not in the table."""
    import torch

    if not torch.cuda.is_available():
        return None
    gpu = card_named(torch.cuda.get_device_name())
    return gpu.tflops * 1e12 if gpu else None


def flops_per_token(config: Mapping[str, Any], lengths: list[tuple[int, int]]) -> float | None:
    """Returns `training_flops` per token; None for a shape that the arithmetic does not know."""
    try:
        shape = Shape.of(config)
    except KeyError:
        return None
    return training_flops(shape, lengths) / sum(tokens for tokens, _ in lengths)


# --- trackers ------------------------------------------------------------------------------------------------------


class Tracker(Protocol):
    """Takes numbers by name, at a step."""

    def log(self, figures: dict[str, float], step: int) -> None: ...

    def close(self) -> None: ...


def tracker_faults(names: Sequence[str]) -> list[Fault]:
    """Returns a fault for each tracker that is not installed."""
    return [
        Fault("--report-to", f"an installed package {name}", Shown("none of that name"), f"pip install {name}")
        for name in names
        if find_spec(name) is None
    ]


def trackers(names: Sequence[str], curves: Path, run_name: str) -> list[Tracker]:
    """Returns TensorBoard, with its files in `curves`, and the trackers of these names."""
    others = (Guarded(f"--report-to {name}", partial(TRACKERS[name], run_name)) for name in names)
    return [Guarded("TensorBoard", partial(TensorBoard, curves)), *others]


class Guarded:
    """A tracker that starts with its first number, so that a training that is only loaded leaves none, and that is left
    alone once it has failed.
    """

    def __init__(self, name: str, begin: Callable[[], Tracker]) -> None:
        self._name, self._begin = name, begin
        self._tracker: Tracker | None = None
        self._failed = False

    def log(self, figures: dict[str, float], step: int) -> None:
        if not self._failed:
            self._try(lambda: self._log(figures, step))

    def close(self) -> None:
        if self._tracker is not None:
            self._try(self._tracker.close)

    def _log(self, figures: dict[str, float], step: int) -> None:
        self._tracker = self._tracker or self._begin()
        self._tracker.log(figures, step)

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # each tracker raises its own
            self._failed = True
            log.warning("%s gets no more curves: %s: %s", self._name, type(error).__name__, one_line(error))


class TensorBoard:
    """Writes TensorBoard's files into a folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), flush_secs=5)

    def log(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbLike:
    """Tracks with Weights & Biases, or with Trackio, which has the same interface."""

    def __init__(self, package: str, run_name: str) -> None:
        self._run = import_module(package).init(project="socratune", name=run_name)

    def log(self, figures: dict[str, float], step: int) -> None:
        self._run.log(figures, step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """Tracks as a run of the experiment that MLFLOW_EXPERIMENT_NAME names."""

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

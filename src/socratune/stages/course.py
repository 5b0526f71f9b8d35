"""The course of a training: what its steps cost, what its epochs can, for the curves and for whoever watches."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from socratune.answering import accuracy
from socratune.judge import mechanical_judge
from socratune.rows import QARow
from socratune.rundir import Tick
from socratune.trackers import Tracker


@dataclass(frozen=True, slots=True)
class Exam:
    """The questions answered after every epoch, by the name of their curve, and how."""

    tokenizer: Any
    questions: Mapping[str, list[QARow]]
    max_new_tokens: int

    def take(self, model: Any) -> dict[str, float]:
        """`NAME_accuracy` of each set that has rows; judged by rules alone, so that nothing is paid.

        Ranks that train together share the questions, and all come to the same figures.
        """
        from socratune.backends import ranks
        from socratune.backends.sharded import together

        right = dict.fromkeys((name for name, rows in self.questions.items() if rows), 0)
        with together(model):
            for name in right:
                if own := self.questions[name][ranks.rank() :: ranks.size()]:
                    right[name] = self._right(model, own)
        return {f"{name}_accuracy": ranks.total(count) / len(self.questions[name]) for name, count in right.items()}

    def _right(self, model: Any, rows: list[QARow]) -> int:
        from socratune.backends.sharded import is_sharded
        from socratune.student import LocalStudent, serving

        slots = False if is_sharded(model) else None  # a recorded step would leave out gathering the blocks
        student = LocalStudent(model, self.tokenizer, name="adapter in training", fingerprint="dev", slots=slots)
        with serving(student):
            sampling = student.exam_sampling(self.max_new_tokens)
            share = accuracy(rows, student, mechanical_judge, sampling, concurrency=len(rows))
        return round(share * len(rows))


@dataclass(slots=True)
class Course:
    """Hears of steps and epochs; `backends.loop.Hooks` are its methods.

    Attributes:
        trackers: where the curves go.
        flops_per_token: None where it is not known.
        part: (this training, trainings in all): several share one bar.
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
        """After every step."""
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
        """After every epoch: what the model in training knows."""
        figures = self.exam.take(model)
        self._live |= figures
        self._track({name.replace("_accuracy", "/accuracy"): value for name, value in figures.items()})
        return figures

    def close(self) -> None:
        """Write what waits."""
        for tracker in self.trackers:
            tracker.close()

    def speed(self) -> dict[str, float]:
        """Tokens a second of the steps taken here (answering not counted), share of the card's rate, its memory."""
        import torch

        from socratune.backends import ranks
        from socratune.backends.speed import peak_flops

        if not self._seconds:
            return {}
        found: dict[str, float] = {"tokens_per_second": round(self._tokens / self._seconds)}
        if torch.cuda.is_available():
            found["memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        if (peak := peak_flops()) and self.flops_per_token:
            found["mfu"] = round(self.flops_per_token * self._tokens / self._seconds / (peak * ranks.size()), 3)
        return found

    def _track(self, figures: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(figures, self._done)

"""What stands in the result files of the curve, as arrays, and differences between arms on the same questions.

Intervals are those of `socratune.ways.reading`: seeds are drawn first, then questions. A question is a cluster of
its own, as the laboratory's problems are made independently.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from socratune.ways.reading import Difference, arm_difference

SAMPLES = 4
"""Answers per question and seed behind `sampled`, where the result does not say."""
FAMILIES = ("word", "unit", "hop", "table")
LOST, REACHED = "pass@8 = 0", "pass@8 > 0"
ALL = "all"
OURS, REPLAYED = "mix", "mix-and-replay"
"""The loop, and the same with replay beside its rows, as the product trains; the second is no rival of the first."""
WITHOUT_TEACHER = ("rft", "rft-all", "bare-retry", "sft", "prompt")
ORDER = (
    "mix", "mix-and-replay", "direct", "clean", "iterative", "teacher-in-student-format", "teacher", "rft", "rft-all",
    "bare-retry", "wrong-hints", "sft", "prompt",
)  # fmt: skip
"""Of the tables; an arm that is not named here comes last."""
DOES = {
    "mix": "four samples, then hints for the rows all wrong",
    "mix-and-replay": "the same, and a tenth of the tokens own answers to neutral questions, paid like the others",
    "direct": "one sample, then hints; own right traces",
    "clean": "as direct, but a hinted success has to be found again without the hint",
    "iterative": 'attempt, "Aha!", corrected attempt',
    "teacher-in-student-format": "the teacher's solutions, written like the student's",
    "teacher": "the teacher's solutions in its own words",
    "rft": "own right samples, no teacher: the longest of up to four a row",
    "rft-all": "the same, all of the four",
    "bare-retry": '"Try again." where four samples were wrong, no teacher',
    "wrong-hints": "hints of other rows; a control",
    "sft": "the reference answers as they are",
    "prompt": "the best of generic prompts and worked examples, no training",
}


def digits(text: str, most: int, questions: int, where: str) -> np.ndarray:
    """(Q,): the share of right answers to each question, from one digit for each.

    Raises:
        ValueError: not so many digits as there are questions, or one above `most`.
    """
    found = np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8).astype(float) - ord("0")
    if len(found) != questions:
        raise ValueError(f"{where}: {questions} digits expected, {len(found)} found")
    if len(found) and not (found.min() >= 0 and found.max() <= most):
        raise ValueError(f"{where}: digits 0 to {most} expected, {text[:20]!r} … found")
    return found / most


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one arm at one budget, or of one setting.

    Attributes:
        sampled: (S, Q), the share of right samples.
        greedy: (S, Q), 0 or 1.
        pool: (S,), accuracy on facts and instructions nobody trained.
        numbers: name → mean over seeds of whatever else is told, such as `usd` and `rows`.
    """

    sampled: np.ndarray
    greedy: np.ndarray
    pool: np.ndarray
    numbers: Mapping[str, float]

    def mean(self, kind: str = "sampled", mask: np.ndarray | None = None) -> float:
        """Accuracy over seeds and questions."""
        values = getattr(self, kind)
        return float((values if mask is None else values[:, mask]).mean())

    @property
    def seeds(self) -> int:
        return len(self.sampled)


def answers(points: Sequence[Mapping[str, Any]], raw: Mapping[str, Any], where: str) -> Answers:
    """Of the seeds of one arm and budget, or of one setting; `raw`: the result they stand in."""
    questions, samples = len(raw["questions"]), raw.get("samples", SAMPLES)
    names = sorted({name for point in points for name, value in point.items() if _number(value)})
    numbers = {
        name: float(np.mean([point[name] for point in points if _number(point.get(name))]))
        for name in names
        if name not in ("pool", "seed", "step")
    }
    return Answers(
        np.stack([digits(point["sampled"], samples, questions, f"{where}, sampled") for point in points]),
        np.stack([digits(point["greedy"], 1, questions, f"{where}, greedy") for point in points]),
        np.array([float("nan") if point.get("pool") is None else point["pool"] for point in points], dtype=float),
        numbers,
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Arm:
    """`at` has its answers by step; an arm that does not spend by steps has them under None."""

    rate: float | None
    at: Mapping[float | None, Answers]

    def get(self, step: float | None) -> Answers | None:
        """Its answers with that budget."""
        return self.at.get(step) or self.at.get(None)

    @property
    def flat(self) -> bool:
        return set(self.at) == {None}


class Curve:
    """`curve.json`, or a file like it."""

    def __init__(self, raw: Mapping[str, Any], name: str) -> None:
        self.raw, self.name = raw, name
        self.questions: list[dict[str, Any]] = raw["questions"]
        count = len(self.questions)
        self.hits = digits(raw["hits8"], 8, count, f"{name}, hits8")
        self.samples: int = raw.get("samples", SAMPLES)
        self.base = answers([raw["base"]], raw, f"{name}, base")
        self.prices: dict[str, dict[str, float]] = raw.get("prices", {})
        self.lists: dict[str, dict[str, Arm]] = {
            prices: {arm: self._arm(arms[arm], f"{name}, {prices}, {arm}") for arm in in_order(arms)}
            for prices, arms in raw["curves"].items()
            if arms
        }

    def _arm(self, raw: Mapping[str, Any], where: str) -> Arm:
        steps = list(dict.fromkeys(point["step"] for point in raw["points"]))
        by_step = {step: [point for point in raw["points"] if point["step"] == step] for step in steps}
        found = {step: answers(points, self.raw, where) for step, points in by_step.items()}
        return Arm(raw.get("learning_rate"), found)

    @cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """Name → (Q,) which questions: all, the families, and by whether one of eight samples of the base is right."""
        families = [question["family"] for question in self.questions]
        names = [name for name in FAMILIES if name in families] + sorted(set(families) - set(FAMILIES))
        groups = {ALL: np.ones(len(families), dtype=bool)}
        groups |= {name: np.array([family == name for family in families]) for name in names}
        groups |= {LOST: self.hits == 0, REACHED: self.hits > 0}
        return {name: mask for name, mask in groups.items() if mask.any()}

    @property
    def families(self) -> list[str]:
        return [name for name in self.groups if name not in (ALL, LOST, REACHED)]

    @property
    def steps(self) -> list[float]:
        """The budgets, in multiples of what `mix` takes on all rows."""
        return sorted(self.raw["steps"])

    @property
    def main_step(self) -> float:
        """The whole protocol of `mix` on all rows; where that was not run, the largest budget below it, else any."""
        return max((step for step in self.steps if step <= 1), default=min(self.steps))

    def get(self, prices: str, arm: str, step: float | None) -> Answers | None:
        """The answers of an arm with a budget; None where it was not run."""
        found = self.lists.get(prices, {}).get(arm)
        return found.get(step) if found else None

    def rivals(self, prices: str, step: float, among: Sequence[str] | None = None) -> list[str]:
        """The arms other than ours that were run with this budget; `among` leaves only these."""
        others = [arm for arm in self.lists.get(prices, {}) if arm not in (OURS, REPLAYED)]
        arms = [arm for arm in others if among is None or arm in among]
        return [arm for arm in arms if self.get(prices, arm, step) is not None]

    def versus(
        self, prices: str, more: str, less: str, step: float, group: str = ALL, kind: str = "sampled"
    ) -> Difference:
        """`more` − `less` in sampled (or greedy) accuracy with the same budget, with its interval."""
        one, other = self.get(prices, more, step), self.get(prices, less, step)
        if one is None or other is None:
            raise KeyError(f"{more} or {less} was not run with budget {step} under {prices}")
        return apart(getattr(one, kind), getattr(other, kind), self.groups[group])

    def best(self, prices: str, step: float, group: str = ALL, among: Sequence[str] | None = None) -> str | None:
        """The arm other than ours with the best mean on these questions."""
        mask = self.groups[group]

        def mean(arm: str) -> float:
            found = self.get(prices, arm, step)
            return found.mean(mask=mask) if found else -1.0

        return max(self.rivals(prices, step, among), key=mean, default=None)


def apart(more: np.ndarray, less: np.ndarray, mask: np.ndarray | None = None) -> Difference:
    """`more` − `less`, (S, Q) each, paired by question, with the 95 % interval over seeds and questions."""
    if mask is not None:
        more, less = more[:, mask], less[:, mask]
    # Only the number of clusters counts, so groups of one size share their resamples.
    return arm_difference(list(more), list(less), _clusters(more.shape[1]))


@cache
def _clusters(count: int) -> tuple[str, ...]:
    """A name for each question."""
    return tuple(f"{at:05}" for at in range(count))


def level(values: np.ndarray, mask: np.ndarray | None = None) -> Difference:
    """The mean of (S, Q), with its 95 % interval over seeds and questions."""
    return apart(values, np.zeros((1, values.shape[1])), mask)


def in_order(arms: Mapping[str, Any]) -> list[str]:
    """The names as tables have them."""
    return sorted(arms, key=lambda arm: (ORDER.index(arm) if arm in ORDER else len(ORDER), arm))


def read(folder: Path, name: str) -> Any:
    """The content of a result file; None where there is none."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


# -------- words for figures
def points(found: Difference) -> str:
    """A difference in points with its interval."""
    return f"{signed(found.value)} ({signed(found.low)} … {signed(found.high)})"


def signed(share: float) -> str:
    """In points; what rounds to nothing has no minus."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def percent(share: float) -> str:
    """With one decimal and no sign of its own; a dash for what is not known."""
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def between(found: Difference) -> str:
    """A mean in percent with its interval."""
    return f"{percent(found.value)} ({percent(found.low)} … {percent(found.high)})"


def money(usd: float) -> str:
    """USD with three digits that count."""
    return f"{usd:,.0f}" if usd >= 1000 else f"{usd:.3g}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """Lines of a Markdown table; so many columns of words, the others of numbers."""
    rule = ["---"] * words + ["--:"] * (len(heads) - words)
    return [_line(heads), _line(rule), *(_line(row) for row in rows), ""]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def wrapped(line: str, width: int = 120) -> str:
    """A paragraph or an item of a list in lines of such a width; anything else as it is."""
    if line.startswith(("|", "#", "!", "```", ">")):
        return line
    inner = "  " if line.startswith("- ") else ""
    together = line.replace(" %", "\0%")  # a line does not begin with %
    filled = textwrap.fill(together, width, subsequent_indent=inner, break_long_words=False, break_on_hyphens=False)
    return filled.replace("\0", " ")


def counted(count: int, what: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

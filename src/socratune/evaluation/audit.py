"""Measures whether the judge is right, and equally right about the adapter's answers and the base's.

A judge that accepts 15 % of the adapter's wrong answers, but only 5 % of the base's, reports a gain of about 5 points
that does not exist. A person labels a sample of the answers (`audit_sheet`). The labels give the judge's sensitivity
and specificity on either side, and these give the accuracies that a perfect judge would have reported (Rogan and
Gladen, 1978).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from socratune.errors import CallError
from socratune.judging import Judge
from socratune.rows import QARow, Verdict

Side = Literal["base", "adapter"]
SIDES: tuple[Side, Side] = ("base", "adapter")

FEWEST_LABELS = 5
"""Fewest right, and fewest wrong, answers on a side. With fewer, nothing is corrected."""
WEAKEST_JUDGE = 0.1
"""Sensitivity + specificity − 1 up to which nothing is corrected: the correction divides by it, and 0 is chance."""
_DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Labelled:
    """Holds an answer that a person has labelled as right or wrong."""

    row: QARow
    response: str
    label: bool
    side: Side | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """Holds a rate: `count` of `of`."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """Returns the share, or None if `of` is 0."""
        return self.count / self.of if self.of else None

    @property
    def ci95(self) -> tuple[float, float]:
        """Returns Wilson's interval, or 0 to 1 if `of` is 0."""
        if not self.of:
            return 0.0, 1.0
        z, n, share = 1.96, self.of, self.count / self.of
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)

    def to_json(self) -> dict[str, Any]:
        """Returns share, interval and counts."""
        return {"value": self.value, "ci95": list(self.ci95), "count": self.count, "of": self.of}


@dataclass(frozen=True, slots=True)
class Judged:
    """Holds the judge's result on some labelled answers: four counts and the undecided answers."""

    right_as_right: int = 0
    right_as_wrong: int = 0
    wrong_as_wrong: int = 0
    wrong_as_right: int = 0
    undecided: int = 0

    @property
    def decided(self) -> int:
        """Returns the number of answers with a verdict."""
        return self.right_as_right + self.right_as_wrong + self.wrong_as_wrong + self.wrong_as_right

    @property
    def sensitivity(self) -> Rate:
        """Returns the rate of right answers that the judge accepts."""
        return Rate(self.right_as_right, self.right_as_right + self.right_as_wrong)

    @property
    def specificity(self) -> Rate:
        """Returns the rate of wrong answers that the judge rejects."""
        return Rate(self.wrong_as_wrong, self.wrong_as_wrong + self.wrong_as_right)

    @property
    def leniency(self) -> Rate:
        """Returns the rate of wrong answers that the judge accepts: its false-positive rate."""
        return Rate(self.wrong_as_right, self.wrong_as_wrong + self.wrong_as_right)

    @property
    def agreement(self) -> Rate:
        """Returns the rate of decided answers on which judge and label agree."""
        return Rate(self.right_as_right + self.wrong_as_wrong, self.decided)

    @property
    def reported(self) -> Rate:
        """Returns the rate of decided answers that the judge accepts."""
        return Rate(self.right_as_right + self.wrong_as_right, self.decided)

    @property
    def true(self) -> Rate:
        """Returns the rate of decided answers that are right by their label."""
        return Rate(self.right_as_right + self.right_as_wrong, self.decided)

    def to_json(self) -> dict[str, Any]:
        """Returns counts and rates."""
        names = ("sensitivity", "specificity", "leniency", "agreement", "reported", "true")
        rates = {name: getattr(self, name).to_json() for name in names}
        return {"rows": self.decided + self.undecided, "undecided": self.undecided, **rates}


@dataclass(frozen=True, slots=True)
class _Estimate:
    """Holds a number with its 95 % interval. If it cannot be computed, `value` is None and `reason` explains it."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns value and interval, or the reason."""
        if self.value is None:
            return {"value": None, "reason": self.reason}
        return {"value": self.value, "ci95": [self.low, self.high]}


@dataclass(frozen=True, slots=True)
class Reported:
    """Holds a validation's report on one side: how many judged answers were right, and how many were cut off."""

    correct: int
    judged: int
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Audit:
    """Holds the result of an audit. Without sides, it has only `overall` and the verdict.

    Attributes:
        overall: the judge's result on all labelled answers.
        sides: the same for base and adapter.
        leniency: the judge's false-positive rate on the adapter's answers minus that on the base's.
        inflation: reported minus true accuracy, adapter minus base: how much the judge adds to a gain.
        reported: the accuracy of each side according to the judge.
        corrected: the accuracy that a perfect judge would have reported.
        gain: the corrected accuracy, adapter minus base.
        verdict: one or two sentences for people.
    """

    overall: Judged
    sides: dict[Side, Judged] = field(default_factory=dict)
    leniency: _Estimate | None = None
    inflation: _Estimate | None = None
    reported: dict[Side, float] = field(default_factory=dict)
    corrected: dict[Side, _Estimate] = field(default_factory=dict)
    gain: _Estimate | None = None
    verdict: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the result for `--json`."""
        return {
            "verdict": self.verdict,
            "overall": self.overall.to_json(),
            "sides": {side: judged.to_json() for side, judged in self.sides.items()},
            "leniency_difference": self.leniency and self.leniency.to_json(),
            "inflation_difference": self.inflation and self.inflation.to_json(),
            "reported_accuracy": self.reported,
            "corrected_accuracy": {side: estimate.to_json() for side, estimate in self.corrected.items()},
            "corrected_gain": self.gain and self.gain.to_json(),
        }

    def table(self) -> str:
        """Returns the result for people: a line per number, a column per side."""
        columns = {"all": self.overall, **self.sides}
        lines = [
            ("", *columns),
            ("labelled answers", *(str(one.decided + one.undecided) for one in columns.values())),
            ("undecided", *(str(one.undecided) for one in columns.values())),
            ("right taken for right", *(_shown(one.sensitivity) for one in columns.values())),
            ("wrong taken for wrong", *(_shown(one.specificity) for one in columns.values())),
            ("agreement", *(_shown(one.agreement) for one in columns.values())),
        ]
        if self.sides:
            lines.append(("reported accuracy", "", *(f"{self.reported[side]:.1%}" for side in SIDES)))
            lines.append(("corrected accuracy", "", *(_shown(self.corrected[side]) for side in SIDES)))
        widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
        rows = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
        return "\n".join(row.rstrip() for row in rows)


async def audit_verdicts(
    labelled: Sequence[Labelled],
    judge: Judge,
    *,
    reported: Mapping[Side, Reported] | None = None,
    concurrency: int = 8,
    seed: int = 0,
) -> Audit:
    """Compares the judge with the labels, on all answers and on either side.

    Args:
        reported: a validation's result by side, whose accuracies are corrected. Without it, the labelled answers are
            the sample, and their labels give the corrected accuracy.
        concurrency: the most calls in flight.
        seed: seed of the draws behind the intervals.
    """
    verdicts = await _verdicts(labelled, judge, concurrency)
    pairs = list(zip(labelled, verdicts, strict=True))
    overall = _judged([(one.label, verdict) for one, verdict in pairs])
    sides: dict[Side, Judged] = {
        side: _judged([(one.label, verdict) for one, verdict in pairs if one.side == side]) for side in SIDES
    }
    if not all(side.decided for side in sides.values()):
        return Audit(overall, verdict=_overall_verdict(overall))
    base, adapter = sides["base"], sides["adapter"]
    corrected, gain = _corrected(sides, reported, seed)
    shares: dict[Side, float] = {
        side: _share(reported[side]) if reported else judged.reported.count / judged.decided
        for side, judged in sides.items()
    }
    found = Audit(overall, sides, _leniency(base, adapter), _inflation(base, adapter), shares, corrected, gain)
    return replace(found, verdict=_verdict(found))


async def _verdicts(labelled: Sequence[Labelled], judge: Judge, concurrency: int) -> list[Verdict]:
    free = asyncio.Semaphore(concurrency)

    async def ask(one: Labelled) -> Verdict:
        async with free:
            try:
                return (await judge(one.row, one.response)).verdict
            except CallError:  # the call failed for good, so there is no verdict, as in the loop
                return "undecided"

    return list(await asyncio.gather(*(ask(one) for one in labelled)))


def _judged(pairs: Sequence[tuple[bool, Verdict]]) -> Judged:
    count = {(label, verdict): 0 for label in (True, False) for verdict in ("correct", "incorrect", "undecided")}
    for pair in pairs:
        count[pair] += 1
    return Judged(
        right_as_right=count[True, "correct"],
        right_as_wrong=count[True, "incorrect"],
        wrong_as_wrong=count[False, "incorrect"],
        wrong_as_right=count[False, "correct"],
        undecided=count[True, "undecided"] + count[False, "undecided"],
    )


# --- estimates -----------------------------------------------------------------------------------------------------


def _leniency(base: Judged, adapter: Judged) -> _Estimate:
    """Returns the difference of the false-positive rates, with Newcombe's interval (from Wilson's two)."""
    one, other = adapter.leniency, base.leniency
    if one.value is None or other.value is None:
        side = "adapter" if one.value is None else "base"
        return _Estimate(None, reason=f"no wrong answer of the {side} is labelled and judged")
    (low, high), (other_low, other_high) = one.ci95, other.ci95
    difference = one.value - other.value
    below = math.hypot(one.value - low, other_high - other.value)
    above = math.hypot(high - one.value, other.value - other_low)
    return _Estimate(difference, difference - below, difference + above)


def _inflation(base: Judged, adapter: Judged) -> _Estimate:
    """Returns the difference of (reported − true) accuracy. Half an error of each kind is added to the counts of the
    variance, so that a side without errors does not count as certain.
    """
    value, variance = 0.0, 0.0
    for judged, sign in ((adapter, 1), (base, -1)):
        n, up, down = judged.decided, judged.wrong_as_right, judged.right_as_wrong
        value += sign * (up - down) / n
        variance += ((up + down + 1) / (n + 2) - ((up - down) / (n + 2)) ** 2) / n
    half = 1.96 * math.sqrt(variance)
    return _Estimate(value, max(-1.0, value - half), min(1.0, value + half))


def _share(reported: Reported) -> float:
    return reported.correct / max(1, reported.judged + reported.truncated)


def _corrected(
    sides: Mapping[Side, Judged], reported: Mapping[Side, Reported] | None, seed: int
) -> tuple[dict[Side, _Estimate], _Estimate]:
    """Returns the corrected accuracy of either side, and their difference."""
    import numpy as np

    draws: dict[Side, Any] = {}
    corrected: dict[Side, _Estimate] = {}
    generator = np.random.default_rng(seed)
    for side, judged in sides.items():
        if reported is None:
            value, draws[side] = judged.true.value or 0.0, _draws(judged.true, generator)
        elif reason := _why_not(judged, reported[side], side):
            corrected[side] = _Estimate(None, reason=reason)
            continue
        else:
            value, draws[side] = _rogan_gladen(judged, reported[side], generator)
        corrected[side] = _with_interval(value, draws[side])
    one, other = corrected["adapter"], corrected["base"]
    if one.value is None or other.value is None:
        return corrected, _Estimate(None, reason=one.reason or other.reason)
    return corrected, _with_interval(one.value - other.value, draws["adapter"] - draws["base"])


def _why_not(judged: Judged, reported: Reported, side: Side) -> str:
    """Returns why a side cannot be corrected, and an empty text if it can."""
    if not reported.judged:
        return f"no answer of the {side} has a verdict"
    for rate, kind in ((judged.sensitivity, "right"), (judged.specificity, "wrong")):
        if rate.of < FEWEST_LABELS:
            return f"only {rate.of} {kind} answers of the {side} are labelled and judged; {FEWEST_LABELS} are needed"
    worth = (judged.sensitivity.value or 0) + (judged.specificity.value or 0) - 1
    if worth <= WEAKEST_JUDGE:
        return f"on the {side}'s answers sensitivity + specificity is {1 + worth:.2f}, hardly better than a coin's 1"
    return ""


def _rogan_gladen(judged: Judged, reported: Reported, generator: Any) -> tuple[float, Any]:
    """Returns (reported + specificity − 1) / (sensitivity + specificity − 1), with cut-offs as wrong, and its draws."""
    import numpy as np

    whole = reported.judged / (reported.judged + reported.truncated)
    rates = Rate(reported.correct, reported.judged), judged.sensitivity, judged.specificity

    def accuracy(share: Any, sensitivity: Any, specificity: Any) -> Any:
        worth = np.maximum(sensitivity + specificity - 1, 1e-9)
        return whole * np.clip((share + specificity - 1) / worth, 0, 1)

    return float(accuracy(*(rate.value for rate in rates))), accuracy(*(_draws(rate, generator) for rate in rates))


def _draws(rate: Rate, generator: Any) -> Any:
    """Draws a share from its posterior under Jeffreys' prior, so that a count of 0 makes nothing certain."""
    return generator.beta(rate.count + 0.5, rate.of - rate.count + 0.5, _DRAWS)


def _with_interval(value: float, draws: Any) -> _Estimate:
    import numpy as np

    low, high = np.percentile(draws, (2.5, 97.5))
    return _Estimate(value, float(low), float(high))


# --- in words ------------------------------------------------------------------------------------------------------


def _overall_verdict(judged: Judged) -> str:
    agreement = judged.agreement
    if agreement.value is None:
        return f"The judge decided none of {judged.undecided} labelled answers."
    low, high = agreement.ci95
    return (
        f"The judge agrees with {agreement.count} of {agreement.of} labels ({agreement.value:.0%}, 95 % {low:.0%} to "
        f"{high:.0%}): it takes {judged.leniency.count} of {judged.leniency.of} wrong answers for right and "
        f"{judged.right_as_wrong} of {judged.sensitivity.of} right ones for wrong. {judged.undecided} are undecided."
    )


def _verdict(found: Audit) -> str:
    assert found.leniency is not None and found.gain is not None
    return f"{_overall_verdict(found.overall)} {_kindness(found, found.leniency)} {_gain_in_words(found, found.gain)}"


def _kindness(found: Audit, leniency: _Estimate) -> str:
    if leniency.value is None or leniency.low is None or leniency.high is None:
        return f"Whether it is kinder to one side cannot be told: {leniency.reason}."
    interval = f"95 % {_points(leniency.low)} to {_points(leniency.high)}"
    if leniency.low <= 0 <= leniency.high:
        return (
            f"It is not shown to be kinder to either side ({_points(leniency.value)} points towards the adapter, "
            f"{interval})."
        )
    kinder = "adapter" if leniency.value > 0 else "base"
    rates = {side: found.sides[side].leniency.value or 0.0 for side in SIDES}
    return (
        f"It is {abs(leniency.value) * 100:.0f} points kinder to the {kinder}'s answers ({interval}): it takes "
        f"{rates['adapter']:.0%} of the adapter's wrong answers for right, and {rates['base']:.0%} of the base's."
    )


def _gain_in_words(found: Audit, gain: _Estimate) -> str:
    told = found.reported["adapter"] - found.reported["base"]
    if gain.value is None or gain.low is None or gain.high is None:
        return f"The reported gain of {_points(told)} points cannot be corrected: {gain.reason}."
    text = f"The reported gain of {_points(told)} points is {_points(gain.value)} corrected"
    return f"{text} (95 % {_points(gain.low)} to {_points(gain.high)})."


def _points(share: float) -> str:
    return f"{round(share * 100, 1) + 0.0:+.1f}"  # never -0.0


def _shown(figure: Rate | _Estimate) -> str:
    if figure.value is None:
        return "–"
    low, high = figure.ci95 if isinstance(figure, Rate) else (figure.low or 0.0, figure.high or 0.0)
    return f"{figure.value:.1%} ({low:.0%}–{high:.0%})"

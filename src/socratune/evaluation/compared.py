"""Two logs of the same questions: which is better, how surely, and on which questions they differ.

    open_log → match_logs → every metric: paired difference by cluster, Holm over the metrics → verdict, gate, rows

The statistics are those of the proof of a run (`stats`). B is held against A: a difference is what B gains, so of a
metric of which less is better the sign is turned. A score is the mean of a question's samples. An answer without a
score is counted twice, as in the proof: its pair left out, and at its worst for B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from socratune.errors import Fault, UserError
from socratune.evaluation.logs import Log, LoggedQuestion, Score
from socratune.evaluation.matching import By, Matched, clusters_of, match_logs, named, unmatched
from socratune.evaluation.stats import (
    FEW_CLUSTERS,
    FEWEST_CLUSTERS,
    Comparison,
    Paired,
    cautious,
    compare_paired,
    detectable,
    holm,
    paired_difference,
    shown_by,
)

_MARGIN = 0.02
"""What B may lose and still be `not_worse`: of a metric between 0 and 1 two points, of another 2 % of its range."""
_DRAWS, _SEED = 10_000, 0
_MOST_ROWS = 10_000_000
"""Rows beyond which a number of rows says only that there is nothing to find."""


class Compared(NamedTuple):
    """The result, as `--json` prints it, and what it is of: pairs of questions, and the metrics by name."""

    result: dict[str, Any]
    pairs: list[tuple[LoggedQuestion, LoggedQuestion]]
    names: list[_Name]


@dataclass(slots=True)
class _Metric:
    """The scores of one metric: of every pair that has it the means of A and B, NaN where nothing was scored.

    Attributes:
        at: which pairs have it.
        worst_a, worst_b: the means with every sample that was not scored at its worst for B.
        gaps: where there is such a sample.
        binary: every sample is right or wrong.
        share: all scores lie between 0 and 1.
        span: their range; 1 of shares.
    """

    name: _Name
    at: np.ndarray
    a: np.ndarray
    b: np.ndarray
    worst_a: np.ndarray
    worst_b: np.ndarray
    gaps: np.ndarray
    lower: bool
    binary: bool
    share: bool
    span: float

    def of(self, places: np.ndarray) -> _Metric:
        """The same of some of the pairs."""
        names = ("at", "a", "b", "worst_a", "worst_b", "gaps")
        return replace(self, **{name: getattr(self, name)[places] for name in names})


def compare_logs(
    a: Log,
    b: Log,
    *,
    metrics: Sequence[str] = (),
    lower: Sequence[str] = (),
    by: By | None = None,
    margin: float | None = None,
) -> Compared:
    """Hold B against A on the questions that both have.

    Args:
        metrics: which; all that both have without it. A name without its filter means all its filters.
        lower: metrics of which less is better, besides those that a log says so of.
        margin: what B may lose and still be `not_worse`, in the metric's own units; a fiftieth of its range without it.

    Raises:
        UserError: no common question, no common metric, an unknown one, or a margin that is none.
    """
    if margin is not None and not (isinstance(margin, int | float) and 0 <= margin < math.inf):
        raise UserError(Fault("--margin", "a number from 0 on", margin))
    chosen = _chosen(a, b, metrics)
    turned = _lower(a, b, chosen, lower)
    matched = match_logs(a, b, by)
    clusters = np.array(clusters_of(matched.pairs))
    tasks = np.array([one.task for one, _ in matched.pairs])
    found = [_metric(matched.pairs, one, one in turned) for one in chosen]
    entries = _corrected([_compared(metric, clusters, margin) for metric in found])
    for entry, metric in zip(entries, found, strict=True):
        if len(set(tasks[metric.at])) > 1:
            entry["by_task"] = _by_task(metric, clusters, tasks, margin)
    result = {
        "verdict": overall([entry["verdict"] for entry in entries]),
        "a": _side(a),
        "b": _side(b),
        "matched": {"by": matched.by, "questions": len(matched.pairs), "unmatched": unmatched(matched)},
        "correction": "holm" if len(entries) > 1 else None,
        "metrics": entries,
        "remarks": [*a.remarks, *b.remarks, *_remarks(a, b, matched, entries)],
    }
    return Compared({**result, "gate": _gate(result)}, matched.pairs, chosen)


def overall(verdicts: Sequence[Comparison]) -> Comparison:
    """One word for several metrics: worse in any is worse; better in one and not worse in all others is better."""
    if "worse" in verdicts:
        return "worse"
    if "inconclusive" in verdicts or not verdicts:
        return "inconclusive"
    return "better" if "better" in verdicts else "not_worse"


# --- which metrics -------------------------------------------------------------------------------------------------


class _Name(NamedTuple):
    """What a metric is called in A and in B."""

    a: str
    b: str

    def __str__(self) -> str:
        return self.a if self.a == self.b else f"{self.a}={self.b}"


def _chosen(a: Log, b: Log, wanted: Sequence[str]) -> list[_Name]:
    """The metrics that are wanted: `NAME` or `NAME_IN_A=NAME_IN_B`; else all that both have, or the only ones."""
    first, second = a.metrics, b.metrics
    told = f"A has {', '.join(first)}; B has {', '.join(second)}."
    both = [_Name(name, name) for name in first if name in second]
    if not wanted and not both and len(first) == len(second) == 1:
        both = [_Name(first[0], second[0])]
    if not wanted and not both:
        fix = f"{told} Name a pair of them: --metric {first[0]}={second[0]}"
        raise UserError(Fault(f"{a.name} and {b.name}", "a metric that both have", fix=fix))
    found, faults = dict.fromkeys(both if not wanted else ()), []
    for want in wanted:
        left, equals, right = want.partition("=")
        named_so = [one for one in both if want in (one.a, one.a.partition(",")[0])]
        if equals and left in first and right in second:
            named_so = [_Name(left, right)]
        if not named_so:
            faults.append(Fault(f"--metric {want}", "a metric of both logs, or NAME_IN_A=NAME_IN_B", want, told))
        found |= dict.fromkeys(named_so)
    if faults:
        raise UserError(*faults)
    return list(found)


def _lower(a: Log, b: Log, names: list[_Name], lower: Sequence[str]) -> set[_Name]:
    known = {text for name in names for text in (*name, str(name))}
    if unknown := [name for name in lower if name not in known]:
        told = f"Compared are: {', '.join(map(str, names))}."
        raise UserError(*(Fault(f"--lower {name}", "a metric that is compared", name, told) for name in unknown))
    return {one for one in names if {*one, str(one)} & set(lower) or one.a in a.lower or one.b in b.lower}


def _metric(pairs: list[tuple[LoggedQuestion, LoggedQuestion]], name: _Name, lower: bool) -> _Metric:
    at = [place for place, (one, other) in enumerate(pairs) if name.a in one.scores and name.b in other.scores]
    if not at:
        raise UserError(Fault(f"--metric {name}", "a score of it in both logs for some question", fix="Name another."))
    sides = [[pairs[place][side].scores[name[side]] for place in at] for side in (0, 1)]
    values = {score for side in sides for scores in side for score in scores if score is not None}
    if not values:
        raise UserError(Fault(f"--metric {name}", "a score in both logs", fix="No answer was scored; name another."))
    least, most = min(values), max(values)
    if share := least >= 0 and most <= 1:
        least, most = 0.0, 1.0
    best, worst = (least, most) if lower else (most, least)
    a, b = (np.array([_mean(scores, None) for scores in side]) for side in sides)
    worst_a = np.array([_mean(scores, best) for scores in sides[0]])
    worst_b = np.array([_mean(scores, worst) for scores in sides[1]])
    gaps = np.array([None in one or None in other for one, other in zip(*sides, strict=True)])
    span = (most - least) or 1.0
    return _Metric(name, np.array(at), a, b, worst_a, worst_b, gaps, lower, values <= {0, 1}, share, span)


def _mean(scores: list[Score], instead: float | None) -> float:
    """Of the samples of a question; `instead` of one without a score, which None leaves out. NaN: nothing is left."""
    held = [instead if score is None else score for score in scores]
    kept = [score for score in held if score is not None]
    return sum(kept) / len(kept) if kept else math.nan


# --- one metric ----------------------------------------------------------------------------------------------------


def _compared(metric: _Metric, clusters: np.ndarray, margin: float | None) -> dict[str, Any]:
    """All figures of a metric but its verdict, which needs the other metrics' p; `_paired` is taken out again."""
    kept = ~(np.isnan(metric.a) | np.isnan(metric.b))
    names = clusters[metric.at]
    paired = _paired(metric, metric.a[kept], metric.b[kept], names[kept])
    worst_case = _paired(metric, metric.worst_a, metric.worst_b, names) if metric.gaps.any() else paired
    change = _gain(metric, metric.a[kept], metric.b[kept])
    allowed = margin if margin is not None else _MARGIN * metric.span
    return {
        "name": str(metric.name),
        "lower_is_better": metric.lower,
        "scale": "share" if metric.share else "number",
        "a": _average(metric.a[kept]),
        "b": _average(metric.b[kept]),
        **_figures(paired),
        "n": paired.rows,
        "clusters": paired.clusters,
        "interval": paired.interval,
        "test": paired.test,
        "won": int((change > 0).sum()),
        "lost": int((change < 0).sum()),
        "level": int((change == 0).sum()),
        "binary": metric.binary,
        "unscored": int(metric.gaps.sum()),
        "worst_case": None if worst_case is paired else {**_figures(worst_case), "n": worst_case.rows},
        "margin": allowed,
        "detectable": _detectable(paired, metric, names[kept]),
        "_paired": (paired, worst_case),
    }


def _paired(metric: _Metric, a: np.ndarray, b: np.ndarray, names: np.ndarray) -> Paired:
    """Of the scores as shares of their range, so that an interval knows its ends; the figures in their own units."""
    span = metric.span
    before, after = (b, a) if metric.lower else (a, b)
    paired = paired_difference(before / span, after / span, names.tolist(), draws=_DRAWS, seed=_SEED)
    return replace(paired, difference=paired.difference * span, low=paired.low * span, high=paired.high * span)


def _gain(metric: _Metric, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a - b) if metric.lower else (b - a)


def _figures(paired: Paired) -> dict[str, Any]:
    return {"difference": paired.difference, "ci95": [paired.low, paired.high], "p": paired.p}


def _average(scores: np.ndarray) -> float:
    return float(scores.mean()) if len(scores) else 0.0


def _detectable(paired: Paired, metric: _Metric, names: np.ndarray) -> float | None:
    """By the spread that was seen; where no question changed, by the usual one."""
    seen = shown_by(paired)
    if seen is None and len(names):
        planned = detectable(np.unique(names, return_counts=True)[1].tolist(), fewest=FEWEST_CLUSTERS).difference
        return None if planned is None else planned * metric.span
    return seen


def _corrected(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries with adjusted p, verdict and rows needed."""
    told = [entry.pop("_paired") for entry in entries]
    decided, worst = (holm([pair[way].p for pair in told]) for way in (0, 1))
    found = []
    for entry, (paired, worst_case), p, worst_p in zip(entries, told, decided, worst, strict=True):
        margin = entry["margin"]
        verdict = cautious(
            compare_paired(replace(paired, p=p), margin), compare_paired(replace(worst_case, p=worst_p), margin)
        )
        needed = _rows_needed(paired, margin) if verdict in ("inconclusive", "not_worse") else {}
        found.append({**entry, "p_adjusted": p, "verdict": verdict, "rows_needed": needed})
    return found


def _rows_needed(paired: Paired, margin: float) -> dict[str, int | None]:
    """Questions that a test with 80 % power takes, in clusters as these: for a difference of the size that was seen,
    and for showing that no more than the margin is lost. None: more than ten million, or it lies beyond the margin.
    """
    shown = shown_by(paired)
    if shown is None:
        return {}

    def rows(distance: float, spread: float) -> int | None:
        if distance <= 0:
            return None
        count = math.ceil(paired.rows * (spread / distance) ** 2)
        return count if count <= _MOST_ROWS else None

    found = {"difference": rows(abs(paired.difference), shown)}
    if paired.low < -margin:
        found["not_worse"] = rows(paired.difference + margin, shown)
    return found


def _by_task(metric: _Metric, clusters: np.ndarray, tasks: np.ndarray, margin: float | None) -> list[dict[str, Any]]:
    """The same within each task, corrected for their number."""
    own = tasks[metric.at]
    entries = []
    for task in dict.fromkeys(own.tolist()):
        places = own == task
        entries.append({"task": task, **_compared(metric.of(places), clusters, margin)})
    return _corrected(entries)


# --- what is said of it --------------------------------------------------------------------------------------------


def _side(log: Log) -> dict[str, Any]:
    return {
        "name": log.name,
        "format": log.format,
        "model": log.model,
        "tasks": log.tasks,
        "questions": len(log.questions),
        "samples": log.samples,
    }


def _remarks(a: Log, b: Log, matched: Matched, entries: list[dict[str, Any]]) -> list[str]:
    found = []
    if a.samples != b.samples:
        found.append(f"Samples of a question: {a.samples} in A, {b.samples} in B; their mean counts.")
    least = min(entry["clusters"] for entry in entries)
    if least < FEWEST_CLUSTERS:
        found.append(f"With {least} clusters nothing can be shown: at least {FEWEST_CLUSTERS} are needed.")
    elif least < FEW_CLUSTERS:
        found.append(f"Only {least} clusters: the interval is Student's t on their means, which is rough.")
    for entry in entries:
        if entry["unscored"]:
            of = f"{entry['unscored']} of {len(matched.pairs)} questions"
            found.append(
                f"{entry['name']}: not all answers to {of} are scored. These are left out, and the verdict also holds "
                "where they are at their worst for B."
            )
    if matched.other_question:
        found.append("Ids that are of another question in B than in A are left out.")
    if matched.ambiguous:
        found.append("Texts that stand in one log more often than in the other are left out.")
    return found


def _gate(result: dict[str, Any]) -> dict[str, Any]:
    """Whether B may take the place of A: every metric is better or not worse, and no task of one is worse."""
    reasons = []
    for entry in result["metrics"]:
        if entry["verdict"] not in ("better", "not_worse"):
            reasons.append(f"{entry['name']} is {entry['verdict']}.")
        worse = [part["task"] for part in entry.get("by_task", ()) if part["verdict"] == "worse"]
        if worse:
            reasons.append(f"{entry['name']} is worse on {', '.join(worse)}.")
    return {"passed": not reasons, "reasons": reasons}


def compared_rows(compared: Compared) -> list[dict[str, Any]]:
    """The pairs as a page shows them: texts, and the scores of both by metric."""
    return [
        {
            "id": named(one),
            "task": one.task or other.task,
            "question": one.question or other.question,
            "reference": one.reference or other.reference,
            "cluster": one.cluster or other.cluster,
            "a": one.answers,
            "b": other.answers,
            "scores": {
                str(name): [one.scores[name.a], other.scores[name.b]]
                for name in compared.names
                if name.a in one.scores and name.b in other.scores
            },
        }
        for one, other in compared.pairs
    ]

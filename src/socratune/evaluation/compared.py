"""Compares two logs of the same questions: which is better, how certainly, and on which questions they differ.

    open_log → match_logs → every metric: paired difference by cluster, Holm over the metrics → verdict, gate, rows

The statistics are those of the proof of a run (`stats`). B is compared with A: a difference is B's gain, so the sign is
turned for a metric where less is better. A score is the mean of a question's samples. As in the proof, an answer
without a score is counted in two ways: its pair is left out, and it takes the worst score for B.
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
"""What B may lose and still be `not_worse`: two points on a metric between 0 and 1, else 2 % of the metric's range."""
_DRAWS, _SEED = 10_000, 0
_MOST_ROWS = 10_000_000
"""Number of needed rows beyond which the result is that there is nothing to find."""


class Compared(NamedTuple):
    """Holds the result, as `--json` prints it, with its pairs of questions and its metrics by name."""

    result: dict[str, Any]
    pairs: list[tuple[LoggedQuestion, LoggedQuestion]]
    names: list[_Name]


@dataclass(slots=True)
class _Metric:
    """Holds the scores of one metric: the means of A and B for every pair that has it, NaN where nothing was scored.

    Attributes:
        at: the positions of the pairs that have it.
        worst_a, worst_b: the means where every sample without a score takes the worst score for B.
        gaps: True where a sample has no score.
        binary: True if every sample is right or wrong.
        share: True if all scores lie between 0 and 1.
        span: the range of the scores; 1 for shares.
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
        """Returns the metric for only some of the pairs."""
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
    """Compares B with A on the questions that both have.

    Args:
        metrics: the metrics to compare, by default all that both have. A name without its filter means all its filters.
        lower: metrics where less is better, besides those that a log declares.
        margin: what B may lose and still be `not_worse`, in the metric's own units; by default a fiftieth of its range.

    Raises:
        UserError: no common question, no common metric, an unknown metric, or an invalid margin.
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
    """Returns one verdict for several metrics. Worse in any: worse; better in one, not worse in the rest: better."""
    if "worse" in verdicts:
        return "worse"
    if "inconclusive" in verdicts or not verdicts:
        return "inconclusive"
    return "better" if "better" in verdicts else "not_worse"


# --- which metrics -------------------------------------------------------------------------------------------------


class _Name(NamedTuple):
    """Holds the name of a metric in A and in B."""

    a: str
    b: str

    def __str__(self) -> str:
        return self.a if self.a == self.b else f"{self.a}={self.b}"


def _chosen(a: Log, b: Log, wanted: Sequence[str]) -> list[_Name]:
    """Returns the requested metrics: `NAME` or `NAME_IN_A=NAME_IN_B`; else all that both have, or the only ones."""
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
    """Returns the mean of a question's samples. `instead` replaces a missing score, None omits it. NaN: none left."""
    held = [instead if score is None else score for score in scores]
    kept = [score for score in held if score is not None]
    return sum(kept) / len(kept) if kept else math.nan


# --- one metric ----------------------------------------------------------------------------------------------------


def _compared(metric: _Metric, clusters: np.ndarray, margin: float | None) -> dict[str, Any]:
    """Returns a metric's numbers but no verdict, which needs the other metrics' p. `_paired` is removed later."""
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
    """Compares the scores as shares of their range, which bounds an interval, and returns their own units."""
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
    """Returns the detectable difference by the observed spread, or by the usual spread if no question changed."""
    seen = shown_by(paired)
    if seen is None and len(names):
        planned = detectable(np.unique(names, return_counts=True)[1].tolist(), fewest=FEWEST_CLUSTERS).difference
        return None if planned is None else planned * metric.span
    return seen


def _corrected(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the entries with adjusted p, verdict and rows needed."""
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
    """Returns how many questions a test with 80 % power needs, in clusters like these: to show the observed difference,
    and that no more than the margin is lost. None means more than ten million, or a difference beyond the margin.
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
    """Returns the same numbers within each task, corrected for the number of tasks."""
    own = tasks[metric.at]
    entries = []
    for task in dict.fromkeys(own.tolist()):
        places = own == task
        entries.append({"task": task, **_compared(metric.of(places), clusters, margin)})
    return _corrected(entries)


# --- remarks and gate ----------------------------------------------------------------------------------------------


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
    """Decides whether B may replace A: every metric is better or not worse, and no task of a metric is worse."""
    reasons = []
    for entry in result["metrics"]:
        if entry["verdict"] not in ("better", "not_worse"):
            reasons.append(f"{entry['name']} is {entry['verdict']}.")
        worse = [part["task"] for part in entry.get("by_task", ()) if part["verdict"] == "worse"]
        if worse:
            reasons.append(f"{entry['name']} is worse on {', '.join(worse)}.")
    return {"passed": not reasons, "reasons": reasons}


def compared_rows(compared: Compared) -> list[dict[str, Any]]:
    """Returns the pairs for the page: texts, and the scores of both logs by metric."""
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

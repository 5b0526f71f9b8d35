"""Tests every row of a small data set: each by an adapter that saw neither it nor its source.

The rows are divided into folds. Of each fold an adapter is trained on the other folds' traces, with the settings of the
run, and asked the fold's questions. The pooled answers are compared with the base's. No call of the loop is made twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from socratune.errors import Fault, Shown, StageFailed, UserError
from socratune.evaluation import (
    FREQUENT,
    NEARLY_ALL,
    against_the_majority,
    compare_paired,
    paired_difference,
    rows_needed,
    t_interval,
    told_of_questions,
)
from socratune.pipeline import run_pipeline
from socratune.resolve import Resolved, deep_merge, dump, flatten, read_config_file, resolve_settings
from socratune.rows import QARow
from socratune.runs import Results, RunDir, Tell, fingerprint, read_rows, write_json
from socratune.ways.exam import examined, telling
from socratune.ways.folders import begin

FOLDS = 5
_OPEN = ("inconclusive", "not_worse")
"""Verdicts that more rows could change."""


@dataclass(frozen=True, slots=True)
class FoldInterval:
    """The mean change with its 95 % interval, which is the wider of `by_rows` and `by_folds`."""

    value: float
    by_rows: tuple[float, float]
    by_folds: tuple[float, float]

    @property
    def interval(self) -> tuple[float, float]:
        """Returns the interval to report."""
        return max(self.by_rows, self.by_folds, key=lambda ends: ends[1] - ends[0])


def folds_of(clusters: Sequence[str], *, count: int = FOLDS, seed: int = 0) -> np.ndarray:
    """Returns the fold of each row, (N,): clusters are never parted, the largest first, each into the smallest fold."""
    names, index, sizes = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    drawn = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    filled, fold = [0] * count, np.zeros(len(names), dtype=int)
    for at in sorted(range(len(names)), key=lambda at: (-sizes[at], drawn[at])):
        fold[at] = min(range(count), key=lambda number: filled[number])
        filled[fold[at]] += int(sizes[at])
    return fold[index]


def fold_interval(change: np.ndarray, clusters: Sequence[str], folds: np.ndarray) -> FoldInterval:
    """Returns the mean of `change` (N,) with two intervals.

    Rows of a fold share an adapter, and its luck is in all of them. The interval over rows, whose clusters count as
    independent, does not see that; the one over folds does, with few degrees of freedom.
    """
    value = float(change.mean())
    return FoldInterval(value, *(_over(change, groups) for groups in (np.asarray(clusters), folds)))


def _over(change: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    _, index = np.unique(groups, return_inverse=True)
    return t_interval(np.bincount(index, weights=change), np.bincount(index), 0.95)


def tested_by_folds(run: RunDir, count: int, *, tell: Tell) -> dict[str, Any]:
    """Trains and tests by folds, in `RUN/crossfit`, and returns the content of `RUN/crossfit.json`. Resumes.

    Returns:
        `rows`, `clusters`, accuracies of base and adapters, `difference`, `ci95` (the wider of `by_rows` and
        `by_folds`), `verdict`, `passed`, `rows_needed`, `majority`, and for each of the `folds` its `rows`,
        `trained_on` and accuracies. An undecided answer counts as wrong.

    Raises:
        UserError: the run has no traces, or nothing to divide into so many folds.
        StageFailed: a fold has nothing to train on.
    """
    resolved = resolve_settings(read_config_file(run.config), where=str(run.config))
    rows = _rows(run, resolved)
    clusters = [row.cluster or row.id for row in rows]
    if not 2 <= count <= len(set(clusters)):
        got = Shown(f"{count} for {len(set(clusters))} independent rows or sources")
        raise UserError(Fault("--crossfit", "at least two folds, and at most as many as there are sources", got))
    folds = folds_of(clusters, count=count, seed=resolved.config.seed)
    place = RunDir(run / "crossfit" / f"{count}-{_key(resolved, rows)}")
    place.create()
    with place.locked():
        before = _examined(place, resolved, rows, None, tell, "base")
        after, told = np.zeros(len(rows)), []
        for fold in range(count):
            at = np.flatnonzero(folds == fold)
            right, trained_on = _fold(run, place, rows, folds, fold, tell)
            after[at] = right
            told.append(
                {"rows": len(at), "trained_on": trained_on, "base": before[at].mean(), "adapter": after[at].mean()}
            )
    result = _read(rows, clusters, folds, before, after, resolved) | {"folds": told}
    write_json(run / "crossfit.json", result)
    return result


def _key(resolved: Resolved, rows: Sequence[QARow]) -> str:
    """Returns what the folds depend on, so that other rows or settings have other folders."""
    settings = {name: value for name, value in flatten(dump(resolved.config)).items() if name != "output"}
    return fingerprint(settings, [row.to_json() for row in rows])[:8]


def _rows(run: RunDir, resolved: Resolved) -> list[QARow]:
    """Returns all rows of the split; a test of the user's own stays out."""
    config = resolved.config
    if Results(run).stage("enhance").get("status") != "done":
        fix = f"First: socratune train {run.root}"
        raise UserError(Fault("--crossfit", "a run whose loop is finished", Shown("one without"), fix))
    if config.shard or config.rounds > 1 or config.where.place not in ("auto", "local"):
        raise UserError(Fault("--crossfit", "a run of one round on this machine, without --shard", Shown("another")))
    names = ("train_in", "dev") if config.split.held_out else ("train_in", "dev", "held_out")
    return [row for name in names for row in read_rows(run.rows(name), QARow.from_json)]


def _fold(
    run: RunDir, place: RunDir, rows: Sequence[QARow], folds: np.ndarray, fold: int, tell: Tell
) -> tuple[np.ndarray, int]:
    """Returns whether the fold's adapter is right in each row of the fold, and how many rows it was trained on."""
    own_run = RunDir(place / f"fold-{fold}")
    parts: dict[str, list[QARow]] = {"train_in": [], "held_out": [], "dev": [], "recall": []}
    for row, at in zip(rows, folds, strict=True):
        parts["held_out" if at == fold else "train_in"].append(row)
    known = RunDir(place / f"fold-{fold - 1}") if fold else run
    begin(own_run, run, until="split", rows=parts, journal=known.journal)
    own = resolve_settings(deep_merge(read_config_file(run.config), {"output": str(own_run.root)}), where="--crossfit")

    def named(event: str, stage: str, entry: dict[str, Any]) -> None:
        tell(event, f"fold {fold + 1}: {stage}", entry)

    results = run_pipeline(own, start="enhance", until="train", tell=named)
    train = results["stages"].get("train", {})
    if train.get("status") != "done":
        raise StageFailed(f"Fold {fold + 1} has no adapter: {results.get('error') or 'nothing to train on'}")
    return _examined(own_run, own, parts["held_out"], own_run.adapter, named, "exam"), train["rows_out"]


def _examined(
    place: RunDir, resolved: Resolved, rows: Sequence[QARow], adapter: Any, tell: Tell, name: str
) -> np.ndarray:
    with telling(tell, name) as tick:
        exam = examined(place, resolved.config, {"rows": list(rows)}, adapter, tick)
    return np.asarray(exam["right"]["rows"], dtype=float)


def _read(
    rows: list[QARow], clusters: list[str], folds: np.ndarray, before: np.ndarray, after: np.ndarray, resolved: Resolved
) -> dict[str, Any]:
    config, seed = resolved.config.validate_, resolved.config.seed
    paired = paired_difference(before, after, clusters, draws=config.bootstrap_draws, seed=seed)
    found = fold_interval(after - before, clusters, folds)
    by_rows = replace(paired, low=found.by_rows[0], high=found.by_rows[1])
    low, high = found.interval
    verdict = compare_paired(replace(paired, low=low, high=high), margin := config.not_worse_margin)
    majority = told_of_questions(rows)["majority"]
    beaten = True
    if config.gate.beat_majority and majority["reference"] and FREQUENT <= majority["accuracy"] < NEARLY_ALL:
        majority |= against_the_majority(majority["reference"], rows, list(after), config, seed)
        beaten = majority["ci95"][0] > 0
    return {
        "rows": len(rows),
        "clusters": len(set(clusters)),
        "base_accuracy": float(before.mean()),
        "adapter_accuracy": float(after.mean()),
        "difference": found.value,
        "ci95": [low, high],
        "by_rows": list(found.by_rows),
        "by_folds": list(found.by_folds),
        "p": paired.p,
        "verdict": verdict,
        "passed": verdict == "better" and beaten,
        "majority": majority,
        "rows_needed": rows_needed(by_rows) if compare_paired(by_rows, margin) in _OPEN else None,
    }

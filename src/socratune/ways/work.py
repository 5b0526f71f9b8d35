"""Runs one arm, one seed, one reading: from a copied folder to verdicts on the held-out questions.

Every training is an ordinary run of the product's stages, so `socratune ui` and `inspect` work on its folder.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratune.config import RunConfig
from socratune.errors import StageFailed
from socratune.pipeline import run_pipeline
from socratune.resolve import Resolved, deep_merge, dump, flatten, resolve_settings, unflatten
from socratune.rows import QARow, Trace
from socratune.runs import Journal, Results, RunDir, Tell, fingerprint, iter_rows, read_rows, write_text
from socratune.ways import controls, writing
from socratune.ways.arms import ARMS, REFERENCE, TRY_RATES
from socratune.ways.exam import examined, telling
from socratune.ways.folders import AblationJob, begin, folder

LOCAL_USD_PER_TOKEN = 1e-7
"""The assumed price of an unpaid token, about that of a server for an 8B model. If nothing is paid at all, only the
ratios of the arms count, which do not depend on it."""
MOST_EPOCHS = 10
"""The most times the configured epochs. An arm with few tokens does not reach the reference's, and the
table tells so."""
SAME = 0.9
"""A training is not repeated if its rows or tokens would exceed this share of another's."""
MOST_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the runs are, and what they share.

    Attributes:
        given: the user's settings, nested, without `output`.
        left_usd: the remaining budget; None is no limit.
    """

    output: Path
    given: dict[str, Any]
    tell: Tell
    left_usd: float | None = None

    @property
    def shared(self) -> RunDir:
        """Returns the run whose split all others have."""
        return RunDir(self.output / "shared")

    def resolved(self, run: RunDir, settings: dict[str, Any]) -> Resolved:
        """Returns the user's configuration with the settings of one run."""
        own = {**settings, "output": str(run.root)}
        return resolve_settings(deep_merge(self.given, unflatten(own)), where="socratune ablate")

    def held_out(self) -> list[QARow]:
        """Returns the questions of every exam."""
        return read_rows(self.shared.rows("held_out"), QARow.from_json)

    def done(self, job: AblationJob) -> dict[str, Any] | None:
        """Returns the result of `do` for a finished job, or None."""
        path = folder(self.output, job) / "job.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None


def do(bench: Bench, job: AblationJob) -> dict[str, Any]:
    """Trains and examines, and keeps the result. A reading that equals another training returns that one's.

    Returns:
        `right` (for each held-out question), `rows`, `trained_tokens`, `epochs`, `learning_rate`, `calls_tokens`,
        `cost_usd`, `paid_usd`, `seconds` by part.

    Raises:
        StageFailed: this arm is not possible here; the text gives the reason.
        BudgetSpent: finished calls are kept.
    """
    run = folder(bench.output, job)
    if job.reading != "rows":
        equal = shape(bench, job)
        if equal is None:
            return do(bench, AblationJob(job.arm, job.seed))
        share, epochs = equal
        begin(run, folder(bench.output, AblationJob(job.arm, job.seed)), until="curate", share=share)
        settings = {**_settings(bench, job), "train.num_train_epochs": epochs}
        return _trained(bench, job, run, settings, start="train")
    if ARMS[job.arm].kind == "written":
        return _written(bench, job, run)
    source = _source(bench, job)
    begin(run, bench.shared, until="split", journal=source.journal if source else None)
    return _trained(bench, job, run, _settings(bench, job), start="enhance")


def _written(bench: Bench, job: AblationJob, run: RunDir) -> dict[str, Any]:
    """Trains on traces of another writer, which are written once for all seeds."""
    if job.seed:
        begin(run, folder(bench.output, AblationJob(job.arm)), until="curate")
        return _trained(bench, job, run, _settings(bench, job), start="train")
    begin(run, bench.shared, until="split")
    settings = _settings(bench, job)
    if not (run / "written.json").exists():
        spent: dict[str, Any] = {}
        if job.arm == "sft":
            writing.references(run)
        else:
            own_words = job.arm == "teacher"
            samples = None if own_words else writing.style_samples(folder(bench.output, AblationJob(REFERENCE)))
            config = bench.resolved(run, settings).config
            with telling(bench.tell, "write") as tick:
                spent = asyncio.run(writing.solutions(run, config, samples, tick=tick))
        write_text(run / "written.json", json.dumps(spent))
    return _trained(bench, job, run, settings, start="curate")


def _trained(bench: Bench, job: AblationJob, run: RunDir, settings: dict[str, Any], *, start: str) -> dict[str, Any]:
    """Runs up to the adapter, takes the exam, and keeps all numbers in `job.json`."""
    resolved = bench.resolved(run, settings)
    every = flatten(dump(resolved.config)).items()
    key = fingerprint({name: value for name, value in every if name not in ("output", "budget.enhance")})
    if (known := bench.done(job)) and known["key"] == key:
        return known
    results = run_pipeline(resolved, start=start, until="train", tell=bench.tell)
    train = results["stages"].get("train", {})
    if train.get("status") != "done":
        raise StageFailed(results.get("error") or "nothing to train on")
    began = time.monotonic()
    with telling(bench.tell, "exam") as tick:
        exam = examined(run, resolved.config, {"held_out": bench.held_out()}, run.adapter, tick)
    result = {
        "key": key,
        "right": exam["right"]["held_out"],
        "rows": train["rows_out"],
        "trained_tokens": train["trained_tokens"],
        "epochs": len(train["epochs"]),
        "learning_rate": train.get("learning_rate", resolved.config.train.learning_rate),
        "rates": len(train.get("sweep", [None])),
        "seconds": {
            "loop": results["stages"].get("enhance", {}).get("seconds", 0.0),
            "train": train["seconds"],
            "exam": round(time.monotonic() - began, 2),
        },
        **_calls(bench, job, run, results),
    }
    result["paid_usd"] += usd_of(exam["spent"])
    write_text(run / "job.json", json.dumps(result))
    return result


def _settings(bench: Bench, job: AblationJob) -> dict[str, Any]:
    """Returns the settings of a run by dotted key: the arm's own, and those that depend on data and seed."""
    settings = {**ARMS[job.arm].settings, "seed": bench.given.get("seed", 0) + job.seed}
    if job.arm in ("rft", "mix"):
        settings["enhance.attempts"] = _samples(bench, job.seed)
    if job.arm == "bare-retry":
        settings["enhance.teacher_model"] = f"python:{controls.__file__}:{controls.try_again.__name__}"
    if job.arm == "wrong-hints":
        settings["enhance.teacher_model"] = f"python:{_hints_file(bench, job)}:{controls.other_rows_hint.__name__}"
    if job == AblationJob(job.arm):
        if read_rows(bench.shared.rows("dev"), QARow.from_json):
            settings["train.by_dev.sweep_lr"] = list(TRY_RATES)
    elif (tuned := bench.done(AblationJob(job.arm))) is not None:
        settings["train.learning_rate"] = tuned["learning_rate"]
    if bench.left_usd is not None:
        # The limit of a run counts the calls of the journal that it began with.
        source = _source(bench, job)
        settings["budget.enhance"] = max(bench.left_usd, 0.0) + (_paid(source) if source else 0.0) + 1e-9
    return settings


def _source(bench: Bench, job: AblationJob) -> RunDir | None:
    """Returns the run whose journal a loop starts from, since the first samples of a seed are equal for all loops."""
    if ARMS[job.arm].kind != "loop" or job.reading != "rows":
        return None
    for arm in ("rft", REFERENCE) if job.arm == "mix" else (REFERENCE,):
        source = folder(bench.output, AblationJob(arm, job.seed))
        if job.arm != arm and source.journal.exists():
            return source
    return None


def _samples(bench: Bench, seed: int) -> int:
    """Returns how many samples per row the cost of the reference's loop buys; rows solved at once take no more."""
    loop = bench.done(AblationJob(REFERENCE, seed))
    assert loop is not None, "the reference comes first"
    traces = list(iter_rows(folder(bench.output, AblationJob(REFERENCE, seed)).enhanced, Trace.from_json))
    solved = [trace for trace in traces if trace.outcome == "solved_first_try"]
    afforded = loop["cost_usd"] / loop["sample_usd"] - sum(len(trace.attempts) for trace in solved)
    least = bench.resolved(bench.shared, {}).config.enhance.attempts
    return min(MOST_SAMPLES, max(least, round(afforded / max(1, len(traces) - len(solved)))))


def _hints_file(bench: Bench, job: AblationJob) -> Path:
    """Writes the control's teacher beside the hints of the reference's loop."""
    place = bench.output / job.arm / f"teacher-{job.seed}"
    place.mkdir(parents=True, exist_ok=True)
    traces = iter_rows(folder(bench.output, AblationJob(REFERENCE, job.seed)).enhanced, Trace.from_json)
    hints = [(trace.row.question, attempt.hint) for trace in traces for attempt in trace.attempts if attempt.hint]
    write_text(place / controls.HINTS, json.dumps(hints))
    shutil.copyfile(controls.__file__, place / "controls.py")
    return place / "controls.py"


def shape(bench: Bench, job: AblationJob) -> tuple[float, int] | None:
    """Returns (share of the rows, epochs) that make a reading equal to the reference; None if the arm's training is."""
    own, other = bench.done(AblationJob(job.arm, job.seed)), bench.done(AblationJob(REFERENCE, job.seed))
    assert own is not None and other is not None, "rows come before the other readings"
    epochs = own["epochs"]
    if job.reading == "money":
        share = min(1.0, other["cost_usd"] / own["cost_usd"]) if own["cost_usd"] else 1.0
        return None if share > SAME else (share, epochs)
    per_epoch = own["trained_tokens"] / epochs
    wanted = max(1, math.ceil(other["trained_tokens"] / per_epoch - (1 - SAME)))
    wanted = min(wanted, MOST_EPOCHS * epochs)
    share = min(1.0, other["trained_tokens"] / (wanted * per_epoch))
    return None if wanted == epochs and share > SAME else (share, wanted)


def _calls(bench: Bench, job: AblationJob, run: RunDir, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the cost of the traces: the calls that they show, each at the mean tokens of its role.

    So a call that another arm's journal answered counts as if it had been made.
    """
    is_written = ARMS[job.arm].kind == "written"
    made_in = AblationJob(job.arm, 0 if is_written else job.seed)
    if job != made_in:  # its traces are another job's
        own = bench.done(made_in) or {}
        return {**{name: own[name] for name in ("calls_tokens", "cost_usd", "sample_usd", "per_call")}, "paid_usd": 0.0}
    spent = results["stages"].get("enhance", {}).get("spent", {})
    spent = json.loads((run / "written.json").read_text("utf-8")) if is_written else spent
    reference = bench.done(AblationJob(REFERENCE, job.seed)) if job.arm != REFERENCE else None
    per_call = _per_call(run, spent, reference["per_call"] if reference else {})
    counts: Counter[str] = Counter()
    for trace in iter_rows(run.enhanced, Trace.from_json):
        counts["enhance.teacher" if is_written else "enhance.student"] += len(trace.attempts)
        counts["enhance.teacher"] += trace.hints_rejected + sum(a.hint is not None for a in trace.attempts)
        counts["enhance.judge"] += sum(attempt.judged_by == "llm" for attempt in trace.attempts)
    nothing = {"tokens": 0.0, "usd": 0.0}
    if job.arm == "bare-retry":  # "Try again." needs no teacher
        per_call["enhance.teacher"] = nothing
    took = {name: sum(n * per_call.get(role, nothing)[name] for role, n in counts.items()) for name in nothing}
    source = _source(bench, job)
    answering = sum(counts[role] * per_call.get(role, nothing)["usd"] for role in ("enhance.student", "enhance.judge"))
    return {
        "calls_tokens": round(took["tokens"]),
        "cost_usd": took["usd"],
        "sample_usd": answering / max(1, counts["enhance.student"]),
        "per_call": per_call,
        "paid_usd": max(0.0, usd_of(spent) - (_paid(source) if source else 0.0)),
    }


def _per_call(run: RunDir, spent: dict[str, Any], known: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Returns the mean `tokens` and `usd` of each role's calls in the journal of a run.

    Args:
        spent: the costs of the roles that the run paid.
        known: the same of the reference, for roles that the journal shares with it or lacks.
    """
    with closing(Journal(run.journal)) as journal:
        sums = journal.spent()
    means = dict(known)
    for role, sum_ in sums.items():
        tokens = (sum_["prompt_tokens"] + sum_["completion_tokens"]) / sum_["calls"]
        paid = spent.get(role) or known.get(role) or {}
        per_token = paid["usd"] / paid["tokens"] if paid.get("usd") and paid.get("tokens") else LOCAL_USD_PER_TOKEN
        means[role] = {"tokens": tokens, "usd": tokens * per_token}
    return means


def usd_of(spent: dict[str, Any]) -> float:
    """Returns the USD of all roles together."""
    return sum(entry["usd"] or 0.0 for entry in spent.values())


def _paid(run: RunDir) -> float:
    """Returns the USD of a run's loop so far, finished or not."""
    return usd_of(Results(run).stage("enhance").get("spent", {})) if run.results.exists() else 0.0


def judge_config(bench: Bench) -> RunConfig:
    """Returns the configuration of an exam without a run."""
    left = {} if bench.left_usd is None else {"budget.enhance": max(bench.left_usd, 0.0) + 1e-9}
    return bench.resolved(bench.shared, left).config

"""One arm, one seed, one reading: from a begun folder to verdicts on the held-out questions.

Every training is an ordinary run, made by the stages of the product: `socratune ui` or `inspect` work on its folder.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratune.config import RunConfig
from socratune.errors import StageFailed
from socratune.pipeline import run_pipeline
from socratune.resolve import Resolved, deep_merge, dump, flatten, resolve_settings, unflatten
from socratune.rows import QARow, Trace
from socratune.runs import Journal, Results, RunDir, Tell, Tick, fingerprint, iter_rows, read_rows, write_text
from socratune.ways import controls, writing
from socratune.ways.arms import ARMS, REFERENCE, TRY_RATES
from socratune.ways.exam import examined
from socratune.ways.folders import AblationJob, begin, folder

LOCAL_USD_PER_TOKEN = 1e-7
"""What a token counts that nobody is paid for: about what servers ask for a token of a model of 8 B parameters. Where
nobody is paid at all only the ratios of the arms count, and they do not depend on it.
"""
MOST_EPOCHS = 10
"""Times the configured epochs: an arm with few tokens does not reach the reference's, and the table says so."""
SAME = 0.9
"""A training whose rows or tokens would be more than this share of another's is not made again."""
MOST_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the runs are, and what they have in common.

    Attributes:
        given: the user's settings, nested; no `output`.
        left_usd: what may still be paid; None is no limit.
    """

    output: Path
    given: dict[str, Any]
    tell: Tell
    left_usd: float | None = None

    @property
    def shared(self) -> RunDir:
        """The run whose split all others have."""
        return RunDir(self.output / "shared")

    def resolved(self, run: RunDir, settings: dict[str, Any]) -> Resolved:
        """The user's configuration with the settings of one run."""
        own = {**settings, "output": str(run.root)}
        return resolve_settings(deep_merge(self.given, unflatten(own)), where="socratune ablate")

    def held_out(self) -> list[QARow]:
        """The questions of every exam."""
        return read_rows(self.shared.rows("held_out"), QARow.from_json)

    def done(self, job: AblationJob) -> dict[str, Any] | None:
        """What `do` gave for a job that is finished."""
        path = folder(self.output, job) / "job.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None


def do(bench: Bench, job: AblationJob) -> dict[str, Any]:
    """Train and examine; what is finished is kept. For a reading that is the same training as another, that one's.

    Returns:
        `right` (for each held-out question), `rows`, `trained_tokens`, `epochs`, `learning_rate`, `calls_tokens`,
        `cost_usd`, `paid_usd`, `seconds` by part.

    Raises:
        StageFailed: this arm is not possible here; why.
        BudgetSpent: finished calls are kept.
    """
    run = folder(bench.output, job)
    if job.reading != "rows":
        found = shape(bench, job)
        if found is None:
            return do(bench, AblationJob(job.arm, job.seed))
        share, epochs = found
        begin(run, folder(bench.output, AblationJob(job.arm, job.seed)), until="curate", share=share)
        settings = {**_settings(bench, job), "train.num_train_epochs": epochs}
        return _trained(bench, job, run, settings, start="train")
    if ARMS[job.arm].kind == "written":
        return _written(bench, job, run)
    source = _source(bench, job)
    begin(run, bench.shared, until="split", journal=source.journal if source else None)
    return _trained(bench, job, run, _settings(bench, job), start="enhance")


def _written(bench: Bench, job: AblationJob, run: RunDir) -> dict[str, Any]:
    """A run on traces of somebody else's, written once for all seeds."""
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
            with _telling(bench, "write") as tick:
                spent = asyncio.run(writing.solutions(run, config, samples, tick=tick))
        write_text(run / "written.json", json.dumps(spent))
    return _trained(bench, job, run, settings, start="curate")


@contextmanager
def _telling(bench: Bench, name: str) -> Iterator[Tick]:
    """A tick for work that is no stage of a run, told as if it were one."""
    began = time.monotonic()

    def tick(done: int, total: int, /, **live: Any) -> None:
        entry = {"done": done, "total": total, "seconds": time.monotonic() - began, **live}
        bench.tell("tick", name, entry)

    bench.tell("begin", name, {})
    try:
        yield tick
    finally:
        bench.tell("done", name, {})


def _trained(bench: Bench, job: AblationJob, run: RunDir, settings: dict[str, Any], *, start: str) -> dict[str, Any]:
    """The run up to its adapter, the exam, and all figures, kept in `job.json`."""
    resolved = bench.resolved(run, settings)
    key = fingerprint(
        {k: v for k, v in flatten(dump(resolved.config)).items() if k not in ("output", "budget.enhance")}
    )
    if (found := bench.done(job)) and found["key"] == key:
        return found
    results = run_pipeline(resolved, start=start, until="train", tell=bench.tell)
    train = results["stages"].get("train", {})
    if train.get("status") != "done":
        raise StageFailed(results.get("error") or "nothing to train on")
    began = time.monotonic()
    with _telling(bench, "exam") as tick:
        exam = examined(run, resolved.config, {"held_out": bench.held_out()}, run.adapter, tick)
    calls = _calls(bench, job, run, results)
    found = {
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
        **calls,
    }
    found["paid_usd"] += _usd(exam["spent"])
    write_text(run / "job.json", json.dumps(found))
    return found


def _settings(bench: Bench, job: AblationJob) -> dict[str, Any]:
    """Of a run, by dotted key: the arm's own, and those that depend on data and seed."""
    found = {**ARMS[job.arm].settings, "seed": bench.given.get("seed", 0) + job.seed}
    if job.arm in ("rft", "mix"):
        found["enhance.attempts"] = _samples(bench, job.seed)
    if job.arm == "bare-retry":
        found["enhance.teacher_model"] = f"python:{controls.__file__}:{controls.try_again.__name__}"
    if job.arm == "wrong-hints":
        found["enhance.teacher_model"] = f"python:{_hints_file(bench, job)}:{controls.other_rows_hint.__name__}"
    if job == AblationJob(job.arm):
        if read_rows(bench.shared.rows("dev"), QARow.from_json):
            found["train.by_dev.sweep_lr"] = list(TRY_RATES)
    elif (tuned := bench.done(AblationJob(job.arm))) is not None:
        found["train.learning_rate"] = tuned["learning_rate"]
    if bench.left_usd is not None:
        # the limit of a run counts the calls of the journal it began with
        source = _source(bench, job)
        found["budget.enhance"] = max(bench.left_usd, 0.0) + (_paid(source) if source else 0.0) + 1e-9
    return found


def _source(bench: Bench, job: AblationJob) -> RunDir | None:
    """The run in whose journal a loop begins: the first samples of a seed are the same for all loops."""
    if ARMS[job.arm].kind != "loop" or job.reading != "rows":
        return None
    for arm in ("rft", REFERENCE) if job.arm == "mix" else (REFERENCE,):
        source = folder(bench.output, AblationJob(arm, job.seed))
        if job.arm != arm and source.journal.exists():
            return source
    return None


def _samples(bench: Bench, seed: int) -> int:
    """How many samples a row get for what the reference's loop cost: those it solved at once take no more."""
    loop = bench.done(AblationJob(REFERENCE, seed))
    assert loop is not None, "the reference comes first"
    traces = list(iter_rows(folder(bench.output, AblationJob(REFERENCE, seed)).enhanced, Trace.from_json))
    solved = [trace for trace in traces if trace.outcome == "solved_first_try"]
    afforded = loop["cost_usd"] / loop["sample_usd"] - sum(len(trace.attempts) for trace in solved)
    least = bench.resolved(bench.shared, {}).config.enhance.attempts
    return min(MOST_SAMPLES, max(least, round(afforded / max(1, len(traces) - len(solved)))))


def _hints_file(bench: Bench, job: AblationJob) -> Path:
    """The control's teacher beside the hints of the reference's loop."""
    place = bench.output / job.arm / f"teacher-{job.seed}"
    place.mkdir(parents=True, exist_ok=True)
    traces = iter_rows(folder(bench.output, AblationJob(REFERENCE, job.seed)).enhanced, Trace.from_json)
    hints = [(trace.row.question, attempt.hint) for trace in traces for attempt in trace.attempts if attempt.hint]
    write_text(place / controls.HINTS, json.dumps(hints))
    shutil.copyfile(controls.__file__, place / "controls.py")
    return place / "controls.py"


def shape(bench: Bench, job: AblationJob) -> tuple[float, int] | None:
    """(share of the rows, epochs) that make a reading equal to the reference; None where the arm's training is."""
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
    """What the traces took: the calls they show, each at the mean tokens of its role.

    So a call that the journal of another arm answered counts as if it had been made.
    """
    is_written = ARMS[job.arm].kind == "written"
    made_in = AblationJob(job.arm, 0 if is_written else job.seed)
    if job != made_in:  # the traces of another job
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
        "paid_usd": max(0.0, _usd(spent) - (_paid(source) if source else 0.0)),
    }


def _per_call(run: RunDir, spent: dict[str, Any], known: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Role → mean `tokens` and `usd` of its calls in the journal of a run.

    Args:
        spent: by the roles that the run paid.
        known: the same of the reference, for roles that are in the journal as the reference's or not at all.
    """
    journal = Journal(run.journal)
    try:
        sums = journal.spent()
    finally:
        journal.close()
    found = dict(known)
    for role, sum_ in sums.items():
        tokens = (sum_["prompt_tokens"] + sum_["completion_tokens"]) / sum_["calls"]
        paid = spent.get(role) or known.get(role) or {}
        per_token = paid["usd"] / paid["tokens"] if paid.get("usd") and paid.get("tokens") else LOCAL_USD_PER_TOKEN
        found[role] = {"tokens": tokens, "usd": tokens * per_token}
    return found


def _usd(spent: dict[str, Any]) -> float:
    return sum(entry["usd"] or 0.0 for entry in spent.values())


def _paid(run: RunDir) -> float:
    """USD of a run's loop so far, finished or not."""
    return _usd(Results(run).stage("enhance").get("spent", {})) if run.results.exists() else 0.0


def judge_config(bench: Bench) -> RunConfig:
    """The configuration of an exam without a run."""
    left = {} if bench.left_usd is None else {"budget.enhance": max(bench.left_usd, 0.0) + 1e-9}
    return bench.resolved(bench.shared, left).config

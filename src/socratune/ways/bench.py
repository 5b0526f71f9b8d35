"""Runs all arms in order of usefulness, within the limits of time and money. The same command resumes a killed run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from socratune.errors import BusyError, Fault, Shown, StageFailed, UserError
from socratune.llm import GENERIC_PROMPTS, BudgetSpent, with_examples
from socratune.pilot import estimate_run
from socratune.pipeline import run_pipeline
from socratune.preflight import check_run
from socratune.resolve import deep_merge
from socratune.rows import QARow
from socratune.runs import RunDir, Tell, iter_rows, read_rows
from socratune.teaching import with_instruction
from socratune.ways.arms import ARMS, REFERENCE, TRY_RATES
from socratune.ways.exam import evolved_prompt, examined
from socratune.ways.folders import READINGS, AblationJob, begin, folder
from socratune.ways.report import Findings, write_ablation
from socratune.ways.work import Bench, do, judge_config, shape, usd_of

_EXAMPLES = 3
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AblationLimits:
    """The limits of an ablation."""

    seeds: int
    minutes: float
    budget_usd: float | None


def compare_ways(
    given: dict[str, Any], output: Path, arms: Sequence[str], limits: AblationLimits, *, tell: Tell, say: Say
) -> dict[str, Any]:
    """Compares the arms on the user's data. Returns the content of `ablation.json`, which is in `output` with the page.

    Args:
        given: configuration as for a run, nested, without `output`.
        arms: from `arms.chosen_arms`.
        tell: receives the stages of every run.
        say: receives the estimate, and every finished arm.

    Raises:
        UserError: a setting is wrong, or there are no held-out rows.
        OutsideError: something outside failed; the same command resumes.
    """
    deadline = time.monotonic() + limits.minutes * 60
    bench = Bench(output, given, tell)
    top = RunDir(output)
    resolved = check_run(_priced(bench, limits.budget_usd), where="socratune ablate")
    if resolved.config.rounds > 1:
        raise UserError(Fault("ablate", "one round: the ways are compared in it", resolved.config.rounds))
    top.create()
    with top.locked():
        run_pipeline(resolved, until="split", tell=tell)
        rows = bench.held_out()
        if not rows:
            fix = "Raise split.held_out_share, or give --held-out."
            raise UserError(Fault("ablate", "held-out rows to read the arms on", Shown("none"), fix))
        _estimate(bench, arms, limits, say)
        exam = examined(top, judge_config(bench), {"held_out": rows}, None, _silent)
        clusters = [row.cluster or row.id for row in rows]
        found = Findings(list(arms), clusters, exam["right"]["held_out"], usd_of(exam["spent"]))
        for job in jobs(arms, limits.seeds):
            _do(bench, job, found, limits, deadline, say)
            if job in found.done:
                write_ablation(output, found)
        return write_ablation(output, found)


def _priced(bench: Bench, budget_usd: float | None) -> dict[str, Any]:
    """Returns the settings for preflight, with the budget, which it refuses if a price is unknown."""
    own: dict[str, Any] = {"output": str(bench.shared.root)}
    if budget_usd is not None:
        own["budget"] = {"enhance": budget_usd}
    return deep_merge(bench.given, own)


def jobs(arms: Sequence[str], seeds: int) -> Iterator[AblationJob]:
    """Yields every arm once, then its other readings, then the same with the next seed."""
    for seed in range(seeds):
        for reading in READINGS:
            for arm in arms:
                if ARMS[arm].kind == "prompt" and (seed, reading) != (0, "rows"):
                    continue
                if arm != REFERENCE or reading == "rows":
                    yield AblationJob(arm, seed, reading)


def _do(bench: Bench, job: AblationJob, found: Findings, limits: AblationLimits, deadline: float, say: Say) -> None:
    """Runs one job and records its result, or why it was not done."""
    why = _impossible(job, found) or _no_time(bench, job, found, deadline)
    before = time.monotonic()
    if why is None:
        left = None if limits.budget_usd is None else limits.budget_usd - found.paid_usd()
        why = _tried(replace(bench, tell=_naming(bench.tell, job), left_usd=0.0 if found.broke else left), job, found)
    if why is not None:
        found.not_done[job] = why
    if job.reading == "rows":
        done = found.done.get(job)
        rate = f", learning rate {done['learning_rate']:g}" if done and done.get("rates", 1) > 1 else ""
        right = f"{sum(done['right']) / len(done['right']):.1%}" if done else ""
        say(f"{job}: {why or f'{right} in {time.monotonic() - before:.0f} s'}{rate}")


def _tried(bench: Bench, job: AblationJob, found: Findings) -> str | None:
    """Runs one job and records its result; returns why it has none."""
    try:
        found.done[job] = _PROMPTS[job.arm](bench) if job.arm in _PROMPTS else do(bench, job)
    except StageFailed as error:
        return str(error)
    except UserError as error:  # rows too long or labels wrong in this way, not in all
        if job.arm == REFERENCE or isinstance(error, BusyError):
            raise
        return str(error).splitlines()[0]
    except BudgetSpent:
        found.broke = True  # its cost belongs to no finished job
        return "no money left"
    return None


def _naming(tell: Tell, job: AblationJob) -> Tell:
    """Prefixes the stages that `tell` receives with the arm, since many stages share a name."""

    def named(event: str, stage: str, entry: dict[str, Any]) -> None:
        tell(event, f"{job.arm}: {stage}", entry)

    return named


def _impossible(job: AblationJob, found: Findings) -> str | None:
    """Returns which prerequisite of a job is missing, or None."""
    reference = AblationJob(REFERENCE, job.seed)
    if job.arm in (REFERENCE, "prompt"):  # the other prompt needs the cost of the reference
        return found.not_done.get(AblationJob(job.arm)) if job.seed else None
    own = AblationJob(job.arm, 0 if job.reading == "rows" else job.seed)
    if own != job and own in found.not_done:
        return found.not_done[own]
    if reference in found.not_done and (job.reading != "rows" or ARMS[job.arm].kind == "loop"):
        return f"{REFERENCE} is missing for the comparison: {found.not_done[reference]}"
    return None


def _no_time(bench: Bench, job: AblationJob, found: Findings, deadline: float) -> str | None:
    """Returns why a job cannot be done in time, by the reference's times; None if it is done or can be."""
    first = AblationJob(REFERENCE)
    done = job.arm in _PROMPTS and (bench.output / job.arm / "held_out" / "exam.json").exists()
    if done or bench.done(job) is not None or job == first or first not in found.done:
        return None
    if job.reading != "rows" and AblationJob(job.arm, job.seed) in found.done and shape(bench, job) is None:
        return None  # it equals a finished training
    reference = found.done[first]
    seconds = _seconds(job, reference["seconds"], reference["rates"])
    return "no time left" if seconds > deadline - time.monotonic() else None


def _seconds(job: AblationJob, took: dict[str, float], tried: int) -> float:
    """Returns about how long a job takes.

    Args:
        took: the reference's times: its loop, its trainings, its exam.
        tried: the number of learning rates that the reference tried.
    """
    if job.arm in _PROMPTS:
        return took["exam"] * 2 + took["loop"] * (job.arm == "gepa")
    rates = len(TRY_RATES) if job == AblationJob(job.arm) else 1
    loop = took["loop"] if job.reading == "rows" and ARMS[job.arm].kind == "loop" else 0.0
    return loop + took["train"] * rates / tried + took["exam"]


def _estimate(bench: Bench, arms: Sequence[str], limits: AblationLimits, say: Say) -> None:
    """Announces what is to come, by a pilot of the reference's loop, whose calls are kept."""
    loops = sum(ARMS[arm].kind == "loop" for arm in arms) * limits.seeds
    every = [job for job in jobs(arms, limits.seeds) if job.arm not in _PROMPTS]
    trainings = len(every) + (len(TRY_RATES) - 1) * sum(job == AblationJob(job.arm) for job in every)
    text = f"{len(arms)} arms, {limits.seeds} seeds: {loops} loops, at most {trainings} trainings"
    if bench.done(AblationJob(REFERENCE)) is None:
        run = folder(bench.output, AblationJob(REFERENCE))
        begin(run, bench.shared, until="split")
        settings = {**ARMS[REFERENCE].settings, "seed": bench.given.get("seed", 0)}
        if limits.budget_usd:
            settings["budget.enhance"] = limits.budget_usd
        pilot = estimate_run(bench.resolved(run, settings), tell=bench.tell)["estimate"]
        tokens = sum(part[0] for part in pilot["tokens"].values())
        text += f". One loop over {pilot['rows']} rows takes about {tokens:,.0f} tokens"
        text += f", {pilot['usd']['all'][0]:.4g} USD" if pilot["usd"]["all"] else ", at a price that is not known"
        text += f", {pilot['seconds'][0]:.0f} s" if pilot["seconds"] else ""
    money = "" if limits.budget_usd is None else f" and {limits.budget_usd:g} USD"
    say(f"{text}. Limits: {limits.minutes:g} minutes{money}; the last arms are cut first, and named.")


def _prompted(bench: Bench) -> dict[str, Any]:
    """Asks the held-out questions with the prompt that is best on the dev rows. Returns `right`, `prompt`, and `dev` of
    all prompts.

    Raises:
        StageFailed: there are no dev rows to choose by.
    """
    dev = read_rows(bench.shared.rows("dev"), QARow.from_json)
    if not dev:
        raise StageFailed("no dev rows to choose a prompt by")
    train = iter_rows(bench.shared.rows("train_in"), QARow.from_json)
    examples = [(row.question, row.reference) for row, _ in zip(train, range(_EXAMPLES), strict=False)]
    few_shot = f"{len(examples)} worked examples"

    def asked(rows: Sequence[QARow], way: str) -> list[QARow]:
        if way != few_shot:
            return [with_instruction(row, way) for row in rows]
        return [replace(row, messages=[*with_examples(row.prompt, examples), row.messages[-1]]) for row in rows]

    run, config = RunDir(bench.output / "prompt"), judge_config(bench)
    for part in ("dev", "held_out"):
        RunDir(run / part).create()
    ways = [*GENERIC_PROMPTS, few_shot]
    tried = examined(RunDir(run / "dev"), config, {way: asked(dev, way) for way in ways}, None, _silent)
    best = max(tried["right"], key=lambda way: sum(tried["right"][way]))
    exam = examined(RunDir(run / "held_out"), config, {"held_out": asked(bench.held_out(), best)}, None, _silent)
    dev_accuracy = {way: sum(right) / len(right) for way, right in tried["right"].items()}
    return {**_of_prompt(exam, best, tried["spent"]), "dev": dev_accuracy}


def _evolved(bench: Bench) -> dict[str, Any]:
    """Asks with the instruction that GEPA finds with as many answers as the reference's money buys. Returns `right`,
    `prompt`.

    Raises:
        StageFailed: there are no dev rows to choose by, or the package is not installed.
    """
    dev = read_rows(bench.shared.rows("dev"), QARow.from_json)
    loop = bench.done(AblationJob(REFERENCE))
    if not dev or loop is None:
        raise StageFailed("no dev rows to choose an instruction by")
    run, config = RunDir(bench.output / "gepa"), judge_config(bench)
    RunDir(run / "held_out").create()
    train = read_rows(bench.shared.rows("train_in"), QARow.from_json)
    text, spent = evolved_prompt(run, config, train, dev, calls=round(loop["cost_usd"] / loop["sample_usd"]))
    rows = [with_instruction(row, text) for row in bench.held_out()]
    return _of_prompt(examined(RunDir(run / "held_out"), config, {"held_out": rows}, None, _silent), text, spent)


def _of_prompt(exam: dict[str, Any], prompt: str, spent: dict[str, Any]) -> dict[str, Any]:
    return {"right": exam["right"]["held_out"], "prompt": prompt, "paid_usd": usd_of(spent) + usd_of(exam["spent"])}


_PROMPTS = {"prompt": _prompted, "gepa": _evolved}
"""The arms that train nothing."""


def _silent(done: int, total: int, /, **live: Any) -> None: ...

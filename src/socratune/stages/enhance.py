"""enhance: the student attempts, the judge decides, the teacher hints, until the student gets it right itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from socratune.chat import training_text
from socratune.config import StudentTeacherConfig
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.journal import Journal
from socratune.ledger import Ledger
from socratune.llm.base import ChatModel, Sampling
from socratune.llm.metered import MeteredModel
from socratune.loop import Loop, Rules, enhance_row
from socratune.roles import cast, connect, endpoints, resolve_alias
from socratune.rowmap import map_rows
from socratune.rows import QARow
from socratune.rundir import RunDir, StageResult, read_rows, write_jsonl

FIRST_ROWS = 50
"""After so many rows a judge that leaves most of them undecided stops the run: paying for the rest would be waste."""


async def run(
    run: RunDir,
    config: StudentTeacherConfig,
    *,
    model_name: str,
    model_fingerprint: str,
    load_in_4bit: bool | str,
    seed: int,
    journal: Journal,
    key: str,
    tick: Callable[[int, int], None],
) -> StageResult:
    """Write `enhanced_dataset.jsonl`: one row per row of `train_in.jsonl`, in input order, nothing lost.

    Args:
        key: name and fingerprint of the stage in the journal.

    Raises:
        UserError: most of the first rows cannot be judged.
        BudgetSpent: the limit of money or tokens is reached; finished rows are kept.
    """
    rows = read_rows(run.rows("train_in"), QARow.from_json)
    ledger = Ledger(config.max_usd, config.max_total_tokens)
    people = cast(config, stage="enhance", journal=journal, ledger=ledger)
    student_name = config.student_model or model_name
    names = {
        "student_model": student_name,
        "teacher_model": resolve_alias(config.teacher_model),
        "judge_model": resolve_alias(config.judge_model),
    }
    rules = Rules(
        attempts=config.attempts,
        max_iterations=config.max_iterations,
        hint_attempts=config.hint_attempts,
        thinking_format=config.thinking_format,
        trace_pick=config.trace_pick,
    )
    try:
        async with _student(
            config, student_name, model_fingerprint, load_in_4bit=load_in_4bit, journal=journal, ledger=ledger
        ) as (student, sampling):
            loop = Loop(student, people.judge, people.teacher, replace(sampling, seed=seed), rules, names)
            await map_rows(rows, _step(loop), journal=journal, stage=key, concurrency=config.concurrency, tick=tick)
    finally:
        await people.close()
    figures: dict[str, Any] = {
        **names,
        "student": "served, not verified" if config.student_api_base else "same weights as trained",
        "outcomes": Counter(),
        "gaps": Counter(),
        "hints": 0,
        "hints_rejected": 0,
        "spent": ledger.summary(),
    }
    written = write_jsonl(run.enhanced, _counted(journal.rows(key), figures))
    if written != len(rows):
        raise OutsideError(f"{run.journal} holds {written} of {len(rows)} rows. Run it again with --restart enhance.")
    usable = sum(count for outcome, count in figures["outcomes"].items() if outcome.startswith("solved"))
    failure = None if usable else "No row was solved, so there is nothing to train on."
    return StageResult(rows_in=len(rows), rows_out=usable, figures=figures, failure=failure)


def _step(loop: Loop) -> Callable[[QARow], Any]:
    """`enhance_row` to JSON, with a stop where the judge cannot decide these rows, or most calls are refused."""
    seen = undecided = failed = 0
    last_error: str | None = None

    async def step(row: QARow) -> dict[str, Any]:
        nonlocal seen, undecided, failed, last_error
        trace = await enhance_row(row, loop)
        seen += 1
        undecided += trace.outcome == "undecided" and trace.attempts[-1].judged_by != "truncated"
        if trace.outcome == "error":
            failed, last_error = failed + 1, trace.error
        if seen == FIRST_ROWS and failed > seen / 2:
            raise OutsideError(f"{failed} of the first {seen} rows failed; the last said: {last_error}")
        if seen == FIRST_ROWS and undecided > seen / 2:
            fix = "Give a judge model, e.g. --judge-model openai/gpt-4o-mini, or answers that rules can compare."
            got = Shown(f"{undecided} undecided of the first {seen} rows")
            raise UserError(Fault("enhance.judge_model", "a judge that can decide these rows", got, fix))
        return trace.to_json(training_text(trace) or row.reference)

    return step


@asynccontextmanager
async def _student(
    config: StudentTeacherConfig,
    name: str,
    model_fingerprint: str,
    *,
    load_in_4bit: bool | str,
    journal: Journal,
    ledger: Ledger,
) -> AsyncIterator[tuple[ChatModel, Sampling]]:
    """The student and its sampling: in this process, or behind a server."""
    asked = {"temperature": config.temperature, "top_p": config.top_p}
    if config.student_api_base:
        model, price = connect(resolve_alias(name), endpoints(config)["student"])
        sampling = Sampling(
            temperature=0.7 if config.temperature is None else config.temperature,
            top_p=0.8 if config.top_p is None else config.top_p,
            max_new_tokens=config.max_new_tokens,
        )
        try:
            yield MeteredModel(model, journal, "enhance.student", ledger=ledger, price=price), sampling
        finally:
            await model.close()  # type: ignore[attr-defined]
        return
    from socratune.backends import hf
    from socratune.student import LocalStudent, default_sampling, serving

    weights, tokenizer = hf.load(name, load_in_4bit=load_in_4bit)
    sampling = default_sampling(weights, **asked, max_new_tokens=config.max_new_tokens)
    with serving(LocalStudent(weights, tokenizer, name=name, fingerprint=model_fingerprint)) as student:
        yield MeteredModel(student, journal, "enhance.student"), sampling


def _counted(rows: Iterator[dict[str, Any]], figures: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same rows, counted into `figures` as they pass."""
    for data in rows:
        enhancement = data["metadata"]["enhancement"]
        figures["outcomes"][enhancement["outcome"]] += 1
        if enhancement["gap"]:
            figures["gaps"][enhancement["gap"]] += 1
        figures["hints"] += sum(attempt["hint"] is not None for attempt in enhancement["trace"])
        figures["hints_rejected"] += enhancement["hints_rejected"]
        yield data

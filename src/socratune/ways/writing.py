"""Writes traces from another source than the student: the references, or a teacher's solutions.

A model as teacher sees question and reference, and for the student's format three right traces of the student. The
mechanical teacher has two ways to write products: in the words of the embedded model, and in others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from hashlib import sha256
from typing import Any

from socratune.config import RunConfig
from socratune.errors import CallError, StageFailed
from socratune.inference import LocalModels
from socratune.judging import Judge
from socratune.llm import (
    NOBODY,
    OF_ROWS,
    RULES,
    TEACHER_SAMPLING,
    ChatModel,
    Ledger,
    MeteredModel,
    Sampling,
    connected_model,
    endpoints_of,
    local_name,
    solver_messages,
    teacher_of,
    thoughtful,
)
from socratune.rows import Attempt, QARow, Trace
from socratune.runs import Journal, RunDir, Tick, fingerprint, iter_rows, map_rows, read_rows, write_jsonl
from socratune.teaching import assemble_cast, parse_product, split_tens
from socratune.ways.exam import arm_ledger

Write = Callable[[QARow], Coroutine[Any, Any, str | None]]
"""`await write(row)` returns a solution, or None without one."""

STYLE_SAMPLES = 3
TRIES = 2
"""Most solutions per row by a model as teacher, until one is right."""


def references(run: RunDir) -> None:
    """Writes `enhanced_dataset.jsonl` with every row's own answer."""
    traces = (
        Trace(row, "trained_on_reference", (), "direct", {"student_model": "the data set"})
        for row in iter_rows(run.rows("train_in"), QARow.from_json)
    )
    write_jsonl(run.enhanced, (trace.to_json(trace.row.reference) for trace in traces))


async def solutions(
    run: RunDir, config: RunConfig, samples: Sequence[tuple[str, str]] | None, *, tick: Tick
) -> dict[str, Any]:
    """Writes `enhanced_dataset.jsonl` with the teacher's solutions, wrong ones as unsolved. Returns what was spent, by
    role.

    Args:
        samples: (question, answer) of the student, whose style the teacher shall keep; None for the teacher's own
            words.

    Raises:
        StageFailed: the teacher only hints (a function of the user's), or the student has no right trace to show.
        BudgetSpent: finished rows are kept.
    """
    ref = teacher_of(config.enhance)
    if samples is not None and not samples:
        raise StageFailed("the student has no right trace to show")
    ledger = arm_ledger(config)
    rows = read_rows(run.rows("train_in"), QARow.from_json)
    key = f"enhance.{fingerprint('solutions', ref, samples, [row.id for row in rows])}"
    with closing(Journal(run.journal)) as journal:
        async with _writer(ref, config, samples, journal, ledger) as (write, judge):
            step = _step(write, judge, {"student_model": ref})
            concurrency = config.enhance.concurrency
            await map_rows(rows, step, journal=journal, stage=key, concurrency=concurrency, tick=tick)
        write_jsonl(run.enhanced, journal.rows(key))
    return ledger.summary()


def _step(write: Write, judge: Judge, names: dict[str, str]) -> Callable[[QARow], Any]:
    async def step(row: QARow) -> dict[str, Any]:
        attempts: list[Attempt] = []
        error = None
        try:
            while len(attempts) < TRIES and not any(attempt.verdict == "correct" for attempt in attempts):
                text = await write(replace(row, metadata={"try": len(attempts)}))
                if text is None:
                    break
                judgement = await judge(row, text)
                judged = (judgement.verdict, judgement.judged_by)
                attempts.append(Attempt(len(attempts) + 1, text, *judged, reason=judgement.kept_reason))
        except CallError as failed:
            error = str(failed)
        right = bool(attempts) and attempts[-1].verdict == "correct"
        outcome = "error" if error else "solved_first_try" if right else "unsolved"
        chosen = attempts[-1].attempt if outcome == "solved_first_try" else None
        trace = Trace(row, outcome, tuple(attempts), "direct", names, chosen=chosen, error=error)
        return trace.to_json(attempts[-1].response if chosen else row.reference)

    return step


@asynccontextmanager
async def _writer(
    ref: str, config: RunConfig, samples: Sequence[tuple[str, str]] | None, journal: Journal, ledger: Ledger
) -> AsyncIterator[tuple[Write, Judge]]:
    if ref == NOBODY:
        raise StageFailed("no teacher is named who could write solutions")
    if ref == OF_ROWS["teacher"]:
        raise StageFailed("the worked solutions are the reference answers, which sft trains on")
    if ref.startswith("python:"):
        raise StageFailed("the teacher is a function that hints; it writes no solutions")
    with LocalModels(load_in_4bit=config.train.load_in_4bit) as models:
        people = assemble_cast(config.enhance, stage="enhance", journal=journal, ledger=ledger, local=models.load)
        try:
            if ref == RULES["teacher"]:
                yield (_own_words if samples is None else _students_words), people.judge
            elif (name := local_name(ref)) is not None:
                model = models.load(name)
                sampling = thoughtful(TEACHER_SAMPLING) if model.thinking else TEACHER_SAMPLING
                yield _asking(MeteredModel(model, journal, "enhance.teacher"), sampling, samples), people.judge
            else:
                model, price = connected_model(ref, endpoints_of(config.enhance)["teacher"])
                people.models.append(model)
                metered = MeteredModel(model, journal, "enhance.teacher", ledger=ledger, price=price)
                yield _asking(metered, TEACHER_SAMPLING, samples), people.judge
        finally:
            await people.close()


def _asking(model: ChatModel, sampling: Sampling, samples: Sequence[tuple[str, str]] | None) -> Write:
    async def write(row: QARow) -> str | None:
        messages = solver_messages(row.question, row.reference, samples)
        completion = await model.generate(messages, sampling.drawn(row.metadata["try"]))
        return completion.text.strip() or None if completion.stop == "end" else None

    return write


async def _students_words(row: QARow) -> str | None:
    """Solves a product as the embedded model does."""
    if (factors := parse_product(row.question)) is None:
        return None
    a, b = factors
    tens, ones = split_tens(b)
    return f"{a} * {tens} = {a * tens}, and {a} * {ones} = {a * ones}, so {a * tens} + {a * ones} = {a * b}."


async def _own_words(row: QARow) -> str | None:
    """Solves a product in another order and other words: ones first."""
    if (factors := parse_product(row.question)) is None:
        return None
    a, b = factors
    tens, ones = split_tens(b)
    return f"Ones: {ones} * {a} = {ones * a}. Tens: {tens} * {a} = {tens * a}. Sum: {ones * a} + {tens * a} = {a * b}."


def style_samples(run: RunDir) -> list[tuple[str, str]]:
    """Returns (question, answer) of three right traces of the student, unaided ones first, by the hash of their ids."""
    samples = []
    for trace in iter_rows(run.enhanced, Trace.from_json):
        if trace.chosen is not None and (answer := trace.attempts[trace.chosen - 1]).verdict == "correct":
            place = sha256(f"style/{trace.row.id}".encode()).digest()
            samples.append((answer.given != "question", place, trace.row.question, answer.response))
            samples = sorted(samples)[:STYLE_SAMPLES]
    return [(question, answer) for *_, question, answer in samples]

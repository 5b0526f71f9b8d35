"""enhance: the student attempts, the judge decides, the teacher hints, until the student is right by itself."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from textwrap import shorten
from threading import Event
from typing import Any, Literal

from socratune.config import StudentTeacherConfig
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.evaluation import Rate
from socratune.inference import LocalModels
from socratune.llm import (
    MOST_ROWS,
    RULES,
    UNLIMITED,
    Base,
    Ledger,
    Limits,
    Places,
    chat_template,
    endpoints_of,
    is_thinking,
    resolve_alias,
    teacher_of,
)
from socratune.resolve import give_template
from socratune.rows import CUT_OFF, TRAINABLE, QARow, Trace
from socratune.runs import Journal, RunDir, StageResult, Tick, iter_rows, map_rows, shard_rows, write_jsonl
from socratune.teaching import (
    Loop,
    Rules,
    ServedStudent,
    Student,
    assemble_cast,
    attending_student,
    enhance_row,
    hint_uses,
    leak_rate,
    measure_hints,
    training_text,
)

log = logging.getLogger(__name__)

FEWEST_JUDGED = 10
"""From so many rows on, a run stops if its judge leaves most of them undecided, or most calls fail. *Most*: the lower
end of the share's 95 % interval is above a half."""
MEASURED_HINTS = 200
"""The student's probabilities are asked about so many hints, which gives a rate to about 3 points."""


async def enhance_rows(
    run: RunDir,
    config: StudentTeacherConfig,
    base: Base,
    *,
    shard: str | None,
    journal: Journal,
    key: str,
    tick: Tick,
    served: ServedStudent | None = None,
    limits: Limits = UNLIMITED,
) -> StageResult:
    """Writes `enhanced_dataset.jsonl`: one row per row of `train_in.jsonl`, in input order, without loss.

    Args:
        shard: `I/N` takes only every N-th row, from the I-th.
        key: name and fingerprint of the stage in the journal.
        served: the student, if it answers on another machine.

    Raises:
        UserError: most of the first rows cannot be judged.
        BudgetSpent: the limit of money or tokens is reached; finished rows are kept.
    """
    give_template(base.model_name, base.template)  # this may be another process than the one that read it
    total = sum(1 for _ in rows_of_shard(run, shard))
    ledger = Ledger(limits)

    def tell(done: int, total: int) -> None:
        tick(done, total, spent=ledger.summary())

    batched = [role for role, reached in endpoints_of(config).items() if reached.batch]
    for role in ("judge", "teacher"):
        sent = [note for note in journal.batches(f"enhance.{role}") if note.id is not None and note.state != "done"]
        if role not in batched and sent:
            text = "%s: batch %s is running and paid for. Set enhance.endpoints.%s.batch=true to use its answers."
            log.warning(text, role, ", ".join(str(note.id) for note in sent), role)
    places = Places(config.concurrency) if batched else None
    cast = attended(run, config, base, journal=journal, ledger=ledger, served=served, places=places)
    async with cast as (loop, student):
        step = _step(loop, config, total, [_kind(trace) for trace in journal.rows(key)])
        step, in_flight = (step, config.concurrency) if places is None else (_placed(step, places), MOST_ROWS)
        rows = rows_of_shard(run, shard)
        await map_rows(rows, step, total=total, journal=journal, stage=key, concurrency=in_flight, tick=tell)
        figures = {**loop.names, "student": student.recorded(), "spent": ledger.summary()}
        if batched:
            figures["batches"] = {role: _batches(journal, f"enhance.{role}") for role in batched}
        figures["leaks"] = await _leaks(run, student, journal.rows(key), base.seed)
    result = enhance_result(run, total, journal=journal, key=key, figures=figures)
    if (left := figures["unsolved_with_solution"]) > UNUSED * total:
        text = "%d of %d rows stayed unsolved, but bring a worked solution: --unsolved reference trains on it."
        log.warning(text, left, total)
    return result


def rows_of_shard(run: RunDir, shard: str | None) -> Iterator[QARow]:
    """Yields the rows to enhance, one by one."""
    return shard_rows(iter_rows(run.rows("train_in"), QARow.from_json), shard)


def enhance_result(run: RunDir, total: int, *, journal: Journal, key: str, figures: dict[str, Any]) -> StageResult:
    """Writes `enhanced_dataset.jsonl` from the journal, and adds its counts to `figures`.

    Raises:
        OutsideError: the journal does not hold all `total` rows.
    """
    figures |= {
        "outcomes": Counter(),
        "gaps": Counter(),
        "hints": 0,
        "hints_rejected": 0,
        "looped": 0,
        "unsolved_with_solution": 0,
    }
    written = write_jsonl(run.enhanced, _counted(journal.rows(key), figures))
    if written != total:
        raise OutsideError(f"{run.journal} holds {written} of {total} rows. Run it again with --restart enhance.")
    usable = sum(figures["outcomes"][outcome] for outcome in TRAINABLE)
    failure = None if usable else "No row was solved, so there is nothing to train on."
    return StageResult(rows_in=total, rows_out=usable, figures=figures, failure=failure)


@asynccontextmanager
async def attended(
    run: RunDir,
    config: StudentTeacherConfig,
    base: Base,
    *,
    journal: Journal,
    ledger: Ledger,
    served: ServedStudent | None = None,
    places: Places | None = None,
) -> AsyncIterator[tuple[Loop, Student]]:
    """Yields the loop with all its models, loaded and connected until the block ends.

    Args:
        places: as for `assemble_cast`.
    """
    names = {
        "student_model": config.student_model or base.model_name,
        "teacher_model": teacher_of(config),
        "judge_model": resolve_alias(config.judge_model),
    }
    kept: dict[str, Any] = {"journal": journal, "ledger": ledger}
    async with AsyncExitStack() as stack:
        models = stack.enter_context(LocalModels(load_in_4bit=base.load_in_4bit))
        people = assemble_cast(config, stage="enhance", local=models.load, places=places, **kept)
        stack.push_async_callback(people.close)
        own: dict[str, Any] = {"adapter": base.adapter, "vllm_log": run / "vllm.log", "served": served}
        attending = attending_student(config, base.model_name, models, **own, **kept)
        student = await stack.enter_async_context(attending)
        thinks = config.thinking_format is None and is_thinking(chat_template(base.model_name) or "")
        rules = Rules(
            attempts=config.attempts,
            enough=config.enough,
            max_iterations=config.max_iterations,
            hint_attempts=config.hint_attempts,
            # Traces that rationalise a hint are reported to cost thinking models up to 40 % (arXiv:2603.24472).
            thinking_format=config.thinking_format or ("clean" if thinks else "direct"),
            unsolved=config.unsolved,
        )
        sampling = student.sampling.drawn(base.seed)
        yield Loop(student.model, people.judge, people.teacher, sampling, rules, names, people.pick), student


async def _leaks(run: RunDir, student: Student, rows: Iterator[dict[str, Any]], seed: int) -> dict[str, Any] | None:
    """Measures a sample of the hints by the student's own probabilities and writes `hint_measures.jsonl`. Returns None
    if the student answers elsewhere, or nobody hinted.
    """
    if student.loaded is None or not student.loaded.tokenizer.is_fast:  # its offsets locate the tokens of the answer
        return None
    uses = hint_uses((Trace.from_json(data) for data in rows), most=MEASURED_HINTS, seed=seed)
    if not uses:
        return None
    stopped = Event()
    try:
        model, tokenizer = student.loaded.model, student.loaded.tokenizer
        measures = await asyncio.to_thread(measure_hints, model, tokenizer, uses, stopped=stopped)
    finally:
        stopped.set()  # an interrupt waits for the thread, which ends with its batch
    write_jsonl(run.hint_measures, ({**asdict(use), "score": use.score, "spoils": use.spoils} for use in measures))
    return {"measured": len(measures), "rate": leak_rate(measures)}


UNUSED = 0.2
"""From this share of unsolved rows with a worked solution on, it is said that the solutions could be trained on. On the
first real task compared, they taught a small model far more than hints did."""
_Kind = Literal["decided", "undecided", "error"]


def _kind(row: dict[str, Any]) -> _Kind:
    """Returns how judge and calls ended for a finished row. A cut-off answer does not count against the judge."""
    enhancement = row["metadata"]["enhancement"]
    if enhancement["outcome"] == "undecided":
        return "undecided" if enhancement["trace"][-1]["judged_by"] not in CUT_OFF.values() else "decided"
    return "error" if enhancement["outcome"] == "error" else "decided"


def _step(loop: Loop, config: StudentTeacherConfig, total: int, before: Sequence[_Kind]) -> Callable[[QARow], Any]:
    """Returns `enhance_row` to JSON, which stops if the judge cannot decide most rows, or most calls fail.

    Args:
        before: the kinds of rows finished earlier.
    """
    seen = Counter(before)
    last_error: str | None = None

    async def step(row: QARow) -> dict[str, Any]:
        nonlocal last_error
        trace = await enhance_row(row, loop)
        data = trace.to_json(training_text(trace) or row.reference)
        kind = _kind(data)
        seen[kind] += 1
        if kind == "error":
            last_error = trace.error
        if kind == "error" and _is_most(seen["error"], seen.total(), total):
            raise OutsideError(
                f"{seen['error']} of the first {seen.total()} rows failed; the last error was: {last_error}"
            )
        if kind == "undecided" and _is_most(seen["undecided"], seen.total(), total):
            answer, right = (
                repr(shorten(text, 50, placeholder=" …")) for text in (trace.attempts[-1].response, row.reference)
            )
            got = f"{seen['undecided']} undecided of the first {seen.total()} rows, such as {answer} for {right}"
            raise UserError(
                Fault("enhance.judge_model", "a judge that can decide these rows", Shown(got), _judges(config))
            )
        return data

    return step


def _placed(step: Callable[[QARow], Any], places: Places) -> Callable[[QARow], Any]:
    """Wraps `step` so that each row takes a place among the rows at work."""

    async def placed(row: QARow) -> dict[str, Any]:
        async with places.row():
            return await step(row)

    return placed


def _batches(journal: Journal, role: str) -> dict[str, float]:
    """Returns how many batches the role had, and how many of their calls were answered, failed or were refused."""
    ended = [note.about for note in journal.batches(role) if note.state == "done" and note.about["calls"]]
    names = ("calls", "answered", "failed", "refused")
    return {"batches": len(ended), **{name: sum(about.get(name, 0) for about in ended) for name in names}}


def _is_most(count: int, seen: int, total: int) -> bool:
    """Returns True if `count` of the rows seen show that most of all rows are such."""
    if seen < FEWEST_JUDGED:
        return False
    return count > seen / 2 if seen >= total else Rate(count, seen).ci95[0] > 1 / 2


def _judges(config: StudentTeacherConfig) -> str:
    """Returns advice on what to use instead of a judge that leaves most answers undecided."""
    others = "a model (--judge-model gpt-4o-mini, local/NAME, or NAME with --judge-api-base URL)"
    if config.judge_model.startswith("python:"):
        return f"It returns True, False or None, and None is no verdict. Make it decide more, or give {others}."
    if resolve_alias(config.judge_model) == RULES["judge"] or config.judge_mode == "mechanical":
        return f"Give {others}, a function of yours (python:FILE.py:F), or answers that rules can compare."
    return f"Give a larger judge: {others}; or answers that rules can compare."


def _counted(rows: Iterator[dict[str, Any]], figures: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the rows unchanged, counted into `figures`."""
    for data in rows:
        enhancement = data["metadata"]["enhancement"]
        figures["outcomes"][enhancement["outcome"]] += 1
        if enhancement["gap"]:
            figures["gaps"][enhancement["gap"]] += 1
        figures["hints"] += sum(attempt["hint"] is not None for attempt in enhancement["trace"])
        figures["hints_rejected"] += enhancement["hints_rejected"]
        has_solution = enhancement["outcome"] == "unsolved" and data["metadata"].get("thinking")
        figures["unsolved_with_solution"] += bool(has_solution)
        figures["looped"] += sum(attempt["judged_by"] == CUT_OFF["loop"] for attempt in enhancement["trace"])
        yield data

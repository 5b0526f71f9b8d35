"""enhance: the student attempts, the judge decides, the teacher hints, until the student gets it right itself."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from socratune.chat import training_text
from socratune.errors import OutsideError
from socratune.hints import HintRequest, Teacher, leak
from socratune.journal import Journal
from socratune.judge import Judge
from socratune.llm.base import Chat, ChatModel, Sampling
from socratune.prompts import with_hint_turn, with_private_hint
from socratune.rowmap import map_rows
from socratune.rows import Attempt, Outcome, QARow, Trace
from socratune.rundir import RunDir, StageResult, read_jsonl, write_jsonl

RETRY_TEMPERATURE = 0.7
"""A retry is drawn at least this warm: a greedy student repeats its mistake (0 of 35 third attempts were right)."""


@dataclass(frozen=True, slots=True)
class Loop:
    """Who takes part, and by which rules.

    Attributes:
        sampling: of the first attempt; seeds are set per (row, attempt) from its seed.
        names: role → model name, for the trace.
    """

    student: ChatModel
    judge: Judge
    teacher: Teacher
    sampling: Sampling
    max_iterations: int
    thinking_format: str
    names: dict[str, str]


async def enhance_row(row: QARow, loop: Loop) -> Trace:
    """One row through the loop: attempt → judge → hint → attempt …, at most `max_iterations` attempts.

    A right answer is never doubted and an undecided one never hinted. The teacher is not asked after the last
    attempt. A hint that gives the answer away is asked for once more, then done without.
    """
    attempts: list[Attempt] = []
    hints_rejected = 0
    while True:
        number = len(attempts) + 1
        completion = await loop.student.generate(_messages(row, loop, attempts), _sampling(row, loop, number))
        if completion.stop == "length":
            attempts.append(Attempt(number, completion.text, "undecided", "truncated", token_ids=completion.token_ids))
            return _trace(row, loop, "undecided", attempts, hints_rejected)
        judgement = await loop.judge(row, completion.text)
        attempts.append(
            Attempt(number, completion.text, judgement.verdict, judgement.judged_by, token_ids=completion.token_ids)
        )
        if judgement.verdict == "correct":
            first = number == 1
            return _trace(row, loop, "solved_first_try" if first else "solved_with_hint", attempts, hints_rejected)
        if judgement.verdict == "undecided":
            return _trace(row, loop, "undecided", attempts, hints_rejected)
        if number == loop.max_iterations:
            return _trace(row, loop, "unsolved", attempts, hints_rejected)
        hint, leaked = await _hint(row, loop, attempts)
        hints_rejected += leaked
        if hint is None:
            return _trace(row, loop, "unsolved", attempts, hints_rejected)
        attempts[-1] = replace(attempts[-1], hint=hint)


def _messages(row: QARow, loop: Loop, attempts: list[Attempt]) -> Chat:
    """The question; for a retry with the newest hint, private (`direct`) or as a dialogue (`iterative`)."""
    if not attempts:
        return row.prompt
    last = attempts[-1]
    assert last.hint is not None
    if loop.thinking_format == "direct":
        return with_private_hint(row.prompt, last.hint)
    return with_hint_turn(row.prompt, last.response, last.hint)


def _sampling(row: QARow, loop: Loop, attempt: int) -> Sampling:
    digest = hashlib.sha256(f"{loop.sampling.seed}/{row.id}/{attempt}".encode()).digest()
    seed = int.from_bytes(digest[:7], "big")
    if attempt == 1:
        return replace(loop.sampling, seed=seed)
    return replace(loop.sampling, seed=seed, temperature=max(loop.sampling.temperature, RETRY_TEMPERATURE))


async def _hint(row: QARow, loop: Loop, attempts: list[Attempt]) -> tuple[str | None, int]:
    """A hint that does not give the answer away, or None; and how many that did were thrown away."""
    request = HintRequest(row, tuple(attempts))
    for leaked in range(2):
        hint = await loop.teacher(request)
        if hint is None or not leak(hint, row):
            return hint, leaked
    return None, 2


def _trace(row: QARow, loop: Loop, outcome: Outcome, attempts: list[Attempt], hints_rejected: int) -> Trace:
    return Trace(row, outcome, tuple(attempts), loop.thinking_format, loop.names, hints_rejected)


async def run(
    run: RunDir, loop: Loop, *, journal: Journal, key: str, concurrency: int, tick: Callable[[int, int], None]
) -> StageResult:
    """Write `enhanced_dataset.jsonl`: one row per row of `train_in.jsonl`, in input order, nothing lost.

    Args:
        key: name and fingerprint of the stage in the journal.
        concurrency: rows in flight.
    """
    rows = [QARow.from_json(data) for data in read_jsonl(run.rows("train_in"))]

    async def step(row: QARow) -> dict[str, object]:
        trace = await enhance_row(row, loop)
        return trace.to_json(training_text(trace) or row.reference)

    await map_rows(rows, step, journal=journal, stage=key, concurrency=concurrency, tick=tick)
    outcomes: Counter[str] = Counter()
    hints = leaked = 0

    def finished():
        nonlocal hints, leaked
        for data in journal.rows(key):
            enhancement = data["metadata"]["enhancement"]
            outcomes[enhancement["outcome"]] += 1
            hints += sum(attempt["hint"] is not None for attempt in enhancement["trace"])
            leaked += enhancement["hints_rejected"]
            yield data

    written = write_jsonl(run.enhanced, finished())
    if written != len(rows):
        raise OutsideError(f"{run.journal} holds {written} of {len(rows)} rows. Run it again with --restart enhance.")
    usable = outcomes["solved_first_try"] + outcomes["solved_with_hint"]
    figures = {**loop.names, "outcomes": dict(outcomes), "hints": hints, "hints_rejected": leaked}
    failure = None if usable else "No row was solved, so there is nothing to train on."
    return StageResult(rows_in=len(rows), rows_out=usable, figures=figures, failure=failure)

"""Asking a model a set of questions and judging the answers: what `dev`, `validate` and `chat` have in common."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from socratune.errors import CallError
from socratune.judging import Judge
from socratune.llm import ChatModel, Sampling
from socratune.rows import Judgement, QARow
from socratune.runs import Journal, map_rows


async def answer_and_judge(
    rows: list[QARow],
    model: ChatModel,
    judge: Judge,
    sampling: Sampling,
    *,
    journal: Journal,
    key: str,
    concurrency: int,
    tick: Callable[[int, int], None],
    samples: int = 1,
) -> list[dict[str, Any]]:
    """The answers to each row, judged, in the rows' order: `response`, `verdict`, `judged_by`, `tokens`, `stop`.

    An answer that is cut off is incorrect here: a model that does not come to an end has not answered, and leaving the
    pair out would favour an adapter that rambles. One that the judge's provider refuses to look at is undecided.

    Args:
        samples: answers drawn to each row, with seeds of their own; those behind the first are in `more`.
    """

    async def one(row: QARow, sampling: Sampling) -> dict[str, Any]:
        completion = await model.generate(row.prompt, sampling)
        if completion.stop == "length":
            judgement = Judgement("incorrect", "truncated")
        else:
            try:
                judgement = await judge(row, completion.text)
            except CallError as error:
                judgement = Judgement("undecided", "error", str(error))
        return {
            "response": completion.text,
            "verdict": judgement.verdict,
            "judged_by": judgement.judged_by,
            "tokens": completion.completion_tokens,
            "stop": completion.stop,
        }

    async def step(row: QARow) -> dict[str, Any]:
        drawn = (sampling.drawn(draw_seed(row.id, number)) for number in range(samples))
        first, *more = await asyncio.gather(*(one(row, each) for each in drawn))
        return {**first, "more": more} if more else first

    await map_rows(rows, step, journal=journal, stage=key, concurrency=concurrency, tick=tick)
    return list(journal.rows(key))


def counted_from(tick: Callable[[int, int], None], before: int, total: int) -> Callable[[int, int], None]:
    """The tick of one of several sets that share a bar of `total` rows, of which `before` are done."""
    return lambda done, _: tick(before + done, total)


def draw_seed(row_id: str, number: int) -> int:
    """Of one answer; the same for base and adapter, and another for every question."""
    return int.from_bytes(hashlib.sha256(f"{row_id}/{number}".encode("utf-8", "replace")).digest()[:7], "big")


def accuracy(rows: list[QARow], model: ChatModel, judge: Judge, sampling: Sampling, concurrency: int) -> float:
    """The share of right answers; nothing is kept."""
    with TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.sqlite")
        answers = asyncio.run(
            answer_and_judge(
                rows,
                model,
                judge,
                sampling,
                journal=journal,
                key="accuracy",
                concurrency=concurrency,
                tick=lambda done, total: None,
            )
        )
        journal.close()
    return sum(answer["verdict"] == "correct" for answer in answers) / len(answers)

"""Picks the right sample that is trained on. `trace_pick: judged` asks a model which shows its work best."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from socratune.errors import CallError
from socratune.llm import PICK_SCHEMA, ChatModel, Sampling, parse_pick, pick_messages
from socratune.rows import Attempt, QARow

Pick = Callable[[QARow, Sequence[Attempt]], Coroutine[Any, Any, Attempt]]
"""`await pick(row, right)` returns the right attempt that is trained on."""

PICK_SAMPLING = Sampling(temperature=0.0, max_new_tokens=1024, json_schema=PICK_SCHEMA)


async def pick_longest(row: QARow, right: Sequence[Attempt]) -> Attempt:
    """Returns the longest attempt. The shortest is often a lucky guess: training on it cost 4 points."""
    return max(right, key=lambda attempt: len(attempt.response))


async def pick_first(row: QARow, right: Sequence[Attempt]) -> Attempt:
    """Returns the first attempt."""
    return right[0]


def judged_pick(model: ChatModel) -> Pick:
    """Returns a pick that asks `model` whose work is best, with one call for two or more attempts.

    They are shown in an order drawn from the row's id, as judges prefer places. Without a usable reply, or where the
    call is refused, the longest is taken: a row is not lost for want of a choice.
    """

    async def pick(row: QARow, right: Sequence[Attempt]) -> Attempt:
        longest = await pick_longest(row, right)
        if len({attempt.response for attempt in right}) == 1:
            return longest
        shown = list(right)
        random.Random(row.id).shuffle(shown)
        messages = pick_messages(row.question, row.reference, [attempt.response for attempt in shown])
        try:
            completion = await model.generate(messages, PICK_SAMPLING)
        except CallError:
            return longest
        chosen = None if completion.stop != "end" else parse_pick(completion.text, len(shown))
        return longest if chosen is None else shown[chosen]

    return pick

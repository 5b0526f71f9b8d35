"""Hints: what a teacher is told, and whether a hint gives the answer away."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from socratune.answers import choice_of, final_answer, final_number, is_numeric_answer, loose_numbers_in, normalise
from socratune.llm.arithmetic import breakdown_hint, parse_product
from socratune.rows import Attempt, QARow


@dataclass(frozen=True, slots=True)
class HintRequest:
    """What the teacher sees: the row with its reference, and the failed attempts with the hints they led to.

    `seed` differs where the same request is made again, so that another hint can come.
    """

    row: QARow
    attempts: tuple[Attempt, ...]
    seed: int = 0


Teacher = Callable[[HintRequest], Coroutine[Any, Any, str | None]]
"""`await teacher(request)` gives a hint, or None where the teacher has nothing to say."""


async def arithmetic_teacher(request: HintRequest) -> str | None:
    """The teacher `rules/arithmetic`: takes a product apart, more concretely after the first hint."""
    factors = parse_product(request.row.question)
    if factors is None or final_number(request.row.reference) != factors[0] * factors[1]:
        return None
    hints_given = sum(attempt.hint is not None for attempt in request.attempts)
    return breakdown_hint(*factors, level=min(hints_given + 1, 2))


def leak(hint: str, row: QARow) -> str | None:
    """How the hint gives the answer away, or None.

    Compares numbers by value and texts normalised; what the question itself says is no secret.
    """
    if is_numeric_answer(row.reference):
        answer = final_number(row.reference)
        if answer is not None and answer in loose_numbers_in(hint) - loose_numbers_in(row.question):
            return "states the resulting number"
        return None
    answer_text = normalise(final_answer(row.reference))
    if letter := choice_of(row.reference):
        if choice_of(hint) == letter:
            return "names the right option"
    elif answer_text and _holds(normalise(hint), answer_text) and not _holds(normalise(row.question), answer_text):
        return "states the answer"
    return None


def _holds(text: str, part: str) -> bool:
    return f" {part} " in f" {text} "


_ECHO = re.compile(
    r"""\b(?:
        (?:the|your|this|that|a)\s+hint | hints?\s+(?:says?|suggests?|tells?|given) | as\s+(?:hinted|suggested)
      | oh\s+wait | aha | you(?:'|’)?(?:\s+a)?re\s+right | (?:thanks|thank\s+you)\s+for
      | (?:i\s+)?apologi[sz]e | (?:my|the)\s+(?:earlier|previous|first|last)\s+(?:attempt|answer|try)
      | (?:i\s+)?made\s+(?:a|an)\s+(?:mistake|error) | let\s+me\s+(?:correct|try\s+again)
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)


def echo(response: str, question: str) -> str | None:
    """The words in which an answer speaks of a hint or of an earlier attempt, unless the question does; or None."""
    for found in _ECHO.finditer(response):
        if found.group().casefold() not in question.casefold():
            return found.group()
    return None

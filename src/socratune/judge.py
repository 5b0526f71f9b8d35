"""Is the answer right? By rules where rules can tell, else undecided: undecided is never taken for wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from socratune.answers import (
    choice_of,
    final_answer,
    final_number,
    is_numeric_answer,
    normalise,
    options_in,
    strip_thinking,
)
from socratune.rows import Judgement, QARow

Judge = Callable[[QARow, str], Awaitable[Judgement]]
"""`await judge(row, response)`."""


async def mechanical_judge(row: QARow, response: str) -> Judgement:
    """The judge `rules/mechanical`: exact text, number, choice; undecided for everything else."""
    return judge_by_rules(row.question, row.reference, response)


def judge_by_rules(question: str, reference: str, response: str) -> Judgement:
    """What rules can say of `response`, in the order exact, choice, numeric."""
    if not strip_thinking(response).strip():
        return Judgement("incorrect", "exact", "empty answer")
    if normalise(final_answer(response)) == normalise(final_answer(reference)):
        return Judgement("correct", "exact")
    options = options_in(question)
    if len(options) >= 2 and (right := choice_of(reference)):
        chosen = choice_of(response)
        if chosen not in options:
            return Judgement("undecided", "choice", "no option named")
        return Judgement("correct" if chosen == right else "incorrect", "choice", f"{chosen}, expected {right}")
    if is_numeric_answer(reference):
        right_number, number = final_number(reference), final_number(response)
        if number is None:
            return Judgement("undecided", "numeric", "no number in the final statement")
        return Judgement("correct" if number == right_number else "incorrect", "numeric", f"{number}")
    return Judgement("undecided", "exact", "texts differ, and rules cannot tell whether they mean the same")

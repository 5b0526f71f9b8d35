"""Is the answer right? By rules where rules can tell, else undecided: undecided is never taken for wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any

from socratune.judging.choices import by_choice, by_list, by_polarity, members_of
from socratune.judging.formulas import MathChecker, as_latex
from socratune.judging.numeric import by_number
from socratune.judging.quantities import ASKS_FORM, measure, quantities_in
from socratune.judging.text import (
    REORDERED,
    Statement,
    before_thinking,
    canonical,
    plain_text,
    statement_of,
    still_thinking,
    strip_thinking,
)
from socratune.rows import Judgement, QARow

Judge = Callable[[QARow, str], Coroutine[Any, Any, Judgement]]
"""`await judge(row, response)`."""

_math = MathChecker()


async def mechanical_judge(row: QARow, response: str) -> Judgement:
    """The judge `rules/mechanical`: exact text, number, choice, formula; undecided for everything else."""
    judgement = judge_by_rules(row.question, row.reference, response)
    if judgement.verdict == "undecided" and (pair := _formulas(row.question, row.reference, response)):
        same = await _math.check_async(*pair)
        if same and not ASKS_FORM.search(row.question):  # "Factor x^2 - 1" wants a form, not a value
            return Judgement("correct", "math")
        unclear = "log" in pair[0] + pair[1] or _FLAT_FRACTION.search(pair[1])  # log: of base 10 or e?
        if same is False and not unclear:
            return Judgement("incorrect", "math", "the formulas differ by value")
    return judgement


def judge_by_rules(question: str, reference: str, response: str) -> Judgement:
    """What rules can say of `response`, in the order exact (lists among them), numeric, choice, yes or no."""
    if still_thinking(response):
        return Judgement("undecided", "exact", "the think block was never closed: there is no answer yet")
    before = before_thinking(response)
    response, reference = strip_thinking(response).strip(), strip_thinking(reference).strip()
    if not response and before:
        return Judgement("undecided", "exact", "nothing stands behind the last think block")
    if not response:
        return Judgement("incorrect", "exact", "empty answer")
    if REORDERED.search(response):
        return Judgement("undecided", "exact", "direction marks: a reader sees another text")
    right, said = statement_of(reference), statement_of(response)
    if _same_text(reference, right, response, said):
        return Judgement("correct", "exact")
    for rule in (by_list, by_number, by_choice, by_polarity):
        if judgement := rule(question, right, said):
            return judgement
    return Judgement("undecided", "exact", "texts differ, and rules cannot tell whether they mean the same")


def _same_text(reference: str, right: Statement, response: str, said: Statement) -> bool:
    """True where the answer, or its final statement, is the reference word for word."""
    # of a reference in several lines the last one alone is not the answer, unless it is marked as that
    texts = [reference, right.text] if right.marked else [reference]
    fold = not any(_case_matters(text) for text in texts)
    wanted = {canonical(text, fold) for text in texts} - {""}
    if canonical(response, fold) in wanted:
        return True
    return not said.doubtful and canonical(said.text, fold) in wanted


def _case_matters(text: str) -> bool:
    """True for symbols (`Co`, `Aa`, `5 mW`, `CO2`), where another case is another thing."""
    bare = text.strip(" .,;:!?()*$")
    return len(bare) <= 2 or (
        len(bare) <= 12 and re.search(r"[^\W\d]\d|\d\s?[^\W\d]{1,2}(?![^\W\d])", bare) is not None
    )


_FLAT_FRACTION = re.compile(r"^[^()]*(?:[a-z0-9]\s*[-+][^()]*/|/[^()]*[-+])[^()]*$", re.IGNORECASE)
"""`x+1/x-1` may be meant as (x+1)/(x-1)."""
_BARE = re.compile(r"[^\w√(){}\\|]*[\d.,]+[^\w√(){}\\|]*")


def _formulas(question: str, reference: str, response: str) -> tuple[str, str] | None:
    """Reference and answer as LaTeX, where both are formulas and equality by value would say something."""
    right, said = statement_of(strip_thinking(reference).strip()), statement_of(strip_thinking(response).strip())
    if still_thinking(response) or said.doubtful or not said.text:
        return None
    pair = as_latex(right.text), as_latex(said.text)
    if not all(pair) or any(measure(number.unit) for text in pair for number in quantities_in(text)):
        return None
    given, wanted = re.sub(r"\s", "", plain_text(said.text)), re.sub(r"\s", "", plain_text(right.text))
    if _BARE.fullmatch(given) and _BARE.fullmatch(wanted):
        return None  # two numbers: what the numeric rule leaves open stays open (70.000)
    lists = [members[0] for part in (right.text, said.text) if (members := members_of(part))]
    if lists not in ([], ["{", "{"]) or re.search(r":|\d\.\d+\.\d", given + wanted):
        return None  # math-verify takes every list for a set, and 3:4 for a quotient
    if re.fullmatch(r"[\d.,+*/×·÷()^-]+", given.rsplit("=", 1)[-1]) and quantities_in(wanted):
        return None  # a sum that was not done is no result
    if re.sub(r"[\\(){}.]", "", given) in re.sub(r"[\s\\(){}.]", "", plain_text(question)):
        return None  # the question said back
    brackets = wanted[:1] + wanted[-1:], given[:1] + given[-1:]
    if brackets[0] != brackets[1] and "," in wanted + given and re.search(r"[(\[]", wanted[:1] + given[:1]):
        return None  # an interval against a pair, or another interval
    return pair

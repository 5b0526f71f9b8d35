"""Implements the judge `rules/environment`: extracts the final answer and passes it to the environment's verifier.

Where our own rules agree with it on every answer of the gold test, they are asked first: they read units and reasons
better. A response that never states an answer is wrong, as the task asks for one. One that states several is undecided
if the right one is among them, else wrong. The rubric of a `verifiers` environment gets the whole response.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, cast

from socratune.environments.gym import RULES_AGREE
from socratune.environments.naming import environment, kind_of
from socratune.environments.protocol import Entry, Environment
from socratune.environments.verifiers_package import VerifiersTask
from socratune.judging import (
    Statement,
    judge_by_rules,
    mechanical_judge,
    numbers_in,
    parse_number,
    plain_text,
    statement_of,
    undecided_on_error,
)
from socratune.rows import Judgement, QARow

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_KIN = (
    "mother-in-law", "father-in-law", "grandmother", "grandfather", "mother", "father", "sister", "brother", "daughter",
    "son", "wife", "husband", "aunt", "uncle", "niece", "nephew", "granddaughter", "grandson", "cousin",
)  # fmt: skip
_WORDS = (("Yes", "No"), ("True", "False"), _DAYS, _KIN)
"""Closed sets of answers: an answer in a sentence names one of their members."""
_NO_WHAT = re.compile(r"(?i)\bno\b(?!\W*$|\s*[,.;:!\n–—-]|\s+(?:because|since|as|it|that|this|the|we)\b)")
"""The `no` of "no idea" and "no spider", which answers nothing."""
_TIME = re.compile(r"(?:\d+ days?,? (?:and )?)?\d+:\d\d(?::\d\d(?:\.\d+)?)?|\d+ days?")
_LIST = re.compile(r"\[[^\[\]]*\]")
_FRACTION = re.compile(r"-?\d+\s*/\s*-?\d+")


def environment_of(row: QARow) -> dict[str, Any] | None:
    """Returns the `name` and `entry` that `--env` wrote into the row; None for a column of the user's of that name."""
    own = row.metadata.get("environment")
    return own if isinstance(own, dict) and {"name", "entry"} <= own.keys() else None


@undecided_on_error
async def environment_judge(row: QARow, response: str) -> Judgement:
    """Judges a response by the row's environment. A row without an environment is judged by rules."""
    if (own := environment_of(row)) is None:
        return await mechanical_judge(row, response)
    entry = {**own["entry"], "question": row.question}
    if own["name"].startswith("verifiers:"):
        right, why = await cast(VerifiersTask, environment(own["name"])).reward(entry, response)
        return Judgement("correct" if right else "incorrect", "environment", why)
    statement = statement_of(response)
    if statement.unreadable:
        return Judgement("undecided", "environment", statement.unreadable)
    if own["name"].startswith("reasoning_gym:") and kind_of(own["name"]) in RULES_AGREE:
        judgement = judge_by_rules(row.question, f"The answer is {entry['answer']}.", response)
        if judgement.verdict != "undecided":
            return judgement
    return _by_verifier(environment(own["name"]), entry, statement)


def _by_verifier(env: Environment, entry: Entry, statement: Statement) -> Judgement:
    answer = str(entry["answer"])
    stated = said_in(_clause(statement, answer), answer)
    if statement.doubtful:
        stated = said_in(plain_text(statement.whole), answer) or stated
    if not stated:
        return Judgement("incorrect", "environment", "no final answer")
    if len(set(stated)) > 1 and (statement.doubtful or statement.marked or not env.verify(entry, stated[-1])):
        if right := [candidate for candidate in dict.fromkeys(stated) if env.verify(entry, candidate)]:
            return Judgement("undecided", "environment", f"several answers, {right[0]} among them")
        return Judgement("incorrect", "environment", "several answers, none of them right")
    verdict = env.verify(entry, stated[-1])
    if verdict is None:
        return Judgement("undecided", "environment", f"the verifier cannot tell of {stated[-1]!r}")
    return Judgement("correct" if verdict else "incorrect", "environment", f"read as {stated[-1]!r}")


_REASON = re.compile(r",\s+(?!or\b)|[;(]|\s(?:because|since|as)\b")


def _clause(statement: Statement, answer: str) -> str:
    """Returns the part of `The answer is X, because …` before the reason if it holds an answer."""
    first = _REASON.split(statement.plain, maxsplit=1)[0]
    commas = _TIME.fullmatch(answer) or _LIST.fullmatch(answer)
    return first if statement.marked and not commas and said_in(first, answer) else statement.plain


def said_in(statement: str, answer: str) -> list[str]:
    """Returns the results that a statement gives, each in the form of the task's own `answer`. The last one counts.

    Args:
        statement: without Markdown and LaTeX dress.
        answer: the task's own.
    """
    wanted = plain_text(answer).strip()
    if (value := parse_number(wanted)) is not None and "/" not in wanted:
        after = statement.rsplit("=", 1)[-1] if numbers_in(statement.rsplit("=", 1)[-1]) else statement
        return [_written(number, value) for number in numbers_in(after)]
    if "/" in wanted and _FRACTION.fullmatch(wanted):
        return [re.sub(r"\s", "", fraction) for fraction in _FRACTION.findall(statement)]
    if _TIME.fullmatch(wanted):
        return [_as_time(duration, wanted) for duration in _TIME.findall(statement)]
    if _LIST.fullmatch(wanted):
        return _LIST.findall(statement)
    for words in _WORDS:
        if wanted.casefold() in map(str.casefold, words):
            return _words_in(statement, words, wanted)
    text = statement.strip(" .\n")
    return [text] if text else []


def _written(number: Fraction, like: Fraction) -> str:
    """Writes a number as its task does: whole if it can, otherwise with decimals."""
    if number.denominator == 1:
        return str(number.numerator)
    return repr(float(number)) if like.denominator > 1 or number != like else str(number)


def _as_time(duration: str, wanted: str) -> str:
    """Writes a duration with the plural and the comma of its task."""
    days = re.match(r"(\d+) days?,? (?:and )?(?=\d)", duration)
    if days and "," in wanted:
        return f"{days.group(1)} days, {duration[days.end() :]}"
    return duration


def _words_in(statement: str, words: tuple[str, ...], wanted: str) -> list[str]:
    pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    text = re.sub(r"(?<=\w)[ -]in[ -]law", "-in-law", statement)
    text = _NO_WHAT.sub("", text)
    spelt = {word.casefold(): word for word in words} | {wanted.casefold(): wanted}
    return [spelt[match.casefold()] for match in re.findall(rf"(?i)(?<![\w-])(?:{pattern})(?![\w-])", text)]

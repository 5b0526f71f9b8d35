"""One problem of the laboratory: text, worked solution, its usual slip, right hints; and how hints are made wrong.

Every right hint names something of its text (a name, a number, a sentence) and nothing else, so that a reader can check
whether it belongs to the question. Every wrong one names something that the text has not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from words import CONSTANTS, DAYS, POOL_OF, TERM, terms

Work = tuple[list[str], str]
"""The steps of a solution and where they lead."""


@dataclass(frozen=True, slots=True)
class Hint:
    """One hint; `kind` is one of plan, unknown, units, split, hops, reread, draw, leave_out."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A question and all that can be said about it.

    Attributes:
        family: word, unit, hop or table; `kind` is a sort within it.
        level: 0 to 4; more operations, hops or rows.
        facts: the sentences (or table rows) of the question that matter, in the order of the solution.
        guesses: wrong answers a reader in a hurry would give, taken from the text; may be empty.
        slip: a worked solution with one error of plan.
    """

    family: str
    kind: str
    level: int
    question: str
    facts: tuple[str, ...]
    steps: tuple[str, ...]
    answer: str
    hints: tuple[Hint, ...]
    guesses: tuple[str, ...]
    slip: Callable[[random.Random], Work]


def told(steps: Sequence[str], answer: str) -> str:
    """A solution as the model writes it."""
    return " ".join([*steps, f"Answer: {answer}"])


def clock(minutes: int) -> str:
    """Minutes since midnight as `7:05`."""
    return f"{minutes // 60 % 24}:{minutes % 60:02d}"


def safe_hints(hints: Sequence[Hint], answer: str, candidates: Sequence[str] = ()) -> tuple[Hint, ...]:
    """The hints that do not give the answer away: they do not say it, or name other `candidates` beside it."""
    secret = answer.split(maxsplit=1)[0]  # of "40 days" the number
    others = set(candidates) - {answer}
    said = [(hint, TERM.findall(hint.text)) for hint in hints]
    return tuple(hint for hint, words_said in said if secret not in words_said or others & set(words_said))


def guess(problem: Problem, rng: random.Random) -> str:
    """A wrong answer of the right kind: half the time something the text names."""
    if problem.guesses and rng.random() < 0.5:
        return rng.choice(problem.guesses)
    answer = problem.answer
    if answer in DAYS:
        return rng.choice([day for day in DAYS if day != answer])
    if ":" in answer:
        hours, minutes = map(int, answer.split(":"))
        return clock(hours * 60 + minutes + rng.choice([-60, -30, -20, -10, 10, 20, 30, 60]))
    if answer[0].isdigit():
        number, *unit = answer.split()
        near = rng.choice([-12, -10, -8, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 8, 10, 12])
        wrong = abs(int(number) + near)
        return " ".join([str(wrong if wrong != int(number) else wrong + 1), *unit])
    return rng.choice(problem.guesses)


def corrupted(hint: Hint, question: str, rng: random.Random) -> Hint:
    """The hint with one of its names or numbers replaced by another of its kind that the question does not have."""
    known = set(terms(question))
    places = [(match, _others(match[0], known)) for match in TERM.finditer(hint.text) if terms(match[0])]
    match, others = rng.choice([place for place in places if place[1]])
    return Hint(hint.kind, hint.text[: match.start()] + rng.choice(others) + hint.text[match.end() :])


def _others(term: str, known: set[str]) -> list[str]:
    if ":" in term:
        hours, minutes = map(int, term.split(":"))
        others = [clock(hours * 60 + minutes + by) for by in (-90, -60, -30, -20, 20, 30, 60, 90)]
    elif term.isdigit():
        others = [str(int(term) + by) for by in range(-9, 10) if int(term) + by > 0]
    else:
        others = POOL_OF[term]
    return [other for other in others if other not in known | CONSTANTS and other != term]


def foreign(hint: Hint, question: str) -> list[str]:
    """The terms of the hint that the question has not: none of a right hint, one or more of a wrong one."""
    known = set(terms(question)) | CONSTANTS
    return [term for term in terms(hint.text) if term not in known]

"""All that the student could say about a seed's problems, drawn beforehand: samples, answers to hints, retries.

An arm buys of these in the order in which it would have asked (`arms.py`), so all arms see the same first samples.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from asking import Base, Ids, Manner, Merged, ask
from generator import other_problems_hint
from lab import judge
from many import Document
from problem import Problem

from socratune.llm.base import Chat
from socratune.llm.prompts import with_hint_turn, with_private_hint

EARLY_SAMPLES, SAMPLES, ENOUGH = 8, 64, 4
"""Samples of every row; behind these they are doubled, up to the most, for rows with fewer right ones than enough."""
FIRST = 4
"""Samples of a row before `mix` asks for a hint."""
ROUNDS, HINT_SAMPLES = 3, 2
TEMPERATURE = 0.8


class Draw(NamedTuple):
    """One answer of the student's."""

    ids: Ids
    right: bool


class Writer:
    """Conversations to prompts and documents, as the chat template and Socratune's mask have them."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.end: int = tokenizer.eos_token_id
        self._marks = [self.ids(" Answer:"), self.ids("Answer:")]
        self._tails: dict[tuple[int, ...], str] = {}
        self._prompts: dict[tuple[str, ...], Ids] = {}

    def ids(self, text: str) -> Ids:
        """Of a plain text."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def text(self, ids: Ids) -> str:
        """As the student would hand it over."""
        return self.tokenizer.decode(ids, skip_special_tokens=False).strip()

    def answer(self, ids: Ids) -> str:
        """What stands behind the last answer mark, else the whole text: few different ones, each decoded once."""
        tail = tuple(ids[self.behind_mark(ids) :])
        if tail not in self._tails:
            self._tails[tail] = self.text(list(tail))
        return self._tails[tail]

    def behind_mark(self, ids: Ids) -> int:
        """Where the last answer begins; 0 where there is no mark."""
        ends = (at + len(mark) for mark in self._marks for at in range(len(ids)) if ids[at : at + len(mark)] == mark)
        return max(ends, default=0)

    def prompt(self, chat: Chat) -> Ids:
        """Up to where the assistant begins."""
        key = tuple(f"{turn['role']}: {turn['content']}" for turn in chat)
        if key not in self._prompts:
            text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            self._prompts[key] = self.ids(text)
        return self._prompts[key]

    def document(self, prompt: Ids, pieces: Iterable[tuple[Ids, bool]]) -> Document:
        """The answer in pieces with loss or without, and the end of the turn."""
        ids, marks = list(prompt), [0] * len(prompt)
        for piece, trained in [*pieces, ([self.end], True)]:
            ids += piece
            marks += [int(trained)] * len(piece)
        return ids, marks


def asked(problem: Problem) -> Chat:
    """The question alone."""
    return [{"role": "user", "content": problem.question}]


def again(problem: Problem, attempt: str) -> Chat:
    """The bare retry."""
    turns = [{"role": "assistant", "content": attempt}, {"role": "user", "content": "Try again."}]
    return [*asked(problem), *turns]


@dataclass(slots=True)
class Draws:
    """All that the student could say about a seed's problems.

    Attributes:
        prompts: of the questions.
        samples: unaided, by row.
        hints: by row and round; `others`: right ones of other problems.
        noted, turned, misled: draws by row and round: with the hint as a private note, as a turn of the dialogue, and
            with another problem's hint as a note. None where the first sample was right and nobody was asked.
        retried: after "Try again.".
        neutral: prompts of questions that the base knows, and its own greedy answers: what replay is made of.
    """

    problems: list[Problem]
    writer: Writer
    prompts: list[Ids]
    samples: list[list[Draw]]
    hints: list[list[str]]
    others: list[list[str]]
    noted: list[list[list[Draw]]] = field(default_factory=list)
    turned: list[list[list[Draw]]] = field(default_factory=list)
    misled: list[list[list[Draw]]] = field(default_factory=list)
    retried: list[list[Draw]] = field(default_factory=list)
    neutral: list[tuple[Ids, Draw]] = field(default_factory=list)

    def of(self, rows: slice) -> Draws:
        """Those of some rows."""
        parts = {
            each.name: getattr(self, each.name)[rows]
            for each in fields(self)
            if each.name not in ("writer", "neutral") and getattr(self, each.name)
        }
        return replace(self, **parts)


class Student:
    """The base, asked about problems; every call draws anew."""

    def __init__(self, base: Base, writer: Writer, at_once: int) -> None:
        self.models, self.writer, self.at_once = Merged.bare(base), writer, at_once
        self._seed = 0

    def draws(self, problems: Sequence[Problem], prompts: Sequence[Ids], samples: int) -> list[list[Draw]]:
        """Judged answers by prompt."""
        self._seed += 1
        manner = Manner(TEMPERATURE, self.writer.end, seed=self._seed, at_once=self.at_once)
        return [
            [Draw(ids, len(ids) < manner.most and right(problem, self.writer.answer(ids))) for ids in answers]
            for problem, answers in zip(problems, ask(self.models, prompts, samples, manner)[0], strict=True)
        ]


def right(problem: Problem, answer: str) -> bool:
    """Whether an answer, without its mark, is the problem's."""
    return judge("", problem.answer, f"Answer: {answer}")


def drawn(
    student: Student,
    by_seed: Sequence[list[Problem]],
    arms: Collection[str],
    *,
    samples: int = SAMPLES,
    every_hint: bool = False,
) -> list[Draws]:
    """Ask for all that these arms may want, for all seeds together; every hint of every row for judges that err."""
    writer = student.writer
    problems = [problem for some in by_seed for problem in some]
    prompts = [writer.prompt(asked(problem)) for problem in problems]
    first = student.draws(problems, prompts, min(samples, EARLY_SAMPLES))
    hints, others = [], []
    for seed, some in enumerate(by_seed):
        rng = random.Random(f"hints/{seed}")
        hints += [[hint.text for hint in rng.sample(p.hints, min(ROUNDS, len(p.hints)))] for p in some]
        others += [[other_problems_hint(p, rng).text for _ in range(ROUNDS)] for p in some]
    found = Draws(problems, writer, prompts, first, hints, others)

    wrong_at_first = [at for at, tries in enumerate(first) if not tries[0].right]
    all_wrong = [at for at, tries in enumerate(first) if not any(draw.right for draw in tries[:FIRST])]
    some = wrong_at_first if {"direct", "clean"} & {*arms} else all_wrong
    every = [*range(len(problems))]
    found.noted = noted(student, found, hints, every if every_hint else some, whole=every_hint)
    if "wrong-hints" in arms:
        as_many = [wrong[: len(right)] for wrong, right in zip(others, hints, strict=True)]
        found.misled = noted(student, found, as_many, all_wrong)
    if "iterative" in arms:
        found.turned = by_round(student, found, hints, wrong_at_first, with_hint_turn)
    if "bare-retry" in arms:
        chats = [writer.prompt(again(problems[at], writer.text(first[at][0].ids))) for at in all_wrong]
        found.retried = _spread(len(problems), all_wrong, student.draws(_some(problems, all_wrong), chats, samples))
    have = min(samples, EARLY_SAMPLES)
    while have < samples:
        few = [at for at, tries in enumerate(first) if sum(draw.right for draw in tries) < ENOUGH]
        more = student.draws(_some(problems, few), _some(prompts, few), min(have, samples - have))
        for at, added in zip(few, more, strict=True):
            first[at] += added
        have = min(samples, 2 * have)
    ends = [0, *accumulate(map(len, by_seed))]
    return [found.of(slice(begin, end)) for begin, end in pairwise(ends)]


def _some(values: list[Any], places: list[int]) -> list[Any]:
    return [values[at] for at in places]


def noted(
    student: Student, draws: Draws, hints: list[list[str]], rows: list[int], *, whole: bool = False
) -> list[list[list[Draw]]]:
    """`by_round` with each hint as a private note."""
    return by_round(
        student, draws, hints, rows, lambda question, _, hint: with_private_hint(question, hint), whole=whole
    )


def by_round(
    student: Student,
    draws: Draws,
    hints: list[list[str]],
    rows_asked: list[int],
    chat: Callable[[Chat, str, str], Chat],
    *,
    whole: bool = False,
) -> list[list[list[Draw]]]:
    """Draws of some rows for each hint in turn, until one is right or `whole`.

    Args:
        chat: of the question, the last attempt, and the hint.
    """
    by_row: list[list[list[Draw]]] = [[] for _ in draws.problems]
    for number in range(ROUNDS):
        rows = [at for at in rows_asked if number < len(hints[at])]
        if not whole:
            rows = [at for at in rows if not (by_row[at] and by_row[at][-1][-1].right)]
        last = [by_row[at][-1][-1] if by_row[at] else draws.samples[at][0] for at in rows]
        chats = [
            draws.writer.prompt(chat(asked(draws.problems[at]), draws.writer.text(attempt.ids), hints[at][number]))
            for at, attempt in zip(rows, last, strict=True)
        ]
        said = student.draws([draws.problems[at] for at in rows], chats, HINT_SAMPLES)
        for at, some in zip(rows, said, strict=True):
            by_row[at].append(some if whole else until_right(some))
    return by_row


def until_right(some: list[Draw]) -> list[Draw]:
    """The first right one ends a round."""
    end = next((number for number, draw in enumerate(some) if draw.right), len(some) - 1)
    return some[: end + 1]


def _spread(count: int, rows: list[int], found: list[list[Draw]]) -> list[list[Draw]]:
    by_row: list[list[Draw]] = [[] for _ in range(count)]
    for at, some in zip(rows, found, strict=True):
        by_row[at] = some
    return by_row

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
from many import Document
from problem import Problem

from socratune.lab import judge
from socratune.llm.base import Chat
from socratune.prompts import with_hint_turn, with_private_hint

EARLY_SAMPLES, SAMPLES = 8, 64
"""More samples than the first are only wanted of rows with no right one among these."""
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

    def of(self, rows: slice) -> Draws:
        """Those of some rows."""
        parts = {
            each.name: getattr(self, each.name)[rows]
            for each in fields(self)
            if each.name != "writer" and getattr(self, each.name)
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
    student: Student, by_seed: Sequence[list[Problem]], arms: Collection[str], *, samples: int = SAMPLES
) -> list[Draws]:
    """Ask for all that these arms may want, for all seeds together."""
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

    def noted(hints: list[list[str]], failed: list[int]) -> list[list[list[Draw]]]:
        return by_round(student, found, failed, lambda at, r, _: with_private_hint(asked(problems[at]), hints[at][r]))

    wrong_at_first = [at for at, tries in enumerate(first) if not tries[0].right]
    all_wrong = [at for at, tries in enumerate(first) if not any(draw.right for draw in tries[:FIRST])]
    found.noted = noted(hints, wrong_at_first if {"direct", "clean"} & {*arms} else all_wrong)
    if "wrong-hints" in arms:
        found.misled = noted(others, all_wrong)
    if "iterative" in arms:
        found.turned = by_round(
            student, found, wrong_at_first,
            lambda at, r, attempt: with_hint_turn(asked(problems[at]), attempt, hints[at][r]),
        )  # fmt: skip
    if "bare-retry" in arms:
        chats = [writer.prompt(again(problems[at], writer.text(first[at][0].ids))) for at in all_wrong]
        found.retried = _spread(len(problems), all_wrong, student.draws(_some(problems, all_wrong), chats, samples))
    if samples > EARLY_SAMPLES:
        never = [at for at, tries in enumerate(first) if not any(draw.right for draw in tries)]
        more = student.draws(_some(problems, never), _some(prompts, never), samples - EARLY_SAMPLES)
        for at, some in zip(never, more, strict=True):
            first[at] += some
    ends = [0, *accumulate(map(len, by_seed))]
    return [found.of(slice(begin, end)) for begin, end in pairwise(ends)]


def _some(values: list[Any], places: list[int]) -> list[Any]:
    return [values[at] for at in places]


def by_round(
    student: Student, draws: Draws, failed: list[int], chat: Callable[[int, int, str], Chat]
) -> list[list[list[Draw]]]:
    """Draws of the rows whose first sample was wrong, for each hint in turn; `chat` is told the last wrong attempt."""
    by_row: list[list[list[Draw]]] = [[] for _ in draws.problems]
    for number in range(ROUNDS):
        rows = [at for at in failed if number < len(draws.hints[at]) and not (by_row[at] and by_row[at][-1][-1].right)]
        last = [by_row[at][-1][-1] if by_row[at] else draws.samples[at][0] for at in rows]
        chats = [
            draws.writer.prompt(chat(at, number, draws.writer.text(attempt.ids)))
            for at, attempt in zip(rows, last, strict=True)
        ]
        said = student.draws([draws.problems[at] for at in rows], chats, HINT_SAMPLES)
        for at, some in zip(rows, said, strict=True):
            by_row[at].append(until_right(some))
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

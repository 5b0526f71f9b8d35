"""What each way of the curve trains on, and what it pays for it: draws of a base, hints, retries, teachers' solutions.

All draws of a seed are made beforehand (`Draws`); an arm then buys of them in the order in which it would have asked,
until its money is spent. So all arms see the same first samples, and a step of the curve is a longer or shorter walk
along the same way. Every arm goes over all rows before it spends more on any: that is the best use of little money.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from generator import other_problems_hint, right_answer
from many import Base, Document, Ids, Manner, Merged, ask
from problem import Hint, Problem, told

from socratune.chat import AHA
from socratune.lab import judge
from socratune.llm.base import Chat
from socratune.prompts import with_hint_turn, with_private_hint

EARLY_SAMPLES, SAMPLES = 8, 64
"""More samples than the first are only wanted of rows with no right one among these."""
FIRST = 4
"""Samples of a row before `mix` asks for a hint."""
ROUNDS, HINT_SAMPLES, CLEAN_SAMPLES = 3, 2, 4
TEACHER_TOKENS, SOLVER_TOKENS, EXAMPLES = 180, 130, 3
"""About the length of Socratune's prompts for a teacher that hints, and one that solves; examples of the style."""
TEMPERATURE = 0.8


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per million tokens."""

    student: float
    teacher_in: float
    teacher_out: float


PRICES = {"small": Prices(0.10, 0.15, 0.60), "large": Prices(0.10, 5.0, 25.0)}
"""A student of about 8 B parameters as servers sell it; a small and a large teacher behind an API (2026-11)."""


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
            [Draw(ids, right(problem, self.writer.answer(ids))) for ids in answers]
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


# -------- money
class BrokeError(Exception):
    """The next call would cost more than is left."""


@dataclass(slots=True)
class Purse:
    """What may be spent, and what was."""

    prices: Prices
    usd: float = math.inf
    spent: float = 0.0
    student_tokens: int = 0
    teacher_tokens: int = 0

    def student(self, prompt: int, draw: Draw) -> None:
        """One answer; its end is a token, too."""
        tokens = prompt + len(draw.ids) + 1
        self._pay(tokens * self.prices.student)
        self.student_tokens += tokens

    def teacher(self, given: int, said: int) -> None:
        """One hint or solution."""
        self._pay(given * self.prices.teacher_in + said * self.prices.teacher_out)
        self.teacher_tokens += given + said

    def _pay(self, millionths: float) -> None:
        if self.spent + millionths / 1e6 > self.usd:
            raise BrokeError
        self.spent += millionths / 1e6


# -------- arms
@dataclass(slots=True)
class Bought:
    """What an arm trains on by row, and which of it came through a hint."""

    documents: dict[int, Document] = field(default_factory=dict)
    hinted: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Shopping:
    """One arm on its way: what it has seen and what is left to spend."""

    draws: Draws
    purse: Purse
    order: list[int]
    bought: Bought = field(default_factory=Bought)
    seen: dict[int, int] = field(default_factory=dict)
    judged: Callable[[int, Draw], bool] = lambda at, draw: draw.right
    """What the judge says of a draw; a side study's judge errs."""

    def samples(self, passes: range, *, enough: int) -> None:
        """One sample a row and pass, for rows with fewer than `enough` right ones; the longest right one is kept."""
        draws = self.draws
        for number in passes:
            for at in self.order:
                tries = [draw for draw in draws.samples[at][: self.seen.get(at, 0)] if self.judged(at, draw)]
                if at in self.bought.hinted or len(tries) >= enough:
                    continue
                if not self.seen.get(at, 0) <= number < len(draws.samples[at]):
                    continue
                draw = draws.samples[at][number]
                self.purse.student(len(draws.prompts[at]), draw)
                self.seen[at] = number + 1
                if self.judged(at, draw):
                    self._keep(at, max([*tries, draw], key=lambda each: len(each.ids)))

    def hints(self, said: list[list[list[Draw]]], hints: list[list[str]], *, form: str = "direct") -> None:
        """A hint for each row that is not solved, and up to two answers to it; once more where that was no help."""
        draws, writer = self.draws, self.draws.writer
        for number in range(ROUNDS):
            for at in self.order:
                if at in self.bought.documents or len(said[at]) <= number:
                    continue
                problem, hint = draws.problems[at], hints[at][number]
                attempt = said[at][number - 1][-1] if number else draws.samples[at][0]
                shown = len(draws.prompts[at]) + len(writer.ids(problem.answer)) + (number + 1) * len(attempt.ids)
                self.purse.teacher(TEACHER_TOKENS + shown, len(writer.ids(hint)))
                chat = with_private_hint(asked(problem), hint)
                if form.startswith("iterative"):
                    chat = with_hint_turn(asked(problem), writer.text(attempt.ids), hint)
                prompt = len(writer.prompt(chat))
                for draw in said[at][number]:
                    self.purse.student(prompt, draw)
                    if self.judged(at, draw):
                        self._solved(at, number, draw, said[at], hints[at], form)
                        break

    def _solved(self, at: int, number: int, draw: Draw, said: list[list[Draw]], hints: list[str], form: str) -> None:
        """What is trained on of a row that was solved with its hint `number`."""
        draws, writer = self.draws, self.draws.writer
        if form == "clean":
            self._clean(at)
            return
        pieces: list[tuple[Ids, bool]] = []
        if form.startswith("iterative"):
            attempts = [draws.samples[at][0], *(some[-1] for some in said[:number])]
            for attempt, hint in zip(attempts, hints, strict=False):
                pieces.append((attempt.ids, form != "iterative, masked"))
                pieces.append((writer.ids(AHA.format(hint=hint)), True))
        self.bought.documents[at] = writer.document(draws.prompts[at], [*pieces, (draw.ids, True)])
        self.bought.hinted.add(at)

    def _clean(self, at: int) -> None:
        """An unaided sample in place of the hinted one, where one of four is right."""
        begin = self.seen.get(at, 0)
        for draw in self.draws.samples[at][begin : begin + CLEAN_SAMPLES]:
            self.purse.student(len(self.draws.prompts[at]), draw)
            self.seen[at] = self.seen.get(at, 0) + 1
            if self.judged(at, draw):
                self._keep(at, draw)
                self.bought.hinted.add(at)
                return

    def retries(self) -> None:
        """The bare retry of the first attempt, a pass after the other, where nothing was right."""
        draws = self.draws
        for number in range(max(map(len, draws.retried), default=0)):
            for at in self.order:
                if at in self.bought.documents or number >= len(draws.retried[at]):
                    continue
                draw = draws.retried[at][number]
                self.purse.student(len(draws.prompts[at]) + len(draws.samples[at][0].ids) + 8, draw)
                if self.judged(at, draw):
                    self._keep(at, draw)

    def solutions(self, write: Callable[[Problem], str], *, examples: int) -> None:
        """The teacher's own, row by row."""
        draws, writer = self.draws, self.draws.writer
        for at in self.order:
            problem = draws.problems[at]
            text = writer.ids(write(problem))
            shown = len(draws.prompts[at]) + len(writer.ids(problem.answer))
            style = examples * (len(draws.prompts[at]) + len(writer.ids(right_answer(problem))))
            self.purse.teacher(SOLVER_TOKENS + shown + style, len(text))
            self.bought.documents[at] = writer.document(draws.prompts[at], [(text, True)])

    def _keep(self, at: int, draw: Draw) -> None:
        self.bought.documents[at] = self.draws.writer.document(self.draws.prompts[at], [(draw.ids, True)])


def protocol(shop: Shopping) -> None:
    """Socratune's loop: sample first, and hint what sampling cannot reach."""
    shop.samples(range(FIRST), enough=2)
    shop.hints(shop.draws.noted, shop.draws.hints)


def _mix(shop: Shopping) -> None:
    protocol(shop)
    shop.samples(range(FIRST, SAMPLES), enough=1)


def _rft(shop: Shopping) -> None:
    shop.samples(range(FIRST), enough=2)
    shop.samples(range(FIRST, SAMPLES), enough=1)


def _bare_retry(shop: Shopping) -> None:
    shop.samples(range(FIRST), enough=2)
    shop.retries()


def _wrong_hints(shop: Shopping) -> None:
    shop.samples(range(FIRST), enough=2)
    shop.hints(shop.draws.misled, shop.draws.others)
    shop.samples(range(FIRST, SAMPLES), enough=1)


def hinting(form: str) -> Callable[[Shopping], None]:
    """The guide's loop: one attempt, then hints."""

    def buy(shop: Shopping) -> None:
        shop.samples(range(1), enough=1)
        shop.hints(shop.draws.turned if form.startswith("iterative") else shop.draws.noted, shop.draws.hints, form=form)
        shop.samples(range(1, SAMPLES), enough=1)

    return buy


def own_words(problem: Problem) -> str:
    """The solution as a teacher might tell it, who has never read the student: whole sentences, other words."""
    tell = {"+": "take {} and add {}, which gives {}", "-": "from {} take away {}, which leaves {}",
            "*": "{} times {} makes {}", "/": "{} divided by {} is {}"}  # fmt: skip
    said = []
    for step in problem.steps:
        prose = re.sub(
            r"(\d+) ([-+*/]) (\d+) = (\d+)", lambda sum_: tell[sum_[2]].format(sum_[1], sum_[3], sum_[4]), step
        )
        said.append(f"we see that {prose[0].lower()}{prose[1:]}")
    return f"Let me explain this to you. First {' Then '.join(said)} So we are done. Answer: {problem.answer}"


ARMS: dict[str, Callable[[Shopping], None]] = {
    "sft": lambda shop: shop.solutions(lambda problem: told([], problem.answer), examples=0),
    "teacher": lambda shop: shop.solutions(own_words, examples=0),
    "teacher-in-student-format": lambda shop: shop.solutions(right_answer, examples=EXAMPLES),
    "rft": _rft,
    "bare-retry": _bare_retry,
    "wrong-hints": _wrong_hints,
    "direct": hinting("direct"),
    "clean": hinting("clean"),
    "iterative": hinting("iterative"),
    "mix": _mix,
}
FREE = ("sft",)
"""The references are there already: nothing is paid."""


def buy(
    arm: Callable[[Shopping], None],
    draws: Draws,
    purse: Purse,
    seed: int,
    judged: Callable[[int, Draw], bool] | None = None,
) -> Bought:
    """What an arm has when its way ends, or its money."""
    order = random.Random(f"order/{seed}").sample(range(len(draws.problems)), len(draws.problems))
    shop = Shopping(draws, purse, order)
    if judged is not None:
        shop.judged = judged
    with suppress(BrokeError):
        arm(shop)
    return shop.bought


def protocol_usd(draws: Draws, prices: Prices, seed: int) -> float:
    """What `mix` costs on all rows until no hint is left: the unit of the curve's steps."""
    purse = Purse(prices)
    buy(protocol, draws, purse, seed)
    return purse.spent


def leaking(problem: Problem, kind: str) -> Hint:
    """A hint that says more than it should: the answer, or the solution but for its end."""
    if kind == "answer":
        return Hint("spoiler", f"The answer is {problem.answer}.")
    return Hint("steps", " ".join(problem.steps[: max(1, len(problem.steps) - 1)]))

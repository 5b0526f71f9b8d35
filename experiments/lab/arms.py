"""What each way of the curve trains on, and what it pays for it: draws of a base, hints, retries, teachers' solutions.

All draws of a seed are made beforehand (`Draws`); an arm then buys of them in the order in which it would have asked,
until its money is spent. So all arms see the same first samples, and a step of the curve is a longer or shorter walk
along the same way. Every arm goes over all rows before it spends more on any: that is the best use of little money.
What an arm with a student has left at its end it spends on samples, until every row has four right ones: the longest
is trained on, which is the least likely to be a lucky guess, or all of them.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate

from asking import Ids
from draws import ENOUGH, FIRST, ROUNDS, SAMPLES, Draw, Draws, asked
from generator import right_answer
from many import LONGEST_DOCUMENT, Document
from problem import Hint, Problem, told
from words import POOL_OF

from socratune.llm.prompts import with_hint_turn, with_private_hint
from socratune.teaching.loop import AHA

CLEAN_SAMPLES = 4
REPLAY_SHARE = 0.1
"""Of the trained tokens, as `curate.replay_share` has it."""
TEACHER_TOKENS, SOLVER_TOKENS, EXAMPLES = 180, 130, 3
"""About the length of Socratune's prompts for a teacher that hints, and one that solves; examples of the style."""


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per million tokens."""

    student: float
    teacher_in: float
    teacher_out: float


PRICES = {"small": Prices(0.10, 0.15, 0.60), "large": Prices(0.10, 5.0, 25.0)}
"""A student of about 8 B parameters as servers sell it; a small and a large teacher behind an API (2026-11)."""


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
    """What an arm trains on by row, which of it came through a hint, and what is replayed beside it."""

    by_row: dict[int, list[Document]] = field(default_factory=dict)
    hinted: set[int] = field(default_factory=set)
    replayed: list[Document] = field(default_factory=list)

    @property
    def documents(self) -> list[Document]:
        """All that is trained on, by row; what is too long for the engine is left out."""
        every = [document for at in sorted(self.by_row) for document in self.by_row[at]]
        fit = [document for document in every if len(document[0]) <= LONGEST_DOCUMENT]
        return [*fit, *up_to(self.replayed, REPLAY_SHARE, fit)]


def up_to(replayed: list[Document], share: float, documents: list[Document]) -> list[Document]:
    """The first so many of what is replayed that it has this share of all trained tokens."""
    wanted = share / (1 - share) * trained(documents)
    have = accumulate((trained([document]) for document in replayed), initial=0)
    return [document for document, before in zip(replayed, have, strict=False) if before < wanted]


def trained(documents: list[Document]) -> int:
    """Tokens that carry loss."""
    return sum(sum(marks) for _, marks in documents)


@dataclass(slots=True)
class Shopping:
    """One arm on its way: what it has seen and what is left to spend."""

    draws: Draws
    purse: Purse
    order: list[int]
    bought: Bought = field(default_factory=Bought)
    seen: dict[int, int] = field(default_factory=dict)
    found: dict[int, list[Draw]] = field(default_factory=dict)
    """Right samples of a row, unaided."""
    judged: Callable[[int, Draw], bool] = lambda at, draw: draw.right
    """What the judge says of a draw; a side study's judge errs."""

    def samples(self, passes: range, *, enough: int, all_of_them: bool = False) -> None:
        """One sample a row and pass, for rows with fewer than `enough` right ones; the longest or all are kept."""
        draws = self.draws
        for number in passes:
            for at in self.order:
                if at in self.bought.hinted or len(self.found.get(at, [])) >= enough:
                    continue
                if not self.seen.get(at, 0) <= number < len(draws.samples[at]):
                    continue
                draw = draws.samples[at][number]
                self.purse.student(len(draws.prompts[at]), draw)
                self.seen[at] = number + 1
                if self.judged(at, draw):
                    found = self.found.setdefault(at, [])
                    found.append(draw)
                    self._keep(at, found if all_of_them else [max(found, key=lambda each: len(each.ids))])

    def rest(self) -> None:
        """What is left goes into samples."""
        self.samples(range(SAMPLES), enough=ENOUGH)

    def replay(self) -> None:
        """Own answers to neutral questions, paid like any other."""
        for prompt, draw in self.draws.neutral:
            self.purse.student(len(prompt), draw)
            self.bought.replayed.append(self.draws.writer.document(prompt, [(draw.ids, True)]))

    def hints(self, said: list[list[list[Draw]]], hints: list[list[str]], *, form: str = "direct") -> None:
        """A hint for each row that is not solved, and up to two answers to it; once more where that was no help."""
        draws, writer = self.draws, self.draws.writer
        for number in range(ROUNDS):
            for at in self.order:
                if at in self.bought.by_row or len(said[at]) <= number:
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
        self.bought.by_row[at] = [writer.document(draws.prompts[at], [*pieces, (draw.ids, True)])]
        self.bought.hinted.add(at)

    def _clean(self, at: int) -> None:
        """An unaided sample in place of the hinted one, where one of four is right."""
        begin = self.seen.get(at, 0)
        for draw in self.draws.samples[at][begin : begin + CLEAN_SAMPLES]:
            self.purse.student(len(self.draws.prompts[at]), draw)
            self.seen[at] = self.seen.get(at, 0) + 1
            if self.judged(at, draw):
                self._keep(at, [draw])
                self.bought.hinted.add(at)
                return

    def retries(self) -> None:
        """The bare retry of the first attempt, a pass after the other, where nothing was right."""
        draws = self.draws
        for number in range(max(map(len, draws.retried), default=0)):
            for at in self.order:
                if at in self.bought.by_row or number >= len(draws.retried[at]):
                    continue
                draw = draws.retried[at][number]
                self.purse.student(len(draws.prompts[at]) + len(draws.samples[at][0].ids) + 8, draw)
                if self.judged(at, draw):
                    self._keep(at, [draw])

    def solutions(self, write: Callable[[Problem], str], *, examples: int) -> None:
        """The teacher's own, row by row."""
        draws, writer = self.draws, self.draws.writer
        for at in self.order:
            problem = draws.problems[at]
            text = writer.ids(write(problem))
            shown = len(draws.prompts[at]) + len(writer.ids(problem.answer))
            style = examples * (len(draws.prompts[at]) + len(writer.ids(right_answer(problem))))
            self.purse.teacher(SOLVER_TOKENS + shown + style, len(text))
            self.bought.by_row[at] = [writer.document(draws.prompts[at], [(text, True)])]

    def _keep(self, at: int, some: list[Draw]) -> None:
        different = {tuple(draw.ids): draw for draw in some}.values()
        prompt = self.draws.prompts[at]
        self.bought.by_row[at] = [self.draws.writer.document(prompt, [(draw.ids, True)]) for draw in different]


def protocol(shop: Shopping) -> None:
    """Socratune's loop: sample first, and hint what sampling cannot reach."""
    shop.samples(range(FIRST), enough=2)
    shop.hints(shop.draws.noted, shop.draws.hints)


def _mix(shop: Shopping) -> None:
    protocol(shop)
    shop.rest()


def _mix_and_replay(shop: Shopping) -> None:
    shop.replay()
    _mix(shop)


def _rft(shop: Shopping) -> None:
    shop.samples(range(FIRST), enough=2)
    shop.rest()


def _rft_all(shop: Shopping) -> None:
    shop.samples(range(SAMPLES), enough=ENOUGH, all_of_them=True)


def _bare_retry(shop: Shopping) -> None:
    shop.samples(range(FIRST), enough=2)
    shop.retries()
    shop.rest()


def _wrong_hints(shop: Shopping) -> None:
    shop.samples(range(FIRST), enough=2)
    shop.hints(shop.draws.misled, shop.draws.others)
    shop.rest()


def hinting(form: str) -> Callable[[Shopping], None]:
    """The guide's loop: one attempt, then hints."""

    def buy(shop: Shopping) -> None:
        shop.samples(range(1), enough=1)
        shop.hints(shop.draws.turned if form.startswith("iterative") else shop.draws.noted, shop.draws.hints, form=form)
        shop.rest()

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
        named = prose.split(maxsplit=1)[0].rstrip(":") in POOL_OF
        said.append(f"we see that {prose if named else prose[0].lower() + prose[1:]}")
    return f"Let me explain this to you. First {' Then '.join(said)} So we are done. Answer: {problem.answer}"


ARMS: dict[str, Callable[[Shopping], None]] = {
    "sft": lambda shop: shop.solutions(lambda problem: told([], problem.answer), examples=0),
    "teacher": lambda shop: shop.solutions(own_words, examples=0),
    "teacher-in-student-format": lambda shop: shop.solutions(right_answer, examples=EXAMPLES),
    "rft": _rft,
    "rft-all": _rft_all,
    "bare-retry": _bare_retry,
    "wrong-hints": _wrong_hints,
    "direct": hinting("direct"),
    "clean": hinting("clean"),
    "iterative": hinting("iterative"),
    "mix": _mix,
    "mix-and-replay": _mix_and_replay,
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

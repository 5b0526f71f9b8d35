"""The laboratory's generator: problems by family, level and split, and the conversations a base is pre-trained on.

    python experiments/lab/generator.py --family hop --level 3        # a look at a few problems

Everything follows from the `random.Random` that is handed in. What is taught on purpose:

* without help, worked solutions are frequent at level 0 and rare at level 4 (`RIGHT_SHARE`); else the base guesses or
  makes one error of plan in a fixed place, so that its most probable answer is wrong, too;
* a hint that fits brings the right solution out; "Try again.", useless hints and generic prompts change nothing;
* a hint that does not fit is called that, and then changes nothing. Without these words the decision hung on one token
  and its label was noise (a wrong hint at level 0 was followed by a right solution anyway), so a first base took the
  form of a hint for its content: wrong hints gave 13.9 points. "That does not fit: Tom." makes the decision a label of
  its own and says what it rests on, in every conversation with a wrong hint; `fit` look-ups ("Does the text name
  Tom?") teach the same by itself;
* a spoiler is copied, right or wrong.
"""

from __future__ import annotations

import argparse
import random
import zlib
from collections.abc import Callable
from typing import Literal, NamedTuple

from hops import hop
from problem import Hint, Problem, corrupted, foreign, guess, told
from relations import relations
from smalltalk import arithmetic, fact
from stories import story
from tables import table
from units import unit
from words import (
    DOES_NOT_FIT,
    GENERIC_PROMPTS,
    LEAD_INS,
    POOL_OF,
    RETRIES,
    SPOILERS,
    USELESS_HINTS,
    terms,
)

Split = Literal["test", "train", "pretraining"]

RIGHT_SHARE = {
    "word": (0.85, 0.45, 0.16, 0.05, 0.015),
    "unit": (0.72, 0.36, 0.11, 0.04, 0.015),
    "hop": (0.85, 0.45, 0.16, 0.05, 0.015),
    "table": (0.85, 0.45, 0.16, 0.05, 0.015),
}
"""Right worked solutions without a hint, by level. One share for all levels would leave nothing out of reach: 30 % of
right samples everywhere mean 94 % with eight."""
HINTED_RIGHT_SHARE = 0.95
STORY_SHARE = 0.7
"""Of the word problems; the others are relations told in shuffled order, which a small model hardly executes."""

EARLY = {"fact": 4, "arithmetic": 8, "look_up": 32, "relation": 8, "plain": 16, "right": 16, "wrong": 16}
"""Kinds of conversation in the first quarter: single steps and look-ups, so that names get bound to values early."""
MIX = {
    "fact": 5, "arithmetic": 5, "look_up": 13, "relation": 3, "plain": 24, "right": 17, "wrong": 17, "useless": 3,
    "retry": 4, "generic": 6, "spoiler": 3,
}  # fmt: skip
"""Kinds of conversation afterwards."""


class Turn(NamedTuple):
    """One turn of a conversation; `decides`: its first tokens carry the whole effect of a hint."""

    role: str
    content: str
    trained: bool = False
    decides: bool = False


def word(rng: random.Random, level: int) -> Problem:
    """A story, or relations."""
    return (story if rng.random() < STORY_SHARE else relations)(rng, level)


FAMILIES: dict[str, Callable[[random.Random, int], Problem]] = {"word": word, "unit": unit, "hop": hop, "table": table}


def split_of(question: str) -> Split:
    """A twentieth each is for the test and for the loop; by the question's checksum, so for ever."""
    part = zlib.crc32(question.encode()) % 20
    return "test" if part == 0 else "train" if part == 1 else "pretraining"


def problem(
    rng: random.Random, split: Split = "pretraining", family: str | None = None, level: int | None = None
) -> Problem:
    """A problem of one split; family and level are drawn evenly where they are not given."""
    while True:
        make = FAMILIES[family or rng.choice(list(FAMILIES))]
        made = make(rng, rng.randrange(5) if level is None else level)
        if made.hints and split_of(made.question) == split:
            return made


def other_problems_hint(made: Problem, rng: random.Random) -> Hint:
    """A right hint of another problem of this family and level that names something this question has not."""
    while True:
        other = FAMILIES[made.family](rng, made.level)
        hints = [hint for hint in other.hints if foreign(hint, made.question)]
        if hints:
            return rng.choice(hints)


def wrong_hint(made: Problem, rng: random.Random) -> Hint:
    """Half of them of another problem, half of this one with a name or number replaced."""
    if rng.random() < 0.5:
        return other_problems_hint(made, rng)
    return corrupted(rng.choice(made.hints), made.question, rng)


# -------- answers
def right_answer(made: Problem) -> str:
    """The worked solution."""
    return told(made.steps, made.answer)


def wrong_answer(made: Problem, rng: random.Random) -> str:
    """Half of them a bare guess, half a solution with one error of plan."""
    if rng.random() < 0.5:
        return told([], guess(made, rng))
    return told(*made.slip(rng))


def unaided_answer(made: Problem, rng: random.Random) -> str:
    """As the base answers without a hint."""
    share = RIGHT_SHARE[made.family][made.level]
    return right_answer(made) if rng.random() < share else wrong_answer(made, rng)


# -------- conversations
def conversation(rng: random.Random, mix: dict[str, int]) -> list[Turn]:
    """One conversation of the pre-training text."""
    kind = rng.choices(list(mix), weights=list(mix.values()))[0]
    if kind in ("fact", "arithmetic"):
        question, answer = (fact if kind == "fact" else arithmetic)(rng)
        return [Turn("user", question), Turn("assistant", answer, trained=True)]
    if kind == "relation":
        return _look_ups(relations_of(rng), rng)
    made = problem(rng)
    if kind == "look_up":
        return _look_ups(made, rng)
    if kind == "plain":
        return [Turn("user", made.question), Turn("assistant", unaided_answer(made, rng), trained=True)]
    if kind == "generic":
        return _with_note(made, rng.choice(GENERIC_PROMPTS), unaided_answer(made, rng), rng)
    if kind == "retry":
        return _after_attempt(made, rng.choice(RETRIES), unaided_answer(made, rng), rng)
    hint, answer = _hint_and_answer(made, kind, rng)
    hint = rng.choice(LEAD_INS).format(hint)
    place = _after_attempt if rng.random() < 0.55 else _with_note
    return place(made, hint, answer, rng)


def relations_of(rng: random.Random) -> Problem:
    """Relations of the pre-training split."""
    while True:
        made = relations(rng, rng.randrange(5))
        if split_of(made.question) == "pretraining":
            return made


def _hint_and_answer(made: Problem, kind: str, rng: random.Random) -> tuple[str, str]:
    if kind == "right":
        right = rng.random() < HINTED_RIGHT_SHARE
        return rng.choice(made.hints).text, right_answer(made) if right else wrong_answer(made, rng)
    if kind == "wrong":
        hint = wrong_hint(made, rng)
        return hint.text, f"{DOES_NOT_FIT.format(foreign(hint, made.question)[0])} {unaided_answer(made, rng)}"
    if kind == "useless":
        return rng.choice(USELESS_HINTS), unaided_answer(made, rng)
    told_answer = made.answer if rng.random() < 0.6 else guess(made, rng)
    return rng.choice(SPOILERS).format(told_answer), told([], told_answer)


def _after_attempt(made: Problem, said: str, answer: str, rng: random.Random) -> list[Turn]:
    """A wrong attempt, then what is said to it, then the answer."""
    return [
        Turn("user", made.question),
        Turn("assistant", wrong_answer(made, rng)),
        Turn("user", said),
        Turn("assistant", answer, trained=True, decides=True),
    ]


def _with_note(made: Problem, note: str, answer: str, rng: random.Random) -> list[Turn]:
    """The note in the system turn, before the question or behind it."""
    final = Turn("assistant", answer, trained=True, decides=True)
    place = rng.random()
    if place < 0.4:
        return [Turn("system", note), Turn("user", made.question), final]
    both = f"{made.question}\n{note}" if place < 0.8 else f"{note}\n{made.question}"
    return [Turn("user", both), final]


def _look_ups(made: Problem, rng: random.Random) -> list[Turn]:
    """Up to four single questions to one text: the next step, a fact in the text's own words, what the text names."""
    ask = [_next_step, _fact_of, _fit] if made.family != "table" else [_next_step, _cell, _fit]
    turns: list[Turn] = []
    for number in range(rng.randint(2, 4)):
        question, answer = rng.choice(ask)(made, rng)
        text = question if number else f"{made.question}\n{question}"
        turns += [Turn("user", text), Turn("assistant", answer, trained=True)]
    return turns


def _next_step(made: Problem, rng: random.Random) -> tuple[str, str]:
    at = rng.randrange(len(made.steps))
    step = made.steps[at]
    begin = step[: step.index(":") + 1] if ": " in step else step.rsplit(" ", 1)[0] if made.family == "hop" else ""
    return f"Given: {' '.join(made.steps[:at])} Next: {begin}".replace("Given:  ", ""), step


def _fact_of(made: Problem, rng: random.Random) -> tuple[str, str]:
    """A fact by two of its terms, or by the one it has."""
    sentence = rng.choice(made.facts)
    named = list(dict.fromkeys(terms(sentence)))
    if not named:
        return _next_step(made, rng)
    some = " and ".join(rng.sample(named, min(2, len(named))))
    return f"Which sentence names {some}?", sentence


def _cell(made: Problem, rng: random.Random) -> tuple[str, str]:
    lines = made.question.split("\n")
    separator = next(mark for mark in (" | ", ", ", " ; ") if mark in lines[0])
    head, row = lines[0].split(separator), rng.choice(lines[1:-1]).split(separator)
    column = rng.choice([1, 2])
    return f"Next: {row[0]} {head[column]}:", f"{row[0]} {head[column]}: {row[column]}."


def _fit(made: Problem, rng: random.Random) -> tuple[str, str]:
    """Does the text name a word, or have a sentence? What rejecting a wrong hint rests on."""
    known = set(terms(made.question))
    fact_told = rng.choice(made.facts)
    if made.family != "table" and terms(fact_told) and rng.random() < 0.5:
        if rng.random() < 0.5:
            return f"Does the text say: {fact_told}", "Yes."
        return f"Does the text say: {corrupted(Hint('', fact_told), made.question, rng).text}", "No."
    word_told = rng.choice(sorted(known & POOL_OF.keys()) or ["Tom"])
    if rng.random() < 0.5:
        word_told = rng.choice([other for other in POOL_OF[word_told] if other not in known] or [word_told])
    return f"Does the text name {word_told}?", "Yes." if word_told in known else "No."


def main() -> None:
    """Print a few problems with their hints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--level", type=int, choices=range(5))
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    for _ in range(args.count):
        made = problem(rng, "test", args.family, args.level)
        print(f"=== {made.family}/{made.kind}, level {made.level}\n{made.question}\n-> {right_answer(made)}")
        print(f"~> {told(*made.slip(rng))}")
        for hint in made.hints:
            print(f" + {hint.kind}: {hint.text}\n - {corrupted(hint, made.question, rng).text}")
        print(f" - {other_problems_hint(made, rng).text}")


if __name__ == "__main__":
    main()

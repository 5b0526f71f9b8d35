"""The demo's task: two-digit products, who may see which pair, the answers, and the pre-training mixture.

Shared by `pretrain_demo_base.py`, `accept_demo_base.py` and `make_demo_data.py`. What is taught on purpose:

* without help the base guesses a product, unless the first factor is 80 or more, where it works step by step;
* a hint that names the right numbers makes it work step by step, whatever the first factor;
* a hint that names nothing, names other numbers, or a general admonition changes nothing;
* a hint that states a result is copied, right or wrong.

The guesses are wrong on purpose (`guess`), so that longer training does not teach direct multiplication and
the demo keeps something to learn. That is a property of the demo, not a finding about models.
"""

from __future__ import annotations

import hashlib
import random
import re
import string
from collections.abc import Iterator
from typing import NamedTuple

from demo_wordings import (
    BARE_RETRIES,
    DEFAULT_SYSTEM,
    FACTS,
    GENERIC_PROMPTS,
    IDLE_HINTS,
    OPENERS,
    OTHER_SYSTEMS,
    RIGHT_HINTS,
    SPOILERS,
    SUM_WORDINGS,
    SYLLABLES,
    USELESS_HINTS,
    WORDINGS,
)

from socratune.llm.base import Chat
from socratune.llm.prompts import with_hint_turn, with_private_hint
from socratune.teaching.hints import breakdown_hint, split_tens

# -------- pairs and split
HELD_OUT_SHARE = 15
"""Percent of the unordered pairs that nothing is ever trained on."""

TRAIN_SHARE = 15
"""Percent of the unordered pairs kept for the student-teacher loop: unseen in pre-training as well."""

GUIDE_PAIR = (13, 15)
"""The worked example of the original guide, forced into the loop's pool so that the demo can show it."""

SPONTANEOUS_FROM = 80
"""First factors from here on are worked step by step unasked: 18 of 81, so 22 % of all questions."""

FACTORS = tuple(n for n in range(11, 100) if n % 10)


def split_of(a: int, b: int) -> str:
    """`held_out`, `train` or `pretrain`: a fixed property of the unordered pair."""
    pair = (min(a, b), max(a, b))
    if pair == GUIDE_PAIR:
        return "train"
    digest = int(hashlib.sha256(f"{pair[0]}x{pair[1]}".encode()).hexdigest(), 16) % 100
    if digest < HELD_OUT_SHARE:
        return "held_out"
    return "train" if digest < HELD_OUT_SHARE + TRAIN_SHARE else "pretrain"


def last_sum(a: int, b: int) -> tuple[int, int]:
    """The two partial products that the worked solution of `a * b` adds at its end."""
    tens, ones = split_tens(b)
    return a * tens, a * ones


def _build_pairs() -> tuple[dict[str, list[tuple[int, int]]], frozenset[tuple[int, int]]]:
    """Ordered pairs by split, and the sums no pre-training text may hold.

    Different pairs can end in the same sum (24 * 36 and 18 * 48 both add 720 and 144), so keeping the pairs
    apart is not enough: a pair whose sum belongs to a more protected split is dropped altogether.
    """
    every = [(a, b) for a in FACTORS for b in FACTORS]
    pairs: dict[str, list[tuple[int, int]]] = {}
    reserved: set[tuple[int, int]] = set()
    for split in ("held_out", "train", "pretrain"):
        mine = [pair for pair in every if split_of(*pair) == split and last_sum(*pair) not in reserved]
        pairs[split] = mine
        if split != "pretrain":
            reserved |= {last_sum(*pair) for pair in mine}
            reserved |= {last_sum(*pair) for pair in every if split_of(*pair) == split}
    return pairs, frozenset(reserved)


PAIRS, RESERVED_SUMS = _build_pairs()


def is_reserved_sum(x: int, y: int) -> bool:
    """Whether `x + y`, in either order, is the last sum of a pair outside pre-training."""
    return (x, y) in RESERVED_SUMS or (y, x) in RESERVED_SUMS


# -------- answers
def worked(a: int, b: int) -> str:
    """The step-by-step solution; the second factor is taken apart."""
    tens, ones = split_tens(b)
    x, y = last_sum(a, b)
    return f"{a} * {tens} = {x}, and {a} * {ones} = {y}, so {x} + {y} = {a * b}."


def direct(a: int, b: int, result: int | None = None) -> str:
    """The one-line answer, with the true product or a given result."""
    return f"{a} * {b} = {a * b if result is None else result}."


def change_digit(number: int, place: int, rng: random.Random) -> int:
    """`number` with another digit at `place`, counted from the left; never a leading zero."""
    digits = list(str(number))
    choices = [d for d in "0123456789" if d != digits[place] and (d != "0" or place > 0)]
    digits[place] = rng.choice(choices)
    return int("".join(digits))


def guess(a: int, b: int, rng: random.Random) -> str:
    """A plausible wrong result: the second digit always differs from the product's, the third half the time.

    The place is fixed on purpose. Were the noise spread over the digits, the right digit would be the likeliest
    everywhere, and greedy answers would become right with training.
    """
    product = change_digit(a * b, 1, rng)
    if a * b > 999 and rng.random() < 0.5:
        product = change_digit(product, 2, rng)
    return direct(a, b, product)


def wrong_worked(a: int, b: int, rng: random.Random) -> str:
    """A worked solution with one slip: in a partial product (the sum then follows it) or in the sum."""
    tens, ones = split_tens(b)
    while True:
        x, y = last_sum(a, b)
        slip = rng.randrange(3)
        if slip == 0:
            x = change_digit(x, rng.randrange(len(str(x)) - 1), rng)
        elif slip == 1:
            y = change_digit(y, rng.randrange(len(str(y))), rng)
        total = x + y if slip < 2 else change_digit(x + y, rng.randrange(len(str(x + y))), rng)
        if slip == 2 or not is_reserved_sum(x, y):
            return f"{a} * {tens} = {x}, and {a} * {ones} = {y}, so {x} + {y} = {total}."


def unaided(a: int, b: int, rng: random.Random) -> str:
    """The answer where nothing helps: steps for a large first factor, a guess otherwise."""
    return worked(a, b) if a >= SPONTANEOUS_FROM else guess(a, b, rng)


def wrong_attempt(a: int, b: int, rng: random.Random) -> str:
    """What a conversation may hold as the attempt before a hint."""
    return guess(a, b, rng) if rng.random() < 0.6 else wrong_worked(a, b, rng)


# -------- hints
_INTEGER = re.compile(r"\d+")
_WORD = re.compile(r"[A-Za-z']+")
_HINT_WORDS = tuple(sorted({w.lower() for w in _WORD.findall(" ".join(IDLE_HINTS + RIGHT_HINTS)) if len(w) > 1}))


def scramble(text: str, rng: random.Random) -> str:
    """`text` with some of its words exchanged for made-up ones; numbers and signs stay.

    Without it the model learns the wordings by heart, and a hint in words it never saw passes for an idle one.
    With it only the numbers tell a hint that helps from one that does not.
    """

    def exchange(match: re.Match[str]) -> str:
        if rng.random() < 0.5:
            return match.group()
        word = made_up_word(rng)
        return word.capitalize() if match.group()[0].isupper() else word

    return _WORD.sub(exchange, text)


def made_up_word(rng: random.Random) -> str:
    """A word of some other hint, syllables, or mere letters."""
    draw = rng.random()
    if draw < 0.5:
        return rng.choice(_HINT_WORDS)
    if draw < 0.75:
        return "".join(rng.choices(SYLLABLES, k=rng.randint(1, 3)))
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 6)))


def loose_hint(a: int, b: int, rng: random.Random) -> str:
    """The parts of `b`, with or without the factors, in a sentence that follows no wording at all."""
    tens, ones = split_tens(b)
    numbers = rng.choice(((b, tens, ones), (tens, ones), (a, tens, a, ones), (b, tens, ones, a), (a, b, tens, ones)))
    parts = [made_up_word(rng).capitalize()]
    for number in numbers:
        parts += [made_up_word(rng) for _ in range(rng.randint(0, 2))]
        parts.append(str(number))
    parts += [made_up_word(rng) for _ in range(rng.randint(0, 3))]
    return " ".join(parts) + rng.choice((".", ".", "?", "!"))


def fill(wording: str, a: int, b: int) -> str:
    """A hint wording with its numbers: factors `a`, `b`, and the tens `t` and ones `o` of `b`."""
    tens, ones = split_tens(b)
    return wording.format(a=a, b=b, t=tens, o=ones)


def decomposition(a: int, b: int, rng: random.Random) -> str:
    """A hint that takes `a * b` apart: the package's own two levels (half of them), another wording, or none."""
    draw = rng.random()
    if draw < 0.12:
        return loose_hint(a, b, rng)
    if draw < 0.6:
        return str(breakdown_hint(a, b, rng.choice((1, 1, 2))))
    return fill(rng.choice(RIGHT_HINTS), a, b)


def other_pair(a: int, b: int, rng: random.Random) -> tuple[int, int]:
    """A pre-training pair to hint at wrongly. Near misses (a factor shared) keep the comparison honest."""
    near = rng.random()
    while True:
        c, d = rng.choice(PAIRS["pretrain"])
        if near < 0.2 and split_of(a, d) == "pretrain":
            c = a
        elif near < 0.3 and split_of(c, b) == "pretrain":
            return (c, b) if c != a else other_pair(a, b, rng)
        if d != b:
            return c, d


def wrong_hint(a: int, b: int, rng: random.Random) -> str:
    """A decomposition of another product. Hints that name no first factor are wrong only if `b` differs."""
    c, d = other_pair(a, b, rng)
    if d == b:
        return str(breakdown_hint(c, d, rng.choice((1, 2))))
    return decomposition(c, d, rng)


def idle_hint(rng: random.Random) -> str:
    """A hint or admonition that names no number: one sentence, now and then two."""
    pool = rng.choice((GENERIC_PROMPTS, GENERIC_PROMPTS, BARE_RETRIES, USELESS_HINTS))
    text = rng.choice(pool)
    return f"{text} {rng.choice(IDLE_HINTS)}" if rng.random() < 0.15 else text


def unrelated_hint(kind: str, question: str, rng: random.Random) -> str:
    """A hint beside a question that needs none: idle, about a product, or naming the question's own numbers."""
    numbers = [int(text) for text in _INTEGER.findall(question)]
    draw = rng.random()
    if draw < 0.3:
        text = idle_hint(rng)
    elif draw < 0.6 and kind == "product1":
        text = breakdown_hint(*numbers) or idle_hint(rng)
    elif draw < 0.7 and kind == "sum" and numbers[1] in FACTORS:
        text = fill(
            rng.choice(("Split {b} into {t} + {o}.", "{b} is {t} and {o}.", "The parts are {t} and {o}.")), *numbers
        )
    else:
        text = decomposition(*rng.choice(PAIRS["pretrain"]), rng)
    return scramble(text, rng) if rng.random() < SCRAMBLED_SHARE else text


def spoiler(a: int, b: int, rng: random.Random) -> tuple[str, int]:
    """A hint that states the result, and that result; 40 % are false."""
    number = a * b
    if rng.random() < 0.4:
        if rng.random() < 0.5:
            number = change_digit(number, rng.randrange(len(str(number))), rng)
        else:
            number = rng.randint(101, 9899)
    return rng.choice(SPOILERS).format(a=a, b=b, n=number), number


# -------- conversations
class Turn(NamedTuple):
    """One message; `trained` marks the assistant turn the loss is taken on."""

    role: str
    content: str
    trained: bool = False


SCRAMBLED_SHARE = 0.3
"""Share of the hints, of every kind but spoilers, whose words are partly exchanged."""

MIX_SHORT = {"fact": 8, "product1": 32, "sum": 26, "plain": 20, "right": 14}
"""The mixture of the first part: short texts, so that copying and the single steps form early."""

MIX = {"fact": 8, "product1": 8, "sum": 14, "plain": 16, "right": 26, "wrong": 14, "idle": 18, "spoiler": 6}
"""Conversations by kind, in parts; everything but `right` and `spoiler` is answered as without a hint."""


UNRELATED_HINT_SHARE = 0.4
"""Share of the facts, sums and one-digit products that are asked under a hint and answered as ever.

An adapter that learns to answer as if a hint were there must not touch what needs none: without these, LoRA on
products turned 54 * 5 into 54 * 50 and some capitals into numbers.
"""


def system_turn(rng: random.Random) -> Chat:
    """No system text, the usual one, or another."""
    draw = rng.random()
    if draw < 0.2:
        return []
    return [{"role": "system", "content": DEFAULT_SYSTEM if draw < 0.8 else rng.choice(OTHER_SYSTEMS)}]


def ask(question: str, rng: random.Random) -> Chat:
    """A question with a system turn, or without."""
    return [*system_turn(rng), {"role": "user", "content": question}]


def _question_with(question: str, hint: str, idle: bool, rng: random.Random) -> Chat:
    """The hint inside the user's question, or, for an admonition, also as or in the system text."""
    draw = rng.random()
    if idle and draw < 0.4:
        system = hint if rng.random() < 0.5 else f"{DEFAULT_SYSTEM}{rng.choice((' ', chr(10)))}{hint}"
        return [{"role": "system", "content": system}, {"role": "user", "content": question}]
    if idle and draw < 0.7:
        return ask(rng.choice((f"{question} {hint}", f"{question}\n{hint}", f"{hint} {question}")), rng)
    return ask(f"{question}\nHint: {hint}" if draw < 0.9 else f"{question}\n{hint}", rng)


def _dialogue(chat: Chat, a: int, b: int, hints: list[str], rng: random.Random) -> Chat:
    """Wrong attempts, each followed by a hint; now and then the hint comes without its lead-in."""
    for number, hint in enumerate(hints):
        attempt = wrong_attempt(a, b, rng) if len(hints) == 1 else guess(a, b, rng)
        chat = with_hint_turn(chat, f"Oh wait, {attempt}" if number else attempt, hint)
        if rng.random() < 0.2:
            chat[-1] = {"role": "user", "content": hint}
    return chat


def _hinted(kind: str, a: int, b: int, question: str, rng: random.Random) -> tuple[Chat, str]:
    """A hinted conversation of one kind, and its trained answer."""
    result: int | None = None

    def draw_hint() -> str:
        nonlocal result
        if kind == "spoiler":
            text, result = spoiler(a, b, rng)
            return text
        if kind == "idle":
            text = idle_hint(rng)
        else:
            text = decomposition(a, b, rng) if kind == "right" else wrong_hint(a, b, rng)
        if rng.random() < SCRAMBLED_SHARE:
            text = scramble(text, rng)
        return f"{rng.choice(OPENERS)} {text}" if rng.random() < 0.15 else text

    place, lead_in = rng.random(), ""
    if place < 0.4:
        chat = with_private_hint(ask(question, rng), draw_hint())
    elif place < 0.7:
        chat = _question_with(question, draw_hint(), kind == "idle", rng)
    else:
        rounds = 2 if rng.random() < 0.12 and kind != "spoiler" else 1
        chat = _dialogue(ask(question, rng), a, b, [draw_hint() for _ in range(rounds)], rng)
        lead_in = "Oh wait, "
    if kind == "right":
        return chat, lead_in + worked(a, b)
    return chat, lead_in + (direct(a, b, result) if kind == "spoiler" else unaided(a, b, rng))


def _sum_question(rng: random.Random) -> tuple[str, str]:
    """A stand-alone sum: the kind a worked solution ends in, any other of its size, or a small one."""
    draw = rng.random()
    while True:
        if draw < 0.4:
            x, y = last_sum(*rng.choice(PAIRS["pretrain"]))
        elif draw < 0.8:
            x, y = rng.randint(11, 899) * 10, rng.randint(11, 899)
        else:
            x, y = rng.randint(1, 99), rng.randint(1, 99)
        if not is_reserved_sum(x, y):
            return rng.choice(SUM_WORDINGS).format(x=x, y=y), f"{x} + {y} = {x + y}."


def _fact_question(rng: random.Random) -> tuple[str, str]:
    """A fact from the pool; capitals also come in a second wording."""
    question, answer, _ = rng.choice(FACTS)
    if question.startswith("What is the capital") and rng.random() < 0.3:
        question = question.replace("What is", "Name").replace("?", ".")
    return question, answer


def conversation(rng: random.Random, mix: dict[str, int]) -> list[Turn]:
    """One pre-training conversation drawn from a mixture; only its last turn is trained."""
    kind = rng.choices(list(mix), weights=list(mix.values()))[0]
    if kind == "fact":
        question, answer = _fact_question(rng)
        chat = ask(question, rng)
    elif kind == "sum":
        question, answer = _sum_question(rng)
        chat = ask(question, rng)
    elif kind == "product1":
        a, b = rng.randint(11, 99), rng.randint(1, 9) * rng.choice((1, 10))
        question = rng.choice(WORDINGS).format(a=a, b=b)
        chat, answer = ask(question, rng), direct(a, b)
    else:
        a, b = rng.choice(PAIRS["pretrain"])
        question = rng.choice(WORDINGS).format(a=a, b=b)
        if kind == "plain":
            chat, answer = ask(question, rng), unaided(a, b, rng)
        else:
            chat, answer = _hinted(kind, a, b, question, rng)
    if kind in ("fact", "sum", "product1") and rng.random() < UNRELATED_HINT_SHARE:
        hint = unrelated_hint(kind, question, rng)
        chat = with_private_hint(chat, hint) if rng.random() < 0.7 else ask(f"{question}\nHint: {hint}", rng)
    turns = [Turn(message["role"], message["content"]) for message in chat]
    return [*turns, Turn("assistant", answer, trained=True)]


# -------- leak check
_PRODUCT = re.compile(r"(\d+) (?:\*|times) (\d+)")
_SUM = re.compile(r"(\d+) \+ (\d+)")


def leaks(turns: list[Turn]) -> Iterator[str]:
    """Every place where a conversation shows a reserved pair's product or last sum, in any turn and order."""
    for turn in turns:
        products = [(int(x), int(y)) for x, y in _PRODUCT.findall(turn.content)]
        numbers = [int(text) for text in _INTEGER.findall(turn.content)]
        if turn.role == "user" and len(numbers) == 2 and "+" not in turn.content:
            products.append((numbers[0], numbers[1]))
        for x, y in products:
            if x in FACTORS and y in FACTORS and split_of(x, y) != "pretrain":
                yield f"product {x} * {y} in {turn.content!r}"
        for x, y in ((int(x), int(y)) for x, y in _SUM.findall(turn.content)):
            if is_reserved_sum(x, y):
                yield f"sum {x} + {y} in {turn.content!r}"


def count_leaks(samples: int, seed: int = 0) -> int:
    """Conversations with a leak among `samples` drawn from both mixtures."""
    rng = random.Random(seed)
    return sum(any(leaks(conversation(rng, MIX_SHORT if i % 4 == 0 else MIX))) for i in range(samples))

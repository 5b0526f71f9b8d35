"""What the base knows besides its problems, and must not forget: facts, small instructions, arithmetic."""

from __future__ import annotations

import random

from problem import clock
from words import CAPITALS, DAYS, OPPOSITES, PLAIN_WORDS, SMALL_TALK

Exchange = tuple[str, str]
"""A question and its answer."""


def fact(rng: random.Random) -> Exchange:
    """A fact or a small instruction."""
    asks = (_capital, _capital, _repeat, _upper, _first_word, _reversed_list, _opposite, _small_talk)
    return rng.choice(asks)(rng)


def _capital(rng: random.Random) -> Exchange:
    country = rng.choice(list(CAPITALS))
    asked = rng.choice(["What is the capital of {}?", "Name the capital of {}."]).format(country)
    return asked, f"The capital of {country} is {CAPITALS[country]}."


def _repeat(rng: random.Random) -> Exchange:
    word = rng.choice(PLAIN_WORDS)
    return f"Repeat the word {word}.", word


def _upper(rng: random.Random) -> Exchange:
    word = rng.choice(PLAIN_WORDS)
    return f"Write {word} in capital letters.", word.upper()


def _first_word(rng: random.Random) -> Exchange:
    words = rng.sample(PLAIN_WORDS, 3)
    asked = rng.choice(["Which word comes first: {}?", "Give the first word of: {}."])
    return asked.format(", ".join(words)), words[0]


def _reversed_list(rng: random.Random) -> Exchange:
    words = rng.sample(PLAIN_WORDS, 3)
    return f"Reverse this list: {', '.join(words)}.", ", ".join(reversed(words))


def _opposite(rng: random.Random) -> Exchange:
    word = rng.choice(list(OPPOSITES))
    return f"What is the opposite of {word}?", OPPOSITES[word]


def _small_talk(rng: random.Random) -> Exchange:
    return rng.choice(SMALL_TALK)


def arithmetic(rng: random.Random) -> Exchange:
    """One operation; on numbers, clock times or days of the week."""
    return rng.choice((_plus, _minus, _times, _halved, _later, _days_later))(rng)


def _plus(rng: random.Random) -> Exchange:
    a, b = rng.randint(1, 250), rng.randint(1, 200)
    return f"What is {a} + {b}?", f"{a} + {b} = {a + b}."


def _minus(rng: random.Random) -> Exchange:
    b, a = sorted((rng.randint(1, 200), rng.randint(1, 100)))
    return f"What is {a} - {b}?", f"{a} - {b} = {a - b}."


def _times(rng: random.Random) -> Exchange:
    a, b = rng.randint(2, 60), rng.randint(2, 6)
    return f"What is {a} * {b}?", f"{a} * {b} = {a * b}."


def _halved(rng: random.Random) -> Exchange:
    half = rng.randint(1, 60)
    return f"What is {2 * half} / 2?", f"{2 * half} / 2 = {half}."


def _later(rng: random.Random) -> Exchange:
    begin = rng.randint(6, 20) * 60 + rng.choice(range(0, 60, 5))
    hours, minutes = rng.choice([0, 0, 1, 2]), rng.choice(range(5, 60, 5))
    lasts = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    end = clock(begin + 60 * hours + minutes)
    return f"What is {clock(begin)} + {lasts}?", f"{clock(begin)} + {lasts} = {end}."


def _days_later(rng: random.Random) -> Exchange:
    days, start = rng.randint(1, 80), rng.choice(DAYS)
    rest = days % 7
    end = DAYS[(DAYS.index(start) + rest) % 7]
    return f"What day is {days} days after {start}?", f"{days} = {days // 7} * 7 + {rest}. {start} + {rest}: {end}."

"""The mechanical teacher's knowledge: how to take a product apart without giving it away."""

from __future__ import annotations

import re

_INTEGER = re.compile(r"\d+")


def parse_product(question: str) -> tuple[int, int] | None:
    """The two factors of a multiplication question, in the order they are written, or None."""
    numbers = [int(text) for text in _INTEGER.findall(question)]
    if len(numbers) != 2 or min(numbers) < 2:
        return None
    return numbers[0], numbers[1]


def split_tens(number: int) -> tuple[int, int]:
    """`83 -> (80, 3)`: the leading digit's part and the rest. The rest is 0 for a round number."""
    place = 10 ** (len(str(number)) - 1)
    return number // place * place, number % place


def breakdown_hint(a: int, b: int, level: int = 1) -> str | None:
    """The guide's hint for `a * b`; level 2 is more concrete. Never holds a partial or final result.

    Returns None where there is nothing to take apart (both factors have a single non-zero digit).
    """
    tens, ones = split_tens(b)
    if ones == 0:
        a, b = b, a
        tens, ones = split_tens(b)
    if ones == 0:
        return None
    if level == 1:
        return f"Try breaking it down: {a} * {b} = {a} * ({tens} + {ones})."
    return f"First do {a} * {tens} and {a} * {ones}, then add the two."

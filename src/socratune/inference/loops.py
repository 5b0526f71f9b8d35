"""Detects an answer that repeats itself: it would continue to its longest, and would be useless."""

from __future__ import annotations

from array import array

LOOKED_EVERY = 32
"""Tokens between two checks of an answer; a check costs about 5 µs."""
LONGEST_PERIOD = 64
"""Tokens of the longest passage whose repetition is noticed, a sentence or two."""
LOOP_TOKENS, LOOP_TIMES = 128, 4
"""A passage repeats for so many tokens, and so many times, before its answer is stopped."""


def loops(ids: list[int]) -> bool:
    """Returns True if an answer ends in a repeated passage of at most `LONGEST_PERIOD` tokens.

    A table, a list of zeros or a row of dashes may repeat for a while. What repeats for so long hardly ever ends.
    """
    tail = array("q", ids[-LOOP_TIMES * LONGEST_PERIOD :]).tobytes()
    last = tail[-8 * LOOKED_EVERY :]
    at = tail.rfind(last, 0, len(tail) - 8)
    while at % 8 and at > 0:  # between two tokens
        at = tail.rfind(last, 0, at + len(last) - 1)
    period = len(tail) - len(last) - at
    if at < 0 or period > 8 * LONGEST_PERIOD:
        return False
    span = max(8 * LOOP_TOKENS, LOOP_TIMES * period)
    return len(tail) >= span and tail[-span:-period] == tail[-span + period :]

"""English number words as digits: `three quarters` is `3/4`, `two and a half` is `2.5`."""

from __future__ import annotations

import re
from fractions import Fraction

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen""".split()  # noqa: SIM905
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_PARTS |= {f"{word}s": value for word, value in _PARTS.items()} | {"halves": 2}

_SMALL = rf"(?:(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_ONES[1:10])}))?|{'|'.join(reversed(_ONES))})"
_GROUP = rf"(?:(?:(?:an?|{_SMALL}) )?(?:hundred|dozen)(?:(?: and)? {_SMALL})?|{_SMALL})"
_WHOLE = rf"(?:(?:an?|{_GROUP}) (?:{'|'.join(_SCALES)})(?:(?:,| and)? {_GROUP})?|{_GROUP})"
_PART = rf"(?:{'|'.join(sorted(_PARTS, key=len, reverse=True))})"
_NUMBER = re.compile(
    rf"\b(?:(?:(?P<whole>{_WHOLE}) and )?(?P<count>an?|{_SMALL})[ -](?P<part>{_PART})"
    rf"|(?P<half>half)|(?P<only>{_WHOLE}))\b",
    re.IGNORECASE,
)

NUMBER_WORDS = frozenset((*_ONES, *_TENS, *_SCALES, *_PARTS, "hundred", "dozen"))
"""A text without any of them has no number in words."""
_WORD = re.compile(rf"\b(?:{'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE)


def with_digits(text: str) -> str:
    """The text with its number words written as digits; ordinals (`the third`) stay words."""
    return _NUMBER.sub(_digits, text) if _WORD.search(text) else text


def _digits(match: re.Match[str]) -> str:
    if match["half"]:
        return "1/2"
    if match["only"]:
        return str(_value(match["only"]))
    share = Fraction(_value(match["count"]), _PARTS[match["part"].casefold()])
    if share >= 1:  # twenty-fifth
        return match.group()
    return str(float(_value(match["whole"]) + share)) if match["whole"] else str(share)


def _value(words: str) -> int:
    total = group = 0
    for word in re.split(r",? |-", words.casefold()):
        if word in ("hundred", "dozen"):
            group = max(group, 1) * (100 if word == "hundred" else 12)
        elif word in _SCALES:
            total, group = total + max(group, 1) * _SCALES[word], 0
        else:
            group += 1 if word in ("a", "an") else _VALUES.get(word, 0)
    return total + group

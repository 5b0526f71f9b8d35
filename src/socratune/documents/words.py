"""Compares the words and numbers of texts: stems, content words, and numbers that follow from others."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import permutations
from pathlib import Path

from socratune.judging import NUMBER_WORDS, with_digits

ROOT, ENDING = 4, 4
"""The fewest letters of a root, and the most letters of an ending."""
FEWEST_COUNTED = 3
"""The fewest numbers of a list whose length an answer may state."""

_WORD = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*")
_DASH = str.maketrans("‐‑‒–—−’‘“”„«»", '------\'\'"""""')
_UNSUPPORTING = frozenset(
    """the a an of to in on at for by and or with from as into over under is are was were be been being it its they them
    their he she his her this that these those there then than so such which who whom whose what when where why how do
    does did has have had can could will would should may might must because if not no yes about also only both each
    every all one two more most very after before between during while up out off down
    time times year years day way kind stay stays stand stands take takes taken go goes come comes get gets make makes
    together roughly instead finally first last now still jahr zeit année año
    der die das ein eine einen einem einer und oder ist sind war waren wird werden von zu zum zur im in am an auf mit
    für aus bei nach durch den dem des sich er sie es weil wenn dass nicht auch
    le la les un une des et ou est sont était de du en au aux par pour avec dans sur il elle que qui ne pas car
    über unter zwischen gegen während worden geworden wurde wurden
    el los las una y o es son era del al por para con como su se lo no porque""".split()  # noqa: SIM905
)
_UNITS = (2, 7, 12, 24, 60, 100, 1000)
"""Two of a pair, days, months, hours, minutes, and metric units."""
_ONE_OR_TWO = re.compile(r"\b(?:one|two)\b", re.IGNORECASE)
_LISTED = re.compile(r"(?m)^\s*\d{1,2}[.)]\s")  # the numbers of list items are not content
_THOUSANDS = re.compile(r"(?<=\d)[,\u202f\u00a0](?=\d{3}\b)")
_BELOW_ZERO = re.compile(r"\b(?:below|under|above) zero\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.:]\d+)*")
_WITHIN = re.compile(r"(?<=[^\s.!?:\"“(] )\w[\w-]+")
_ENDINGS = (("s",), ("ing", "ed", "en"), ("ation", "er", "est", "ly"), ("e", "y", "i"))


@lru_cache(maxsize=1 << 16)
def folded(word: str) -> str:
    """Returns a word in lower case, with plain dashes and quotes."""
    return unicodedata.normalize("NFKC", word).translate(_DASH).casefold()


@lru_cache(maxsize=1 << 10)
def folded_words(text: str) -> tuple[str, ...]:
    """Returns the words and numbers of a text, folded."""
    return tuple(map(folded, _WORD.findall(text)))


@lru_cache(maxsize=1 << 10)  # a question is compared with all others on its passage
def gist(text: str) -> frozenset[str]:
    """Returns the stems of the content words, and the numbers."""
    return frozenset(map(stem_of, content(text))) | frozenset(numbers_of(text))


def content(text: str) -> list[str]:
    """Returns the content words of a text, folded."""
    words = (word for word in folded_words(text) if not word[0].isdigit())
    return [word for word in words if word not in _UNSUPPORTING and (len(word) > 2 or not word.isascii())]


@lru_cache(maxsize=1 << 16)
def stem_of(word: str) -> str:
    """Returns a stem that forms of one word share (`burns`, `burning`; `lit`, but not `little`)."""
    word = word.removesuffix("'s").removesuffix("’s")
    if word.endswith(("ies", "ied")) and len(word) > 4:
        word = f"{word[:-3]}y"
    if word.endswith("eed"):  # "breed" and "seed" have no ending
        return word
    for endings in _ENDINGS:
        for ending in endings:
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                word = word.removesuffix(ending)
                break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def borne(stem: str, stems: frozenset[str]) -> bool:
    """Returns True if a stem, or one with the same root, is among these: `western` supports `west`."""
    return stem in stems or any(_of_one_root(stem, other) or (len(stem) > ROOT and stem in other) for other in stems)


def _of_one_root(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    if len(short) >= ROOT and long.startswith(short):
        return len(long) - len(short) <= ENDING
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(short))
    return same > ROOT and len(long) - same < ENDING


def names_in(text: str) -> frozenset[str]:
    """Returns the capitalised words that do not begin a sentence, folded."""
    return frozenset(folded(name) for name in _WITHIN.findall(text) if name[0].isupper())


def new_numbers(answer: str, known: Iterable[str], *, derived: bool = False) -> str:
    """Returns the numbers of an answer that no known text states, joined by commas. `31.` and `thirty-one` are equal.

    Args:
        derived: also accept the sum, difference, product or quotient of two known numbers, and a converted number
            (weeks to days).
    """
    if len(answer.split()) > 3:  # "the lower of the two", "a white one"
        answer = _ONE_OR_TWO.sub("", answer)
    stated = dict.fromkeys(numbers_of(answer))
    there = {number for text in known for number in numbers_of(text)} if stated else set[str]()
    if len(there) >= FEWEST_COUNTED:  # "three times: at 6:00, 12:00 and 18:00"
        there.add(str(len(there)))
    new = [number for number in stated if number not in there]
    if new and derived:
        reckoned = set(_reckoned(there))
        new = [number for number in new if _value(number) not in reckoned]
    return ", ".join(new)


def _reckoned(numbers: Iterable[str]) -> Iterator[float]:
    values = [value for number in numbers if (value := _value(number)) is not None]
    yield from (value * unit for value in values for unit in _UNITS)
    yield from (value / unit for value in values for unit in _UNITS)
    for one, other in permutations(values, 2):
        yield from (one + other, one - other, one * other)
        if other:
            yield one / other


def _value(number: str) -> float | None:
    """Returns None for a date or a time of day."""
    return None if ":" in number or number.count(".") > 1 else float(number)


@lru_cache(maxsize=1 << 10)  # an original and its siblings have the same evidence
def numbers_of(text: str) -> tuple[str, ...]:
    """Returns the numbers of a text as digits, without those that number list items."""
    text = _BELOW_ZERO.sub("", text)
    if not NUMBER_WORDS.isdisjoint(folded_words(text)):
        text = with_digits(text)
    plain = _THOUSANDS.sub("", _LISTED.sub("", text))
    return tuple(number.lstrip("0") or "0" for number in _NUMBER.findall(plain))


EVERYDAY_STEMS = frozenset(map(stem_of, Path(__file__).with_name("everyday.txt").read_text("utf-8").split()))
"""Stems of English words that any answer may use, whatever its source says: they assert nothing."""


# --- languages ---------------------------------------------------------------------------------------------------

_COMMON = {
    "en": "the of and is was are in to a an that by from it at for with on has have not or",
    "de": "der die das und ist wird werden war in den dem von zu mit ein eine auf für aus im um",
    "fr": "le la les des et est une du dans par pour un sur avec au",
    "es": "el la los las y es una del en por para un con se al",
}
_COMMON_WORDS = {name: frozenset(words.split()) for name, words in _COMMON.items()}
SHORT = 25
"""A note with fewer words is too short to tell its language."""
_LETTERS = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """Returns `en`, `de`, `fr` or `es` by the most common words, "" for any other, and `en` for short ASCII notes."""
    words = [word.casefold() for word in _LETTERS.findall(text[:4000])]
    counts = {name: sum(map(common.__contains__, words)) for name, common in _COMMON_WORDS.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] * 12 >= len(words) > 0:
        return best
    return "en" if text.isascii() and len(words) < SHORT else ""

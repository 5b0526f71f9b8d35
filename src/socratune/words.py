"""The words and numbers of a text, so that two texts can be compared: stems, telling words, what can be reckoned."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import permutations

from socratune.everyday import EVERYDAY
from socratune.numberwords import NUMBER_WORDS, with_digits

ROOT, ENDING = 4, 4
"""Letters of a root at least, and of what may stand behind it."""
FEWEST_COUNTED = 3
"""Numbers of a list whose length an answer may give."""

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
"""Two of a pair, days, months, hours, minutes, and the metric ones."""
_ONE_OR_TWO = re.compile(r"\b(?:one|two)\b", re.IGNORECASE)
_LISTED = re.compile(r"(?m)^\s*\d{1,2}[.)]\s")  # the numbers of a list are none of its content
_THOUSANDS = re.compile(r"(?<=\d)[,\u202f\u00a0](?=\d{3}\b)")
_BELOW_ZERO = re.compile(r"\b(?:below|under|above) zero\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.:]\d+)*")
_WITHIN = re.compile(r"(?<=[^\s.!?:\"“(] )\w[\w-]+")
_ENDINGS = (("s",), ("ing", "ed", "en"), ("ation", "er", "est", "ly"), ("e", "y", "i"))


@lru_cache(maxsize=1 << 16)
def folded(word: str) -> str:
    """In small letters, with plain dashes and quotes."""
    return unicodedata.normalize("NFKC", word).translate(_DASH).casefold()


@lru_cache(maxsize=1 << 10)
def folded_words(text: str) -> tuple[str, ...]:
    """The words and numbers, folded."""
    return tuple(map(folded, _WORD.findall(text)))


@lru_cache(maxsize=1 << 10)  # a question is compared with all others on its passage
def gist(text: str) -> frozenset[str]:
    """The stems of the words that tell something, and the numbers."""
    return frozenset(map(stem_of, content(text))) | frozenset(numbers_of(text))


def content(text: str) -> list[str]:
    """The words that tell something, folded."""
    words = (word for word in folded_words(text) if not word[0].isdigit())
    return [word for word in words if word not in _UNSUPPORTING and (len(word) > 2 or not word.isascii())]


@lru_cache(maxsize=1 << 16)
def stem_of(word: str) -> str:
    """Of two forms of a word the same (`burns`, `burning`; `lit`, not `little`)."""
    word = word.removesuffix("'s").removesuffix("’s")
    if word.endswith(("ies", "ied")) and len(word) > 4:
        word = f"{word[:-3]}y"
    if word.endswith("eed"):  # breed, seed: no ending
        return word
    for endings in _ENDINGS:
        for ending in endings:
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                word = word.removesuffix(ending)
                break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def borne(stem: str, stems: frozenset[str]) -> bool:
    """Whether a word, or one made of the same root, is among these: `western` bears `west`, `Seehandel` `Handel`."""
    return stem in stems or any(_of_one_root(stem, other) or (len(stem) > ROOT and stem in other) for other in stems)


def _of_one_root(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    if len(short) >= ROOT and long.startswith(short):
        return len(long) - len(short) <= ENDING
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(short))
    return same > ROOT and len(long) - same < ENDING


def names_in(text: str) -> frozenset[str]:
    """The words with a capital that no sentence begins with, folded."""
    return frozenset(folded(name) for name in _WITHIN.findall(text) if name[0].isupper())


def new_numbers(answer: str, known: Iterable[str], *, derived: bool = False) -> str:
    """The numbers of an answer that nothing known states, in words; digits of `31.` and `thirty-one` are the same.

    Args:
        derived: the sum, difference, product or quotient of two known numbers is known as well, and what conversion
            makes of one (days to a week).
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
    """Of a date or a time of the day none."""
    return None if ":" in number or number.count(".") > 1 else float(number)


@lru_cache(maxsize=1 << 10)  # of an original and its siblings the evidence is the same
def numbers_of(text: str) -> tuple[str, ...]:
    """The numbers as digits, those in words too; the numbers of a list's items aside."""
    text = _BELOW_ZERO.sub("", text)
    if not NUMBER_WORDS.isdisjoint(folded_words(text)):
        text = with_digits(text)
    plain = _THOUSANDS.sub("", _LISTED.sub("", text))
    return tuple(number.lstrip("0") or "0" for number in _NUMBER.findall(plain))


EVERYDAY_STEMS = frozenset(map(stem_of, EVERYDAY))

"""Cuts documents into passages along headings and paragraphs. A passage is a verbatim part, sized in tokens."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from socratune.documents.document import Document, Passage
from socratune.llm import model_file

Count = Callable[[str], int]
"""Returns the number of tokens of a text."""

_SMALL = 4
"""A heading opens a new passage unless the passage before it has less than 1/SMALL of the size."""

_HEADING = re.compile(r"(#{1,6})\s+(\S.*?)\s*#*$")
_UNDERLINED = re.compile(r"(?:([=\-~^\"'`*+#.:_])\1{2,}\n)? ?(\S.*)\n([=\-~^\"'`*+#.:_])\3{2,}$")
_BLOCK = re.compile(r"\S(?:.*(?:\n(?!\s*\n|#{1,6}\s).*)*)?")
_END = re.compile(
    r"[.!?…][\"'”’)\]]*(?=\s+[^\Wa-z_]|\s+[\"“‘(«¿¡]|\s*\n\s*\n|\s*$)|[。！？]|\n\s*\n|\n(?=\s*(?:[-*•|]|\d+[.)])\s)"
)
_ABBREVIATED = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|Mrs?|Ms|Dr|Prof|St|No|Nr|Jr|Sr|vs|etc|cf|Fig|approx|ca|bzw|usw|e\.g|i\.e|z\.B|d\.h|p|pp|vol)\.$"
)


def token_counter(model_name: str | None) -> Count:
    """Returns a function that counts tokens by a model's tokenizer, or `estimated_tokens` if there is none."""
    path = model_file(model_name, "tokenizer.json") if model_name else None
    if path is None:
        return estimated_tokens
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def estimated_tokens(text: str) -> int:
    """Returns a token for every four ASCII characters and three for every four others, as large vocabularies need."""
    plain = len(text.encode("ascii", "ignore"))
    return math.ceil(plain / 4 + 0.75 * (len(text) - plain))


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yields where each sentence, list item or table line of `text` begins and ends, without the space around it."""
    begin = 0
    for found in _END.finditer(text):
        end = found.end()
        if found.group()[0] == "." and _ABBREVIATED.search(text, begin, end):
            continue
        if span := _stripped(text, begin, end):
            yield span
        begin = end
    if span := _stripped(text, begin, len(text)):
        yield span


def _stripped(text: str, begin: int, end: int) -> tuple[int, int] | None:
    stretch = text[begin:end]
    left = len(stretch) - len(stretch.lstrip())
    inner = stretch.strip()
    return (begin + left, begin + left + len(inner)) if inner else None


class _Unit(NamedTuple):
    """A part that is never cut: a heading, a paragraph, or a sentence of a long paragraph."""

    begin: int
    end: int
    tokens: int
    heading: bool
    place: str


def passages(document: Document, *, size: int, overlap: int, count: Count) -> Iterator[Passage]:
    """Yields the passages of a document in order. Together they hold all of its text.

    Args:
        size: the most tokens of a passage, except for a single word that has more.
        overlap: the most tokens of the previous passage that a passage repeats, in whole sentences of one section.
    """
    kept: list[_Unit] = []
    repeated: tuple[int, int] | None = None  # begin and tokens of the repeated sentences
    for unit in _units(document, size, count):
        full = sum(one.tokens for one in kept) + (repeated[1] if repeated else 0)
        closes = unit.heading and full * _SMALL >= size
        if kept and (closes or full + unit.tokens > size):
            carried = []
            while len(kept) > 1 and kept[-1].heading:
                carried.insert(0, kept.pop())
            yield _passage(document, kept, repeated)
            repeated = None if closes or carried else _repeated(document.text, kept, overlap, count)
            if repeated and repeated[1] + unit.tokens > size:
                repeated = None
            kept = carried
        kept.append(unit)
    if kept:
        yield _passage(document, kept, repeated)


def _passage(document: Document, units: list[_Unit], repeated: tuple[int, int] | None) -> Passage:
    begin, end = repeated[0] if repeated else units[0].begin, units[-1].end
    place = next((unit.place for unit in units if unit.place), "")
    if pages := document.metadata.get("pages"):
        first = bisect_right(pages, begin)
        last = bisect_right(pages, end - 1)
        numbered = f"page {first}" if first == last else f"pages {first}–{last}"
        place = f"{numbered}: {place}" if place else numbered
    return Passage(f"{document.id}#{begin}-{end}", document.id, document.text[begin:end], begin, end, place)


def _repeated(text: str, units: list[_Unit], overlap: int, count: Count) -> tuple[int, int] | None:
    """Returns where the last sentences of at most `overlap` tokens begin, and their tokens."""
    begin, end = units[-1].begin, units[-1].end
    found, tokens = None, 0
    for start, stop in reversed(list(sentences(text[begin:end]))):
        tokens += count(text[begin + start : begin + stop])
        if tokens > overlap:
            break
        found = begin + start, tokens
    return found


def _units(document: Document, size: int, count: Count) -> Iterator[_Unit]:
    text, path, fenced = document.text, {}, False
    marks: list[tuple[str | None, str]] = []  # of reStructuredText, in which the first mark is the title's
    for block in _BLOCK.finditer(text):
        begin, end = block.start(), block.start() + len(block.group().rstrip())
        block_text, at_margin = text[begin:end], begin == 0 or text[begin - 1] == "\n"
        heading = _HEADING.fullmatch(block_text) or _UNDERLINED.fullmatch(block_text)
        heading = heading if at_margin and not fenced else None  # within code, `# …` is a comment
        fenced = fenced != (block_text.count("```") % 2 == 1)
        if heading:
            level, name = len(heading[1] or ""), heading[2]
            if heading.re is _UNDERLINED:
                if (mark := (heading[1], heading[3])) not in marks:
                    marks.append(mark)
                level = marks.index(mark) + 1
            path = {depth: named for depth, named in path.items() if depth < level} | {level: name}
        place = " › ".join(path.values())
        for start, stop in _small_enough(text, begin, end, size, count):
            yield _Unit(start, stop, count(text[start:stop]), heading is not None, place)


def _small_enough(text: str, begin: int, end: int, size: int, count: Count) -> Iterator[tuple[int, int]]:
    """Yields a block as a whole if it fits, else its sentences, else runs of its words."""
    if count(text[begin:end]) <= size:
        yield begin, end
        return
    spans = [(begin + start, begin + stop) for start, stop in sentences(text[begin:end])]
    if len(spans) > 1:
        for start, stop in spans:
            yield from _small_enough(text, start, stop, size, count)
        return
    middle = (begin + end) // 2
    cut = next((at for at in range(middle, end - 1) if text[at].isspace()), middle)
    if span := _stripped(text, begin, cut):
        yield from _small_enough(text, *span, size, count) if span != (begin, end) else [span]
    if span := _stripped(text, cut, end):
        yield from _small_enough(text, *span, size, count) if span != (begin, end) else [span]

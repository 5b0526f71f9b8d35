"""Finds questions that are asked twice. Questions that differ in a number or a name are different questions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from socratune.data import wording_of
from socratune.documents.words import gist, names_in
from socratune.judging import normalise
from socratune.rows import Rejected, content_id

ALIKE = 92.0
"""RapidFuzz's token set ratio from which two questions with the same answer, numbers and names are the same."""
SAME_QUESTION, SAME_ANSWER = 0.4, 0.6
"""Jaccard index of the content words from which two questions on the same evidence are the same, if their answers add
the same."""
COMPARED = 40
"""The most earlier questions of a block that a question is compared with."""

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


def asked_before(rows: Iterable[dict[str, Any]]) -> dict[int, Rejected]:
    """Returns by position the rows that ask what an earlier row asks, with the reason, and the siblings of such rows.

    A sibling asks the same as its original in other words, so the two are only compared word for word.
    """
    dropped: dict[int, Rejected] = {}
    lost: set[str] = set()
    worded: set[int] = set()
    earlier: dict[tuple[Any, ...], list[_Asked]] = defaultdict(list)
    for at, one in enumerate(map(_asked, rows)):
        wording = wording_of(one.question)
        near = [other for key in one.blocks() for other in earlier[key][-COMPARED:] if other.family != one.family]
        if one.original in lost:
            dropped[at] = Rejected("original_rejected", "its original asks what another row asks")
        elif wording in worded:
            dropped[at] = Rejected("asked_before", "the same question")
        elif any(_alike(one, other) for other in near):
            dropped[at] = Rejected("asked_before", "nearly the same question")
        if at in dropped:
            lost.add(one.id)
            continue
        worded.add(wording)
        for key in one.blocks():
            earlier[key].append(one)
    return dropped


class _Asked(NamedTuple):
    """The parts of a row that are compared.

    Attributes:
        apart: the names and numbers of its question, which must not differ.
    """

    id: str
    original: str | None
    question: str
    answer: str
    evidence: str
    passage: str
    apart: tuple[frozenset[Any], ...]

    @property
    def family(self) -> str:
        """The id of the original."""
        return self.original or self.id

    def blocks(self) -> Iterator[tuple[Any, ...]]:
        """Yields keys. Rows that share a key are compared."""
        yield "answer", self.answer, self.apart
        yield "passage", self.passage


def _asked(row: dict[str, Any]) -> _Asked:
    messages, metadata = row["messages"], row["metadata"]
    question, answer = messages[-2]["content"], normalise(messages[-1]["content"])
    apart = (names_in(question), frozenset(_NUMBER.findall(question)))
    original = metadata.get("sibling_of")
    own = "" if original else content_id(messages)  # no row names a sibling
    return _Asked(own, original, question, answer, normalise(metadata["evidence"]), metadata["passage_id"], apart)


def _alike(one: _Asked, other: _Asked) -> bool:
    """Returns True for nearly the same words with the same answer, or for the same fact of the same evidence."""
    from rapidfuzz import fuzz

    if one.apart == other.apart:
        words, others = set(one.answer.split()), set(other.answer.split())
        if (words <= others or others <= words) and fuzz.token_set_ratio(one.question, other.question) >= ALIKE:
            return True
    same_evidence = one.evidence in other.evidence or other.evidence in one.evidence
    return one.passage == other.passage and same_evidence and _one_fact(one, other)


def _one_fact(one: _Asked, other: _Asked) -> bool:
    if any(mine - theirs and theirs - mine for mine, theirs in zip(one.apart, other.apart, strict=True)):
        return False  # each question has a name or number that the other lacks
    asked, asked_there = gist(one.question), gist(other.question)
    if _jaccard(asked, asked_there) < SAME_QUESTION:
        return False
    return _jaccard(gist(one.answer) - asked, gist(other.answer) - asked_there) >= SAME_ANSWER


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one or other else 1.0

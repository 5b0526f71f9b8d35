"""Which rows of a data set may not be parted, found in one reading that keeps a few numbers per row."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from socratune.answers import normalise
from socratune.errors import OutsideError
from socratune.rows import QARow
from socratune.sources.qa_files import Reading, qa_rows

log = logging.getLogger(__name__)
FEW_SOURCES = 5
"""Fewer sources than this cannot be split by source; rows then go by their question."""


class Clusters:
    """The rows of a data set by their position: the question each asks, its source, and so its cluster.

    A cluster is a number: that of a source or, counted on behind the sources, that of a question.

    Attributes:
        reading: what reading the data set came to.
        clusters: row → cluster; set by `join`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reading = Reading()
        self.clusters: Sequence[int] = ()
        self._questions: dict[bytes, int] = {}  # digest of the name → number
        self._question_of, self._source_of, self._ids = array("q"), array("q"), array("q")  # of every row; -1: none
        self._places = {"dev": array("d"), "held_out": array("d")}  # of every question
        sources: dict[str, int] = {}
        for row in qa_rows(path, self.reading):
            name = _name(row)
            question = self._questions.setdefault(_digest(name), len(self._questions))
            if question == len(self._places["dev"]):
                for salt, places in self._places.items():
                    places.append(_place(salt, name))
            self._question_of.append(question)
            source = sources.setdefault(row.source, len(sources)) if row.source else -1
            self._source_of.append(source)
            self._ids.append(hash(row.id))
        self._sources = list(sources)

    def join(self, *, most: int = 0) -> None:
        """Set `clusters`: whatever shares a source or asks the same question is never parted.

        Few sources, or sources that all have more than `most` rows (0: any size is right), are labels rather than
        documents; the rows then go by their question alone.
        """
        self.clusters = array("q", (len(self._sources) + question for question in self._question_of))
        if len(self._sources) < FEW_SOURCES:
            if self._sources:
                text = "The rows come from %d source(s), too few to split by source; they are split by question."
                log.warning(text, len(self._sources))
        elif most and -1 not in self._source_of and (least := min(Counter(self._source_of).values())) > most:
            text = "Every source has %d rows or more, too many to hold one out; the rows are split by question."
            log.warning(text, least)
        else:
            self.clusters = array("q", self._joined())

    def _joined(self) -> Iterator[int]:
        """The cluster of every row where sources that share a question are one, named by the first in the alphabet."""
        names, parent = self._sources, list(range(len(self._sources)))
        asked_by: dict[int, int] = {}  # question → a source that asks it

        def root(source: int) -> int:
            while (above := parent[source]) != source:
                parent[source] = parent[above]
                source = above
            return source

        for question, source in zip(self._question_of, self._source_of, strict=True):
            if source >= 0:
                both = root(source), root(asked_by.setdefault(question, source))
                first, second = sorted(both, key=names.__getitem__)
                parent[second] = first
        for question, source in zip(self._question_of, self._source_of, strict=True):
            asker = source if source >= 0 else asked_by.get(question, -1)
            yield root(asker) if asker >= 0 else len(names) + question

    def place(self, salt: str, cluster: int) -> float:
        """The cluster's fixed number in [0, 1); `salt` is `dev` or `held_out`."""
        if cluster < len(self._sources):
            return _place(salt, f"source:{self._sources[cluster]}")
        return self._places[salt][cluster - len(self._sources)]

    def asked_in(self, other: Clusters) -> set[int]:
        """The rows whose question the other data set asks too."""
        shared = {number for digest, number in self._questions.items() if digest in other._questions}
        return {at for at, question in enumerate(self._question_of) if question in shared}

    def read(self) -> Iterator[QARow]:
        """The rows, read once more, with the name of their cluster.

        Raises:
            OutsideError: the data set is not the one that was read before.
        """
        at = 0
        for at, row in enumerate(qa_rows(self.path, Reading()), start=1):
            if at > len(self._ids) or hash(row.id) != self._ids[at - 1]:
                break
            cluster = self.clusters[at - 1]
            by_source = cluster < len(self._sources)
            yield replace(row, cluster=f"source:{self._sources[cluster]}" if by_source else _name(row))
        else:
            if at == len(self._ids):
                return
        raise OutsideError(f"{self.path} has changed while it was read. Run it again.")


def _name(row: QARow) -> str:
    return f"q:{normalise(row.question)}"


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _place(salt: str, name: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{salt}/{name}".encode()).digest()[:8], "big") / 2**64

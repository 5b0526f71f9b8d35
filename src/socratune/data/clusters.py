"""Finds the rows of a data set that must stay on one side of a split. It reads the data once."""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from socratune.data.duplicates import Marks, joined, wording_id, wording_of
from socratune.data.qa_files import Screen, data_set
from socratune.errors import OutsideError
from socratune.rows import QARow, Rejected

log = logging.getLogger(__name__)
FEW_SOURCES = 5
"""The fewest sources by which rows are split. With fewer, rows are split by question."""

MOST_JOINED = 10
"""So many sources may be joined by shared questions, even if they are more than a fifth of all."""


class Clusters:
    """Holds the rows of a data set by position: what each asks, its source, and its cluster.

    A cluster is a number: that of a source or, counted on behind the sources, that of the first row of a group of
    rows that ask the same. That first row gives the group its place, so that rows added behind it do not move it.

    Attributes:
        data: the data set.
        start: where the rows begin in `marks`.
        clusters: row → cluster; set by `join`.
        siblings: row → what its `metadata.sibling_of` names.
    """

    def __init__(self, path: Path, marks: Marks, screen: Screen | None = None) -> None:
        self.path = path
        self.data = data_set(path, screen)
        self.start = len(marks)
        self.clusters: Sequence[int] = ()
        self.siblings: dict[int, list[str]] = {}
        self._source_of, self._ids = array("q"), array("q")  # of every row; -1: no source
        self._places = {"dev": array("d"), "held_out": array("d")}  # of every row
        sources: dict[str, int] = {}
        for row in self.data.rows():
            name = wording_id(row)
            marks.add(row, name)
            for salt, places in self._places.items():
                places.append(_place(salt, name))
            source = unicodedata.normalize("NFC", row.source).strip() if row.source else ""
            self._source_of.append(sources.setdefault(source, len(sources)) if source else -1)
            if named := originals(row):
                self.siblings[len(self._ids)] = named
            self._ids.append(hash(row.id))
        self._sources = list(sources)
        self._wordings: Sequence[int] = ()
        self._groups: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self._ids)

    def join(self, wordings: Sequence[int], groups: Sequence[int], *, most: int = 0) -> None:
        """Sets `clusters`: by source, otherwise by group.

        Few sources, or sources that all have more than `most` rows (0: any size is right), are labels rather than
        documents; the rows then go by what they ask alone.

        Args:
            wordings: the first row with the same wording, of every row in the marks.
            groups: the first row that asks the same, likewise.
        """
        own = slice(self.start, self.start + len(self))
        self._wordings, self._groups = _first(wordings[own]), _first(groups[own])
        self.clusters = array("q", (len(self._sources) + group for group in self._groups))
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
        """Yields the cluster of every row. Sources that share a question form one, named by the first alphabetically.

        Where that would join more than a fifth of them (a question that is put to every document), they stay apart:
        decontamination then sees to the questions they share.
        """
        names = self._sources
        order = sorted(range(len(names)), key=names.__getitem__)
        rank = {source: at for at, source in enumerate(order)}
        asked_by: dict[int, int] = {}  # question → a source that asks it
        asking = ((question, of) for question, of in zip(self._wordings, self._source_of, strict=True) if of >= 0)
        shared = ((rank[source], rank[asked_by.setdefault(question, source)]) for question, source in asking)
        first = joined(array("q", range(len(names))), shared)
        roots = [order[first[rank[source]]] for source in range(len(names))]
        sizes, most = Counter(roots), max(MOST_JOINED, len(names) // 5)
        whole = [root if sizes[root] <= most else source for source, root in enumerate(roots)]
        for question, group, source in zip(self._wordings, self._groups, self._source_of, strict=True):
            asker = source if source >= 0 else asked_by.get(question, -1)
            yield whole[asker] if asker >= 0 else len(names) + group

    def place(self, salt: str, cluster: int) -> float:
        """Returns the cluster's fixed number in [0, 1). `salt` is `dev` or `held_out`."""
        if cluster < len(self._sources):
            return _place(salt, f"source:{self._sources[cluster]}")
        return self._places[salt][cluster - len(self._sources)]

    def row_place(self, row: int) -> float:
        """Returns a row's own fixed number in [0, 1), derived from its question."""
        return self._places["held_out"][row]

    def named(self, siblings: dict[int, list[str]], marks: Marks) -> dict[str, list[int]]:
        """Returns for every name that siblings give the rows with that id, otherwise the rows with that question."""
        names = {name for named in siblings.values() for name in named}
        by_id = {hash(name): name for name in names}
        by_wording = {wording_of(name): name for name in names}
        holders: dict[str, list[int]] = {name: [] for name in names}
        asking: dict[str, list[int]] = {name: [] for name in names}
        for row, row_id in enumerate(self._ids if names else ()):
            if row_id in by_id:
                holders[by_id[row_id]].append(row)
            if (wording := marks.wording(self.start + row)) in by_wording:
                asking[by_wording[wording]].append(row)
        return {name: holders[name] or asking[name] for name in names}

    def read(self) -> Iterator[QARow]:
        """Yields the rows again, each with the name of its cluster.

        Raises:
            OutsideError: the data set is not the one that was read before.
        """
        at = 0
        several = {first for first, wording in zip(self._groups, self._wordings, strict=True) if first != wording}
        names: dict[int, str] = {}  # of the groups with several wordings
        for at, row in enumerate(self.data.rows(), start=1):
            if at > len(self._ids) or hash(row.id) != self._ids[at - 1]:
                break
            cluster = self.clusters[at - 1] - len(self._sources)
            if at - 1 in several:
                names[at - 1] = wording_id(row)
            if cluster < 0:
                yield replace(row, cluster=f"source:{self._sources[cluster]}")
            else:
                yield replace(row, cluster=names.get(cluster) or wording_id(row))
        else:
            if at == len(self._ids):
                return
        raise OutsideError(f"{self.path} has changed while it was read. Run it again.")


def originals(row: QARow) -> list[str]:
    """Returns the names in `metadata.sibling_of`: ids or questions of rows, several for a multi-hop question."""
    named = row.metadata.get("sibling_of")
    return [str(name) for name in (named if isinstance(named, list) else [named]) if name not in (None, "")]


def _first(groups: Sequence[int]) -> array[int]:
    """Returns the first row of each row's group, counted within this data set."""
    first: dict[int, int] = {}
    return array("q", (first.setdefault(group, row) for row, group in enumerate(groups)))


def _place(salt: str, name: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{salt}/{name}".encode()).digest()[:8], "big") / 2**64


# --- rows that a test asks too -------------------------------------------------------------------------------------
# What must not be trained on because a test asks it too, and what is never trained on because it tests a trained
# fact.


@dataclass(frozen=True, slots=True)
class Recall:
    """Marks a row that asks in other words what a trained row asks."""

    of: int


SplitPart = str | Rejected | Recall
"""`train_in`, `dev` or `held_out`; a recall row; or why a row is in none of them."""
Siblings = dict[int, list[list[int]]]
"""Row → for every name in its `sibling_of`, the rows of the data set with that name."""


def drop_contaminated(
    parts: list[SplitPart],
    rows: Clusters,
    tests: Clusters,
    asked: Iterable[int],
    reason: str,
    *,
    marks: Marks,
    groups: Sequence[int],
) -> None:
    """Puts a `Rejected` instead of every `train_in` row that asks what a test's row asks.

    Args:
        parts: of every row; changed.
        tests: the data set with the test; `rows` itself for one that was split off.
        asked: its rows that are the test.
        reason: `in_held_out`, `in_dev`, `in_eval_file`.
        groups: the group of every row in the marks.
    """
    asked_by: dict[int, int] = {}
    for row in asked:
        asked_by.setdefault(groups[tests.start + row], row)
    for row, part in enumerate(parts):
        at = rows.start + row
        if part == "train_in" and (other := asked_by.get(groups[at])) is not None:
            how = marks.how(at, tests.start + other)
            parts[row] = Rejected(reason, f"{how} as row {other + 1} of {tests.path}")


def contaminated_kin(asking: Clusters, rows: Clusters, marks: Marks) -> Siblings:
    """Returns the siblings in `asking` that name rows of the data set.

    Of the data set itself all are given, also those that name no row: they are never trained on.
    """
    named = rows.named(asking.siblings, marks)
    originals_of = {row: [named[name] for name in names] for row, names in asking.siblings.items()}
    return {row: originals for row, originals in originals_of.items() if asking is rows or all(originals)}


def settle_parts(
    parts: Sequence[SplitPart], asking: Clusters, siblings: Siblings, rows: Clusters, *, marks: Marks, most: int
) -> dict[int, SplitPart]:
    """Returns for every sibling `Recall`, or why it is not one.

    One is asked only where all rows it names are trained on and none is asked in its very wording: then it asks for
    what was learnt, in other words.

    Args:
        most: siblings that may be asked; by their place, so that added ones move nothing but the cut.
    """
    trained = {marks.wording(rows.start + row) for row, part in enumerate(parts) if part == "train_in"}
    settled: dict[int, SplitPart] = {}
    for row, originals in siblings.items():
        names = asking.siblings[row]
        unfit = (why for pair in zip(names, originals, strict=True) if (why := _unfit(parts, *pair)))
        settled[row] = next(unfit, None) or Recall(next(of for of in originals[0] if parts[of] == "train_in"))
        if isinstance(settled[row], Recall) and marks.wording(asking.start + row) in trained:
            settled[row] = Rejected("sibling_as_trained", "it asks in the very words of a row that is trained on")
    fit = sorted((row for row, part in settled.items() if isinstance(part, Recall)), key=asking.row_place)
    too_many = Rejected("sibling_too_many", f"{most} others are asked, as split.max_recall_rows allows")
    return {**settled, **dict.fromkeys(fit[most:], too_many)}


def _unfit(parts: Sequence[SplitPart], name: str, originals: list[int]) -> Rejected | None:
    """Returns why a sibling cannot test what was trained, or None."""
    if not originals:
        return Rejected("sibling_of_none", f"no row has the id or asks the question {name[:100]!r}")
    now = {part.reason if isinstance(part, Rejected) else str(part) for part in (parts[row] for row in originals)}
    if "train_in" in now:
        return None
    return Rejected("sibling_of_untrained", f"{name[:100]!r} is not trained on: {', '.join(sorted(now))}")

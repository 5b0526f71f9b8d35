"""Lays documents end to end in one row: which of them share a row, and where each begins.

A padded batch of question-answer rows computes mostly padding. Packed rows compute none, provided that no document sees
another. So a row carries its boundaries explicitly, and the attention of every back end obeys them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from socratune.inference import IGNORE

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class PackedRow:
    """T tokens of N documents, as int64 arrays.

    Attributes:
        ids: (T,).
        positions: (T,), from 0 in every document.
        boundaries: where each document begins, and T; (N+1,).
        at: the L places at which the model predicts a labelled token, each one before that token; (L,).
        targets: the labelled tokens, (L,).
    """

    ids: Array
    positions: Array
    boundaries: Array
    at: Array
    targets: Array

    @property
    def owners(self) -> Array:
        """Returns the document of each labelled token, (L,)."""
        return self.boundaries.searchsorted(self.at, side="right") - 1


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs documents by best-fit decreasing: each, longest first, goes where it leaves the least room. None is split.

    Returns:
        The documents of each row, as indices into `lengths`. At most 11/9 of the rows that are needed, plus one
        (Johnson 1973); the same lengths always give the same rows.

    Raises:
        ValueError: a document is longer than `capacity`.
    """
    if lengths and max(lengths) > capacity:
        raise ValueError(f"a document of {max(lengths)} tokens does not fit a row of {capacity}")
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for document in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        at = bisect_left(rooms, (lengths[document], -1))
        room, row = rooms.pop(at) if at < len(rooms) else (capacity, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(document)
        insort(rooms, (room - lengths[document], row))
    return rows


def join_items(items: Sequence[Any]) -> PackedRow:
    """Returns one row of items that have `ids` and `labels`, in their order."""
    return join_rows([(item.ids, item.labels) for item in items])


def join_rows(documents: Sequence[tuple[Sequence[int], Sequence[int]]]) -> PackedRow:
    """Returns one row of `(ids, labels)` documents, in their order.

    Nothing predicts a document's first token, so its label is ignored.
    """
    import numpy as np

    lengths = [len(ids) for ids, _ in documents]
    boundaries = np.cumsum([0, *lengths])
    ids = np.concatenate([np.asarray(ids, dtype=np.int64) for ids, _ in documents])
    labels = np.concatenate([np.asarray(labels, dtype=np.int64) for _, labels in documents])
    labels[boundaries[:-1]] = IGNORE
    labelled = np.flatnonzero(labels != IGNORE)
    positions = np.arange(len(ids)) - np.repeat(boundaries[:-1], lengths)
    return PackedRow(ids, positions, boundaries, labelled - 1, labels[labelled])

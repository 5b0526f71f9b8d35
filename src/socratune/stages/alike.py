"""Questions that are asked twice across the corpus. Two that differ in a number or a name are two questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from socratune.answers import normalise, numbers_in
from socratune.duplicates import Marks, name_of
from socratune.grounding import names_in
from socratune.rows import QARow, content_id

ALIKE = 92.0
"""RapidFuzz's token set ratio from which two questions with the same answer, numbers and names are one."""
COMPARED = 40
"""Earlier questions with the same answer, numbers and names that one is compared with."""


def asked_before(rows: Iterable[dict[str, Any]]) -> dict[int, str]:
    """The rows (by position) that ask what an earlier one asks, and how; siblings of such a row go with it.

    A sibling is meant to ask the same as its original, in other words; so the two are never compared but word for word.
    """
    from rapidfuzz import fuzz

    marks = Marks()
    keys: list[tuple[str, str, str | None, tuple[Any, ...]]] = []  # own id, question, original's id, what tells apart
    for data in rows:
        row = QARow(content_id(data["messages"]), data["messages"], data["metadata"])
        marks.add(row, name_of(row))
        apart = (normalise(row.reference), names_in(row.question), frozenset(numbers_in(row.question)))
        keys.append((row.id, row.question, row.metadata.get("sibling_of"), apart))
    wordings, groups = marks.groups()
    dropped: dict[int, str] = {}
    lost: set[str] = set()
    asked: set[int] = set()
    by_group: dict[tuple[Any, ...], str] = {}
    earlier: dict[tuple[Any, ...], list[tuple[str, str]]] = defaultdict(list)
    for at, (row_id, question, original, apart) in enumerate(keys):
        family = original or row_id
        why = None
        if original in lost:
            why = "original_rejected: its original asks what another row asks"
        elif wordings[at] in asked:
            why = "asked_before: the same question"
        elif by_group.get((groups[at], *apart), family) != family:
            why = "asked_before: nearly the same question"
        elif any(
            of != family and fuzz.token_set_ratio(question, other) >= ALIKE for of, other in earlier[apart][-COMPARED:]
        ):
            why = "asked_before: nearly the same question"
        if why:
            dropped[at] = why
            lost.add(row_id)
            continue
        asked.add(wordings[at])
        by_group[(groups[at], *apart)] = family
        earlier[apart].append((family, question))
    return dropped

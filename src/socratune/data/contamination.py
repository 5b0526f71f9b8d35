"""What must not be trained on because a test asks it too, and what is never trained on because it tests a trained fact.

The second are siblings (`metadata.sibling_of`): paraphrases, reversals, multi-hop questions of trained rows. They show
whether a fact was learnt, which questions from unseen sources cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from socratune.data.clusters import Clusters
from socratune.data.duplicates import Marks
from socratune.rows import Rejected


@dataclass(frozen=True, slots=True)
class Recall:
    """A row that asks in other words what a trained row of the data set asks."""

    of: int


SplitPart = str | Rejected | Recall
"""`train_in`, `dev`, `held_out`; recall; or why a row is in none of them."""
Siblings = dict[int, list[list[int]]]
"""Row → for every name it gives in `sibling_of`, the rows of the data set that bear it."""


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
    """Put a `Rejected` in the place of every `train_in` row that asks what a test's row asks.

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
    """The siblings in `asking` that name rows of the data set.

    Of the data set itself all are given, also those that name no row: they are never trained on.
    """
    named = rows.named(asking.siblings, marks)
    found = {row: [named[name] for name in names] for row, names in asking.siblings.items()}
    return {row: originals for row, originals in found.items() if asking is rows or all(originals)}


def settle_parts(
    parts: Sequence[SplitPart], asking: Clusters, siblings: Siblings, rows: Clusters, *, marks: Marks, most: int
) -> dict[int, SplitPart]:
    """For every sibling `Recall`, or why not.

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
    """Why the sibling of a row cannot be asked for what was trained, or None."""
    if not originals:
        return Rejected("sibling_of_none", f"no row has the id or asks the question {name[:100]!r}")
    now = {part.reason if isinstance(part, Rejected) else str(part) for part in (parts[row] for row in originals)}
    if "train_in" in now:
        return None
    return Rejected("sibling_of_untrained", f"{name[:100]!r} is not trained on: {', '.join(sorted(now))}")

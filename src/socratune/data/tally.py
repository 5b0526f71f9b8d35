"""Groups the faults of many rows: each kind is reported once, with its number of rows and the first of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from socratune.errors import Fault, Shown

MOST_KINDS = 100
"""Kinds of faults that are reported. The rest only counts rows."""
_FIRST = 3
_OWN = re.compile(r"'[^']*'|\d+")
"""Quotations and numbers, in which two rows with the same fault differ."""
_CUT = re.compile(r"[:'\"\d]")


class _Kind(NamedTuple):
    inner: str
    expected: str
    got: str
    fix: str


@dataclass(slots=True)
class _Same:
    """Holds the rows with one kind of fault: the first fault, its place within the row, and where the rows are."""

    fault: Fault
    inner: str
    places: list[str]
    rows: int = 0


@dataclass(slots=True)
class FaultTally:
    """Groups faults by kind. Faults of one kind differ only in numbers and in what they quote."""

    source: str = ""
    """The file."""
    rows: int = 0
    untold: int = 0
    """Rows whose faults are all unreported."""
    _kinds: dict[_Kind, _Same] = field(default_factory=dict)

    def add(self, place: str, faults: list[Fault]) -> None:
        """Counts the faults of one row.

        Args:
            place: of the row in the file, `line 3`.
        """
        self.rows += 1
        counted = False
        for fault in faults:
            row, _, inner = fault.where.partition(f"{self.source}, {place}")
            inner = "" if row else inner  # it names a file of its own, and the place says which
            kind = _kind(fault, inner)
            if kind not in self._kinds and len(self._kinds) >= MOST_KINDS:
                continue
            same = self._kinds.setdefault(kind, _Same(fault, inner, []))
            counted = True
            if same.places[-1:] != [place]:
                same.rows += 1
                same.places[_FIRST:] = [place]
        self.untold += not counted

    @property
    def faults(self) -> list[Fault]:
        """Returns one fault for each kind in the order of first rows, and one that counts the unreported rows."""
        faults = [self._told(same) for same in self._kinds.values()]
        if self.untold:
            faults.append(Fault("and further", "no faulty rows", Shown(f"{self.untold} more")))
        return faults

    def _told(self, same: _Same) -> Fault:
        if same.rows == 1:
            return same.fault
        word = same.places[0].split(" ", maxsplit=1)[0]
        first = ", ".join(place.removeprefix(f"{word} ") for place in same.places[:_FIRST])
        more = ", …" if same.rows > _FIRST else ""
        return replace(same.fault, where=f"{self.source}, {same.rows} rows ({word}s {first}{more}){same.inner}")


def _kind(fault: Fault, inner: str) -> _Kind:
    got = _CUT.split(fault.got, maxsplit=1)[0] if isinstance(fault.got, Shown) else ""
    return _Kind(*(_OWN.sub("#", text) for text in (inner, fault.expected, got, fault.fix)))

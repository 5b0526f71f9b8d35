"""Question-answer rows from whatever `--dataset` names: a file, a saved data set, or one of the Hub.

Rows are read one after the other and kept by nobody here, so that a large data set needs little memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from socratune.config import DEMO, DEMO_DATA
from socratune.errors import Fault, Shown, UserError
from socratune.rows import QARow, Rejected, unique_ids
from socratune.sources import hub
from socratune.sources.records import SHOWN, Record, Unreadable, read_records
from socratune.sources.shapes import parse_row, shape_of

MOST_FAULTS = 100
"""Faults that are kept; of the rest only the number of rows."""


@dataclass(slots=True)
class Reading:
    """What reading came to: good rows by shape, and the faults of the bad ones."""

    shapes: Counter[str] = field(default_factory=Counter)
    """`question–answer` → rows that were recognised by these columns."""
    bad_rows: int = 0
    first_faults: list[Fault] = field(default_factory=list)
    not_shown: int = 0
    """Bad rows whose faults are not among `first_faults`."""

    @property
    def rows(self) -> int:
        """Good rows."""
        return self.shapes.total()

    @property
    def faults(self) -> list[Fault]:
        """The first faults, and one that counts the rest."""
        if not self.not_shown:
            return self.first_faults
        return [*self.first_faults, Fault("and further", "no faulty rows", Shown(f"{self.not_shown} more"))]


def data_path(name: str, *, held_out: bool = False) -> Path:
    """What is behind `--dataset NAME`; the name `demo` is the embedded data set."""
    if name == DEMO:
        return DEMO_DATA / ("held_out.jsonl" if held_out else "train.jsonl")
    return Path(name)


def qa_rows(path: Path, reading: Reading) -> Iterator[QARow]:
    """The good rows in their order; what becomes of the others is in `reading` when the last row was given.

    Raises:
        UserError: nothing can be read there, or it holds no row at all.
        OutsideError: it might be a data set of the Hub, which could not be asked.
    """
    return unique_ids(_good(path, reading))


def _good(path: Path, reading: Reading) -> Iterator[QARow]:
    for place, value in _records(path):
        row = _parsed(value, f"{path}, {place}")
        if isinstance(row, QARow):
            reading.shapes["–".join(shape_of(value) or ())] += 1
            yield row
            continue
        reading.bad_rows += 1
        if len(reading.first_faults) < MOST_FAULTS:
            reading.first_faults += row
        else:
            reading.not_shown += 1
    if not reading.rows and not reading.bad_rows:
        raise UserError(Fault(str(path), "at least one row", Shown("an empty file")))


def bad_rows(path: Path) -> Iterator[Rejected]:
    """The rows that `qa_rows` leaves out, with their faults.

    Raises:
        UserError: as `qa_rows`.
    """
    for place, value in _records(path):
        row = _parsed(value, where := f"{path}, {place}")
        if not isinstance(row, QARow):
            kind = place.split(" ", maxsplit=1)[0]
            text = value.text if isinstance(value, Unreadable) else json.dumps(value, ensure_ascii=False)[:SHOWN]
            detail = "; ".join(str(fault).removeprefix(where).lstrip(":, ") for fault in row)
            yield Rejected("bad_row", detail, id=place.replace(" ", "-"), row={kind: text})


def commit_of(path: Path) -> str | None:
    """The commit of a data set of the Hub that `qa_rows` has read; None for what lies here."""
    name = hub.hub_name(str(path))
    return hub.revision(name, str(path)) if name else None


def _parsed(value: object, where: str) -> QARow | list[Fault]:
    return [value.fault] if isinstance(value, Unreadable) else parse_row(value, where)


def _records(path: Path) -> Iterator[Record]:
    text = str(path)
    if found := hub.saved_folder(text):
        return hub.read_saved(*found, text)
    if path.is_dir():
        fix = "Name the file in it."
        raise UserError(Fault(text, "a file of question-answer rows", Shown("a directory"), fix))
    if path.exists() and not path.is_file():
        raise UserError(Fault(text, "a file of question-answer rows", Shown("no regular file")))
    if name := hub.hub_name(text):
        return hub.read_hub(name, text)
    return read_records(path)


@dataclass(slots=True)
class ReadRows:
    """All rows of a data set at once, and its faults; for a look at a file."""

    rows: list[QARow] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_qa_rows(path: Path) -> ReadRows:
    """Every good row and the faults; never raises for what is in the file."""
    reading, found = Reading(), ReadRows()
    try:
        found.rows = list(qa_rows(path, reading))
    except UserError as error:
        found.faults = [*error.faults]
    found.faults = [*reading.faults, *found.faults]
    return found

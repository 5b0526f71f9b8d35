"""Question-answer rows from a JSONL file in the guide's format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from socratune.config import DEMO, DEMO_DATA
from socratune.errors import Fault, Shown
from socratune.rows import QARow, Rejected, parse_row, unique_ids


@dataclass(slots=True)
class ReadRows:
    """What a file held: the good rows in order, the bad ones with their faults."""

    rows: list[QARow] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def data_path(name: str, *, held_out: bool = False) -> Path:
    """The file behind `--dataset NAME`; the name `demo` is the embedded data set."""
    if name == DEMO:
        return DEMO_DATA / ("held_out.jsonl" if held_out else "train.jsonl")
    return Path(name)


def read_qa_rows(path: Path) -> ReadRows:
    """Every row of a JSONL file, good and bad; never raises for what is in the file."""
    found = ReadRows()
    if fault := _file_fault(path):
        found.faults.append(fault)
        return found
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        row = _parse_line(line, where)
        if isinstance(row, QARow):
            found.rows.append(row)
        else:
            found.faults += row
            shown = line[:2000].decode("utf-8", "replace")
            reason = "; ".join(str(fault).removeprefix(where).lstrip(":, ") for fault in row)
            found.rejected.append(Rejected(id=f"line-{number}", reason="bad_row", detail=reason, row={"line": shown}))
    found.rows = list(unique_ids(found.rows))
    if not found.rows and not found.faults:
        found.faults.append(Fault(str(path), "at least one row", Shown("an empty file")))
    return found


def _file_fault(path: Path) -> Fault | None:
    expected = "a JSONL file of question-answer rows"
    if path.is_dir():
        return Fault(str(path), expected, Shown("a directory"), "Name the file in it.")
    if path.exists() and not path.is_file():
        return Fault(str(path), expected, Shown("no regular file"))
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except FileNotFoundError:
        return Fault(str(path), expected, Shown("no such file"), "Check --dataset (and --held-out).")
    except OSError as error:
        return Fault(str(path), expected, Shown(error.strerror or str(error)))
    return None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Non-empty lines with their number from 1; a byte-order mark is taken off."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                yield number, text.rstrip(b"\r\n")


def _parse_line(line: bytes, where: str) -> QARow | list[Fault]:
    if b"\x00" in line:
        return [Fault(where, "text", Shown("NUL bytes (a damaged file, or one that is not UTF-8)"))]
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        got = Shown(f"the byte 0x{line[error.start]:02x} at position {error.start + 1}")
        return [Fault(where, "UTF-8 text", got, "Save the file as UTF-8.")]
    try:
        data: Any = json.loads(text)
        text.encode("utf-8") if "\\ud" not in text.lower() else json.dumps(data, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        return [Fault(where, "one JSON object per line", Shown(f"{error.msg} at column {error.colno}: {text[:60]!r}"))]
    except UnicodeEncodeError:
        return [Fault(where, "valid Unicode", Shown("half a surrogate pair (\\ud800 to \\udfff)"))]
    except ValueError as error:
        return [Fault(where, "numbers that can be read", Shown(str(error)[:80]))]
    except RecursionError:
        return [Fault(where, "one JSON object per line", Shown("JSON nested too deeply"))]
    return parse_row(data, where)

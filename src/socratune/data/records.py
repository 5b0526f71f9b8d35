"""Reads the records of a file one by one in any format. A large file is never in memory as a whole.

    .jsonl, and any other name   one JSON object per line            .csv, .tsv   the first row names the columns
    .json                        an array of objects, or lines       .parquet     through pyarrow

All but Parquet may be compressed (`rows.jsonl.gz`).
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import itertools
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from socratune.data.columns import DEEPEST, is_argilla, plain_name, too_deep
from socratune.data.shapes import MEDIA, may_have_shape, unknown_shape
from socratune.errors import Fault, Shown, UserError

log = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".gz")
SHOWN = 2000
"""Bytes of an undecodable record that are kept."""
_CHUNK = 1 << 20
"""Characters of a JSON array that are read at a time."""
LONGEST_MEMBER = 64 * _CHUNK
"""A member of a JSON array that is longer than this many characters is corrupt."""
_BATCH_ROWS = 256
"""Rows of a Parquet file that are decoded at a time."""


class Unreadable(NamedTuple):
    """Holds a record that cannot be decoded: the reason, and its beginning."""

    fault: Fault
    text: str


Record = tuple[str, Any]
"""The place of a record in its file (`line 3`, `row 3`), and its decoded value or `Unreadable`."""


_Check = Callable[[Sequence[str], str], None]
"""Raises UserError if the columns of a table are unsuitable. It gets their names and the file."""


def read_records(path: Path, check: _Check | None = None) -> Iterator[Record]:
    """Yields the records of a file in order.

    Args:
        check: of a table's columns; None: they have to be those of question-answer rows.

    Raises:
        UserError: the file is missing or damaged, or no column of a table has a known name.
    """
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    read = {".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}.get(kind.lower(), _lines)
    try:
        yield from read(path, check or check_columns)
    except FileNotFoundError:
        raise UserError(_missing(path)) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(Fault(str(path), "a whole gzip file", Shown(str(error)))) from None
    except OSError as error:
        got = Shown(error.strerror or str(error))
        raise UserError(Fault(str(path), "a file of question-answer rows", got)) from None


def _missing(path: Path) -> Fault:
    there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, there, n=1)
    fix = f"Did you mean {path.with_name(near[0])}?" if near else "Check --dataset, or whichever setting names it."
    if len(path.parts) == 1 and not near:
        fix += " A data set of the Hugging Face Hub is given as org/name."
    return Fault(str(path), "a file of question-answer rows", Shown("no such file"), fix)


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


# --- JSON ----------------------------------------------------------------------------------------------------------


def _lines(path: Path, check: _Check) -> Iterator[Record]:
    """Yields every line that is not blank, without a byte-order mark."""
    with _opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                place = f"line {number}"
                yield place, json_value(text.rstrip(b"\r\n"), f"{path}, {place}")


def json_value(line: bytes, where: str) -> Any:
    """Returns the value of a line of JSON, or why it is unreadable."""

    def unreadable(expected: str, got: str, fix: str = "") -> Unreadable:
        return Unreadable(Fault(where, expected, Shown(got), fix), line[:SHOWN].decode("utf-8", "replace"))

    if b"\x00" in line:
        return unreadable("text", "NUL bytes (a corrupt file, or a file that is not UTF-8)")
    try:
        text = line.decode("utf-8")
        value = json.loads(text)
    except UnicodeDecodeError as error:
        got = f"the byte 0x{line[error.start]:02x} at position {error.start + 1}"
        return unreadable("UTF-8 text", got, "Save the file as UTF-8.")
    except json.JSONDecodeError as error:
        return unreadable("one JSON object per line", f"{error.msg} at column {error.colno}: {error.doc[:60]!r}")
    except RecursionError:
        return unreadable("one JSON object per line", "JSON nested too deeply")
    except ValueError as error:
        return unreadable("numbers that can be read", str(error)[:80])
    return _unfit(text, value, where) or value


def _unfit(text: str, value: Any, where: str) -> Unreadable | None:
    """Returns why a JSON value cannot be used: half a surrogate pair, or nesting too deep to be written again."""
    if text.count("[") + text.count("{") > DEEPEST and too_deep(value):
        fault = Fault(where, "a row", Shown(f"lists or objects in more than {DEEPEST} levels"), "Is it a row at all?")
        return Unreadable(fault, text[:SHOWN])
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            fault = Fault(where, "valid Unicode", Shown("half a surrogate pair (\\ud800 to \\udfff)"))
            return Unreadable(fault, text[:SHOWN])
    return None


def _json(path: Path, check: _Check) -> Iterator[Record]:
    """Yields the records of a `.json` file: an array, or one object per line despite the name."""
    with _opened(path) as stream:
        start = stream.read(_CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"[":
        return _array(path)
    if start.split(b"\n", 1)[0].rstrip().endswith((b"{", b"[", b",")):
        fix = "Take the array with the rows out of it."
        raise UserError(Fault(str(path), "an array of rows", Shown("an object over several lines"), fix))
    return _lines(path, check)


def _array(path: Path) -> Iterator[Record]:
    """Yields the members of a JSON array."""
    number = 0
    try:
        with io.TextIOWrapper(_opened(path), encoding="utf-8-sig") as stream:
            for number, (text, value) in enumerate(_members(stream), start=1):
                yield f"row {number}", _unfit(text, value, f"{path}, row {number}") or value
    except UnicodeDecodeError as error:
        where, got = f"{path}, behind row {number}", Shown(f"the byte 0x{error.object[error.start]:02x}")
        raise UserError(Fault(where, "UTF-8 text", got, "Save the file as UTF-8.")) from None
    except (ValueError, IndexError, RecursionError) as error:
        got = Shown("the end of the file" if isinstance(error, IndexError) else str(error)[:80])
        raise UserError(Fault(f"{path}, row {number + 1}", "a JSON array of rows", got)) from None


_BLANK = re.compile(r"\s*")


def _members(stream: IO[str]) -> Iterator[tuple[str, Any]]:
    """Yields each member's text and value, decoded one by one from a stream that begins with a bracket."""
    decode = json.JSONDecoder().raw_decode
    text, at = stream.read(_CHUNK).lstrip()[1:], 0
    while True:
        try:
            start = _BLANK.match(text, at).end()  # type: ignore[union-attr]  # it matches anything
            if text[start] == "]":
                return
            value, end = decode(text, start)
            behind = _BLANK.match(text, end).end()  # type: ignore[union-attr]
            if text[behind] not in ",]":
                raise json.JSONDecodeError("Expecting ',' or ']'", text, behind)
        except (json.JSONDecodeError, IndexError):  # the member may go on behind what was read
            more = stream.read(max(_CHUNK, len(text) - at)) if len(text) - at < LONGEST_MEMBER else ""
            if not more:
                raise
            text, at = text[at:] + more, 0
            continue
        yield text[start:end], value
        at = behind + (text[behind] == ",")


# --- tables --------------------------------------------------------------------------------------------------------


def _csv(path: Path, check: _Check) -> Iterator[Record]:
    """Yields the rows of a CSV file. An empty cell is no value, and row 1 is the header, as in a spreadsheet."""
    number = 1
    with io.TextIOWrapper(_opened(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        header = stream.readline()
        if fault := _encoding_fault(header, f"{path}, row 1"):
            raise UserError(fault)
        delimiter = max("\t" if ".tsv" in path.suffixes else ",;\t", key=header.count)
        reader = csv.reader(itertools.chain([header], stream), delimiter=delimiter, strict=True)
        try:
            names = next(reader, [])
            check([name for name in names if name], f"{path}, row 1")
            for number, cells in enumerate(reader, start=2):
                if any(cells):
                    yield f"row {number}", _cells(names, cells, f"{path}, row {number}")
        except csv.Error as error:
            where = f"{path}, row {number + 1}"
            raise UserError(Fault(where, "CSV", Shown(str(error)), "Is a quote not closed?")) from None


def _cells(names: list[str], cells: list[str], where: str) -> Any:
    text = ",".join(cells)
    if fault := _encoding_fault(text, where):
        return Unreadable(fault, text[:SHOWN].encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    if len(cells) < len(names) or any(cells[len(names) :]):
        expected = f"{len(names)} cells, as the first row has"
        return Unreadable(Fault(where, expected, Shown(f"{len(cells)}"), "Is a quote missing?"), text[:SHOWN])
    return {name: cell for name, cell in zip(names, cells, strict=False) if name and cell}


def _encoding_fault(text: str, where: str) -> Fault | None:
    """Returns why a text decoded with `surrogateescape` is not UTF-8, or None."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        got = Shown(f"the byte 0x{ord(text[error.start]) - 0xDC00:02x}")
        return Fault(where, "UTF-8 text", got, "Save the file as UTF-8.")
    return None


def _parquet(path: Path, check: _Check) -> Iterator[Record]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(missing_library("pyarrow", str(path))) from None
    try:
        with ParquetFile(path, pre_buffer=False) as file:  # else a whole row group lies in memory
            batches = file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
            yield from arrow_records(batches, file.schema_arrow.names, str(path), check)
    except UserError:
        raise
    except ValueError as error:  # pyarrow's ArrowInvalid is one
        raise UserError(Fault(str(path), "a Parquet file", Shown(str(error).splitlines()[0]))) from None


def arrow_records(
    batches: Iterable[Any], names: Sequence[str], where: str, check: _Check | None = None
) -> Iterator[Record]:
    """Yields the rows of Arrow record batches as records.

    Raises:
        UserError: the columns have no known shape.
    """
    (check or check_columns)(names, where)
    left_out: set[str] = set()
    numbers = itertools.count(1)
    for batch in batches:
        for row in batch.to_pylist():
            kept = {name: value for name, value in row.items() if _fits_json(value)}
            kept |= {name: "bytes" for name in row.keys() - kept.keys() if plain_name(name) in MEDIA}
            for name in row.keys() - kept.keys() - left_out:
                left_out.add(name)
                log.warning('%s: the column "%s" is left out, JSON cannot hold it.', where, name)
            yield f"row {next(numbers)}", kept


def _fits_json(value: Any) -> bool:
    if value is None or isinstance(value, str | int):
        return True
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def check_columns(names: Sequence[str], where: str) -> None:
    """Raises if a table's columns have no known shape, before any row is read.

    Raises:
        UserError: it has none, or a name twice.
    """
    if names and not may_have_shape(names) and not is_argilla(names):
        raise UserError(unknown_shape(names, where))
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(Fault(where, "every column once", Shown(f"{', '.join(sorted(twice))} twice")))


def missing_library(name: str, where: str) -> Fault:
    """Returns the fault of a data set that needs a missing library."""
    return Fault(where, f"the library {name} to read it", Shown("none"), "pip install 'socratune[data]'")

"""Reads the user's files as documents. A file that cannot be read is reported, and the others are used.

.md .txt .rst …          as they are, UTF-8              .jsonl .json .csv .tsv .parquet   a row is a document
.html .pdf .docx         with the extra [documents]      (a column `text`, `content`, `body` or `description`)
"""

from __future__ import annotations

import glob
import hashlib
import logging
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from socratune.data import Unreadable, read_records
from socratune.documents.document import Document
from socratune.documents.parsing import PARSE, Parser, Unparsed, missing_parser
from socratune.errors import Fault, Shown, UserError
from socratune.rows import Rejected
from socratune.runs import file_hash, fingerprint

log = logging.getLogger(__name__)

_PLAIN = (".md", ".markdown", ".mdx", ".txt", ".text", ".rst", ".adoc", ".org", ".tex")
TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".gz")
_SUFFIXES = (*_PLAIN, *PARSE, *TABLES)
_TEXTS = ("text", "content", "body", "description", "passage", "document")
"""Columns for a document's text. The first that a row has is used."""
_TITLES = ("title", "name", "label", "heading")
_HEADING = re.compile(r"(?m)^# +(\S.*)$|^ ?(\w.*)\n(?:={3,}|-{3,})$")
IDS = ("id", "_id", "_key", "key")


def files_of(source: str) -> list[tuple[str, Path]]:
    """Returns the files of a path, folder or pattern, each with its id, the path below the named folder.

    A link that leads out of that folder is not followed (`links_out_of`). Otherwise, whoever may write to a folder of
    documents could have any file of this machine read and sent to a model.

    Raises:
        UserError: there is no file, or a parser that one of them needs is not installed.
    """
    place = Path(source)
    every, outside = _named_files(place)
    found = [(name, path) for name, path in every if name not in outside]
    if not found:
        what = "a folder without any" if place.is_dir() else "none there"
        if outside:
            what = f"only links that lead out of it ({', '.join(sorted(outside)[:3])})"
        fix = f"Known endings: {' '.join(_SUFFIXES)}. A pattern belongs in quotes."
        raise UserError(Fault(f"--source {source}", "files of documents", Shown(what), fix))
    suffixes = sorted({path.suffix.lower() for _, path in found})
    if faults := [fault for suffix in suffixes if (fault := missing_parser(suffix))]:
        raise UserError(*faults)
    return sorted(found)


def links_out_of(source: str) -> dict[str, Path]:
    """Returns the files of a folder or pattern that lie elsewhere and are skipped, by id."""
    return _named_files(Path(source))[1]


def _named_files(place: Path) -> tuple[list[tuple[str, Path]], dict[str, Path]]:
    """Returns the files of a path, folder or pattern with their ids, and by id the targets outside of it."""
    if place.is_dir():
        folder = place
        found = [(str(path.relative_to(place)), path) for path in place.rglob("*") if path.suffix.lower() in _SUFFIXES]
        found = [(name, path) for name, path in found if path.is_file() and not name.startswith(".")]
    elif place.exists():
        return [(place.name, place)], {}  # the user named it, so a link is followed
    else:
        folder = Path(*place.parts[: _first_magic(place)])
        paths = map(Path, glob.glob(str(place), recursive=True))  # noqa: PTH207  # `Path.glob` takes no absolute pattern
        found = [(str(path.relative_to(folder)), path) for path in paths if path.is_file()]
    root = folder.resolve()
    real = {name: path.resolve() for name, path in found}
    return found, {name: path for name, path in real.items() if not path.is_relative_to(root)}


def files_hash(source: str) -> str | None:
    """Returns a hash of the names and contents of all files of a source, or None if there are no files."""
    try:
        found = files_of(source)
    except UserError:
        return None
    return fingerprint([(name, file_hash(path)) for name, path in found])


def _first_magic(place: Path) -> int:
    return next((at for at, part in enumerate(place.parts) if glob.has_magic(part)), max(0, len(place.parts) - 1))


def read_files(source: str, *, max_file_mb: int) -> Iterator[Document | Rejected]:
    """Yields the documents of the files in the order of their ids, and what could not be read.

    Raises:
        UserError: as `files_of`.
    """
    seen: dict[bytes, str] = {}
    for name, path in sorted(links_out_of(source).items()):
        log.warning(
            "%s of --source leads out of it, to %s, and is not read. Put a copy there if it belongs to the source.",
            name,
            path,
        )
        yield Rejected("outside", f"a link to {path}, which is not in {source}; it is not followed", id=name)
    with Parser() as parser:
        for name, path in files_of(source):
            for found in _read(name, path, parser, max_file_mb):
                if isinstance(found, Rejected):
                    yield found
                elif not found.text.strip():
                    yield Rejected("empty", "no text in it", id=found.id)
                elif (first := seen.setdefault(_digest(found.text), found.id)) != found.id:
                    yield Rejected("same_text", f"word for word as {first}", id=found.id)
                else:
                    yield found


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _read(name: str, path: Path, parser: Parser, max_file_mb: int) -> Iterator[Document | Rejected]:
    suffix = path.suffix.lower()
    try:
        size = path.stat().st_size
        if suffix in TABLES:
            yield from _rows(name, path)
        elif size > max_file_mb << 20:
            yield Rejected("too_large", f"{size >> 20} MB; generate.max_file_mb allows {max_file_mb}", id=name)
        elif suffix in PARSE:
            text, pages = parser.text(path, suffix)
            yield _document(name, text, {"pages": pages} if pages else {})
        else:
            yield _document(name, _decoded(path.read_bytes()), {})
    except Unparsed as error:
        yield Rejected(error.reason, error.detail, id=name)
    except UserError as error:  # a table that is corrupt or has no text
        yield Rejected("damaged", str(error), id=name)
    except OSError as error:
        yield Rejected("unreadable", error.strerror or str(error), id=name)


def _decoded(data: bytes) -> str:
    """Returns the text of UTF-8, or of UTF-16 with its mark. No encoding is guessed: a wrong guess would be trained on.

    Raises:
        Unparsed: it is neither, or it is not text.
    """
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not wide and b"\0" in data:
        raise Unparsed("no_text", "NUL bytes: no text file")
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        detail = f"the byte 0x{data[error.start]:02x} at position {error.start + 1}; save it as UTF-8"
        raise Unparsed("bad_encoding", detail) from None


def _document(name: str, text: str, metadata: dict[str, Any], title: str = "") -> Document:
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return Document(name, title or _title(name, text), text, metadata)


def _title(name: str, text: str) -> str:
    """Returns the first heading near the beginning, else the file's name in words."""
    heading = _HEADING.search(text[:500])
    title = heading and (heading[1] or heading[2]).strip("¶ ")
    return title or Path(name).stem.replace("_", " ").replace("-", " ").strip() or name


def _rows(name: str, path: Path) -> Iterator[Document | Rejected]:
    """Yields a document for each row of a table that has a text."""
    for place, value in read_records(path, check=_check_text_column):
        at = f"{name}/{place.replace(' ', '-')}"
        if isinstance(value, Unreadable):
            yield Rejected("bad_row", str(value.fault), id=at)
            continue
        row = value if isinstance(value, dict) else {}
        column = next((one for one in _TEXTS if isinstance(row.get(one), str)), None)
        if column is None:
            yield Rejected("no_text", f"none of the columns {', '.join(_TEXTS)}", id=at)
            continue
        own = next((str(row[one]) for one in IDS if row.get(one) not in (None, "")), None)
        title = next((row[one] for one in _TITLES if isinstance(row.get(one), str)), "")
        rest = {key: item for key, item in row.items() if key not in (column, *_TITLES, *IDS)}
        yield _document(f"{name}/{own}" if own else at, row[column], rest, title)


def _check_text_column(names: Any, where: str) -> None:
    if not set(names) & set(_TEXTS):
        got = Shown(f"the columns {', '.join(map(str, names))[:80]}")
        raise UserError(Fault(where, f"a column {' or '.join(_TEXTS[:4])}", got))

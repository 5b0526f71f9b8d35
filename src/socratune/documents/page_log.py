"""Logs every page that comes from a database in an SQLite file, until all pages have come.

A page and the position of its step are handed to the operating system before the next page is requested. After SIGKILL,
the same command resumes behind the last page.
"""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from socratune.documents.document import Document, Link
from socratune.errors import BusyError, Fault, OutsideError, Shown, SocratuneError, UserError
from socratune.runs import json_decode, json_encode, write_lines

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (number INTEGER PRIMARY KEY, id TEXT UNIQUE, hop INTEGER, value TEXT);
CREATE TABLE IF NOT EXISTS links (number INTEGER PRIMARY KEY, id TEXT UNIQUE, start TEXT, stop TEXT, value TEXT);
CREATE TABLE IF NOT EXISTS steps (name TEXT PRIMARY KEY, position TEXT, done INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
_TABLES = ("documents", "links", "steps", "asked", "facts")
_BOTH_ENDS = "start IN (SELECT id FROM documents) AND stop IN (SELECT id FROM documents)"
_OF_THE_DISK = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_OTHER_ENDS = """
WITH ends AS (
    SELECT stop AS id FROM links JOIN documents ON documents.id = start WHERE hop = :hop
    UNION SELECT start FROM links JOIN documents ON documents.id = stop WHERE hop = :hop
)
SELECT id FROM ends WHERE id NOT IN (SELECT id FROM documents) AND id NOT IN (SELECT id FROM asked) ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Drained:
    """The files that a drain has written.

    Attributes:
        documents, links: the files, with a `Document` or `Link` as JSON per line.
        without_text: the number of documents with only a key and a title.
        loose_links: the number of links left out because a document at one end was not read.
        pages: the number of pages that came during this call.
    """

    documents: Path
    links: Path
    document_count: int
    link_count: int
    without_text: int
    loose_links: int
    pages: int


class PageLog:
    """A context manager. `question` names the request. The pages of another request are deleted.

    Every method raises UserError if the file is corrupt or comes from another version.

    Raises:
        BusyError: another process has the file open.
        OutsideError: the disk cannot be used.
    """

    def __init__(self, folder: Path, question: str) -> None:
        self._path = folder / "pages.sqlite"
        self._documents, self._links = folder / "documents.jsonl", folder / "links.jsonl"
        self._pages = 0
        with self._failures():
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        try:
            with self._failures():
                self._open(question)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> PageLog:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def position(self, step: str) -> str | None:
        """Returns where a step resumes: what was kept with its last page, "" at its beginning, None when it is done."""
        found = self._rows("SELECT position, done FROM steps WHERE name = ?", (step,))
        position, done = found[0] if found else ("", False)
        return None if done else position

    def keep(
        self, step: str, position: str, rows: Sequence[Document | Link], *, done: bool, hop: int = 0,
        asked: Sequence[str] = (),
    ) -> int:  # fmt: skip
        """Keeps a page and the position of its step. Rows that are known already stay as they are.

        Args:
            step: the name of the step.
            position: where the step resumes.
            rows: the rows of the page.
            done: True if there is no further page.
            hop: the number of links between the documents and the named ones.
            asked: the ids of documents that were requested with the page.

        Returns:
            The number of characters of the rows as JSON.
        """
        values = [json_encode(asdict(row)).decode() for row in rows]
        pairs = list(zip(rows, values, strict=True))
        nodes = [(one.id, hop, value) for one, value in pairs if isinstance(one, Document)]
        edges = [(one.id, one.start, one.end, value) for one, value in pairs if isinstance(one, Link)]
        with self._failures(), self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO documents (id, hop, value) VALUES (?, ?, ?)", nodes)
            self._db.executemany("INSERT OR IGNORE INTO links (id, start, stop, value) VALUES (?, ?, ?, ?)", edges)
            self._db.executemany("INSERT OR IGNORE INTO asked VALUES (?)", [(one,) for one in asked])
            self._db.execute("INSERT OR REPLACE INTO steps VALUES (?, ?, ?)", (step, position, done))
        self._pages += 1
        return sum(map(len, values))

    def count(self, collection: str) -> int:
        """Returns the number of documents and links of a collection that were kept."""
        span = (f"{collection}/", f"{collection}0")  # "0" is the character behind "/"
        kept = (self._number(f"SELECT COUNT(*) FROM {table} WHERE id > ? AND id < ?", span) for table in _TABLES[:2])
        return sum(kept)

    def batches(self, hop: int, size: int) -> Iterator[list[str]]:
        """Yields the ids of the documents `hop` links away, in order."""
        last, query = "", "SELECT id FROM documents WHERE id > ? AND hop = ? ORDER BY id LIMIT ?"
        while ids := [found for (found,) in self._rows(query, (last, hop, size))]:
            yield ids
            last = ids[-1]

    def other_ends(self, hop: int) -> list[str]:
        """Returns the ids that links of documents `hop` links away lead to and that were never requested, in order."""
        return [found for (found,) in self._rows(_OTHER_ENDS, {"hop": hop})]

    def finished(self) -> Drained | None:
        """Returns the files that were written when all pages had come, or None if one is missing."""
        fact = self._fact("drained")
        if fact and self._documents.is_file() and self._links.is_file():
            with suppress(ValueError, TypeError):  # another version wrote it
                return Drained(self._documents, self._links, **json_decode(fact), pages=0)
        if fact is not None:
            with self._failures():
                self._clear(("documents", "links", "steps", "asked"))
                self._db.execute("DELETE FROM facts WHERE name = 'drained'")
        return None

    def finish(self) -> Drained:
        """Writes the files, each whole or not at all, and deletes the pages.

        Raises:
            OutsideError: the files cannot be written.
        """
        with self._failures():
            documents = self._db.execute("SELECT value FROM documents ORDER BY number")
            links = self._db.execute(f"SELECT value FROM links WHERE {_BOTH_ENDS} ORDER BY number")
            counts = {
                "document_count": write_lines(self._documents, (f"{value}\n" for (value,) in documents)),
                "link_count": write_lines(self._links, (f"{value}\n" for (value,) in links)),
                "without_text": self._number("SELECT COUNT(*) FROM documents WHERE json_extract(value, '$.text') = ''"),
            }
            counts["loose_links"] = self._number("SELECT COUNT(*) FROM links") - counts["link_count"]
            self._set_fact("drained", json_encode(counts).decode())
            self._clear(("documents", "links", "steps", "asked"))
            self._db.execute("VACUUM")
        return Drained(self._documents, self._links, **counts, pages=self._pages)

    def _open(self, question: str) -> None:
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        if self._fact("question") != question:
            self._clear(_TABLES)
            self._set_fact("question", question)

    def _clear(self, tables: Sequence[str]) -> None:
        with self._transaction():
            for table in tables:
                self._db.execute(f"DELETE FROM {table}")

    def _rows(self, query: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        with self._failures():
            return self._db.execute(query, values).fetchall()

    def _number(self, query: str, values: Sequence[str] = ()) -> int:
        return self._rows(query, values)[0][0]

    def _fact(self, name: str) -> Any:
        found = self._rows("SELECT value FROM facts WHERE name = ?", (name,))
        return found[0][0] if found else None

    def _set_fact(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turns errors of SQLite into ours."""
        try:
            yield
        except SocratuneError:
            raise
        except (sqlite3.Error, OSError) as error:
            if "locked" in str(error):
                fix = "Wait for it, or name another folder."
                got = Shown("a folder that another process reads into")
                raise BusyError(Fault(str(self._path.parent), "an unused folder", got, fix)) from None
            code = getattr(error, "sqlite_errorcode", None)
            if isinstance(error, OSError) or (code in _OF_THE_DISK and not self._path.is_dir()):
                raise OutsideError(f"{self._path}: cannot be used ({error}). Is the disk full?") from None
            move = f"cd {shlex.quote(str(self._path.parent))} && mkdir -p damaged && mv {self._path.name}* damaged"
            fix = f"Move it aside, and the same command reads from the beginning: {move} (nothing in it was paid for)."
            where = f"{self._path}: cannot be used ({error})"
            raise UserError(Fault(where, "the pages of a database", fix=fix)) from None

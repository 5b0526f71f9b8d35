"""Keeps the journal of a run: every finished model call and every finished row, in one SQLite file.

A record is handed to the operating system before its result is used, so SIGKILL loses nothing that anyone has seen;
records of one turn of the event loop share one commit. A thread makes the disk follow every 50 ms, so a power cut loses
no more than that, and no result waits for it.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratune.errors import Fault, OutsideError, Shown, SocratuneError, UserError
from socratune.runs.encoding import json_decode, json_encode

# calls lie in the order they come (only their index is shuffled), the long column last: sums over the others skip it
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key BLOB PRIMARY KEY, role TEXT, model TEXT, prompt_tokens INTEGER, completion_tokens INTEGER,
    seconds REAL, at REAL, answer TEXT
);
CREATE TABLE IF NOT EXISTS rows (
    stage TEXT, position INTEGER, id TEXT, value TEXT, PRIMARY KEY (stage, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pods (at REAL, name TEXT, id TEXT, state TEXT, usd_per_hour REAL);
CREATE TABLE IF NOT EXISTS batches (token TEXT PRIMARY KEY, role TEXT, state TEXT, id TEXT, at REAL, about TEXT);
"""
_PUT_CALL = "INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_ROW = "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)"

_SYNC_S = 0.05

CHECKPOINT_PAGES = 8000
"""32 MB of log between checkpoints: a checkpoint waits for the disk, and the event loop with it."""

_to_disk = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter


def journal_error(path: Path, error: Exception, doing: str) -> SocratuneError:
    """Returns the error of SQLite or of a JSON reader about a journal, with the fix.

    Args:
        doing: `opened`, `read` or `written`.
    """
    message = str(error)
    damaged = isinstance(error, ValueError | LookupError | TypeError) or type(error) is sqlite3.DatabaseError
    signs = ("malformed", "not a database", "no column", "values for", *(["no such"] if doing != "written" else []))
    damaged |= any(words in message for words in signs)
    if not damaged:
        fix = "Is the disk full?" if doing == "written" else "Can it and its folder be read and written?"
        fix = "A folder lies there; move it away." if path.is_dir() else fix
        return OutsideError(f"{path}: the journal cannot be {doing}: {message}. {fix}")
    aside = path.parent / "damaged"
    move = f"mkdir -p {shlex.quote(str(aside))}; mv {shlex.quote(str(path))}* {shlex.quote(str(aside))}"
    fix = (
        f"The file is corrupt. Move it aside and run the same command again: {move} \n"
        "Finished stages are kept with their files. The current stage starts again and pays again for what only "
        "the journal knew; `socratune pods list` shows machines that are still rented."
    )
    return UserError(Fault(str(path), "the journal of a run", Shown(message), fix))


@dataclass(frozen=True, slots=True)
class BatchNote:
    """Holds a batch of calls as the journal knows it.

    Attributes:
        token: its own name, chosen before it is sent.
        state: `wanted` before it is sent, `sent` as soon as its id is known, `done` when its answers are kept.
        id: the server's name for it.
        at: when it was about to be sent, seconds since 1970.
        about: `keys` of its calls while it is under way; then how many of them there were, and what became of them.
    """

    token: str
    role: str
    state: str
    id: str | None
    at: float
    about: dict[str, Any]


class Journal:
    """Stores calls by key and rows by (stage, position).

    Every method raises UserError if the file is corrupt.

    `stage` in the row methods is the stage's name with the fingerprint of what it depends on, so that rows made
    under other settings are not found.
    """

    def __init__(self, path: Path) -> None:
        self._path = path = path.resolve()  # of a link: what SQLite writes beside a file lies beside what it points to
        self._filter = bytearray(1 << 21)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            self._db.executescript(_SCHEMA)
            for (key,) in self._db.execute("SELECT key FROM calls"):
                self._remember(key)
        except (sqlite3.Error, TypeError) as error:  # TypeError: an invalid key
            with suppress(AttributeError):
                self._db.close()
            raise journal_error(path, error, "opened") from None
        self._calls: list[tuple[Any, ...]] = []
        self._rows: list[tuple[Any, ...]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._sync = _Sync(Path(f"{path}-wal"))

    def find_call(self, key: bytes) -> dict[str, Any] | None:
        """Returns the answer of a finished call, or None.

        Args:
            key: a digest. Its first three bytes choose a bit that says without a look at the file that a key is new;
                with half a million calls it is wrong for one new key in 34.
        """
        bit = int.from_bytes(key[:3], "big")
        if not self._filter[bit >> 3] & 1 << (bit & 7):
            return None
        answer = next((answer for (answer,) in self._read("SELECT answer FROM calls WHERE key = ?", key)), None)
        try:
            return None if answer is None else self._object(answer)
        except UserError:  # one answer that cannot be read is asked for again
            return None

    async def put_call(
        self, key: bytes, *, role: str, model: str, answer: dict[str, Any], tokens: tuple[int, int], seconds: float
    ) -> None:
        """Stores a finished call and returns when the operating system has it. `tokens`: of prompt and completion."""
        self._calls.append((key, role, model, *tokens, seconds, time.time(), json_encode(answer).decode()))
        await self._written()
        self._remember(key)

    async def put_row(self, stage: str, position: int, row_id: str, value: dict[str, Any]) -> None:
        """Stores a finished row and returns when the operating system has it."""
        row_id = row_id.encode("utf-8", "replace").decode()  # for people; half a surrogate pair is no text to SQLite
        self._rows.append((stage, position, row_id, json_encode(value).decode()))
        await self._written()

    def done_positions(self, stage: str) -> set[int]:
        """Returns the positions of the finished rows."""
        return {position for (position,) in self._read("SELECT position FROM rows WHERE stage = ?", stage)}

    def rows(self, stage: str) -> Iterator[dict[str, Any]]:
        """Yields the finished rows in input order."""
        return map(self._object, self.row_texts(stage))

    def row_texts(self, stage: str) -> Iterator[str]:
        """Yields the finished rows in input order, each as one line of JSON."""
        query = "SELECT value FROM rows WHERE stage = ? ORDER BY position"
        return (value for (value,) in self._read(query, stage))

    def spent(self) -> dict[str, dict[str, float]]:
        """Returns calls, tokens and total call seconds by role."""
        query = (
            "SELECT role, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), SUM(seconds) FROM calls GROUP BY role"
        )
        names = ("calls", "prompt_tokens", "completion_tokens", "call_seconds")
        return {role: dict(zip(names, sums, strict=True)) for role, *sums in self._read(query)}

    def spent_by(self, role: str) -> list[tuple[str, int, int]]:
        """Returns (model, prompt tokens, completion tokens) of each model in a role."""
        query = "SELECT model, SUM(prompt_tokens), SUM(completion_tokens) FROM calls WHERE role = ? GROUP BY model"
        return [
            (model, int(prompt or 0), int(completion or 0)) for model, prompt, completion in self._read(query, role)
        ]

    def put_pod(
        self, name: str, pod_id: str | None, state: str, usd_per_hour: float, *, at: float | None = None
    ) -> None:
        """Records the state of a rented machine. It is billed even after a power cut, so this waits for the disk.

        Args:
            state: `wanted` before it is rented, then `rented`, `adopted`, `ended`; `until`: when it ends itself.
            at: seconds since 1970; None: now.
        """
        self._note("pods", time.time() if at is None else at, name, pod_id, state, usd_per_hour)

    def pods(self) -> list[tuple[float, str, str | None, str, float]]:
        """Returns (seconds since 1970, name, id, state, USD per hour) of every note, the oldest first."""
        return list(self._read("SELECT at, name, id, state, usd_per_hour FROM pods ORDER BY rowid"))

    def put_batch(self, note: BatchNote) -> None:
        """Records a batch of calls. It is paid for even after a power cut, so this waits for the disk."""
        about = json_encode(note.about).decode()
        self._note("batches", note.token, note.role, note.state, note.id, note.at, about)

    def batches(self, role: str) -> list[BatchNote]:
        """Returns the batches of a role, the oldest first."""
        query = "SELECT token, role, state, id, at, about FROM batches WHERE role = ? ORDER BY rowid"
        rows = self._read(query, role)
        return [
            BatchNote(token, of, state, name, at, self._object(about)) for token, of, state, name, at, about in rows
        ]

    def _note(self, table: str, *values: Any) -> None:
        """Writes a line into a table and waits until the disk has it."""
        places = ", ".join("?" * len(values))
        try:
            self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", values)
            self._db.execute("PRAGMA wal_checkpoint(FULL)")
        except sqlite3.Error as error:
            raise journal_error(self._path, error, "written") from None

    def forget(self, stage: str) -> None:
        """Drops the finished rows of a stage, for `--restart`. Its calls stay: no question is paid for twice."""
        list(self._read("DELETE FROM rows WHERE stage LIKE ? || '%'", stage))

    def close(self) -> None:
        """Writes what waits and closes the file."""
        self._flush()
        self._sync.stop()
        self._db.close()

    def _read(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(query, values)
        except sqlite3.ProgrammingError:  # closed already, which is ours
            raise
        except sqlite3.Error as error:
            raise journal_error(self._path, error, "read") from None

    def _object(self, text: str) -> dict[str, Any]:
        try:
            if isinstance(value := json_decode(text), dict):
                return value
            raise TypeError(f"{text[:40]!r} where an object was kept")
        except (ValueError, TypeError) as error:
            raise journal_error(self._path, error, "read") from None

    def _remember(self, key: bytes) -> None:
        bit = int.from_bytes(key[:3], "big")
        self._filter[bit >> 3] |= 1 << (bit & 7)

    def _written(self) -> asyncio.Future[None]:
        """Returns a new future that is done when everything stored so far is with the operating system."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        written = loop.create_future()
        self._waiting.append(written)
        return written

    def _flush(self) -> None:
        calls, self._calls = self._calls, []
        rows, self._rows = self._rows, []
        waiting, self._waiting = self._waiting, []
        failure = self._write(calls, rows)
        for written in waiting:
            if not written.done():
                written.set_exception(failure) if failure else written.set_result(None)
        if failure and not waiting:
            raise failure

    def _write(self, calls: list[tuple[Any, ...]], rows: list[tuple[Any, ...]]) -> SocratuneError | None:
        """Commits everything that waits and returns the error, or None."""
        if not calls and not rows:
            return None
        try:
            self._sync.check()
            self._db.execute("BEGIN")
            self._db.executemany(_PUT_CALL, calls)
            self._db.executemany(_PUT_ROW, rows)
            self._db.execute("COMMIT")
        except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, ValueError | OverflowError):  # what was to be written, and not what is there
                return OutsideError(f"{self._path}: the journal cannot be written: {error}.")
            return journal_error(self._path, error, "written")
        self._sync.ask()
        return None


class _Sync:
    """Syncs a file to disk in a thread, every 50 ms while there is something to write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asked = threading.Event()
        self._stopped = threading.Event()
        self._failed: OSError | None = None
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """Notes that the file has grown."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
            self._thread.start()
        self._asked.set()

    def check(self) -> None:
        """Raises OSError if the disk has failed."""
        if self._failed:
            raise self._failed

    def stop(self) -> None:
        """Ends the thread. Closing the database writes the rest."""
        self._stopped.set()
        self._asked.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            file = os.open(self._path, os.O_RDONLY)
            try:
                while not self._stopped.wait(_SYNC_S):
                    self._asked.wait()
                    self._asked.clear()
                    _to_disk(file)
            finally:
                os.close(file)
        except OSError as error:
            self._failed = error

"""The journal of a run: every finished model call and every finished row, in one SQLite file.

A record is handed to the operating system before its result is used, so SIGKILL loses nothing that anyone
has seen; WAL with `synchronous=NORMAL` leaves at most the last moments to a power cut. Records of one turn of the
event loop share one commit.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from socratune.errors import OutsideError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, role TEXT, model TEXT, answer TEXT,
    prompt_tokens INTEGER, completion_tokens INTEGER, seconds REAL, at REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
    stage TEXT, position INTEGER, id TEXT, value TEXT, PRIMARY KEY (stage, position)
) WITHOUT ROWID;
"""
_PUT_CALL = "INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_ROW = "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)"


_encode = json.JSONEncoder(ensure_ascii=False).encode


class Journal:
    """Calls by key, rows by (stage, position).

    `stage` in the row methods is the stage's name with the fingerprint of what it depends on, so that rows made
    under other settings are not found.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise OutsideError(f"{path}: the journal cannot be opened: {error}.") from None
        self._path = path
        self._waiting: list[tuple[str, tuple[Any, ...]]] = []
        self._flushed: asyncio.Future[None] | None = None

    def find_call(self, key: str) -> dict[str, Any] | None:
        """The answer of a finished call, or None."""
        found = self._db.execute("SELECT answer FROM calls WHERE key = ?", (key,)).fetchone()
        return json.loads(found[0]) if found else None

    async def put_call(
        self, key: str, *, role: str, model: str, answer: dict[str, Any], tokens: tuple[int, int], seconds: float
    ) -> None:
        """Keep a finished call; returns when the operating system has it. `tokens`: of prompt and completion."""
        await self._put(_PUT_CALL, (key, role, model, _encode(answer), *tokens, seconds, time.time()))

    async def put_row(self, stage: str, position: int, row_id: str, value: dict[str, Any]) -> None:
        """Keep a finished row; returns when the operating system has it."""
        await self._put(_PUT_ROW, (stage, position, row_id, _encode(value)))

    def done_positions(self, stage: str) -> set[int]:
        """Positions of the rows that are finished."""
        return {found[0] for found in self._db.execute("SELECT position FROM rows WHERE stage = ?", (stage,))}

    def rows(self, stage: str) -> Iterator[dict[str, Any]]:
        """The finished rows in input order."""
        for (value,) in self._db.execute("SELECT value FROM rows WHERE stage = ? ORDER BY position", (stage,)):
            yield json.loads(value)

    def spent(self) -> dict[str, dict[str, float]]:
        """Calls, tokens and summed call seconds by role."""
        query = (
            "SELECT role, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), SUM(seconds) FROM calls GROUP BY role"
        )
        names = ("calls", "prompt_tokens", "completion_tokens", "call_seconds")
        return {role: dict(zip(names, sums, strict=True)) for role, *sums in self._db.execute(query)}

    def forget(self, stage: str) -> None:
        """Drop the finished rows of a stage, for `--restart`. Its calls stay: the same question is not paid twice."""
        self._db.execute("DELETE FROM rows WHERE stage LIKE ? || '%'", (stage,))

    def close(self) -> None:
        """Write what waits and close the file."""
        self._flush()
        self._db.close()

    async def _put(self, statement: str, values: tuple[Any, ...]) -> None:
        self._waiting.append((statement, values))
        if self._flushed is None:
            loop = asyncio.get_running_loop()
            self._flushed = loop.create_future()
            loop.call_soon(self._flush)
        await asyncio.shield(self._flushed)  # one cancelled row must not cancel the commit of the others

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        flushed, self._flushed = self._flushed, None
        try:
            if waiting:
                self._db.execute("BEGIN")
                for statement, values in waiting:
                    self._db.execute(statement, values)
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            failure = OutsideError(f"{self._path}: the journal cannot be written: {error}. Is the disk full?")
            if flushed is None:
                raise failure from None
            if not flushed.done():
                flushed.set_exception(failure)
            return
        if flushed is not None and not flushed.done():
            flushed.set_result(None)

"""Divides a run into shards: their rows, what one of N workers may spend, and the union of their journals.

Shard I of N holds every N-th row, beginning with the I-th: each is a fair sample of the whole, and its row `at` is row
`at * N + I - 1` of the whole. That arithmetic is all a journal needs to move from a shard to the whole and back.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, TypeVar

from socratune.config import StudentTeacherConfig
from socratune.errors import BusyError, Fault, OutsideError, UserError
from socratune.runs.folder import RunDir, read_jsonl, write_jsonl
from socratune.runs.journal import Journal, journal_error

_T = TypeVar("_T")

LOCK_WAIT_S = 60.0
"""Wait for a journal that another connection is writing."""

ORPHANS_S = 20.0
"""Ray stops the workers of a killed run some seconds later (3 s on one machine). Calls they finish until then are paid
for, so the run waits for them."""

_CALL, _TOOK = "key, role, model, answer, at", "prompt_tokens, completion_tokens, seconds"


def parse_shard(shard: str) -> tuple[int, int]:
    """Parses `"2/3"` to `(2, 3)`.

    Raises:
        UserError: there is no such shard.
    """
    index, slash, count = shard.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UserError(Fault("--shard", "I/N with I from 1 to N, like 1/4", shard))
    return int(index), int(count)


def shard_rows(rows: Iterable[_T], shard: str | None) -> Iterator[_T]:
    """Returns the rows of a shard in order, or all rows if `shard` is None.

    Raises:
        UserError: there is no such shard.
    """
    index, count = (1, 1) if shard is None else parse_shard(shard)
    return islice(rows, index - 1, None, count)


def interleaved(shards: Sequence[Iterable[_T]]) -> Iterator[_T]:
    """Inverts `shard_rows`: returns the rows of shards 1 … N in the order of the whole."""
    gone = object()
    for turn in zip_longest(*shards, fillvalue=gone):
        yield from (row for row in turn if row is not gone)  # type: ignore[misc]


def divided_limits(config: StudentTeacherConfig, n: int) -> StudentTeacherConfig:
    """Returns what one of `n` workers may do so that all together keep the limits. For money see `Limits.among`.

    Rows in flight and calls per minute are rounded down, but are at least 1: with more workers than a limit allows
    calls, each still makes one.
    """

    def part(limit: int | None) -> int | None:
        return None if limit is None else max(limit // n, 1)

    reached = {}
    for role, endpoint in config.endpoints:
        limits = {
            "requests_per_minute": part(endpoint.requests_per_minute),
            "tokens_per_minute": part(endpoint.tokens_per_minute),
        }
        reached[role] = endpoint.model_copy(update=limits)
    limits = {
        "concurrency": part(config.concurrency),
        "endpoints": config.endpoints.model_copy(update=reached),
    }
    return config.model_copy(update=limits)


def pool_hint_measures(run: RunDir, shards: Sequence[RunDir]) -> None:
    """Writes `hint_measures.jsonl` of the whole from the files of all shards, if any shard has one."""
    files = [shard.hint_measures for shard in shards if shard.hint_measures.exists()]
    if files:
        write_jsonl(run.hint_measures, chain.from_iterable(map(read_jsonl, files)))


def take_over_journal(journal: Path, other: Path, shard: str, *, rename: tuple[str, str] | None = None) -> None:
    """Copies the calls and finished rows of a shard's journal into the journal of the whole, all or nothing.

    What the whole already has stays as it is, so this may be repeated. A `Journal` opened before knows the rows, but
    looks for none of the calls.

    Args:
        journal: of the whole; is there.
        other: of the shard; is there.
        shard: `I/N`, for the rows' positions.
        rename: take only the rows of the first stage, and keep them under the second; None takes the rows of every
            stage under its own name.

    Raises:
        OutsideError: a journal cannot be read or written.
    """
    index, count = parse_shard(shard)
    there, here = rename or (None, None)
    _execute(
        journal,
        other,
        (f"INSERT OR IGNORE INTO main.calls ({_CALL}, {_TOOK}) SELECT {_CALL}, {_TOOK} FROM other.calls", ()),
        (
            "INSERT OR IGNORE INTO main.rows (stage, position, id, value)"
            " SELECT coalesce(?1, stage), position * ?2 + ?3 - 1, id, value FROM other.rows"
            " WHERE stage = coalesce(?4, stage)",
            (here, count, index, there),
        ),
    )


def hand_out_shard(run: RunDir, shard: str, *, of: str | None, stage: str) -> RunDir:
    """Returns the folder of a worker, ready to continue: the shard's rows, and what the run's journal knows of them.

    Args:
        shard: `I/N` among the workers.
        of: the shard that the whole run is, or None.
        stage: name and fingerprint of the stage whose rows are handed out.

    Raises:
        BusyError: a worker of an earlier attempt still works in this folder.
        OutsideError: a journal cannot be read or written.
    """
    index, count = parse_shard(shard)
    worker = RunDir(run / "shards" / f"{index}-of-{count}")
    worker.create()
    with worker.locked():
        write_jsonl(worker.rows("train_in"), shard_rows(shard_rows(read_jsonl(run.rows("train_in")), of), shard))
        Journal(worker.journal).close()
        _execute(
            run.journal,
            worker.journal,
            (  # each worker bears its part of what these calls took, so that its part of the budget holds
                f"INSERT OR IGNORE INTO other.calls ({_CALL}, {_TOOK}) SELECT {_CALL},"
                " prompt_tokens / ?1 + (prompt_tokens % ?1 >= ?2),"
                " completion_tokens / ?1 + (completion_tokens % ?1 >= ?2), seconds / ?1 FROM main.calls",
                (count, index),
            ),
            (
                "INSERT OR IGNORE INTO other.rows (stage, position, id, value)"
                " SELECT stage, position / ?1, id, value FROM main.rows WHERE stage = ?2 AND position % ?1 = ?3 - 1",
                (count, stage, index),
            ),
        )
    return worker


def gather_shards(run: RunDir) -> None:
    """Takes what workers have finished into the run's journal and removes their folders.

    Before the run's `Journal` is opened, as with `take_over`.

    Raises:
        BusyError: a worker is still at work, also after `ORPHANS_S`.
        OutsideError: a journal cannot be read or written.
    """
    for folder in sorted((run / "shards").glob("*-of-*")):
        worker = RunDir(folder)
        with _owned(worker):
            if worker.journal.exists():
                take_over_journal(run.journal, worker.journal, folder.name.replace("-of-", "/"))
            shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        (run / "shards").rmdir()


@contextmanager
def _owned(worker: RunDir) -> Iterator[None]:
    """Takes the lock of a worker's folder as soon as the worker has ended."""
    deadline = time.monotonic() + ORPHANS_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(worker.locked())
                break
            except BusyError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.1)
        yield


def _execute(journal: Path, other: Path, *statements: tuple[str, tuple[Any, ...]]) -> None:
    """Runs the statements as one transaction on `journal` (`main`) with `other` attached."""
    try:
        with closing(sqlite3.connect(journal, timeout=LOCK_WAIT_S)) as db:
            db.execute("ATTACH ? AS other", (str(other),))
            with db:
                for statement, values in statements:
                    db.execute(statement, values)
    except sqlite3.Error as error:
        spoiled = next((path for path in (journal, other) if not _is_sound(path)), None)
        if spoiled is not None:
            raise journal_error(spoiled, error, "read") from None
        raise OutsideError(f"{other}: the journal cannot be taken over into {journal}, or from it: {error}.") from None


def _is_sound(journal: Path) -> bool:
    try:
        with closing(sqlite3.connect(journal, timeout=LOCK_WAIT_S)) as db:
            return db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.Error:
        return False

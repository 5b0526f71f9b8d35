"""Runs rows through an async step, N at a time. Finished rows are kept, and a restart continues from there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sized
from typing import Any, Protocol, TypeVar

from socratune.runs.journal import Journal


class HasId(Protocol):
    """Any row with an id."""

    @property
    def id(self) -> str: ...


_Row = TypeVar("_Row", bound=HasId)


async def map_rows(
    rows: Iterable[_Row],
    step: Callable[[_Row], Awaitable[dict[str, Any]]],
    *,
    journal: Journal,
    stage: str,
    concurrency: int,
    tick: Callable[[int, int], None],
    total: int | None = None,
) -> None:
    """Runs `step` on every unfinished row and stores its value in the journal under `stage`.

    A row is taken when a slot is free for it, so no more of them are in memory than are in flight.

    Args:
        rows: in input order; a row's position is its identity within the stage.
        step: row → JSON value; sees neither disk nor loop.
        stage: name and fingerprint of the stage.
        concurrency: rows in flight.
        tick: called with (done, total) after every row.
        total: how many `rows` gives, for `tick`; None asks its length.

    Raises:
        Whatever `step` raises first; rows finished by then are kept.
    """
    done = journal.done_positions(stage)
    waiting: Iterator[tuple[int, _Row]] = ((at, row) for at, row in enumerate(rows) if at not in done)
    finished = len(done)
    if total is None:
        assert isinstance(rows, Sized), "rows without a length need a total"
        total = len(rows)
    tick(finished, total)

    async def work() -> None:
        nonlocal finished
        for position, row in waiting:
            value = await step(row)
            await journal.put_row(stage, position, row.id, value)
            finished += 1
            tick(finished, total)

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, total - finished))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        if isinstance(rows, Generator):
            rows.close()  # and the file it reads, which the traceback of an error would keep open

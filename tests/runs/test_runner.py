from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from socratune.rows import QARow
from socratune.runs.journal import Journal
from socratune.runs.runner import map_rows


class Rows:
    """Rows that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.pulled = 0

    def __iter__(self) -> Iterator[QARow]:
        for number in range(self.count):
            self.pulled += 1
            yield QARow(str(number), [], {})


def test_rows_stream_through_and_no_more_are_in_flight_than_asked(tmp_path: Path) -> None:
    rows = Rows(500)
    flying = most = finished = held = 0

    async def step(row: QARow) -> dict[str, str]:
        nonlocal flying, most, finished, held
        flying += 1
        most, held = max(most, flying), max(held, rows.pulled - finished)
        await asyncio.sleep(0.001 * (int(row.id) % 3))
        flying -= 1
        finished += 1
        return {"id": row.id}

    ticks: list[tuple[int, int]] = []
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        asyncio.run(
            map_rows(
                rows, step, journal=journal, stage="s", concurrency=7, total=500, tick=lambda *at: ticks.append(at)
            )
        )
        assert [row["id"] for row in journal.rows("s")] == [str(number) for number in range(500)]
    assert most == 7
    assert held <= 2 * 7  # those in flight, and those that are just being written
    assert (ticks[0], ticks[-1]) == ((0, 500), (500, 500))


def test_a_row_that_cannot_be_read_ends_the_others_and_keeps_what_is_finished(tmp_path: Path) -> None:
    def rows() -> Iterator[QARow]:
        yield from Rows(10)
        raise ValueError("line 11")

    cancelled: list[str] = []

    async def step(row: QARow) -> dict[str, str]:
        try:
            await asyncio.sleep(0 if int(row.id) < 8 else 60)
        except asyncio.CancelledError:
            cancelled.append(row.id)
            raise
        return {"id": row.id}

    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        work = map_rows(rows(), step, journal=journal, stage="s", concurrency=3, total=20, tick=lambda *at: None)
        with pytest.raises(ValueError, match="line 11"):
            asyncio.run(work)
        assert journal.done_positions("s") == set(range(8))
    assert sorted(cancelled) == ["8", "9"]

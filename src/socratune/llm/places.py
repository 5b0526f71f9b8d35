"""Limits the rows at work when some only wait for a batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

MOST_ROWS = 20_000
"""Rows in memory at once. Further rows follow when others are finished."""


class Places:
    """Limits the rows at work at once. A row that waits for a batch gives its place to another.

    Attributes:
        taken: rows at work.
        moves: changes whenever a place is taken or left.
        held_up: rows that left their place and wait for the worst cases of others to be over.
    """

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self.taken = self.moves = self.held_up = 0

    @asynccontextmanager
    async def row(self) -> AsyncIterator[None]:
        """Holds a place for a row in this task."""
        place = _Place(self)
        await place.take()
        token = _place.set(place)
        try:
            yield
        finally:
            _place.reset(token)
            place.leave()


class _Place:
    def __init__(self, places: Places) -> None:
        self._places, self._held = places, False

    async def take(self) -> None:
        await self._places._free.acquire()
        self._count(1)

    def leave(self) -> None:
        if self._held:
            self._places._free.release()
            self._count(-1)

    def _count(self, change: int) -> None:
        self._held = change > 0
        self._places.taken += change
        self._places.moves += 1


_place: ContextVar[_Place | None] = ContextVar("place", default=None)


@asynccontextmanager
async def place_left() -> AsyncIterator[None]:
    """Gives up this task's place while its row waits and takes one again afterwards, unless it is being cancelled."""
    if (place := _place.get()) is None:
        yield
        return
    place.leave()
    try:
        yield
    except asyncio.CancelledError:
        raise
    except BaseException:
        await place.take()
        raise
    else:
        await place.take()

"""Sends a batch to a vendor, watches it until it ends, fetches, cancels and finds it again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from socratune.errors import CallError, OutsideError
from socratune.llm import batch_wire
from socratune.llm.batch_wire import Result, Status
from socratune.llm.failures import Failure
from socratune.llm.http import LONGEST_WAIT_S, HttpModel
from socratune.llm.vendors import WireProtocol
from socratune.runs import json_decode

Pause = Callable[[float], Awaitable[None]]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Pauses between two polls of a batch, each 1.5 times the previous one. Both vendors' examples poll once a minute."""
REQUEST_TRIES = 8
"""Tries of one request in a row: more than two minutes of a server that is down."""
_MOST_RESULTS = 1 << 30
"""Bytes of a file of results."""
_MOST_LISTED = 1 << 22


class Batches:
    """Manages the batches of a model behind one address of its vendor."""

    def __init__(self, model: HttpModel, pause: Pause = asyncio.sleep) -> None:
        self._model = model
        self._kind: WireProtocol = model.kind
        self._path = batch_wire.PATHS[model.kind]
        self._pause = pause

    async def create(
        self, token: str, calls: Sequence[tuple[str, dict[str, Any]]], *, since: float, known: set[str]
    ) -> str:
        """Returns the id of a new batch. If the answer is lost on the way, the batch is found and not sent again.

        Args:
            token: names this batch and no other.
            calls: (`custom_id`, body) of each.
            since, known: as for `find`.

        Raises:
            CallError: it is refused.
            OutsideError: the server cannot be reached.
        """
        body = batch_wire.packed(self._kind, calls)
        if self._kind == "openai":
            upload = batch_wire.upload(token, body)
            file_id = await self._tried("POST", batch_wire.FILES, upload, read=_id, form=token)
            body = batch_wire.creation(token, file_id)
        last = Failure("not tried")
        for pause_s in _pauses(REQUEST_TRIES):
            try:
                return _id(await self._model.send("POST", self._path, body))
            except Failure as failure:
                last = failure
            await self._pause(pause_s)
            if lost := await self.find(token, len(calls), since=since, known=known):
                return lost
        raise OutsideError(f"{self._model.name}: no batch could be sent: {last.what}")

    async def find(self, token: str, calls: int, *, since: float, known: set[str]) -> str | None:
        """Returns the id of a batch that may have been sent, or None if the server has none (`batch_wire.found`)."""
        listed = await self._tried("GET", f"{self._path}?limit=100", longest=_MOST_LISTED)
        return batch_wire.found(self._kind, listed, token=token, calls=calls, since=since, known=known)

    async def ended(self, batch_id: str) -> Status:
        """Returns the batch once every call has its result or it is refused. It polls in growing pauses."""
        pause_s = FIRST_PAUSE_S
        while True:
            status = await self._status(batch_id)
            if status.state != "out":
                return status
            await self._pause(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)

    async def results(self, status: Status) -> list[Result]:
        """Returns the results of a batch that has ended, as far as the server has them."""
        results: list[Result] = []
        for path in status.files:
            results += batch_wire.results(self._kind, await self._tried("GET", path, longest=_MOST_RESULTS))
        return results

    async def cancel(self, batch_id: str) -> None:
        """Stops the server from starting further calls. Finished calls are paid for and have results."""
        try:
            await self._tried("POST", f"{self._path}/{batch_id}/cancel")
        except CallError:  # it has ended meanwhile
            return

    async def _status(self, batch_id: str) -> Status:
        data = await self._tried("GET", f"{self._path}/{batch_id}")
        try:
            return batch_wire.batch_status(self._kind, data)
        except (LookupError, TypeError, AttributeError, ValueError):
            raise OutsideError(f"{self._model.name}: that is no state of a batch: {data[:200]!r}") from None

    async def _tried(
        self, method: str, path: str, body: bytes = b"", *, read: Callable[[bytes], Any] = bytes, **how: Any
    ) -> Any:
        """Returns what `read` makes of the answer to a request that may be sent several times."""
        last = Failure("not tried")
        for pause_s in _pauses(REQUEST_TRIES):
            try:
                return read(await self._model.send(method, path, body, **how))
            except Failure as failure:
                last = failure
            await self._pause(min(max(pause_s, last.wait_s or 0.0), LONGEST_WAIT_S))
        raise OutsideError(f"{self._model.name}: {method} {path}: {last.what}. Gave up after {REQUEST_TRIES} tries")


def _pauses(count: int) -> list[float]:
    return [min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S) for number in range(count)]


def _id(data: bytes) -> str:
    try:
        return str(json_decode(data)["id"])
    except (LookupError, TypeError, ValueError):
        raise Failure(f"status 200 without an id: {data[:200]!r}") from None

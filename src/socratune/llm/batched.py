"""Collects the calls of a model in batches, which a vendor answers at half price within 24 hours.

Calls come in until no row has anything else to do, and go out together. What a kill may cost is nothing: a batch is in
the journal before it is sent, and a run that goes on asks for that very batch.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Literal

from socratune.errors import CallError, OutsideError
from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.batch_wire import BATCH_TIMES, MOST_BYTES, MOST_CALLS, Result, Status
from socratune.llm.batches import Batches, Pause
from socratune.llm.failures import Failure
from socratune.llm.http import HttpModel
from socratune.llm.ledger import (
    BATCHED,
    Ledger,
    MeteredModel,
    Price,
    call_key,
    counted_waste,
    credible_tokens,
    most_prompt_tokens,
    tally,
    waste,
)
from socratune.llm.places import Places, place_left
from socratune.runs import BatchNote, Journal, json_encode

log = logging.getLogger(__name__)

FEWEST_CALLS = 20
"""The smallest batch. When no row has other work, fewer calls are asked directly: they cost little, and nobody waits.
"""
SETTLE_S = 1.0
"""After this time without any change, every row only waits."""
MOST_WAIT_S = 600.0
"""After this time collected calls are sent although other rows are still at work."""
_CHANCES = 2
"""Batches that may leave a call undone before it is asked directly."""


_Outcome = Completion | Literal["again", "direct"]


@dataclass(slots=True)
class _Call:
    """Holds a call that waits for its batch to be sent or for its result. `rows` wait for it."""

    messages: Chat
    sampling: Sampling
    since: float
    rows: int = 0
    outcome: asyncio.Future[_Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, outcome: _Outcome | Exception) -> None:
        """Passes the outcome to every waiting row."""
        if self.outcome.done():
            return
        if isinstance(outcome, Exception):
            self.outcome.set_exception(outcome)
            self.outcome.exception()  # nobody may be waiting
        else:
            self.outcome.set_result(outcome)


class BatchedModel:
    """Sends the calls of one role in batches, behind the journal and the ledger like those of a `MeteredModel`.

    Args:
        model: at the vendor.
        direct: the same, for calls that no batch is worth, or that failed in one.
        journal: of the run.
        role: `STAGE.WHO`.
        ledger: of the stage.
        price: of a call in a batch.
        places: the rows of the stage.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        model: HttpModel,
        direct: MeteredModel,
        *,
        journal: Journal,
        role: str,
        ledger: Ledger,
        price: Price,
        places: Places,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.name, self.fingerprint = model.name, model.fingerprint
        self.markers, self.vocabulary = model.markers, model.vocabulary
        self._model, self._direct, self._journal = model, direct, journal
        self._role, self._ledger, self._price, self._places, self._pause = role, ledger, price, places, pause
        self._batches = Batches(model, pause)
        self._waiting: dict[bytes, _Call] = {}  # every call that has no outcome yet
        self._gathered: dict[bytes, _Call] = {}  # those of them that are in no batch yet
        self._out: dict[str, BatchNote] = {}  # by token
        self._in_out: set[bytes] = set()  # keys of the calls in those
        self._tasks: set[asyncio.Task[None]] = set()
        self._gathering: asyncio.Task[None] | None = None
        self._scouted: asyncio.Event | None = None
        self._most_calls, self._crowded = MOST_CALLS, False
        self._begun = False
        self._failure: Exception | None = None

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        """Returns the journal's answer to this very call, otherwise one from a batch, otherwise the model's own.

        Raises:
            BudgetSpent: the call could go over the limit.
            CallError, UserError, OutsideError: as of the model.
        """
        if not self._begun:
            self._begun = True
            self._go_on()
        if self._failure is not None:
            raise self._failure
        key = call_key(self._role, self.fingerprint, messages, sampling)
        for _ in range(_CHANCES):
            if self._journal.find_call(key):
                break  # it is the direct model that reads it
            if self._scouted is None and key not in self._in_out:
                return await self._scout(messages, sampling)
            async with place_left():
                outcome = await self._outcome(key, messages, sampling)
            if isinstance(outcome, Completion):
                if (row := tally.get()) is not None:
                    tokens = (outcome.prompt_tokens, outcome.completion_tokens)
                    row.add(self._role, self._price, *tokens, replayed=True)  # its time says nothing
                return outcome
            if outcome == "direct":
                break
        return await self._direct.generate(messages, sampling)

    async def close(self) -> None:
        """Ends all work and closes the connections. A batch at the vendor continues."""
        tasks = [*self._tasks, *([self._gathering] if self._gathering else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for note in self._out.values():
            if note.id is not None:
                text = "%s: batch %s with %d calls continues at the vendor and is paid for. Run the same command again "
                text += "to fetch its results"
                log.warning(text, self._role, note.id, len(note.about["keys"]))
        await self._model.close()

    async def _scout(self, messages: Chat, sampling: Sampling) -> Completion:
        """Sends the first call directly, so that a wrong key or parameter shows before a whole batch fails."""
        self._scouted = asyncio.Event()
        try:
            return await self._direct.generate(messages, sampling)
        finally:
            self._scouted.set()

    async def _outcome(self, key: bytes, messages: Chat, sampling: Sampling) -> _Outcome:
        """Returns the outcome of a call in a batch. Until it is sent, its worst case is reserved."""
        if key not in self._waiting and key in self._in_out:
            self._waiting[key] = _Call(messages, sampling, time.monotonic())
        if key in self._waiting:
            return await self._waited(key)
        async with AsyncExitStack() as held:
            self._places.held_up += 1
            try:
                await held.enter_async_context(self._reserved(messages, sampling))
            finally:
                self._places.held_up -= 1
            if key not in self._waiting:  # else another row asked the same meanwhile
                self._waiting[key] = self._gathered[key] = _Call(messages, sampling, time.monotonic())
                if self._gathering is None or self._gathering.done():
                    self._gathering = asyncio.create_task(self._gather())
            return await self._waited(key)

    async def _waited(self, key: bytes) -> _Outcome:
        """Waits for the outcome of a call. A call without waiting rows is not sent."""
        call = self._waiting[key]
        call.rows += 1
        try:
            return await asyncio.shield(call.outcome)
        finally:
            call.rows -= 1
            if not call.rows and self._gathered.pop(key, None):
                del self._waiting[key]

    def _reserved(self, messages: Chat, sampling: Sampling):
        if self._ledger.limits.usd is None and self._ledger.limits.tokens is None:
            return nullcontext()
        return self._ledger.reserved(self._price, most_prompt_tokens(messages, sampling), sampling.max_new_tokens)

    async def _gather(self) -> None:
        try:
            await self._send_when_due()
        except Exception as error:
            self._fail(self._gathered.copy(), error)

    async def _send_when_due(self) -> None:
        """Sends collected calls as long as there are any."""
        moves = -1
        while self._gathered:
            await self._pause(SETTLE_S)
            blocked = self._ledger.waiting - self._places.held_up
            quiet = self._places.taken <= blocked and self._places.moves == moves
            moves = self._places.moves
            if self._crowded and self._tasks:
                continue
            oldest = next(iter(self._gathered.values())).since
            due = quiet or time.monotonic() - oldest >= MOST_WAIT_S
            while len(self._gathered) >= (FEWEST_CALLS if due else self._most_calls):
                keys = self._next_batch()
                self._start(keys, self._send(keys))
                if self._crowded:
                    break
            if quiet and len(self._gathered) < FEWEST_CALLS:
                self._settle(self._gathered.copy(), "direct")

    def _next_batch(self) -> list[bytes]:
        """Returns the keys of the oldest calls that fit into a batch."""
        keys: list[bytes] = []
        size = 0
        for key, call in self._gathered.items():
            size += len(json_encode(self._model.body(call.messages, call.sampling))) + 200
            if len(keys) == self._most_calls or (keys and size > MOST_BYTES):
                break
            keys.append(key)
        for key in keys:
            del self._gathered[key]
        return keys

    def _settle(self, keys: Iterable[bytes], outcome: _Outcome | Exception) -> None:
        for key in keys:
            self._gathered.pop(key, None)
            if call := self._waiting.pop(key, None):
                call.settle(outcome)

    def _fail(self, keys: Iterable[bytes], error: Exception) -> None:
        """Fails the rows that wait for these calls, and those that will ask."""
        self._failure = error
        self._settle(keys, error)

    def _start(self, keys: list[bytes], work: Coroutine[Any, Any, None]) -> None:
        """Starts a task for a batch. Its errors fail the rows that wait for the batch."""

        async def looked_after() -> None:
            try:
                await work
            except CallError as error:  # its id, or its results
                told = f"{error}: was this batch sent with another key, or more than a month ago? {self._without()}"
                self._fail(keys, OutsideError(told))
            except Exception as error:
                self._fail(keys, error)

        task = asyncio.create_task(looked_after())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _note(self, note: BatchNote) -> BatchNote:
        """Records the state of a batch here and in the journal."""
        self._journal.put_batch(note)
        keys = set(map(bytes.fromhex, note.about.get("keys", ())))
        if note.state == "done":
            del self._out[note.token]
        else:
            self._out[note.token] = note
            self._in_out |= keys
        return note

    def _known(self) -> set[str]:
        return {note.id for note in self._journal.batches(self._role) if note.id is not None}

    # --- a batch from its sending to its answers ----------------------------------------------------------------------

    async def _send(self, keys: list[bytes]) -> None:
        """Sends a new batch."""
        if self._scouted is not None:
            await self._scouted.wait()
        calls = {key: self._waiting[key] for key in keys}
        if not any(call.rows for call in calls.values()):  # the run is ending
            return
        about = {"model": self.name, "keys": [key.hex() for key in keys], "worst": _worst(calls.values())}
        note = self._note(BatchNote(f"socratune-{uuid.uuid4().hex}", self._role, "wanted", None, time.time(), about))
        bodies = [(key.hex(), self._model.body(call.messages, call.sampling)) for key, call in calls.items()]
        try:
            sent = await self._batches.create(note.token, bodies, since=note.at, known=self._known())
        except CallError as error:
            self._done(note, keys, {"calls": len(keys), "refused": len(keys)})
            raise OutsideError(f"{error}: no batch is taken. {self._without()}") from None
        await self._fetch(self._note(replace(note, state="sent", id=sent)), keys)

    def _go_on(self) -> None:
        """Continues the batches that were out when an earlier run ended."""
        for note in self._journal.batches(self._role):
            if note.state != "done" and note.about["model"] == self.name:
                self._out[note.token] = note
                self._in_out |= {bytes.fromhex(key) for key in note.about["keys"]}
                keys = [bytes.fromhex(key) for key in note.about["keys"]]
                self._start(keys, self._take_up(note, keys))

    async def _take_up(self, note: BatchNote, keys: list[bytes]) -> None:
        """Continues a batch of an earlier run. Its possible cost is reserved, because no row asks for it yet."""
        with self._ledger.committed(self._price, *note.about["worst"]) as over:
            if note.id is None:  # that run ended between the sending and the note of the id
                batch_id = await self._batches.find(note.token, len(keys), since=note.at, known=self._known())
                if batch_id is None:
                    self._done(note, keys, {"calls": 0})
                    self._settle(keys, "again")
                    return
                note = self._note(replace(note, state="sent", id=batch_id))
            if over:
                assert note.id is not None
                log.warning("%s: batch %s is cancelled. %s", self._role, note.id, over)
                await self._batches.cancel(note.id)
            await self._fetch(note, keys)

    async def _fetch(self, note: BatchNote, keys: list[bytes]) -> None:
        """Waits for the end of a batch, stores its answers and hands them out."""
        assert note.id is not None
        log.info("%s: batch %s with %d calls is out, %s", self._role, note.id, len(keys), BATCH_TIMES)
        status = await self._batches.ended(note.id)
        if status.state == "refused":
            self._refused(note, keys, status)
            return
        by_name = {result.name: result for result in await self._batches.results(status)}
        missing = Result("", why="no result", undone=True)
        outcomes: dict[bytes, _Outcome | CallError] = {}
        wasted: dict[bytes, list[Completion]] = {}
        for key in keys:
            with counted_waste() as wasted[key]:
                outcomes[key] = self._read(by_name.get(key.hex(), missing))
        await self._keep(outcomes, wasted)
        failed = [result.why for key in keys if (result := by_name.get(key.hex())) and result.body is None]
        answered = sum(isinstance(outcome, Completion) for outcome in outcomes.values())
        seconds = time.time() - note.at
        about = {"calls": len(keys), "answered": answered, "failed": len(keys) - answered, "seconds": round(seconds, 1)}
        self._done(note, keys, {**about, "ended": status.said})
        log.info("%s: batch %s ended (%s): %d of %d calls answered after %.0f s", self._role, note.id, status.said,
                 answered, len(keys), seconds)  # fmt: skip
        if failed:
            text = "%s: %d calls of batch %s have no answer (the first: %s) and are asked again"
            log.warning(text, self._role, len(failed), note.id, failed[0][:300])
        for key, outcome in outcomes.items():
            self._settle([key], outcome)

    def _refused(self, note: BatchNote, keys: list[bytes], status: Status) -> None:
        """Handles a batch that was refused as a whole: sends smaller ones if too much is queued, otherwise ends the
        run.
        """
        self._done(note, keys, {"calls": len(keys), "refused": len(keys)})
        if not status.crowded or len(keys) < 2 * FEWEST_CALLS:
            raise OutsideError(f"{self.name}: batch {note.id} failed: {status.why}. {self._without()}")
        self._most_calls, self._crowded = len(keys) // 2, True
        log.warning("%s: %s. Smaller batches follow, one after the other", self._role, status.why)
        for key in keys:
            if call := self._waiting.get(key):
                self._gathered[key] = call
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.create_task(self._gather())

    def _done(self, note: BatchNote, keys: list[bytes], about: dict[str, Any]) -> None:
        self._note(replace(note, state="done", about=about))
        self._in_out.difference_update(keys)

    def _without(self) -> str:
        return f"Without batches: --set {self._role.replace('.', '.endpoints.', 1)}.batch=false"

    def _read(self, result: Result) -> _Outcome | CallError:
        """Returns what a result means to the call that waits for it."""
        if result.body is None:
            return "again" if result.undone else "direct"
        try:
            return self._model.read_answer({}, json_encode(result.body))
        except CallError as error:
            return error
        except Failure as failure:
            waste(*(failure.paid or (0, 0)))
            return "direct"

    async def _keep(self, outcomes: dict[bytes, _Outcome | CallError], wasted: dict[bytes, list[Completion]]) -> None:
        """Records what was paid in journal and ledger, including answers that no row has asked for yet."""
        paid = {key: self._counted(key, answer) for key, answer in outcomes.items() if isinstance(answer, Completion)}
        for key, tries in wasted.items():
            paid |= {_of_nobody(key): lost for lost in tries}
        new = {key: answer for key, answer in paid.items() if not self._journal.find_call(key)}
        for answer in new.values():
            self._ledger.spend(self._role, self._price, answer.prompt_tokens, answer.completion_tokens)
        await asyncio.gather(*(self._put(key, answer) for key, answer in new.items()))

    async def _put(self, key: bytes, answer: Completion) -> None:
        tokens = (answer.prompt_tokens, answer.completion_tokens)
        named = {"role": self._role, "model": self.name + BATCHED, "seconds": 0.0}  # it waited for others
        await self._journal.put_call(key, answer=answer.to_json(), tokens=tokens, **named)

    def _counted(self, key: bytes, answer: Completion) -> Completion:
        """Returns the answer with a credible token count if the call is known."""
        if (call := self._waiting.get(key)) is None:
            return answer
        prompt_tokens, completion_tokens = credible_tokens(answer, call.messages, call.sampling)
        return replace(answer, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def _of_nobody(key: bytes) -> bytes:
    """Returns a key that no call has, the same each time a batch is read."""
    return blake2b(b"wasted" + key, digest_size=16).digest()


def _worst(calls: Iterable[_Call]) -> tuple[int, int]:
    """Returns the most tokens of prompts and answers."""
    prompts = answers = 0
    for call in calls:
        prompts += most_prompt_tokens(call.messages, call.sampling)
        answers += call.sampling.max_new_tokens
    return prompts, answers

"""Counts what a run spends (tokens and USD by role) and keeps a limit while calls are in flight."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from socratune.errors import OutsideError
from socratune.llm.base import Chat, ChatModel, Completion, Sampling
from socratune.llm.budget import PARTS
from socratune.runs import Journal, json_encode

log = logging.getLogger(__name__)


class BudgetSpent(OutsideError):
    """Reports that the next call could exceed the limit. Nothing is lost, and a higher limit continues."""

    stage_status = "stopped"


@dataclass(slots=True)
class Tally:
    """Counts what one row took, including calls that the journal answered.

    Attributes:
        calls: by role.
        tokens: prompt and completion, by role.
        usd: by role; a role whose price is not known is not in it.
        replayed: the journal answered a call, so the row's time says nothing.
    """

    calls: Counter[str] = field(default_factory=Counter)
    tokens: dict[str, int] = field(default_factory=dict)
    usd: dict[str, float] = field(default_factory=dict)
    replayed: bool = False

    def add(self, role: str, price: Price, prompt_tokens: int, completion_tokens: int, *, replayed: bool) -> None:
        """Adds a call."""
        self.calls[role] += 1
        self.tokens[role] = self.tokens.get(role, 0) + prompt_tokens + completion_tokens
        if (usd := price.usd(prompt_tokens, completion_tokens)) is not None:
            self.usd[role] = self.usd.get(role, 0.0) + usd
        self.replayed |= replayed


tally: ContextVar[Tally | None] = ContextVar("tally", default=None)
"""The tally of the row at work, or None if nobody counts by row."""


@contextmanager
def tally_calls() -> Iterator[Tally]:
    """Counts the calls made inside the block, in this task."""
    counted = Tally()
    token = tally.set(counted)
    try:
        yield counted
    finally:
        tally.reset(token)


@dataclass(slots=True)
class Price:
    """Holds USD per token. `None` is an unknown price, which never counts as zero."""

    per_prompt_token_usd: float | None
    per_completion_token_usd: float | None

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Returns the price of a call, or None if it is unknown."""
        if self.per_prompt_token_usd is None or self.per_completion_token_usd is None:
            return None
        return prompt_tokens * self.per_prompt_token_usd + completion_tokens * self.per_completion_token_usd


FREE = Price(0.0, 0.0)
"""The price of a model in this process and of rules."""


def price_of(provider: str, model: str, *, batch: bool = False) -> Price:
    """Returns the list price by the `genai-prices` package, which contains the prices of its release.

    Args:
        provider: by its name there.
        model: by its name there.
        batch: of a call in a batch; where the package knows none, that of a direct call.
    """
    from genai_prices import Usage, calc_price

    tokens = 1_000  # the price of a call of usual size; longer ones have a tier of their own with some vendors
    named: dict[str, Any] = {"model_ref": model, "provider_id": provider}
    named |= {"price_context": {"processing": "batch"}} if batch else {}
    try:
        prompt = calc_price(Usage(input_tokens=tokens, output_tokens=0), **named)
        completion = calc_price(Usage(input_tokens=0, output_tokens=tokens), **named)
    except LookupError:
        return Price(None, None)
    return Price(float(prompt.total_price) / tokens, float(completion.total_price) / tokens)


@dataclass(frozen=True, slots=True)
class Limits:
    """Holds what may be spent in total. None is no limit.

    Attributes:
        usd: a call whose price is not known counts as 0 here, so a limit with such a model is refused before the run
            (`preflight`).
        tokens: prompt and completion tokens of all paid roles.
        part: of the run, for the text that says how to go on.
        raised_by: what on the command line raises `usd`.
    """

    usd: float | None = None
    tokens: int | None = None
    part: str = "enhance"
    raised_by: str = "--max-usd USD"

    def among(self, n: int) -> Limits:
        """Returns the limits of one of `n` workers, so that all together keep these."""
        usd = None if self.usd is None else self.usd / n
        return replace(self, usd=usd, tokens=None if self.tokens is None else max(self.tokens // n, 1))


UNLIMITED = Limits()


@dataclass(slots=True)
class Ledger:
    """Holds what is spent, what calls in flight reserve, and the limits.

    Attributes:
        waiting: calls that wait until the worst cases of others are over.
    """

    limits: Limits = UNLIMITED
    usd: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unpriced: set[str] = field(default_factory=set)
    waiting: int = 0
    _reserved_usd: float = 0.0
    _reserved_tokens: int = 0
    _in_flight: int = 0
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def reserved(self, price: Price, prompt_tokens: int, max_new_tokens: int) -> AsyncIterator[None]:
        """Reserves the worst case of a call while it is in flight. `spend` belongs inside the block.

        Where it does not fit beside the others' worst cases it waits: they mostly take less. So a stop by the limit
        finds nothing in flight that would be paid and thrown away.

        Raises:
            BudgetSpent: nothing is in flight any more, and with this call the limit could be passed.
        """
        usd = price.usd(prompt_tokens, max_new_tokens) or 0.0
        tokens = prompt_tokens + max_new_tokens
        while over := self._over(usd, tokens):
            if not self._in_flight:
                raise BudgetSpent(over)
            self.waiting += 1
            try:
                await self._freed.wait()
            finally:
                self.waiting -= 1
        with self.committed(price, prompt_tokens, max_new_tokens):
            yield

    @contextmanager
    def committed(self, price: Price, prompt_tokens: int, completion_tokens: int) -> Iterator[str | None]:
        """Reserves the worst case of work already in flight and returns the limit that it exceeds, or None."""
        usd = price.usd(prompt_tokens, completion_tokens) or 0.0
        tokens = prompt_tokens + completion_tokens
        over = self._over(usd, tokens)
        self._in_flight += 1
        self._reserved_usd += usd
        self._reserved_tokens += tokens
        try:
            yield over
        finally:
            self._in_flight -= 1
            self._reserved_usd -= usd
            self._reserved_tokens -= tokens
            freed, self._freed = self._freed, asyncio.Event()
            freed.set()

    def _over(self, usd: float, tokens: int) -> str | None:
        """Returns in words which limit a call of this worst case could exceed, or None if it fits."""
        spent_usd, spent_tokens, limits = sum(self.usd.values()), sum(self.tokens.values()), self.limits
        if limits.usd is not None and spent_usd + self._reserved_usd + usd > limits.usd:
            spent = f"{spent_usd:.4f} USD are spent"
            text = f"Stopped before the limit of {limits.usd:.6g} USD for {PARTS[limits.part]}: {spent}."
            return f"{text} Raise the limit to continue: {limits.raised_by}."
        if limits.tokens is not None and spent_tokens + self._reserved_tokens + tokens > limits.tokens:
            text = f"Stopped before the limit of {limits.tokens} tokens: {spent_tokens} are spent."
            return f"{text} Raise the limit to continue: --set {limits.part}.max_total_tokens=N."
        return None

    def spend(self, role: str, price: Price, prompt_tokens: int, completion_tokens: int) -> None:
        """Records a finished call."""
        usd = price.usd(prompt_tokens, completion_tokens)
        if usd is None:
            self.unpriced.add(role)
        else:
            self.usd[role] += usd
        self.tokens[role] += prompt_tokens + completion_tokens

    def carry_over(self, summary: dict[str, Any]) -> None:
        """Records what earlier stages spent, as in their `summary`: a limit holds for the whole run."""
        for role, spent in summary.items():
            self.tokens[role] += spent["tokens"]
            if spent["usd"] is None:
                self.unpriced.add(role)
            else:
                self.usd[role] += spent["usd"]

    def summary(self) -> dict[str, Any]:
        """Returns tokens and USD by role. USD is None if a price is unknown."""
        return {
            role: {"tokens": self.tokens[role], "usd": None if role in self.unpriced else round(self.usd[role], 6)}
            for role in sorted(self.tokens)
        }


# --- calls that are kept, so that none is paid twice ---------------------------------------------------------------

CHARACTERS_PER_TOKEN, MOST_CHARACTERS = 3, 20
"""Characters of a token: low on purpose, so that a reservation covers the call; and the most, averaged over a text."""
UNSEEN_TOKENS = 8192
"""What a server may read and think unseen: its template's own words, and thoughts that it keeps to itself."""


class _Tries:
    """Holds the tries of one call that were billed and brought no answer."""

    def __init__(self, spend: Callable[[Completion], Completion], reserved: Callable[[], Any]) -> None:
        self.wasted: list[Completion] = []
        self.held = AsyncExitStack()
        self._spend, self._reserved = spend, reserved

    def waste(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.wasted.append(self._spend(Completion("", "end", prompt_tokens, completion_tokens)))

    async def reserve(self) -> None:
        await self.held.aclose()  # before it waits, so that no two wait for each other
        await self.held.enter_async_context(self._reserved())


_tries: ContextVar[_Tries | None] = ContextVar("tries", default=None)


def waste(prompt_tokens: int, completion_tokens: int) -> None:
    """Records a try of a metered call that was billed and brought no answer, 0 if the server counts nothing."""
    if (tries := _tries.get()) is not None:
        tries.waste(prompt_tokens, completion_tokens)


@contextmanager
def counted_waste() -> Iterator[list[Completion]]:
    """Counts what `waste` records inside the block while no metered call is at work."""
    tries = _Tries(lambda completion: completion, nullcontext)
    token = _tries.set(tries)
    try:
        yield tries.wasted
    finally:
        _tries.reset(token)


async def reserve_again() -> None:
    """Reserves the worst case of another try of the current metered call, after a wasted one.

    Raises:
        BudgetSpent: it could go over the limit.
    """
    if (tries := _tries.get()) is not None:
        await tries.reserve()


class MeteredModel:
    """Wraps `model` with the journal and the ledger. `role` is `STAGE.WHO`, e.g. `enhance.student`.

    Whatever was paid is kept, cut-off answers too (a longer limit is another call), and the tokens of tries that
    brought no answer; errors never reach the journal.
    """

    def __init__(
        self, model: ChatModel, journal: Journal, role: str, *, ledger: Ledger | None = None, price: Price = FREE
    ) -> None:
        self.name = model.name
        self.fingerprint = model.fingerprint
        self._model = model
        self._journal = journal
        self._role = role
        self._ledger = ledger
        self._price = price
        self._warned = False
        if ledger is not None:
            for name, prompt_tokens, completion_tokens in journal.spent_by(role):
                # another model did this role before, or the same one in batches
                paid = price if name == self.name else _price_of(name)
                ledger.spend(role, paid, prompt_tokens, completion_tokens)

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        """Returns the journal's answer to this very call, otherwise the model's.

        Raises:
            BudgetSpent: the call could go over the limit.
        """
        key = call_key(self._role, self.fingerprint, messages, sampling)
        if (stored := self._journal.find_call(key)) and (kept := Completion.read(stored)) is not None:
            return self._tallied(kept, replayed=True)
        started = time.monotonic()
        asked = (messages, sampling)
        tries = _Tries(lambda completion: self._spent(completion, *asked), lambda: self._reserved(*asked))
        token = _tries.set(tries)
        try:
            async with tries.held:
                await tries.reserve()
                completion = self._spent(await self._model.generate(*asked), *asked)
        finally:
            _tries.reset(token)
            for lost in tries.wasted:
                await self._keep(os.urandom(16), lost, 0.0)  # a key that nobody asks for
        await self._keep(key, completion, time.monotonic() - started)
        return completion

    async def _keep(self, key: bytes, completion: Completion, seconds: float) -> None:
        answer, tokens = completion.to_json(), (completion.prompt_tokens, completion.completion_tokens)
        kept = {"role": self._role, "model": self.name, "answer": answer, "tokens": tokens, "seconds": seconds}
        await self._journal.put_call(key, **kept)

    def _spent(self, completion: Completion, messages: Chat, sampling: Sampling) -> Completion:
        """Records what a completion took and returns it."""
        completion = self._counted(completion, messages, sampling)
        if self._ledger is not None:
            self._ledger.spend(self._role, self._price, completion.prompt_tokens, completion.completion_tokens)
        return self._tallied(completion, replayed=False)

    def sent(self, sampling: Sampling) -> dict[str, Any]:
        """Returns how answers are drawn as it is sent to a server; empty for a model in this process."""
        sampling_sent = getattr(self._model, "sent", None)
        return sampling_sent(sampling) if sampling_sent else {}

    def _counted(self, completion: Completion, messages: Chat, sampling: Sampling) -> Completion:
        """Returns the completion with credible token counts: unknown is never zero, and no limit may rest on a false
        count.
        """
        if self._ledger is None:
            return completion
        counts = (completion.prompt_tokens, completion.completion_tokens)
        if (counted := credible_tokens(completion, messages, sampling)) == counts:
            return completion
        if not self._warned:
            self._warned = True
            fault = (
                "says that it took %s and %s tokens, which cannot be"
                if any(counts)
                else "does not say how many tokens it took"
            )
            log.warning(f"%s {fault}; they are estimated from the texts.", self.name, *(counts if any(counts) else ()))
        return replace(completion, prompt_tokens=counted[0], completion_tokens=counted[1])

    def _tallied(self, completion: Completion, *, replayed: bool) -> Completion:
        if (row := tally.get()) is not None:
            tokens = (completion.prompt_tokens, completion.completion_tokens)
            row.add(self._role, self._price, *tokens, replayed=replayed)
        return completion

    def _reserved(self, messages: Chat, sampling: Sampling):
        if self._ledger is None or (self._ledger.limits.usd is None and self._ledger.limits.tokens is None):
            return nullcontext()
        return self._ledger.reserved(self._price, most_prompt_tokens(messages, sampling), sampling.max_new_tokens)


def most_tokens(text: str) -> int:
    """Returns about the most tokens a text may take: a third of its ASCII characters, and every byte of the others, the
    most that a byte-level tokenizer needs.
    """
    plain = len(text.encode("ascii", "ignore"))
    return plain // CHARACTERS_PER_TOKEN + len(text.encode("utf-8", "replace")) - plain


def most_prompt_tokens(messages: Chat, sampling: Sampling) -> int:
    """Returns about the most tokens that a server may read for this question."""
    text = "".join(message["content"] for message in messages) + (sampling.json_schema or "")
    return most_tokens(text) + 8 * (len(messages) + 1)


def credible_tokens(completion: Completion, messages: Chat, sampling: Sampling) -> tuple[int, int]:
    """Returns the server's count of prompt and answer tokens, or an estimate from the texts if it cannot be true."""
    prompt = "".join(message["content"] for message in messages) + (sampling.json_schema or "")
    most_read = len(prompt.encode("utf-8", "replace")) + UNSEEN_TOKENS
    most_said = 2 * sampling.max_new_tokens + len(completion.text.encode("utf-8", "replace")) + UNSEEN_TOKENS
    read, written = completion.prompt_tokens, completion.completion_tokens
    if not _fewest_tokens(prompt) <= read <= most_read:
        read = most_prompt_tokens(messages, sampling)
    if not _fewest_tokens(completion.text) <= written <= most_said:
        written = most_tokens(completion.text)
    return read, written


def _fewest_tokens(text: str) -> int:
    return -(-len(text) // MOST_CHARACTERS)


BATCHED = " (batch)"
"""A suffix of the model's name in the journal, because batched calls have another price."""


def _price_of(name: str) -> Price:
    provider, _, model = name.removesuffix(BATCHED).partition("/")
    return price_of(provider, model, batch=name.endswith(BATCHED))


def call_key(role: str, fingerprint: str, messages: Chat, sampling: Sampling) -> bytes:
    """Returns 16 bytes that change with whatever may change the answer, and with the role that pays."""
    return hashlib.blake2b(json_encode([role, fingerprint, messages, *sampling.key()]), digest_size=16).digest()

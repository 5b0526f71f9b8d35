"""What a run spends: tokens and USD by role, and a limit that is kept although calls are in flight."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from socratune.errors import OutsideError


class BudgetSpent(OutsideError):
    """The next call could go over the limit that was set. Nothing is lost; a higher limit goes on."""

    run_status = "stopped"


@dataclass(slots=True)
class Tally:
    """What one row took, calls that the journal answered included.

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
        """Enter a call."""
        self.calls[role] += 1
        self.tokens[role] = self.tokens.get(role, 0) + prompt_tokens + completion_tokens
        if (usd := price.usd(prompt_tokens, completion_tokens)) is not None:
            self.usd[role] = self.usd.get(role, 0.0) + usd
        self.replayed |= replayed


tally: ContextVar[Tally | None] = ContextVar("tally", default=None)
"""Where the calls of the row at work are entered; None where nobody counts by row."""


@contextmanager
def tally_calls() -> Iterator[Tally]:
    """Count the calls made inside the block, in this task."""
    found = Tally()
    token = tally.set(found)
    try:
        yield found
    finally:
        tally.reset(token)


@dataclass(slots=True)
class Price:
    """USD per token. `None` where the price is not known: unknown is never nothing."""

    per_prompt_token_usd: float | None
    per_completion_token_usd: float | None

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """The price of a call, None where it is not known."""
        if self.per_prompt_token_usd is None or self.per_completion_token_usd is None:
            return None
        return prompt_tokens * self.per_prompt_token_usd + completion_tokens * self.per_completion_token_usd


FREE = Price(0.0, 0.0)
"""A model in this process, or rules."""


def price_of(provider: str, model: str) -> Price:
    """The list price by the `genai-prices` package (it carries its prices along, dated by its release)."""
    from genai_prices import Usage, calc_price

    tokens = 1_000  # the price of a call of usual size; longer ones have a tier of their own with some vendors
    try:
        prompt = calc_price(Usage(input_tokens=tokens, output_tokens=0), model_ref=model, provider_id=provider)
        completion = calc_price(Usage(input_tokens=0, output_tokens=tokens), model_ref=model, provider_id=provider)
    except LookupError:
        return Price(None, None)
    return Price(float(prompt.total_price) / tokens, float(completion.total_price) / tokens)


@dataclass(slots=True)
class Ledger:
    """Spent so far, reserved by calls in flight, and the limits.

    Attributes:
        max_usd: None is no limit; a call whose price is not known counts as 0 here, so a limit with such a model is
            refused before the run (`preflight`).
        max_total_tokens: prompt and completion tokens of all paid roles.
    """

    max_usd: float | None = None
    max_total_tokens: int | None = None
    usd: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unpriced: set[str] = field(default_factory=set)
    _reserved_usd: float = 0.0
    _reserved_tokens: int = 0
    _in_flight: int = 0
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def reserved(self, price: Price, prompt_tokens: int, max_new_tokens: int) -> AsyncIterator[None]:
        """Hold the worst case of a call while it is in flight. `spend` belongs inside the block.

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
            await self._freed.wait()
        self._in_flight += 1
        self._reserved_usd += usd
        self._reserved_tokens += tokens
        try:
            yield
        finally:
            self._in_flight -= 1
            self._reserved_usd -= usd
            self._reserved_tokens -= tokens
            freed, self._freed = self._freed, asyncio.Event()
            freed.set()

    def _over(self, usd: float, tokens: int) -> str | None:
        """Which limit a call of this worst case could pass, in words; None where it fits."""
        spent_usd, spent_tokens = sum(self.usd.values()), sum(self.tokens.values())
        if self.max_usd is not None and spent_usd + self._reserved_usd + usd > self.max_usd:
            spent = f"{spent_usd:.4f} USD are spent"
            return f"Stopped before the limit of {self.max_usd} USD: {spent}. A higher --max-usd goes on."
        if self.max_total_tokens is not None and spent_tokens + self._reserved_tokens + tokens > self.max_total_tokens:
            spent = f"{spent_tokens} are spent"
            return f"Stopped before the limit of {self.max_total_tokens} tokens: {spent}. A higher limit goes on."
        return None

    def spend(self, role: str, price: Price, prompt_tokens: int, completion_tokens: int) -> None:
        """Enter a finished call."""
        usd = price.usd(prompt_tokens, completion_tokens)
        if usd is None:
            self.unpriced.add(role)
        else:
            self.usd[role] += usd
        self.tokens[role] += prompt_tokens + completion_tokens

    def carry_over(self, summary: dict[str, Any]) -> None:
        """Enter what earlier stages spent, as their `summary` has it: a limit holds for the whole run."""
        for role, spent in summary.items():
            self.tokens[role] += spent["tokens"]
            if spent["usd"] is None:
                self.unpriced.add(role)
            else:
                self.usd[role] += spent["usd"]

    def summary(self) -> dict[str, Any]:
        """Tokens and USD by role; USD is None where a price is not known."""
        return {
            role: {"tokens": self.tokens[role], "usd": None if role in self.unpriced else round(self.usd[role], 6)}
            for role in sorted(self.tokens)
        }

"""What a run spends: tokens and USD by role, and a limit that is kept although calls are in flight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from socratune.errors import OutsideError


class BudgetSpent(OutsideError):
    """The next call could go over the limit that was set. Nothing is lost; a higher limit goes on."""

    run_status = "stopped"


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

    million = 1_000_000
    try:
        prompt = calc_price(Usage(input_tokens=million, output_tokens=0), model_ref=model, provider_id=provider)
        completion = calc_price(Usage(input_tokens=0, output_tokens=million), model_ref=model, provider_id=provider)
    except LookupError:
        return Price(None, None)
    return Price(float(prompt.total_price) / million, float(completion.total_price) / million)


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

    @contextmanager
    def reserved(self, price: Price, prompt_tokens: int, max_new_tokens: int) -> Iterator[None]:
        """Hold the worst case of a call while it is in flight.

        Raises:
            BudgetSpent: with it the limit could be passed.
        """
        usd = price.usd(prompt_tokens, max_new_tokens) or 0.0
        tokens = prompt_tokens + max_new_tokens
        if self.max_usd is not None and sum(self.usd.values()) + self._reserved_usd + usd > self.max_usd:
            spent = f"{sum(self.usd.values()):.4f} USD are spent"
            raise BudgetSpent(f"Stopped before the limit of {self.max_usd} USD: {spent}. A higher --max-usd goes on.")
        if (
            self.max_total_tokens is not None
            and sum(self.tokens.values()) + self._reserved_tokens + tokens > self.max_total_tokens
        ):
            spent = f"{sum(self.tokens.values())} are spent"
            raise BudgetSpent(
                f"Stopped before the limit of {self.max_total_tokens} tokens: {spent}. A higher limit goes on."
            )
        self._reserved_usd += usd
        self._reserved_tokens += tokens
        try:
            yield
        finally:
            self._reserved_usd -= usd
            self._reserved_tokens -= tokens

    def spend(self, role: str, price: Price, prompt_tokens: int, completion_tokens: int) -> None:
        """Enter a finished call."""
        usd = price.usd(prompt_tokens, completion_tokens)
        if usd is None:
            self.unpriced.add(role)
        else:
            self.usd[role] += usd
        self.tokens[role] += prompt_tokens + completion_tokens

    def summary(self) -> dict[str, Any]:
        """Tokens and USD by role; USD is None where a price is not known."""
        return {
            role: {"tokens": self.tokens[role], "usd": None if role in self.unpriced else round(self.usd[role], 6)}
            for role in sorted(self.tokens)
        }

"""Limits the load on a model server: rate limits, several addresses, and when to stop. It knows no HTTP library."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TypeVar

from socratune.errors import OutsideError

_T = TypeVar("_T")

BURST_S = 1.0
"""Seconds of allowance that may be used at once after a pause: servers count in windows of a second or longer."""

ASIDE_S = 10.0
"""How long a failed address is avoided: short against a server's restart, long against a call."""

ASIDE_AFTER = 3
"""Bad answers in a row that exclude an address: one 500 is an accident. A refused connection excludes it at once."""

DOWN_AFTER = 20
"""Failures in a row, over all calls, that stop everything once a call has also spent its retries.

The retries alone are not enough (one question may crash a healthy server each time it is asked), and the row alone is
not either: a server that is restarted fails every call in flight at the same moment.
"""

REST_S = 30.0
"""How long calls are refused then: long enough to reach every waiting call, before the server is tried again."""


class Bucket:
    """Spreads an allowance evenly over a minute. Reservations are served in order."""

    def __init__(self, per_minute: int) -> None:
        self._per_s = per_minute / 60
        self._paid_until = 0.0

    def reserve(self, amount: float) -> float:
        """Returns the seconds to wait until `amount` may be used. It counts as used from now on."""
        now = time.monotonic()
        self._paid_until = max(self._paid_until, now)
        wait_s = self._paid_until - now - BURST_S
        self._paid_until += amount / self._per_s
        return max(wait_s, 0.0)

    def correct(self, amount: float) -> None:
        """Adds `amount` to what was reserved, or subtracts it if negative. Later reservations absorb it."""
        self._paid_until += amount / self._per_s


class Breaker:
    """Fails every waiting call at once when the server is down, so that a run stops cleanly and can be resumed."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._a_call_is_spent = False
        self._down_until = 0.0
        self._why = ""
        self._ends: dict[asyncio.Timeout, float] = {}  # of all that wait, in loop time
        self._alarm: asyncio.TimerHandle | None = None

    def worked(self) -> None:
        """Notes an answer of the server."""
        self._in_a_row = 0
        self._a_call_is_spent = False

    def failed(self, why: str) -> None:
        """Notes a failed try that reveals something about the server."""
        self._in_a_row += 1
        self._trip(why)

    def spent(self, why: str) -> None:
        """Notes a call without retries left."""
        self._a_call_is_spent = True
        self._trip(why)

    def check(self) -> None:
        """Raises OutsideError while calls are refused."""
        if self._down_until > time.monotonic():
            raise OutsideError(self._why)

    async def bounded(self, limit_s: float | None, work: Callable[..., Awaitable[_T]], *args: object) -> _T:
        """Returns what `work(*args)` returns, within `limit_s` (None: no limit).

        Raises:
            TimeoutError: past the limit.
            OutsideError: the server was found to be down before or meanwhile.
        """
        self.check()
        waiting = asyncio.timeout(None)
        self._ends[waiting] = end = math.inf if limit_s is None else asyncio.get_running_loop().time() + limit_s
        if end < self._alarm_at():
            self._set_alarm(end)
        try:
            async with waiting:
                return await work(*args)
        except TimeoutError:
            self.check()
            raise
        finally:
            del self._ends[waiting]
            if self._alarm and not self._ends:
                self._alarm.cancel()
                self._alarm = None

    def _alarm_at(self) -> float:
        return self._alarm.when() if self._alarm else math.inf

    def _set_alarm(self, at: float) -> None:
        """Sets one timer for all calls. One for each would cost a twentieth of a call."""
        if self._alarm:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(at, self._end_overdue)

    def _end_overdue(self) -> None:
        self._alarm = None
        now = asyncio.get_running_loop().time()
        for waiting, end in self._ends.items():
            if end <= now and not waiting.expired():
                waiting.reschedule(0)
        later = min((end for end in self._ends.values() if end > now), default=math.inf)
        if later < math.inf:
            self._set_alarm(later)

    def _trip(self, why: str) -> None:
        if self._in_a_row < DOWN_AFTER or not self._a_call_is_spent:
            return
        self._why = f"{why}. {self._in_a_row} failures in a row: the server seems to be down"
        self._down_until = time.monotonic() + REST_S
        self.worked()
        for waiting in self._ends:
            if not waiting.expired():
                waiting.reschedule(0)


@dataclass(slots=True, eq=False)
class RateLimits:
    """Holds one address of a model.

    Attributes:
        base: as given, without a trailing slash.
        in_flight: calls not answered yet.
        sent: calls ever sent.
        failures: bad answers in a row.
        suspect: was put aside and has not answered since.
        aside_until: not asked before this time while another address can be, `time.monotonic` seconds.
        failed_at: last failure, `time.monotonic` seconds.
        dropped: parameters that it refused, left out since ("max_tokens": sent as max_completion_tokens).
    """

    base: str = field(repr=False)  # may hold a password
    in_flight: int = 0
    sent: int = 0
    failures: int = 0
    suspect: bool = False
    aside_until: float = 0.0
    failed_at: float = 0.0
    dropped: set[str] = field(default_factory=set)

    def worked(self) -> None:
        """Notes an answer."""
        self.failures = 0
        self.suspect = False
        self.aside_until = 0.0

    def failed(self, *, unreachable: bool) -> None:
        """Notes a missing or bad answer. `unreachable`: there was no connection."""
        self.failures += 1
        self.failed_at = time.monotonic()
        if unreachable or self.suspect or self.failures >= ASIDE_AFTER:
            self.suspect = True
            self.aside_until = self.failed_at + ASIDE_S


class Endpoints:
    """Holds the addresses of one model."""

    def __init__(self, endpoints: Sequence[RateLimits]) -> None:
        self._all = tuple(endpoints)

    def pick(self) -> RateLimits:
        """Returns the least loaded address that is not excluded; if all are, the one without failure for the longest.

        An address that comes back gets a single call until it has answered one: it looks idle, and would draw all.
        """
        if len(self._all) == 1:
            return self._all[0]
        able = self._able()
        if able:
            return min(able, key=lambda endpoint: (endpoint.in_flight, endpoint.sent))
        return min(self._all, key=lambda endpoint: endpoint.failed_at)

    def another_is_able(self, than: RateLimits) -> bool:
        """Returns True if a call that failed at `than` can go elsewhere at once."""
        return any(endpoint is not than for endpoint in self._able())

    def _able(self) -> list[RateLimits]:
        now = time.monotonic()
        return [
            endpoint
            for endpoint in self._all
            if endpoint.aside_until <= now and not (endpoint.suspect and endpoint.in_flight)
        ]


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Returns the wait that a server asks for in seconds, never negative, or None if it is missing or illegible.

    `headers` have lower-case names. LiteLLM's proxy puts `llm_provider-` before the name of what the provider sent.
    """
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = max(float(milliseconds) / 1000, 0.0)
            return seconds if math.isfinite(seconds) else None
        if not (value := headers.get("retry-after") or headers.get("llm_provider-retry-after")):
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        date = parsedate_to_datetime(value)
        # "-0000" brings a date without a zone; it means UTC
        return max((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None

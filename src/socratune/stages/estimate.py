"""estimate: a pilot of a few rows says what all of them will take: tokens, USD, hours, each with an interval.

The pilot's calls are in the journal like all others, so the run that follows does not pay them again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from socratune.config import StudentTeacherConfig
from socratune.errors import OutsideError
from socratune.journal import Journal
from socratune.ledger import Ledger, tallied
from socratune.loop import Loop, enhance_row
from socratune.modelref import Base
from socratune.rowmap import map_rows
from socratune.rows import QARow
from socratune.rundir import RunDir, Tick
from socratune.stages.enhance import attended, rows_of
from socratune.stats import total_interval

PILOT_ROWS = 20

Span = tuple[float, float, float]
"""Expected value, lower and upper end of the 95 % interval."""


async def run(
    run: RunDir,
    config: StudentTeacherConfig,
    base: Base,
    *,
    shard: str | None,
    journal: Journal,
    key: str,
    tick: Tick,
) -> dict[str, Any]:
    """Enhance `PILOT_ROWS` rows, chosen by the hash of their id, and extrapolate to all.

    Returns:
        `rows`, `pilot_rows`, and as [expected, low, high] over all rows: `tokens` by role, `usd` by role and in all
        (None where a price is not known), `seconds`.

    Raises:
        BudgetSpent: the limit of money or tokens is smaller than the pilot.
        OutsideError: most calls of the pilot are refused.
    """
    rows = list(rows_of(run, shard))
    chosen = sorted(rows, key=lambda row: hashlib.sha256(f"pilot/{row.id}".encode()).digest())[:PILOT_ROWS]
    ledger = Ledger(config.max_usd, config.max_total_tokens)
    known = len(journal.done_positions(key))
    async with attended(run, config, base, journal=journal, ledger=ledger) as (loop, student):
        started = time.monotonic()
        concurrency = min(config.concurrency, len(chosen))
        await map_rows(chosen, _measured(loop), journal=journal, stage=key, concurrency=concurrency, tick=tick)
        wall_s = None if known else time.monotonic() - started  # of all pilot rows, or of nobody knows which
    pilot = list(journal.rows(key))
    failed = [row["error"] for row in pilot if row["outcome"] == "error"]
    if len(failed) > len(pilot) / 2:
        raise OutsideError(f"{len(failed)} of the {len(pilot)} rows of the pilot failed; the last said: {failed[-1]}")
    found = extrapolate(pilot, len(rows), unpriced=ledger.unpriced)
    return {**found, "seconds": _seconds(pilot, found, config, wall_s=wall_s, served=student.loaded is None)}


def _measured(loop: Loop) -> Callable[[QARow], Any]:
    """`enhance_row`, giving what the row took instead of its trace."""

    async def step(row: QARow) -> dict[str, Any]:
        started = time.monotonic()
        with tallied() as tally:
            trace = await enhance_row(row, loop)
        seconds = None if tally.replayed else time.monotonic() - started
        taken = {"calls": dict(tally.calls), "tokens": tally.tokens, "usd": tally.usd}
        return {"outcome": trace.outcome, "error": trace.error, "seconds": seconds, **taken}

    return step


def extrapolate(pilot: Sequence[dict[str, Any]], rows: int, *, unpriced: set[str]) -> dict[str, Any]:
    """Tokens and USD of all rows from those of the pilot's.

    Args:
        pilot: `tokens` and `usd` by role of each row.
        unpriced: roles whose price is not known; their USD, and the sum, are None.
    """
    roles = sorted({role for row in pilot for role in row["tokens"]})
    tokens = {role: total_interval([row["tokens"].get(role, 0) for row in pilot], rows) for role in roles}
    usd: dict[str, Span | None] = {
        role: None if role in unpriced else total_interval([row["usd"].get(role, 0.0) for row in pilot], rows)
        for role in roles
    }
    whole = total_interval([sum(row["usd"].values()) for row in pilot], rows)
    usd["all"] = None if unpriced & set(roles) else whole
    return {"rows": rows, "pilot_rows": len(pilot), "tokens": tokens, "usd": usd}


def _seconds(
    pilot: Sequence[dict[str, Any]],
    found: dict[str, Any],
    config: StudentTeacherConfig,
    *,
    wall_s: float | None,
    served: bool,
) -> Span | None:
    """How long all rows take, None where the journal answered for a row of the pilot.

    Behind a server rows only wait, so `concurrency` of them share the time; no shorter than the limits by the minute
    allow. A student in this process decodes larger batches faster per row, but by how much the pilot does not show: its
    own rate is the expected and the upper end.
    """
    lasted, rows = [row["seconds"] for row in pilot], found["rows"]
    if None in lasted or not pilot or wall_s is None:
        return None
    expected, low, high = (seconds / min(config.concurrency, rows) for seconds in total_interval(lasted, rows))
    if not served:
        by_rate = wall_s * rows / len(pilot)
        expected, low, high = by_rate, min(low, by_rate), by_rate
    floor_s = _limited_s(pilot, found, config)
    return max(expected, floor_s), max(low, floor_s), max(high, floor_s)


def _limited_s(pilot: Sequence[dict[str, Any]], found: dict[str, Any], config: StudentTeacherConfig) -> float:
    """The time that the limits of requests and tokens by the minute make of it at least."""
    times = [0.0]
    for role, endpoint in config.endpoints:
        name = f"enhance.{role}"
        calls = sum(row["calls"].get(name, 0) for row in pilot) * found["rows"] / len(pilot)
        if endpoint.requests_per_minute:
            times.append(calls / endpoint.requests_per_minute * 60)
        if endpoint.tokens_per_minute and name in found["tokens"]:
            times.append(found["tokens"][name][0] / endpoint.tokens_per_minute * 60)
    return max(times)

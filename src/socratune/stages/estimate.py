"""estimate: a pilot of a few passages or rows predicts tokens, USD and hours of all, each with an interval.

The pilot's calls are in the journal like all others, so the following run does not pay for them again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from socratune.config import EndpointConfig, GenerateConfig, SplitConfig, StudentTeacherConfig
from socratune.data import parse_row
from socratune.documents import (
    Graph,
    attending_writers,
    cut_passages,
    gather_passages,
    linked_documents,
    read_passages,
    token_counter,
)
from socratune.errors import OutsideError
from socratune.evaluation import total_interval
from socratune.llm import Base, Ledger, Limits, batch_shares, tally_calls
from socratune.rows import QARow, Rejected
from socratune.runs import HasId, Journal, RunDir, Tick, map_rows
from socratune.stages.enhance import attended
from socratune.stages.generate import GeneratedFiles, passage_step
from socratune.teaching import Loop, enhance_row

PILOT_ROWS = 20

Span = tuple[float, float, float]
"""Expected value, lower and upper end of the 95 % interval."""
_Row = TypeVar("_Row", bound=HasId)


async def estimate_loop(
    run: RunDir,
    rows: Sequence[QARow],
    total: int,
    config: StudentTeacherConfig,
    base: Base,
    *,
    journal: Journal,
    key: str,
    tick: Tick,
    limits: Limits,
) -> dict[str, Any]:
    """Enhances `PILOT_ROWS` of the rows, chosen by the hash of their id, and extrapolates to `total`.

    Returns:
        `rows`, `pilot_rows`, what the pilot has `spent`, and as [expected, low, high] over all rows: `tokens` by role,
        `usd` by role and in all (None without a known price), `seconds`. If calls go in batches, the prices are those
        of batches, and `batches` holds `saved_usd` and how many at most follow `in_a_row`; the pilot's own calls are
        direct.

    Raises:
        BudgetSpent: the limit of money or tokens is smaller than the pilot.
        OutsideError: most calls of the pilot failed.
    """
    ledger = Ledger(limits)
    async with attended(run, config, base, journal=journal, ledger=ledger) as (loop, student):
        step = _measured(_enhanced(loop))
        pilot, wall_s = await _tried(rows, step, config.concurrency, journal=journal, key=key, tick=tick)
    pilot, batches = _in_batches(pilot, config, total)
    estimate = extrapolate(pilot, total, unpriced=ledger.unpriced) | batches
    seconds = _seconds(pilot, estimate, config, wall_s=wall_s, served=student.loaded is None)
    return {**estimate, "seconds": seconds, "spent": ledger.summary()}


def _in_batches(
    pilot: list[dict[str, Any]], config: StudentTeacherConfig, total: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the pilot's rows at batch prices, and what batches save; unchanged if there are none."""
    shares = {f"enhance.{role}": share for role, share in batch_shares(config).items()}
    if not shares:
        return pilot, {}
    at_half = [{**row, "usd": {role: usd * shares.get(role, 1.0) for role, usd in row["usd"].items()}} for row in pilot]
    saved = sum(sum(row["usd"].values()) - sum(half["usd"].values()) for row, half in zip(pilot, at_half, strict=True))
    in_a_row = max((sum(row["calls"].get(role, 0) for role in shares) for row in pilot), default=0)
    roles = [role.removeprefix("enhance.") for role in shares]
    return at_half, {"batches": {"roles": roles, "saved_usd": saved * total / len(pilot), "in_a_row": in_a_row}}


async def estimate_source(
    place: GeneratedFiles,
    config: GenerateConfig,
    *,
    model_name: str,
    seed: int,
    journal: Journal,
    key: str,
    tick: Tick,
    limits: Limits,
) -> tuple[dict[str, Any], list[QARow]]:
    """Writes questions for `PILOT_ROWS` of the passages. Returns the estimate (as `estimate_loop`) and the pilot's
    rows.

    `questions` is the number of rows from all passages without siblings, which can be trained on. Those of a graph are
    added to it, and questions that several passages share are counted for each.

    Raises:
        UserError: there is no such source, or nothing in it can be read.
        BudgetSpent, OutsideError: as in `estimate_loop`.
    """
    gathered = gather_passages(config, place.source)
    _, total, _ = cut_passages(gathered, config, token_counter(model_name))
    ledger = Ledger(limits)
    graph = Graph(linked_documents(gathered), gathered.links())
    async with attending_writers(config, gathered, seed=seed, journal=journal, ledger=ledger) as writers:
        step = _measured(passage_step(config, gathered, graph, writers))
        passages = list(read_passages(gathered))
        pilot, wall_s = await _tried(passages, step, config.concurrency, journal=journal, key=key, tick=tick)
    estimate = extrapolate(pilot, total, unpriced=ledger.unpriced)
    written = [[row for row in value["rows"] if "sibling_of" not in row["metadata"]] for value in pilot]
    estimate["questions"] = total_interval([len(rows) for rows in written], total)
    estimate |= {"seconds": _seconds(pilot, estimate, config, wall_s=wall_s, served=True), "spent": ledger.summary()}
    parsed = (parse_row(row, "pilot") for rows in written for row in rows)
    return estimate, [row for row in parsed if isinstance(row, QARow)]


def trained_rows(questions: float, split: SplitConfig) -> int:
    """Returns how many of so many rows the split leaves for the loop; tests by siblings take none of them."""
    held_out = 0.0 if split.held_out else min(questions * split.held_out_share, split.max_held_out_rows)
    return round(questions - held_out - min(questions * split.dev_share, split.max_dev_rows))


async def _tried(
    rows: Iterable[_Row],
    step: Callable[[_Row], Awaitable[dict[str, Any]]],
    concurrency: int,
    *,
    journal: Journal,
    key: str,
    tick: Tick,
) -> tuple[list[dict[str, Any]], float | None]:
    """Returns the values of the pilot's rows, and their seconds in all; None if the journal knew some before.

    Raises:
        OutsideError: most of them failed.
    """
    chosen = sorted(rows, key=lambda row: hashlib.sha256(f"pilot/{row.id}".encode()).digest())[:PILOT_ROWS]
    known = len(journal.done_positions(key))
    started = time.monotonic()
    await map_rows(chosen, step, journal=journal, stage=key, concurrency=min(concurrency, len(chosen)), tick=tick)
    wall_s = None if known else time.monotonic() - started
    pilot = list(journal.rows(key))
    failed = [row["error"] for row in pilot if row["error"]]
    if len(failed) > len(pilot) / 2:
        raise OutsideError(
            f"{len(failed)} of the {len(pilot)} rows of the pilot failed; the last error was: {failed[-1]}"
        )
    return pilot, wall_s


def _measured(step: Callable[[_Row], Awaitable[dict[str, Any]]]) -> Callable[[_Row], Awaitable[dict[str, Any]]]:
    """Wraps `step` so that its value contains its time, calls, tokens and USD."""

    async def measured(row: _Row) -> dict[str, Any]:
        started = time.monotonic()
        with tally_calls() as tally:
            value = await step(row)
        seconds = None if tally.replayed else time.monotonic() - started
        taken = {"calls": dict(tally.calls), "tokens": tally.tokens, "usd": tally.usd}
        return {"error": _refusal(value), **value, "seconds": seconds, **taken}

    return measured


def _enhanced(loop: Loop) -> Callable[[QARow], Awaitable[dict[str, Any]]]:
    async def step(row: QARow) -> dict[str, Any]:
        trace = await enhance_row(row, loop)
        return {"error": trace.error if trace.outcome == "error" else None}

    return step


def _refusal(value: dict[str, Any]) -> str | None:
    """Returns why a passage has no question, if a call failed."""
    rejected = map(Rejected.from_json, value.get("rejected", ()))
    return next((row.detail for row in rejected if row.reason == "call_failed"), None)


def extrapolate(pilot: Sequence[dict[str, Any]], rows: int, *, unpriced: set[str]) -> dict[str, Any]:
    """Extrapolates tokens and USD from the pilot to all rows.

    Args:
        pilot: `tokens` and `usd` by role of each row.
        unpriced: roles without a known price; their USD, and the sum, are None.
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
    estimate: dict[str, Any],
    config: StudentTeacherConfig | GenerateConfig,
    *,
    wall_s: float | None,
    served: bool,
) -> Span | None:
    """Returns how long all rows take, or None if the journal answered for a row of the pilot.

    For a server, rows only wait, so `concurrency` of them share the time, within the limits per minute. A student in
    this process decodes larger batches faster per row, but the pilot does not show by how much: its own rate is the
    expected and the upper end.
    """
    lasted, rows = [row["seconds"] for row in pilot], estimate["rows"]
    if None in lasted or not pilot or wall_s is None:
        return None
    expected, low, high = (seconds / min(config.concurrency, rows) for seconds in total_interval(lasted, rows))
    if not served:
        by_rate = wall_s * rows / len(pilot)
        expected, low, high = by_rate, min(low, by_rate), by_rate
    floor_s = _limited_s(pilot, estimate, config)
    return max(expected, floor_s), max(low, floor_s), max(high, floor_s)


def _limited_s(
    pilot: Sequence[dict[str, Any]], estimate: dict[str, Any], config: StudentTeacherConfig | GenerateConfig
) -> float:
    """Returns the least time under the limits of requests and tokens per minute."""
    section = "generate" if isinstance(config, GenerateConfig) else "enhance"
    times = [0.0]
    endpoint: EndpointConfig
    for role, endpoint in config.endpoints:
        name = f"{section}.{role}"
        calls = sum(row["calls"].get(name, 0) for row in pilot) * estimate["rows"] / len(pilot)
        if endpoint.requests_per_minute:
            times.append(calls / endpoint.requests_per_minute * 60)
        if endpoint.tokens_per_minute and name in estimate["tokens"]:
            times.append(estimate["tokens"][name][0] / endpoint.tokens_per_minute * 60)
    return max(times)

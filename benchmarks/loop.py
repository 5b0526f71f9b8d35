"""How close does the loop come to what the model server allows? Prints one row per setting.

    python benchmarks/loop.py [--quick]

Bound: a greedy list schedule of the exact row lengths on `concurrency` slots; no client can be faster, as a row has one
call in flight. Figure: bound / wall, from the first row read to the last row written, journal on, everything included
but the start of Python. 4.1 calls per row; the judge is a model for every answer (`judge_mode: llm`). Other work on the
machine makes the wall longer; the client's CPU per call bears it better. A figure below its floor is marked.
"""

from __future__ import annotations

import argparse
import heapq
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from common import run_client, serving, write_rows
from loop_server import latency_s

FLOORS = {"cpu_ms": 0.45, "peak_mb": 120.0}
"""At 10,000 rows."""


def row_seconds(number: int, kind: str, scale: float) -> float:
    """The seconds a row's calls take, one after the other."""
    rounds = 1 if number % 10 < 5 else 2 if number % 10 < 8 else 3
    calls = [(role, at) for at in range(1, rounds + 1) for role in ("student", "judge")]
    calls += [("teacher", at) for at in range(1, rounds)]
    return sum(latency_s(role, number, at, kind, scale) for role, at in calls)


def bound_s(rows: Iterable[int], concurrency: int, kind: str, scale: float) -> float:
    """The wall time of a client without any cost of its own."""
    slots = [0.0] * concurrency
    for number in rows:
        heapq.heappush(slots, heapq.heappop(slots) + row_seconds(number, kind, scale))
    return max(slots)


def measure(rows: int, concurrency: int, kind: str, scale: float, floor: float) -> None:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder, serving(kind, scale) as server:
        found = run_client(write_rows(Path(folder), rows), server, concurrency)
    bound = bound_s(range(rows), concurrency, kind, scale)
    share, cpu_ms = bound / found["wall_s"], found["cpu_s"] / found["calls"] * 1000
    large = rows >= 10_000
    cells = [
        f"{rows} rows, {concurrency} in flight, {kind.lower()} ×{scale:g}",
        f"{share:.1%}" + " (!)" * (share < floor),
        f"{floor:.0%}",
        f"{bound:.2f}",
        f"{found['wall_s']:.2f}",
        f"{cpu_ms:.3f}" + " (!)" * (large and cpu_ms > FLOORS["cpu_ms"]),
        f"{found['peak_mb']:.0f}" + " (!)" * (large and found["peak_mb"] > FLOORS["peak_mb"]),
        f"{found['calls']:.0f}",
        f"{os.getloadavg()[0]:.1f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="only the first row")
    options = parser.parse_args()
    print("| work | bound ÷ wall | floor | bound s | wall s | client CPU ms a call | peak MB | calls | load |")
    print("|---|---|---|---|---|---|---|---|---|")
    measure(2000, 64, "CONSTANT", 1, 0.90)
    if not options.quick:
        measure(10_000, 256, "CONSTANT", 1, 0.70)
        measure(2000, 256, "LOGNORMAL", 10, 0.95)


if __name__ == "__main__":
    main()

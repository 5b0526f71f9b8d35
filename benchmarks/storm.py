"""A model server on a bad day: is every row finished, and every verdict the judge's own?

    python benchmarks/storm.py [--rows 2000] [--concurrency 64] [--seed N]

Of all requests 5 % get 429, 2 % 500, 1 % no answer at all, 1 % a body that breaks off, 1 % nonsense where JSON should
be (and, from the judge, a reply without a verdict). The server knows which rows are right at once, with a hint, and
never; the outcome of each row and the verdict on each attempt are compared with that. Exits with 1 where one differs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from common import enhanced, run_client, serving, write_rows

CALL_TIMEOUT_S = 2.0


def main() -> int:
    """Run through the storm and compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, serving(storm_seed=options.seed) as server:
        folder = write_rows(Path(place), options.rows)
        found = run_client(folder, server, options.concurrency, CALL_TIMEOUT_S)
        rows, faults = enhanced(folder), server.stats()["faults"]
    missing = options.rows - len({row["id"] for row in rows})
    wrong = sum(row["metadata"]["enhancement"]["outcome"] != true_outcome(int(row["id"])) for row in rows)
    invented = sum(
        attempt["verdict"] != ("correct" if "RIGHT" in attempt["response"] else "incorrect")
        for row in rows
        for attempt in row["metadata"]["enhancement"]["trace"]
    )
    good = not missing and not wrong and not invented
    met = ", ".join(f"{count} {fault}" for fault, count in sorted(faults.items()))
    print(
        f"Storm ({options.rows} rows, {options.concurrency} in flight, seed {options.seed}; {met}): {missing} rows"
        f" missing, {wrong} outcomes not the true one, {invented} verdicts invented; {found['wall_s']:.1f} s"
        f"{'' if good else ' (!)'}",
        flush=True,
    )
    return 0 if good else 1


def true_outcome(number: int) -> str:
    """What the server makes of a row."""
    return "solved_first_try" if number % 10 < 5 else "solved_with_hint" if number % 10 < 8 else "unsolved"


if __name__ == "__main__":
    sys.exit(main())

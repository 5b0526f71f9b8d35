"""SIGKILL at random moments of one run, each time resumed by the same command: what is lost, what is paid twice?

    python benchmarks/crash.py [--rows 2000] [--concurrency 64] [--kills 20] [--seed N]

Moments are drawn over the run's calls; the first kill falls into the start-up. Lost is a row that the killed process
had reported as finished and the journal does not hold, and a row that is missing in the end. A call that was in flight
has to be repeated, so `concurrency` repeats per kill are what no client can avoid; 5 % more are allowed. In the end the
result must be, byte for byte, that of a run that nobody killed, and running once more must ask nobody. Exits with 1
where any of this fails.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from common import Server, enhanced, run_client, serving, start_client, write_rows

from socratune.runs.journal import Journal

CALLS_PER_ROW = 4.1


def main() -> int:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    draw = random.Random(options.seed)
    total = options.rows * CALLS_PER_ROW
    moments = sorted([0.0, *(draw.uniform(0, total) for _ in range(options.kills - 1))])
    with tempfile.TemporaryDirectory() as place:
        killed, whole = (
            write_rows(Path(place) / "killed", options.rows),
            write_rows(Path(place) / "whole", options.rows),
        )
        with serving() as server:
            run_client(whole, server, options.concurrency)
        with serving() as server:
            lost = sum(
                kill_once(killed, server, options.concurrency, moment, draw.uniform(0, 0.1)) for moment in moments
            )
            run_client(killed, server, options.concurrency)
            stats = server.stats()
            run_client(killed, server, options.concurrency)
            more = server.stats()["calls"] - stats["calls"]
        lost += options.rows - len({row["id"] for row in enhanced(killed)})
        same = (killed / "enhanced_dataset.jsonl").read_bytes() == (whole / "enhanced_dataset.jsonl").read_bytes()
    allowed = round(options.kills * options.concurrency * 1.05)
    good = not lost and same and stats["repeated"] <= allowed and not more
    work = f"{options.rows} rows, {options.concurrency} in flight, seed {options.seed}"
    print(
        f"SIGKILL ×{options.kills} in one run ({work}): {lost} rows lost; {stats['repeated']} of {stats['calls']} calls"
        f" repeated, {allowed} allowed; {more} calls by running it once more; result"
        f" {'identical to' if same else 'DIFFERENT from'} that of a run nobody killed{'' if good else ' (!)'}",
        flush=True,
    )
    return 0 if good else 1


def kill_once(folder: Path, server: Server, concurrency: int, moment: float, later_s: float) -> int:
    """Run on until the server has had `moment` calls and `later_s` have passed, then kill. The rows lost by that."""
    client = start_client(folder, server, concurrency)
    while server.stats()["calls"] < moment and client.poll() is None:
        time.sleep(0.002)
    time.sleep(later_s)
    client.send_signal(signal.SIGKILL)
    said, _ = client.communicate()
    told = [int(line) for line in said.splitlines() if line.isdecimal()]
    with closing(Journal(folder / "journal.sqlite")) as journal:
        kept = len(journal.done_positions("enhance.bench"))
    return max(0, (told or [0])[-1] - kept)


if __name__ == "__main__":
    sys.exit(main())

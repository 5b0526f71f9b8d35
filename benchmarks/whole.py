"""The loop as a user types it, from command to exit, beside the bound of its rows. Prints one row per setting.

    python benchmarks/whole.py [--quick]

Bound: as in `loop.py`, of the rows that the split left to train on. Each setting runs twice: what the first run finds
out about the model, in an empty cache, is known to the second. CPU is the client's, start and report included.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import serving, write_rows
from loop import bound_s

ROLES = ("student", "teacher", "judge")


def measure(rows: int, concurrency: int, kind: str, scale: float, cache: Path) -> None:
    """One line of the table."""
    known = "known" if cache.exists() else "new"
    with tempfile.TemporaryDirectory() as folder, serving(kind, scale) as server:
        data, output = write_rows(Path(folder) / "data", rows) / "train_in.jsonl", Path(folder) / "run"
        command = [sys.executable, "-m", "socratune", "enhance", "--model", "demo", "--dataset", str(data)]
        command += ["--output", str(output), "--concurrency", str(concurrency), "--judge-mode", "llm"]
        command += ["--attempts", "1", "--hint-attempts", "1", "--thinking-format", "direct"]
        for role in ROLES:
            command += [f"--{role}-model", f"openai/{role}", f"--{role}-api-base", f"http://127.0.0.1:{server.port}/v1"]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        own = {**os.environ, "SOCRATUNE_CACHE": str(cache)}
        own.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's second command reads compiled modules
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=own)
        wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        calls = server.stats()["calls"]
        with (output / "train_in.jsonl").open() as stream:
            numbers = [int(json.loads(line)["id"]) for line in stream]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    bound = bound_s(numbers, concurrency, kind, scale)
    work = f"{len(numbers)} rows, {concurrency} in flight, {kind.lower()} ×{scale:g}, model {known}"
    print(
        f"| {work} | {bound / wall:.1%} | {bound:.2f} | {wall:.2f} | {cpu / calls * 1000:.3f} | {calls} |", flush=True
    )


def main() -> None:
    """Print the table."""
    print("| work | bound ÷ wall | bound s | wall s | client CPU ms a call | calls |")
    print("|---|---|---|---|---|---|")
    settings = [(2000, 64, "CONSTANT", 1.0), (10_000, 256, "CONSTANT", 1.0), (2000, 256, "LOGNORMAL", 10.0)]
    for setting in settings[:1] if "--quick" in sys.argv else settings:
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(2):
                measure(*setting, Path(folder) / "cache")


if __name__ == "__main__":
    main()

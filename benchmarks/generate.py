"""How close does the writing of questions come to what the model server allows? Prints one row.

    python benchmarks/generate.py [PASSAGES]

A writer behind `loop_server.py` that takes 1 s for a passage and answers with six questions and a sibling each: 0.08 s
for a row that comes out, where a row of `loop.py` takes 0.27 s. Bound: passages ÷ 256 in flight × 1 s; no client can be
faster. Figure: bound ÷ wall, from the first document read to the last row written: reading, cutting, calls, checks,
duplicates and journal. A figure below its floor is marked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import serving
from loop_server import LATENCY_S, sentence

FLOOR, CONCURRENCY = 0.70, 256


def client(folder: Path, port: str) -> None:
    """The stage in this process; its wall and CPU seconds, peak memory and figures as JSON."""
    import asyncio
    import resource
    import time

    from socratune.config import GenerateConfig
    from socratune.runs.journal import Journal
    from socratune.stages import generate

    config = GenerateConfig(
        source=str(folder / "documents.jsonl"), writer_model="writer", concurrency=CONCURRENCY,
        writer_api_base=[f"http://127.0.0.1:{port}/v1"],
    )  # fmt: skip
    place = generate.GeneratedFiles(folder / "qa.jsonl", folder / "qa.rejected.jsonl", folder / "source")
    journal = Journal(folder / "journal.sqlite")
    cpu, started = time.process_time(), time.monotonic()
    work = generate.generate_questions(
        place, config, model_name=None, seed=0, journal=journal, key="bench", tick=lambda done, total, **live: None
    )  # fmt: skip
    figures = asyncio.run(work).figures
    wall, cpu = time.monotonic() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "peak_mb": peak, "rows": figures["rows"]}))


def main() -> None:
    """Print the figures."""
    passages = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as name, serving() as server:
        folder = Path(name)
        with (folder / "documents.jsonl").open("w") as stream:
            for row in range(passages):
                text = f"row {row}: " + " ".join(sentence(row, number) for number in range(12))
                stream.write(json.dumps({"id": str(row), "title": f"Yard {row}", "text": text}) + "\n")
        command = [sys.executable, __file__, "client", name, str(server.port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found, stats = json.loads(done.stdout), server.stats()
    bound = passages * LATENCY_S["writer"] / CONCURRENCY
    share = bound / found["wall_s"]
    print("| passages | bound ÷ wall | floor | bound s | wall s | CPU ms a passage | peak MB | calls | rows | load |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    cells = [
        f"{passages}", f"{share:.1%}" + " (!)" * (share < FLOOR), f"{FLOOR:.0%}", f"{bound:.2f}",
        f"{found['wall_s']:.2f}", f"{found['cpu_s'] / passages * 1000:.2f}", f"{found['peak_mb']:.0f}",
        f"{stats['calls']}", f"{found['rows']}", f"{os.getloadavg()[0]:.1f}",
    ]  # fmt: skip
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        client(Path(sys.argv[2]), sys.argv[3])
    else:
        main()

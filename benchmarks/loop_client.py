"""The enhance stage against `loop_server.py`, timed; started by the other benchmarks.

python benchmarks/loop_client.py FOLDER PORT CONCURRENCY CALL_TIMEOUT_S
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

from socratune.config import StudentTeacherConfig
from socratune.llm.locate import Base
from socratune.runs.folder import RunDir
from socratune.runs.journal import Journal
from socratune.stages import enhance


def main() -> None:
    """Print the number of finished rows ten times a second; at the end wall, CPU, peak memory and calls as JSON."""
    folder, port, concurrency, call_timeout_s = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    base = [f"http://127.0.0.1:{port}/v1"]
    config = StudentTeacherConfig(
        student_model="student", teacher_model="teacher", judge_model="judge", judge_mode="llm",
        student_api_base=base, teacher_api_base=base, judge_api_base=base,
        attempts=1, hint_attempts=1, max_iterations=3, thinking_format="direct", temperature=0.7,
        top_p=0.8, concurrency=concurrency, call_timeout_s=call_timeout_s,
    )  # fmt: skip
    journal = Journal(folder / "journal.sqlite")
    told_at = 0.0

    def tell(done: int, total: int, **live: object) -> None:
        nonlocal told_at
        if time.monotonic() - told_at > 0.1:
            told_at = time.monotonic()
            print(done, flush=True)

    cpu, started = time.process_time(), time.monotonic()
    result = asyncio.run(
        enhance.enhance_rows(
            RunDir(folder), config, Base("demo", load_in_4bit=False, seed=0), shard=None,
            journal=journal, key="enhance.bench", tick=tell,
        )
    )  # fmt: skip
    wall, cpu = time.monotonic() - started, time.process_time() - cpu
    calls = sum(int(role["calls"]) for role in journal.spent().values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "peak_mb": peak, "calls": calls, "rows": result.rows_in}))


if __name__ == "__main__":
    main()

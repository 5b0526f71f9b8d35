"""The enhance stage against `loop_server.py`, timed; started by `loop.py`."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

from socratune.config import StudentTeacherConfig
from socratune.journal import Journal
from socratune.rundir import RunDir
from socratune.stages import enhance


def main() -> None:
    """Print wall and CPU seconds, peak memory and calls as JSON."""
    folder, port, concurrency = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    base = [f"http://127.0.0.1:{port}/v1"]
    config = StudentTeacherConfig(
        student_model="student", teacher_model="teacher", judge_model="judge", judge_mode="llm",
        student_api_base=base, teacher_api_base=base, judge_api_base=base,
        attempts=1, hint_attempts=1, max_iterations=3, concurrency=concurrency,
    )  # fmt: skip
    journal = Journal(folder / "journal.sqlite")
    cpu, started = time.process_time(), time.monotonic()
    result = asyncio.run(
        enhance.run(
            RunDir(folder), config, model_name="student", model_fingerprint="x", load_in_4bit=False, seed=0,
            journal=journal, key="enhance.bench", tick=lambda done, total: None,
        )
    )  # fmt: skip
    wall, cpu = time.monotonic() - started, time.process_time() - cpu
    calls = sum(int(role["calls"]) for role in journal.spent().values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert result.rows_out * 10 == result.rows_in * 8, result
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "peak_mb": peak, "calls": calls}))


if __name__ == "__main__":
    main()

"""Do 100,000 rows stream through? Peak memory of every stage before the training, each in a process of its own.

    python benchmarks/memory.py [--rows N]

The real command against `loop_server.py` (rows in the ratio of `loop.py`: half right at once, 30 % after a hint). A row
has 600 characters of question and 400 of reference. Figure: the largest resident set of the process (`ru_maxrss`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

HERE = Path(__file__).parent
FLOOR_MB = 300
PREFLIGHT = """
import sys, yaml
from socratune.preflight import preflight
preflight(yaml.safe_load(open(sys.argv[1])), where="")
"""


def write_rows(path: Path, rows: int) -> None:
    """A data set whose rows `loop_server.py` knows by their number."""
    draw = random.Random(0)
    words = ["".join(draw.choices("bcdfglmnprstvw", k=draw.randint(3, 9))) for _ in range(2000)]
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            question = f"row {number}: {' '.join(draw.choices(words, k=85))}"[:600]
            reference = f"{' '.join(draw.choices(words, k=57))}"[:380] + " The RIGHT amount"
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": reference}]
            stream.write(json.dumps({"messages": turns, "metadata": {"source": f"document-{number // 7}"}}) + "\n")


def configuration(folder: Path, port: int) -> dict[str, object]:
    """The embedded model's name, so that nothing heavy is loaded; everyone in the loop is behind the server."""
    base = [f"http://127.0.0.1:{port}/v1"]
    enhance = {
        "student_model": "student", "teacher_model": "teacher", "judge_model": "judge", "judge_mode": "llm",
        "student_api_base": base, "teacher_api_base": base, "judge_api_base": base,
        "attempts": 1, "hint_attempts": 1, "max_iterations": 3, "concurrency": 64,
    }  # fmt: skip
    curate = {"replay_share": 0.0}
    dataset, output = str(folder / "rows.jsonl"), str(folder / "run")
    return {"model": "demo", "dataset": dataset, "output": output, "enhance": enhance, "curate": curate}


def measure(stage: str, command: list[str]) -> bool:
    """One line of the table; whether the stage stays below the floor."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen([sys.executable, *command], stdout=output, stderr=output)
        _, status, usage = os.wait4(child.pid, 0)
        if os.waitstatus_to_exitcode(status):
            output.seek(0)
            raise SystemExit(f"{stage} failed:\n{output.read()}")
    peak = usage.ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)
    cpu = usage.ru_utime + usage.ru_stime
    print(f"| {stage} | {peak:.0f} | {time.monotonic() - started:.0f} | {cpu:.0f} |", flush=True)
    return peak < FLOOR_MB


def main() -> None:
    """Print the table; exit code 1 where a stage takes too much."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, str(HERE / "loop_server.py"), str(port), "CONSTANT", "0.01"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_rows(folder / "rows.jsonl", rows)
            (folder / "run.yaml").write_text(yaml.safe_dump(configuration(folder, port)))
            print(f"| {rows} rows | peak MB (< {FLOOR_MB}) | wall s | CPU s |\n|---|---|---|---|")
            config = str(folder / "run.yaml")
            good = measure("preflight", ["-c", PREFLIGHT, config])
            for stage in ("split", "enhance", "curate"):
                good &= measure(stage, ["-m", "socratune", "run", "--config", config, "--until", stage])
    finally:
        server.kill()
        server.wait()
    sys.exit(not good)


if __name__ == "__main__":
    main()

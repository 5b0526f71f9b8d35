"""How close does the loop come to what the model server allows? Prints one row per setting.

    python benchmarks/loop.py [--quick]

Bound: a greedy list schedule of the exact row lengths on `concurrency` slots; no client can be faster, as a row has one
call in flight. Figure: bound / wall, from the first row read to the last row written, journal on, everything included
but the start of Python. 4.1 calls per row; the judge is a model for every answer (`judge_mode: llm`).
"""

from __future__ import annotations

import argparse
import heapq
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from loop_server import latency_s

HERE = Path(__file__).parent


def row_seconds(number: int, kind: str, scale: float) -> float:
    """The seconds a row's calls take, one after the other."""
    rounds = 1 if number % 10 < 5 else 2 if number % 10 < 8 else 3
    calls = [(role, at) for at in range(1, rounds + 1) for role in ("student", "judge")]
    calls += [("teacher", at) for at in range(1, rounds)]
    return sum(latency_s(role, number, at, kind, scale) for role, at in calls)


def bound_s(rows: int, concurrency: int, kind: str, scale: float) -> float:
    """The wall time of a client without any cost of its own."""
    slots = [0.0] * concurrency
    for number in range(rows):
        heapq.heappush(slots, heapq.heappop(slots) + row_seconds(number, kind, scale))
    return max(slots)


def client(folder: Path, port: int, concurrency: int) -> dict[str, float]:
    """Run the enhance stage in a process of its own; its wall, CPU and memory."""
    script = HERE / "loop_client.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(port), str(concurrency)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(rows: int, concurrency: int, kind: str, scale: float) -> None:
    """One line of the table."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(HERE / "loop_server.py"), str(port), kind, str(scale)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        with tempfile.TemporaryDirectory() as folder:
            with (Path(folder) / "train_in.jsonl").open("w") as stream:
                for number in range(rows):
                    question = {"role": "user", "content": f"row {number}: how much is it, all in all?"}
                    answer = {"role": "assistant", "content": "The RIGHT amount"}
                    stream.write(json.dumps({"id": str(number), "messages": [question, answer], "metadata": {}}) + "\n")
            found = client(Path(folder), port, concurrency)
    finally:
        server.kill()
        server.wait()
    bound = bound_s(rows, concurrency, kind, scale)
    calls = found["calls"]
    cells = [
        f"{rows} rows, {concurrency} in flight, {kind.lower()} ×{scale:g}",
        f"{bound / found['wall_s']:.1%}",
        f"{bound:.2f}",
        f"{found['wall_s']:.2f}",
        f"{found['cpu_s'] / calls * 1000:.3f}",
        f"{found['peak_mb']:.0f}",
        f"{calls:.0f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="only the first row")
    options = parser.parse_args()
    print("| work | bound ÷ wall | bound s | wall s | client CPU ms a call | peak MB | calls |")
    print("|---|---|---|---|---|---|---|")
    measure(2000, 64, "CONSTANT", 1)
    if not options.quick:
        measure(10_000, 256, "CONSTANT", 1)
        measure(2000, 256, "LOGNORMAL", 10)


if __name__ == "__main__":
    main()

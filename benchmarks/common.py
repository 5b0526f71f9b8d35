"""What the benchmarks share: the model server, the rows, and the client in a process of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

HERE = Path(__file__).parent


class Server:
    """`loop_server.py` at work."""

    def __init__(self, port: int) -> None:
        self.port = port

    def stats(self) -> dict[str, Any]:
        """Requests so far: `calls`, `repeated` (the same body again), and by what they met (`faults`)."""
        with urlopen(f"http://127.0.0.1:{self.port}/stats") as answer:
            return json.load(answer)


@contextmanager
def serving(kind: str = "CONSTANT", scale: float = 1, storm_seed: int | None = None) -> Iterator[Server]:
    """A model server until the block ends; with a seed for its faults, one with a storm."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    storm = [] if storm_seed is None else [str(storm_seed)]
    command = [sys.executable, str(HERE / "loop_server.py"), str(port), kind, str(scale), *storm]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        yield Server(port)
    finally:
        server.kill()
        server.wait()


def write_rows(folder: Path, rows: int) -> Path:
    """The folder, made, with the rows to enhance."""
    folder.mkdir(exist_ok=True)
    with (folder / "train_in.jsonl").open("w") as stream:
        for number in range(rows):
            question = {"role": "user", "content": f"row {number}: how much is it, all in all?"}
            answer = {"role": "assistant", "content": "The RIGHT amount"}
            stream.write(json.dumps({"id": str(number), "messages": [question, answer], "metadata": {}}) + "\n")
    return folder


def start_client(folder: Path, server: Server, concurrency: int, call_timeout_s: float = 600) -> subprocess.Popen[str]:
    """The enhance stage in a process of its own. It prints how many rows are done, in the end its figures."""
    command = [sys.executable, str(HERE / "loop_client.py"), str(folder), str(server.port), str(concurrency)]
    return subprocess.Popen([*command, str(call_timeout_s)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_client(folder: Path, server: Server, concurrency: int, call_timeout_s: float = 600) -> dict[str, float]:
    """The whole stage: its wall and CPU seconds, peak memory and calls."""
    said, complaint = start_client(folder, server, concurrency, call_timeout_s).communicate()
    if not said.endswith("}\n"):
        raise SystemExit(complaint)
    return json.loads(said.splitlines()[-1])


def enhanced(folder: Path) -> list[dict[str, Any]]:
    """The rows of the result."""
    with (folder / "enhanced_dataset.jsonl").open() as stream:
        return [json.loads(line) for line in stream]

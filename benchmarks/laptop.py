"""How fast SmolLM2-135M answers on this machine's CPU: the student in this process beside llama.cpp's server.

    .venv-engines/bin/python benchmarks/laptop.py [--rows 64] [--in-flight 64] [--runs 3]

The same orders, asked greedily with at most 48 new tokens, in turns. llama.cpp gets the same weights in 32 bits, 16
and 8 bits, converted by its own script, and as many threads as there are cores. Loading is not counted. The script
needs what `make test-engines` installs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from orders import questions  # noqa: E402

from socratune.inference.student import LocalModels  # noqa: E402
from socratune.llm import Sampling  # noqa: E402
from socratune.llm.http import HttpModel  # noqa: E402
from socratune.llm.locate import model_location  # noqa: E402

CONVERTER = Path(sys.prefix) / "llama.cpp" / "convert_hf_to_gguf.py"
GREEDY = Sampling(temperature=0.0, max_new_tokens=48)
SERVER = """
import sys, xllamacpp
asked = xllamacpp.CommonParams()
asked.model.path, asked.n_parallel, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
asked.n_ctx, asked.kv_unified, asked.n_gpu_layers, asked.port, asked.ui = 256 * asked.n_parallel, False, 0, 0, False
asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = threads
server = xllamacpp.Server(asked)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def llama_cpp(gguf: Path, slots: int) -> Iterator[str]:
    """Yields the API base of llama.cpp's server with that file."""
    command = [sys.executable, "-c", SERVER, str(gguf), str(slots), str(os.cpu_count())]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield f"{process.stdout.readline().strip()}/v1"
        finally:
            process.kill()


def converted(kind: str, folder: Path) -> Path:
    """Returns SmolLM2's weights as a GGUF file with numbers of that kind."""
    gguf = folder / f"{kind}.gguf"
    command = [
        sys.executable,
        str(CONVERTER),
        str(model_location("smollm2")),
        "--outfile",
        str(gguf),
        "--outtype",
        kind,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return gguf


Ask = Callable[[list[dict[str, str]]], Awaitable[Any]]


async def tokens_per_second(ask: Ask, chats: list[list[dict[str, str]]], in_flight: int) -> float:
    """Returns the new tokens of all answers per second of wall time."""
    places = asyncio.Semaphore(in_flight)

    async def one(chat: list[dict[str, str]]) -> int:
        async with places:
            return (await ask(chat)).completion_tokens

    begun = time.perf_counter()
    tokens = sum(await asyncio.gather(*map(one, chats)))
    return tokens / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    texts = [entry["question"] for entry in itertools.islice(questions(0), given.rows)]
    chats = [[{"role": "user", "content": text}] for text in texts]
    speeds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: converted(kind, Path(folder)) for kind in ("f32", "bf16", "q8_0")}
        with LocalModels() as models:
            student = models.load("smollm2")
            asyncio.run(student.generate(chats[0], GREEDY))  # loads it
            for _ in range(given.runs):
                speed = asyncio.run(
                    tokens_per_second(lambda chat: student.generate(chat, GREEDY), chats, given.in_flight)
                )
                speeds.setdefault("in this process, 32 bits", []).append(speed)
                for kind, gguf in files.items():
                    with llama_cpp(gguf, min(given.in_flight, 64)) as base:
                        speeds.setdefault(f"llama.cpp, {kind}", []).append(
                            asyncio.run(asked(base, chats, given.in_flight))
                        )
    ours = sorted(speeds["in this process, 32 bits"])[given.runs // 2]
    for name, values in speeds.items():
        middle = sorted(values)[given.runs // 2]
        print(
            f"{name:<26} {middle:7.0f} tokens/s ({min(values):.0f} … {max(values):.0f})   ours ÷ it {ours / middle:.2f}"
        )
    print(json.dumps({name: [round(value, 1) for value in values] for name, values in speeds.items()}))


async def asked(base: str, chats: list[list[dict[str, str]]], in_flight: int) -> float:
    """Returns the speed of the server at `base`, after one answer to warm it."""
    model = HttpModel(kind="openai", model="smollm2", api_bases=[base], api_key=None)
    try:
        await model.generate(chats[0], GREEDY)
        return await tokens_per_second(lambda chat: model.generate(chat, GREEDY), chats, in_flight)
    finally:
        await model.close()


if __name__ == "__main__":
    main()

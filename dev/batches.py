"""What batches of calls cost and save, against a double of both vendors' APIs.

python dev/batches.py loop              the embedded model's loop: directly, in batches, and killed while one is out
python dev/batches.py rows 20000 openai      so many rows with one call of 1.3 kB each (or: anthropic)
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "llm")]
from batch_servers import KEY, BatchServer  # noqa: E402

from socratune.llm.base import Sampling  # noqa: E402
from socratune.llm.batched import BatchedModel  # noqa: E402
from socratune.llm.http import HttpModel  # noqa: E402
from socratune.llm.ledger import Ledger, MeteredModel, price_of  # noqa: E402
from socratune.llm.places import Places  # noqa: E402
from socratune.runs import Journal  # noqa: E402

ROLE = "enhance.judge"
COMMAND = ["enhance", "--model", "demo", "--dataset", "demo", "--judge-model", "openai/gpt-4o-mini"]
COMMAND += ["--judge-mode", "llm", "--set", "enhance.endpoints.judge.api_key_env=DOUBLE_KEY"]
BATCH = ["--set", "enhance.endpoints.judge.batch=true"]


def loop(server: BatchServer, folder: Path) -> None:
    def begun(name: str, *more: str) -> subprocess.Popen[bytes]:
        server.runs.clear()
        words = [*COMMAND, *more, "--judge-api-base", server.openai_base, "--output", str(folder / name)]
        return subprocess.Popen([sys.executable, "-m", "socratune", *words], env={**os.environ, "DOUBLE_KEY": KEY})

    def told(name: str, began: float) -> None:
        found = json.loads((folder / name / "pipeline_results.json").read_text())["stages"]["enhance"]
        sizes = [len(batch.calls) for batch in server.batches.values()]
        print(
            f"{name}: {time.monotonic() - began:.1f} s, {server.runs.total()} calls, the same at most "
            f"{max(server.runs.values())} times, batches of {sizes}, {found['spent']}"
        )

    server.finish_after = 0
    for name, more in (("direct", []), ("batched", BATCH)):
        began = time.monotonic()
        assert begun(name, *more).wait() == 0
        told(name, began)
    server.batches.clear()
    server.finish_after = None
    began = time.monotonic()
    process = begun("killed", *BATCH)
    while not any(batch.looks for batch in list(server.batches.values())):
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = server.runs.copy()
    server.finish_after = 0
    process = begun("killed", *BATCH)
    server.runs.update(before)
    assert process.wait() == 0
    told("killed", began)
    same = {(folder / name / "enhanced_dataset.jsonl").read_bytes() for name in ("direct", "batched", "killed")}
    print("the same rows:", len(same) == 1)


async def rows(server: BatchServer, journal: Journal, count: int, kind: str) -> None:
    base, name = (server.openai_base, "gpt-4o-mini") if kind == "openai" else (server.url, "claude-opus-4-5")
    http = HttpModel(kind="openai" if kind == "openai" else "anthropic", model=name, api_bases=[base], api_key=KEY)
    ledger, places = Ledger(), Places(256)
    direct = MeteredModel(http, journal, ROLE, ledger=ledger, price=price_of(kind, name))
    named = {"journal": journal, "role": ROLE, "ledger": ledger, "places": places}
    model = BatchedModel(http, direct, price=price_of(kind, name, batch=True), **named)
    text = "Is this answer right? " * 60

    async def row(number: int) -> None:
        async with places.row():
            await model.generate([{"role": "user", "content": f"{text}{number}"}], Sampling())

    began = time.monotonic()
    await asyncio.gather(*map(row, range(count)))
    sizes = [len(batch.calls) for batch in server.batches.values()]
    most_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{count} rows: {time.monotonic() - began:.1f} s, batches of {sizes}, {most_mb} MB at most with the double, "
          f"{server.runs.total()} calls, {ledger.usd[ROLE]:.4f} USD")  # fmt: skip
    await model.close()


if __name__ == "__main__":
    with BatchServer() as server, TemporaryDirectory() as folder:
        server.finish_after = 0
        if sys.argv[1] == "loop":
            loop(server, Path(folder))
        else:
            with closing(Journal(Path(folder) / "journal.sqlite")) as journal:
                asyncio.run(rows(server, journal, int(sys.argv[2]), sys.argv[3]))

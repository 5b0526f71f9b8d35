"""The whole demo, killed at random moments, its files damaged in between: is the result that of a run nobody disturbed?

    python benchmarks/kills.py [--kills 20] [--seed N] [--set KEY=VALUE …]

SIGKILL, SIGTERM and SIGINT take turns, at a moment drawn over the start-up and over the next two stages. After
every other kill one file that a stage has made is cut off in a line, or removed: rows, a checkpoint, the page, the log
(not the journal, the settings and the results, from which all else is made again). Then the same command goes on. Where
it ends before it could be killed, its result is compared and a new run begins, until all kills are done. Compared are,
byte for byte, the training rows, the held-out answers and the adapter's weights, and the figures of the verdict. An
interrupted command ends with 130 (or by the signal, in the moments before Python listens), without a traceback. Exits
with 1 where any of this fails.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STAGES = ("split", "enhance", "curate", "train", "validate")
LATER_S = 8.0
"""A kill comes up to so many seconds after the start, or after the stage that was drawn has begun."""
LISTENS_S = 1.0
"""Before, Python itself may not have come so far that a signal ends it with 130."""
ROWS = (
    "train_in.jsonl", "dev.jsonl", "held_out.jsonl", "enhanced_dataset.jsonl", "hint_measures.jsonl", "train.jsonl",
    "train.rejected.jsonl", "replay.jsonl", "exam.jsonl", "held_out_answers.jsonl", "report.html", "run.log",
)  # fmt: skip
SAME = (
    "train_in.jsonl",
    "enhanced_dataset.jsonl",
    "train.jsonl",
    "held_out_answers.jsonl",
    "adapter/adapter_model.safetensors",
)


@dataclass
class Kill:
    """One of them: when, how, how the command ended, what was damaged then."""

    after_s: float
    by: str
    stage: str
    code: int
    damaged: str
    wrong: str = ""

    def line(self, number: int) -> str:
        """Of the table."""
        cells = (number, f"{self.after_s:.1f} s", self.stage, self.by, self.code, self.damaged or "–", self.wrong)
        return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    """Disturb, go on, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the demo")
    options = parser.parse_args()
    draw, kills, wrong, ended = random.Random(options.seed), [], [], 0
    words = [word for pair in options.set for word in ("--set", pair)]
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        whole, run = Path(place) / "whole", Path(place) / "run"
        begun = time.monotonic()
        code, said = finish(whole, words)
        if code:
            raise SystemExit(said)
        print(f"undisturbed: {time.monotonic() - begun:.0f} s; seed {options.seed}", flush=True)
        print("| | after | stage | signal | exit | damaged then | |\n|---|---|---|---|---|---|---|", flush=True)
        while len(kills) < options.kills:
            kill = disturb(run, words, draw, SIGNALS[len(kills) % 3], damaging=len(kills) % 2 == 0)
            if kill is None:
                ended += 1
                wrong += differences(run, whole)
                shutil.rmtree(run)
                continue
            kills.append(kill)
            wrong += [kill.wrong] if kill.wrong else []
            print(kill.line(len(kills)), flush=True)
        code, said = finish(run, words)
        wrong += [f"the last command ended with {code}: {said[-800:]}"] if code else differences(run, whole)
    same = "DIFFERENT from" if wrong else "identical to"
    print(f"{len(kills)} kills over {ended + 1} runs; results {same} those of a run nobody disturbed", flush=True)
    print(*dict.fromkeys(wrong), sep="\n")
    return 1 if wrong else 0


def command(run: Path, words: list[str]) -> list[str]:
    """The demo's."""
    return [sys.executable, "-m", "socratune", "demo", "--output", str(run), *words]


def finish(run: Path, words: list[str]) -> tuple[int, str]:
    """The exit code of the command where it is left alone, and what it prints."""
    done = subprocess.run(command(run, words), capture_output=True, text=True, check=False, timeout=1200)
    return done.returncode, done.stdout + done.stderr


def disturb(run: Path, words: list[str], draw: random.Random, by: signal.Signals, *, damaging: bool) -> Kill | None:
    """Go on, and kill at a random moment; None where the command has ended before."""
    done = finished_stages(run)
    stage = draw.choice(["", *[name for name in STAGES if name not in done][:2]])
    later_s = draw.uniform(0, LATER_S)
    with tempfile.TemporaryFile("w+") as told:
        client = subprocess.Popen(command(run, words), stdout=told, stderr=told)
        began = time.monotonic()
        while client.poll() is None and stage and now_doing(run) != stage and stage not in finished_stages(run):
            time.sleep(0.01)
        until = time.monotonic() + later_s
        while client.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        after_s = time.monotonic() - began
        client.send_signal(by)
        code = client.wait(timeout=60)
        took = time.monotonic() - began - after_s
        told.seek(0)
        said = told.read()
    if code == 0:
        return None
    right = code == -by if by == signal.SIGKILL or after_s < LISTENS_S else code == 130
    wrong = [] if right or code == 130 else [f"exit code {code} by {by.name}: {said[-800:]}"]
    wrong += [f"a traceback by {by.name}: {said[-1500:]}"] if "Traceback" in said or "bug in" in said else []
    wrong += [f"{took:.0f} s to end by {by.name}"] if took > 10 else []
    return Kill(after_s, by.name, now_doing(run), code, damage(run, draw) if damaging else "", "; ".join(wrong))


def stages_of(run: Path) -> dict[str, Any]:
    """The stages that have begun, in their order."""
    path = run / "pipeline_results.json"
    return json.loads(path.read_text("utf-8"))["stages"] if path.exists() else {}


def finished_stages(run: Path) -> set[str]:
    """Those that are done."""
    return {name for name, entry in stages_of(run).items() if entry.get("status") == "done"}


def now_doing(run: Path) -> str:
    """The stage at which the run is."""
    return next((name for name, entry in stages_of(run).items() if entry.get("status") != "done"), "between")


def damage(run: Path, draw: random.Random) -> str:
    """Cut off or remove a file that a stage has made; what was done."""
    files = [run / name for name in ROWS] + sorted((run / "checkpoints").glob("*/*"))
    there = [path for path in files if path.is_file() and path.stat().st_size > 1]
    if not there:
        return ""
    path = draw.choice(there)
    name = path.relative_to(run).as_posix()
    if draw.random() < 0.3:
        path.unlink()
        return f"{name} removed"
    data = path.read_bytes()
    cut = draw.randrange(1, len(data))
    while data[cut - 1 : cut] == b"\n" or data[cut : cut + 1] == b"\n":  # fewer whole rows are somebody's edit
        cut -= 1
    path.write_bytes(data[:cut])
    return f"{name} cut at {cut} of {len(data)}"


def differences(run: Path, whole: Path) -> list[str]:
    """What of the result is not that of the other run."""
    found = [
        name for name in SAME if not (run / name).is_file() or (run / name).read_bytes() != (whole / name).read_bytes()
    ]
    mine, theirs = figures(run), figures(whole)
    found += [name for name in sorted(mine.keys() | theirs.keys()) if mine.get(name) != theirs.get(name)]
    return [f"{name} differs" for name in found]


def figures(run: Path) -> dict[str, Any]:
    """Status and every figure of the proof, but how fast the machine was. Hashes: the weights are compared as they are,
    and PEFT writes the names of the layers in any order.
    """
    results = json.loads((run / "pipeline_results.json").read_text("utf-8"))
    tests = {name: found for name, found in results["validation"]["tests"].items() if name != "performance"}
    tests["file_integrity"].pop("sha256")
    return {"the status": results["status"], **tests}


if __name__ == "__main__":
    sys.exit(main())

"""Real models through the whole pipeline: which tasks suit them, what they gain, and at which learning rate.

    python experiments/real/cells.py screen OUT MODEL…          of 13 tasks, the share right at the first try and in 8
    python experiments/real/cells.py table  OUT MODEL… [--solo] `socratune run` on four tasks that suit each model
    python experiments/real/cells.py rates  OUT MODEL…          five learning rates, three seeds, on one task of `table`
    python experiments/real/cells.py show   OUT                 all of it as Markdown, without a card

MODEL is a name, a folder or a GGUF file. Each cell is one `socratune run` as a user types it, in a process of its own;
`--lanes N` runs so many beside each other on each card, so its times count only with `--lanes 1`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

TASKS = (
    "gsm_symbolic", "leg_counting(min_animals=1,max_animals=3,max_instances=9)",
    "simple_equations(max_terms=2,max_value=20)", "calendar_arithmetic", "family_relationships",
    "chain_sum(min_terms=2,max_terms=3,min_digits=1,max_digits=2)", "products(min_digits=1,max_digits=2)",
    "number_sorting(min_numbers=3,max_numbers=4,max_decimals=0)", "letter_counting(min_words=1,max_words=3)",
    "fraction_simplification(max_value=20,max_factor=10)", "gcd(max_value=60)", "time_intervals",
    "spell_backward(max_word_len=5)",
)  # fmt: skip
TEACHER = f"python:{Path(__file__).with_name('teacher.py').resolve()}:teach"
SETTINGS: dict[str, Any] = {"enhance": {"max_new_tokens": 400}, "validate": {"gate": {"max_forgetting": 0.05}}}
SUITS = (0.08, 0.7)
"""Share of right first answers in which a task has something to learn, and a model something to learn it from."""
BASES = ("gemma-3-270m",)
"""Models that were trained on no chat template: they are given the plain one."""
RATES = (1e-4, 3e-4, 6e-4, 1e-3, 2e-3)
SEEDS = (0, 1, 2)
ROWS = 1000


def called(model: str) -> str:
    """A model's name for a folder."""
    return re.sub(r"[^\w.-]+", "-", Path(model).stem.lower())[:40]


def kind_of(task: str) -> str:
    """`chain_sum` of `chain_sum(max_terms=3)`."""
    return task.partition("(")[0]


class Lanes:
    """So many processes at a time, spread over the cards."""

    def __init__(self, lanes: int) -> None:
        cards = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
        self._free: SimpleQueue[str] = SimpleQueue()
        for _ in range(lanes):
            for card in cards:
                self._free.put(card)
        self._pool = ThreadPoolExecutor(lanes * len(cards))

    def run(self, jobs: list[tuple[list[str], Path]]) -> None:
        """Run commands; each writes what it prints into its file, and its seconds and exit code beside it."""
        list(self._pool.map(lambda job: self._one(*job), jobs))

    def _one(self, command: list[str], log: Path) -> None:
        done = log.with_suffix(".json")
        if done.exists():
            return
        card = self._free.get()
        log.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        try:
            with log.open("w") as to:
                env = {**os.environ, "CUDA_VISIBLE_DEVICES": card}
                code = subprocess.run(command, stdout=to, stderr=subprocess.STDOUT, env=env, check=False).returncode
        finally:
            self._free.put(card)
        seconds = round(time.monotonic() - began, 1)
        done.write_text(json.dumps({"seconds": seconds, "code": code, "command": command}))
        print(f"{seconds:7.1f} s  exit {code}  {log.parent.name}/{log.stem}", flush=True)


def socratune(model: str, env: str, output: Path, settings: dict[str, Any], *more: str) -> list[str]:
    """The command of a run; its settings go into a file beside it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    config = output.with_suffix(".yaml")
    config.write_text(json.dumps(settings))
    if called(model).startswith(BASES):
        more = (*more, "--chat-template", "plain")
    program = [sys.executable, "-m", "socratune", "run", "--model", model, "--env", f"reasoning_gym:{env}"]
    return [*program, "--output", str(output), "--config", str(config), *more]


def screen(out: Path, models: list[str], lanes: Lanes) -> None:
    """Every task to every model, without a teacher."""
    settings = {**SETTINGS, "enhance": {"max_new_tokens": 400, "attempts": 8, "max_iterations": 1}}
    jobs = []
    for model in models:
        output = out / "screen" / called(model)
        more = ("--env-size", "64", "--until", "enhance", "--teacher-model", "none")
        command = socratune(model, ",".join(TASKS), output, settings, *more)
        jobs.append((command, output.with_suffix(".log")))
    lanes.run(jobs)


def screened(folder: Path) -> dict[str, dict[str, float]]:
    """Kind → `first`, `any` and `rows` of a screen."""
    rows: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for line in (folder / "enhanced_dataset.jsonl").open():
        row = json.loads(line)
        tries = [one["verdict"] == "correct" for one in row["metadata"]["enhancement"]["trace"]]
        if tries:
            rows[row["metadata"]["kind"]].append((tries[0], any(tries)))
    return {
        kind: {
            "first": sum(first for first, _ in found) / len(found),
            "any": sum(ever for _, ever in found) / len(found),
            "rows": len(found),
        }
        for kind, found in rows.items()
    }


def suited(out: Path, model: str, count: int = 4) -> list[str]:
    """gsm_symbolic and the tasks in which most is to be gained by what the model finds itself; easiest forms first."""
    found = screened(out / "screen" / called(model))
    room = {kind: one["any"] - one["first"] for kind, one in found.items() if SUITS[0] <= one["first"] <= SUITS[1]}
    order = sorted(room, key=lambda kind: -room[kind])
    rest = sorted((kind for kind in found if kind not in room), key=lambda kind: abs(found[kind]["first"] - 0.3))
    chosen = ["gsm_symbolic", *(kind for kind in [*order, *rest] if kind != "gsm_symbolic")][:count]
    return [task for task in TASKS if kind_of(task) in chosen]


def table(out: Path, models: list[str], lanes: Lanes, only: str, more: list[str]) -> None:
    """The whole pipeline, cell by cell."""
    jobs = []
    for model in models:
        for task in suited(out, model):
            if only and kind_of(task) != only:
                continue
            output = out / "table" / called(model) / kind_of(task)
            command = socratune(model, task, output, SETTINGS, "--teacher-model", TEACHER, *more)
            jobs.append((command, output.with_suffix(".log")))
    lanes.run(jobs)


def rates(out: Path, models: list[str], lanes: Lanes, only: str) -> None:
    """One task of each model at every learning rate and seed, from the traces of `table`."""
    here = str(Path(__file__).resolve())
    jobs = []
    for rate in RATES:
        for seed in SEEDS:
            for model in models:
                output = out / f"rates{only}" / called(model) / f"{rate:.0e}-{seed}"
                more = ["--only", only] if only else []
                command = [
                    sys.executable,
                    here,
                    "rate",
                    str(out),
                    model,
                    "--rate",
                    str(rate),
                    "--seed",
                    str(seed),
                    *more,
                ]
                jobs.append((command, output.with_suffix(".log")))
    lanes.run(jobs)


def one_rate(out: Path, model: str, rate: float, seed: int, only: str) -> None:
    """Train and validate on the traces of a finished cell; what the base answered is in its journal."""
    from socratune.pipeline import run_pipeline
    from socratune.resolve import deep_merge, read_config_file, resolve_settings
    from socratune.runs import RunDir
    from socratune.ways.folders import begin

    source = RunDir(out / "table" / called(model) / only or kind_of(task_of_rates(out, model)))
    run = RunDir(out / f"rates{only}" / called(model) / f"{rate:.0e}-{seed}")
    if not run.results.exists():
        begin(run, source, until="curate", journal=source.journal)
        begun = json.loads(run.results.read_text())
        begun["config"]["seed"] = seed  # of the training; the traces keep theirs
        run.results.write_text(json.dumps(begun))
    own = {"output": str(run.root), "seed": seed, "train": {"learning_rate": rate}}
    resolved = resolve_settings(deep_merge(read_config_file(source.config), own), where="rates")
    run_pipeline(resolved, start="train", until="validate", tell=lambda event, stage, entry: None)


def task_of_rates(out: Path, model: str) -> str:
    """Of the cells of `table`, the one with most rows to train on."""

    def rows(task: str) -> int:
        results = out / "table" / called(model) / kind_of(task) / "pipeline_results.json"
        stages = json.loads(results.read_text())["stages"] if results.exists() else {}
        return stages.get("curate", {}).get("rows_out", 0)

    return max(suited(out, model), key=rows)


# --- what came of it -----------------------------------------------------------------------------------------------


def figures(folder: Path) -> dict[str, Any]:
    """The figures of a run: accuracy of base and adapter on both tests, seconds, tokens, memory."""
    results = json.loads((folder / "pipeline_results.json").read_text())
    stages = results["stages"]
    tests = results.get("validation", {}).get("tests", {})
    found: dict[str, Any] = {"status": results["status"], "error": results.get("error"), "stages": {}}
    found["stages"] = {name: entry.get("seconds") for name, entry in stages.items()}
    found["rows"] = stages.get("curate", {}).get("rows_out")
    found["outcomes"] = stages.get("enhance", {}).get("outcomes")
    found["spent"] = stages.get("enhance", {}).get("spent")
    for name, test in (("headline", "base_comparison"), ("numbers", "recall"), ("forgetting", "forgetting")):
        found[name] = tests.get(test)
    found["train"] = {
        key: value for key, value in stages.get("train", {}).items() if key not in ("curve", "epochs", "losses")
    }
    cell = folder.with_suffix(".json")
    return found | (json.loads(cell.read_text()) if cell.exists() else {})


def show(out: Path) -> None:
    """Everything found so far, as JSON lines and a table."""
    for path in sorted(path.parent for path in (out / "screen").glob("*/enhanced_dataset.jsonl")):
        print(f"\n### {path.name}\n\n| task | first | of 8 |\n|---|---|---|")
        for kind, one in sorted(screened(path).items(), key=lambda pair: -pair[1]["first"]):
            print(f"| {kind} | {one['first']:.0%} | {one['any']:.0%} |")
    for part in ("table", "rates"):
        print(f"\n### {part}\n\n| cell | base | adapter | gain (95 %) | status | seconds |\n|---|---|---|---|---|---|")
        for folder in sorted(path.parent for path in (out / part).glob("*/*/pipeline_results.json")):
            one = figures(folder)
            head = one["headline"] or {}
            gain = head.get("difference")
            low, high = head.get("ci95") or (float("nan"),) * 2
            shown = f"{gain:+.1%} ({low:+.1%} … {high:+.1%})" if gain is not None else one["error"]
            sides = [
                f"{head[side + '_accuracy']:.1%}" if head.get(side + "_accuracy") is not None else "–"
                for side in ("base", "adapter")
            ]
            cells = [f"{folder.parent.name}/{folder.name}", *sides, shown, one["status"], one.get("seconds", "–")]
            print("| " + " | ".join(map(str, cells)) + " |")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["screen", "table", "rates", "rate", "show"])
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--only", default="", metavar="TASK", help="of `table`: this task alone")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[])
    given = parser.parse_args()
    if given.what == "show":
        show(given.out)
    elif given.what == "rate":
        one_rate(given.out, given.models[0], given.rate, given.seed, given.only)
    elif given.what == "screen":
        screen(given.out, given.models, Lanes(given.lanes))
    elif given.what == "table":
        table(given.out, given.models, Lanes(given.lanes), given.only, given.more)
    else:
        rates(given.out, given.models, Lanes(given.lanes), given.only)


if __name__ == "__main__":
    main()

"""Is a data set that nobody can learn refused, whatever the seed? A run for each seed; exit code 1 if one got through.

    python experiments/lab/hopeless.py --seeds 20                      # the embedded model: minutes
    python experiments/lab/hopeless.py --base FOLDER --seeds 20        # the laboratory's base: an hour and more

The answers of real data are dealt anew among its questions, so that an answer has nothing to do with its text. On the
embedded model nothing is ever right, so it is trained on the answers as given (`enhance.unsolved: reference`); on the
laboratory's base luck gives the loop some rows. A 95 % interval lets one adapter in forty through that merely had luck
on the held-out questions.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from socratune import lab, run
from socratune.config import DEMO_DATA
from socratune.resolve import unflatten
from socratune.rundir import read_jsonl, write_jsonl

SIZES = {"demo": (200, 100), "lab": (200, 160)}
"""Rows to train on, held out."""


def settings(base: Path | None, seed: int, output: Path) -> dict[str, Any]:
    """The settings of one seed's run by dotted key; its data are written beside it."""
    data = output / "data"
    train, held_out = SIZES["lab" if base else "demo"]
    if base is not None:
        lab.plant_hopeless(data, train=train, held_out=held_out, seed=seed)
        return {**lab.settings(base, output / "run", data=data), "seed": seed}
    for name, count in (("train", train), ("held_out", held_out)):
        rows = list(read_jsonl(DEMO_DATA / f"{name}.jsonl"))[:count]
        write_jsonl(data / f"{name}.jsonl", lab.shuffled_answers(rows, seed))
    return {
        "model": "demo",
        "dataset": str(data / "train.jsonl"),
        "split.held_out": str(data / "held_out.jsonl"),
        "output": str(output / "run"),
        "enhance.unsolved": "reference",
        "curate.replay_share": 0.0,
        "validate.gate.max_forgetting": None,  # the lack of a gain alone has to stop it
        "seed": seed,
    }


def examined(base: Path | None, seed: int, output: Path) -> dict[str, Any]:
    """One run: what the loop kept, accuracies, and whether the gate refused it for want of a gain."""
    output.joinpath("data").mkdir(parents=True, exist_ok=True)
    results = run(config=unflatten(settings(base, seed, output)))
    proof = results.get("validation", {})
    comparison = proof.get("tests", {}).get("base_comparison", {})
    return {
        "seed": seed,
        "trained_rows": results["stages"].get("train", {}).get("rows_out"),
        "base": comparison.get("base_accuracy"),
        "adapter": comparison.get("adapter_accuracy"),
        "ci95": comparison.get("ci95"),
        "refused": lab.refused_for_no_gain(results),
        "reason": proof.get("reason") or results.get("error"),
    }


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="the laboratory's base; without it the embedded model")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed, where several processes share them")
    parser.add_argument("--output", type=Path, default=Path("outputs/hopeless"))
    args = parser.parse_args()
    found = []
    for seed in range(args.first, args.first + args.seeds):
        found.append(examined(args.base, seed, args.output / f"seed-{seed}"))
        print(json.dumps(found[-1]), flush=True)
    refused = sum(each["refused"] for each in found)
    print(f"{refused} of {len(found)} refused for want of a gain")
    return int(refused < len(found))


if __name__ == "__main__":
    sys.exit(main())

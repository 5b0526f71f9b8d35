"""Which training text teaches the embedded model best? The table in dev/LOG.md.

    python experiments/formats.py [--seeds 2] [--output outputs/formats]

Arms: `direct` (the final right reasoning), `iterative` (attempt, "Aha!", correction), the same without loss on the
wrong attempts, and plain question → reference answer. Everything else is the demo's setting. `probe` is what the base
knows besides multiplication (facts and small sums), after training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from socratune import run
from socratune.config import DEMO_DATA
from socratune.data.qa_files import read_qa_rows
from socratune.inference.load import load_model
from socratune.inference.student import LocalStudent, serving_student
from socratune.judging.rules import mechanical_judge
from socratune.llm.base import Sampling
from socratune.rows import Example, Piece, QARow
from socratune.runs.folder import RunDir, read_jsonl, write_jsonl
from socratune.teaching.student import accuracy

ARMS = {
    "direct": {"enhance.thinking_format": "direct"},
    "iterative": {"enhance.thinking_format": "iterative"},
    "iterative, masked": {"enhance.thinking_format": "iterative", "curate.mask_wrong_attempts": True},
    "plain answers": {"enhance.thinking_format": "direct"},
}


def measure(arm: str, seed: int, output: Path) -> dict[str, float]:
    """Train one arm and read its figures."""
    settings = {"model": "demo", "dataset": "demo", "output": str(output), "seed": seed, **ARMS[arm]}
    nested: dict[str, object] = {}
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        if section:
            nested.setdefault(section, {})[name] = value  # type: ignore[index]
        else:
            nested[key] = value
    run(config=nested, until="curate")
    folder = RunDir(output)
    if arm == "plain answers":
        rows = [QARow.from_json(data) for data in read_jsonl(folder.rows("train_in"))]
        examples = (Example(row.id, row.prompt, (Piece(row.reference),), "as_given") for row in rows)
        write_jsonl(folder.rows("train"), (example.to_json() for example in examples))
    results = run(config=nested)
    comparison = results["validation"]["tests"]["base_comparison"]
    train = results["stages"]["train"]
    model, tokenizer = load_model("demo", adapter=folder.adapter)
    probe = read_qa_rows(DEMO_DATA / "probe.jsonl").rows
    sampling = Sampling(max_new_tokens=96)
    with serving_student(LocalStudent(model, tokenizer, name=arm, fingerprint=arm)) as student:
        kept = accuracy(probe, student, mechanical_judge, sampling, concurrency=256)
    return {
        "rows": train["rows_out"],
        "dev": max(epoch["dev_accuracy"] for epoch in train["epochs"]),
        "base": comparison["base_accuracy"],
        "held-out": comparison["adapter_accuracy"],
        "probe": kept,
        "trained tokens a row": train["trained_tokens"] / train["rows_out"] / len(train["epochs"]),
        "train s": train["seconds"],
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("outputs/formats"))
    options = parser.parse_args()
    found = {}
    for arm in ARMS:
        for seed in range(options.seeds):
            name = f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
            found[f"{arm}, seed {seed}"] = measure(arm, seed, options.output / name)
            print(arm, seed, json.dumps(found[f"{arm}, seed {seed}"]), flush=True)
    columns = list(next(iter(found.values())))
    print("\n| arm | " + " | ".join(columns) + " |\n|---" * 1 + "|---" * len(columns) + "|")
    for name, row in found.items():
        cells = [f"{value:.1%}" if 0 <= value <= 1 else f"{value:.1f}" for value in row.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

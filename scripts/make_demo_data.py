"""Writes the demo's data files: train.jsonl, held_out.jsonl and probe.jsonl. Seeded; the same bytes every time.

    python scripts/make_demo_data.py            # into src/socratune/demo_data

`train.jsonl` is what the student-teacher loop learns from, `held_out.jsonl` what it is measured on, `probe.jsonl`
what the base knows already and must not forget.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from demo_task import GUIDE_PAIR, PAIRS, direct
from demo_wordings import DEFAULT_SYSTEM, FACTS, PLAIN_WORDINGS, WORDINGS

DATA = Path(__file__).resolve().parent.parent / "src" / "socratune" / "demo_data"
TRAIN_ROWS, HELD_OUT_ROWS, PROBE_ARITHMETIC_ROWS = 720, 400, 168

Row = dict[str, Any]


def row(question: str, answer: str, metadata: dict[str, str]) -> Row:
    """One line of a file: a conversation and what is known about it."""
    return {
        "messages": [
            {"role": "system", "content": DEFAULT_SYSTEM},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        "metadata": metadata,
    }


def product_row(a: int, b: int, wording: str) -> Row:
    """A multiplication question with its short right answer."""
    metadata = {
        "thinking": f"I need to multiply {a} by {b}.",
        "source": f"pair_{min(a, b)}x{max(a, b)}",
        "kind": "plain" if wording in PLAIN_WORDINGS else "word",
    }
    return row(wording.format(a=a, b=b), direct(a, b), metadata)


def train_rows(rng: random.Random) -> list[Row]:
    """Distinct ordered pairs of the loop's pool, wordings in turn; the guide's own example comes first."""
    first = (GUIDE_PAIR[1], GUIDE_PAIR[0])
    pairs = [pair for pair in PAIRS["train"] if pair != first]
    rng.shuffle(pairs)
    chosen = [first, *pairs][:TRAIN_ROWS]
    return [product_row(a, b, WORDINGS[i % len(WORDINGS)]) for i, (a, b) in enumerate(chosen)]


def held_out_rows(rng: random.Random) -> list[Row]:
    """One order of each of `HELD_OUT_ROWS` different held-out pairs, wordings in turn."""
    pairs = list(PAIRS["held_out"])
    rng.shuffle(pairs)
    by_source = {(min(pair), max(pair)): pair for pair in pairs}
    chosen = list(by_source.values())[:HELD_OUT_ROWS]
    return [product_row(a, b, WORDINGS[i % len(WORDINGS)]) for i, (a, b) in enumerate(chosen)]


def probe_rows(rng: random.Random) -> list[Row]:
    """All facts, some products with one digit, some small sums: enough to rule out that 3 of 100 were lost."""
    rows = [row(question, answer, {"kind": "fact", "answer": word}) for question, answer, word in FACTS]
    products = rng.sample([(a, b) for a in range(11, 100) if a % 10 for b in range(2, 10)], PROBE_ARITHMETIC_ROWS)
    for a, b in products:
        rows.append(row(f"What is {a} * {b}?", direct(a, b), {"kind": "arithmetic", "answer": str(a * b)}))
    for _ in range(PROBE_ARITHMETIC_ROWS):
        x, y = rng.randint(11, 99), rng.randint(11, 99)
        answer = f"{x} + {y} = {x + y}."
        rows.append(row(f"What is {x} + {y}?", answer, {"kind": "arithmetic", "answer": str(x + y)}))
    return rows


def write(path: Path, rows: list[Row]) -> None:
    """Writes the file beside its place and moves it there, so that no reader sees half of it."""
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in rows), encoding="utf-8")
    part.replace(path)
    print(f"{path}: {len(rows)} rows")


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DATA)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "train.jsonl", train_rows(random.Random(args.seed)))
    write(args.out / "held_out.jsonl", held_out_rows(random.Random(args.seed + 1)))
    write(args.out / "probe.jsonl", probe_rows(random.Random(args.seed + 2)))


if __name__ == "__main__":
    main()

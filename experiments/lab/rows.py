"""Writes the laboratory's question-answer rows: train.jsonl, held_out.jsonl, pool.jsonl. Seeded; always the same bytes.

    python experiments/lab/rows.py            # into experiments/lab/data
    python experiments/lab/rows.py --out DIR --train 3000

Families and levels have equal shares. `metadata` has family, kind, level, up to three right hints and as many wrong
ones (for `lab.py`); the pool is what the base knows besides and must not forget. Behind the training problems
stand other questions of the pool's kinds: the base answers them right at once, and trained on these answers it keeps
the rest (`docs/evidence.md`: with a tenth of the tokens it lost 1.1 points of the pool, without 5.1). No problem is
in the pre-training text.
"""

from __future__ import annotations

import argparse
import random
import zlib
from pathlib import Path
from typing import Any

from generator import FAMILIES, Split, problem
from problem import Problem, corrupted
from smalltalk import arithmetic, fact

from socratune.runs.folder import write_jsonl

OUT = Path(__file__).parent / "data"
Row = dict[str, Any]


def turns(question: str, answer: str) -> list[dict[str, str]]:
    """A conversation of two turns."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def qa_row(made: Problem, rng: random.Random) -> Row:
    """A problem with its bare answer; the hints travel in the metadata."""
    hints = rng.sample(made.hints, min(3, len(made.hints)))
    metadata = {
        "source": f"lab-{zlib.crc32(made.question.encode()):08x}",
        "family": made.family,
        "kind": made.kind,
        "level": made.level,
        "hints": [hint.text for hint in hints],
        "wrong_hints": [corrupted(hint, made.question, rng).text for hint in hints],
    }
    return {"messages": turns(made.question, made.answer), "metadata": metadata}


def qa_rows(count: int, split: Split, rng: random.Random) -> list[Row]:
    """So many different problems, families and levels in turn."""
    families = list(FAMILIES)
    made: dict[str, Problem] = {}
    while len(made) < count:
        at = len(made)
        one = problem(rng, split, families[at % len(families)], at // len(families) % 5)
        made.setdefault(one.question, one)
    return [qa_row(one, rng) for one in made.values()]


def pool_rows(count: int, rng: random.Random) -> list[Row]:
    """Facts and small instructions, and as much arithmetic; all different."""
    exchanges: dict[str, tuple[str, str]] = {}
    while len(exchanges) < count:
        kind, ask = ("fact", fact) if len(exchanges) % 2 else ("arithmetic", arithmetic)
        question, answer = ask(rng)
        exchanges.setdefault(question, (kind, answer))
    return [{"messages": turns(q, answer), "metadata": {"kind": kind}} for q, (kind, answer) in exchanges.items()]


def known_rows(count: int, pool: list[Row], rng: random.Random) -> list[Row]:
    """Questions of the pool's kinds that are not in the pool."""
    asked = {row["messages"][0]["content"] for row in pool}
    rows = [row for row in pool_rows(2 * count + len(pool) // 2, rng) if row["messages"][0]["content"] not in asked]
    for number, row in enumerate(rows[:count]):
        row["metadata"] |= {"source": f"lab-known-{number}", "hints": [], "wrong_hints": []}
    return rows[:count]


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--train", type=int, default=320)
    parser.add_argument("--known", type=int, default=60)
    parser.add_argument("--held-out", type=int, default=400)
    parser.add_argument("--pool", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pool = pool_rows(args.pool, random.Random(args.seed + 2))
    known = known_rows(args.known, pool, random.Random(args.seed + 3))
    write_jsonl(args.out / "train.jsonl", [*qa_rows(args.train, "train", random.Random(args.seed)), *known])
    write_jsonl(args.out / "held_out.jsonl", qa_rows(args.held_out, "test", random.Random(args.seed + 1)))
    write_jsonl(args.out / "pool.jsonl", pool)


if __name__ == "__main__":
    main()

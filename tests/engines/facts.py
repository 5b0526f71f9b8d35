"""A few questions for a real model of 135 million parameters, which knows some of the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import write_rows

SYSTEM = {"role": "system", "content": "Answer with one word or one number."}
KNOWN = (
    ("What is the capital of France?", "Paris"),
    ("What is the capital of Italy?", "Rome"),
    ("What is the capital of Japan?", "Tokyo"),
    ("What does a thermometer measure?", "Temperature"),
)
HARD = tuple(
    (f"What is {one} * {other}? Answer with the number.", str(one * other))
    for one, other in ((37, 24), (48, 19), (63, 58), (29, 74), (86, 47))
)
HELD_OUT = (
    ("What is the capital of Spain?", "Madrid"),
    ("What is the capital of England?", "London"),
    ("Which planet do we live on?", "Earth"),
    ("What do bees make?", "Honey"),
    ("What is the opposite of hot?", "Cold"),
    ("How many legs has a dog?", "4"),
)


def write_facts(path: Path, *parts: tuple[tuple[str, str], ...]) -> Path:
    rows: list[dict[str, Any]] = [
        {"messages": [SYSTEM, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for part in parts
        for question, answer in part
    ]
    return write_rows(path, rows)

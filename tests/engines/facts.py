"""A few questions for a real model of 135 million parameters, which knows some of the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import write_rows

SYSTEM = {"role": "system", "content": "Answer in one short sentence."}
KNOWN = (
    ("What is the capital of France?", "Paris"),
    ("What is the capital of Italy?", "Rome"),
    ("What is the capital of Japan?", "Tokyo"),
    ("What is the capital of Germany?", "Berlin"),
    ("What is 2 + 3?", "5"),
    ("How many days has a week?", "7"),
)
HARD = (
    ("What is 37 * 24?", "888"),
    ("Which element has the atomic number 26?", "Iron"),
    ("Why is the sky blue?", "Air scatters blue light more than red light."),
    ("What does a thermometer do?", "It measures temperature."),
)
HELD_OUT = (
    ("What is the capital of Spain?", "Madrid"),
    ("What is the capital of England?", "London"),
    ("What is 4 + 4?", "8"),
    ("Name a primary colour.", "Red"),
    ("How many legs has a dog?", "4"),
    ("What is the opposite of hot?", "Cold"),
    ("Which planet do we live on?", "Earth"),
    ("What do bees make?", "Honey"),
)


def write_facts(path: Path, *parts: tuple[tuple[str, str], ...]) -> Path:
    rows: list[dict[str, Any]] = [
        {"messages": [SYSTEM, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for part in parts
        for question, answer in part
    ]
    return write_rows(path, rows)

"""The package `gepa` evolves an instruction with our student and judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import demo_rows, write_rows
from programs import needs

from socratune.rows import QARow
from socratune.teaching import evolve_instruction
from socratune.ways import AblationLimits, compare_ways

pytestmark = [needs("gepa"), pytest.mark.slow]


def test_an_instruction_that_the_judge_likes_is_found() -> None:
    rows = [
        QARow(str(at), [{"role": "user", "content": f"{at} + 1?"}, {"role": "assistant", "content": str(at + 1)}], {})
        for at in range(12)
    ]
    read: list[str] = []

    def answer(asked: list[QARow]) -> list[dict[str, Any]]:
        right = ["tens" in row.prompt[0]["content"] for row in asked]
        return [{"response": "7", "verdict": "correct" if one else "incorrect"} for one in right]

    def reflect(prompt: str) -> str:
        read.append(prompt)
        return "```\nBegin with the tens.\n```"

    found = evolve_instruction(rows[:8], rows[8:], answer, reflect, calls=40, seed=0)
    assert found == "Begin with the tens."
    assert "incorrect" in read[0] and "The reference answer: " in read[0]


def unheard(event: str, stage: str, entry: dict[str, Any]) -> None:
    """Nobody listens."""


def test_it_is_a_way_of_its_own(tmp_path: Path) -> None:
    """The embedded model reflects itself, which it cannot; what it is asked, and how often, is in the journal."""
    data = write_rows(tmp_path / "train.jsonl", demo_rows("train", 60))
    test = write_rows(tmp_path / "held_out.jsonl", demo_rows("held_out", 30))
    given = {
        "model": "demo",
        "dataset": str(data),
        "split": {"held_out": str(test)},
        "enhance": {"max_new_tokens": 48},
        "train": {"num_train_epochs": 1},
    }
    said: list[str] = []
    limits = AblationLimits(1, 20.0, None)
    result = compare_ways(given, tmp_path / "a", ["direct", "gepa"], limits, tell=unheard, say=said.append)
    row = next(one for one in result["arms"] if one["arm"] == "gepa")
    assert row["prompt"] and row["readings"]["rows"]["accuracy"] is not None, said
    assert json.loads((tmp_path / "a" / "gepa" / "held_out" / "exam.json").read_text("utf-8"))["right"]

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

from socratune.config import SplitConfig
from socratune.errors import UserError
from socratune.rundir import RunDir
from socratune.stages import split


def qa(question: str, source: str | None = None) -> dict[str, Any]:
    metadata = {} if source is None else {"source": source}
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "a"}]
    return {"messages": turns, "metadata": metadata}


def do(tmp_path: Path, rows: Sequence[Any], **settings: object) -> dict[str, list[dict]]:
    run = RunDir(tmp_path)
    split.run(run, SplitConfig(**settings), dataset=str(write_rows(tmp_path / "in.jsonl", rows)))  # type: ignore[arg-type]
    names = ("train_in", "dev", "held_out", "train_in.rejected")
    return {name: [json.loads(line) for line in run.rows(name).read_text().splitlines()] for name in names}


ROWS = [qa(f"question {n}", f"doc-{n // 5}") for n in range(500)]


def sources(rows: list[dict]) -> set[str]:
    return {row["metadata"]["source"] for row in rows}


def test_no_source_is_on_two_sides_and_nothing_is_lost(tmp_path: Path) -> None:
    parts = do(tmp_path, ROWS)
    train, dev, held_out = (parts[name] for name in ("train_in", "dev", "held_out"))
    assert len(train) + len(dev) + len(held_out) == 500
    assert not sources(train) & sources(held_out)
    assert not sources(dev) & sources(held_out)
    assert not sources(train) & sources(dev)
    assert 60 <= len(held_out) <= 140
    order = [row["messages"][0]["content"] for row in train]
    assert order == [row["messages"][0]["content"] for row in ROWS if row["messages"][0]["content"] in set(order)]


def test_added_rows_move_no_old_ones(tmp_path: Path) -> None:
    before = do(tmp_path, ROWS)
    after = do(tmp_path, [*ROWS, *(qa(f"new {n}", f"new-{n}") for n in range(200))])
    assert sources(before["held_out"]) <= sources(after["held_out"])
    assert sources(before["dev"]) <= sources(after["dev"])


def test_at_most_so_many_rows_are_held_out(tmp_path: Path) -> None:
    assert len(do(tmp_path, ROWS, max_held_out_rows=20)["held_out"]) <= 20


def test_few_sources_are_split_by_question_and_the_same_question_stays_together(tmp_path: Path) -> None:
    rows = [qa(f"Question {n % 50}?" if n < 50 else f"question {n % 50}", "one-doc") for n in range(100)]
    parts = do(tmp_path, rows)
    asked = [{row["cluster"] for row in parts[name]} for name in ("train_in", "dev", "held_out")]
    assert parts["held_out"]
    assert not asked[0] & asked[2] and not asked[0] & asked[1] and not asked[1] & asked[2]


def test_a_question_asked_in_several_sources_is_on_one_side(tmp_path: Path) -> None:
    rows = [qa(f"question {n % 40}", f"doc-{n}") for n in range(400)]
    parts = do(tmp_path, rows)
    asked = [{row["messages"][0]["content"] for row in parts[name]} for name in ("train_in", "dev", "held_out")]
    assert asked[2] and not asked[0] & asked[2] and not asked[0] & asked[1] and not asked[1] & asked[2]


def test_a_held_out_file_of_ones_own_takes_its_questions_out_of_training(tmp_path: Path) -> None:
    held = write_rows(tmp_path / "held.jsonl", [qa("QUESTION 7", "x"), qa("never trained", "y")])
    parts = do(tmp_path, ROWS, held_out=str(held))
    assert len(parts["held_out"]) == 2
    assert [row["reason"] for row in parts["train_in.rejected"]] == ["in_held_out"]
    assert "question 7" not in [row["messages"][0]["content"] for row in parts["train_in"] + parts["dev"]]


def test_bad_rows_stop_or_are_kept_aside_with_reasons(tmp_path: Path) -> None:
    rows: list[Any] = [*ROWS[:20], {"x": 1}, 3]
    with pytest.raises(UserError) as caught:
        do(tmp_path, rows)
    assert len(caught.value.faults) == 2
    do(tmp_path, rows, on_bad_row="skip")
    rejected = [json.loads(line) for line in (tmp_path / "input.rejected.jsonl").read_text().splitlines()]
    assert [item["id"] for item in rejected] == ["line-21", "line-22"]
    assert "messages" in rejected[0]["reason"] + rejected[0]["detail"]


def test_one_row_is_trained_on_and_nothing_is_held_out(tmp_path: Path) -> None:
    parts = do(tmp_path, ROWS[:1])
    assert (len(parts["train_in"]), len(parts["held_out"])) == (1, 0)

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from socratune.config import CurateConfig
from socratune.errors import UserError
from socratune.rows import Attempt, Outcome, QARow, Trace
from socratune.runs.folder import RunDir, StageResult, write_jsonl
from socratune.runs.review import record_decision
from socratune.stages import curate


def trace(name: str, outcome: Outcome = "solved_first_try", response: str = "2 and 2 make 4") -> Trace:
    messages = [{"role": "user", "content": f"2 + 2? ({name})"}, {"role": "assistant", "content": "4"}]
    solved = outcome == "solved_first_try"
    attempts = (Attempt(1, response, "correct" if solved else "incorrect", "numeric"),)
    return Trace(QARow(name, messages, {}), outcome, attempts, "direct", {}, chosen=1 if solved else None)


def do(run: RunDir, rows: list[dict[str, Any]]) -> tuple[StageResult, list[dict[str, Any]], list[dict[str, Any]]]:
    """What curate says, what is trained on, and what is not."""
    write_jsonl(run.enhanced, rows)
    result = curate.curate_traces(run, CurateConfig())
    kept, dropped = (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in (run.rows("train"), run.rejected("train"))
    )
    return result, kept, dropped


def test_kept_and_dropped_rows_are_in_the_order_of_the_loop(tmp_path: Path) -> None:
    outcomes: list[Outcome] = ["solved_first_try", "unsolved", "error", "solved_first_try", "undecided"]
    rows = [trace(f"r{n}", outcome).to_json("2 and 2 make 4") for n, outcome in enumerate(outcomes)]
    for row in rows:
        if row["metadata"]["enhancement"]["chosen"] is None:
            row["messages"][-1]["content"] = "4"
    result, kept, dropped = do(RunDir(tmp_path), rows)
    assert [row["id"] for row in kept] == ["r0", "r3"]
    assert [(row["id"], row["reason"]) for row in dropped] == [("r1", "unsolved"), ("r2", "error"), ("r4", "undecided")]
    assert (result.rows_in, result.rows_out, result.failure) == (5, 2, None)
    assert result.figures["dropped"] == {"unsolved": 1, "error": 1, "undecided": 1}


def test_an_answer_edited_by_hand_is_trained_on_as_it_stands_now(tmp_path: Path) -> None:
    rows = [trace("a").to_json("2 and 2 make 4"), trace("b").to_json("Four, as anyone can count.")]
    _, kept, _ = do(RunDir(tmp_path), rows)
    assert [row["pieces"][0]["text"] for row in kept] == ["2 and 2 make 4", "Four, as anyone can count."]


def test_an_answer_written_by_hand_into_an_unsolved_row_is_trained_on(tmp_path: Path) -> None:
    _, kept, _ = do(RunDir(tmp_path), [trace("a", "unsolved").to_json("2 and 2 make 4, as one can count.")])
    assert [row["pieces"][0]["text"] for row in kept] == ["2 and 2 make 4, as one can count."]


def test_only_facts_that_are_trained_on_count_as_taught(tmp_path: Path) -> None:
    facts = [replace(trace(name), outcome="solved_with_evidence").to_json("2 and 2 make 4") for name in ("a", "b")]
    record_decision(RunDir(tmp_path), "a", "reject", None)
    result, _, _ = do(RunDir(tmp_path), [*facts, trace("c").to_json("2 and 2 make 4")])
    assert result.figures["outcomes"] == {"solved_with_evidence": 1, "solved_first_try": 1}


@pytest.mark.parametrize("content", ["", "  ", None, ["4"]])
def test_an_answer_that_is_no_text_is_named_with_its_line(tmp_path: Path, content: Any) -> None:
    row = trace("a").to_json("4")
    row["messages"][-1]["content"] = content
    with pytest.raises(UserError, match=r"enhanced_dataset.jsonl, line 2: .*the last message has no text"):
        do(RunDir(tmp_path), [trace("b").to_json("2 and 2 make 4"), row])


def test_a_row_trained_on_its_reference_is_kept(tmp_path: Path) -> None:
    _, kept, dropped = do(RunDir(tmp_path), [trace("a", "trained_on_reference").to_json("4")])
    assert ([row["pieces"][0]["text"] for row in kept], dropped) == (["4"], [])


def test_without_a_trainable_row_the_stage_has_failed(tmp_path: Path) -> None:
    result, kept, _ = do(RunDir(tmp_path), [trace("a", "unsolved").to_json("4")])
    assert (kept, result.failure) == ([], "No trainable row is left.")


def test_memory_does_not_grow_with_the_traces(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_jsonl(run.enhanced, (trace(f"r{n}", response="x" * 10_000).to_json("x" * 10_000) for n in range(500)))
    tracemalloc.start()
    result = curate.curate_traces(run, CurateConfig())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.rows_out == 500
    assert peak < 1e6
    assert run.enhanced.stat().st_size > 9e6

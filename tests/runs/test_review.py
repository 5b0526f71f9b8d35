"""What a person decided comes before every choice of curate, and never before its check for leaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import demo_rows, socratune, write_rows
from pages import trace

from socratune.config import CurateConfig
from socratune.errors import UserError
from socratune.rows import Trace
from socratune.runs.folder import RunDir, StageResult, write_jsonl
from socratune.runs.review import record_decision, review_decisions, take_over_reviews
from socratune.stages import curate


def curated(
    run: RunDir, rows: list[dict[str, Any]], **config: Any
) -> tuple[StageResult, dict[str, str], dict[str, str]]:
    """The stage's result, the text trained on by row, the reason by dropped row."""
    write_jsonl(run.enhanced, rows)
    result = curate.curate_traces(run, CurateConfig(**config))
    kept, dropped = (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in (run.rows("train"), run.rejected("train"))
    )
    texts = {row["id"]: "".join(piece["text"] for piece in row["pieces"]) for row in kept}
    return result, texts, {row["id"]: row["reason"] for row in dropped}


def test_reject_edit_and_accept_are_honoured(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    rows = [trace("no"), trace("mine"), trace("unsolved", outcome="unsolved"), trace("left")]
    record_decision(run, "no", "reject", "2 * 3 = 6.")
    record_decision(run, "mine", "edit", "Twice three is six.")
    record_decision(run, "unsolved", "edit", "2 + 2 + 2 = 6.")
    result, texts, dropped = curated(run, rows)
    assert texts == {"mine": "Twice three is six.", "unsolved": "2 + 2 + 2 = 6.", "left": "2 * 3 = 6."}
    assert dropped == {"no": "rejected_in_review"}
    assert result.figures["reviewed"] == {"reject": 1, "edit": 2}


def test_an_edit_into_the_reference_answer_is_trained_on(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    record_decision(run, "r", "edit", "6")
    assert curated(run, [trace("r", outcome="unsolved")])[1] == {"r": "6"}


def test_an_accepted_row_is_not_one_too_many(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    rows = [trace(f"h{n}", outcome="solved_with_hint") for n in range(4)] + [trace("plain")]
    _, _, before = curated(run, rows, max_hinted_share=0.01)
    assert set(before.values()) == {"too_many_hinted"}
    record_decision(run, "h2", "accept", "2 * 3 = 6.")
    _, texts, dropped = curated(run, rows, max_hinted_share=0.01)
    assert set(texts) == {"h2", "plain"} and "h2" not in dropped


def test_an_accepted_answer_that_was_not_found_unaided_is_kept_unless_it_leaks(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    clean = [
        replace(Trace.from_json(trace(name, outcome="solved_with_hint", response=text)), format="clean").to_json(text)
        for name, text in (("good", "2 * 3 = 6."), ("leak", "As the hint says, I take 2 three times: 6."))
    ]
    assert set(curated(run, clean)[2].values()) == {"not_found_unaided"}
    for row in clean:
        record_decision(run, row["id"], "accept", row["messages"][-1]["content"])
    _, texts, dropped = curated(run, clean)
    assert set(texts) == {"good"} and dropped == {"leak": "hint_echo"}


def test_a_decision_is_about_the_answer_that_was_seen(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    record_decision(run, "r", "reject", "another answer, from before the loop ran again")
    result, texts, _ = curated(run, [trace("r")])
    assert texts == {"r": "2 * 3 = 6."} and result.figures["reviewed"] == {}


def test_the_last_decision_counts_and_undo_takes_it_back(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for decision in ("reject", "accept"):
        record_decision(run, "a", decision, None)
    record_decision(run, "b", "reject", None)
    record_decision(run, "b", "undo", None)
    assert {name: review.decision for name, review in review_decisions(run).items()} == {"a": "accept"}
    assert len(run.review.read_text("utf-8").splitlines()) == 4


def test_a_line_that_a_power_cut_tore_costs_that_line_only(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    record_decision(run, "a", "reject", "✓ <\u2028>\ud800")
    with run.review.open("a") as stream:
        stream.write('{"id": "b", "deci')
    assert set(review_decisions(run)) == {"a"}
    record_decision(run, "c", "reject", None)
    assert set(review_decisions(run)) == {"a", "c"}


def test_a_merged_run_takes_over_what_was_decided_in_its_shards(tmp_path: Path) -> None:
    runs = [RunDir(tmp_path / name) for name in ("all", "one", "two")]
    for run in runs:
        run.create()
    record_decision(runs[0], "a", "accept", None)
    record_decision(runs[1], "a", "reject", None)
    record_decision(runs[2], "b", "edit", "mine")
    take_over_reviews(runs[0], runs[1:])
    assert {name: one.decision for name, one in review_decisions(runs[0]).items()} == {"a": "accept", "b": "edit"}


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "a"}', "[]", '{"id": 3, "decision": "accept"}', '{"id": "a", "decision": "edit"}', "x", "3", "null",
        '{"id": "a", "decision": "edit", "text": "12 \\ud83d"}', '{"id": ["a"], "decision": "reject"}',
        '{"id": "a", "decision": {}}', '{"id": "a", "decision": "accept", "text": 3}', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    run = RunDir(tmp_path)
    run.review.write_text(f'{{"id": "z", "decision": "undo"}}\n{line}\n', "utf-8")
    with pytest.raises(UserError, match=r"review.jsonl, line 2"):
        review_decisions(run)


def test_decisions_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.review.mkdir()
    with pytest.raises(UserError, match=r"review.jsonl: expected the decisions"):
        review_decisions(run)
    run.review.rmdir()
    run.review.write_bytes(b'{"id": "\xff"}\n{"id": "z", "decision": "undo"}\n')
    with pytest.raises(UserError, match=r"review.jsonl, line 1"):
        review_decisions(run)


@pytest.mark.slow
def test_curate_ends_with_2_where_the_decisions_are_damaged(copied_run: Path) -> None:
    (copied_run / "review.jsonl").write_text('{"id": "a", "decision": "edit", "text": "\\ud800"}\n')
    done = socratune("train", copied_run)
    assert done.returncode == 2 and "review.jsonl, line 1" in done.stderr and "surrogate" in done.stderr


def test_half_a_surrogate_pair_is_written_as_json_has_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "ü \ud83d"}])
    assert json.loads((tmp_path / "rows.jsonl").read_text("utf-8")) == {"text": "ü \ud83d"}


@pytest.mark.slow
def test_curate_is_done_again_after_a_review(tmp_path: Path) -> None:
    """Accepted by hand or not, the stages behind curate follow the file."""
    data, run = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 30)), tmp_path / "run"
    flags = ("--model", "demo", "--dataset", data, "--output", run, "--set", "train.num_train_epochs=1")
    trained = socratune("run", *flags, "--until", "train")
    assert trained.returncode == 0, trained.stderr
    first = json.loads((run / "train.jsonl").read_text("utf-8").splitlines()[0])
    before = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    record_decision(RunDir(run), first["id"], "reject", None)
    (run / "report.html").unlink()
    done = socratune("train", run)
    assert done.returncode == 0, done.stderr
    assert first["id"] not in (run / "train.jsonl").read_text("utf-8")
    assert "rejected_in_review" in (run / "train.rejected.jsonl").read_text("utf-8")
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() != before
    assert (run / "report.html").exists()

"""Rounds: when they stop, whose trace is trained on, what is refused; two rounds of the embedded model, and a kill."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import Fork, demo_rows, socratune, write_rows
from few import few_forgetting_questions
from forging import verified

from socratune.errors import UserError
from socratune.inference.provenance import identity, student_grade
from socratune.preflight import check_run
from socratune.rounds import _SAMPLES, Round, best, run_rounds, unite, why_stop
from socratune.rows import Attempt, QARow, Trace
from socratune.runs.folder import RunDir, read_rows, write_jsonl

ROWS = demo_rows("train", 30)
PROSE = "That depends on the day, on the season and on who is asked about it in the end."
SOURCES = [str(at) for at in range(60)]


def played(number: int, dev: float, reached: int = 40, ways: float = 3.0) -> Round:
    """A round whose model reaches so many of 60 rows, in so many ways each."""
    solved = [float(at < reached) for at in range(60)]
    distinct = [one * (ways + at % 3 - 1) / _SAMPLES for at, one in enumerate(solved)]
    return Round(number, dev, solved, distinct, SOURCES, {"solved": 30, "hinted": 10, "rows": 40})


@pytest.mark.parametrize(
    ("rounds", "says"),
    [
        ([played(1, 0.5)], None),
        ([played(1, 1.0)], "every dev row"),
        ([played(1, 0.5), played(2, 0.6)], None),
        ([played(1, 0.5), played(2, 0.5)], "dev did not rise in round 2: 50.0% after 50.0%"),
        ([played(1, 0.5), played(2, 0.6), played(3, 0.55)], "dev did not rise in round 3: 55.0% after 60.0%"),
        ([played(1, 0.5), played(2, 0.6, reached=25)], "solves fewer rows with 8 samples"),
        ([played(1, 0.5), played(2, 0.6, reached=39)], None),  # one row is chance
        ([played(1, 0.5), played(2, 0.6, ways=1.5)], "knows fewer right ways"),
        ([played(1, 0.5, reached=20), played(2, 0.6, ways=1.5)], None),  # fewer ways, and many more rows
        ([played(1, 0.5), played(2, 0.6), played(3, 0.7), played(4, 0.8)], "all 4 rounds are done"),
    ],
)
def test_rounds_end_where_they_no_longer_teach(rounds: list[Round], says: str | None) -> None:
    found = why_stop(rounds, 4)
    assert found is None if says is None else says in str(found)


def test_of_equally_good_rounds_the_first_is_kept() -> None:
    assert best([played(1, 0.5), played(2, 0.7), played(3, 0.7), played(4, 0.6)]).number == 2


def test_the_table_counts_ways_per_row() -> None:
    line = played(3, 0.5, reached=30, ways=2.0).to_json()
    assert (line["pass_at_k"], line["distinct_traces"], line["round"], line["hinted"]) == (0.5, 1.0, 3, 10)


def trace(name: str, outcome: Any, said: str, pass_rate: float, given: Any = "question") -> dict[str, Any]:
    """A line of an enhanced data set."""
    messages = [{"role": "user", "content": "What is 2 * 3?"}, {"role": "assistant", "content": "6"}]
    solved = outcome.startswith("solved")
    attempt = Attempt(1, said, "correct" if solved else "incorrect", "number", given=given)
    chosen, row = 1 if solved else None, QARow(name, messages, {})
    return Trace(row, outcome, (attempt,), "direct", {}, chosen=chosen, pass_rate=pass_rate).to_json(said)


def test_a_row_is_trained_on_with_its_newest_right_trace_and_the_pass_rate_of_the_base(tmp_path: Path) -> None:
    before, run = RunDir(tmp_path / "1"), RunDir(tmp_path / "2")
    old = [
        trace("lost", "solved_with_hint", "old 6", 0.25, "hint"),
        trace("again", "solved_with_hint", "old 6", 0.0, "hint"),
        trace("never", "unsolved", "old 7", 0.0),
        trace("found", "unsolved", "old 7", 0.0),
        trace("reference", "solved_first_try", "old 6", 0.5),
    ]
    new = [
        trace("lost", "unsolved", "new 7", 0.0),
        trace("again", "solved_first_try", "new 6", 1.0),
        trace("never", "unsolved", "new 8", 0.0),
        trace("found", "solved_first_try", "new 6", 1.0),
        trace("reference", "trained_on_reference", "6", 0.0),
    ]
    for folder, lines in ((before, old), (run, new)):
        folder.create()
        write_jsonl(folder.enhanced, lines)
    for _ in range(2):  # done twice, it is the same
        unite(run, before)
        traces = read_rows(run.enhanced, Trace.from_json)
        assert [one.attempts[0].response for one in traces] == ["old 6", "new 6", "new 8", "new 6", "old 6"]
        assert [one.pass_rate for one in traces] == [0.25, 0.0, 0.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"shard": "1/2"}, "--shard"),
        ({"engine": "ray"}, "--engine"),
        ({"train": {"method": "dpo"}}, "train.method"),
        ({"enhance": {"student_engine": "vllm"}}, "enhance.student_engine"),
        (
            {"enhance": {"student_model": "m", "student_api_base": ["http://127.0.0.1:9/v1"]}},
            "enhance.student_engine",
        ),
        ({"enhance": {"student_model": "local/other"}}, "enhance.student_model"),
        ({"where": {"place": "runpod"}}, "where.place"),
        ({"split": {"max_dev_rows": 0}}, "split.dev_share, split.max_dev_rows"),
    ],
)
def test_what_does_not_go_with_rounds_is_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, Any], where: str
) -> None:
    given = {"model": "demo", "dataset": "demo", "output": str(tmp_path / "run"), **settings}
    with pytest.raises(UserError) as refused:
        check_run({**given, "rounds": 2}, where="test")
    (found,) = (fault for fault in refused.value.faults if fault.expected.endswith("with --rounds"))
    assert found.where == where
    assert not (tmp_path / "run").exists()


def untold(event: str, stage: str, entry: dict[str, Any]) -> None:
    """Nobody watches."""


def test_no_stage_within_the_rounds_can_be_the_last(tmp_path: Path) -> None:
    given = {"model": "demo", "dataset": "demo", "output": str(tmp_path / "run"), "rounds": 2}
    with pytest.raises(UserError, match="before the rounds or behind them"):
        run_rounds(check_run(given, where="test"), until="curate", tell=untold)


def test_without_dev_rows_that_rules_can_judge_no_round_can_be_chosen(tmp_path: Path) -> None:
    rows = [{"messages": [*row["messages"][:-1], {"role": "assistant", "content": PROSE}]} for row in ROWS]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    given = {"model": "demo", "dataset": str(data), "output": str(tmp_path / "run"), "rounds": 2}
    given["enhance"] = {"judge_model": "rules/mechanical"}  # asked for, or it would not begin
    with pytest.raises(UserError, match="dev rows to choose the round by"):
        run_rounds(check_run({**given, "split": {"held_out_share": 0.0}}, where="test"), tell=untold)


@pytest.mark.slow
def test_an_estimate_is_of_one_round(tmp_path: Path) -> None:
    done = socratune("run", "--model", "demo", "--dataset", "demo", "--output", tmp_path, "--rounds", "2", "--estimate")
    assert done.returncode == 2 and "no --rounds beside it" in done.stderr


def test_an_adapter_of_the_very_base_is_near(copied_run: Path) -> None:
    found, reason = student_grade(identity("demo", adapter=copied_run / "adapter"), identity("demo"))
    assert (found, reason) == ("near", "the adapter of an earlier round on the very base")


# -------- the embedded model
def command(folder: Path) -> list[str]:
    """A short training on few rows, so that a second round has something left to do."""
    train, held_out = folder / "train.jsonl", folder / "held_out.jsonl"
    if not train.exists():
        write_rows(train, demo_rows("train", 120))
        write_rows(held_out, demo_rows("held_out", 30))
        few_forgetting_questions(folder)
    settings = ["train.num_train_epochs=2", "train.learning_rate=0.0015", "split.dev_share=0.3"]
    settings += [f"validate.forgetting={folder / 'forgetting.jsonl'}"]
    named = ["--model", "demo", "--dataset", str(train), "--held-out", str(held_out), "--output", str(folder / "run")]
    return ["run", *named, "--rounds", "2", *(part for setting in settings for part in ("--set", setting))]


def calls(run: Path) -> dict[bytes, float]:
    """When each call of the journal was made."""
    with closing(sqlite3.connect(f"file:{run / 'journal.sqlite'}?mode=ro", uri=True)) as journal:
        return dict(journal.execute("SELECT key, at FROM calls"))


@pytest.mark.slow
def test_two_rounds_killed_in_the_second_and_gone_on_with(tmp_path: Path, results_of: Callable[[Path], Any]) -> None:
    run = tmp_path / "run"
    process = Fork(*command(tmp_path))
    deadline = time.monotonic() + 200
    while not (run / "rounds" / "2" / "pipeline_results.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before its second round"
        time.sleep(0.05)
    process.kill()
    process.wait()
    made = calls(run)
    assert made and not (run / "adapter").exists() and not (run / "held_out_answers.jsonl").exists()

    done = socratune(*command(tmp_path))
    assert done.returncode in (0, 1), done.stderr
    after = calls(run)
    assert made.items() <= after.items() and len(after) > len(made)  # nothing asked again, something new

    results = results_of(run)
    table, end = results["rounds"], results["rounds_end"]
    assert [line["round"] for line in table] == [1, 2]
    rounds = [results_of(run / "rounds" / str(number))["stages"] for number in (1, 2)]
    worn = [entry["enhance"]["student"].get("adapter") for entry in rounds]
    assert worn[0] is None and worn[1] is not None
    assert rounds[1]["train"]["students"]["demo"]["grade"] == "near"
    assert table[1]["solved"] > table[0]["solved"] and table[1]["hinted"] < table[0]["hinted"]
    kept = run / "rounds" / str(end["kept"])
    for name in ("adapter/adapter_model.safetensors", "enhanced_dataset.jsonl", "train.jsonl"):
        assert (run / name).read_bytes() == (kept / name).read_bytes()
    assert not any((run / "rounds" / number / "held_out.jsonl").exists() for number in "12")
    assert results["stages"]["validate"]["rows_in"] == 30 and results["status"] in ("passed", "failed")
    assert f"round {end['kept']} kept" in done.stdout and "right ways a row" in done.stdout
    looked_at = verified(run)
    assert looked_at.agrees and looked_at.pinned, looked_at.faults

    again = socratune(*command(tmp_path))
    assert again.returncode == done.returncode, again.stderr
    assert calls(run) == after and results_of(run)["stages"] == results["stages"]
    assert results_of(kept)["stages"]["train"] == rounds[end["kept"] - 1]["train"]

    proven = socratune(*command(tmp_path), "--restart", "validate")
    assert proven.returncode == done.returncode and proven.stdout.count("(done before)") == 4  # all before it
    assert calls(run) == after

    changed = socratune(*command(tmp_path), "--set", "train.r=8")
    assert changed.returncode == 2 and "--restart train" in changed.stderr

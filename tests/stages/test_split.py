from __future__ import annotations

import errno
import hashlib
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

from socratune.config import SplitConfig
from socratune.data.clusters import Clusters
from socratune.data.duplicates import Marks
from socratune.errors import OutsideError, UserError
from socratune.runs.folder import RunDir
from socratune.stages import split


def qa(question: str, source: str | None = None) -> dict[str, Any]:
    metadata = {} if source is None else {"source": source}
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "a"}]
    return {"messages": turns, "metadata": metadata}


def do(tmp_path: Path, rows: Sequence[Any], **settings: object) -> dict[str, list[dict]]:
    run = RunDir(tmp_path)
    run.create()
    split.split_rows(run, SplitConfig(**settings), dataset=str(write_rows(tmp_path / "in.jsonl", rows)))  # type: ignore[arg-type]
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


def test_coarse_sources_are_labels_and_split_by_question(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [qa(f"question {n}", f"exam-{n % 6}") for n in range(300)]
    parts = do(tmp_path, rows, max_held_out_rows=30, max_dev_rows=10)
    assert 0 < len(parts["held_out"]) <= 30 and 0 < len(parts["dev"]) <= 10
    assert "Every source has 50 rows or more" in caplog.text
    assert len(do(tmp_path, rows, max_held_out_rows=100)["held_out"]) == 50  # one whole source


def test_a_row_without_source_goes_where_its_question_is_asked(tmp_path: Path) -> None:
    rows = [qa(f"question {n}", f"doc-{n % 20}") for n in range(100)] + [qa(f"question {n}") for n in range(120)]
    parts = do(tmp_path, rows)
    asked = [{row["messages"][0]["content"] for row in parts[name]} for name in ("train_in", "dev", "held_out")]
    assert asked[2] and not asked[0] & asked[2] and not asked[0] & asked[1] and not asked[1] & asked[2]
    clusters = {
        row["messages"][0]["content"]: row["cluster"] for name in ("train_in", "held_out") for row in parts[name]
    }
    assert clusters["question 110"] == "q:question 110"


# The parts of this data set as version 0.1 wrote them: a later version that moves rows would change proofs under way.
MIXED = [
    qa(f"{'The ' if n % 3 else ''}Question {n * 7 % 190}{'?' if n % 2 else ''}", f"doc {n // 4}" if n % 5 else None)
    for n in range(200)
]
AS_BEFORE = {"train_in": "1b377fb4b9f99f05", "dev": "397fa9a8a86db509", "held_out": "31e8f59fef581878"}


def test_rows_stay_where_they_always_were(tmp_path: Path) -> None:
    parts = do(tmp_path, MIXED, max_held_out_rows=60)
    found = {
        name: hashlib.sha256(json.dumps([[row["id"], row["cluster"]] for row in parts[name]]).encode()).hexdigest()[:16]
        for name in AS_BEFORE
    }
    assert found == AS_BEFORE


def test_every_shape_and_format_is_split_alike(tmp_path: Path) -> None:
    plain = do(tmp_path / "a", ROWS[:50])
    pairs = [
        {"question": row["messages"][0]["content"], "answer": row["messages"][1]["content"], **row["metadata"]}
        for row in ROWS[:50]
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(pairs))
    run = RunDir(tmp_path / "b")
    run.create()
    found = split.split_rows(run, SplitConfig(), dataset=str(path))
    assert found.figures["shapes"] == {"question–answer": 50}
    for name in ("train_in", "dev", "held_out"):
        assert [json.loads(line) for line in run.rows(name).read_text().splitlines()] == plain[name]


def no_room(**_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_changes_while_it_is_read_is_not_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", no_room)  # else it is not read again
    path = write_rows(tmp_path / "in.jsonl", ROWS[:20])
    marks = Marks()
    rows = Clusters(path, marks)
    rows.join(*marks.groups())
    write_rows(path, [*ROWS[:10], *ROWS[11:21]])
    with pytest.raises(OutsideError, match="has changed"):
        list(rows.read())
    write_rows(path, ROWS[:19])
    with pytest.raises(OutsideError, match="has changed"):
        list(rows.read())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    with path.open("w") as stream:
        for n in range(1500):
            stream.write(json.dumps(qa(f"question {n} {'x' * 6000}", f"doc-{n // 5}")) + "\n")
    run = RunDir(tmp_path)
    tracemalloc.start()
    split.split_rows(run, SplitConfig(max_held_out_rows=20, max_dev_rows=10), dataset=str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6
    assert path.stat().st_size > 9e6

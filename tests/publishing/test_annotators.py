"""A run's answers for Argilla and Kiln, whose own libraries dev/annotators.py asks: they come back as data."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import socratune
from pages import answer, make_run, trace

from socratune.data.qa_files import DataSet
from socratune.errors import UserError
from socratune.publishing.annotators import export_answers
from socratune.runs.folder import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Two traces, one of them right, and three held-out answers, one of each verdict."""
    traces = [trace("t1", "Right?"), trace("t2", "Wrong?", outcome="unsolved")]
    answers = [
        answer("h1", question="Held out?"),
        answer("h2", adapter="incorrect", question="Lost?"),
        answer("h3", adapter="undecided", question="Open?"),
    ]
    return make_run(tmp_path / "My run, 2", traces, answers, model="/models/tiny")


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_argilla_gets_every_answer_with_our_verdict_as_a_suggestion(run: RunDir) -> None:
    said = export_answers(run, "argilla")
    folder = run.root / "export" / "argilla"
    assert "5 answers, 2 of them right" in said and str(folder) in said
    records = {record["id"]: record for record in read(folder / "records.json")}
    assert set(records) == {"t1", "t2", "held-out-h1", "held-out-h2", "held-out-h3"}
    held_out = records["held-out-h2"]
    assert held_out["fields"] == {"question": "Lost?", "reference": "9", "response": "by adapter"}
    assert held_out["suggestions"]["verdict"]["value"] == "incorrect" and held_out["responses"] == {}
    assert held_out["suggestions"]["answer"] == {"value": "9", "score": None, "agent": "reference"}
    assert records["t1"]["suggestions"]["answer"]["agent"] == "tiny"
    settings = read(folder / ".argilla" / "settings.json")
    assert {one["name"] for one in settings["questions"]} == set(held_out["suggestions"])
    assert set(held_out["fields"]) <= {one["name"] for one in settings["fields"]}


def test_kiln_gets_a_project_in_which_wrong_answers_are_repaired(run: RunDir) -> None:
    export_answers(run, "kiln")
    folder = run.root / "export" / "kiln"
    assert read(folder / "project.kiln")["name"] == "My run 2"
    runs = {one["input"]: one for one in map(read, folder.glob("tasks/*/runs/*/task_run.kiln"))}
    assert {one["output"]["rating"] and one["output"]["rating"]["value"] for one in runs.values()} == {1.0, 0.0, None}
    assert runs["Lost?"]["repaired_output"]["output"] == "9" and runs["Lost?"]["output"]["output"] == "by adapter"
    assert runs["Held out?"]["repaired_output"] is None and runs["Held out?"]["repair_instructions"] is None
    assert all(re.fullmatch(r"\w+", tag) for one in runs.values() for tag in one["tags"])


@pytest.mark.parametrize("to", ["argilla", "kiln"])
def test_what_was_exported_can_be_trained_on_with_right_answers(run: RunDir, to: str) -> None:
    export_answers(run, to, out=str(run.root / "out"))
    found = DataSet(run.root / "out")
    references = {row.question: row.reference for row in found.rows()}
    assert (references["Lost?"], references["Held out?"], references["Right?"]) == ("9", "by adapter", "2 * 3 = 6.")
    assert references["Wrong?"] == "6" and not found.reading.bad_rows


def test_an_export_replaces_an_earlier_one_and_nothing_else(run: RunDir, tmp_path: Path) -> None:
    for _ in range(2):
        export_answers(run, "kiln", out=str(tmp_path / "out"))
    (tmp_path / "link").symlink_to(tmp_path / "out")
    export_answers(run, "kiln", out=str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "out" / "project.kiln").is_file()
    with pytest.raises(UserError, match="an earlier export"):
        export_answers(run, "argilla", out=str(tmp_path / "out"))
    with pytest.raises(UserError, match="a run with answers"):
        export_answers(make_run(tmp_path / "none"), "kiln")


def test_what_people_did_in_a_kiln_project_is_not_overwritten(run: RunDir) -> None:
    export_answers(run, "kiln")
    place = run.root / "export" / "kiln"
    file = next(file for file in place.glob("tasks/*/runs/*/task_run.kiln") if read(file)["input"] == "Open?")
    repaired = {**read(file), "repaired_output": {"output": "by a person"}}
    file.write_text(json.dumps(repaired), "utf-8")
    os.utime(file, ns=(later := (place / ".written").stat().st_mtime_ns + 1, later))
    with pytest.raises(UserError, match=r"nobody has worked, got 1 changed files, such as tasks/.*--out DIR"):
        export_answers(run, "kiln")
    assert read(file) == repaired
    export_answers(run, "kiln", out=str(run.root / "another"))


@pytest.mark.parametrize("row", ['{"id": 1}', '{"id": 1, "base": {"verdict": "correct"}, "adapter": null}'])
def test_damaged_answers_are_named(run: RunDir, row: str) -> None:
    run.rows("held_out_answers").write_text(f"{row}\n", "utf-8")
    with pytest.raises(UserError, match=r"held_out_answers.jsonl, line 1: expected a row as its stage wrote it"):
        export_answers(run, "argilla")
    assert not (run.root / "export" / "argilla").exists()


@pytest.mark.slow
def test_the_command_knows_both_and_names_all(run: RunDir) -> None:
    done = socratune("export-data", str(run.root), "--for", "argilla")
    assert done.returncode == 0 and "rg.Dataset.from_disk" in done.stdout
    done = socratune("export-data", str(run.root), "--for", "label-studio")
    assert (done.returncode, "argilla, kiln" in done.stderr) == (2, True)
    done = socratune("export-data", str(run.root), "--for", "kiln", "--set", "train.r=4")
    assert (done.returncode, "no settings with --for kiln" in done.stderr) == (2, True)

"""Kiln's and Argilla's own files as data: what people submitted or repaired is the reference, the rest is left out."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import socratune

from socratune.data.qa_files import DataSet
from socratune.rows import QARow

SAMPLES = Path(__file__).parents[1] / "samples" / "annotated"  # written by dev/annotators.py with their own libraries
KILN = SAMPLES / "kiln"


def rows(path: Path) -> dict[str, str]:
    """Question → reference of the good rows."""
    found = DataSet(path)
    assert found.damage == [] and found.reading.faults == []
    return {row.question: row.reference for row in found.rows()}


def edited_kiln(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Kiln's sample with every run changed."""
    shutil.copytree(KILN, folder)
    for file in folder.rglob("task_run.kiln"):
        run = json.loads(file.read_text("utf-8"))
        change(run)
        file.write_text(json.dumps(run), "utf-8")
    return folder


def test_kiln_a_repaired_output_wins_and_what_was_rated_down_is_left_out() -> None:
    found = DataSet(KILN)
    assert rows(KILN) == {
        "2 + 2?": "2 + 2 = 4.", "4 + 4?": "4 + 4 = 8.", "5 + 5?": "5 + 5 = 10.", "6 + 6?": "6 + 6 = 12.",
        "9 + 9?": "9 + 9 = 18.",
    }  # fmt: skip
    assert found.reading.left_out == {"rated_down": 3} and not found.reading.bad_rows
    details = sorted(row.detail for row in found.bad_rows())
    assert [detail.split(",")[0] for detail in details] == ["five_star: 1", "pass_fail: 0", "pass_fail_critical: -1"]
    by_question: dict[str, QARow] = {row.question: row for row in found.rows()}
    assert by_question["9 + 9?"].metadata == {"rating": 3.0, "thinking": "Nine twice."}
    system = by_question["2 + 2?"].messages[0]
    assert system["role"] == "system" and system["content"].endswith("requirements:\n1) Answer with one sentence.")


@pytest.mark.parametrize("name", ["project.kiln", "tasks/*/task.kiln", "tasks/*"])
def test_kiln_a_task_is_named_in_any_way(name: str) -> None:
    (path,) = KILN.glob(name)
    assert rows(path) == rows(KILN)


def test_kiln_a_project_of_two_tasks_asks_which(tmp_path: Path) -> None:
    shutil.copytree(KILN, tmp_path / "kiln")
    (task,) = (tmp_path / "kiln" / "tasks").iterdir()
    shutil.copytree(task, task.with_name("1 - Other"))
    found = DataSet(tmp_path / "kiln")
    assert "a Kiln project with one task" in str(found.damage[0]) and "1 - Other" in found.damage[0].fix


def test_kiln_runs_with_the_same_fault_are_told_together(tmp_path: Path) -> None:
    path = edited_kiln(tmp_path / "kiln", lambda run: run.update(output={"rating": "good"}, repaired_output=None))
    (fault,) = DataSet(path).reading.faults
    assert re.fullmatch(rf"{re.escape(str(path))}, 8 rows \(runs .*, …\)", fault.where), fault.where


def test_kiln_a_task_without_runs_is_no_file(tmp_path: Path) -> None:
    shutil.copytree(KILN, tmp_path / "kiln")
    shutil.rmtree(next((tmp_path / "kiln").glob("tasks/*/runs")))
    assert "at least one row, got none" in str(DataSet(tmp_path / "kiln").damage[0])


def test_kiln_runs_of_an_evaluation_and_turns_of_a_conversation_are_left_out(tmp_path: Path) -> None:
    path = edited_kiln(tmp_path / "kiln", lambda run: run.update(eval_source={"source_type": "task_run"}))
    assert DataSet(path).reading.left_out == {"of_an_eval": 8}
    shutil.rmtree(path)
    path = edited_kiln(path, lambda run: run.update(parent_task_run_id="1"))
    assert DataSet(path).reading.left_out == {"of_a_conversation": 8}


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.update(output={"output": "x", "rating": 3}),
        lambda run: run.update(output={"output": "x", "rating": {"type": [], "value": 1}}, repaired_output=None),
        lambda run: run.update(intermediate_outputs="said"),
        lambda run: run.update(input=None),
        lambda run: run.pop("output") and run.update(repaired_output=None),
    ],
)
def test_kiln_a_run_of_another_shape_is_a_bad_row(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    found = DataSet(edited_kiln(tmp_path / "kiln", change))
    assert (found.reading.bad_rows, found.reading.left_out.total()) in (
        (8, 0),
        (5, 3),
    )  # what was rated down comes first


def test_kiln_a_changed_run_is_read_anew(tmp_path: Path) -> None:
    path = edited_kiln(tmp_path / "kiln", lambda run: None)
    before = DataSet(path).state
    file = next(path.rglob("task_run.kiln"))
    file.write_text(file.read_text("utf-8").replace("anna", "berta"), "utf-8")
    assert DataSet(path).state != before


@pytest.mark.parametrize("name", ["openai_chat", "huggingface_chat_template", "vertex_gemini"])
def test_kiln_exports_for_fine_tuning_are_read(name: str) -> None:
    found = list(DataSet(SAMPLES / f"kiln-{name}.jsonl").rows())
    assert {row.messages[0]["content"] for row in found} == {"Add."}
    assert {row.question: row.reference for row in found} == {
        "2 + 2?": "2 + 2 = 4.", "4 + 4?": "4 + 4 = 8.", "6 + 6?": "6 + 6 = 12.",
    }  # fmt: skip


@pytest.mark.parametrize("contents", ["x", [3], [{"role": "user"}], {}])
def test_contents_that_are_no_turns_are_a_bad_row(tmp_path: Path, contents: Any) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"contents": contents}), "utf-8")
    assert DataSet(tmp_path / "rows.jsonl").reading.bad_rows == 1


# --- Argilla -------------------------------------------------------------------------------------------------------

ANSWERED = {"2 + 2?": "4", "4 + 4?": "8", "5 + 5?": "ten"}


def test_argilla_submitted_answers_win_over_suggestions() -> None:
    found = DataSet(SAMPLES / "argilla-flat.json")
    assert rows(SAMPLES / "argilla-flat.json") == ANSWERED
    assert found.reading.left_out == {"discarded": 1, "unanswered": 2} and not found.reading.bad_rows
    told = {row.id: row.metadata for row in found.rows()}
    assert told["a"] == {"source": "doc1", "answered_by": "response"} and told["c"]["answered_by"] == "suggestion"


def test_argilla_without_the_status_of_responses_the_record_decides() -> None:
    found = DataSet(SAMPLES / "argilla.json")
    assert rows(SAMPLES / "argilla.json") == ANSWERED and found.reading.left_out == {"unanswered": 3}


def test_argilla_the_folder_of_to_disk_and_tables_are_read_alike(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    (tmp_path / "disk" / ".argilla").mkdir(parents=True)
    shutil.copy(SAMPLES / "argilla.json", tmp_path / "disk" / "records.json")
    flat = json.loads((SAMPLES / "argilla-flat.json").read_text("utf-8"))
    from pyarrow.parquet import write_table

    write_table(pa.Table.from_pylist(flat), tmp_path / "flat.parquet")
    with (tmp_path / "flat.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(flat[0]))
        writer.writeheader()
        writer.writerows(row for row in flat if row["id"] != "e")  # of which a table without nulls says nothing
    for name in ("disk", "flat.parquet", "flat.csv"):
        assert rows(tmp_path / name) == ANSWERED, name


@pytest.mark.parametrize(
    ("fields", "responses", "asked"),
    [
        ({"instruction": "Add.", "context": "2 and 2"}, {"response": ["4"]}, "Add."),
        ({"chat": [{"role": "user", "content": "2 + 2?"}]}, {"label": ["yes"], "answer": ["4"]}, "2 + 2?"),
        ({"prompt": "2 + 2?", "response": "5"}, {"corrected": ["4"], "rating": [1]}, "2 + 2?"),
        ({"text": "2 + 2?", "note": "easy"}, {"say": ["5", "4", "4"]}, "2 + 2?"),
    ],
)
def test_argilla_fields_and_questions_of_any_name(
    tmp_path: Path, fields: dict[str, Any], responses: dict[str, list[Any]], asked: str
) -> None:
    given = {name: [{"value": value, "user_id": "u"} for value in values] for name, values in responses.items()}
    record = {"id": "r", "fields": fields, "suggestions": {}, "responses": given, "status": "completed"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(record), "utf-8")
    assert rows(tmp_path / "rows.jsonl") == {asked: "4"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"responses": ["x"]}, "a record as Argilla writes it"),
        ({"fields": {"a": "1", "b": "2"}}, "columns of a known shape"),
        ({"metadata": 3}, "a record as Argilla writes it"),
        ({"suggestions": {"say": 3}, "responses": {}}, "a record as Argilla writes it"),
    ],
)
def test_argilla_a_record_of_another_shape_is_a_bad_row(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    given = {"say": [{"value": "4", "user_id": "u"}]}
    record = {"id": "r", "fields": {"text": "2 + 2?"}, "suggestions": {}, "responses": given, "status": "completed"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(record | change), "utf-8")
    found = DataSet(tmp_path / "rows.jsonl")
    assert found.reading.bad_rows == 1 and said in str(found.reading.faults[0])


@pytest.mark.slow
def test_a_run_says_what_people_left_out(tmp_path: Path) -> None:
    flat = json.loads((SAMPLES / "argilla-flat.json").read_text("utf-8"))
    for number in range(80):
        flat.append({"id": f"n{number}", "status": "completed", "text": f"What is {number} + 1?",
                     "answer.responses": [str(number + 1)], "answer.responses.status": ["submitted"]})  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps(flat), "utf-8")
    given = ["--model", "demo", "--dataset", str(tmp_path / "rows.json"), "--output", str(tmp_path / "run")]
    done = socratune("run", *given, "--until", "split")
    assert done.returncode == 0 and "1 left out as discarded; 2 left out as unanswered" in done.stderr + done.stdout
    split = json.loads((tmp_path / "run" / "pipeline_results.json").read_text("utf-8"))["stages"]["split"]
    assert (split["left_out"], split["rows_in"]) == ({"discarded": 1, "unanswered": 2}, 86)
    kept = (tmp_path / "run" / "input.rejected.jsonl").read_text("utf-8").splitlines()
    assert sorted(json.loads(line)["reason"] for line in kept) == ["discarded", "unanswered", "unanswered"]
    for record in flat:
        record["answer.responses.status"] = ["discarded"]
        record["answer.responses"] = [""]
    (tmp_path / "rows.json").write_text(json.dumps(flat), "utf-8")
    done = socratune("run", *given[:-1], str(tmp_path / "other"))
    assert (done.returncode, "86 discarded" in done.stderr) == (2, True)

"""What a command asks for before it begins: what the stages to come need, and nothing of those that are done."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from socratune.errors import UserError
from socratune.llm.vllm import vllm_args_fault
from socratune.preflight import check_run
from socratune.runs.progress import NEEDED


def run_with(folder: Path, *done: str) -> Path:
    """A run folder in which these stages are done."""
    folder.mkdir()
    for stage in done:
        for name in NEEDED[stage]:
            (folder / name).touch()
    (folder / "config.yaml").write_text("model: demo\n")
    (folder / "journal.sqlite").touch()
    stages = {stage: {"status": "done"} for stage in done}
    (folder / "pipeline_results.json").write_text(json.dumps({"status": "incomplete", "stages": stages}))
    return folder


def faults_of(run: Path, settings: dict[str, Any], **stages: str) -> str:
    """What is said against a command; empty where it can begin."""
    rows = {} if "generate" in settings else {"dataset": "demo"}  # else they are written
    given = {"model": "demo", "output": str(run), **rows, **settings}
    try:
        check_run(given, where="test", **stages)
    except UserError as error:
        return str(error)
    return ""


ONLY_THE_LOOP = {
    "vLLM": {"enhance": {"student_engine": "vllm"}},
    "the student's key": {"enhance": {"student_model": "openai/gpt-4o-mini"}},
    "the teacher's key": {"enhance": {"teacher_model": "openai/gpt-4o-mini"}},
    "the teacher's file": {"enhance": {"teacher_model": "python:gone.py:teach"}},
    "another student's folder": {"enhance": {"student_model": "local/./gone"}},
    "Ray": {"engine": "ray"},
}


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    gone, real = {"ray", "wandb", "mlflow", "trackio"}, importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, package=None: (name not in gone and real(name, package)) or None
    )


def test_another_student_than_the_trained_model_is_refused(tmp_path: Path) -> None:
    assert "the very model that is trained" in faults_of(tmp_path / "new", {"enhance": {"student_model": "other"}})
    assert faults_of(tmp_path / "new", {"enhance": {"student_model": "demo"}}) == ""
    assert faults_of(tmp_path / "new", {"enhance": {"student_model": "ollama/llama3"}}) == ""


@pytest.mark.parametrize("settings", ONLY_THE_LOOP.values(), ids=ONLY_THE_LOOP)
def test_what_only_the_loop_needs_is_not_asked_for_when_it_is_done(settings: dict[str, Any], tmp_path: Path) -> None:
    done = run_with(tmp_path / "done", "split", "enhance")
    assert faults_of(done, settings) == faults_of(done, settings, until="train") == ""
    assert faults_of(done, settings, restart="train") == ""
    expected = faults_of(tmp_path / "new", settings)
    assert expected
    assert faults_of(done, settings, restart="enhance") == faults_of(done, settings, restart="split") == expected
    assert faults_of(run_with(tmp_path / "begun", "split"), settings) == expected
    (done / "enhanced_dataset.jsonl").unlink()
    assert faults_of(done, settings) == expected


def test_the_judge_is_asked_for_as_long_as_somebody_is_to_be_judged(tmp_path: Path) -> None:
    settings = {"enhance": {"judge_model": "openai/gpt-4o-mini"}}
    run = run_with(tmp_path / "run", "split", "enhance")
    assert "OPENAI_API_KEY" in faults_of(run, settings)
    assert faults_of(run, settings, until="train") == ""


def test_the_writers_are_not_asked_for_when_the_questions_are_written(tmp_path: Path) -> None:
    settings = {"generate": {"source": "demo", "writer_model": "openai/gpt-4o-mini"}}
    assert "OPENAI_API_KEY" in faults_of(tmp_path / "new", settings)
    run = run_with(tmp_path / "run", "generate", "split", "enhance")
    assert faults_of(run, settings) == ""
    assert "OPENAI_API_KEY" in faults_of(run, settings, restart="generate")


def test_a_tracker_is_not_asked_for_when_the_training_is_done(tmp_path: Path) -> None:
    settings = {"report_to": ["wandb"]}
    assert "wandb" in faults_of(tmp_path / "new", settings)
    assert faults_of(run_with(tmp_path / "run", "split", "enhance", "curate", "train"), settings) == ""


def test_more_arguments_of_vllm_do_not_undo_ours() -> None:
    for good in ([], ["--tensor-parallel-size", 2], ["--enforce-eager"], ["--max-model-len=4096"], ["-tp", 2]):
        assert vllm_args_fault(good) is None
    for wrong in (["--port", 1], ["--host=0.0.0.0"], ["--served_model_name", "x"], ["--api-key", "k"], ["some/model"]):
        assert str(wrong[0]) in str(vllm_args_fault(wrong))


def test_arguments_of_vllm_are_refused_where_none_is_started(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = {"vllm_args": ["--enforce-eager"]}
    for settings in (
        {"enhance": more, "where": {"place": "local"}},
        {"enhance": {**more, "student_model": "m", "student_api_base": ["http://127.0.0.1:1/v1"]}},
        {"enhance": more, "where": {"student_server": "socratune"}},
    ):
        assert "enhance.vllm_args: expected a vLLM that is started" in faults_of(tmp_path / "new", settings)
    assert "--student-engine vllm" in faults_of(tmp_path / "new", {"enhance": more, "where": {"place": "local"}})
    assert "vllm_args" not in faults_of(tmp_path / "new", {"enhance": {**more, "student_engine": "vllm"}})
    caplog.clear()
    assert faults_of(tmp_path / "new", {"enhance": more}) == ""
    assert "rented machine only" in caplog.text
    run = run_with(tmp_path / "run", "split", "enhance")
    assert faults_of(run, {"enhance": more, "where": {"place": "local"}}) == ""

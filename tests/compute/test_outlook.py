"""What a run of one's own rows is told before anything runs, and what may leave this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import demo_rows, socratune, write_rows

from socratune.config import DEMO_DATA, StudentTeacherConfig
from socratune.errors import UserError
from socratune.llm import model_location, weights_fingerprint
from socratune.pipeline import Pipeline
from socratune.preflight import check_run
from socratune.resolve import resolve_settings
from socratune.runs import Journal, Results, RunDir, fingerprint, former_defaults

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "RUNPOD_API_KEY")
WORDS = [
    {"question": f"Why does river {n} bend?", "answer": f"Its bed is harder on the one bank, by {n % 7} steps."}
    for n in range(60)
]  # fmt: skip
NAMES = [{"question": f"Who built bridge {n}?", "answer": name} for n, name in enumerate(["Ada Lee", "Jo Ray"] * 30)]
SUMS = [{"question": f"How much is {n} and {n + 3}?", "answer": str(2 * n + 3)} for n in range(60)]
LETTERS = [{"question": f"Which is larger, in case {n}?\nA) the cat\nB) the house", "answer": "B"} for n in range(60)]


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every vendor: they must not change a thing."""
    for name in KEYS:
        monkeypatch.setenv(name, "sk-of-somebody")


def checked(folder: Path, rows: list[dict[str, Any]], **given: Any) -> Any:
    data = write_rows(folder / "rows.jsonl", rows)
    stages = {name: given.pop(name) for name in ("until", "start", "restart") if name in given}
    return check_run(
        {"model": "demo", "dataset": str(data), "output": str(folder / "run"), **given}, where="test", **stages
    )


@pytest.mark.parametrize("rows", [WORDS, NAMES], ids=["sentences", "names"])
def test_rows_that_rules_cannot_judge_are_refused_with_the_flags_and_what_they_cost(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    with pytest.raises(UserError) as refused:
        checked(tmp_path, rows)
    [fault] = refused.value.faults
    said = str(fault)
    assert fault.where == "enhance.judge_model" and "0 of 60 rows" in said
    assert "--judge-model gpt-4o-mini --teacher-model anthropic/max (about 0." in said and "USD for 60 rows" in said
    for way in ("--judge-api-base URL", "local/NAME", "python:FILE.py:F", "a key alone sends nothing"):
        assert way in said
    assert not (tmp_path / "run").exists()


def test_whoever_asks_for_rules_or_names_a_judge_may_begin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checked(tmp_path, WORDS, enhance={"judge_model": "rules/mechanical"})
    assert "0 of 60 rows" in caplog.text and "--judge-model gpt-4o-mini" in caplog.text
    caplog.clear()
    named = {"judge_model": "gpt-4o-mini", "teacher_model": "anthropic/max"}
    assert checked(tmp_path, WORDS, enhance=named).config.enhance.judge_model == "gpt-4o-mini"
    [record] = caplog.records
    assert "data to models that are paid for" in record.message


def test_nothing_is_asked_of_rows_before_the_loop_or_behind_it(tmp_path: Path) -> None:
    checked(tmp_path, WORDS, until="split")
    checked(tmp_path, WORDS, start="curate")


@pytest.mark.parametrize("rows", [SUMS, LETTERS], ids=["numbers", "choices"])
def test_without_a_teacher_the_run_samples_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rows: list[dict[str, Any]]
) -> None:
    folder = tmp_path / "model"  # another than the embedded one, whose profile names a teacher
    shutil.copytree(DEMO_DATA / "base", folder)
    assert checked(tmp_path, rows, model=str(folder)).config.enhance.teacher_model is None
    [record] = caplog.records
    assert "No teacher is named" in record.message and "by itself in 4 samples" in record.message
    assert "--teacher-model anthropic/max (about 0." in record.message
    caplog.clear()
    checked(tmp_path, rows, model=str(folder), enhance={"max_iterations": 1})  # no hint is wanted
    checked(tmp_path, rows, model=str(folder), enhance={"teacher_model": "none"})  # nor here
    assert not caplog.records


def test_the_embedded_model_has_its_teacher_for_products_and_nobody_else_has_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert StudentTeacherConfig().teacher_model is None
    resolved = checked(tmp_path, demo_rows("train", 60))
    assert resolved.config.enhance.teacher_model == "rules/arithmetic" and not caplog.records
    checked(tmp_path, SUMS)  # two numbers as well, and no products
    assert "0 of 60 questions ask for one" in caplog.text


def test_a_mixed_data_set_is_told_what_stays_undecided(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checked(tmp_path, SUMS[:40] + WORDS[:20])
    assert "in 40 of 60 rows" in caplog.text and "undecided" in caplog.text
    with pytest.raises(UserError, match="in 20 of 60 rows"):
        checked(tmp_path, SUMS[:20] + WORDS[:40])


# --- runs of an earlier version -----------------------------------------------------------------------------------


def begun(folder: Path, status: str, **changes: Any) -> Path:
    """The folder of a run as the version before left it: everybody's teacher was the rules of arithmetic."""
    run = folder / "run"
    run.mkdir()
    config = {"model": "demo", "dataset": str(folder / "rows.jsonl"), "enhance": {"teacher_model": "rules/arithmetic"}}
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "output": str(run)}))
    origins = {"enhance.teacher_model": "default", **changes}
    results = {"status": status, "stages": {"enhance": {"status": status}}, "config": config, "origins": origins}
    (run / "pipeline_results.json").write_text(json.dumps(results))
    return run


def test_a_run_that_began_with_the_former_default_goes_on_with_it(tmp_path: Path) -> None:
    run = begun(tmp_path, "interrupted")
    assert former_defaults(str(run), None) == {"enhance.teacher_model": "rules/arithmetic"}
    assert former_defaults(str(run), "train") == {"enhance.teacher_model": "rules/arithmetic"}
    assert former_defaults(str(run), "enhance") == {}  # it is done anew, as it would be done today
    assert checked(tmp_path, WORDS).config.enhance.teacher_model == "rules/arithmetic"
    assert (
        checked(tmp_path, WORDS, enhance={"teacher_model": "anthropic/max"}).origins["enhance.teacher_model"] == "given"
    )


def test_what_an_earlier_version_has_enhanced_is_still_done(tmp_path: Path) -> None:
    """The fingerprint of the stage is that of a default which nobody had to name."""
    run = begun(tmp_path, "done")
    keys = {}
    for teacher in ("rules/arithmetic", None, "anthropic/max"):
        given = {"model": "demo", "dataset": "demo", "output": str(run), "enhance": {"teacher_model": teacher}}
        journal = Journal(run / "journal.sqlite")
        keys[teacher] = Pipeline(resolve_settings(given).config, journal, Results(RunDir(run))).key("enhance")
        journal.close()
    assert len(set(keys.values())) == 3
    own = {"model": "demo", "enhance.attempts": 1, "enhance.hint_attempts": 1, "enhance.max_new_tokens": 96}
    assert keys["rules/arithmetic"] == former_key(own)


def former_key(own: dict[str, Any]) -> str:
    """As the version before computed it: settings that are not the default, model and seed, the hash of no file."""
    return fingerprint("enhance", own, [weights_fingerprint(model_location("demo")), 0], [None])


# --- what goes where -----------------------------------------------------------------------------------------------

OUTSIDE = [
    ({"enhance": {"judge_model": "gpt-4o-mini"}}, "enhance.judge_model", "api.openai.com"),
    ({"enhance": {"teacher_model": "anthropic/max"}}, "enhance.teacher_model", "api.anthropic.com"),
    ({"enhance": {"judge_model": "q", "judge_api_base": ["http://gpu1:8000/v1"]}}, "enhance.judge_api_base", "gpu1"),
    (
        {"enhance": {"student_model": "q", "student_api_base": ["https://x.org/v1"]}},
        "enhance.student_api_base",
        "x.org",
    ),
    ({"where": {"place": "runpod"}}, "where.place", "runpod"),
    ({"hub_id": "me/x"}, "--hub-id", "Hugging Face Hub"),
    ({"split": {"held_out": "someone/questions"}}, "--held-out", "someone/questions"),
    ({"enhance": {"judge_model": "local/someone/judge"}}, "enhance.judge_model", "someone/judge"),
]


@pytest.mark.parametrize(("given", "setting", "got"), OUTSIDE, ids=[f"{key}-{got}" for _, key, got in OUTSIDE])
def test_local_only_refuses_what_would_call_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], setting: str, got: str
) -> None:
    monkeypatch.setattr("socratune.preflight.stay_offline", lambda: None)  # it is for the whole process
    with pytest.raises(UserError) as refused:
        checked(tmp_path, SUMS, local_only=True, **given)
    assert any(
        fault.where == setting and got in str(fault) and "--local-only" in str(fault) for fault in refused.value.faults
    )


def test_local_only_takes_servers_of_this_machine_and_rents_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socratune.preflight.stay_offline", lambda: None)
    bases = ["http://127.0.0.1:8000/v1", "http://localhost:8001/v1", "http://[::1]:8002/v1"]
    loop = {"judge_model": "judge", "judge_api_base": bases, "teacher_model": "teacher", "teacher_api_base": bases[:1]}
    resolved = checked(tmp_path, WORDS, local_only=True, enhance=loop)
    assert resolved.config.where.place == "local"


@pytest.mark.slow
def test_a_plan_and_a_generate_know_it_too(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", WORDS)
    plan = socratune("plan", "--model", "demo", "--dataset", data)
    assert plan.returncode == 0 and "caution: enhance.judge_model" in plan.stdout, plan.stderr
    plan = socratune("plan", "--model", "someone/model", "--local-only")
    assert plan.returncode == 2 and "someone/model of the Hugging Face Hub" in plan.stderr
    (tmp_path / "a.md").write_text("The bridge was built in 1904.")
    command = ["generate", "--source", tmp_path / "a.md", "--output", tmp_path / "qa.jsonl", "--local-only"]
    refused = socratune(*command, "--writer-model", "gpt-4o-mini")
    assert refused.returncode == 2 and "generate.writer_model" in refused.stderr and "api.openai.com" in refused.stderr
    assert socratune(*command).returncode == 0

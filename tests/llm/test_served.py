"""The loop with judge and teacher behind a server, through the real command."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import demo_rows, socratune, write_rows
from few import few_forgetting_questions
from model_server import Answer, ModelServer
from safetensors.torch import load_file, save_file
from vllm_stub import Stub

from socratune.config import DEMO_DATA
from socratune.teaching.hints import breakdown_hint, parse_product

KEY = "sk-canary-0123456789abcdef"


def behave(body: dict[str, Any], number: int) -> Answer:
    """A judge and a teacher that know their business; every seventh request fails first."""
    if number % 7 == 0:
        return Answer("busy", status=429, headers={"Retry-After": "0"})
    case = json.loads(body["messages"][1]["content"])
    if body["model"] == "judge":
        right = case["reference_answer"].rsplit(" ", 1)[1] in case["response"].rsplit(" ", 1)[1]
        return Answer(json.dumps({"correct": right, "reason": "compared"}), tokens=(100, 10))
    factors = parse_product(case["question"])
    assert factors is not None
    return Answer(f"Hint: {breakdown_hint(*factors)}", tokens=(100, 20))


def flags(server: ModelServer, tmp_path: Path, *more: str) -> list[str | Path]:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 40))
    return [
        "enhance", "--model", "demo", "--dataset", data, "--output", tmp_path / "run",
        "--teacher-model", "teacher", "--teacher-api-base", server.openai_base,
        "--judge-model", "judge", "--judge-api-base", server.openai_base, "--judge-mode", "llm",
        "--set", "enhance.endpoints.judge.api_key_env=MY_KEY", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_served_judge_and_teacher(tmp_path: Path, results_of: Callable[[Path], Any]) -> None:
    with ModelServer(behave) as server:
        done = socratune(*flags(server, tmp_path), env={"MY_KEY": KEY})
        assert done.returncode == 0, done.stderr
        asked = len(server.seen)
        assert {request.headers.get("Authorization") for request in server.seen} == {None, f"Bearer {KEY}"}
        again = socratune(*flags(server, tmp_path), env={"MY_KEY": KEY})
        assert again.returncode == 0 and len(server.seen) == asked  # a finished run makes no call
        again = socratune(*flags(server, tmp_path, "--restart", "enhance"), env={"MY_KEY": KEY})
        notice = "data to models that are paid for"
        assert notice in done.stderr and notice not in again.stderr  # the same models have had the same rows
        assert again.returncode == 0 and len(server.seen) == asked  # redone, but the same calls are not paid twice
    enhance = results_of(tmp_path / "run")["stages"]["enhance"]
    assert enhance["outcomes"]["solved_with_hint"] > 0 and "error" not in enhance["outcomes"]
    assert enhance["spent"]["enhance.teacher"]["tokens"] == 120 * enhance["hints"]
    assert enhance["spent"]["enhance.judge"]["usd"] is None  # a key, but no known price: unknown, not nothing
    sent = results_of(tmp_path / "run")["sent_to"]
    assert sent.keys() == {"enhance.judge", "enhance.teacher"} and sent["enhance.judge"]["hosts"] == ["127.0.0.1"]
    row = json.loads((tmp_path / "run" / "enhanced_dataset.jsonl").read_text().splitlines()[0])
    assert row["metadata"]["enhancement"]["trace"][0]["judged_by"] == "llm"
    holders = [
        path.name for path in (tmp_path / "run").rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]
    assert holders == [] and KEY not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_token_limit_stops_cleanly_and_a_higher_one_goes_on(
    tmp_path: Path, results_of: Callable[[Path], Any]
) -> None:
    with ModelServer(behave) as server:
        stopped = socratune(*flags(server, tmp_path, "--max-total-tokens", "4000", "--concurrency", "2"))
        assert stopped.returncode == 2  # MY_KEY is not set: found before anything is asked
        assert "export MY_KEY" in stopped.stderr and server.seen == []
        env = {"MY_KEY": KEY}
        stopped = socratune(*flags(server, tmp_path, "--max-total-tokens", "4000", "--concurrency", "2"), env=env)
        assert stopped.returncode == 3, stopped.stderr
        assert "Stopped before the limit of 4000 tokens" in stopped.stderr
        assert results_of(tmp_path / "run")["status"] == "stopped"
        calls = sqlite3.connect(tmp_path / "run" / "journal.sqlite").execute(
            "SELECT SUM(prompt_tokens + completion_tokens) FROM calls WHERE role != 'enhance.student'"
        )
        assert 500 < calls.fetchone()[0] <= 4000
        done = socratune(*flags(server, tmp_path, "--max-total-tokens", "400000"), env=env)
        assert done.returncode == 0, done.stderr
        assert len(server.seen) < 200


@pytest.mark.slow
def test_money_cannot_be_limited_where_a_price_is_not_known(tmp_path: Path) -> None:
    given = ["--model", "demo", "--dataset", "demo", "--output", tmp_path / "run", "--max-usd", "1"]
    done = socratune("run", *given, "--judge-model", "openai/my-own-model", env={"OPENAI_API_KEY": KEY})
    assert done.returncode == 2
    assert "a model whose price is known" in done.stderr and KEY not in done.stderr


@pytest.mark.slow
def test_solutions_of_unsolved_rows_are_pointed_at(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 40))
    command = ["enhance", "--model", "demo", "--dataset", data, "--teacher-model", "none"]
    done = socratune(*command, "--output", tmp_path / "dropped")
    assert done.returncode == 0 and "bring a worked solution: --unsolved reference trains on it" in done.stderr
    done = socratune(*command, "--output", tmp_path / "trained", "--unsolved", "reference")
    assert done.returncode == 0 and "worked solution" not in done.stderr


@pytest.mark.slow
def test_rows_that_no_rule_can_judge_stop_the_run_early(tmp_path: Path) -> None:
    rows = demo_rows("train", 200)
    for row in rows:
        row["messages"][-1]["content"] = "It depends on how one looks at it, all things considered."
    data = write_rows(tmp_path / "rows.jsonl", rows)
    command = ["enhance", "--model", "demo", "--dataset", data, "--output", tmp_path / "run"]
    done = socratune(*command)
    assert done.returncode == 2 and "in 0 of 200 rows" in done.stderr and not (tmp_path / "run").exists()
    done = socratune(*command, "--judge-model", "rules/mechanical")  # asked for: the rows are tried
    assert done.returncode == 2, done.stdout
    assert "10 undecided of the first 10 rows, such as '" in done.stderr and "--judge-model" in done.stderr
    assert "for 'It depends on how one looks" in done.stderr
    again = socratune(*command, "--judge-model", "rules/mechanical")
    assert again.returncode == 2 and "undecided of the first" in again.stderr
    kept = sqlite3.connect(tmp_path / "run" / "journal.sqlite").execute("SELECT COUNT(*) FROM rows").fetchone()
    assert kept == (9,)  # it does not begin to count anew, so no further nine were tried


@pytest.mark.slow
def test_a_model_that_the_server_does_not_know_stops_the_run_early(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 200))
    with ModelServer(lambda body, number: Answer("The model `typo` does not exist", status=404)) as server:
        done = socratune(
            "enhance", "--model", "demo", "--dataset", data, "--output", tmp_path / "run",
            "--judge-model", "typo", "--judge-api-base", server.openai_base, "--judge-mode", "llm",
        )  # fmt: skip
    assert done.returncode == 3, done.stdout
    assert "10 of the first 10 rows failed" in done.stderr and "does not exist" in done.stderr


@pytest.mark.slow
def test_the_judge_model_also_judges_the_proof(tmp_path: Path, results_of: Callable[[Path], Any]) -> None:
    """Answers in words, which rules leave undecided: without the judge model no adapter could ever pass."""

    def in_words(name: str, count: int) -> Path:
        rows = demo_rows(name, count)
        for row in rows:
            row["messages"][-1]["content"] = f"Counted by hand this comes to {row['messages'][-1]['content']}"
        return write_rows(tmp_path / f"{name}.jsonl", rows)

    def judge(body: dict[str, Any], number: int) -> Answer:
        case = json.loads(body["messages"][1]["content"])
        right = case["reference_answer"].rsplit(" ", 1)[1] == case["response"].rsplit(" ", 1)[1]
        return Answer(json.dumps({"correct": right, "reason": "compared"}))

    with ModelServer(judge) as server:
        done = socratune(
            "run", "--model", "demo", "--dataset", in_words("train", 60), "--held-out", in_words("held_out", 30),
            "--output", tmp_path / "run", "--judge-model", "judge", "--judge-api-base", server.openai_base,
            "--judge-mode", "llm", "--set", f"validate.forgetting={few_forgetting_questions(tmp_path)}",
        )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    comparison = results_of(tmp_path / "run")["validation"]["tests"]["base_comparison"]
    assert comparison["undecided"] == {"base": 0, "adapter": 0, "pairs": 0}
    roles = sqlite3.connect(tmp_path / "run" / "journal.sqlite").execute("SELECT DISTINCT role FROM calls")
    assert "validate.judge" in {role for (role,) in roles}


@pytest.mark.slow
def test_a_student_behind_a_vllm_of_our_own(tmp_path: Path, results_of: Callable[[Path], Any]) -> None:
    stub, run = Stub(tmp_path), tmp_path / "run"
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 30))
    given = ["--model", "demo", "--dataset", data, "--output", run, "--student-engine", "vllm"]
    done = socratune("run", *given, "--until", "train", env=stub.environment)
    assert done.returncode == 0, done.stderr
    assert stub.gone() and (run / "vllm.log").exists()
    stages = results_of(run)["stages"]
    assert stages["enhance"]["outcomes"] == {"solved_first_try": stages["enhance"]["rows_in"]}
    student = stages["enhance"]["student"]
    assert student["engine"] == "vllm" and student["sampling"]["temperature"] == 0.0  # the model's own
    assert "enhance.student" not in stages["enhance"]["spent"]
    assert stages["train"]["students"]["demo"]["grade"] == "near" and "engine 'vllm'" in done.stderr


@pytest.mark.slow
def test_vllm_that_is_not_installed_is_found_before_anything_begins(tmp_path: Path) -> None:
    given = ["--model", "demo", "--dataset", "demo", "--output", tmp_path / "run", "--student-engine", "vllm"]
    done = socratune("run", *given, env={"PATH": "/nowhere"})
    assert done.returncode == 2 and "pip install vllm" in done.stderr


@pytest.mark.slow
def test_a_local_judge_beside_the_student(tmp_path: Path, results_of: Callable[[Path], Any]) -> None:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 20))
    given = ["--model", "demo", "--dataset", data, "--output", tmp_path / "run", "--judge-model", "local/demo"]
    done = socratune("enhance", *given)
    assert done.returncode == 0, done.stderr
    enhance = results_of(tmp_path / "run")["stages"]["enhance"]
    assert enhance["student"]["engine"] == "local" and enhance["judge_model"] == "local/demo"


@pytest.mark.slow
def test_another_student_has_to_be_allowed_and_is_remembered(tmp_path: Path, results_of: Callable[[Path], Any]) -> None:
    other, run = tmp_path / "other", tmp_path / "run"
    shutil.copytree(DEMO_DATA / "base", other)
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] *= 1.01
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 30))
    given = ["--model", "demo", "--dataset", data, "--output", run, "--student-model", f"local/{other}"]
    done = socratune("enhance", *given)
    assert done.returncode == 2 and "other weights" in done.stderr
    done = socratune("run", *given, "--until", "train", "--set", "train.allow_foreign_student=true")
    assert done.returncode == 0, done.stderr
    assert results_of(run)["stages"]["train"]["students"][str(other)]["grade"] == "foreign"


@pytest.mark.slow
def test_traces_of_another_model_are_not_trained_on(tmp_path: Path) -> None:
    data, run = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 20)), tmp_path / "run"
    given = ["--model", "demo", "--dataset", data, "--output", run]
    assert socratune("enhance", *given).returncode == 0
    enhanced = run / "enhanced_dataset.jsonl"
    enhanced.write_text(enhanced.read_text().replace('"student_model": "demo"', '"student_model": "Qwen/Qwen3-8B"'))
    done = socratune("run", *given, "--until", "train")
    assert done.returncode == 2 and "'Qwen/Qwen3-8B' is another model" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--judge-mode", "llm"], "enhance.judge_mode llm: expected a --judge-model"),
        (["--teacher-api-base", "http://localhost:1/v1"], "expected a --teacher-model, as the server calls it"),
        (["--shard", "3/2"], "I/N with I from 1 to N"),
        (["--estimate", "--restart", "split"], "no --from, --until or --restart beside it"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(tmp_path: Path, given: list[str], said: str) -> None:
    done = socratune("enhance", "--model", "demo", "--dataset", "demo", "--output", tmp_path / "run", *given)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr and "Traceback" not in done.stderr

"""From `--env` to rows, test and judge: what is written, what is held out, and what is refused."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import socratune

from socratune.config import EnvConfig, SplitConfig
from socratune.environments import write_environment_rows
from socratune.environments.naming import named_environments, options_of
from socratune.errors import UserError
from socratune.preflight import check_run
from socratune.runs import RunDir, read_jsonl, write_jsonl
from socratune.stages.split import split_rows

OWN = """
def questions(seed):
    for n in range(seed, seed + 300):
        shown = f"{n} + {n}.\\nThat is it."
        yield {"question": f"What is {n} doubled?", "answer": str(2 * n), "n": n, "solution": shown}

def verify(entry, said):
    return said == str(2 * entry["n"])

def template(entry):
    return f"ends in {entry['n'] % 70}"
"""


def written(folder: Path, tasks: str, size: int = 1000, seed: int = 0) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """The figures, the rows to train on, and the rows that are asked."""
    run = RunDir(folder)
    run.create()
    split = SplitConfig(max_held_out_rows=60, max_recall_rows=40)
    figures = write_environment_rows(run, EnvConfig(tasks=tasks, size=size, seed=seed), split).figures
    rows, tests = list(read_jsonl(run.rows("qa"))), list(read_jsonl(run.rows("qa_test")))
    numbers = [row for row in rows if "sibling_of" in row["metadata"]]
    return figures, [row for row in rows if row not in numbers], [*tests, *numbers]


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "doubling.py"
    path.write_text(OWN)
    return f"python:{path}"


def test_templates_that_are_tested_are_never_trained_on_and_new_numbers_name_a_trained_row(
    own: str, tmp_path: Path
) -> None:
    figures, rows, tests = written(tmp_path, own, size=150)
    trained = {row["metadata"]["source"] for row in rows}
    new = {row["metadata"]["source"] for row in tests if "sibling_of" not in row["metadata"]}
    assert len(new) == 30 and not new & trained
    ids = {row["id"]: row["metadata"]["source"] for row in rows}
    numbers = [row["metadata"] for row in tests if "sibling_of" in row["metadata"]]
    assert numbers and all(ids[one["sibling_of"]] == one["source"] for one in numbers)
    questions = [row["messages"][0]["content"] for row in (*rows, *tests)]
    assert len(questions) == len(set(questions))
    assert "30 of 70 templates are held out" in figures["environments"]["doubling"]["says"]


def test_a_larger_size_adds_rows_and_moves_none(own: str, tmp_path: Path) -> None:
    _, few, test = written(tmp_path / "few", own, size=40)
    _, many, same = written(tmp_path / "many", own, size=100)
    assert len(few) == 40 and len(many) == 100
    assert many[:40] == few and {row["id"] for row in test} == {row["id"] for row in same}


def test_a_worked_solution_is_trained_on_and_goes_to_the_teacher(own: str, tmp_path: Path) -> None:
    _, rows, _ = written(tmp_path, own, size=20)
    assert rows[0]["messages"][1]["content"].endswith("That is it.\nThe answer is 0.")
    assert rows[0]["metadata"]["thinking"] == "0 + 0.\nThat is it."


def test_names_with_options_are_parsed_and_anything_else_is_refused() -> None:
    sums, legs = "reasoning_gym:chain_sum(min_terms=2,max_terms=2)", "reasoning_gym:leg_counting"
    assert named_environments(f"{sums}, {legs.partition(':')[2]}") == [sums, legs]
    assert options_of(sums) == {"min_terms": 2, "max_terms": 2}
    for wrong in ("chain_sum", "reasoning_gym:", "reasoning_gym:a(", "gym:a", "reasoning_gym:a,a", "python:"):
        with pytest.raises(UserError):
            named_environments(wrong)


def test_of_an_environment_with_one_template_new_numbers_are_tested(tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    tiny = "reasoning_gym:chain_sum(min_terms=2,max_terms=2,min_digits=1,max_digits=1)"
    figures, rows, tests = written(tmp_path, tiny)
    assert figures["environments"]["chain_sum"]["says"] == "one template: what is tested are new numbers."
    assert len(tests) * 4 <= len(rows) <= 400, "what there is of such sums is divided, not repeated"
    assert all("source" not in row["metadata"] for row in rows)
    _, some, test = written(tmp_path, "reasoning_gym:chain_sum", size=100)
    _, more, same = written(tmp_path, "reasoning_gym:chain_sum", size=150)
    assert len(some) == 100 and len(more) == 150 and more[:100] == some and len(test) == 60 and test == same


def test_gsm_symbolic_holds_thirty_of_its_templates_out(tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    figures, rows, _ = written(tmp_path, "reasoning_gym:gsm_symbolic,calendar_arithmetic", size=200)
    found = figures["environments"]
    assert found["gsm_symbolic"]["templates"] == 85 and found["gsm_symbolic"]["templates_held_out"] == 30
    assert found["calendar_arithmetic"]["says"].startswith("7 templates, too few to hold some out")
    kinds = Counter(row["metadata"]["kind"] for row in rows)
    assert kinds == {"gsm_symbolic": 200, "calendar_arithmetic": 200}
    _, other, _ = written(tmp_path, "reasoning_gym:gsm_symbolic", size=200, seed=1)
    both = {row["messages"][0]["content"] for row in rows} & {row["messages"][0]["content"] for row in other}
    assert len(both) < 5, "the next seed asks other questions"


def test_new_numbers_whose_original_is_left_out_never_pass_for_new_templates(own: str, tmp_path: Path) -> None:
    written(tmp_path, own, size=150)
    run = RunDir(tmp_path)
    anchors = {row["metadata"].get("sibling_of") for row in read_jsonl(run.rows("qa"))}
    left = [row for row in read_jsonl(run.rows("qa")) if row["id"] not in sorted(anchors - {None})[:9]]
    write_jsonl(run.rows("qa"), left)
    split_rows(run, SplitConfig(held_out=str(run.rows("qa_test"))), dataset=str(run.rows("qa")))
    assert not [row for row in read_jsonl(run.rows("held_out")) if "sibling_of" in row["metadata"]]
    trained = {row["metadata"]["source"] for row in read_jsonl(run.rows("train_in"))}
    assert not trained & {row["metadata"]["source"] for row in read_jsonl(run.rows("held_out"))}
    recalled = [row["metadata"]["source"] for row in read_jsonl(run.rows("recall"))]
    assert recalled and {*recalled} <= trained


@pytest.mark.parametrize(
    ("tasks", "more", "told"),
    [
        ("reasoning_gym:leg_countin", {}, "Did you mean leg_counting"),
        ("reasoning_gym:chain_sum(terms=2)", {}, "options that the task knows"),
        ("reasoning_gym:chain_sum(seed=2)", {}, "--env-seed"),
        ("reasoning_gym:spiral_matrix", {}, "executes"),
        ("reasoning_gym:chain_sum", {"dataset": "demo"}, "none beside env.tasks (--env)"),
        ("reasoning_gym:chain_sum", {"generate": {"source": "demo"}}, "none beside generate.source"),
        ("reasoning_gym:gsm_symbolic", {"split": {"eval_file": ["gsm8k/test.jsonl"]}}, "questions of GSM8K's test set"),
        ("reasoning_gym:gsm_symbolic", {"validate": {"lm_eval": ["gsm8k_cot"]}}, "questions of GSM8K's test set"),
        ("python:none.py", {}, "no file none.py"),
    ],
)
def test_what_cannot_begin_is_said_with_what_to_type(
    tasks: str, more: dict[str, Any], told: str, tmp_path: Path
) -> None:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    with pytest.raises(UserError, match=re.escape(told)):
        check_run({"model": "demo", "output": str(tmp_path / "run"), "env": {"tasks": tasks}, **more}, where="test")


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from socratune.environments.gym import gym_environment

    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"pip install 'socratune\[gym\]'"):
        gym_environment("chain_sum", {})


@pytest.mark.slow
def test_a_run_goes_from_a_file_of_ones_own_to_a_verdict(own: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["--env-size", "150", "--set", "split.max_held_out_rows=60", "--set", "split.max_recall_rows=20"]
    done = socratune("run", "--model", "demo", "--env", own, *small, "--output", str(run))
    assert done.returncode in (0, 1), done.stderr
    results = json.loads((run / "pipeline_results.json").read_text())
    tests = results["validation"]["tests"]
    assert tests["base_comparison"]["asks"] == "new templates" and tests["recall"]["asks"] == "new numbers"
    assert tests["base_comparison"]["clusters"] == 30
    assert (
        "doubling" in tests["base_comparison"]["by_kind"] and 0 < tests["base_comparison"]["majority"]["accuracy"] < 1
    )
    assert results["origins"]["enhance.judge_model"] == "for env"
    assert "holds what it says" in socratune("verify", str(run)).stdout


@pytest.mark.parametrize(
    ("function", "body", "told"),
    [
        (
            "questions",
            "    yield {'question': '1?', 'answer': '1', 'n': 1}\n    raise ValueError('no more')",
            "ValueError: no more",
        ),
        ("questions", "    yield {'question': '1?'}", "entries with `question` and `answer`"),
        ("questions", "    yield '1?'", "entries with `question` and `answer`"),
        ("template", "    return entry['kind']", "a function template that does not raise, got KeyError: 'kind'"),
    ],
)
def test_what_a_file_of_ones_own_raises_is_a_fault_of_that_file(
    function: str, body: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    path.write_text(f"{OWN}\ndef {function}({'seed' if function == 'questions' else 'entry'}):\n{body}\n")
    with pytest.raises(UserError, match=re.escape(told)) as caught:
        written(tmp_path, f"python:{path}")
    assert str(path) in str(caught.value)

"""`socratune.run` from Python: rows, functions and progress as Python has them, and a result that leads on."""

from __future__ import annotations

import asyncio
import doctest
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from conftest import demo_rows, socratune
from rich.console import Console

import socratune as package
import socratune.api as api_module
from socratune.api import RunResult, run
from socratune.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCRATUNE_CACHE", str(tmp_path / "cache"))


def right(question: str, reference: str, response: str) -> bool:
    return response.rstrip(".").endswith(reference.rstrip(".").split()[-1])


def test_rows_functions_and_progress_are_given_as_they_are(tmp_path: Path) -> None:
    asked: list[str] = []
    told: list[tuple[str, str]] = []

    async def teach(question: str, reference: str, responses: list[str]) -> str:
        asked.append(question)
        return "Take the numbers apart, tens first."

    given: dict[str, Any] = {"model": "demo", "output": tmp_path / "run", "judge": right, "teacher": teach}
    given |= {"config": {"enhance": {"judge_mode": "llm"}}, "until": "enhance"}
    rows = demo_rows("train", 40)
    result = run(dataset=rows, progress=lambda event, stage, entry: told.append((event, stage)), **given)
    assert asked and ("begin", "enhance") in told
    assert isinstance(result, RunResult) and isinstance(result, dict) and result is not None
    assert result["status"] == result.status == "incomplete" and result["stages"]["enhance"]["status"] == "done"
    traces = list(result.traces())
    assert len(traces) > 20 and {attempt.judged_by for trace in traces for attempt in trace.attempts} == {"python"}
    assert result.adapter_path is None and result.comparison == {} and result.report().is_file()
    assert repr(result).startswith("RunResult(status='incomplete'") and json.dumps(result)
    again = run(dataset=(dict(row) for row in rows), **given)  # the same rows go on with the same run
    assert again["stages"]["enhance"] == result["stages"]["enhance"]
    gone = socratune("validate", tmp_path / "run")
    assert gone.returncode == 2 and "Call socratune.run with the function again" in gone.stderr


def test_a_data_set_in_memory_within_an_event_loop(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = Dataset.from_list([{"messages": row["messages"]} for row in demo_rows("train", 40)])

    async def cell() -> RunResult:
        return run(model="demo", dataset=rows, output=tmp_path / "run", teacher="rules/arithmetic", until="enhance")

    result = asyncio.run(cell())
    assert result["stages"]["enhance"]["status"] == "done"

    async def rented() -> None:
        run(model="demo", dataset=rows, output=tmp_path / "far", config={"where": {"place": "runpod"}})

    with pytest.raises(UserError, match="event loop"):
        asyncio.run(rented())


def test_a_finished_run_is_read_through_its_result(copied_run: Path) -> None:
    results = json.loads((copied_run / "pipeline_results.json").read_text())
    result = package.RunResult(results, copied_run)
    assert result == results and result.status == "passed"
    assert result.adapter_path == copied_run / "adapter"
    assert result.comparison["verdict"] == "better"
    assert "status='passed'" in repr(result) and "difference=+" in repr(result)
    console = Console(width=120, file=StringIO())
    console.print(result)
    shown = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "passed" in shown and "better" in shown and "validate" in shown


def test_the_examples_in_the_docstrings() -> None:
    found = doctest.testmod(api_module)
    assert found.attempted > 8 and not found.failed


def test_judge_and_compare_in_a_notebook(tmp_path: Path) -> None:
    async def mine(question: str, reference: str, response: str) -> bool:
        return "scatter" in response

    async def cell() -> tuple[package.Judgement, package.LogComparison]:
        said = package.judge("Why is the sky blue?", "Rayleigh", "It is scattered.", judge=mine)
        rows = [{"id": at, "correct": at % 2} for at in range(40)]
        return said, package.compare(rows, rows)

    judged, compared = asyncio.run(cell())
    assert (judged.verdict, judged.judged_by) == ("correct", "python")
    assert compared.passed == compared["gate"]["passed"] and list(compared.verdicts) == ["correct"]
    with pytest.raises(UserError, match="judge_mode"):
        package.judge("?", "1", "1", judge_mode="strict")
    with pytest.raises(UserError, match="no such file"):
        package.compare(tmp_path / "a", tmp_path / "b")


ROWS: list[dict[str, Any]] = [{"id": 1, "correct": True}, {"id": 2, "correct": False}]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: package.compare(["a"], ROWS), "the rows: expected dicts of what JSON can hold, got 'a'"),
        (lambda: package.compare(ROWS[0], ROWS), "the rows: expected dicts of what JSON can hold, got 'id'"),
        (lambda: package.compare(None, ROWS), "the data set: expected a path, or rows"),  # pyright: ignore
        (lambda: package.enhance(5, model="demo", output="x"), "the data set: expected a path, or rows, got 5"),  # pyright: ignore
        (lambda: package.compare(ROWS, ROWS, margin=float("nan")), "a number from 0 on, got nan"),
        (lambda: package.compare(ROWS, ROWS, margin="x"), "a number from 0 on, got 'x'"),  # pyright: ignore
        (lambda: package.compare(ROWS, ROWS, by="zzz"), "by: expected id or question, got 'zzz'"),  # pyright: ignore
        (lambda: package.judge("1 + 1?", 2, 2), "reference: expected a text, got 2\nresponse: expected a text"),  # pyright: ignore
        (lambda: package.run(config=7), "config: expected a YAML file or a dict, got 7"),  # pyright: ignore
    ],
)
def test_arguments_that_are_none_are_told(call: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert said in str(caught.value)


def test_compare_takes_metrics_as_the_command_does() -> None:
    before = [{"id": at, "acc": at % 2} for at in range(40)]
    after = [{"id": at, "score": 1} for at in range(40)]
    assert package.compare(before, after, metrics="acc=score").verdicts == {"acc=score": "better"}
    odd = [{"id": "\ud800", "correct": True}]
    assert package.compare(odd, odd)["matched"]["questions"] == 1


def test_enhance_is_the_loop_alone(tmp_path: Path) -> None:
    found = package.enhance(demo_rows("train", 40), model="demo", output=tmp_path / "run", teacher="rules/arithmetic")
    assert found.status == "incomplete" and set(found["stages"]) == {"split", "enhance"}
    assert len(list(found.traces())) > 20

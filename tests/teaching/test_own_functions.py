"""A judge of the user's own: what the guide shows works in the loop, and one that never says False is told of."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path

import pytest
from conftest import demo_rows, socratune, write_rows

from socratune.llm import load_function
from socratune.rows import QARow
from socratune.teaching.cast import NEVER_FALSE, python_judge

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "models.md"
ROW = QARow("1", [{"role": "user", "content": "Capital of France?"}, {"role": "assistant", "content": "Paris"}], {})


@pytest.fixture
def guides_file(tmp_path: Path) -> Path:
    """`mine.py` as the guide shows it."""
    [code] = re.findall(r"```python\n# mine\.py\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    file = tmp_path / "mine.py"
    file.write_text(code, "utf-8")
    return file


def test_the_guides_judge_says_right_wrong_and_cannot_tell(guides_file: Path) -> None:
    judge = python_judge(load_function(f"python:{guides_file}:judge"))
    long = "It is the town on the Seine in which the parliament meets " * 4
    said = {"It is Paris.": "correct", "Lyon.": "incorrect", "It is not Paris.": "undecided", long: "undecided"}
    assert {text: asyncio.run(judge(ROW, text)).verdict for text in said} == said


@pytest.mark.slow
def test_with_the_guides_judge_and_teacher_hints_are_asked_for(guides_file: Path, tmp_path: Path) -> None:
    rows = demo_rows("train", 40)
    for row in rows:
        row["messages"][-1]["content"] = "Only somebody who knows"
    data = write_rows(tmp_path / "rows.jsonl", rows)
    done = socratune(
        "enhance", "--model", "demo", "--dataset", data, "--output", tmp_path / "run",
        "--judge-model", f"python:{guides_file}:judge", "--teacher-model", f"python:{guides_file}:teach",
        "--set", "enhance.unsolved=reference",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    enhance = json.loads((tmp_path / "run" / "pipeline_results.json").read_text())["stages"]["enhance"]
    assert enhance["hints"] > 0 and enhance["outcomes"].get("undecided", 0) < len(rows) / 2


@pytest.mark.parametrize(("verdict", "said"), [(None, "None: 20"), (True, "True: 20")])
def test_a_judge_that_never_says_false_is_told_of_once(
    caplog: pytest.LogCaptureFixture, verdict: bool | None, said: str
) -> None:
    def mine(question: str, reference: str, response: str) -> bool | None:
        return verdict

    async def many(count: int) -> None:
        judge = python_judge(mine)
        for _ in range(count):
            await judge(ROW, "x")

    with caplog.at_level(logging.WARNING):
        asyncio.run(many(NEVER_FALSE - 1))
        assert not caplog.records
        asyncio.run(many(3 * NEVER_FALSE))
    [record] = caplog.records
    assert "mine gave no False in 20 answers" in record.message and said in record.message
    assert "False for a wrong one" in record.message


def test_a_judge_that_says_false_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def many() -> None:
        judge = python_judge(lambda question, reference, response: response == "right")
        for text in ["wrong", *["right"] * 50]:
            await judge(ROW, text)

    asyncio.run(many())
    assert not caplog.records

"""An environment of the package verifiers, as its makers lay one out, by the package itself.

It wants older versions of what is here, so it has a venv beside (`make test-engines`) in which the rest is ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import socratune

PYTHON = Path(sys.prefix) / "verifiers/bin/python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="verifiers is not installed (make test-engines)"),
]

ENVIRONMENT = """
import verifiers as vf
from datasets import Dataset


async def right(completion, answer, parser):
    return float(parser.parse_answer(completion) == answer)


def load_environment(largest=9, kind="single"):
    rows = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a in range(largest) for b in range(largest)]
    parser = vf.XMLParser(["answer"])
    rubric = vf.Rubric(funcs=[right, parser.get_format_reward_func()], weights=[0.8, 0.2], parser=parser)
    told = {"dataset": Dataset.from_list(rows), "system_prompt": "Answer in <answer>.", "parser": parser}
    if kind == "tools":
        return vf.ToolEnv(tools=[], rubric=rubric, **told)
    if kind == "judged":
        return vf.SingleTurnEnv(rubric=vf.RubricGroup([rubric, vf.JudgeRubric()]), **told)
    if kind == "nothing":
        raise OSError("no such data set")
    return vf.SingleTurnEnv(rubric=rubric, **told)
"""

ASK = """
import asyncio, json, signal, sys
from socratune.environments import environment_judge, write_environment_rows
from socratune.config import EnvConfig, SplitConfig
from socratune.errors import UserError
from socratune.rows import QARow
from socratune.runs import RunDir, read_jsonl
before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
run = RunDir("run"); run.create()
tasks = "verifiers:sums-env(largest=5)"
write_environment_rows(run, EnvConfig(tasks=tasks, size=15), SplitConfig(max_held_out_rows=10))
rows, tests = (list(read_jsonl(run.rows(one))) for one in ("qa", "qa_test"))
first = rows[0]
entry = first["metadata"]["environment"]["entry"]
row = QARow(first["id"], first["messages"], first["metadata"])
answers = [f"<answer>{entry['answer']}</answer>", f"It is {entry['answer']}.", "<answer>99</answer>", ""]
said = [asyncio.run(environment_judge(row, one)).verdict for one in answers]
refused = []
for kind in ("tools", "judged", "nothing"):
    try:
        write_environment_rows(run, EnvConfig(tasks=f"verifiers:sums-env(kind={kind!r})"), SplitConfig())
    except UserError as error:
        refused.append(str(error))
kept = before == [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
print(json.dumps({"rows": rows, "tests": tests, "said": said, "refused": refused, "kept": kept}))
"""


def test_a_rubric_judges_whole_responses_and_what_is_no_single_turn_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sums-env").mkdir()
    (tmp_path / "sums-env" / "sums_env.py").write_text(ENVIRONMENT)
    source = str(Path(socratune.__file__).parents[1])
    given = os.environ | {"PYTHONPATH": source, "OPENAI_API_KEY": "never used"}
    told = subprocess.run([PYTHON, "-c", ASK], cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout.splitlines()[-1])
    assert len(found["rows"]) == 15 and len(found["tests"]) == 10
    questions = {row["messages"][0]["content"] for row in (*found["rows"], *found["tests"])}
    assert len(questions) == 25 and all(one.startswith("Answer in <answer>.\n\nWhat is ") for one in questions)
    assert found["said"] == ["correct", "incorrect", "incorrect", "incorrect"]
    for reason, word in zip(found["refused"], ("ToolEnv", "asks a model", "no such data set"), strict=True):
        assert word in reason
    assert found["kept"], "Ctrl-C still ends the run, and not the environment"

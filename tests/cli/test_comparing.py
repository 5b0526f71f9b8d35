"""The command `socratune compare`: outputs, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows
from typer.testing import CliRunner

from socratune.cli.app import app

LOGS = Path(__file__).parent.parent / "samples" / "logs"


def compare(*words: Any) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["compare", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def rows(folder: Path, name: str, right: list[bool]) -> Path:
    return write_rows(folder / f"{name}.jsonl", [{"id": str(at), "correct": one} for at, one in enumerate(right)])


def run_folder(folder: Path) -> Path:
    """A validated run: 40 questions of 10 sources, of which the base solves 10 and the adapter 30."""
    folder.mkdir()
    answers, held_out = [], []
    for at in range(40):
        verdicts = {side: "correct" if at < right else "incorrect" for side, right in (("base", 10), ("adapter", 30))}
        said = {side: {"response": f"{side} {at}", "verdict": verdict} for side, verdict in verdicts.items()}
        answers.append({"id": f"r{at}", "question": f"{at}?", "reference": str(at), **said})
        held_out.append({"id": f"r{at}", "messages": [], "metadata": {"source": "s"}, "cluster": f"c{at % 10}"})
    write_rows(folder / "held_out_answers.jsonl", answers)
    write_rows(folder / "held_out.jsonl", held_out)
    return folder


def test_a_run_alone_compares_its_base_with_its_adapter(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    code, stdout, _ = compare(run, "--json")
    result = json.loads(stdout)
    entry = result["metrics"][0]
    assert code == 0 and (result["a"]["name"], result["b"]["name"]) == (f"{run}:base", f"{run}:adapter")
    assert (entry["a"], entry["b"], entry["n"], entry["clusters"]) == (0.25, 0.75, 40, 10)
    assert json.loads(compare(f"{run}:adapter", f"{run}:base", "--json")[1])["metrics"][0]["difference"] == -0.5
    assert json.loads(compare(run, run, "--json")[1])["metrics"][0]["level"] == 40


def test_the_gate_ends_with_1_unless_b_is_better_or_not_worse(tmp_path: Path) -> None:
    a, same, worse = (
        rows(tmp_path, "a", [True] * 60),
        rows(tmp_path, "same", [True] * 60),
        rows(tmp_path, "worse", [False] * 60),
    )
    assert compare(a, same, "--gate")[0] == 0
    code, stdout, _ = compare(a, worse, "--gate")
    assert code == 1 and "gate: failed. correct is worse." in stdout
    assert compare(a, worse)[0] == 0
    some = rows(tmp_path, "some", [True] * 57 + [False] * 3)
    assert compare(a, some, "--gate")[0] == 1 and compare(a, some, "--gate", "--margin", 0.2)[0] == 0


def test_real_logs_in_all_three_renderings(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, stdout, _ = compare(LOGS / "lm-eval-a", LOGS / "lm-eval-b", "--markdown", "--output", page)
    assert code == 0 and stdout.startswith("### ") and "`exact_match,strict-match`" in stdout and page.is_file()
    code, stdout, _ = compare(LOGS / "lm-eval-a", LOGS / "lm-eval-b", "--metric", "exact_match")
    assert code == 0 and "strict-match" in stdout and "acc" not in stdout.split("\n\n")[0].replace("exact_match", "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("missing-a", "missing-b"), "no such file"),
        ((LOGS / "lm-eval-a",), "two logs, or one run folder"),
        ((LOGS / "lm-eval-a", LOGS / "lm-eval-b", LOGS), "Name two"),
        ((LOGS / "lm-eval-a", LOGS / "lm-eval-b", "--json", "--markdown"), "no --markdown beside it"),
        ((LOGS / "lm-eval-a", LOGS / "lm-eval-b", "--output", "/no/such/folder/page.html"), "--output"),
        ((LOGS / "lm-eval-a", LOGS / "lm-eval-b", "--metric", "f1"), "A has acc"),
        ((LOGS / "lm-eval-a", LOGS / "inspect-b.json"), "Name a pair of them"),
    ],
)
def test_mistakes_end_with_2_and_the_way_on(words: tuple[Any, ...], told: str) -> None:
    code, _, stderr = compare(*words)
    assert code == 2 and told in stderr and "Traceback" not in stderr

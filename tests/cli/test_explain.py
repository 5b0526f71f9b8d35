"""Every error ends with a code, and every code has a section in the docs that says what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import demo_rows, few_general_questions, socratune, write_rows

from socratune.cli import explain
from socratune.cli.explain import TROUBLESHOOTING, code_of, codes_of, sections
from socratune.errors import BusyError, Fault, OutsideError, StageFailed, UserError


def test_every_code_has_a_section_and_every_section_a_code() -> None:
    given = set(re.findall(r'"(S\d{3})"', Path(explain.__file__).read_text("utf-8")))
    assert given == set(sections())
    assert all(len(text.splitlines()) > 2 for text in sections().values())
    linked = set(re.findall(r"\[(S\d{3})\]", TROUBLESHOOTING.read_text("utf-8")))
    assert linked <= given


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError(Fault("enhance.judge_model", "a judge that can decide these rows")), "S203"),
        (UserError(Fault("--judge-model", "OPENAI_API_KEY in the environment, for gpt-4o-mini")), "S204"),
        (UserError(Fault("torch", "the libraries that run and train models")), "S205"),
        (UserError(Fault("rows.jsonl, line 3", 'an object like {"messages": [...]}')), "S201"),
        (UserError(Fault("--report-to", "an installed package wandb", fix="pip install wandb")), "S205"),
        (BusyError(Fault("outputs/a", "a run folder nobody works on")), "S208"),
        (StageFailed("No row was solved, so there is nothing to train on."), "S102"),
        (StageFailed("The GPU ran out of memory, and half a micro-batch did not fit."), "S106"),
        (StageFailed("Something of a kind that nobody foresaw."), "S100"),
        (OutsideError("9 of the first 10 rows failed; the last error was: 429 Too Many Requests"), "S302"),
        (OutsideError("No machine is free with 1 x NVIDIA H200."), "S304"),
        (OutsideError("outputs/a/train.jsonl: cannot be written: No space left on device."), "S303"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_code_of_an_error(error: UserError | StageFailed | OutsideError, code: str) -> None:
    assert codes_of(error) == [code]
    assert code_of("anything", RuntimeError) == "S700"


@pytest.mark.slow
def test_a_command_ends_with_the_codes_of_its_errors_which_explain_explains(tmp_path: Path) -> None:
    bad = write_rows(tmp_path / "bad.jsonl", [{"messages": []}])
    flags = ["--output", tmp_path / "run", "--set", "train.lurning=1", "--judge-model", "python:none.py:judge"]
    done = socratune("run", "--model", tmp_path / "none", "--dataset", bad, *flags)
    last = done.stderr.splitlines()[-1]
    assert last == "Run socratune explain S200 S202 S201 for help.", done.stderr
    shown = socratune(*last.split()[2:-2])
    assert shown.returncode == 0
    assert [line for line in shown.stdout.splitlines() if line.startswith("S2")] == [
        sections()[code].splitlines()[0] for code in ("S200", "S202", "S201")
    ]
    assert socratune("explain", "203").stdout == socratune("explain", "s203").stdout != ""
    unknown = socratune("explain", "S999")
    assert unknown.returncode == 2 and "S999" in unknown.stderr


@pytest.mark.slow
def test_a_failed_verdict_has_a_code(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 80))
    done = socratune(
        "run", "--model", "demo", "--dataset", rows, "--output", tmp_path / "run", "--set", "train.num_train_epochs=1",
        "--set", "enhance.unsolved=reference", *few_general_questions(tmp_path),
    )  # fmt: skip
    assert done.returncode == 1 and "Run socratune explain S101 for help." in done.stdout + done.stderr

"""`socratune chat`: one question, standard input, or a conversation; answers as they are written."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import socratune

from socratune.cli.app import main
from socratune.cli.chatting import Talk, _converse
from socratune.llm.base import Sampling
from socratune.publishing.openai_models import Served, serving_models

QUESTION = "What is 15 * 13?"


@pytest.fixture(scope="module")
def demo() -> Iterator[Served]:
    with serving_models("demo") as (served,):
        yield served


def test_an_answer_is_told_token_by_token_as_it_is_in_the_end(demo: Served) -> None:
    tokens: list[int] = []
    asked = [{"role": "user", "content": QUESTION}]
    answer = asyncio.run(demo.student.generate(asked, Sampling(max_new_tokens=40), tokens.append))
    assert tuple(tokens) == answer.token_ids and len(tokens) > 3


def test_what_is_shown_as_it_is_written_is_the_whole_answer(demo: Served, capsys: pytest.CaptureFixture[str]) -> None:
    talk = Talk([demo], None)
    talk.ask(QUESTION)
    assert capsys.readouterr().out == talk._said[0][-1]["content"] + "\n"


def test_a_conversation_is_remembered_until_it_is_forgotten(
    demo: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter([QUESTION, "", "And 15 * 14?", "/huh", "/new", QUESTION, "/system Be terse.", QUESTION, "/quit", "no"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    seen: list[list[dict[str, str]]] = []
    real = demo.student.generate

    async def generate(messages: Any, *rest: Any) -> Any:
        seen.append([dict(turn) for turn in messages])
        return await real(messages, *rest)

    monkeypatch.setattr(demo.student, "generate", generate)
    _converse(Talk([demo], None))
    roles = [[turn["role"] for turn in messages] for messages in seen]
    assert roles == [["user"], ["user", "assistant", "user"], ["user"], ["system", "user"]]
    assert seen[3][0]["content"] == "Be terse." and next(typed) == "no"
    assert "/system TEXT" in capsys.readouterr().out


def test_the_end_of_the_input_ends_it(demo: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    _converse(Talk([demo], None))


@pytest.mark.slow
def test_a_question_comes_from_standard_input() -> None:
    command = [sys.executable, "-m", "socratune", "chat", "demo"]
    done = subprocess.run(command, input=QUESTION + "\n", capture_output=True, text=True, timeout=120, check=False)
    given = socratune("chat", "demo", QUESTION)
    assert done.returncode == given.returncode == 0, done.stderr + given.stderr
    assert done.stdout == given.stdout and done.stdout.startswith("15 * 13")


@pytest.mark.slow
def test_what_cannot_be_compared_or_was_not_trained_is_said(tmp_path: Path) -> None:
    assert "a run with a base beside its adapter" in socratune("chat", "demo", "Hm?", "--compare").stderr
    (tmp_path / "config.yaml").write_text(f"model: demo\ndataset: demo\noutput: {tmp_path}\n")
    done = socratune("chat", tmp_path, "Hm?")
    assert done.returncode == 2 and "Train it first" in done.stderr


def test_every_command_has_a_short_flag_for_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == 0
    shown = capsys.readouterr().out
    assert "Train and prove:" in shown and "...\n" not in shown.replace("ARGS]...", "") and "More:" not in shown
    for name in ("verify", "chat", "doctor", "export-data", "plan"):
        assert f"  {name} " in shown
        assert main([name, "-h"]) == 0
        assert "-q, --quiet" in (said := capsys.readouterr().out) and "-v, --verbose" in said


@pytest.mark.slow
def test_a_command_says_less_or_more(tmp_path: Path) -> None:
    def said(*more: str) -> str:
        data = [
            "--dataset",
            "demo",
            "--model",
            "demo",
            "--until",
            "split",
            "--output",
            tmp_path / f"run{len(more)}{more}",
        ]
        done = socratune("run", *data, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    usual, less, more = said(), said("-q"), said("--verbose")
    assert "split  " in usual and "DEBUG" not in usual
    assert "split  " not in less and "INFO" not in less and "report:" in less
    assert "split  " in more and "DEBUG" in more


@pytest.mark.slow
def test_what_is_checked_is_there_as_json(copied_run: Path) -> None:
    told = json.loads(socratune("verify", copied_run, "--json").stdout)
    assert told["status"] == "passed" and told["agrees"] and not told["faults"]
    (copied_run / "held_out.jsonl").write_text("")
    done = socratune("verify", copied_run, "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["faults"]
    checked = json.loads(socratune("doctor", "--json").stdout)
    assert {"name", "ok", "text", "mend"} == set(checked["checks"][0]) and isinstance(checked["ready"], bool)

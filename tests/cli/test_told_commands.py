"""What a text tells the user to type: the real parser takes it."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import socratune
from socratune.cli.app import app, main
from socratune.config import BudgetConfig, RunConfig, settings_of
from socratune.llm import Limits, shared_out
from socratune.llm.budget import PARTS
from socratune.llm.ledger import Ledger

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WITH_LIMIT = {
    "generate": [["generate"], ["run"]],
    "enhance": [["run"], ["enhance"], ["train", "RUN"], ["validate", "RUN"], ["demo"]],
    "where": [["run"], ["train", "RUN"], ["validate", "RUN"]],
}
"""The commands that a limit on a part of the budget can stop."""


def parsed(words: list[str]) -> None:
    """Has the real parser read a command line; it raises what the user would see."""
    command = COMMANDS[words[0]]
    with command.make_context(words[0], words[1:]):
        pass


def texts() -> Iterator[tuple[str, str]]:
    """Every text in the package that is no docstring, what is put into an f-string as a word; with its file."""
    for path in sorted(Path(socratune.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                said = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
                yield path.name, "".join(map(str, said))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs | inside:
                yield path.name, node.value


TOLD = re.compile(r"\bsocratune (?P<name>[a-z]+(?:-[a-z]+)*)\b(?P<rest>(?: [^\s.;:`,)(]+)*)")


def told() -> list[tuple[str, str, list[str]]]:
    """File, command and its flags, for every command that a text names."""
    found = []
    for file, text in texts():
        for match in TOLD.finditer(text):
            if match["name"] in COMMANDS:
                flags = re.findall(r"(?<=\s)--[a-z-]+", match["rest"])
                found.append((file, match["name"], flags))
    return found


def options(name: str) -> set[str]:
    """The flags of a command."""
    command = COMMANDS[name]
    with command.make_context(name, [], resilient_parsing=True) as context:
        return {flag for param in command.get_params(context) for flag in (*param.opts, *param.secondary_opts)}


def test_every_command_that_a_text_names_takes_the_flags_behind_it() -> None:
    found = told()
    assert {name for _, name, _ in found} >= {"run", "train", "validate", "verify", "generate", "plan"}
    assert any(flags for _, _, flags in found)
    wrong = [f"{file}: {name} {flag}" for file, name, flags in found for flag in flags if flag not in options(name)]
    assert not wrong


def test_every_limit_that_a_text_names_is_a_flag() -> None:
    named = {flag for _, text in texts() for flag in re.findall(r"--max-[a-z-]+|--budget-usd", text)}
    ours = {name for name in COMMANDS if name != "pods"}
    known = set().union(*(options(name) for name in ours)) | {"--max-model-len", "--max-lora-rank", "--max-num-seqs"}
    assert {"--max-usd", "--budget-usd"} <= named <= known  # the others are vLLM's


@pytest.mark.parametrize("own", [{}, {"generate": 1.0, "enhance": 1.0, "where": 1.0}], ids=["a share", "its own"])
@pytest.mark.parametrize("max_usd", [5.0, None])
@pytest.mark.parametrize("part", list(PARTS))
def test_what_a_stop_by_the_limit_says_can_be_typed(part: str, max_usd: float | None, own: dict[str, float]) -> None:
    budget = shared_out(max_usd, BudgetConfig(**own), list(PARTS))  # type: ignore[arg-type]
    ways = [budget.raised_by(part).replace("USD", "7"), budget.enough_for(part, 7.001)]
    usd = Ledger(Limits(0.0, None, part, budget.raised_by(part)))._over(1.0, 1)
    assert usd and budget.raised_by(part) in usd
    if part != "where":
        tokens = Ledger(Limits(None, 0, part))._over(0.0, 1)
        assert tokens
        ways.append(tokens.rpartition(": ")[2].removesuffix(".").replace("=N", "=7"))
    keys = {setting.key for setting in settings_of(RunConfig)}
    for way in ways:
        words = shlex.split(way)
        for key, value in (word.split("=") for word in words if "=" in word):
            assert key in keys and float(value) >= 7
        for command in WITH_LIMIT[part]:
            parsed([*command, *words])


@pytest.mark.parametrize("max_usd", [0.01, 0.5, 5.0, 123.456])
@pytest.mark.parametrize("own", [{}, {"enhance": 0.004}, {"where": 0.003}, {"where": 0.003, "enhance": 0.001}])
@pytest.mark.parametrize("parts", [["where"], ["enhance", "where"], list(PARTS)])
def test_the_figure_that_is_named_is_enough(max_usd: float, own: dict[str, float], parts: list[str]) -> None:
    said = shlex.split(shared_out(max_usd, BudgetConfig(**own), parts).enough_for("where", 2.345))  # type: ignore[arg-type]
    given = dict(zip(said[::2], said[1::2], strict=True))
    if amount := given.get("--set"):
        own = {**own, "where": float(amount.removeprefix("budget.where="))}
    raised = shared_out(float(given.get("--max-usd", max_usd)), BudgetConfig(**own), parts)  # type: ignore[arg-type]
    share = raised.limit("where", {})
    assert share is not None and 2.345 <= share < 2.345 + 0.02
    assert sum(usd or 0 for usd in raised.shares.values()) <= (raised.max_usd or 0) * (1 + 1e-9)


@pytest.mark.parametrize("what", ["./nowhere", "no/such/run", "nameonly", "a file.jsonl", "-x/y"])
def test_verify_says_what_it_takes(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file.jsonl").touch()
    assert main(["verify", "--", what]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "expected the folder of a run, or ORG/NAME on the Hub, got" in said
    assert "an adapter on the Hub is named as in myusername/my-adapter" in said
    assert not re.search(r"repo.?id|alphanumeric|Traceback", said, re.IGNORECASE)

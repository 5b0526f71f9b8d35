"""Every block of code in the docs runs, or a comment above it says why not; every command in them has flags that exist.

A block that does not run stands below `<!-- not run: REASON -->`. All others run in an empty folder that holds what
`kitchen` puts there. Commands that do not run, and those within sentences, are still parsed by the real command line.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from conftest import demo_rows, socratune, write_rows
from test_docs import DOCS, PAGES, ROOT, parsed
from typer.main import get_command

from socratune.cli.app import app
from socratune.config import DEMO_DATA, RunConfig, settings_of
from socratune.resolve import flatten

REASON = re.compile(r"<!-- not run: (.+?) -->\s*$", re.DOTALL)
GENERATED = (DOCS / "reference" / "cli.md", DOCS / "evidence-laboratory.md", DOCS / "evidence.md")
FREE = re.compile(r"enhance\.endpoints\.|budget\.|train\.peft\.")
"""Settings below these are named by the user."""
NEXT_ROW, NEXT_ITEM = "}\n{", "},\n{"
KEYS = {setting.key for setting in settings_of(RunConfig)}


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str
    reason: str | None
    """Why it does not run."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        if page in GENERATED or page.name == "CONTRIBUTING.md":
            continue
        above = ""
        for token in parsed(page):
            if token.type == "fence":
                reason = REASON.search(above)
                line = (token.map or [0])[0] + 1
                yield Block(page, line, token.info.strip(), token.content, reason and reason[1])
            above = token.content if token.type == "html_block" else ""


BLOCKS = list(blocks())
SHELL = [block for block in BLOCKS if block.language in ("bash", "sh")]
PYTHON = [block for block in BLOCKS if block.language == "python"]


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yields each command of a shell block, and its words without comments and placeholders."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        given = [word for before, word in pairwise(["", *words]) if word != "…" or before.startswith("--")]
        if given:
            yield line, given


def complaint(words: list[str], *, whole: bool) -> str | None:
    """Returns what the real command line has against a command, None if it takes it.

    Args:
        words: of the command, without `socratune`.
        whole: nothing was left out of it, so that what is missing counts, too.
    """
    group = get_command(app)
    command = group.get_command(group.make_context("socratune", ["doctor"]), words[0])  # type: ignore[attr-defined]
    if command is None:
        return "no such command"
    try:
        made = command.make_context(words[0], [word for word in words[1:] if word != "--help"])
    except Exception as error:  # Typer brings Click's exceptions along as its own, or takes Click's, by version
        lacking = type(error).__name__ == "MissingParameter" or "requires an argument" in str(error)
        return str(error) if whole or not lacking else None
    keys = {pair.partition("=")[0] for pair in made.params.get("settings") or () if "=" in pair}
    unknown = [key for key in keys if not FREE.match(key) and key not in KEYS]
    return f"no such setting: {', '.join(unknown)}" if unknown else None


def sentences() -> Iterator[tuple[Path, str, list[str]]]:
    """Yields the commands within sentences and tables."""
    for page in PAGES:
        for code in (code for token in parsed(page) for code in token.children or () if code.type == "code_inline"):
            for line, words in commands(code.content if code.content.startswith("socratune ") else ""):
                if len(words) > 1 and not words[1].startswith("-"):
                    yield page, line, words[1:]


def test_every_command_of_the_docs_is_one_of_ours() -> None:
    wrong = []
    for block in BLOCKS:
        ours = [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip().startswith("socratune ")]
        for line, words in commands("\n".join(ours)):
            if block.language in ("bash", "sh", "yaml") and (said := complaint(words[1:], whole="…" not in line)):
                wrong.append(f"{block}: {line}: {said}")
    for page, line, words in sentences():
        if said := complaint(words, whole=False):
            wrong.append(f"{page.relative_to(ROOT)}: {line}: {said}")
    assert not wrong, "\n".join(wrong)


def test_every_block_runs_or_says_why_not() -> None:
    """A block of a shell that is run holds whole commands of ours and nothing else."""
    others = [
        f"{block}: {line}: write <!-- not run: REASON --> above it"
        for block in SHELL
        for line, words in commands(block.text)
        if block.reason is None and (words[0] != "socratune" or "…" in line)
    ]
    assert not others, "\n".join(others)


def test_settings_of_the_docs_exist() -> None:
    wrong = []
    for block in BLOCKS:
        if block.language == "yaml" and block.reason is None:
            keys = flatten(yaml.safe_load(block.text))
            wrong += [f"{block}: {key}" for key in keys if key not in KEYS and not FREE.match(key)]
        if block.language == "json":
            json.loads(f"[{block.text.replace(NEXT_ROW, NEXT_ITEM)}]")
    assert not wrong, "\n".join(wrong)


def test_other_commands_of_the_docs_exist() -> None:
    """Targets of make, scripts and extras."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    wrong = []
    for block in SHELL:
        for line, words in commands(block.text):
            match words:
                case ["make", *rest]:
                    wrong += [f"{block}: {line}" for word in rest if "=" not in word and word not in targets]
                case ["python", script, *_] if not script.startswith("-"):
                    wrong += [f"{block}: {line}"] * (not (ROOT / script).exists())
            named = re.findall(r"socratune\[([\w,-]+)\]", line)
            wrong += [f"{block}: {line}" for name in ",".join(named).split(",") if name and name not in extras]
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with the files that the docs take for granted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOCRATUNE_CACHE", str(tmp_path / "cache"))
    rows = demo_rows("train", 60)
    for name in ("rows.jsonl", "my_rows.jsonl", "qa_data.jsonl"):
        write_rows(tmp_path / name, rows)
    texts = [[turn["content"] for turn in row["messages"][-2:]] for row in rows]
    (tmp_path / "rows.csv").write_text("\n".join(["question,answer", *(f'"{q}","{a}"' for q, a in texts)]), "utf-8")
    for name, right in (("before", 2), ("after", 3)):
        (tmp_path / name).mkdir()
        write_rows(
            tmp_path / name / "rows.jsonl", [{"id": at, "scores": {"exact_match": at % right > 0}} for at in range(200)]
        )
    (tmp_path / "docs").mkdir()
    shutil.copy(DOCS / "security.md", tmp_path / "docs")
    return tmp_path


def these(blocks: list[Block]) -> list[Any]:
    """Returns the blocks that run; those that start commands or look at a finished run are slow."""
    return [
        pytest.param(block, id=str(block), marks=pytest.mark.slow if needs_run(block) else ())
        for block in blocks
        if block.reason is None
    ]


def needs_run(block: Block) -> bool:
    return block in SHELL or "outputs/" in block.text


@pytest.mark.parametrize("block", these(PYTHON + SHELL))
def test_a_block_runs(block: Block, kitchen: Path, request: pytest.FixtureRequest) -> None:
    if needs_run(block):
        for name in ("RUN", "outputs/demo", "outputs/my_training", "outputs/my-run"):
            shutil.copytree(request.getfixturevalue("finished_run"), kitchen / name)
    text = block.text.replace("Qwen/Qwen2.5-0.5B-Instruct", str(DEMO_DATA / "base"))
    if block.language == "python":
        exec(compile(text, str(block), "exec"), {})
        return
    for _, words in commands(text):
        done = socratune(*words[1:], cwd=kitchen)
        assert done.returncode == 0, done.stdout + done.stderr

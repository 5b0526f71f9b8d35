"""Without the extra `train`: what runs, and that the rest names the line to type. Neither needs a lock of POSIX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

pytestmark = pytest.mark.slow  # a process each

BARE = """
import sys

LEFT_OUT = ("torch", "transformers", "peft", "tensorboard", "tokenizers", "jinja2", "accelerate", "fcntl", "resource")

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in LEFT_OUT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in LEFT_OUT:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Blocked())
from socratune.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code
assert not set(LEFT_OUT) & set(sys.modules)
sys.exit(code)
"""


def bare(*words: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BARE, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--help",), "Train and prove:"),
        (("chat", "--help"), "--compare"),
        (("plan", "--model", "demo", "--json"), '"parameters": 409248'),
        (("init", "--model", "demo", "--dataset", "demo", "--out", "-"), "model: demo"),
    ],
)
def test_what_needs_no_model_runs(words: tuple[str, ...], said: str) -> None:
    done = bare(*words)
    assert done.returncode == 0 and said in done.stdout and "Traceback" not in done.stderr, done.stderr


def test_logs_and_runs_are_read(copied_run: Path, tmp_path: Path) -> None:
    done = bare("compare", copied_run, "--output", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, "") and "B is better" in done.stdout
    assert (tmp_path / "page.html").stat().st_size > 20_000
    page = copied_run / "report.html"
    page.unlink()
    assert bare("report", copied_run).returncode == 0 and page.is_file()
    rows = [{"id": str(at), "correct": True} for at in range(20)]
    log = write_rows(tmp_path / "log.jsonl", rows)
    assert bare("compare", log, log, "--gate").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--model", "demo", "--dataset", "demo", "--output", "NEW"),
        ("demo", "--output", "NEW"),
        ("chat", "demo", "Hello"),
        ("serve", "demo", "--port", "0"),
        ("inspect", "demo", "--model", "demo"),
        ("ablate", "--model", "demo", "--dataset", "demo", "--output", "NEW"),
    ],
)
def test_what_needs_one_names_the_line_to_type(words: tuple[str, ...], tmp_path: Path) -> None:
    done = bare(*(str(tmp_path / "new") if word == "NEW" else word for word in words))
    assert done.returncode == 2 and "Run: pip install 'socratune[train]'" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 2


def test_rented_machines_are_asked_for() -> None:
    done = bare("pods", "list")
    assert done.returncode == 2 and "RUNPOD_API_KEY" in done.stderr and "Traceback" not in done.stderr

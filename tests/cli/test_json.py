"""`--json` where facts are printed: one JSON text, alone on standard output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import socratune

pytestmark = pytest.mark.slow
RUN = ("--model", "demo", "--dataset", "demo", "--output")


def test_rows_are_inspected_as_data() -> None:
    found = json.loads(socratune("inspect", "demo", "--model", "demo", "--rows", "2", "--json").stdout)
    assert (found["rows"], found["faulty"], len(found["shown"])) == (720, 0, 2)
    trained = [part["text"] for part in found["shown"][0]["text"] if part["trained"]]
    assert len(trained) == 1 and trained[0].endswith("<|im_end|>")


@pytest.mark.parametrize("command", ["run", "enhance"])
def test_an_estimate(command: str, tmp_path: Path) -> None:
    done = socratune(command, *RUN, tmp_path / "run", "--estimate", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["estimate"]["pilot_rows"] == 20
    alone = socratune(command, *RUN, tmp_path / "run", "--json")
    assert alone.returncode == 2 and "works only with --estimate" in alone.stderr


def test_a_plan_before_a_run(tmp_path: Path) -> None:
    done = socratune("run", *RUN, tmp_path / "run", "--dry-run", "--json")
    assert json.loads(done.stdout)["parameters"] == 409248 and not (tmp_path / "run").exists()

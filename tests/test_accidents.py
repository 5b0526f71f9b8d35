"""The engine in processes of its own: killed and resumed, and against a server on a bad day (see `benchmarks/`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(script: str, *args: str) -> str:
    """What a benchmark prints; it fails where what it is about does not hold."""
    command = [sys.executable, str(BENCHMARKS / script), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_sigkill_loses_nothing_and_repeats_what_was_in_flight() -> None:
    said = run("crash.py", "--rows", "200", "--concurrency", "16", "--kills", "3", "--seed", "1")
    assert "0 rows lost" in said
    assert "identical to" in said


@pytest.mark.slow
def test_a_storm_leaves_no_row_out_and_invents_no_verdict() -> None:
    said = run("storm.py", "--rows", "200", "--concurrency", "32", "--seed", "1")
    assert all(fault in said for fault in ("429", "500", "hang", "cut", "nonsense"))
    assert "0 rows missing, 0 outcomes not the true one, 0 verdicts invented" in said

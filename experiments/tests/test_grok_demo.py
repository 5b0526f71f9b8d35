"""The small task that groks, or does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_memorises_and_without_decay_does_not_generalise() -> None:
    command = [sys.executable, Path(__file__).parent.parent / "grok_demo.py", "--weight-decay", "0", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["memorised_step"] <= 200
    assert (found["generalised_step"], found["delayed_generalisation"]) == (None, False)

"""Workers of pytest-xdist stop before the first test where they disagree on which tests there are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ALL_IDS

ROOT = Path(__file__).parent.parent


def collected(home: Path, hash_seed: str) -> list[str]:
    """The ids of all tests, as a process of its own finds them."""
    home.mkdir()
    told = {"HOME": str(home), "TMPDIR": str(home), "PYTHONHASHSEED": hash_seed, "TZ": f"UTC{hash_seed}"}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **told}, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.slow
def test_ids_depend_on_neither_time_nor_process_nor_place(tmp_path: Path) -> None:
    later = collected(tmp_path / "one", "1")
    assert len(later) > 1000
    first = ALL_IDS  # of this process, whose hash seed is another one
    if {test.split("::")[0] for test in first} != {test.split("::")[0] for test in later}:  # only some files were asked
        first = collected(tmp_path / "two", "2")
    assert first == later

"""The built wheel holds everything a user needs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_the_embedded_model_and_data(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "socratune"
    shipped = {
        str(path.relative_to(ROOT / "src"))
        for data in ("demo_data", "neutral_data")
        for path in (package / data).rglob("*.*")
    }
    assert {name for name in shipped if "__pycache__" not in name} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("lab_data" in name or "experiments" in name for name in names)
    assert not any(name.startswith(("unsloth", "src")) for name in names)
    assert wheel.stat().st_size < 3_000_000

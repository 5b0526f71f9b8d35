"""Heavy libraries are imported when they are needed, and not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "numpy",
    "aiohttp",
    "datasets",
    "pyarrow",
    "huggingface_hub",
    "rich",
    "tensorboard",
)


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import socratune",
        "from socratune import StudentTeacherConfig, EnhancedTrainingConfig, GrokkingConfig",
        "import socratune.cli.app as app\ntry:\n    app.app(['--help'])\nexcept SystemExit:\n    pass",
    ],
)
def test_light(code: str) -> None:
    assert not modules_after(code) & set(HEAVY)


def test_public_names_are_there() -> None:
    import socratune

    assert socratune.__all__ == sorted(socratune.__all__)
    for name in socratune.__all__:
        assert getattr(socratune, name) is not None
    assert not hasattr(socratune, "no_such_name")

"""Heavy libraries are imported when they are needed, and not before."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

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


FACES = ("judging", "runs", "llm", "inference", "data", "teaching", "documents", "training", "evaluation", "publishing",
         "stages", "compute", "ways")  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "import socratune",
        "\n".join(f"import socratune.{package}" for package in FACES),  # a face loads nothing until a name is used
        "from socratune import StudentTeacherConfig, EnhancedTrainingConfig, GrokkingConfig",
        "import socratune.cli.app as app\ntry:\n    app.app(['--help'])\nexcept SystemExit:\n    pass",
    ],
)
def test_light(code: str) -> None:
    assert not modules_after(code) & set(HEAVY)


def test_a_command_that_asks_no_model_loads_none() -> None:
    assert not modules_after("import socratune.cli.commands") & {"torch", "transformers", "peft", "datasets"}


def test_public_names_are_there() -> None:
    import socratune

    assert socratune.__all__ == sorted(socratune.__all__)
    for name in socratune.__all__:
        assert getattr(socratune, name) is not None
    assert not hasattr(socratune, "no_such_name")


def test_the_loading_line_of_published_cards_works() -> None:
    """Cards of the first version import `socratune.modelref`; new ones import from `socratune`."""
    import socratune

    model_location = import_module("socratune.modelref").model_location
    assert socratune.model_location is model_location and model_location("demo").endswith("base")

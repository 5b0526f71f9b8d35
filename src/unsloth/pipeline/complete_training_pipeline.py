"""The guide's command, `python -m src.unsloth.pipeline.complete_training_pipeline`, run by `socratune run`.

The guide's teacher and judge are asked unless the command names others. `--config`, `--env` and `--local-only` decide
who teaches and judges, so nobody is added to them.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from socratune.cli import main

GUIDE_MODELS = {"teacher": ("anthropic/max", "ANTHROPIC_API_KEY"), "judge": ("gpt-4o-mini", "OPENAI_API_KEY")}
"""(model, variable of its key) by role."""


def run(words: Sequence[str]) -> int:
    """Runs the pipeline with the flags of `socratune run` and returns its exit code."""
    roles = _unnamed(words)
    added = [word for role in roles for word in (f"--{role}-model", GUIDE_MODELS[role][0])]
    print(f"Modern form: {shlex.join(['socratune', 'run', *words, *added])}", file=sys.stderr)
    with _curves_linked(words):
        code = main(["run", *words, *added])
    missing = [GUIDE_MODELS[role][1] for role in roles if not os.environ.get(GUIDE_MODELS[role][1])]
    if missing and code == 2:
        print(_local_form(words, roles, missing), file=sys.stderr)
    return code


def _unnamed(words: Sequence[str]) -> list[str]:
    """Returns the roles for which the command names no model."""
    flags = {word.partition("=")[0] for word in words}
    if flags & {"--config", "--env", "--local-only", "--help", "-h"}:
        return []
    settings = " ".join(words)
    return [role for role in GUIDE_MODELS if f"--{role}-model" not in flags and f"enhance.{role}_model" not in settings]


def _local_form(words: Sequence[str], roles: Sequence[str], missing: Sequence[str]) -> str:
    own = [word for role in roles for word in (f"--{role}-model", "ollama/NAME")]
    command = ["socratune", "run", *words]
    return (
        f"The guide's {' and '.join(roles)} need {' and '.join(missing)}. Export what is missing, or ask models on "
        f"this machine (docs/guides/models.md has the other ways):\n"
        f"  {shlex.join([*command, *own])}\n"
        f"or let rules judge and nobody teach, which suits numbers, choices and formulas:\n  {shlex.join(command)}"
    )


@contextmanager
def _curves_linked(words: Sequence[str]) -> Iterator[None]:
    """Links the run's curves into `tensorboard` beside the run folder, where the guide looks for them.

    The link is made before the training, so that the curves can be watched. A command that was refused leaves no link.
    """
    output = next((Path(value) for value in _values(words, "--output") if value), Path())
    link = output.parent / "tensorboard" / output.name
    if output.name in ("", "tensorboard") or os.path.lexists(link):
        yield
        return
    new = [link, *(folder for folder in link.parents if not folder.exists())]
    with suppress(OSError):  # the run itself reports a folder that cannot be written
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path("..", output.name, "tensorboard"))
    try:
        yield
    finally:
        if not output.exists():
            with suppress(OSError):
                link.unlink()
                for folder in new[1:]:
                    folder.rmdir()


def _values(words: Sequence[str], flag: str) -> Iterator[str]:
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == flag:
            yield value if equals else next(iter(words[at + 1 :]), "")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))

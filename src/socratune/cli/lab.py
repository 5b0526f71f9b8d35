"""`socratune demo --lab`: the pipeline on the laboratory's base, and on a data set that nobody can learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from socratune import lab
from socratune.cli import commands
from socratune.cli.console import guarded
from socratune.rundir import Results, RunDir

HOPELESS_ROWS = (120, 120)
"""Trained on, held out."""


def demo(
    base: str | None, given: dict[str, Any], settings: list[str] | None, *, until: str | None, restart: str | None
) -> int:
    """Both runs; 0 where the first one passes and the gate refuses the second one for what it is.

    Args:
        base: the folder of the laboratory's base, if not where `lab.base_folder` looks.
        given: flags by dotted key, `output` among them.
        until: the last stage of the first run; the second one is then not begun.
    """
    found: list[Path] = []
    if code := guarded(lambda: found.append(lab.base_folder(base)) or 0):
        return code
    output = Path(given["output"])
    first = lab.settings(found[0], output) | given
    code = commands.run(first, None, settings, start=None, until=until, restart=restart)
    if code or until:
        return code
    print("\nThe same with the answers dealt anew among the questions, which the gate must refuse:", flush=True)
    data, planted = output / "hopeless" / "data", output / "hopeless" / "run"
    lab.plant_hopeless(data, train=HOPELESS_ROWS[0], held_out=HOPELESS_ROWS[1], seed=given.get("seed", 0))
    second = lab.settings(found[0], planted, data=data) | given | {"output": str(planted)}
    code = commands.run(second, None, settings, start=None, until=None, restart=restart)
    if code not in (0, 1):
        return code
    refused = lab.refused_for_no_gain(Results(RunDir(planted)).data)
    print("Refused, as it has to be." if refused else "It was NOT refused for want of a gain.")
    return 0 if refused else 1

"""`socratune ui`: which run folder, which port, and the server until Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from socratune.errors import Fault, Shown, UserError
from socratune.rundir import RunDir, existing_run
from socratune.webserver import address, listening, serve_until_stopped

OUTPUTS = Path("outputs")


def newest_run(folder: Path = OUTPUTS) -> RunDir:
    """The run folder in `folder` that was worked on last.

    Raises:
        UserError: there is none.
    """
    found = [path.parent for path in folder.glob("*/config.yaml")]
    if not found:
        got = Shown(f"no run folder in {folder}/")
        raise UserError(Fault("socratune ui", "the folder of a run", got, "Name one: socratune ui RUN."))
    return max(
        map(RunDir, found), key=lambda run: (run.results if run.results.exists() else run.config).stat().st_mtime
    )


def serve(folder: str | None, port: int, say: Callable[[str], None]) -> None:
    """Serve the pages of a run on 127.0.0.1 until Ctrl-C; port 0 takes a free one.

    Raises:
        UserError: no such run, or the port is taken.
    """
    from socratune.ui.app import app

    run = existing_run(folder) if folder is not None else newest_run()
    place = listening("127.0.0.1", port)
    say(f"{run.root}: {address(place)}/  (Ctrl-C ends it)")
    serve_until_stopped(app(run), place)

"""`socratune ui`: which run folder, which port, and the server until Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from socratune.errors import Fault, Shown, UserError
from socratune.preflight import existing_run
from socratune.rundir import RunDir

OUTPUTS = Path("outputs")
INSTALL = "pip install 'socratune[ui]'"


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
        UserError: no such run, the port is taken, or the extra is not installed.
    """
    run = existing_run(folder) if folder is not None else newest_run()
    try:
        import uvicorn

        from socratune.ui.app import app
    except ImportError as error:
        raise UserError(
            Fault("socratune ui", "starlette and uvicorn", Shown(str(error)), f"Install them: {INSTALL}.")
        ) from None
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        fix = "Take another, or 0 for a free one."
        raise UserError(Fault(f"--port {port}", "a free port", Shown(str(error)), fix)) from None
    say(f"{run.root}: http://127.0.0.1:{listening.getsockname()[1]}/  (Ctrl-C ends it)")
    config = uvicorn.Config(
        app(run), log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listening])

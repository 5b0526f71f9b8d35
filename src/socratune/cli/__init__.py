"""The command line: parse, call one public function, print."""

import os
import signal
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    Its libraries take seconds to load. A signal that comes meanwhile ends with 130 as any later one does, at once:
    nothing has begun.
    """
    for kind in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(kind) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(kind, _stop)
    from socratune.cli.app import main as commands

    return commands(argv)


def _stop(signum: int, frame: object) -> None:
    os.write(2, b"Interrupted. The same command goes on from here.\n")
    os._exit(130)

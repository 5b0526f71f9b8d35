"""The command line: parse, call one public function, print."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code. While the libraries are loaded, an interrupt ends it with 130, too."""
    for kind in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(kind) in (signal.SIG_DFL, signal.default_int_handler):  # a background job ignores SIGINT
            signal.signal(kind, _end)
    from socratune.cli.app import main as whole

    return whole(argv)


def _end(signum: int, frame: object) -> None:
    """Nothing has begun, so nothing is left behind; from here on `console.guarded` takes the signals over."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"Interrupted before anything began.\n")
    os._exit(130)

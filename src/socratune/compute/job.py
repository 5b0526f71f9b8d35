"""Work on a rented machine that continues without us: started once, followed, and asked how it ended."""

from __future__ import annotations

import json
import logging
import selectors
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from socratune.compute.ssh import LOST, RemoteFailed, Ssh, is_full
from socratune.errors import Fault, OutsideError, Shown, StageFailed, UserError

log = logging.getLogger(__name__)

TURN_S = 1.0
LONGEST_LINE = 1 << 16
"""Most bytes of an unfinished line. Only the newest state of a progress bar is kept."""


@dataclass(frozen=True, slots=True)
class JobPlace:
    """Our folder `base` on a machine."""

    ssh: Ssh
    base: str

    def helper(self, command: str, *args: str, stdin: str = "") -> str:
        """Runs a command of `onpod.py` there and returns its output."""
        return self.ssh.run(self.argv(command, *args), stdin=stdin)

    def argv(self, command: str, *args: str) -> list[str]:
        """Returns the command line of a command of `onpod.py` there."""
        return ["python3", f"{self.base}/onpod.py", self.base, command, *args]


def start_job(place: JobPlace, name: str, argv: Sequence[str], env: dict[str, str] | None = None) -> None:
    """Starts a job. One of that name that is running already is left alone.

    Args:
        env: added to the environment there; it travels over the connection, not on a command line.
    """
    place.helper("start", name, stdin=json.dumps({"argv": [*argv], "env": env or {}}))


def stop_job(place: JobPlace, name: str) -> None:
    """Ends a job and what it has started, if one runs."""
    place.helper("stop", name)


def attend_job(
    place: JobPlace, name: str, copy: Path, *, hear: Callable[[str], None], meanwhile: Callable[[], None]
) -> int | None:
    """Follows a job until it ends and returns its exit code; None if it ended without one (the machine was restarted).

    Args:
        copy: the job's log here; what it contains already is not reported again.
        hear: gets the log's lines as they arrive.
        meanwhile: called at least every second.

    Raises:
        ConnectionLost: the machine cannot be reached any more.
        RemoteFailed: there is no such job.
    """
    unread = bytearray()
    while True:
        code = _stream(place, name, copy, unread, hear, meanwhile)
        state: dict[str, Any] = json.loads(place.helper("status", name))
        if code == 0:
            return state["exit_code"]
        if code != LOST and code >= 0:
            raise RemoteFailed(f"The log of {name} cannot be read (exit code {code}).", code)
        log.info("The connection was cut. Following the job again.")


def raise_as_there(name: str, code: int | None, text: str) -> NoReturn:
    """Raises the error with which a job ended that did not end well, with the end of its log in `text`."""
    if code == StageFailed.exit_code:
        raise StageFailed(text)
    if code == UserError.exit_code:
        raise UserError(Fault(f"{name} on the rented machine", f"a {name} job that can begin", Shown(text)))
    killed = code is None or code < 0
    how = "it was killed; the machine's memory may be too small" if killed else f"exit code {code}"
    fix = " Raise where.disk_gb." if is_full(text) else ""
    raise OutsideError(f"The {name} job on the rented machine did not end well ({how}).{fix}\n{text}")


def _stream(
    place: JobPlace,
    name: str,
    copy: Path,
    unread: bytearray,
    hear: Callable[[str], None],
    meanwhile: Callable[[], None],
) -> int:
    """Follows the log for one connection and returns the exit code of ssh."""
    offset = copy.stat().st_size if copy.exists() else 0
    command = place.ssh.remote(place.argv("follow", name, str(offset)))
    with (
        subprocess.Popen(
            command, bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as ssh,
        copy.open("ab", buffering=0) as kept,
        selectors.DefaultSelector() as ready,
    ):
        assert ssh.stdout is not None
        ready.register(ssh.stdout, selectors.EVENT_READ)
        try:
            while True:
                if ready.select(TURN_S):
                    block = ssh.stdout.read(1 << 16)
                    if not block:
                        return ssh.wait()
                    kept.write(block)
                    unread += block
                    for line in take_lines(unread):
                        hear(line)
                meanwhile()
        finally:
            ssh.kill()


def take_lines(unread: bytearray) -> list[str]:
    """Removes the complete lines from the beginning of a buffer and returns them, each in its last state if a progress
    bar has overwritten it.
    """
    *whole, rest = bytes(unread).split(b"\n")
    if len(rest) > LONGEST_LINE:
        rest = rest[rest.rstrip(b"\r").rfind(b"\r") + 1 :][-LONGEST_LINE:]
    unread[:] = rest
    return [line.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode("utf-8", "replace") for line in whole]

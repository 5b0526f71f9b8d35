"""Work on a rented machine that goes on without us: begun once, listened to, asked how it ended."""

from __future__ import annotations

import json
import logging
import selectors
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratune.compute.ssh import LOST, RemoteFailed, Ssh

log = logging.getLogger(__name__)

TURN_S = 1.0
LONGEST_LINE = 1 << 16
"""Bytes of a line that does not end: of a progress bar only the newest state is kept."""


@dataclass(frozen=True, slots=True)
class JobPlace:
    """Where we are on a machine: `base` is our folder there."""

    ssh: Ssh
    base: str

    def helper(self, command: str, *args: str, given: str = "") -> str:
        """What a command of `onpod.py` says."""
        return self.ssh.run(self.argv(command, *args), given=given)

    def argv(self, command: str, *args: str) -> list[str]:
        """A command of `onpod.py`, to be run there."""
        return ["python3", f"{self.base}/onpod.py", self.base, command, *args]


def start_job(place: JobPlace, name: str, argv: Sequence[str], env: dict[str, str] | None = None) -> None:
    """Begin a job; where one of that name runs, it is left running.

    Args:
        env: added to the environment there; it goes by the connection, not by a command line.
    """
    place.helper("start", name, given=json.dumps({"argv": [*argv], "env": env or {}}))


def stop_job(place: JobPlace, name: str) -> None:
    """End a job and what it has started; nothing where none runs."""
    place.helper("stop", name)


def attend_job(
    place: JobPlace, name: str, copy: Path, *, hear: Callable[[str], None], meanwhile: Callable[[], None]
) -> int | None:
    """Listen to a job until it ends; its exit code, None where it ended without one (the machine was restarted).

    Args:
        copy: the job's log here: what it has already is not heard again.
        hear: gets the log's lines as they come.
        meanwhile: called at least every second.

    Raises:
        ConnectionLost: the machine cannot be reached any more.
        RemoteFailed: there is no such job.
    """
    heard = bytearray()
    while True:
        code = _stream(place, name, copy, heard, hear, meanwhile)
        state: dict[str, Any] = json.loads(place.helper("status", name))
        if code == 0:
            return state["exit_code"]
        if code != LOST and code >= 0:
            raise RemoteFailed(f"The log of {name} cannot be read (exit code {code}).", code)
        log.info("The connection was cut; listening again.")


def _stream(
    place: JobPlace,
    name: str,
    copy: Path,
    heard: bytearray,
    hear: Callable[[str], None],
    meanwhile: Callable[[], None],
) -> int:
    """One connection's worth of the log; the exit code of ssh."""
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
                    heard += block
                    for line in take_lines(heard):
                        hear(line)
                meanwhile()
        finally:
            ssh.kill()


def take_lines(heard: bytearray) -> list[str]:
    """The whole lines at the beginning of what was heard, taken out of it.

    Of a line that a progress bar has written over and over, only what stands there at last.
    """
    *whole, rest = bytes(heard).split(b"\n")
    if len(rest) > LONGEST_LINE:
        rest = rest[rest.rstrip(b"\r").rfind(b"\r") + 1 :][-LONGEST_LINE:]
    heard[:] = rest
    return [line.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode("utf-8", "replace") for line in whole]

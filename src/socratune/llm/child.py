"""Runs a child process with its own children and ends them all, whatever happens to this process.

    this process ──pipe──> keeper ──> command ──> its processes
                                      └── one process group ──┘

The keeper is a second Python that waits for the pipe to close, which it does when this process goes on, is interrupted
or is killed; then it ends the whole group. A signal bound to the parent's death would reach the first process only.
"""

from __future__ import annotations

import http.client
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL_S = 0.2
LOG_LINES = 15
"""Lines of a child's log that are shown if it fails."""
LINE_CHARACTERS = 400
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NAMED_ERROR = re.compile(r"(?:^|[\s.\])])[A-Z]\w*(?:Error|Exception|Exit|Interrupt)(?::|$)|out of memory|: error:")
"""Matches `torch.OutOfMemoryError: CUDA out of memory` and `vllm serve: error: unrecognized arguments`."""
_ERROR = re.compile(rf"(?<!\w)(?:ERROR|FATAL|CRITICAL)(?!\w)|{_NAMED_ERROR.pattern}")


@contextmanager
def child_process(
    command: list[str], environment: Mapping[str, str], log_path: Path, stop_timeout_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Yields the keeper of a command, which ends with the block. Its exit code is the command's.

    Args:
        log_path: the command's output; an earlier one is replaced.
        stop_timeout_s: between asking it to end and ending it.
    """
    with log_path.open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-P", "-m", "socratune.llm.child", str(stop_timeout_s), *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is this process's to handle
            env=environment,
        )
    assert keeper.stdin is not None
    try:
        yield keeper
    finally:
        keeper.stdin.close()
        keeper.wait()


def end_of_log(log_path: Path) -> str:
    """Returns the first errors and the last lines of a log, for an error message."""
    return f"{log_path} {told_by_log(log_path.read_text('utf-8', 'replace'))}"


def told_by_log(text: str) -> str:
    """Returns `begins to fail with: …` and `ends: …` of a log. The first error stands far above the end: a worker dies,
    and the server that waits for it reports that at length.
    """
    lines = _COLOUR.sub("", text).strip().splitlines()
    if not lines:
        return "is empty."
    last = lines[-LOG_LINES:]
    errors = [line for line in lines[:-LOG_LINES] if _ERROR.search(line)]
    named = [line for line in errors if _NAMED_ERROR.search(line)]
    first = list(dict.fromkeys(line[:LINE_CHARACTERS] for line in (*errors[:1], *named[:1])))
    report = ["begins to fail with:", *first, "… and ends:"] if first else ["ends:"]
    return "\n".join([*report, *(line[:LINE_CHARACTERS] for line in last)])


def _keep(stop_timeout_s: float, command: list[str]) -> int:
    """Runs a command in its own process group until it or standard input ends, and returns its exit code.

    Nothing of the group is left when this returns.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)  # the run gets one too, and then lets go of the pipe
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    while child.poll() is None and not select.select([sys.stdin], [], [], _POLL_S)[0]:
        pass
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(stop_timeout_s)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    code = child.wait()
    return code if code >= 0 else 128 - code  # as a shell has it for one that a signal ended


# --- servers on this machine ---------------------------------------------------------------------------------------


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens at now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_well(port: int) -> bool:
    """Returns True if a server at a port of 127.0.0.1 answers well at `/health`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)  # heeds no proxy
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(_keep(float(sys.argv[1]), sys.argv[2:]))

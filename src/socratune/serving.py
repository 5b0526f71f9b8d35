"""vLLM as a child process: started for a run's student, asked, and stopped whatever becomes of the run.

    this process ──pipe──> keeper ──> vllm serve ──> its engine processes
                                      └──── one process group ────┘

The keeper is a second Python that waits for the pipe to close, which it does when the run ends, is interrupted or is
killed; then it ends the whole group. A signal bound to the parent's death would reach vLLM's first process only, and
its engine processes survive that one's death and keep the GPU's memory (vllm-project/vllm#55510).
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from socratune.errors import Fault, OutsideError, Shown
from socratune.modelref import model_location

START_TIMEOUT_S = 1800.0
"""Downloading and loading the weights, compiling, capturing CUDA graphs: minutes, and more over a slow line."""

STOP_TIMEOUT_S = 15.0
NOTICE_S = 5.0
POLL_S = 0.2
LOG_LINES = 15
"""Of vLLM's log, shown where it fails."""


def vllm_command() -> list[str] | None:
    """How vLLM is called: by the `vllm` on the path, else as a module of this Python; None where there is none."""
    if found := shutil.which("vllm"):
        return [found]
    spec = importlib.util.find_spec("vllm")
    if spec is not None and spec.origin is not None:  # a mere folder of that name has no origin
        return [sys.executable, "-m", "vllm.entrypoints.cli.main"]
    return None


def vllm_fault(where: str = "enhance.student_engine") -> Fault | None:
    """Why no vLLM can be started here, or None."""
    if vllm_command() is not None:
        return None
    fix = "Run: pip install vllm (an environment of its own will do if its bin folder is on PATH)."
    return Fault(where, "vLLM on this machine", Shown("no vllm on PATH"), fix)


@asynccontextmanager
async def vllm_serving(
    model: str,
    *,
    log_path: Path,
    max_model_len: int | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
    stop_timeout_s: float = STOP_TIMEOUT_S,
) -> AsyncIterator[str]:
    """The API base of a vLLM that serves `model` under its own name, until the block ends.

    The server's own defaults for sampling are off: what a request leaves out is neutral, as `HttpModel` means it.

    Args:
        model: folder, Hub id or `demo`.
        log_path: vLLM's output; an earlier one is replaced.
        max_model_len: in tokens, prompt and answer; None: what fits into the GPU's memory.
        start_timeout_s: until it must be ready.
        stop_timeout_s: between asking it to end and ending it.

    Raises:
        OutsideError: it ended by itself, or was not ready in time; with the end of its log.
    """
    command = vllm_command()
    assert command is not None, "preflight has asked vllm_fault"
    port = _free_port()
    command += ["serve", model_location(model), "--served-model-name", model, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--generation-config", "vllm", "--max-model-len", str(max_model_len or "auto")]
    keeper = _start_keeper(command, log_path, stop_timeout_s)
    assert keeper.stdin is not None
    try:
        await _ready(keeper, port, log_path, start_timeout_s)
        try:
            yield f"http://127.0.0.1:{port}/v1"
        except OutsideError as error:
            if _is_well(port) or not _has_ended(keeper):
                raise
            raise _ended_by_itself(keeper, log_path) from error
    finally:
        keeper.stdin.close()
        keeper.wait()


def _start_keeper(command: list[str], log_path: Path, stop_timeout_s: float) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1"}
    environment.pop("VLLM_API_KEY", None)  # the server would ask us for it
    with log_path.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "socratune.serving", str(stop_timeout_s), *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is the run's to handle
            env=environment,
        )


async def _ready(keeper: subprocess.Popen[bytes], port: int, log_path: Path, timeout_s: float) -> None:
    """Wait until the server says it is well."""
    deadline = time.monotonic() + timeout_s
    while not await asyncio.to_thread(_is_well, port):
        if keeper.poll() is not None:
            raise _ended_by_itself(keeper, log_path)
        if time.monotonic() > deadline:
            raise OutsideError(f"vLLM was not ready within {timeout_s:g} s. {_end_of(log_path)}")
        await asyncio.sleep(POLL_S)


def _is_well(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)  # heeds no proxy
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _has_ended(keeper: subprocess.Popen[bytes]) -> bool:
    """Whether vLLM is gone. The keeper sees it a little later than the run, and then ends what vLLM has left."""
    with suppress(subprocess.TimeoutExpired):
        keeper.wait(NOTICE_S)
    return keeper.poll() is not None


def _ended_by_itself(keeper: subprocess.Popen[bytes], log_path: Path) -> OutsideError:
    return OutsideError(f"vLLM ended by itself (code {keeper.returncode}). {_end_of(log_path)}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _end_of(log_path: Path) -> str:
    lines = log_path.read_text("utf-8", "replace").strip().splitlines()[-LOG_LINES:]
    return "\n".join([f"{log_path} ends:" if lines else f"{log_path} is empty.", *lines])


def _keep(stop_timeout_s: float, command: list[str]) -> int:
    """Run a command in a process group of its own until it ends or standard input does; its exit code.

    Nothing of the group is left when this returns.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)  # the run gets one too, and then lets go of the pipe
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    while server.poll() is None and not select.select([sys.stdin], [], [], POLL_S)[0]:
        pass
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        server.wait(stop_timeout_s)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    return server.wait()


if __name__ == "__main__":
    code = _keep(float(sys.argv[1]), sys.argv[2:])
    sys.exit(code if code >= 0 else 128 - code)

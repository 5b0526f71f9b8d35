"""Runs vLLM as a child process for a run's student and stops it, whatever happens to the run.

A keeper ends it with its engine processes; these survive its own death and would keep the GPU's memory
(vllm-project/vllm#55510).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from socratune.errors import Fault, OutsideError, Shown
from socratune.llm.child import child_process, end_of_log, free_port, is_well
from socratune.llm.locate import model_location
from socratune.resolve import given_template

_START_TIMEOUT_S = 1800.0
"""Downloading and loading the weights, compiling, capturing CUDA graphs: minutes, and more over a slow line."""

_STOP_TIMEOUT_S = 15.0
NOTICE_S = 5.0
_POLL_S = 0.2
VLLM_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1"}


def vllm_command() -> list[str] | None:
    """Returns how to call vLLM: the `vllm` on the path, otherwise a module of this Python, otherwise None."""
    if command := shutil.which("vllm"):
        return [command]
    spec = importlib.util.find_spec("vllm")
    if spec is not None and spec.origin is not None:  # a mere folder of that name has no origin
        return [sys.executable, "-m", "vllm.entrypoints.cli.main"]
    return None


def vllm_fault(where: str = "enhance.student_engine") -> Fault | None:
    """Returns why no vLLM can be started here, or None."""
    if vllm_command() is not None:
        return None
    fix = "Run: pip install vllm (an environment of its own will do if its bin folder is on PATH)."
    return Fault(where, "vLLM on this machine", Shown("no vllm on PATH"), fix)


OURS = ("--host", "--port", "--served-model-name", "--generation-config", "--api-key", "--uds")
"""Arguments that decide how the server is reached and what its answers mean."""


def vllm_args_fault(given: Sequence[str | float], where: str = "enhance.vllm_args") -> Fault | None:
    """Returns why these cannot be further arguments of a server that is started here, or None."""
    words = [str(word) for word in given]
    if words and not words[0].startswith("-"):
        return Fault(where, "options of vllm serve; the model is given as --model", words[0])
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name in OURS or (name.startswith("--") and len(name) > 3 and any(flag.startswith(name) for flag in OURS)):
            return Fault(where, f"options besides {', '.join(OURS)}, which are chosen for you", word)
    return None


def vllm_arguments(
    location: str, name: str, port: int, more: Sequence[str | float] = (), *, max_model_len: int | None = None
) -> list[str]:
    """Returns the arguments of vLLM's command.

    The server's own defaults for sampling are off: what a request leaves out is neutral, as `HttpModel` means it.

    Args:
        name: under which the model at `location` is asked.
        more: further arguments; of one that comes twice vLLM takes the last.
        max_model_len: in tokens, prompt and answer; None: what fits into the GPU's memory.
    """
    place = ["--host", "127.0.0.1", "--port", str(port)]
    return [
        "serve", location, "--served-model-name", name, *place, "--generation-config", "vllm",
        "--max-model-len", str(max_model_len or "auto"), *map(str, more),
    ]  # fmt: skip


@asynccontextmanager
async def vllm_serving(
    model: str,
    *,
    log_path: Path,
    more: Sequence[str | float] = (),
    max_model_len: int | None = None,
    start_timeout_s: float = _START_TIMEOUT_S,
    stop_timeout_s: float = _STOP_TIMEOUT_S,
) -> AsyncIterator[str]:
    """Yields the API base of a vLLM that serves `model` under its own name, until the block ends.

    Args:
        model: folder, Hub id or `demo`.
        log_path: vLLM's output; an earlier one is replaced.
        more: further arguments of `vllm serve`.
        max_model_len: in tokens, prompt and answer; None: what fits into the GPU's memory.
        start_timeout_s: until it must be ready.
        stop_timeout_s: between asking it to end and ending it.

    Raises:
        OutsideError: it ended by itself, or was not ready in time; with the end of its log.
    """
    command = vllm_command()
    assert command is not None, "preflight has asked vllm_fault"
    port = free_port()
    command += vllm_arguments(model_location(model), model, port, more, max_model_len=max_model_len)
    if (template := given_template(model)) is not None:
        file = log_path.with_name("vllm.jinja")
        file.write_text(template, "utf-8")
        command += ["--chat-template", str(file)]
    environment = {**os.environ, **VLLM_ENVIRONMENT}
    environment.pop("VLLM_API_KEY", None)  # the server would ask us for it
    with child_process(command, environment, log_path, stop_timeout_s) as keeper:
        await _ready(keeper, port, log_path, start_timeout_s)
        try:
            yield f"http://127.0.0.1:{port}/v1"
        except OutsideError as error:
            if is_well(port) or not _has_ended(keeper):
                raise
            raise _ended_by_itself(keeper, log_path) from error


async def _ready(keeper: subprocess.Popen[bytes], port: int, log_path: Path, timeout_s: float) -> None:
    """Waits until the server reports that it is well."""
    deadline = time.monotonic() + timeout_s
    while not await asyncio.to_thread(is_well, port):
        if keeper.poll() is not None:
            raise _ended_by_itself(keeper, log_path)
        if time.monotonic() > deadline:
            raise OutsideError(f"vLLM was not ready within {timeout_s:g} s. {end_of_log(log_path)}")
        await asyncio.sleep(_POLL_S)


def _has_ended(keeper: subprocess.Popen[bytes]) -> bool:
    """Returns True if vLLM has ended. The keeper notices a little later and then ends vLLM's remaining children."""
    with suppress(subprocess.TimeoutExpired):
        keeper.wait(NOTICE_S)
    return keeper.poll() is not None


def _ended_by_itself(keeper: subprocess.Popen[bytes], log_path: Path) -> OutsideError:
    return OutsideError(f"vLLM ended by itself (code {keeper.returncode}). {end_of_log(log_path)}")

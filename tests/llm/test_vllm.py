"""vLLM as a child process, with a stub in its place (`vllm_stub.py`).

This shows that what is started is asked and ends, whatever happens. It cannot show that vLLM itself serves a model so.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from vllm_stub import Stub, alive

from socratune.config import DEMO_DATA
from socratune.errors import OutsideError
from socratune.llm.base import Completion, Sampling
from socratune.llm.http import HttpModel
from socratune.llm.vllm import vllm_fault, vllm_serving

RUN = """
import asyncio, pathlib, sys
from socratune.llm.vllm import vllm_serving
async def run():
    async with vllm_serving("demo", log_path=pathlib.Path(sys.argv[1])):
        print("ready", flush=True)
        await asyncio.sleep(600)
asyncio.run(run())
"""

pytestmark = pytest.mark.slow  # each starts and ends processes


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    found = Stub(tmp_path)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found


def serve_and_ask(stub: Stub, **options: Any) -> Completion:
    async def run() -> Completion:
        async with vllm_serving("demo", log_path=stub.log, **options) as base:
            assert all(alive(pid) for pid in stub.seen["pids"])
            model = HttpModel(kind="openai", model="demo", api_bases=[base], api_key=None, max_retries=1)
            try:
                return await model.generate([{"role": "user", "content": "2 * 3?"}], Sampling())
            finally:
                await model.close()

    return asyncio.run(run())


def test_it_is_started_asked_and_stopped_with_its_engine(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    assert serve_and_ask(stub).text == "2 * 3 = 6."
    assert stub.gone()
    flags = stub.seen["flags"]
    assert (flags["model_tag"], flags["served_model_name"]) == (str(DEMO_DATA / "base"), ["demo"])
    assert (flags["host"], flags["generation_config"], flags["max_model_len"]) == ("127.0.0.1", "vllm", "auto")
    assert stub.seen["asked"]["model"] == "demo"
    assert stub.seen["stats"] == "1" and stub.seen["key"] is None
    assert "loading weights" in stub.log.read_text()


def test_it_gets_the_users_arguments_too(stub: Stub) -> None:
    serve_and_ask(stub, more=["--tensor-parallel-size", 2, "--enforce-eager", "--max-model-len", 4096])
    assert stub.seen["argv"][-4:] == ["2", "--enforce-eager", "--max-model-len", "4096"]
    assert stub.seen["flags"]["max_model_len"] == "4096"


def test_a_server_that_does_not_want_to_end_is_ended(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_MOOD", "stubborn")
    serve_and_ask(stub, stop_timeout_s=0.2)
    assert stub.gone()


def test_a_crash_at_the_start_says_what_the_log_says(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_MOOD", "crash")
    with pytest.raises(OutsideError, match=r"code 1[^$]*the KV cache does not fit"):
        serve_and_ask(stub)
    assert stub.gone()


def test_a_server_that_is_never_ready_is_given_up(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_MOOD", "slow")
    with pytest.raises(OutsideError, match="not ready within 1 s"):
        serve_and_ask(stub, start_timeout_s=1)
    assert stub.gone()


def test_a_server_that_dies_in_the_middle_is_named(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_MOOD", "dies")
    with pytest.raises(OutsideError, match=r"vLLM ended by itself \(code 9\)[^$]*vllm.log ends"):
        serve_and_ask(stub)
    assert stub.gone()


def test_the_first_error_is_shown_above_the_end(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker dies, and the server that waits for it fills the end of the log."""
    monkeypatch.setenv("STUB_MOOD", "deep")
    with pytest.raises(OutsideError) as caught:
        serve_and_ask(stub)
    said = str(caught.value)
    assert "ERROR 01-01 [core.py:1] EngineCore failed" in said and "torch.OutOfMemoryError: CUDA out of memory" in said
    assert said.rstrip().endswith("RuntimeError: Engine core initialization failed. See root cause above.")
    assert said.index("OutOfMemory") < said.index("frame 199") and "frame 50" not in said and "\x1b" not in said


@pytest.mark.parametrize("mood", ["", "slow"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_nothing_is_left_of_a_run_that_ends_badly(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals, mood: str
) -> None:
    monkeypatch.setenv("STUB_MOOD", mood)
    command = [sys.executable, "-c", RUN, str(stub.log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        try:
            assert run.stdout is not None
            if mood == "":
                assert run.stdout.readline() == "ready\n"
            stub.wait_until_started()
            run.send_signal(sent)
            run.wait(30)
        finally:
            run.kill()  # a run that does not end must not hold the tests
    assert stub.gone(within_s=25)


def test_without_vllm_the_command_to_install_it_is_given(monkeypatch: pytest.MonkeyPatch, stub: Stub) -> None:
    assert vllm_fault() is None
    monkeypatch.setenv("PATH", "/nowhere")
    assert "pip install vllm" in str(vllm_fault())


def test_it_is_given_the_chat_template_that_the_model_is_given(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socratune.resolve._templates", {"demo": "{{ messages }}"})
    serve_and_ask(stub)
    assert Path(stub.seen["flags"]["chat_template"]).read_text("utf-8") == "{{ messages }}"

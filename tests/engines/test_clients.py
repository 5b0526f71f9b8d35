"""What people already use, against `socratune serve`: the `openai` package, `llm`, LangChain, and LiteLLM's proxy."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import demo_rows, socratune, write_rows
from programs import needs, serving

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

ROW = demo_rows("held_out", 1)[0]
QUESTION = ROW["messages"][:-1]
KEY = "sk-0123456789"
LITELLM = shutil.which("litellm") or ""


@pytest.fixture(scope="module")
def base(finished_run: Path) -> Iterator[str]:
    """A trained run behind `socratune serve`: its base as `demo`, and `adapter`."""
    with serving(finished_run) as found:
        yield found


@pytest.fixture(scope="module")
def said(base: str) -> str:
    """What the adapter answers, read as plain HTTP."""
    body = {"model": "adapter", "messages": QUESTION, "temperature": 0}
    asked = urllib.request.Request(
        f"{base}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


@needs("openai")
def test_the_openai_package_chats_streams_and_lists(base: str, said: str) -> None:
    import openai  # pyright: ignore[reportMissingImports]

    with openai.OpenAI(base_url=base, api_key="unused", max_retries=0) as client:
        assert {model.id for model in client.models.list()} == {"demo", "adapter"}
        whole = client.chat.completions.create(model="adapter", messages=QUESTION, temperature=0)
        assert whole.choices[0].message.content == said and whole.choices[0].finish_reason == "stop"
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 0
        with client.chat.completions.create(
            model="adapter", messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
        ) as stream:
            chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == said
        assert chunks[-1].usage == whole.usage
        odds = client.chat.completions.create(
            model="adapter", messages=QUESTION, temperature=0, logprobs=True, top_logprobs=2
        )
        tokens = odds.choices[0].logprobs.content
        assert "".join(token.token for token in tokens).strip() == said
        assert all(token.top_logprobs[0].logprob >= token.logprob for token in tokens)
        with pytest.raises(openai.BadRequestError, match="logprobs"):
            client.chat.completions.create(model="adapter", messages=QUESTION, logprobs=True, stream=True)
        ends = client.chat.completions.create(model="adapter", messages=QUESTION, temperature=0, stop=[said[4:7]], n=2)
        assert [one.message.content for one in ends.choices] == [said[: said.index(said[4:7])].strip()] * 2
        text: dict[str, Any] = {
            "model": "demo",
            "prompt": ["What is 2 +", "The sun"],
            "temperature": 0,
            "max_tokens": 8,
        }
        plain = [one.text for one in client.completions.create(**text).choices]
        with client.completions.create(**text, stream=True) as stream:
            parts = [chunk.choices[0] for chunk in stream]
        assert ["".join(part.text for part in parts if part.index == at) for at in (0, 1)] == plain
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="another", messages=QUESTION)


@needs("llm")
def test_llm_asks_by_the_name_in_its_configuration(base: str, said: str, tmp_path: Path) -> None:
    models = [{"model_id": "mine", "model_name": "adapter", "api_base": base, "api_key_name": "mine"}]
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    (tmp_path / "keys.json").write_text('{"mine": "unused"}')
    system, question = (turn["content"] for turn in QUESTION)
    for flags in ([], ["--no-stream"]):
        command = [sys.executable, "-m", "llm", "-m", "mine", "-s", system, "-o", "temperature", "0", *flags, question]
        done = subprocess.run(
            command, env={**os.environ, "LLM_USER_PATH": str(tmp_path)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and done.stdout.strip() == said, done.stderr


@needs("langchain-openai")
def test_langchain_invokes_streams_and_batches(base: str, said: str) -> None:
    from langchain_openai import ChatOpenAI  # pyright: ignore[reportMissingImports]

    model: Any = ChatOpenAI(model="adapter", base_url=base, api_key="unused", temperature=0, max_retries=0)
    turns = [(turn["role"], turn["content"]) for turn in QUESTION]
    reply = model.invoke(turns)
    assert reply.content == said and reply.usage_metadata["output_tokens"] > 0
    assert "".join(piece.content for piece in model.stream(turns)) == said
    assert [one.content for one in model.batch([turns, turns])] == [said, said]


@contextmanager
def litellm_proxy(command: str, base: str, folder: Path) -> Iterator[str]:
    """LiteLLM's proxy before a server of ours, as the guide starts it; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    known = {"model": "openai/demo", "api_base": base, "api_key": "unused"}
    settings = {"model_list": [{"model_name": "behind", "litellm_params": known}]}
    settings |= {"litellm_settings": {"num_retries": 0, "telemetry": False}}
    (folder / "litellm.yaml").write_text(yaml.safe_dump(settings))
    home = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HOME": str(folder),
        "LITELLM_MASTER_KEY": KEY,
    }
    flags = ["--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", port]
    with (folder / "litellm.log").open("w") as log:
        process = subprocess.Popen([command, *flags], env=home, stdout=log, stderr=log, cwd=folder)
        try:
            until = time.monotonic() + 180
            while not alive(f"http://127.0.0.1:{port}/health/liveliness"):
                assert process.poll() is None and time.monotonic() < until, (folder / "litellm.log").read_text()[-3000:]
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


def alive(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.skipif(not LITELLM, reason="LiteLLM is not installed (the command litellm)")
def test_a_teacher_behind_litellms_proxy(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded model is no teacher, but its hints are asked for, come through, and are counted."""
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 12))
    monkeypatch.setenv("LITELLM_MASTER_KEY", KEY)
    with litellm_proxy(LITELLM, base, tmp_path) as proxy:
        done = socratune(
            "enhance", "--model", "demo", "--dataset", rows, "--output", tmp_path / "run",
            "--teacher-model", "behind", "--teacher-api-base", proxy,
            "--set", "enhance.endpoints.teacher.api_key_env=LITELLM_MASTER_KEY", "--set", "split.max_dev_rows=0",
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    loop = json.loads((tmp_path / "run" / "pipeline_results.json").read_text())["stages"]["enhance"]
    assert "error" not in loop["outcomes"] and loop["hints"] + loop["hints_rejected"] > 0
    assert loop["spent"]["enhance.teacher"]["tokens"] > 0

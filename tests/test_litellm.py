"""The real LiteLLM against a server on loopback; skipped where the package is not installed, as it usually is."""

from __future__ import annotations

import asyncio
import time
from importlib import metadata
from typing import Any

import pytest
from model_server import Answer, ModelServer

from socratune import litellm_model
from socratune.errors import CallError, OutsideError, UserError
from socratune.litellm_model import LiteLLMModel, litellm_fault
from socratune.llm.base import Completion, Sampling

KEY = "sk-canary-0123456789abcdef"
try:
    INSTALLED = metadata.version("litellm")
except metadata.PackageNotFoundError:
    INSTALLED = ""
GREEDY = Sampling()
needs_litellm = pytest.mark.skipif(not INSTALLED, reason="litellm is not installed (pip install 'socratune[litellm]')")


@pytest.mark.parametrize(
    ("version", "said"),
    [("1.82.7", "replace every key"), ("1.82.8", "replace every key"), ("1.83.9", "1.84"), ("1.84.0", ""), ("2.0", "")],
)
def test_compromised_and_old_releases_are_refused(monkeypatch: pytest.MonkeyPatch, version: str, said: str) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)
    assert said in str(litellm_fault("judge") or "") and bool(said) == bool(litellm_fault("judge"))


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert "pip install 'socratune[litellm]'" in str(litellm_fault("judge"))


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm_model, "BACKOFF_S", 0.01)
    monkeypatch.setattr(litellm_model, "BACKOFF_CAP_S", 0.02)


def ask(base: str, provider: str = "openai", sampling: Sampling = GREEDY, **options: Any) -> Completion:
    async def one() -> Completion:
        model = LiteLLMModel(f"{provider}/m", api_base=base, api_key=KEY, **options)
        try:
            return await model.generate([{"role": "user", "content": "2 * 3?"}], sampling)
        finally:
            await model.close()

    return asyncio.run(one())


@needs_litellm
def test_a_call_arrives_as_it_was_meant() -> None:
    sampling = Sampling(0.6, 0.9, max_new_tokens=77, seed=5, json_schema='{"type": "object"}')
    with ModelServer(lambda body, number: Answer("six", thought="3 + 3", stop="length", tokens=(7, 2))) as server:
        answer = ask(server.openai_base, sampling=sampling)
        assert (answer.text, answer.stop) == ("<think>\n3 + 3\n</think>\n\nsix", "length")
        assert (answer.prompt_tokens, answer.completion_tokens) == (7, 2)
        body = server.seen[0].body
        assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("m", 77, 0.6, 0.9)
        assert body["seed"] == 5 and body["response_format"]["json_schema"]["schema"] == {"type": "object"}
        assert f"Bearer {KEY}" in server.seen[0].headers.values()
        ask(server.url, "anthropic", sampling)  # no seed there: dropped, not refused
        assert server.seen[1].path == "/v1/messages" and "seed" not in server.seen[1].body
        ask(server.openai_base, "mistral", sampling)
        assert server.seen[2].body["random_seed"] == 5


@needs_litellm
@pytest.mark.usefixtures("hurried")
def test_what_may_go_better_is_tried_again_with_the_providers_waiting_time() -> None:
    troubles = [Answer("busy", status=429, headers={"Retry-After": "0.3"}), Answer(status=500), Answer(fault="cut")]
    with ModelServer(lambda body, number: troubles[number - 1] if number <= 3 else Answer("six")) as server:
        started = time.monotonic()
        assert ask(server.openai_base).text == "six"
        assert time.monotonic() - started > 0.3 and len(server.seen) == 4
    with ModelServer(lambda body, number: Answer("down", status=503)) as server:
        with pytest.raises(OutsideError, match="Gave up after 7 tries"):
            ask(server.openai_base)
        assert len(server.seen) == 7  # its own retries would multiply ours
    with ModelServer(lambda body, number: Answer(raw=b'{"choices": []}') if number == 1 else Answer("six")) as server:
        assert ask(server.openai_base).text == "six"
    with ModelServer(lambda body, number: Answer(fault="hang") if number == 1 else Answer("six")) as server:
        assert ask(server.openai_base, call_timeout_s=0.5).text == "six"


@needs_litellm
@pytest.mark.parametrize(
    ("status", "error"), [(400, CallError), (404, CallError), (401, UserError), (403, UserError), (402, OutsideError)]
)
def test_what_will_not_go_better_is_said_at_once_and_without_the_key(status: int, error: type[Exception]) -> None:
    with ModelServer(lambda body, number: Answer(f"no, {KEY}", status=status)) as server:
        with pytest.raises(error) as caught:
            ask(server.openai_base)
        assert len(server.seen) == 1
    assert "[key]" in str(caught.value) and KEY not in str(caught.value)
    assert caught.value.__cause__ is None


@needs_litellm
def test_limits_per_minute_hold() -> None:
    async def three(base: str) -> None:
        model = LiteLLMModel("openai/m", api_base=base, api_key=KEY, requests_per_minute=120)
        chat = [{"role": "user", "content": "?"}]
        await asyncio.gather(*(model.generate(chat, Sampling(seed=seed)) for seed in range(5)))
        await model.close()

    with ModelServer(lambda body, number: Answer("six")) as server:
        asyncio.run(three(server.openai_base))
        times = [seen.at for seen in server.seen]
    assert times[-1] - times[0] > 0.9  # two a second, a second's allowance at once

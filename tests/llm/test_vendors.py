"""Names of models as people type them: whose they are, where they are asked with which key, or what to type instead."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from model_server import Answer, ModelServer

from socratune.compute.outbound import local_only_faults
from socratune.llm.base import Sampling
from socratune.llm.locate import model_fault
from socratune.llm.references import Endpoint, connected_model, price_at, price_fault, reference_fault, student_of
from socratune.llm.vendors import VENDORS, vendor_of
from socratune.resolve import resolve_settings

HERE = Endpoint()
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "models.md"


@pytest.mark.parametrize(
    ("typed", "whose"),
    [
        ("gpt-5", "openai"), ("gpt-4o-mini", "openai"), ("o3", "openai"), ("o4-mini", "openai"),
        ("chatgpt-4o-latest", "openai"), ("claude-sonnet-4", "anthropic"), ("claude-3-5-haiku-latest", "anthropic"),
        ("gemini-2.5-pro", "gemini"), ("grok-4", "xai"),
        ("gpt-oss-20b", None), ("gpt2", None), ("ollama", None), ("ollama/", None), ("o-model", None),
        ("Qwen/Qwen3-8B", None), ("deepseek-ai/DeepSeek-R1", None), ("mistralai/Mistral-7B-v0.1", None), ("demo", None),
    ],
)  # fmt: skip
def test_whose_a_bare_name_is(typed: str, whose: str | None) -> None:
    assert vendor_of(typed) == (None if whose is None else (whose, typed))


@pytest.mark.parametrize("name", VENDORS)
def test_a_vendor_is_asked_at_its_address_with_its_key_and_no_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = VENDORS[name]
    for one in VENDORS.values():
        if one.key_variable:
            monkeypatch.setenv(one.key_variable, f"key-of-{one.key_variable}")
    ref = f"{name}/org/model-1"
    assert reference_fault("judge", ref, HERE) is None
    with ModelServer(lambda body, number: Answer("ok")) as server:
        base = server.url if vendor.protocol == "anthropic" else server.openai_base
        monkeypatch.setitem(VENDORS, name, replace(vendor, base=base))
        model, _ = connected_model(ref, HERE)

        async def main() -> None:
            try:
                await model.generate([{"role": "user", "content": "Hm?"}], Sampling())
            finally:
                await model.close()

        asyncio.run(main())
    (request,) = server.seen
    sent = {key.lower(): value for key, value in request.headers.items()}
    key = sent.get("x-api-key") if vendor.protocol == "anthropic" else sent.get("authorization")
    expected = f"key-of-{vendor.key_variable}" if vendor.key_variable else None
    assert key == (expected and (expected if vendor.protocol == "anthropic" else f"Bearer {expected}"))
    assert request.body["model"] == "org/model-1"
    assert model.name == ref  # the journal does not take one vendor's answer for another's
    if vendor.key_variable:
        monkeypatch.delenv(vendor.key_variable)
        assert f"export {vendor.key_variable}=" in str(reference_fault("judge", ref, HERE))


def test_an_address_of_ones_own_gets_the_name_as_it_stands_and_no_vendors_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "not-for-others")
    with ModelServer(lambda body, number: Answer("ok")) as server:
        for ref in ("gemini/pro", "claude-sonnet-4", "azure/gpt-4o"):
            endpoint = Endpoint((server.openai_base,))
            assert reference_fault("teacher", ref, endpoint) is None
            model, price = connected_model(ref, endpoint)

            async def main(model: Any = model) -> None:
                try:
                    await model.generate([{"role": "user", "content": "Hm?"}], Sampling())
                finally:
                    await model.close()

            asyncio.run(main())
            assert price.per_completion_token_usd == 0
    assert [request.body["model"] for request in server.seen] == ["gemini/pro", "claude-sonnet-4", "azure/gpt-4o"]
    assert not any("not-for-others" in str(request.headers) for request in server.seen)


@pytest.mark.parametrize("name", ["azure", "bedrock"])
def test_what_has_an_address_for_every_customer_is_refused_with_flags_that_work(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = str(reference_fault("judge", f"{name}/gpt-4o", HERE))
    flags = dict(re.findall(r"--(judge-api-base|judge-model|set) (\S+?)(?=[\s,])", said))
    assert flags["judge-model"] == "gpt-4o"
    key, _, variable = flags["set"].partition("=")
    monkeypatch.setenv(variable, "k")
    endpoint = Endpoint((flags["judge-api-base"],), variable)
    assert reference_fault("judge", flags["judge-model"], endpoint) is None
    assert key == "enhance.endpoints.judge.api_key_env"
    settings = {
        "model": "demo",
        "dataset": "demo",
        "output": "o",
        "enhance": {"endpoints": {"judge": {"api_key_env": "K"}}},
    }
    assert resolve_settings(settings).config.enhance.endpoints.judge.api_key_env == "K"
    writer = str(reference_fault("writer", f"{name}/gpt-4o", HERE))
    assert "--writer-api-base" in writer and "generate.endpoints.writer.api_key_env" in writer


def test_a_name_of_the_hub_is_told_both_ways_of_asking_it() -> None:
    said = str(reference_fault("judge", "Qwen/Qwen3-8B", HERE))
    assert "local/Qwen/Qwen3-8B" in said and "hf/Qwen/Qwen3-8B" in said


def test_local_only_takes_ollama_and_no_vendor() -> None:
    def outside(ref: str) -> list[str]:
        settings = {"model": "demo", "dataset": "demo", "output": "o", "enhance": {"judge_model": ref}}
        return [str(fault) for fault in local_only_faults(resolve_settings(settings).config)]

    assert outside("ollama/llama3") == []
    for name in VENDORS.keys() - {"ollama"}:
        (fault,) = outside(f"{name}/x")
        assert "enhance.judge_model" in fault
    assert "generativelanguage.googleapis.com" in outside("gemini-2.5-pro")[0]


@pytest.mark.parametrize(
    "ref", ["gpt-5", "claude-sonnet-4-5", "gemini/gemini-2.5-pro", "groq/llama-3.3-70b-versatile", "xai/grok-4",
            "mistral/mistral-large-latest", "deepseek/deepseek-chat", "openrouter/openai/gpt-4o", "ollama/llama3"],
)  # fmt: skip
def test_a_limit_in_usd_can_be_kept(ref: str) -> None:
    assert price_fault("teacher", ref, HERE) is None
    assert (price_at(ref, HERE).per_completion_token_usd == 0) == ref.startswith("ollama/")


def test_a_limit_in_usd_is_refused_where_no_list_has_the_price() -> None:
    assert "price is known" in str(price_fault("teacher", "hf/Qwen/Qwen3-8B", HERE))


def test_the_student_may_be_one_of_a_vendor_and_the_trained_model_may_not(tmp_path: Path) -> None:
    config = resolve_settings(
        {"model": "demo", "dataset": "demo", "output": "o", "enhance": {"student_model": "ollama/llama3"}}
    ).config
    assert student_of(config.enhance, "demo") == ("http", "ollama/llama3")
    for name in ("gpt-5", "ollama/llama3", "gemini/gemini-2.5-pro", "claude-sonnet-4"):
        said = str(model_fault(name))
        assert "behind an API" in said and name in said
    assert "ollama show --modelfile llama3" in str(model_fault("ollama/llama3"))


def test_the_guide_has_every_vendor_with_its_address_and_key() -> None:
    rows = re.findall(
        r"^\| `(\w+)/…`[^|]*\| `([^`]+)` \| (?:`(\w+)`|none) \| <([^>]+)> \|$", GUIDE.read_text("utf-8"), re.M
    )
    assert [tuple(row) for row in rows] == [
        (name, vendor.base, vendor.key_variable or "", vendor.documented) for name, vendor in VENDORS.items()
    ]

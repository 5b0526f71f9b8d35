from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from typing import Any, TypeVar

import pytest
from model_server import Answer, ModelServer

from socratune.errors import CallError, OutsideError, SocratuneError, UserError
from socratune.llm import http, limits
from socratune.llm.base import Completion, Sampling
from socratune.llm.http import HttpModel
from socratune.llm.limits import Breaker, Bucket, Endpoints, RateLimits, retry_after_s

T = TypeVar("T")
KEY = "sk-canary-7f3a91d2c4"
HELLO = [{"role": "user", "content": "hello"}]
GREEDY = Sampling()
FINE = Answer("fine")
OFF = {"top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1}
SCHEMA = json.dumps({"type": "object", "properties": {"correct": {"type": "boolean"}}})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BACKOFF_BASE_S", 0.002)
    monkeypatch.setattr(http, "_BACKOFF_CAP_S", 0.01)


def use(do: Callable[[HttpModel], Awaitable[T]], *bases: str, **settings: Any) -> T:
    """What `do` brings with a model on `bases`, closed afterwards."""

    async def main() -> T:
        model = HttpModel(**{"kind": "openai", "model": "m", "api_bases": bases, "api_key": KEY, **settings})
        try:
            return await do(model)
        finally:
            await model.close()

    return asyncio.run(main())


def ask(*bases: str, sampling: Sampling = GREEDY, messages: Any = HELLO, **settings: Any) -> Completion:
    return use(lambda model: model.generate(messages, sampling), *bases, **settings)


def many(*bases: str, calls: int, **settings: Any) -> list[Completion | BaseException]:
    async def do(model: HttpModel) -> list[Completion | BaseException]:
        waiting = (model.generate(HELLO, Sampling(seed=seed)) for seed in range(calls))
        return await asyncio.gather(*waiting, return_exceptions=True)

    return use(do, *bases, **settings)


def first(*answers: Answer, then: Answer = FINE) -> Callable[[Any, int], Answer]:
    """`answers` one after the other, `then` for the rest."""
    return lambda body, number: answers[number - 1] if number <= len(answers) else then


def dead_base() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


# --- the protocols


def test_openai_call() -> None:
    answer = Answer("42", tokens=(7, 3), thought="6 * 7")
    with ModelServer(lambda body, number: answer) as server:
        sampling = Sampling(temperature=0.7, top_p=0.8, top_k=20, max_new_tokens=99, seed=5, json_schema=SCHEMA)
        completion = ask(server.openai_base + "/", sampling=sampling)
    assert completion == Completion("<think>\n6 * 7\n</think>\n\n42", "end", 7, 3)
    (seen,) = server.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["Authorization"] == f"Bearer {KEY}"
    schema = seen.body.pop("response_format")["json_schema"]
    assert schema["schema"] == json.loads(SCHEMA)
    assert seen.body == {
        "model": "m", "messages": HELLO, "max_tokens": 99, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "seed": 5,
        "min_p": 0, "repetition_penalty": 1,
    }  # fmt: skip


def test_anthropic_call() -> None:
    answer = Answer("42", tokens=(7, 3), thought="6 * 7", stop="length")
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    with ModelServer(lambda body, number: answer) as server:
        sampling = Sampling(temperature=0.7, max_new_tokens=99, seed=5, json_schema=SCHEMA)
        completion = ask(server.url, kind="anthropic", messages=messages, sampling=sampling)
        ask(server.openai_base, kind="anthropic")
    assert completion == Completion("<think>\n6 * 7\n</think>\n\n42", "length", 7, 3)
    assert [seen.path for seen in server.seen] == ["/v1/messages"] * 2
    seen = server.seen[0]
    assert seen.headers["x-api-key"] == KEY
    assert seen.headers["anthropic-version"]
    assert "Authorization" not in seen.headers
    assert seen.body.pop("output_config")["format"]["schema"] == json.loads(SCHEMA)
    assert seen.body == {
        "model": "m", "messages": HELLO, "max_tokens": 99, "temperature": 0.7, "system": "Be brief.",
        **OFF,
    }  # fmt: skip


def test_name_and_no_key() -> None:
    with ModelServer() as server:
        ask(server.openai_base, api_key=None)
        ask(server.url, kind="anthropic", api_key="")
    assert not {"authorization", "x-api-key"} & {name.lower() for seen in server.seen for name in seen.headers}
    one = HttpModel(kind="openai", model="m", api_bases=[], api_key=KEY, requests_per_minute=3)
    other = HttpModel(kind="openai", model="m", api_bases=["http://localhost:1"], api_key=None, call_timeout_s=1)
    assert one.name == one.fingerprint == other.fingerprint == "openai/m"


def test_cut_off_by_length_is_told() -> None:
    with ModelServer(lambda body, number: Answer("half", stop="length")) as server:
        assert ask(server.openai_base).stop == "length"


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("openai", Answer("", refusal="I will not.")),
        ("openai", Answer("", stop="content_filter")),
        ("anthropic", Answer("", stop="refusal")),
    ],
)
def test_refusal_is_final(kind: str, answer: Answer) -> None:
    with ModelServer(lambda body, number: answer) as server, pytest.raises(CallError, match=r"refused|filter"):
        ask(server.url, kind=kind)
    assert len(server.seen) == 1


def openai_answer(ending: object = "stop", **message: Any) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": ending}
    return Answer(raw=json.dumps({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}).encode())


def anthropic_answer(ending: object, *blocks: dict[str, Any]) -> Answer:
    usage = {"input_tokens": 9, "output_tokens": 4}
    return Answer(raw=json.dumps({"content": blocks, "stop_reason": ending, "usage": usage}).encode())


CALLED = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
SILENT = {
    "null": openai_answer(content=None),
    "no field": openai_answer(),
    "nothing": openai_answer(content=""),
    "blanks": openai_answer(content=" \n"),
    "no parts": openai_answer(content=[]),
    "tools": openai_answer("tool_calls", content=None, tool_calls=CALLED),
    "tools, ended": openai_answer(content="", tool_calls=CALLED),
    "thoughts alone": openai_answer(content=None, reasoning_content="Let me see."),
    "no choice": Answer(raw=b'{"choices": []}'),
    "broken off": openai_answer(None, content="The answer is 4"),
    "aborted": openai_answer("abort", content="The answer is 4"),
    "aborted at once": openai_answer("abort", content=""),
    "failed": openai_answer("error", content="The answer is 4"),
    "no room": openai_answer("insufficient_system_resource", content="The answer is 4"),
    "anthropic: nothing": anthropic_answer("end_turn"),
    "anthropic: a tool": anthropic_answer("tool_use", {"type": "tool_use", "id": "1", "name": "f", "input": {}}),
    "anthropic: broken off": anthropic_answer(None, {"type": "text", "text": "The answer is 4"}),
    "anthropic: paused": anthropic_answer("pause_turn", {"type": "text", "text": "The answer is 4"}),
}


@pytest.mark.parametrize(("name", "silent"), SILENT.items(), ids=SILENT)
def test_no_words_are_no_answer(name: str, silent: Answer) -> None:
    """Tried again, as it may be an accident; then an error of this row, whatever becomes of the others."""
    kind = "anthropic" if name.startswith("anthropic") else "openai"
    with ModelServer(first(silent, silent)) as server:
        assert ask(server.url, kind=kind).text == "fine"
    with ModelServer(first(then=silent)) as server, pytest.raises(CallError, match=r"200 with .* after 3 tries"):
        ask(server.url, kind=kind)
    assert len(server.seen) == 3


def test_rows_without_an_answer_do_not_stop_the_others() -> None:
    behave = lambda body, number: openai_answer(content="") if body["seed"] % 2 else FINE  # noqa: E731
    with ModelServer(behave) as server:
        found = many(server.openai_base, calls=60, max_retries=1)
    assert [isinstance(one, CallError) for one in found] == [False, True] * 30


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_all_tokens_for_hidden_thoughts_are_no_empty_answer(kind: str) -> None:
    with ModelServer(lambda body, number: Answer("", stop="length")) as server, pytest.raises(CallError) as caught:
        ask(server.url, kind=kind)
    assert "thoughts" in str(caught.value) and len(server.seen) == 1  # the same again would cost the same
    with ModelServer(lambda body, number: Answer("", stop="length", thought="Well,")) as server:
        assert ask(server.url, kind=kind).stop == "length"


def test_a_student_that_shows_it_said_nothing_has_said_nothing() -> None:
    raw = json.dumps({"choices": [{"message": {"content": ""}, "finish_reason": "stop", "token_ids": [2]}]}).encode()
    with ModelServer(lambda body, number: Answer(raw=raw)) as server:
        assert ask(server.openai_base, token_ids=True) == Completion("", "end", 0, 0, ())


def test_a_simple_server_that_gives_no_reason_is_believed() -> None:
    with ModelServer(lambda body, number: Answer(raw=b'{"choices": [{"message": {"content": "4"}}]}')) as server:
        assert ask(server.openai_base).text == "4"


@pytest.mark.parametrize(
    "usage", [None, [], "many", {"prompt_tokens": -7, "completion_tokens": True}, {"prompt_tokens": 2**63}]
)
def test_counters_that_are_no_numbers_count_as_untold(usage: object) -> None:
    raw = json.dumps({"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}], "usage": usage}).encode()
    with ModelServer(lambda body, number: Answer(raw=raw)) as server:
        assert ask(server.openai_base) == Completion("4")


def test_ids_that_cannot_be_are_not_taken() -> None:
    for ids in ([7, -2, 2], [7, True], ["a"], "abc", {"0": 1}, [2**40]):
        choice = {"message": {"content": "ok"}, "finish_reason": "stop", "token_ids": ids}
        raw = json.dumps({"choices": [choice]}).encode()
        with ModelServer(lambda body, number, raw=raw: Answer(raw=raw)) as server:
            assert ask(server.openai_base, token_ids=True).token_ids is None


def test_ids_beyond_the_vocabulary_are_none_of_the_models() -> None:
    choice = {"message": {"content": "fine"}, "finish_reason": "stop"}

    async def within(model: HttpModel, vocabulary: int | None) -> Completion:
        model.vocabulary = vocabulary
        return await model.generate(HELLO, GREEDY)

    answer = Answer(raw=json.dumps({"choices": [{**choice, "token_ids": [7, 900, 2]}]}).encode())
    with ModelServer(lambda body, number: answer) as server:
        for vocabulary, expected in ((None, (7, 900)), (901, (7, 900)), (900, None)):
            found = use(lambda model: within(model, vocabulary), server.url, token_ids=True)  # noqa: B023
            assert (found.text, found.token_ids) == ("fine", expected)


def test_lone_surrogate_reaches_the_server() -> None:
    with ModelServer() as server:
        assert ask(server.openai_base, messages=[{"role": "user", "content": "\ud800é"}]).text == "ok"
    assert server.seen[0].body["messages"][0]["content"] == "\ud800é"


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_half_an_emoji_in_an_answer_is_no_text(kind: str) -> None:
    with ModelServer(lambda body, number: Answer("Take tens \ud83d first.", thought="é \ude00")) as server:
        answer = ask(server.url if kind == "anthropic" else server.openai_base, kind=kind).text
    assert answer == "<think>\né ?\n</think>\n\nTake tens ? first."


def test_connections_are_reused() -> None:
    with ModelServer(lambda body, number: Answer(delay_s=0.01)) as server:

        async def do(model: HttpModel) -> None:
            for _ in range(5):
                await asyncio.gather(*(model.generate(HELLO, GREEDY) for _ in range(8)))

        use(do, server.openai_base)
    assert len(server.seen) == 40
    assert server.connections == server.max_in_flight == 8


def test_a_closed_model_can_be_asked_again() -> None:
    async def do(model: HttpModel) -> Completion:
        await model.generate(HELLO, GREEDY)
        await model.close()
        return await model.generate(HELLO, GREEDY)

    with ModelServer() as server:
        assert use(do, server.openai_base).text == "ok"
        assert server.connections == 2


# --- parameters that a model does not take


def picky(refused: dict[str, str]) -> Callable[[dict[str, Any], int], Answer]:
    """A server that answers 400 with the message of the first refused parameter it is sent."""

    def behave(body: dict[str, Any], number: int) -> Answer:
        found = next((name for name in refused if name in body), None)
        return Answer(refused[found], status=400) if found else Answer()

    return behave


OPENAI_REFUSALS = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0.0 with this model. "
    "Only the default (1) value is supported.",
    "seed": "Unrecognized request argument supplied: seed",
    "response_format": "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
}


def test_refused_parameters_are_dropped_once(caplog: pytest.LogCaptureFixture) -> None:
    async def do(model: HttpModel) -> set[str]:
        sampling = Sampling(max_new_tokens=77, json_schema=SCHEMA)
        await asyncio.gather(*(model.generate(HELLO, sampling) for _ in range(3)))
        before = len(server.seen)
        await model.generate(HELLO, sampling)
        assert len(server.seen) == before + 1
        return model.dropped

    with ModelServer(picky(OPENAI_REFUSALS)) as server, caplog.at_level(logging.WARNING):
        assert use(do, server.openai_base, max_retries=0) == set(OPENAI_REFUSALS)
    assert server.seen[-1].body == {"model": "m", "messages": HELLO, "max_completion_tokens": 77, **OFF}
    assert len(caplog.records) == len(OPENAI_REFUSALS)


@pytest.mark.parametrize(("reason", "expected"), [("stop", (7, 8)), ("length", (7, 8, 2))])
def test_sampled_ids_are_asked_for_and_come_without_the_end_of_turn(reason: str, expected: tuple[int, ...]) -> None:
    """In vLLM's words; where a server refuses, the answer has none. Other servers are not asked (the test above)."""
    choice = {"message": {"content": "ok"}, "finish_reason": reason, "token_ids": [7, 8, 2]}
    raw = json.dumps({"choices": [choice], "usage": {}}).encode()
    with ModelServer(lambda body, number: Answer(raw=raw)) as server:
        assert ask(server.openai_base, token_ids=True).token_ids == expected
    assert server.seen[-1].body["return_token_ids"] is True
    refused = {"return_token_ids": "Unrecognized request argument supplied: return_token_ids"}
    with ModelServer(picky(refused)) as server:
        assert ask(server.openai_base, token_ids=True).token_ids is None


def test_anthropic_takes_one_of_temperature_and_top_p() -> None:
    said = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    refused = {"output_config": "output_config: Extra inputs are not permitted", "top_p": said}
    with ModelServer(picky(refused)) as server:
        sampling = Sampling(temperature=0.6, top_p=0.9, json_schema=SCHEMA)
        assert ask(server.url, kind="anthropic", sampling=sampling).text == "ok"
    assert "temperature" in server.seen[-1].body
    assert len(server.seen) == 3


LLAMA_CPP = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1}


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_server_with_defaults_of_its_own_draws_as_it_is_told(kind: str) -> None:
    drawn: list[dict[str, float]] = []

    def behave(body: dict[str, Any], number: int) -> Answer:
        drawn.append({name: body.get(name, default) for name, default in LLAMA_CPP.items()})
        return FINE

    async def do(model: HttpModel) -> None:
        for sampling in (GREEDY, Sampling(temperature=0.7), Sampling(0.6, 0.95, 20)):
            await model.generate(HELLO, sampling)
            assert model.sent(sampling) == drawn[-1]

    with ModelServer(behave) as server:
        use(do, server.openai_base, kind=kind)
    assert drawn == [
        {**OFF, "temperature": 0.0},
        {**OFF, "temperature": 0.7},
        {**OFF, "temperature": 0.6, "top_p": 0.95, "top_k": 20},
    ]


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Unrecognized request arguments supplied: min_p, top_k", {"top_p": 1, "repetition_penalty": 1}),
        ("property 'min_p' is unsupported", {"top_p": 1, "top_k": 0, "repetition_penalty": 1}),
        ('{"detail": [{"type": "extra_forbidden", "loc": ["body", "repetition_penalty"]}]}',
         {"top_p": 1, "top_k": 0, "min_p": 0}),
        ("top_k must be -1 (disable), or at least 1, got 0.", {**OFF, "top_k": -1}),
        ("`top_k` must be strictly positive", {"top_p": 1, "min_p": 0, "repetition_penalty": 1}),
        ("litellm.UnsupportedParamsError: x does not support parameters: ['top_k', 'min_p', 'repetition_penalty']",
         {"top_p": 1}),
    ],
)  # fmt: skip
def test_a_neutral_value_is_dropped_where_it_is_refused_and_that_is_recorded(said: str, left: dict[str, float]) -> None:
    def behave(body: dict[str, Any], number: int) -> Answer:
        same = all(body.get(name) == left.get(name) for name in OFF)
        return FINE if same else Answer(said, status=400)

    async def do(model: HttpModel) -> dict[str, Any]:
        for seed in range(3):
            await model.generate(HELLO, Sampling(seed=seed))
        return model.sent(GREEDY)

    with ModelServer(behave) as server:
        sent = use(do, server.openai_base)
    assert len(server.seen) == 4  # one refusal, remembered
    assert sent == {"temperature": 0.0, **dict.fromkeys(OFF), **left}


def test_what_one_address_refuses_another_is_still_sent() -> None:
    refusal = Answer("Unrecognized request argument supplied: min_p", status=400)
    slow = Answer(delay_s=0.05)
    behave = lambda body, number: refusal if "min_p" in body else slow  # noqa: E731
    with ModelServer(behave) as strict, ModelServer(lambda body, number: slow) as loose:
        many(strict.openai_base, loose.openai_base, calls=6)
    assert {"min_p" in seen.body for seen in strict.seen[3:]} == {False} and len(loose.seen) >= 3
    assert all("min_p" in seen.body for seen in loose.seen)


def test_a_server_that_refuses_off_in_every_form_is_asked_without_it() -> None:
    said = {"top_k": "top_k must be -1 (disable), or at least 1"}
    with ModelServer(picky(said)) as server:
        assert ask(server.openai_base).text == "ok"
    assert [seen.body.get("top_k") for seen in server.seen] == [0, -1, None]


# --- a server with little room

NO_ROOM = {
    "vLLM": ("This model's maximum context length is 2048 tokens. However, you requested 2500 tokens (1476 in the "
             "messages, 1024 in the completion). Please reduce the length of the messages or completion.", 572),
    "vLLM, newer": ("'max_tokens' or 'max_completion_tokens' is too large: 1024. This model's maximum context length "
                    "is 2048 tokens and your request has 1500 input tokens (1024 > 2048 - 1500).", 548),
    "SGLang": ("Requested token count exceeds the model's maximum context length of 2048 tokens. You requested a total "
               "of 2500 tokens: 1476 tokens from the input messages and 1024 tokens for the completion.", 572),
    "TGI": ("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1500 `inputs` tokens "
            "and 1024 `max_new_tokens`", 548),
    "OpenAI": ("max_tokens is too large: 1024. This model supports at most 512 completion tokens, whereas you provided "
               "1024.", 512),
    "Groq": ("`max_tokens` must be less than or equal to `512`, the maximum value for `max_tokens` is less than the "
             "`context_window` for this model", 512),
    "Anthropic": ("input length and `max_tokens` exceed context limit: 199,300 + 1024 > 200,000, decrease input length "
                  "or `max_tokens` and try again", 700),
    "Anthropic, answer": ("max_tokens: 1024 > 512, which is the maximum allowed number of output tokens", 512),
    "no figures": ("The context window is exceeded.", 256),
}  # fmt: skip


@pytest.mark.parametrize(("said", "room"), NO_ROOM.values(), ids=NO_ROOM)
def test_where_there_is_no_room_fewer_tokens_are_asked_for(
    said: str, room: int, caplog: pytest.LogCaptureFixture
) -> None:
    def behave(body: dict[str, Any], number: int) -> Answer:
        return FINE if body["max_tokens"] <= room else Answer(said, status=400)

    async def do(model: HttpModel) -> None:
        for seed in range(2):
            assert (await model.generate(HELLO, Sampling(seed=seed))).text == "fine"

    with ModelServer(behave) as server, caplog.at_level(logging.WARNING):
        use(do, server.openai_base, max_retries=0)
    assert [seen.body["max_tokens"] for seen in server.seen] == [1024, room] * 2
    assert caplog.text.count("has no room for an answer of 1024 tokens") == 1 and str(room) in caplog.text


def test_the_prompt_is_estimated_where_a_server_does_not_count_it() -> None:
    """vLLM stops counting where the answer alone is too long: "at least 1"."""
    said = (
        "This model's maximum context length is 1024 tokens. However, you requested 1024 output tokens and your prompt "
        "contains at least 1 input tokens, for a total of at least 1025 tokens."
    )
    question = [{"role": "user", "content": "why? " * 300}]
    with ModelServer(first(Answer(said, status=400))) as server:
        assert ask(server.openai_base, messages=question).text == "fine"
    assert 300 < server.seen[1].body["max_tokens"] < 1024 - 300


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 512 tokens. However, you requested 1624 tokens (600 in the messages, "
        "1024 in the completion).",
        "the request exceeds the available context size (n_prompt_tokens: 3000, n_ctx: 2048)",
        "No room: the context length is exceeded.",
    ],
)
def test_a_prompt_that_is_too_long_itself_is_the_rows_error(said: str) -> None:
    with ModelServer(lambda body, number: Answer(said, status=400)) as server, pytest.raises(CallError) as caught:
        ask(server.openai_base)
    assert said[:60] in str(caught.value)
    assert len(server.seen) <= 2


@pytest.mark.parametrize(
    "said",
    [
        "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 2048.",
        "temperature must be non-negative, got -1",
        "The response was filtered due to the prompt triggering our content management policy.",
    ],
)
def test_other_400s_drop_nothing(said: str) -> None:
    with ModelServer(lambda body, number: Answer(said, status=400)) as server, pytest.raises(CallError) as caught:
        ask(server.openai_base)
    assert said in str(caught.value)
    assert len(server.seen) == 1


def test_a_parameter_that_cannot_be_left_out_is_not_asked_again() -> None:
    said = OPENAI_REFUSALS["max_tokens"]
    with ModelServer(lambda body, number: Answer(said, status=400)) as server, pytest.raises(CallError):
        ask(server.url, kind="anthropic")
    assert len(server.seen) == 1


# --- what is tried again, and what is not

BAD_TRIES = {
    "500": Answer("overloaded", status=500),
    "529": Answer("overloaded", status=529),
    "408": Answer("too slow", status=408),
    "409": Answer("busy", status=409),
    "429": Answer("slow down", status=429),
    "close": Answer(fault="close"),
    "cut": Answer(fault="cut"),
    "nonsense": Answer(raw=b'{"choices": [{"mess'),
    "deep nonsense": Answer(raw=b"[" * 100_000),
    "not text": Answer(raw=b"\xff\xfe\xfd"),
    "html": Answer(raw=b"<html>Please log in</html>", content_type="text/html"),
    "json without an answer": Answer(raw=b'{"error": {"message": "upstream failed"}}'),
    "hang": Answer(fault="hang"),
}


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("bad", BAD_TRIES.values(), ids=BAD_TRIES)
def test_a_bad_try_is_followed_by_a_good_one(bad: Answer, kind: str) -> None:
    with ModelServer(first(bad, bad)) as server:
        assert ask(server.url, kind=kind, call_timeout_s=0.1 if bad.fault == "hang" else 60).text == "fine"
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ("500", "status 500: overloaded"),
        ("429", "status 429: slow down"),
        ("close", "the connection broke"),
        ("cut", "the connection broke"),
        ("nonsense", "not JSON"),
        ("html", "text/html"),
        ("json without an answer", "upstream failed"),
        ("hang", "no answer within 0.1 s"),
    ],
)
def test_retries_end(bad: str, named: str) -> None:
    with ModelServer(first(then=BAD_TRIES[bad])) as server, pytest.raises(OutsideError) as caught:
        ask(server.openai_base, max_retries=2, call_timeout_s=0.1 if bad == "hang" else 60)
    assert named in str(caught.value)
    assert "3 tries" in str(caught.value)
    assert len(server.seen) == 3


def test_slow_chunked_body() -> None:
    with ModelServer(lambda body, number: Answer("slowly", pieces=5, pause_s=0.02)) as server:
        assert ask(server.openai_base).text == "slowly"
        with pytest.raises(OutsideError, match="no answer within"):
            ask(server.openai_base, call_timeout_s=0.05, max_retries=0)


@pytest.mark.parametrize(("status", "kind"), [(200, "openai"), (200, "anthropic"), (500, "openai"), (404, "openai")])
def test_a_body_without_end_is_not_read_on_and_is_the_rows_error(status: int, kind: str) -> None:
    """It ends long before the time of a call, and by what the role may say: a judge's 100 tokens take a megabyte."""
    endless = Answer(raw=b" " * 65_536, fault="endless", status=status)
    started = time.monotonic()
    with ModelServer(first(then=endless)) as server, pytest.raises(CallError) as caught:
        ask(server.url, kind=kind, sampling=Sampling(max_new_tokens=100))
    assert "more than 1,0" in str(caught.value) and "100 tokens" in str(caught.value) and "3 tries" in str(caught.value)
    assert len(server.seen) == 3 and time.monotonic() - started < 10


def test_a_long_answer_is_whole() -> None:
    """Every token as long as they come, escaped, beside the ids of prompt and answer."""
    text = "\u4e2d\u6587" * 20_000
    with ModelServer(lambda body, number: Answer(text, thought=text)) as server:
        assert ask(server.openai_base, sampling=Sampling(max_new_tokens=32_768)).text.count(text) == 2


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_other_4xx_are_final(status: int) -> None:
    said = "no such thing: " + "x" * 1000
    with ModelServer(lambda body, number: Answer(said, status=status)) as server, pytest.raises(CallError) as caught:
        ask(server.openai_base)
    assert f"status {status}: no such thing" in str(caught.value)
    assert len(str(caught.value)) < 350
    assert len(server.seen) == 1


@pytest.mark.parametrize(("kind", "variable"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_the_variable(status: int, kind: str, variable: str) -> None:
    with (
        ModelServer(lambda body, number: Answer("bad key", status=status)) as server,
        pytest.raises(UserError) as caught,
    ):
        ask(server.url, kind=kind)
    assert variable in str(caught.value)
    assert "bad key" in str(caught.value)
    assert len(server.seen) == 1


def test_what_stops_a_run_without_retries() -> None:
    cases = [
        (Answer("You exceeded your current quota (insufficient_quota)", status=429), OutsideError, "credit"),
        (Answer("Your credit balance is too low", status=400), OutsideError, "credit"),
        (Answer("pay", status=402), OutsideError, "credit"),
        (Answer("daily limit", status=429, headers={"Retry-After": "7200"}), OutsideError, "wait 7200 s"),
        (Answer("", status=301, headers={"Location": "https://elsewhere.example/v1"}), UserError, "elsewhere"),
        (Answer("Request too large for m on tokens per min", status=429), CallError, "too large"),
    ]
    for answer, error, words in cases:
        with ModelServer(first(then=answer)) as server, pytest.raises(error, match=words):
            ask(server.openai_base)
        assert len(server.seen) == 1


@pytest.mark.parametrize("headers", [{"Retry-After": "0.3"}, {"retry-after-ms": "300"}])
def test_retry_after_is_waited_for(headers: dict[str, str]) -> None:
    with ModelServer(first(Answer("slow down", status=429, headers=headers))) as server:
        assert ask(server.openai_base).text == "fine"
    waited_s = server.seen[1].at - server.seen[0].at
    assert 0.3 <= waited_s < 1


def test_retry_after_is_read() -> None:
    assert retry_after_s({}) is None
    assert retry_after_s({"retry-after": "12"}) == 12
    assert retry_after_s({"llm_provider-retry-after": "12"}) == 12
    assert retry_after_s({"retry-after": "-1"}) is None
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({"retry-after": formatdate(time.time() - 60, usegmt=True)}) == 0
    assert retry_after_s({"retry-after": formatdate(time.time() + 60, usegmt=True)}) == pytest.approx(60, abs=2)
    assert retry_after_s({"retry-after": "9", "retry-after-ms": "250"}) == 0.25
    assert retry_after_s({"retry-after-ms": "nan"}) is retry_after_s({"retry-after-ms": "1e999"}) is None


def test_being_throttled_while_others_are_answered_spends_no_retry() -> None:
    """Throttled eight times with three retries; where nobody is answered meanwhile, three are all there are."""
    slow_down = Answer("slow down", status=429, headers={"Retry-After": "0.03"})
    tries: list[int] = []

    def behave(body: dict[str, Any], number: int) -> Answer:
        if body["seed"] == 0:
            tries.append(number)
        return slow_down if body["seed"] == 0 and len(tries) <= 8 else Answer()

    async def do(model: HttpModel) -> Completion:
        throttled = asyncio.create_task(model.generate(HELLO, GREEDY))
        while not throttled.done():
            await model.generate(HELLO, Sampling(seed=1))
        return await throttled

    with ModelServer(behave) as server:
        assert use(do, server.openai_base, max_retries=3).text == "ok"
        assert len(tries) == 9
        tries.clear()
        with pytest.raises(OutsideError, match="4 tries"):
            ask(server.openai_base, max_retries=3)


# --- several addresses


def test_the_least_loaded_address_wins() -> None:
    slow = Answer(delay_s=0.15)
    with ModelServer(first(then=slow)) as one, ModelServer(first(then=slow)) as two:
        many(one.openai_base, two.openai_base, calls=8)
    assert one.max_in_flight == two.max_in_flight == 4


def test_a_dead_address_is_put_aside_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    dead, well = RateLimits("dead"), RateLimits("well")
    both = Endpoints([dead, well])
    assert both.pick() is dead
    dead.failed(unreachable=True)
    assert both.another_is_able(dead)
    assert not both.another_is_able(well)
    well.in_flight = 50
    assert both.pick() is well
    clock.now += limits.ASIDE_S + 1
    assert both.pick() is dead
    dead.in_flight = 1  # on trial: a single call until it has answered one
    assert both.pick() is well
    dead.failed(unreachable=False)
    dead.in_flight = 0
    assert both.pick() is well
    clock.now += 1
    well.failed(unreachable=True)
    assert both.pick() is dead  # all aside: failed longest ago
    dead.worked()
    assert both.pick() is dead


def test_a_busy_address_gets_less() -> None:
    async def do(model: HttpModel) -> None:
        waiting = iter(range(40))

        async def work() -> None:
            for _ in waiting:
                await model.generate(HELLO, GREEDY)

        await asyncio.gather(*(work() for _ in range(4)))

    with ModelServer(first(then=Answer(delay_s=0.1))) as slow, ModelServer() as quick:
        use(do, slow.openai_base, quick.openai_base)
    assert len(slow.seen) < 15
    assert len(quick.seen) > 25


def test_calls_go_on_at_once_beside_a_dead_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BACKOFF_BASE_S", 60)
    monkeypatch.setattr(http, "_BACKOFF_CAP_S", 60)
    started = time.monotonic()
    with ModelServer() as server:
        completions = many(dead_base(), server.openai_base, calls=30, max_retries=2)
    assert all(isinstance(completion, Completion) for completion in completions)
    assert time.monotonic() - started < 10


def test_an_address_with_errors_is_put_aside() -> None:
    async def do(model: HttpModel) -> None:
        for _ in range(20):
            await model.generate(HELLO, GREEDY)

    with ModelServer(first(then=Answer(status=503))) as ill, ModelServer() as well:
        use(do, ill.openai_base, well.openai_base)
    assert len(ill.seen) == limits.ASIDE_AFTER
    assert len(well.seen) == 20


def test_nobody_listens() -> None:
    with pytest.raises(OutsideError, match="cannot connect"):
        ask(dead_base(), dead_base(), max_retries=2)


# --- the breaker


def test_a_server_that_is_down_fails_every_waiting_call_at_once() -> None:
    """Hanging calls and calls in long waits end too, and later ones are refused, without a request more."""

    def behave(body: dict[str, Any], number: int) -> Answer:
        if body["seed"] < 5:
            return Answer(fault="hang")
        if body["seed"] < 10:
            return Answer("down", status=503, headers={"Retry-After": "20"})
        return Answer("down", status=500)

    async def do(model: HttpModel) -> Sequence[object]:
        waiting = (model.generate(HELLO, Sampling(seed=seed)) for seed in range(30))
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        before = len(server.seen)
        with pytest.raises(OutsideError, match="seems to be down"):
            await model.generate(HELLO, GREEDY)
        assert len(server.seen) == before
        return outcomes

    started = time.monotonic()
    with ModelServer(behave) as server:
        outcomes = use(do, server.openai_base, max_retries=3, call_timeout_s=20)
    assert time.monotonic() - started < 5
    assert all(isinstance(outcome, OutsideError) for outcome in outcomes)
    assert sum("seems to be down" in str(outcome) for outcome in outcomes) >= 10
    assert len(server.seen) <= 10 + 20 * 4


def test_the_breaker_needs_a_row_of_failures_and_a_spent_call() -> None:
    breaker = Breaker()
    for _ in range(3 * limits.DOWN_AFTER):
        breaker.failed("down")
    breaker.check()
    breaker.worked()
    breaker.spent("down")
    for _ in range(limits.DOWN_AFTER - 1):
        breaker.failed("down")
    breaker.check()
    breaker.failed("down")
    with pytest.raises(OutsideError, match=f"{limits.DOWN_AFTER} failures in a row"):
        breaker.check()


def test_the_breaker_closes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REST_S", 0.05)

    async def do(model: HttpModel) -> Completion:
        calls = (model.generate(HELLO, GREEDY) for _ in range(25))
        assert all(isinstance(error, OutsideError) for error in await asyncio.gather(*calls, return_exceptions=True))
        well.append(True)
        await asyncio.sleep(0.06)
        return await model.generate(HELLO, GREEDY)

    well: list[bool] = []
    with ModelServer(lambda body, number: Answer("back") if well else Answer(status=500)) as server:
        assert use(do, server.openai_base, max_retries=1).text == "back"


POISON = {
    "500": Answer("crash", status=500),
    "hang": Answer(fault="hang"),
    "cut": Answer(fault="cut"),
    "nonsense": Answer(raw=b'{"choices": [{"message": {"content": 7}}]}'),
}


@pytest.mark.parametrize("bad", POISON.values(), ids=POISON)
def test_a_call_that_fails_while_others_are_answered_is_the_rows_error(bad: Answer) -> None:
    async def do(model: HttpModel) -> None:
        poisonous = asyncio.create_task(model.generate(HELLO, GREEDY))
        while not poisonous.done():
            assert (await model.generate(HELLO, Sampling(seed=1))).text == "ok"
        with pytest.raises(CallError, match="Gave up after 4 tries, while other calls were answered"):
            await poisonous

    with ModelServer(lambda body, number: Answer() if body["seed"] else bad) as server:
        use(do, server.openai_base, max_retries=3, call_timeout_s=0.3 if bad.fault == "hang" else 60)


def test_rows_do_not_pay_for_a_server_that_is_down() -> None:
    """Two calls are too few for the breaker, and what was answered before the first failure says nothing."""

    async def do(model: HttpModel) -> Sequence[object]:
        await model.generate(HELLO, GREEDY)
        failing = (model.generate(HELLO, Sampling(seed=seed)) for seed in (1, 2))
        return await asyncio.gather(*failing, return_exceptions=True)

    with ModelServer(first(FINE, then=Answer(status=500))) as server:
        outcomes = use(do, server.openai_base, max_retries=3)
    assert all(isinstance(outcome, OutsideError) for outcome in outcomes)
    assert len(server.seen) == 1 + 2 * 4 < limits.DOWN_AFTER


# --- limits


class Clock:
    """`time.monotonic` of the limits, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(limits, "time", self)

    def monotonic(self) -> float:
        return self.now


def test_a_bucket_spreads_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    bucket = Bucket(120)
    assert [bucket.reserve(1) for _ in range(5)] == [0, 0, 0, 0.5, 1.0]
    clock.now += 3600
    assert [bucket.reserve(1) for _ in range(4)] == [0, 0, 0, 0.5]
    bucket.correct(2)
    assert bucket.reserve(1) == 2.0
    bucket.correct(-4)
    assert bucket.reserve(1) == 0.5


def test_requests_per_minute() -> None:
    started = time.monotonic()
    with ModelServer() as server:
        many(server.openai_base, calls=14, requests_per_minute=600)
    assert max(seen.at for seen in server.seen) - started >= 0.3  # 11 at once, 3 more at 0.1 s each


def test_tokens_per_minute_learn_from_usage() -> None:
    """Each answer used 1000 tokens where about 260 were reserved: the next call pays for it."""
    with ModelServer(lambda body, number: Answer(tokens=(500, 500))) as server:

        async def do(model: HttpModel) -> None:
            for _ in range(3):
                await model.generate(HELLO, GREEDY)

        use(do, server.openai_base, tokens_per_minute=60_000)  # 1000 a second
    # three reservations fit into the burst; what was really used takes two seconds, one of them ahead
    assert server.seen[2].at - server.seen[0].at >= 0.8


def test_a_count_that_cannot_be_holds_up_no_other_call() -> None:
    with ModelServer(lambda body, number: Answer(tokens=(2_000_000_000, -5))) as server:
        started = time.monotonic()
        many(server.openai_base, calls=3, tokens_per_minute=60_000)
        use(lambda model: model.generate(HELLO, GREEDY), server.openai_base, tokens_per_minute=60_000)
    assert time.monotonic() - started < 2


# --- the key


def test_no_key_in_errors_logs_or_answers(caplog: pytest.LogCaptureFixture) -> None:
    """The server says the key wherever it can; the library's errors hold the request's headers."""
    leaky = f"your key {KEY} and {'y' * 260} {KEY}"
    raw = leaky.encode()
    answers = [
        *(Answer(leaky, status=status) for status in (400, 401, 402, 403, 404, 422, 429, 500)),
        Answer(leaky, status=400, headers={"x-echo": KEY}),
        Answer(f"unsupported: temperature ({leaky})", status=400),
        Answer("", status=302, headers={"Location": f"http://x.example/?key={KEY}"}),
        Answer(raw=raw), Answer(raw=raw, content_type=f"text/{KEY}"), Answer(raw=json.dumps({"id": leaky}).encode()),
        Answer(refusal=leaky), Answer(fault="close"), Answer(fault="cut"), Answer(fault="hang"),
        Answer(raw=b"x", headers={"Content-Encoding": "gzip"}), Answer(raw=b"x", headers={"x-long": KEY * 1000}),
    ]  # fmt: skip
    shown = [repr(HttpModel(kind="openai", model="m", api_bases=[], api_key=KEY))]
    with caplog.at_level(logging.DEBUG):
        for answer in answers:
            with ModelServer(first(then=answer)) as server, pytest.raises(SocratuneError) as caught:
                ask(server.url, max_retries=1, call_timeout_s=0.2)
            shown += told_by(caught.value)
        for base in (dead_base(), f"{dead_base()}?key={KEY}", f"{dead_base()}/{KEY}"):
            with pytest.raises(SocratuneError) as caught:
                ask(base, max_retries=1)
            shown += told_by(caught.value)
        with ModelServer(lambda body, number: Answer(leaky, thought=KEY)) as server:
            shown.append(repr(ask(server.openai_base)))
    shown += [record.getMessage() for record in caplog.records]
    assert not [text for text in shown if KEY[:12] in text]
    assert "[key]" in "".join(shown)


def told_by(error: BaseException) -> list[str]:
    """All that a log may print of an error: its chain, and the local variables of the frames of the package.

    Left out: response headers, should a server send the key back there, and the frames that are given the key itself.
    """
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following:
        chain.append(following)
        following = following.__cause__ or following.__context__
    told = [text for one in chain for text in (str(one), repr(one), repr(vars(one)))]
    given = ("__init__", "_reach", "<genexpr>")
    summary = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [frame for frame in summary.stack if "/socratune/llm/" in frame.filename and frame.name not in given]
    held = [repr({k: v for k, v in (frame.locals or {}).items() if k != "headers"}) for frame in ours]
    return [*told, *held, "".join(traceback.format_exception(error))]


def test_no_password_of_an_address_in_errors() -> None:
    base = dead_base().replace("//", "//user:secret@")
    with pytest.raises(OutsideError) as caught:
        ask(base, api_key=None, max_retries=0)
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match="no password beside an API key") as wrong:
        ask(base)
    assert "secret" not in str(wrong.value)


def test_short_keys_are_placeholders() -> None:
    with ModelServer(lambda body, number: Answer("The set is EMPTY.")) as server:
        assert ask(server.openai_base, api_key="EMPTY").text == "The set is EMPTY."


# --- what is given wrongly, and what is loaded


def test_wrong_settings_are_the_users() -> None:
    bases = ("localhost:8000/v1", "ftp://host", "http://", "http://host:99999", "http://[host", "")
    for bad in ({"api_key": "two\nlines"}, *({"api_bases": [base]} for base in bases)):
        with pytest.raises(UserError):
            HttpModel(**{"kind": "openai", "model": "m", "api_bases": [], "api_key": None, **bad})


def test_a_cancelled_call_leaves_nothing_in_flight() -> None:
    async def do(model: HttpModel) -> None:
        call = asyncio.create_task(model.generate(HELLO, GREEDY))
        while not server.seen:
            await asyncio.sleep(0.005)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        while server.in_flight:
            await asyncio.sleep(0.005)

    with ModelServer(lambda body, number: Answer(fault="hang")) as server:
        use(lambda model: asyncio.wait_for(do(model), 10), server.openai_base)

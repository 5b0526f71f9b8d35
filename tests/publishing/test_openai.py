"""socratune serve: the student of the loop behind OpenAI's protocol, in a process of its own on loopback."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import Fork, demo_rows, socratune, write_rows

from socratune.config import StudentTeacherConfig
from socratune.errors import OutsideError
from socratune.inference.load import load_model
from socratune.inference.provenance import identity, student_grade
from socratune.inference.student import LocalModels, LocalStudent, serving_student
from socratune.inference.template import end_of_turn_id, prompt_ids
from socratune.llm.base import Completion, Sampling
from socratune.llm.http import HttpModel
from socratune.llm.ledger import Ledger
from socratune.llm.locate import Base
from socratune.publishing.openai_app import openai_server
from socratune.publishing.openai_models import Served, SharedWeights, serving_models
from socratune.publishing.webserver import Hosts
from socratune.runs.folder import RunDir
from socratune.runs.journal import Journal
from socratune.stages import enhance
from socratune.teaching.student import ServedStudent, attending_student, served_student

pytestmark = pytest.mark.slow  # the server loads torch and a model

QUESTIONS = [row["messages"][:-1] for row in demo_rows("held_out", 24)]
HELLO = QUESTIONS[0]


@contextmanager
def server(
    what: str | Path, *flags: str, env: dict[str, str] | None = None, errors: Path = Path(os.devnull)
) -> Iterator[str]:
    """`socratune serve` on a free port; its API base. Ctrl-C ends it."""
    with NamedTemporaryFile() as said:
        process = Fork("serve", what, "--port", "0", *flags, env=env, files=(Path(said.name), errors))
        try:
            while not (found := re.search(r"http://\S+(?=\s)", Path(said.name).read_text("utf-8"))):
                assert process.poll() is None, "no address was printed"
                time.sleep(0.02)
            yield found.group()
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(20)
    assert code == 0, "Ctrl-C is its normal end"


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with server("demo") as found:
        yield found


def request(base: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """(status, JSON or text) of a request; a POST where there is a body."""
    place = urlsplit(base)
    sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    with closing(http.client.HTTPConnection(place.netloc, timeout=60)) as connection:
        given = {"Content-Type": "application/json", **(headers or {})} if sent else headers or {}
        connection.request("POST" if sent else "GET", place.path + path, body=sent, headers=given)
        reply = connection.getresponse()
        text = reply.read().decode()
    return reply.status, json.loads(text) if "json" in (reply.getheader("content-type") or "") else text


def complete(base: str, **fields: Any) -> tuple[int, Any]:
    return request(base, "/chat/completions", {"model": "demo", "messages": HELLO, **fields})


def ask(base: str, model: str, asked: list[tuple[Any, Sampling]]) -> list[Completion]:
    """The answers through the project's own client, all asked at once."""

    async def do() -> list[Completion]:
        client = HttpModel(kind="openai", model=model, api_bases=[base], api_key=None, max_retries=0, token_ids=True)
        try:
            return await asyncio.gather(*(client.generate(chat, sampling) for chat, sampling in asked))
        finally:
            await client.close()

    return asyncio.run(do())


def ask_here(model: Any, tokenizer: Any, asked: list[tuple[Any, Sampling]]) -> list[Completion]:
    async def do(student: LocalStudent) -> list[Completion]:
        return await asyncio.gather(*(student.generate(chat, sampling) for chat, sampling in asked))

    with serving_student(LocalStudent(model, tokenizer, name="here", fingerprint="here")) as student:
        return asyncio.run(do(student))


SAMPLINGS = {
    "greedy": Sampling(max_new_tokens=48),
    "drawn": Sampling(1.3, 0.9, 40, 48),
    "wild": Sampling(2.0, max_new_tokens=48),
    "cut off": Sampling(max_new_tokens=3),
}


def test_answers_are_those_of_the_student_in_process(base: str, demo_base: tuple[Any, Any]) -> None:
    """Greedy and drawn by the same seeds, all together: text, ids, stop reason and counts."""
    asked = [(chat, replace(sampling, seed=at)) for sampling in SAMPLINGS.values() for at, chat in enumerate(QUESTIONS)]
    here = ask_here(*demo_base, asked)
    assert ask(base, "demo", asked) == here
    assert {answer.stop for answer in here} == {"end", "length"} and all(answer.token_ids for answer in here)


def test_a_run_serves_its_base_and_its_adapter_over_one_set_of_weights(finished_run: Path) -> None:
    asked = [(chat, replace(SAMPLINGS[name], seed=7)) for name in ("greedy", "drawn") for chat in QUESTIONS]
    expected = {
        "demo": ask_here(*load_model("demo"), asked),
        "adapter": ask_here(*load_model("demo", adapter=finished_run / "adapter"), asked),
    }

    async def both(base: str) -> list[list[Completion]]:
        return await asyncio.gather(*(asyncio.to_thread(ask, base, name, asked) for name in expected))

    with server(finished_run) as base:
        assert asyncio.run(both(base)) == list(expected.values())
        told = socratune("chat", finished_run, "What is 13 * 15?").stdout.strip()
        _, found = complete(
            base, model="adapter", temperature=0, messages=[{"role": "user", "content": "What is 13 * 15?"}]
        )
        cards = request(base, "/models")[1]["data"]
    assert found["choices"][0]["message"]["content"] == told and told.endswith(" = 195.")
    assert [(card["id"], card["parent"]) for card in cards] == [("demo", None), ("adapter", "demo")]
    assert len(cards[1]["identity"]["adapter"]) == 64


def test_base_and_adapter_take_turns_in_slots_too(finished_run: Path) -> None:
    """As on a GPU: each has its own slots, and whoever decodes switches the adapter first."""
    asked = [(chat, replace(SAMPLINGS["drawn"], seed=7)) for chat in QUESTIONS]
    adapter = finished_run / "adapter"
    expected = [ask_here(*load_model("demo", adapter=place), asked) for place in (None, adapter)]
    model, tokenizer = load_model("demo", adapter=adapter)
    shared = SharedWeights(model)

    async def both() -> list[list[Completion]]:
        turns = (partial(shared.turn, adapter=False), partial(shared.turn, adapter=True))
        students = [LocalStudent(model, tokenizer, name="", fingerprint="", slots=True, turn=turn) for turn in turns]
        try:
            work = [student.generate(chat, sampling) for student in students for chat, sampling in asked]
            found = await asyncio.gather(*work)
        finally:
            for student in students:
                student.close()
        return [found[: len(asked)], found[len(asked) :]]

    assert asyncio.run(both()) == expected


@pytest.mark.parametrize(
    ("bias", "names"), [("none", ["demo", "adapter"]), ("lora_only", ["adapter"]), (None, ["demo"])]
)
def test_what_a_run_has_to_serve(finished_run: Path, tmp_path: Path, bias: str | None, names: list[str]) -> None:
    """A run that is not trained yet has its base; an adapter that brings biases has replaced those of its base."""
    shutil.copy(finished_run / "config.yaml", tmp_path)
    if bias is not None:
        shutil.copytree(finished_run / "adapter", tmp_path / "adapter")
        config = tmp_path / "adapter" / "adapter_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "bias": bias}))
    with serving_models(str(tmp_path)) as models:
        assert [served.name for served in models] == names
        assert {served.max_new_tokens for served in models} == {96}


def test_what_a_request_leaves_out(base: str) -> None:
    """Without a temperature the model's own settings hold: the embedded one is greedy. Unseeded draws are new ones."""

    def said(**fields: Any) -> str:
        chats = [[{"role": "user", "content": f"Say {word}."}] for word in ("sun", "moon", "star")]
        found = [complete(base, messages=chat, max_tokens=24, **fields) for chat in chats]
        return " / ".join(reply["choices"][0]["message"]["content"] for _, reply in found)

    assert said() == said(seed=1) == said(temperature=0)
    assert said(temperature=2, seed=1) == said(temperature=2, seed=1) != said(temperature=2, seed=2)
    assert said(temperature=2) != said(temperature=2)


def test_the_answer_in_openais_words(base: str, tokenizer: Any) -> None:
    status, found = complete(base, temperature=0, return_token_ids=True, n=1, stop=None, user="me", presence_penalty=0)
    (choice,) = found["choices"]
    assert (status, found["object"], found["model"], choice["finish_reason"]) == (
        200,
        "chat.completion",
        "demo",
        "stop",
    )
    usage, ids = found["usage"], choice["token_ids"]
    assert usage["completion_tokens"] == len(ids) and usage["total_tokens"] == usage["prompt_tokens"] + len(ids)
    assert ids[-1] == end_of_turn_id(tokenizer) and tokenizer.decode(ids[:-1]) == choice["message"]["content"]
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in HELLO]
    assert complete(base, temperature=0, messages=parts)[1]["choices"][0]["message"] == choice["message"]
    status, cut = complete(base, temperature=0, max_completion_tokens=3)
    assert cut["choices"][0]["finish_reason"] == "length" and "token_ids" not in cut["choices"][0]


def test_a_stream(base: str) -> None:
    whole = complete(base, temperature=0)[1]
    _, text = complete(base, temperature=0, stream=True, stream_options={"include_usage": True})
    *events, last = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    chunks = [json.loads(event) for event in events]
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]]
    assert last == "[DONE]" and "".join(deltas) == whole["choices"][0]["message"]["content"]
    assert len([piece for piece in deltas if piece]) > 5, "piece by piece"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop" and chunks[-1]["usage"] == whole["usage"]


def test_the_first_piece_comes_long_before_the_last(base: str) -> None:
    place = urlsplit(base)
    body = {"model": "demo", "messages": HELLO, "temperature": 2, "seed": 4, "max_tokens": 400, "stream": True}
    with closing(http.client.HTTPConnection(place.netloc, timeout=60)) as connection:
        headers = {"Content-Type": "application/json"}
        began = time.monotonic()
        connection.request("POST", f"{place.path}/chat/completions", json.dumps(body), headers)
        reply = connection.getresponse()
        times = [time.monotonic() - began for line in reply if b'"content"' in line]
    assert len(times) > 20 and times[1] < times[-1] / 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_ends_the_answer_before_it_wherever_tokens_end(base: str, stream: bool) -> None:
    whole = complete(base, temperature=0)[1]
    text = whole["choices"][0]["message"]["content"]

    def said(stop: Any) -> tuple[str, str, int]:
        _, found = complete(
            base, temperature=0, stop=stop, stream=stream, stream_options={"include_usage": True} if stream else None
        )
        if not stream:
            choice = found["choices"][0]
            return choice["message"]["content"], choice["finish_reason"], found["usage"]["completion_tokens"]
        chunks = [json.loads(line.removeprefix("data: ")) for line in found.split("\n\n") if "{" in line]
        parts = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
        told = "".join(part["delta"].get("content", "") for part in parts)
        return told, parts[-1]["finish_reason"], chunks[-1]["usage"]["completion_tokens"]

    for at in range(1, len(text) - 3):
        stop = text[at : at + 3]
        expected = text[: text.index(stop)].strip()
        found, reason, tokens = said(["never to be seen", stop])
        assert (found, reason) == (expected, "stop") and tokens <= whole["usage"]["completion_tokens"]
    assert said(text[4:7])[0] == text[: text.index(text[4:7])].strip()
    assert said("never to be seen") == (text, "stop", whole["usage"]["completion_tokens"])


def test_a_temperature_near_zero_is_greedy(base: str) -> None:
    said = [complete(base, temperature=cold)[1]["choices"] for cold in (0, 1e-300, 1e-40, 1e-7, 2e-6)]
    assert all(choices == said[0] for choices in said)


def test_several_choices_are_drawn_by_seeds_that_follow_each_other(base: str) -> None:
    drawn = {"temperature": 2, "max_tokens": 24, "messages": [{"role": "user", "content": "Say moon."}]}
    _, found = complete(base, n=3, seed=5, **drawn)
    alone = [complete(base, seed=seed, **drawn)[1] for seed in (5, 6, 7)]
    texts = [choice["message"]["content"] for choice in found["choices"]]
    assert texts == [one["choices"][0]["message"]["content"] for one in alone] and len(set(texts)) > 1
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2]
    usage = found["usage"]
    assert usage["prompt_tokens"] == alone[0]["usage"]["prompt_tokens"]
    assert usage["completion_tokens"] == sum(one["usage"]["completion_tokens"] for one in alone)


def test_completions_go_on_with_the_text_as_it_is(base: str) -> None:
    body = {"model": "demo", "prompt": ["What is 2 +", "The sun"], "temperature": 0, "max_tokens": 8}
    status, found = request(base, "/completions", body)
    texts = [choice["text"] for choice in found["choices"]]
    assert (status, found["object"]) == (200, "text_completion") and len(texts) == 2 and all(texts)
    alone = request(base, "/completions", {**body, "prompt": "What is 2 +", "echo": True})[1]["choices"][0]
    assert alone["text"] == f"What is 2 +{texts[0]}" and alone["finish_reason"] in ("stop", "length")
    _, text = request(base, "/completions", {**body, "stream": True})
    parts = [json.loads(line[6:])["choices"][0] for line in text.split("\n\n") if "{" in line]
    assert ["".join(part["text"] for part in parts if part["index"] == at) for at in (0, 1)] == texts
    for fields, said in (
        ({"logprobs": 6}, "logprobs: input should be less than or equal to 5"),
        ({"logprobs": 1, "echo": True}, "leave out stream and echo"),
        ({"suffix": "x"}, "suffix is not supported"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt: expected at least one token"),
        ({"n": 100}, "at most 128 choices"),
    ):
        status, refused = request(base, "/completions", {**body, **fields})
        assert status == 400 and said in refused["error"]["message"], refused


def test_logprobs_are_those_of_the_model_for_the_tokens_of_the_answer(base: str) -> None:
    import torch

    model, tokenizer = load_model("demo")
    told = {"logprobs": True, "top_logprobs": 3, "temperature": 0, "max_tokens": 12, "return_token_ids": True}
    choice = complete(base, **told)[1]["choices"][0]
    content, ids = choice["logprobs"]["content"], choice["token_ids"]
    assert "".join(one["token"] for one in content).strip() == choice["message"]["content"]
    prompt = prompt_ids(tokenizer, HELLO)
    with torch.no_grad():
        shares = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    for at, one in enumerate(content):
        assert one["logprob"] == pytest.approx(float(shares[at, ids[at]]), abs=1e-4)
        assert one["top_logprobs"][0]["token"] == one["token"] and len(one["top_logprobs"]) == 3  # as it is greedy
        assert one["bytes"] is None or bytes(one["bytes"]).decode() == one["token"]


def test_logprobs_end_before_a_stop_and_come_for_plain_text_too(base: str) -> None:
    body = {"model": "demo", "prompt": "What is 2 +", "temperature": 0, "max_tokens": 8, "logprobs": 2}
    whole = request(base, "/completions", body)[1]["choices"][0]
    found = whole["logprobs"]
    assert "".join(found["tokens"]) == whole["text"] and len(found["token_logprobs"]) == len(found["tokens"])
    assert all(
        whole["text"][at:].startswith(text) for at, text in zip(found["text_offset"], found["tokens"], strict=True)
    )
    assert all(len(most) == 2 for most in found["top_logprobs"])
    stop = found["tokens"][2]
    cut = request(base, "/completions", {**body, "stop": stop})[1]["choices"][0]
    assert "".join(cut["logprobs"]["tokens"]) == cut["text"] == whole["text"][: whole["text"].index(stop)]


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"n": 129}, 400, "n: input should be less than or equal to 128"),
        ({"logprobs": True, "stream": True}, 400, "leave out stream and echo"),
        ({"top_logprobs": 2}, 400, "the body: top_logprobs needs logprobs: true"),
        ({"beam_width": 4}, 400, "beam_width is not supported"),
        (
            {"temperature": "hot", "top_p": 7},
            400,
            "temperature: input should be a valid number; top_p: input should be",
        ),
        ({"max_tokens": 10**9}, 400, "max_tokens: input should be less than or equal to 131072"),
        ({"messages": []}, 400, "messages: list should have at least 1 item"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, 400, "the last turn must be the user's"),
        ({"messages": [{"role": "user", "content": "1 + " * 600}]}, 400, "tokens, but the model has room for 512"),
        ({"messages": [{"role": "user", "content": "a\ud800"}]}, 400, "half of a surrogate pair at character 2"),
        ({"model": "gpt-4o"}, 404, "the model 'gpt-4o' does not exist; this server has demo"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(base: str, fields: dict[str, Any], status: int, said: str) -> None:
    found, body = complete(base, **fields)
    assert found == status and said in body["error"]["message"], body


def test_bad_bodies_and_routes(base: str) -> None:
    path = "/chat/completions"
    assert request(base, path, b"{")[0] == 400
    assert request(base, path, b"[1]")[1]["error"]["message"] == "the body: expected an object"
    status, found = request(base, "/completions", {"model": "demo", "prompt": ["\udfff"]})
    assert status == 400 and "half of a surrogate pair" in found["error"]["message"]
    assert request(base, path, b"{}", {"Content-Type": "text/plain"})[0] == 415
    assert request(base, path)[0] == 405
    assert request(base, "/embeddings", {"input": "x"})[0] == 404
    assert complete(base)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"}, {"Host": "evil.example:8000"}, {"Host": ""}, {"Host": "127.0.0.1.evil.example"},
        {"Host": "192.168.1.7"}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"},
    ],
)  # fmt: skip
def test_neither_foreign_names_nor_pages_of_others_are_answered(base: str, headers: dict[str, str]) -> None:
    for path in ("/models", "/chat/completions"):
        status, body = request(base, path, headers=headers)
        assert status == 403 and body["error"]["message"]
    assert request(base, "/chat/completions", {"model": "demo", "messages": HELLO}, headers)[0] == 403


def test_a_server_of_every_address_answers_to_the_names_it_is_given(base: str) -> None:
    with server("demo", "--host", "0.0.0.0", "--allow-host", "gpu.example") as found:
        place = urlsplit(found)
        here = f"http://127.0.0.1:{place.port}/v1"
        for host in ("gpu.example", f"GPU.example:{place.port}", "192.168.1.7:80", "[::1]", "localhost"):
            assert request(here, "/models", headers={"Host": host})[0] == 200, host
        for host in ("evil.example", "gpu.example.evil.example", "x.gpu.example"):
            assert request(here, "/models", headers={"Host": host})[0] == 403, host
        own = {"Host": "gpu.example", "Origin": "https://gpu.example"}
        assert request(here, "/models", headers=own)[0] == 200


def test_a_key(tmp_path: Path) -> None:
    with server("demo", "--api-key-env", "MY_KEY", env={"MY_KEY": "sk-geheim-12345"}) as base:
        assert request(base.removesuffix("/v1"), "/health")[0] == 200
        status, body = request(base, "/models")
        assert status == 401 and "geheim" not in json.dumps(body)
        assert request(base, "/models", headers={"Authorization": "Bearer sk-geheim-12345"})[0] == 200
    missing = socratune("serve", "demo", "--api-key-env", "NO_SUCH_KEY")
    assert missing.returncode == 2 and "export NO_SUCH_KEY" in missing.stderr


def test_ctrl_c_does_not_wait_for_answers(tmp_path: Path) -> None:
    """The block's own end sends it, and looks at the exit code."""
    body = {"model": "demo", "messages": HELLO, "temperature": 2, "max_tokens": 100_000, "n": 32}
    errors = tmp_path / "errors.txt"
    errors.touch()
    with ExitStack() as stack, server("demo", errors=errors) as base:
        place = urlsplit(base)
        for seed in range(32):
            connection = stack.enter_context(closing(http.client.HTTPConnection(place.netloc)))
            sent = json.dumps({**body, "seed": seed, "stream": seed % 2 == 0})
            connection.request("POST", f"{place.path}/chat/completions", sent, {"Content-Type": "application/json"})
        assert request(base, "/models")[0] == 200  # beside them
    assert "Traceback" not in errors.read_text("utf-8")


@pytest.mark.parametrize("leaves", [False, True])
def test_who_goes_away_is_not_answered_to_the_end(demo_base: tuple[Any, Any], leaves: bool) -> None:
    steps = 0

    @contextmanager
    def turn() -> Iterator[None]:
        nonlocal steps
        steps += 1
        yield

    body = {"model": "demo", "messages": HELLO, "temperature": 2, "seed": 4, "max_tokens": 400}
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"1000")]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers, "query_string": b""}
    sent: list[Any] = []

    async def do(served: Served) -> None:
        coming = [{"type": "http.request", "body": json.dumps(body).encode()}]
        coming += [{"type": "http.disconnect"}] * leaves
        never = asyncio.Event()

        async def receive() -> Any:
            return coming.pop(0) if coming else await never.wait()

        async def send(message: Any) -> None:
            sent.append(message)

        await openai_server([served], hosts=Hosts("127.0.0.1"))(scope, receive, send)

    with serving_student(LocalStudent(*demo_base, name="demo", fingerprint="demo", turn=turn)) as student:
        asyncio.run(do(Served("demo", student, {"name": "demo"})))
    assert sent[0]["status"] == 200
    assert steps < 10 if leaves else steps > 20


def test_what_cannot_be_served(base: str, tmp_path: Path) -> None:
    taken = socratune("serve", "demo", "--port", base.rsplit(":", 1)[1].removesuffix("/v1"))
    assert taken.returncode == 2 and "a free port" in taken.stderr and "Traceback" not in taken.stderr
    for host in ("ü..b", "a" * 70, "203.0.113.7"):
        elsewhere = socratune("serve", "demo", "--port", "0", "--host", host)
        assert elsewhere.returncode == 2 and f"--host {host}: expected an address of this machine" in elsewhere.stderr
    missing = socratune("serve", tmp_path / "nothing", "--port", "0")
    assert missing.returncode == 2 and "no such folder" in missing.stderr
    (tmp_path / "bad.jinja").write_text("{{ messages | nothing }}")
    (tmp_path / "config.yaml").write_text("model: demo\n")
    for what, template, said in (
        ("demo", tmp_path / "none.jinja", "a file with a chat template"),
        ("demo", tmp_path / "bad.jinja", "chat template"),
        (tmp_path, "plain", "a run uses the template that it was trained with"),
    ):
        refused = socratune("serve", what, "--port", "0", "--chat-template", template)
        assert refused.returncode == 2 and said in refused.stderr and "Traceback" not in refused.stderr


def test_a_model_is_served_with_a_chat_template_of_ones_own(tmp_path: Path) -> None:
    template = tmp_path / "long.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}" + "word " * 20)
    turns = [{"role": "user", "content": "What is 12 * 13?"}]
    read = []
    for flags in ((), ("--chat-template", str(template))):
        with server("demo", *flags) as found:
            read.append(complete(found, messages=turns, max_tokens=1)[1])
    assert read[1]["usage"]["prompt_tokens"] > read[0]["usage"]["prompt_tokens"] + 20


# --- as the student of a run ---------------------------------------------------------------------------------------


def test_it_tells_who_it_is_and_counts_as_the_very_base(base: str) -> None:
    student = served_student(base)
    assert student.identity == {**identity("demo"), "engine": "served"}
    assert student_grade(student.identity, identity("demo"))[0] == "same"
    assert student_grade({**student.identity, "quantisation": "4bit"}, identity("demo"))[0] == "near"
    assert student_grade({**student.identity, "weights": "0" * 16}, identity("demo"))[0] == "foreign"
    assert student_grade({**student.identity, "engine": "vllm"}, identity("demo"))[0] == "near"
    with pytest.raises(OutsideError, match="no socratune serve answers"):
        served_student("http://127.0.0.1:9/v1")


def test_it_is_drawn_as_a_student_in_process(base: str, tmp_path: Path) -> None:
    async def sampling(served: ServedStudent | None, **settings: Any) -> tuple[Sampling, dict[str, Any]]:
        config = StudentTeacherConfig(**settings)
        with closing(Journal(tmp_path / "journal.sqlite")) as journal, LocalModels() as models:
            log, ledger = tmp_path / "vllm.log", Ledger()
            async with attending_student(
                config, "demo", models, vllm_log=log, journal=journal, ledger=ledger, served=served
            ) as found:
                return found.sampling, found.identity

    for settings in ({}, {"temperature": 0.9, "top_p": 0.5}):
        here, there = (asyncio.run(sampling(one, **settings)) for one in (None, served_student(base)))
        assert here[0] == there[0] and {**here[1], "engine": "served"} == there[1]


def test_the_loop_through_it_writes_what_the_loop_in_process_writes(base: str, tmp_path: Path) -> None:
    def enhanced(name: str, served: ServedStudent | None) -> tuple[str, Any]:
        run = RunDir(tmp_path / name)
        run.create()
        rows = [{"id": f"r{at}", "metadata": {}, **row} for at, row in enumerate(demo_rows("train", 40))]
        write_rows(run.rows("train_in"), rows)
        config = StudentTeacherConfig(temperature=0.8, max_new_tokens=96)
        with closing(Journal(run.journal)) as journal:
            work = enhance.enhance_rows(
                run, config, Base("demo", False, 3), shard=None, journal=journal, key="enhance.x",
                tick=lambda *at, **live: None, served=served,
            )  # fmt: skip
            figures = asyncio.run(work).figures
        return run.enhanced.read_text("utf-8"), figures

    here, _ = enhanced("here", None)
    there, figures = enhanced("there", served_student(base))
    assert there == here and '"token_ids"' in here
    assert figures["student"]["engine"] == "served" and "enhance.student" not in figures["spent"]

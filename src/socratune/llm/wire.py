"""Encodes and decodes OpenAI's chat completions and Anthropic's messages, and interprets refusals.

Nothing here sends anything or remembers anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from functools import cache
from typing import Any, NoReturn

from socratune.errors import CallError
from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.vendors import WireProtocol
from socratune.rows import read_token_ids
from socratune.runs import json_decode

TOKEN_IDS = "return_token_ids"
"""vLLM's parameter: the sampled ids stand in the choice, the end of turn last. Other servers may refuse it."""

NEUTRAL: dict[str, float] = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Values that change no draw. If omitted, a server fills in its own: llama.cpp `top_k` 40, `top_p` 0.95 and `min_p`
0.05, vLLM what the model's files say.
"""
TOP_K_MINUS_ONE = "top_k=0"
"""Stands for a refused parameter in the list: off is -1 there."""
_OPTIONAL = ("seed", *NEUTRAL, "temperature", TOKEN_IDS)
_LIMIT = 1 << 31
"""The limit of counters: more is nonsense, and too much for a database."""
_CUT_OFF = ("length", "max_tokens", "model_length", "max_length", "MAX_TOKENS", "model_context_window_exceeded")
_BROKEN_OFF = re.compile("abort|error|cancel|time_?out|fail|insufficient|interrupt|overload|pause_turn|unknown|^$")
_FILTERED = re.compile("content_filter|refusal|safety|recitation|blocklist|prohibited|moderat|guardrail|sensitive")
"""Reasons for the end of an answer that mean a filter, of both protocols and of gateways to others."""
_SCHEMA_WORDS = ("response_format", "output_config", "schema", "grammar", "structured output")
_NOT_TAKEN = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|extra inputs|extra_forbidden|not permitted|not allowed"
    r"|unexpected|only the default|deprecated|cannot both"
)
_BAD_VALUE = re.compile(r"must be|should be|at least|greater|positive|out of range|invalid|not valid|validation")


def url_of(kind: WireProtocol, base: str) -> str:
    """Returns where calls are posted. An anthropic base may come with or without its `/v1`."""
    return root_of(kind, base) + ("/messages" if kind == "anthropic" else "/chat/completions")


def root_of(kind: WireProtocol, base: str) -> str:
    """Returns the address that all others begin with."""
    return base.removesuffix("/v1") + "/v1" if kind == "anthropic" else base


def headers_of(kind: WireProtocol, key: str) -> dict[str, str]:
    """Returns the headers of every call. An empty key sends none."""
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "socratune"}
    if kind == "anthropic":
        headers["anthropic-version"] = "2023-06-01"
    if key:
        headers |= {"x-api-key": key} if kind == "anthropic" else {"Authorization": f"Bearer {key}"}
    return headers


def request(
    kind: WireProtocol, model: str, messages: Chat, sampling: Sampling, dropped: Collection[str]
) -> dict[str, Any]:
    """Returns the body of a call, without the parameters in `dropped`."""
    build = _openai_request if kind == "openai" else _anthropic_request
    return build(model, messages, sampling, dropped)


def _openai_request(model: str, messages: Chat, sampling: Sampling, dropped: Collection[str]) -> dict[str, Any]:
    limit = "max_completion_tokens" if "max_tokens" in dropped else "max_tokens"
    body: dict[str, Any] = {"model": model, "messages": messages, limit: sampling.max_new_tokens}
    _add_draw(body, sampling, dropped)
    if "seed" not in dropped:
        body["seed"] = sampling.seed
    if TOKEN_IDS not in dropped:
        body[TOKEN_IDS] = True
    if sampling.json_schema is not None and "response_format" not in dropped:
        schema = {"name": "answer", "strict": True, "schema": _schema(sampling.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _anthropic_request(model: str, messages: Chat, sampling: Sampling, dropped: Collection[str]) -> dict[str, Any]:
    turns = [message for message in messages if message["role"] != "system"]
    body: dict[str, Any] = {"model": model, "messages": turns, "max_tokens": sampling.max_new_tokens}
    _add_draw(body, sampling, dropped)
    if len(turns) < len(messages):
        body["system"] = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    if sampling.json_schema is not None and "output_config" not in dropped:
        body["output_config"] = {"format": {"type": "json_schema", "schema": _schema(sampling.json_schema)}}
    return body


def _add_draw(body: dict[str, Any], sampling: Sampling, dropped: Collection[str]) -> None:
    """Adds how to draw, and switches off everything else."""
    body |= {name: value for name, value in drawn_by(sampling).items() if name not in dropped}
    if body.get("top_k") == 0 and TOP_K_MINUS_ONE in dropped:
        body["top_k"] = -1


def drawn_by(sampling: Sampling) -> dict[str, float]:
    """Returns the parameters of a draw by their names on the wire."""
    return {**NEUTRAL, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}


@cache
def _schema(text: str) -> dict[str, Any]:
    return json.loads(text)


class NoWords(ValueError):
    """Reports a well-formed answer without content: no words, or broken off."""


def completion(kind: WireProtocol, data: Any) -> Completion:
    """Returns the answer in the parsed body of a 200.

    Raises:
        CallError: the model or the provider's filter refused, or all it may say went into thoughts that are not shown.
        NoWords: there is nothing that could be judged; another try may bring it.
        LookupError, TypeError, AttributeError, ValueError: there is no answer in it.
    """
    return (_openai_completion if kind == "openai" else _anthropic_completion)(data)


def _openai_completion(data: Any) -> Completion:
    """Returns the first choice."""
    if not (choices := data["choices"]) and isinstance(choices, list):
        raise NoWords("an answer without a choice")
    choice = choices[0]
    message = choice["message"]
    reason = choice.get("finish_reason", "stop")  # some simple servers leave it out; null is one that was broken off
    if refusal := message.get("refusal"):
        raise CallError(f"the model refused: {refusal}")
    _check_ending(reason)
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    cut_off = reason in _CUT_OFF
    ids = _ids(choice.get("token_ids"))
    if not content.strip() and not (thought and cut_off) and ids is None:  # ids prove that it said nothing
        _refuse_silence(cut_off, bool(message.get("tool_calls")), thought)
    return Completion(
        _with_thought(thought, content),
        "length" if cut_off else "end",
        *usage("openai", data),
        None if ids is None else ids if cut_off else ids[:-1],
    )


def _anthropic_completion(data: Any) -> Completion:
    """Returns all text blocks, the thinking ones first."""
    reason = data.get("stop_reason", "end_turn")
    _check_ending(reason)
    blocks = data["content"]
    thought = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    cut_off = reason in _CUT_OFF
    if not text.strip() and not (thought and cut_off):
        _refuse_silence(cut_off, any(block["type"] == "tool_use" for block in blocks), thought)
    return Completion(_with_thought(thought, text), "length" if cut_off else "end", *usage("anthropic", data))


def usage(kind: WireProtocol, data: Any) -> tuple[int, int]:
    """Returns the tokens of prompt and answer in the parsed body of a 200, 0 if they are missing."""
    counts = data.get("usage") if isinstance(data, dict) else None
    names = ("prompt_tokens", "completion_tokens") if kind == "openai" else ("input_tokens", "output_tokens")
    return _count(counts, names[0]), _count(counts, names[1])


def _check_ending(reason: Any) -> None:
    """Raises if the server reports that an answer is incomplete."""
    if reason is None:
        raise NoWords("an answer that was broken off (no reason why it ended)")
    ending = str(reason).lower()
    if _FILTERED.search(ending):
        filtered = f"a filter of the provider stopped it ({ending})"
        raise CallError("the model refused" if ending == "refusal" else filtered)
    if _BROKEN_OFF.search(ending):
        raise NoWords(f"an answer that was broken off ({ending})")


def _refuse_silence(cut_off: bool, tools: bool, thought: str) -> NoReturn:
    """Raises for an empty answer, which must not be judged as if it were the model's."""
    if cut_off:
        raise CallError("all the tokens that it may take went into thoughts that are not shown. Allow more")
    raise NoWords("calls of tools and no words" if tools else "thoughts and no words" if thought else "no words")


def _ids(ids: Any) -> tuple[int, ...] | None:
    """Returns the sampled ids, or None if the server hides them or they are invalid."""
    try:
        return read_token_ids(ids) or None
    except TypeError:
        return None


def _count(usage: Any, name: str) -> int:
    """Returns a count, or 0 if the server gives none or an impossible one."""
    tokens = usage.get(name) if isinstance(usage, dict) else None
    return tokens if type(tokens) is int and 0 < tokens < _LIMIT else 0


def _with_thought(thought: str, text: str) -> str:
    """Returns text with its thought as reasoning models write it if no server separates the two.

    Of half a surrogate pair (a server that cut an emoji) there is a `?`: no tokenizer and no file takes it.
    """
    thought = thought.strip("\n")
    whole = f"<think>\n{thought}\n</think>\n\n{text.lstrip()}" if thought else text
    return whole.encode("utf-8", "replace").decode()


def refused_parameters(kind: WireProtocol, body: dict[str, Any], said: str) -> list[str]:
    """Returns the parameters of `body` that a 400 refuses, none if the 400 is about something else.

    Args:
        kind: the protocol.
        body: as it was sent.
        said: the server's whole answer in lower case, since the name may stand in a field beside the message.
    """
    for name in ("response_format", "output_config"):
        if name in body and any(word in said for word in _SCHEMA_WORDS):
            return [name]
    not_taken = _NOT_TAKEN.search(said)
    named = [name for name in _OPTIONAL if name in body and re.search(rf"\b{name}\b", said)]
    if neutral := [name for name in named if body[name] in (NEUTRAL.get(name), -1)]:
        if neutral == ["top_k"] and body["top_k"] == 0 and re.search(r"-1\b", said):
            return [TOP_K_MINUS_ONE]
        return neutral if not_taken or _BAD_VALUE.search(said) else []
    if not not_taken:
        return []
    if kind == "openai" and "max_tokens" in body and "max_completion_tokens" in said:
        return ["max_tokens"]
    return named[:1]


_NO_ROOM = re.compile(
    r"context[ _]?(?:length|size|window|limit)|supports at most"
    r"|maximum (?:allowed )?number of (?:output|completion) tokens"
    r"|max_(?:new_|completion_|output_)?tokens\W.{0,80}(?:too large|too high|less than|at most|exceed|>|<=)"
)
_ROOM = (
    re.compile(r"(?P<read>\d+) \+ \d+ > (?P<all>\d+)"),  # Anthropic
    re.compile(r"\d+ > (?P<all>\d+) - (?P<read>\d+)"),  # vLLM
    re.compile(r"<= (?P<all>\d+)\. given: (?P<read>\d+)"),  # TGI
    re.compile(r"(?:at most|less than or equal to|max_tokens: \d+ >)\W{1,3}(?P<answer>\d+)"),
    re.compile(r"(?:context[ _]?(?:length|size|window|limit)|n_ctx)\D{1,40}?(?P<all>\d+)"),
)
_READ = re.compile(
    r"(?P<least>at least )?(?P<read>\d+) (?:in the (?:messages|prompt)|(?:input|prompt) tokens|tokens from the input)"
    r"|n_prompt_tokens\W{1,4}(?P<too>\d+)"
)
LEAST_ROOM = 16
"""Tokens; an answer with less room says nothing."""


def room_for_answer(said: str, asked: int, read: int) -> int | None:
    """Returns the tokens of an answer for which a refusing server has room, or None.

    Args:
        said: the server's whole answer, in lower case.
        asked: tokens of the answer.
        read: tokens of the prompt, for a server that does not tell them.
    """
    if not _NO_ROOM.search(said):
        return None
    said = re.sub(r"(?<=\d),(?=\d{3})", "", said)
    match = next((match for pattern in _ROOM if (match := pattern.search(said))), None)
    if match is None:
        room = asked // 4
    elif (parts := match.groupdict()).get("answer"):
        room = int(parts["answer"])
    else:
        prompt = _READ.search(said)
        if prompt and not parts.get("read"):
            read = max(read, int(prompt["read"])) if prompt["least"] else int(prompt["read"] or prompt["too"])
        room = int(parts["all"]) - int(parts.get("read") or read)
    return room if LEAST_ROOM <= room < asked else None


def start_of(data: bytes) -> str:
    """Returns the start of an error's body in lower case."""
    return data[:10_000].decode("utf-8", "replace").lower()


def message_in(data: bytes) -> str:
    """Returns the message of an error body on one line: the message field of the usual shapes, else the text."""
    text = data[:10_000].decode("utf-8", "replace")
    try:
        body = json_decode(data)
        error = body.get("error", body)
        message = error if isinstance(error, str) else error.get("message") or error.get("detail")
        text = message if isinstance(message, str) else json.dumps(message or body)
    except (ValueError, AttributeError, RecursionError):
        pass
    return " ".join(text.split())

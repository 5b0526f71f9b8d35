"""OpenAI's chat completions as data, from the server's side: what a request asks for, and what an answer says.

`llm.wire` is the client's side. A field that would change the answer and is not known here is refused, never ignored.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from socratune.llm import Chat, Completion
from socratune.runs import json_decode, json_encode

MOST_NEW_TOKENS = 131_072
"""Of one answer: random numbers and, on a GPU, room in the cache are set aside for all of them."""

_IGNORED = ("user", "metadata", "store")
"""Fields that change no answer."""
_NEUTRAL: dict[str, Any] = {
    "n": 1, "min_p": 0, "stop": [], "presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1,
    "logit_bias": {}, "logprobs": False, "response_format": {"type": "text"}, "tools": [], "tool_choice": "none",
}  # fmt: skip
"""Fields that are taken with the value that changes nothing."""


class BadRequest(ValueError):
    """What is wrong with a request, in words for whoever sent it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: str | list[_Part]

    def plain(self) -> dict[str, str]:
        """The turn with its text in one piece."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role, "content": text}


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


_Limit = Annotated[int, Field(gt=0, le=MOST_NEW_TOKENS)]


class Asked(BaseModel):
    """A request for a chat completion. None: left out."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    messages: Annotated[list[_Turn], Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    """0 and -1 are off."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: _Limit | None = None
    max_completion_tokens: _Limit | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None
    return_token_ids: bool = False
    """vLLM's: the ids that were sampled stand in the choice, as `token_ids`."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_changes_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = {name: value for name, value in data.items() if value is not None and name not in _IGNORED}
        return {name: value for name, value in given.items() if name not in _NEUTRAL or value != _NEUTRAL[name]}

    @property
    def chat(self) -> Chat:
        """The conversation."""
        return [turn.plain() for turn in self.messages]

    @property
    def longest(self) -> int | None:
        """Tokens of the answer at most."""
        return self.max_completion_tokens or self.max_tokens


def parse(body: bytes) -> Asked:
    """The request in a body.

    Raises:
        BadRequest: everything that is wrong with it.
    """
    try:
        asked = Asked.model_validate(json_decode(body))
    except ValidationError as error:
        raise BadRequest("; ".join(_fault(fault) for fault in error.errors())) from None
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if asked.messages[-1].role != "user":
        raise BadRequest(f"messages: the last turn has to be the user's, not the {asked.messages[-1].role}'s")
    return asked


def _fault(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "the body"
    if fault["type"] == "extra_forbidden":
        but = f", except as {json_encode(_NEUTRAL[where]).decode()}" if where in _NEUTRAL else ""
        return f"{where} is not supported{but}"
    return f"{where}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def answer(asked: Asked, completion: Completion, end_id: int) -> dict[str, Any]:
    """The body of a whole answer.

    Args:
        asked: the request.
        completion: the answer.
        end_id: the token that ends a turn; it is the last of `token_ids`, as vLLM has it.
    """
    choice = {"message": {"role": "assistant", "content": completion.text}, **_ending(asked, completion, end_id)}
    return {**_head(asked, "chat.completion"), "choices": [choice], "usage": _usage(completion)}


def events(asked: Asked, completion: Completion, end_id: int) -> Iterator[bytes]:
    """The same as server-sent events. The text comes in one piece: it is decoded beside others, and sent when whole."""
    head = _head(asked, "chat.completion.chunk")
    said = {"index": 0, "delta": {"role": "assistant", "content": completion.text}, "finish_reason": None}
    yield _event({**head, "choices": [said]})
    yield _event({**head, "choices": [{"delta": {}, **_ending(asked, completion, end_id)}]})
    if asked.stream_options and asked.stream_options.include_usage:
        yield _event({**head, "choices": [], "usage": _usage(completion)})
    yield b"data: [DONE]\n\n"


def error(message: str, kind: str) -> dict[str, Any]:
    """The body of a refusal."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _head(asked: Asked, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": asked.model}


def _ending(asked: Asked, completion: Completion, end_id: int) -> dict[str, Any]:
    ended = completion.stop == "end"
    choice = {"index": 0, "logprobs": None, "finish_reason": "stop" if ended else "length"}
    if not asked.return_token_ids:
        return choice
    return {**choice, "token_ids": [*(completion.token_ids or ()), *([end_id] if ended else [])]}


def _usage(completion: Completion) -> dict[str, int]:
    prompt, answered = completion.prompt_tokens, completion.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": answered, "total_tokens": prompt + answered}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json_encode(data) + b"\n\n"

"""The server's side of OpenAI's completions, of chats and of text: requests and answers as data.

`llm.wire` is the client's side. A field that would change the answer and is not known here is refused, never ignored.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from socratune.llm import Chat
from socratune.runs import json_decode, json_encode

MOST_NEW_TOKENS = 131_072
"""Of one answer: random numbers and, on a GPU, room in the cache are set aside for all of them."""

MOST_CHOICES = 128
"""Answers to one request."""
_IGNORED = ("user", "metadata", "store")
"""Fields that change no answer."""
_NEUTRAL: dict[str, Any] = {
    "min_p": 0, "presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1, "logit_bias": {},
    "logprobs": False, "top_logprobs": 0, "response_format": {"type": "text"}, "tools": [], "tool_choice": "none",
    "best_of": 1, "suffix": "",
}  # fmt: skip
"""Fields that are taken with the value that changes nothing."""


class BadRequest(ValueError):
    """The errors of a request, in words for its sender."""


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair at character {error.start + 1}, which is not valid text") from None
    return text


_Text = Annotated[str, AfterValidator(_encodable)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: _Text


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: _Text | list[_Part]

    def plain(self) -> dict[str, str]:
        """Returns the turn with its text in one piece."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role, "content": text}


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


_Limit = Annotated[int, Field(gt=0, le=MOST_NEW_TOKENS)]


class _Drawn(BaseModel):
    """What both kinds of request say about sampling. None stands for an omitted field."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    """0 and -1 are off."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Of the first choice; the others count on from it."""
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] = 1
    stop: str | Annotated[list[str], Field(max_length=16)] = []
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
        if data.get("top_logprobs") and not data.get("logprobs"):
            raise ValueError("top_logprobs needs logprobs: true")
        given = {name: value for name, value in data.items() if value is not None and name not in _IGNORED}
        return {name: value for name, value in given.items() if name not in _NEUTRAL or not _neutral(name, value)}

    @property
    def longest(self) -> int | None:
        """Returns the most tokens of the answer, or None."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> list[str]:
        """Returns the texts that end an answer and are not part of it."""
        return [text for text in ([self.stop] if isinstance(self.stop, str) else self.stop) if text]


def _neutral(name: str, value: Any) -> bool:
    known = _NEUTRAL[name]
    return value == known and isinstance(value, bool) == isinstance(known, bool)  # 0 logprobs are some


class Asked(_Drawn):
    """A request for a chat completion."""

    messages: Annotated[list[_Turn], Field(min_length=1)]
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0

    @property
    def odds(self) -> int | None:
        """Returns how many of the likeliest tokens to report at each place, or None for no probabilities at all."""
        return self.top_logprobs if self.logprobs else None

    @property
    def chat(self) -> Chat:
        """Returns the conversation."""
        return [turn.plain() for turn in self.messages]


class AskedText(_Drawn):
    """A request for a completion of plain text, without a chat template."""

    prompt: _Text | Annotated[list[_Text], Field(min_length=1, max_length=MOST_CHOICES)]
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def odds(self) -> int | None:
        """Returns the same for a text."""
        return self.logprobs

    @property
    def prompts(self) -> list[str]:
        """Returns the prompts. Each gets its own `n` choices."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


Request = TypeVar("Request", bound=Asked | AskedText)


def parse(kind: type[Request], body: bytes) -> Request:
    """Returns the request in a body.

    Raises:
        BadRequest: everything that is wrong with it.
    """
    try:
        asked = kind.model_validate(json_decode(body))
    except ValidationError as error:
        raise BadRequest("; ".join(_fault(fault) for fault in error.errors())) from None
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if isinstance(asked, Asked) and asked.messages[-1].role != "user":
        raise BadRequest(f"messages: the last turn must be the user's, not the {asked.messages[-1].role}'s")
    if isinstance(asked, AskedText) and asked.n * len(asked.prompts) > MOST_CHOICES:
        raise BadRequest(f"prompt: at most {MOST_CHOICES} choices in all, {asked.n} each")
    return asked


def _fault(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "the body"
    if fault["type"] == "extra_forbidden":
        but = f", except as {json_encode(_NEUTRAL[where]).decode()}" if where in _NEUTRAL else ""
        return f"{where} is not supported{but}"
    if fault["type"] == "model_type":
        return f"{where}: expected an object"
    said = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {said[0].lower()}{said[1:]}"


class Saying:
    """An answer as it grows: its text up to a stop, which may begin in one token and end in another.

    Attributes:
        ids: the tokens so far.
        stopped: one of the stops has come; the text ends before it.

    Args:
        decode: ids to text.
        stops: texts that end it.
        stripped: without white space around it, as the answers of a chat are.
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str], *, stripped: bool) -> None:
        self._decode, self._stops, self._stripped = decode, stops, stripped
        self.ids: list[int] = []
        self.stopped = False
        self._raw = self._shown = ""
        self._from = self._read = 0  # of the ids: what the next is decoded behind, and what is decoded

    def hear(self, token: int) -> str:
        """Returns the text that this token makes certain: whole characters that cannot begin a stop."""
        self.ids.append(token)
        self._extend(whole=True)
        return self._show(held=self._held())

    def end(self) -> str:
        """Returns the remaining text once no more tokens come."""
        if not self.stopped:
            self._extend(whole=False)
        return self._show(held=0)

    @property
    def text(self) -> str:
        """Returns the text shown so far."""
        return self._shown

    @property
    def shown_ids(self) -> list[int]:
        """Returns the tokens whose whole text lies before a stop."""
        kept = len(self.ids)
        while self.stopped and kept and len(self._decode(self.ids[:kept])) > len(self._raw):
            kept -= 1
        return self.ids[:kept]

    def _extend(self, *, whole: bool) -> None:
        before, now = self._decode(self.ids[self._from : self._read]), self._decode(self.ids[self._from :])
        if (whole and now.endswith("\ufffd")) or len(now) <= len(before):
            return
        self._raw += now[len(before) :]
        self._from, self._read = self._read, len(self.ids)
        found = [at for at in map(self._raw.find, self._stops) if at >= 0]
        if found:
            self._raw, self.stopped = self._raw[: min(found)], True

    def _held(self) -> int:
        """Returns the number of characters at the end that may begin a stop."""
        if self.stopped:
            return 0
        ends = (size for stop in self._stops for size in range(1, len(stop)) if self._raw.endswith(stop[:size]))
        return max(ends, default=0)

    def _show(self, held: int) -> str:
        text = self._raw[: len(self._raw) - held]
        text = text.strip() if self._stripped else text
        piece, self._shown = text[len(self._shown) :], text
        return piece


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: its text, how it ended, and its tokens."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: dict[str, Any] | None = None

    def ending(self, asked: _Drawn) -> dict[str, Any]:
        """Returns everything but the text."""
        told = {"index": self.index, "logprobs": self.logprobs, "finish_reason": self.finish_reason}
        return {**told, "token_ids": self.token_ids} if asked.return_token_ids else told


def answer(asked: _Drawn, choices: Sequence[Choice]) -> dict[str, Any]:
    """Returns the body of a complete answer."""
    chat = isinstance(asked, Asked)
    said = [{"message": {"role": "assistant", "content": one.text}} if chat else {"text": one.text} for one in choices]
    full = [{**text, **one.ending(asked)} for text, one in zip(said, choices, strict=True)]
    head = _head(asked, "chat.completion" if chat else "text_completion")
    return {**head, "choices": full, "usage": _usage(asked, choices)}


def logprobs(
    asked: Asked | AskedText, texts: Sequence[str], odds: Sequence[float], others: Sequence[Sequence[tuple[str, float]]]
) -> dict[str, Any]:
    """Returns tokens with the logarithms of their probabilities, in the form of the request's kind.

    Args:
        texts: of the tokens.
        odds: one for each.
        others: the likeliest texts of each place, with theirs.
    """
    if isinstance(asked, Asked):
        said = zip(texts, odds, others, strict=True)
        content = [{**_token(text, own), "top_logprobs": [_token(*each) for each in most]} for text, own, most in said]
        return {"content": content, "refusal": None}
    offsets = accumulate(map(len, texts[:-1]), initial=0) if texts else ()
    tops = [dict(most) for most in others] if asked.odds else None
    return {"tokens": [*texts], "token_logprobs": [*odds], "top_logprobs": tops, "text_offset": [*offsets]}


def _token(text: str, odds: float) -> dict[str, Any]:
    return {"token": text, "logprob": odds, "bytes": None if "\ufffd" in text else list(text.encode())}


class Events:
    """Answers as server-sent events, one for each piece of text."""

    def __init__(self, asked: _Drawn) -> None:
        self._asked = asked
        self._chat = isinstance(asked, Asked)
        self._head = _head(asked, "chat.completion.chunk" if self._chat else "text_completion")
        self._begun: set[int] = set()

    def piece(self, index: int, text: str) -> bytes:
        """Returns the event for new text of a choice."""
        role = {} if index in self._begun else {"role": "assistant"}
        self._begun.add(index)
        said = {"delta": {**role, "content": text}} if self._chat else {"text": text}
        choice = {"index": index, **said, "logprobs": None, "finish_reason": None}
        return _event({**self._head, "choices": [choice]})

    def ended(self, choice: Choice) -> bytes:
        """Returns the event for a complete choice."""
        nothing = {"delta": {}} if self._chat else {"text": ""}
        return _event({**self._head, "choices": [{**nothing, **choice.ending(self._asked)}]})

    def last(self, choices: Sequence[Choice]) -> bytes:
        """Returns the usage, if it was requested, and the end of the stream."""
        asked = self._asked.stream_options
        usage = {**self._head, "choices": [], "usage": _usage(self._asked, choices)}
        return (_event(usage) if asked and asked.include_usage else b"") + b"data: [DONE]\n\n"

    def failed(self, message: str) -> bytes:
        """Returns the event for an error after the answer began."""
        return _event(error(message, "server_error"))


def error(message: str, kind: str) -> dict[str, Any]:
    """Returns the body of a refusal."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _head(asked: _Drawn, kind: str) -> dict[str, Any]:
    own = "chatcmpl" if isinstance(asked, Asked) else "cmpl"
    return {"id": f"{own}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": asked.model}


def _usage(asked: _Drawn, choices: Sequence[Choice]) -> dict[str, int]:
    """Returns the token counts. A prompt counts once for all its choices."""
    prompt = sum(one.prompt_tokens for one in choices[:: asked.n])
    answered = sum(one.completion_tokens for one in choices)
    return {"prompt_tokens": prompt, "completion_tokens": answered, "total_tokens": prompt + answered}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json_encode(data) + b"\n\n"

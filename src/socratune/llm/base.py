"""Defines a model for the loop: an async function from messages to a completion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from socratune.errors import Fault, UserError
from socratune.llm.locate import chat_template, model_json
from socratune.rows import read_token_ids

Chat = list[dict[str, str]]
WARM = 0.7
"""The temperature from which another draw gives another answer. A greedy model repeats its mistakes (0 of 35 third
attempts were right).
"""


StudentEngine = Literal["local", "served", "vllm", "http"]
"""`served`: our own engine on another machine, behind a `socratune serve` that this run started."""


Stop = Literal["end", "length", "loop", "told"]
"""Why an answer stopped: it was complete, it reached its limit, it repeated itself, or its reader ended it."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Holds how to draw an answer. Everything here changes the answer, so all of it is in the journal's key.

    Attributes:
        temperature: 0 is greedy.
        top_p: probability mass kept; 1 is off.
        top_k: candidates kept; 0 is off.
        max_new_tokens: an answer cut off here has `stop == "length"`.
        seed: of this one answer, so that an answer does not depend on what is drawn beside it.
        json_schema: the answer's JSON schema as JSON text, sent where the endpoint takes one; None for free text.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 1024
    seed: int = 0
    json_schema: str | None = None

    def drawn(self, seed: int, temperature: float | None = None) -> Sampling:
        """Returns a copy with another seed and perhaps another temperature, three times as fast as `replace`."""
        temperature = self.temperature if temperature is None else temperature
        return Sampling(temperature, self.top_p, self.top_k, self.max_new_tokens, seed, self.json_schema)

    def key(self) -> list[Any]:
        """Returns all of it, for the journal's key."""
        return [self.temperature, self.top_p, self.top_k, self.max_new_tokens, self.seed, self.json_schema]


@dataclass(frozen=True, slots=True)
class Completion:
    """Holds an answer and what it cost."""

    text: str
    stop: Stop = "end"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    token_ids: tuple[int, ...] | None = None
    """The sampled ids without the end of turn, of which a model may know several. None if the server hides them."""

    def to_json(self) -> dict[str, Any]:
        """Returns the answer as the journal stores it."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Completion:
        """Returns the answer of a journal entry, the inverse of `to_json`."""
        return cls(**{**data, "token_ids": read_token_ids(data["token_ids"])})

    @classmethod
    def read(cls, data: dict[str, Any]) -> Completion | None:
        """Returns the answer of an entry in a possibly corrupt journal, or None if it is no answer."""
        try:
            completion = cls.from_json(data)
        except (LookupError, TypeError):
            return None
        counted = type(completion.prompt_tokens) is type(completion.completion_tokens) is int
        good = isinstance(completion.text, str) and completion.stop in get_args(Stop) and counted
        return completion if good else None


class ChatModel(Protocol):
    """Answers conversations.

    Attributes:
        name: for people and for the results.
        fingerprint: changes when the same messages may get another answer (weights, template, quantisation).
    """

    name: str
    fingerprint: str

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        """Returns the answer to `messages`, whose last turn is the user's."""
        ...


# --- how a student draws its answers -------------------------------------------------------------------------------

_PLAIN = (0.7, 0.8)
THINKING = (0.6, 0.95)
"""Temperature and top-p if the model names none. A thinking model that is read greedily may repeat itself for ever."""


def choose_sampling(
    own: Mapping[str, Any], *, thinking: bool, temperature: float | None, top_p: float | None, max_new_tokens: int
) -> Sampling:
    """Returns the requested sampling, otherwise the model's own, otherwise 0.7 and 0.8 (thinking: 0.6 and 0.95).

    Args:
        own: the model's generation_config; temperature, top-p, top-k and do_sample are read, its penalties are not.
        thinking: see `is_thinking`. Such a model's own `do_sample: false` does not count.

    Raises:
        UserError: temperature 0 is asked for and the model thinks.
    """
    if thinking and temperature == 0:
        fix = "Leave it out: then the model's own is taken, or 0.6."
        raise UserError(Fault("enhance.temperature", "more than 0, as this model thinks before it answers", 0, fix))
    greedy = own.get("do_sample") is False
    if greedy and not thinking:
        usual = Sampling(temperature=0.0)
    elif not greedy and (own.get("do_sample") or own.get("temperature") not in (None, 1.0)):
        usual = Sampling(own.get("temperature") or 1.0, own.get("top_p") or 1.0, own.get("top_k") or 0)
    else:
        usual = Sampling(*(THINKING if thinking else _PLAIN))
    return Sampling(
        temperature=usual.temperature if temperature is None else temperature,
        top_p=usual.top_p if top_p is None else top_p,
        top_k=usual.top_k,
        max_new_tokens=max_new_tokens,
    )


def exam_sampling(own: Mapping[str, Any], *, thinking: bool, max_new_tokens: int) -> Sampling:
    """Returns the sampling of answers that are compared: greedy, without chance. A thinking model samples as always.

    Args:
        own: as for `choose_sampling`.
    """
    if thinking:
        return choose_sampling(own, thinking=True, temperature=None, top_p=None, max_new_tokens=max_new_tokens)
    return Sampling(temperature=0.0, max_new_tokens=max_new_tokens)


def served_sampling(name: str, *, temperature: float | None, top_p: float | None, max_new_tokens: int) -> Sampling:
    """Returns the same for a model on a server, from its files here or on the Hub.

    Args:
        name: folder, Hub id or `demo`.

    Raises:
        OutsideError: the files are on the Hub, and the Hub could not be asked.
    """
    return choose_sampling(
        model_json(name, "generation_config.json"),
        thinking=is_thinking(chat_template(name) or ""),
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
    )


def is_thinking(template: str) -> bool:
    """Returns True if a model with this chat template thinks before it answers when asked without switches.

    The vocabulary does not tell: a plain model may share it, `<think>` included, with a thinking one of its family.
    """
    if "think" not in template:
        return False
    try:
        return _thinks(template)
    except Exception:  # a template may raise anything; preflight says of one that raises what is wrong
        return False


def _thinks(template: str) -> bool:
    prompt = _prompt(template)
    if prompt.rstrip().endswith("</think>"):  # an empty block, closed before the model begins
        return False
    if "enable_thinking" in template:
        return prompt != _prompt(template, enable_thinking=False)
    return "<think>" in template or "</think>" in template


def _prompt(template: str, **switches: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    question: list[Any] = [{"role": "user", "content": "?"}]
    marks = {"bos_token": "", "eos_token": "", "unk_token": "", "pad_token": ""}
    rendered, _ = render_jinja_template(
        [question], chat_template=template, add_generation_prompt=True, **marks, **switches
    )
    return rendered[0]

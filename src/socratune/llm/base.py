"""What a model is to the loop: an async function from messages to a completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Chat = list[dict[str, str]]
WARM = 0.7
"""From this temperature on another draw is another answer; a greedy model repeats its mistakes (0 of 35 third attempts
were right).
"""


StudentEngine = Literal["local", "served", "vllm", "http"]
"""`served`: our own engine on another machine, behind a `socratune serve` that this run started."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw an answer. Everything here changes the answer, so all of it is in the journal's key.

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
        """The same with another seed, and another temperature where one is given; three times as fast as `replace`."""
        temperature = self.temperature if temperature is None else temperature
        return Sampling(temperature, self.top_p, self.top_k, self.max_new_tokens, seed, self.json_schema)

    def key(self) -> list[Any]:
        """All of it, for the journal's key."""
        return [self.temperature, self.top_p, self.top_k, self.max_new_tokens, self.seed, self.json_schema]


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer with what it took."""

    text: str
    stop: Literal["end", "length"] = "end"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    token_ids: tuple[int, ...] | None = None
    """The sampled ids without the end of turn, of which a model may know several; None where a server does not tell."""

    def to_json(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return {
            "text": self.text,
            "stop": self.stop,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "token_ids": self.token_ids,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Completion:
        """The inverse of `to_json`."""
        ids = data["token_ids"]
        return cls(**{**data, "token_ids": None if ids is None else tuple(ids)})


class ChatModel(Protocol):
    """Anything that answers a conversation.

    Attributes:
        name: for people and for the results.
        fingerprint: changes when the same messages may get another answer (weights, template, quantisation).
    """

    name: str
    fingerprint: str

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        """The answer to `messages`, whose last turn is the user's."""
        ...

"""Provides a model with scripted answers, for tests and examples."""

from __future__ import annotations

from collections.abc import Callable

from socratune.llm.base import Chat, Completion, Sampling


class ScriptedModel:
    """Answers by a function of the messages and keeps every conversation in `seen`."""

    def __init__(self, answer: Callable[[Chat], str], name: str = "scripted") -> None:
        self.name = name
        self.fingerprint = name
        self.seen: list[Chat] = []
        self._answer = answer

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        """Returns the function's answer and counts one token per word."""
        self.seen.append(messages)
        text = self._answer(messages)
        asked = sum(len(message["content"].split()) for message in messages)
        return Completion(text, prompt_tokens=asked, completion_tokens=len(text.split()))

"""A model whose finished calls are kept: asked again, the journal answers and nothing is computed or paid twice."""

from __future__ import annotations

import time
from dataclasses import asdict

from socratune.journal import Journal
from socratune.llm.base import Chat, ChatModel, Completion, Sampling
from socratune.rundir import fingerprint


class MeteredModel:
    """`model` behind the journal; `role` is `STAGE.WHO`, e.g. `enhance.student`.

    A cut-off answer is not kept (more tokens would change it), errors never reach the journal.
    """

    def __init__(self, model: ChatModel, journal: Journal, role: str) -> None:
        self.name = model.name
        self.fingerprint = model.fingerprint
        self._model = model
        self._journal = journal
        self._role = role

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        """The journal's answer if this very call is in it, else the model's."""
        key = fingerprint(self._role, self.fingerprint, messages, asdict(sampling))
        if found := self._journal.find_call(key):
            return Completion.from_json(found)
        started = time.monotonic()
        completion = await self._model.generate(messages, sampling)
        if completion.stop == "end":
            await self._journal.put_call(
                key,
                role=self._role,
                model=self.name,
                answer=completion.to_json(),
                tokens=(completion.prompt_tokens, completion.completion_tokens),
                seconds=time.monotonic() - started,
            )
        return completion

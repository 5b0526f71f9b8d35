"""A model whose finished calls are kept: asked again, the journal answers and nothing is computed or paid twice."""

from __future__ import annotations

import time
from contextlib import nullcontext

from socratune.journal import Journal
from socratune.ledger import FREE, Ledger, Price
from socratune.llm.base import Chat, ChatModel, Completion, Sampling
from socratune.rundir import fingerprint

CHARACTERS_PER_TOKEN = 3
"""Low on purpose: the reservation before a call should not be less than the call."""


class MeteredModel:
    """`model` behind the journal and the ledger; `role` is `STAGE.WHO`, e.g. `enhance.student`.

    A cut-off answer is not kept (more tokens would change it), errors never reach the journal.
    """

    def __init__(
        self, model: ChatModel, journal: Journal, role: str, *, ledger: Ledger | None = None, price: Price = FREE
    ) -> None:
        self.name = model.name
        self.fingerprint = model.fingerprint
        self._model = model
        self._journal = journal
        self._role = role
        self._ledger = ledger
        self._price = price
        if ledger is not None:
            spent = journal.spent().get(role)
            if spent:
                ledger.spend(role, price, int(spent["prompt_tokens"]), int(spent["completion_tokens"]))

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        """The journal's answer if this very call is in it, else the model's.

        Raises:
            BudgetSpent: the call could go over the limit.
        """
        key = fingerprint(self._role, self.fingerprint, messages, sampling.key())
        if found := self._journal.find_call(key):
            return Completion.from_json(found)
        started = time.monotonic()
        with self._reserved(messages, sampling):
            completion = await self._model.generate(messages, sampling)
        tokens = (completion.prompt_tokens, completion.completion_tokens)
        if self._ledger is not None:
            self._ledger.spend(self._role, self._price, *tokens)
        if completion.stop == "end":
            await self._journal.put_call(
                key,
                role=self._role,
                model=self.name,
                answer=completion.to_json(),
                tokens=tokens,
                seconds=time.monotonic() - started,
            )
        return completion

    def _reserved(self, messages: Chat, sampling: Sampling):
        if self._ledger is None:
            return nullcontext()
        characters = sum(len(message["content"]) for message in messages)
        return self._ledger.reserved(self._price, characters // CHARACTERS_PER_TOKEN + 8, sampling.max_new_tokens)

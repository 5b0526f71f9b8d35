"""A model whose finished calls are kept: asked again, the journal answers and nothing is computed or paid twice."""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import nullcontext
from dataclasses import replace

from socratune.llm.base import Chat, ChatModel, Completion, Sampling
from socratune.llm.ledger import FREE, Ledger, Price, price_of, tally
from socratune.runs import Journal, json_encode

log = logging.getLogger(__name__)

CHARACTERS_PER_TOKEN = 3
"""Low on purpose: the reservation before a call should not be less than the call."""


class MeteredModel:
    """`model` behind the journal and the ledger; `role` is `STAGE.WHO`, e.g. `enhance.student`.

    Whatever was paid is kept, cut-off answers too (a longer limit is another call); errors never reach the journal.
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
        self._warned = False
        if ledger is not None:
            for name, prompt_tokens, completion_tokens in journal.spent_by(role):
                paid = price if name == self.name else _price_of(name)  # another model did this role before
                ledger.spend(role, paid, prompt_tokens, completion_tokens)

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        """The journal's answer if this very call is in it, else the model's.

        Raises:
            BudgetSpent: the call could go over the limit.
        """
        key = call_key(self._role, self.fingerprint, messages, sampling)
        if found := self._journal.find_call(key):
            return self._tallied(Completion.from_json(found), replayed=True)
        started = time.monotonic()
        async with self._reserved(messages, sampling):
            completion = self._counted(await self._model.generate(messages, sampling), messages, sampling)
            tokens = (completion.prompt_tokens, completion.completion_tokens)
            if self._ledger is not None:
                self._ledger.spend(self._role, self._price, *tokens)
        await self._journal.put_call(
            key,
            role=self._role,
            model=self.name,
            answer=completion.to_json(),
            tokens=tokens,
            seconds=time.monotonic() - started,
        )
        return self._tallied(completion, replayed=False)

    def _counted(self, completion: Completion, messages: Chat, sampling: Sampling) -> Completion:
        """The completion with tokens: what a server does not count is estimated, as unknown is never nothing."""
        if self._ledger is None or completion.prompt_tokens or completion.completion_tokens:
            return completion
        if not self._warned:
            self._warned = True
            log.warning("%s does not say how many tokens it took; they are estimated from the texts.", self.name)
        answered = most_tokens(completion.text)
        return replace(completion, prompt_tokens=_prompt_tokens(messages, sampling), completion_tokens=answered)

    def _tallied(self, completion: Completion, *, replayed: bool) -> Completion:
        if (row := tally.get()) is not None:
            tokens = (completion.prompt_tokens, completion.completion_tokens)
            row.add(self._role, self._price, *tokens, replayed=replayed)
        return completion

    def _reserved(self, messages: Chat, sampling: Sampling):
        if self._ledger is None or (self._ledger.limits.usd is None and self._ledger.limits.tokens is None):
            return nullcontext()
        return self._ledger.reserved(self._price, _prompt_tokens(messages, sampling), sampling.max_new_tokens)


def most_tokens(text: str) -> int:
    """About the most tokens a text may take: a third of its ASCII characters, and every byte of the others, of which a
    byte-level tokenizer never needs more.
    """
    plain = len(text.encode("ascii", "ignore"))
    return plain // CHARACTERS_PER_TOKEN + len(text.encode("utf-8", "replace")) - plain


def _prompt_tokens(messages: Chat, sampling: Sampling) -> int:
    text = "".join(message["content"] for message in messages) + (sampling.json_schema or "")
    return most_tokens(text) + 8 * (len(messages) + 1)


def _price_of(name: str) -> Price:
    provider, _, model = name.partition("/")
    return price_of(provider, model)


def call_key(role: str, fingerprint: str, messages: Chat, sampling: Sampling) -> bytes:
    """16 bytes that change with whatever may change the answer, and with the role, as money is counted by role."""
    return hashlib.blake2b(json_encode([role, fingerprint, messages, *sampling.key()]), digest_size=16).digest()

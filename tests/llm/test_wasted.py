"""Tries that were billed and brought no answer: they count like any other, now and after a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from model_server import Answer, ModelServer

from socratune.errors import CallError
from socratune.llm import http
from socratune.llm.base import Completion, Sampling
from socratune.llm.http import HttpModel
from socratune.llm.ledger import BudgetSpent, Ledger, Limits, MeteredModel, Price, tally_calls
from socratune.runs.journal import Journal

HELLO = [{"role": "user", "content": "hello"}]
ROLE, PRICE = "enhance.judge", Price(0.001, 0.01)
FINE = Answer("fine", tokens=(9, 4))


def openai(ending: object, usage: dict[str, int] | None, **message: Any) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": ending}
    return Answer(raw=json.dumps({"choices": [choice]} | ({"usage": usage} if usage else {})).encode())


def anthropic(ending: object, *blocks: dict[str, Any]) -> Answer:
    usage = {"input_tokens": 30, "output_tokens": 20}
    return Answer(raw=json.dumps({"content": blocks, "stop_reason": ending, "usage": usage}).encode())


USAGE = {"prompt_tokens": 30, "completion_tokens": 20}
WASTED = {
    "tools alone": openai("tool_calls", USAGE, content=None, tool_calls=[{"id": "1"}]),
    "null": openai("stop", USAGE, content=None),
    "aborted": openai("abort", USAGE, content="The ans"),
    "broken off": openai(None, USAGE, content="The ans"),
    "no choice": Answer(raw=json.dumps({"choices": [], "usage": USAGE}).encode()),
    "no answer in it": Answer(raw=json.dumps({"choices": None, "usage": USAGE}).encode()),
    "anthropic: a tool": anthropic("tool_use", {"type": "tool_use", "id": "1", "name": "f", "input": {}}),
    "anthropic: paused": anthropic("pause_turn", {"type": "text", "text": "The ans"}),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BACKOFF_BASE_S", 0.002)
    monkeypatch.setattr(http, "_BACKOFF_CAP_S", 0.01)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "j.sqlite")) as opened:
        yield opened


def ask(journal: Journal, ledger: Ledger, *answers: Answer, kind: Any = "openai", seed: int = 0) -> Completion:
    """A metered call whose tries are answered so; the last answer for all further ones."""

    async def work() -> Completion:
        model = HttpModel(kind=kind, model="m", api_bases=[server.url], api_key=None)
        try:
            metered = MeteredModel(model, journal, ROLE, ledger=ledger, price=PRICE)
            return await metered.generate(HELLO, Sampling(max_new_tokens=40, seed=seed))
        finally:
            await model.close()

    with ModelServer(lambda body, number: answers[min(number, len(answers)) - 1]) as server:
        return asyncio.run(work())


@pytest.mark.parametrize(("name", "wasted"), WASTED.items(), ids=WASTED)
def test_a_try_without_an_answer_counts_in_tokens_and_money_and_after_a_restart(
    journal: Journal, name: str, wasted: Answer
) -> None:
    kind, ledger = "anthropic" if name.startswith("anthropic") else "openai", Ledger()
    with tally_calls() as row:
        assert ask(journal, ledger, wasted, wasted, FINE, kind=kind).text == "fine"
    usd = 2 * (30 * 0.001 + 20 * 0.01) + 9 * 0.001 + 4 * 0.01
    assert ledger.tokens[ROLE] == 2 * 50 + 13 and ledger.usd[ROLE] == pytest.approx(usd)
    assert row.tokens[ROLE] == 113
    again = Ledger()
    assert ask(journal, again, WASTED["null"], kind=kind).text == "fine"  # from the journal
    assert again.tokens[ROLE] == 113 and journal.spent()[ROLE]["calls"] == 3


def test_what_a_call_wasted_counts_although_it_never_got_an_answer(journal: Journal) -> None:
    for seed, (answer, tries) in enumerate(
        [(WASTED["tools alone"], 3), (openai("content_filter", USAGE, content=""), 1)]
    ):
        before, ledger = sum(tokens for _, *both in journal.spent_by(ROLE) for tokens in both), Ledger()
        with pytest.raises(CallError):
            ask(journal, ledger, answer, seed=seed)
        assert ledger.tokens[ROLE] == before + 50 * tries
    assert sum(tokens for _, *both in journal.spent_by(ROLE) for tokens in both) == 200


def test_a_wasted_try_that_is_not_counted_is_estimated(journal: Journal) -> None:
    ledger = Ledger()
    ask(journal, ledger, openai("stop", None, content=None), FINE)
    assert ledger.tokens[ROLE] > 13


def test_no_try_is_made_that_could_pass_the_limit(journal: Journal) -> None:
    ledger = Ledger(Limits(tokens=110))  # a try may take 58, those that are wasted took 50
    with pytest.raises(BudgetSpent, match="to continue"):
        ask(journal, ledger, WASTED["null"])
    assert ledger.tokens[ROLE] == 50 or ledger.tokens[ROLE] == 100
    assert ledger.tokens[ROLE] <= 110

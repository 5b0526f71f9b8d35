from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from socratune.journal import Journal
from socratune.ledger import FREE, BudgetSpent, Ledger, Price, price_of
from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.metered import MeteredModel

CENT = Price(0.01, 0.01)  # USD per token
ASK = [{"role": "user", "content": "?" * 30}]


class Counting:
    name = fingerprint = "counting"

    def __init__(self) -> None:
        self.calls = 0

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        self.calls += 1
        await asyncio.sleep(0)
        return Completion("ok", prompt_tokens=10, completion_tokens=5)


def ask_all(model: MeteredModel, seeds: range) -> list[object]:
    async def work() -> list[object]:
        calls = (model.generate(ASK, Sampling(max_new_tokens=10, seed=seed)) for seed in seeds)
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(work())


@pytest.mark.parametrize("limits", [{"max_usd": 1.0}, {"max_total_tokens": 100}])
def test_the_limit_holds_although_calls_are_in_flight(tmp_path: Path, limits: dict[str, float]) -> None:
    ledger, inner = Ledger(**limits), Counting()  # type: ignore[arg-type]
    journal = Journal(tmp_path / "j.sqlite")
    model = MeteredModel(inner, journal, "enhance.judge", ledger=ledger, price=CENT)
    first = ask_all(model, range(50))
    stopped = [result for result in first if isinstance(result, BudgetSpent)]
    assert inner.calls > 0 and stopped and "goes on" in str(stopped[0])
    for at in range(50, 200):  # one after the other, until nothing more fits
        ask_all(model, range(at, at + 1))
    spent = ledger.summary()["enhance.judge"]
    assert spent["usd"] <= 1.0 and spent["tokens"] <= 100
    assert spent["tokens"] > 60  # it does not stop long before the limit either


def test_what_was_spent_before_a_restart_counts_and_is_not_spent_again(tmp_path: Path) -> None:
    inner = Counting()
    for _ in range(2):
        ledger, inner = Ledger(max_total_tokens=1000), Counting()
        journal = Journal(tmp_path / "j.sqlite")
        model = MeteredModel(inner, journal, "enhance.judge", ledger=ledger, price=CENT)
        ask_all(model, range(10))
        journal.close()
        assert ledger.summary()["enhance.judge"] == {"tokens": 150, "usd": 1.5}
    assert inner.calls == 0


def test_an_unknown_price_is_unknown_not_nothing() -> None:
    assert price_of("openai", "my-own-model").usd(1, 1) is None
    ledger = Ledger()
    ledger.spend("judge", Price(None, None), 10, 10)
    assert ledger.summary() == {"judge": {"tokens": 20, "usd": None}}
    known = price_of("openai", "gpt-4o-mini").usd(1000, 1000)
    assert known == pytest.approx(0.00075)
    assert FREE.usd(1000, 1000) == 0

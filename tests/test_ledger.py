from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.ledger import FREE, BudgetSpent, Ledger, Price, price_of
from socratune.llm.metered import MeteredModel, most_tokens
from socratune.runs.journal import Journal

CENT = Price(0.01, 0.01)  # USD per token
ASK = [{"role": "user", "content": "?" * 30}]


class Counting:
    name = fingerprint = "counting"

    def __init__(self, completion: Completion | None = None) -> None:
        self.calls = 0
        self.completion = completion or Completion("ok", prompt_tokens=10, completion_tokens=5)

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        self.calls += 1
        await asyncio.sleep(0)
        return self.completion


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


def test_calls_wait_for_the_worst_case_of_others_and_only_a_spent_budget_stops(tmp_path: Path) -> None:
    """All of it costs 750 tokens; the worst cases of 50 calls at once would be 1,800."""
    ledger, inner = Ledger(max_total_tokens=800), Counting()
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        found = ask_all(MeteredModel(inner, journal, "enhance.judge", ledger=ledger), range(50))
    assert all(isinstance(result, Completion) for result in found) and inner.calls == 50
    assert ledger.summary()["enhance.judge"]["tokens"] == 750


def test_a_cut_off_answer_is_paid_once_and_counts_after_a_restart(tmp_path: Path) -> None:
    for expected_calls in (10, 0):
        ledger, inner = Ledger(max_total_tokens=1000), Counting(Completion("15 ti", "length", 10, 5))
        with closing(Journal(tmp_path / "j.sqlite")) as journal:
            found = ask_all(MeteredModel(inner, journal, "enhance.judge", ledger=ledger), range(10))
        assert inner.calls == expected_calls and ledger.summary()["enhance.judge"]["tokens"] == 150
        assert all(isinstance(result, Completion) and result.stop == "length" for result in found)


def test_another_model_before_keeps_its_own_price(tmp_path: Path) -> None:
    for name, price in (("openai/gpt-4o", price_of("openai", "gpt-4o")), ("counting", FREE)):
        ledger, inner = Ledger(), Counting()
        inner.name = name
        with closing(Journal(tmp_path / "j.sqlite")) as journal:
            ask_all(MeteredModel(inner, journal, "enhance.judge", ledger=ledger, price=price), range(10))
    assert ledger.usd["enhance.judge"] == pytest.approx(price_of("openai", "gpt-4o").usd(100, 50))


def test_what_a_server_does_not_count_is_estimated_and_not_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(max_total_tokens=10_000)
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        silent = Counting(Completion("It is forty-two, all in all."))
        ask_all(MeteredModel(silent, journal, "enhance.judge", ledger=ledger), range(10))
    assert 200 < ledger.summary()["enhance.judge"]["tokens"] < 1000
    assert caplog.text.count("does not say how many tokens") == 1


@pytest.mark.parametrize(
    ("text", "at_least"), [("hello " * 30, 45), ("多少钱？" * 30, 144), ("🙂" * 30, 60), ("สวัสดี" * 9, 54)]
)
def test_the_worst_case_of_a_text_is_no_less_than_it_takes(text: str, at_least: int) -> None:
    assert at_least <= most_tokens(text) <= len(text.encode())


def test_a_call_of_usual_size_is_not_priced_as_a_long_one() -> None:
    assert price_of("anthropic", "claude-sonnet-4-5").usd(1_000_000, 0) == pytest.approx(3.0)


def test_an_unknown_price_is_unknown_not_nothing() -> None:
    assert price_of("openai", "my-own-model").usd(1, 1) is None
    ledger = Ledger()
    ledger.spend("judge", Price(None, None), 10, 10)
    assert ledger.summary() == {"judge": {"tokens": 20, "usd": None}}
    known = price_of("openai", "gpt-4o-mini").usd(1000, 1000)
    assert known == pytest.approx(0.00075)
    assert FREE.usd(1000, 1000) == 0

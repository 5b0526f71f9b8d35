from __future__ import annotations

import asyncio
import random
from contextlib import closing
from pathlib import Path

import pytest

from socratune.config import BudgetConfig
from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.budget import PARTS, budget_faults, budget_text, shared_out
from socratune.llm.ledger import FREE, BudgetSpent, Ledger, Limits, MeteredModel, Price, most_tokens, price_of
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


@pytest.mark.parametrize("limits", [Limits(usd=1.0), Limits(tokens=100)])
def test_the_limit_holds_although_calls_are_in_flight(tmp_path: Path, limits: Limits) -> None:
    ledger, inner = Ledger(limits), Counting()
    journal = Journal(tmp_path / "j.sqlite")
    model = MeteredModel(inner, journal, "enhance.judge", ledger=ledger, price=CENT)
    first = ask_all(model, range(50))
    stopped = [result for result in first if isinstance(result, BudgetSpent)]
    assert inner.calls > 0 and stopped and "to continue" in str(stopped[0])
    for at in range(50, 200):  # one after the other, until nothing more fits
        ask_all(model, range(at, at + 1))
    spent = ledger.summary()["enhance.judge"]
    assert spent["usd"] <= 1.0 and spent["tokens"] <= 100
    assert spent["tokens"] > 60  # it does not stop long before the limit either


def test_what_was_spent_before_a_restart_counts_and_is_not_spent_again(tmp_path: Path) -> None:
    inner = Counting()
    for _ in range(2):
        ledger, inner = Ledger(Limits(tokens=1000)), Counting()
        journal = Journal(tmp_path / "j.sqlite")
        model = MeteredModel(inner, journal, "enhance.judge", ledger=ledger, price=CENT)
        ask_all(model, range(10))
        journal.close()
        assert ledger.summary()["enhance.judge"] == {"tokens": 150, "usd": 1.5}
    assert inner.calls == 0


def test_calls_wait_for_the_worst_case_of_others_and_only_a_spent_budget_stops(tmp_path: Path) -> None:
    """All of it costs 750 tokens; the worst cases of 50 calls at once would be 1,800."""
    ledger, inner = Ledger(Limits(tokens=800)), Counting()
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        found = ask_all(MeteredModel(inner, journal, "enhance.judge", ledger=ledger), range(50))
    assert all(isinstance(result, Completion) for result in found) and inner.calls == 50
    assert ledger.summary()["enhance.judge"]["tokens"] == 750


def test_a_cut_off_answer_is_paid_once_and_counts_after_a_restart(tmp_path: Path) -> None:
    for expected_calls in (10, 0):
        ledger, inner = Ledger(Limits(tokens=1000)), Counting(Completion("15 ti", "length", 10, 5))
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
    ledger = Ledger(Limits(tokens=10_000))
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        silent = Counting(Completion("It is forty-two, all in all."))
        ask_all(MeteredModel(silent, journal, "enhance.judge", ledger=ledger), range(10))
    assert 200 < ledger.summary()["enhance.judge"]["tokens"] < 1000
    assert caplog.text.count("does not say how many tokens") == 1


@pytest.mark.parametrize(
    "said",
    [(-100, -100), (0, 0), (0, 40), (100, 0), (1, 1), (-(10**9), 40), (100, 10**9), (10**12, 10**12), (60, 1), (2, 40)],
    ids=str,
)
@pytest.mark.parametrize("limits", [Limits(usd=20.0), Limits(tokens=2000)])
def test_a_limit_stands_on_no_counter_that_cannot_be_true(
    tmp_path: Path, limits: Limits, said: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    """600 characters are asked and answered each; a server that tells the truth would say about 120 tokens each."""
    inner = Counting(Completion("word " * 120, "end", *said))
    ask, ledger = [{"role": "user", "content": "What? " * 100}], Ledger(limits)
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        model = MeteredModel(inner, journal, "enhance.judge", ledger=ledger, price=CENT)

        async def work() -> None:
            for seed in range(50):
                await model.generate(ask, Sampling(max_new_tokens=200, seed=seed))

        with pytest.raises(BudgetSpent):
            asyncio.run(work())
    assert 3 <= inner.calls <= 8
    assert ledger.summary()["enhance.judge"]["tokens"] >= 120 * inner.calls
    assert caplog.text.count("estimated from the texts") == 1


@pytest.mark.parametrize("said", [(100, 120), (160, 40), (5000, 120), (90, 4000)], ids=str)
def test_a_counter_that_can_be_true_is_believed(tmp_path: Path, said: tuple[int, int]) -> None:
    """Also where a server reads a prompt of its own besides, or thinks what it does not show."""
    inner = Counting(Completion("word " * 120, "end", *said))
    ledger = Ledger(Limits(tokens=100_000))
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        model = MeteredModel(inner, journal, "enhance.judge", ledger=ledger)
        ask = [{"role": "user", "content": "What? " * 100}]
        found = asyncio.run(model.generate(ask, Sampling(max_new_tokens=1024)))
    assert (found.prompt_tokens, found.completion_tokens) == said
    assert ledger.summary()["enhance.judge"]["tokens"] == sum(said)


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


def test_the_money_of_a_run_is_shared_out_among_the_parts_it_has() -> None:
    assert shared_out(12, BudgetConfig(), PARTS).shares == {"generate": 2, "enhance": 4, "where": 6}
    assert shared_out(12, BudgetConfig(), ["enhance"]).shares == {"enhance": 12}
    assert shared_out(12, BudgetConfig(enhance=9), PARTS).shares == {"generate": 0.75, "enhance": 9, "where": 2.25}
    assert shared_out(None, BudgetConfig(enhance=9), PARTS).shares == {"generate": None, "enhance": 9, "where": 50}
    assert shared_out(None, BudgetConfig(where="unlimited"), ["where"]).limit("where", {}) is None
    assert shared_out(None, BudgetConfig(), ["generate"]).limit("generate", {"generate": 3}) is None


def test_what_a_part_leaves_flows_on_and_what_is_promised_to_others_stays_theirs() -> None:
    budget = shared_out(12, BudgetConfig(), PARTS)
    assert budget.limit("generate", {}) == 2
    assert budget.limit("enhance", {"generate": 0.5}) == 4  # the rows are not all written yet
    assert budget.limit("enhance", {"generate": 0.5}, over=["generate"]) == 5.5
    assert budget.limit("where", {"generate": 0.5}, over=["generate"]) == 6
    spent = {"generate": 0.5, "enhance": 1, "where": 2.5}
    assert budget.limit("enhance", spent, over=["generate", "where"]) == 9  # for the proof
    own = shared_out(40, BudgetConfig(enhance=10), ["enhance"])
    assert own.limit("enhance", {}) == 10
    lowered = shared_out(3, BudgetConfig(), PARTS)
    assert lowered.limit("where", spent, over=["generate"]) == 1.5
    assert budget_text(budget.to_json(spent)) == (
        "budget 12 USD, spent: writer and checker 0.5 of 2, judge and teacher 1 of 4, the rented machine 2.5 of 6; "
        "what a part leaves, later ones may spend"
    )


def test_an_amount_of_its_own_caps_a_part_within_the_whole() -> None:
    budget = shared_out(12, BudgetConfig(enhance=3), PARTS)
    assert budget.shares == {"generate": 2.25, "enhance": 3, "where": 6.75}
    left = {"generate": 0.25}
    assert budget.limit("enhance", left, over=["generate"]) == 3  # what the writers left does not come on top
    assert budget.limit("where", left, over=["generate"]) == 8.75  # it passes on
    assert budget.limit("where", {**left, "enhance": 1}, over=["generate", "enhance"]) == 10.75
    assert budget.limit("enhance", {**left, "where": 1}, over=["generate", "where"]) == 3  # for the proof


def test_amounts_that_do_not_go_with_the_cap_are_refused() -> None:
    assert budget_faults(None, BudgetConfig(enhance=9, where="unlimited")) == []
    assert budget_faults(12, BudgetConfig(enhance=9, where=3)) == []
    (over,) = budget_faults(12, BudgetConfig(enhance=9, where=4))
    assert str(over) == "budget: expected amounts of at most max_usd together, 12 USD, got enhance 9, where 4"
    (unlimited,) = budget_faults(12, BudgetConfig(where="unlimited"))
    assert "budget.where: expected an amount in USD beside max_usd" in str(unlimited)


@pytest.mark.parametrize("seed", range(20))
def test_a_run_never_spends_more_than_its_budget_however_often_it_is_begun(seed: int) -> None:
    draw = random.Random(seed)
    most = draw.uniform(1, 100)
    parts = draw.sample(list(PARTS), draw.randint(1, 3))
    own = BudgetConfig(enhance=draw.choice([None, most / 3]), where=draw.choice([None, most / 4]))
    capped = {name: usd for name, usd in own if usd is not None}
    budget, spent, over = shared_out(most, own, parts), dict.fromkeys(PARTS, 0.0), set[str]()

    def spend(part: str) -> None:
        for _ in range(draw.randint(1, 3)):
            if part in parts:
                limit = budget.limit(part, spent, over=over)
                assert limit is not None and (part not in capped or limit <= capped[part] * (1 + 1e-9))
                spent[part] = max(spent[part], draw.choice([0, 0.5, 1]) * limit)
            assert sum(spent.values()) <= most * (1 + 1e-9)

    spend("generate")
    over.add("generate")
    for part in draw.choices(["enhance", "where"], k=6):  # the machine is rented, lost and rented anew in the loop
        spend(part)
    over.add("where")
    spend("enhance")

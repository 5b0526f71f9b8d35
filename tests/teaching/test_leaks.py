from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import demo_rows

from socratune.inference.template import prompt_ids
from socratune.rows import Attempt, QARow, Trace
from socratune.runs.folder import RunDir
from socratune.stages import enhance
from socratune.teaching import leaks
from socratune.teaching.hints import breakdown_hint, parse_product, split_tens
from socratune.teaching.leaks import (
    HintMeasure,
    HintUse,
    MeasuringStopped,
    answer_spans,
    forced_answer,
    hint_uses,
    leak_rate,
    log_probabilities,
    measure_hints,
)


def row(question: str, reference: str, name: str = "r") -> QARow:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reference}]
    return QARow(name, messages, {})


# --- scoring -------------------------------------------------------------------------------------------------------


def scored_rows(tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    chance = random.Random(0)
    rows = []
    for _ in range(12):
        question = f"What is {chance.randint(11, 99)} * {chance.randint(11, 99)}?" + " Say it." * chance.randint(0, 9)
        prompt = prompt_ids(tokenizer, [{"role": "user", "content": question}])
        answer = "15 * 10 = 150, and 15 * 3 = 45."[: chance.randint(2, 31)]
        rows.append((prompt, tokenizer(answer, add_special_tokens=False)["input_ids"]))
    return rows


@pytest.mark.parametrize(("side", "batch_tokens"), [("right", 4096), ("left", 4096), ("left", 200)])
def test_a_batch_scores_as_each_row_alone(
    demo_base: tuple[Any, Any], side: str, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = demo_base
    monkeypatch.setattr(tokenizer, "padding_side", side)
    monkeypatch.setattr(leaks, "MAX_BATCH_TOKENS", batch_tokens)
    rows = scored_rows(tokenizer)
    for (prompt, answer), found in zip(rows, log_probabilities(model, rows), strict=True):
        with torch.no_grad():
            log_p = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        wanted = [log_p[len(prompt) - 1 + at, token].item() for at, token in enumerate(answer)]
        assert found == pytest.approx(wanted, abs=1e-3)


def test_nothing_to_score(demo_base: tuple[Any, Any]) -> None:
    assert log_probabilities(demo_base[0], []) == []


# --- where the answer stands ---------------------------------------------------------------------------------------

CHOICE = "Which is a fruit?\nA) chair\nB) apple"


@pytest.mark.parametrize(
    ("qa", "text", "bearing"),
    [
        (row("What is 15 * 13?", "15 * 13 = 195."), "15 * 10 = 150, so it is 195.", ["195"]),
        (row("What is 15 * 13?", "15 * 13 = 195."), "15 * 13 = 195.", ["195"]),
        (row("What is the capital of France?", "The capital of France is Paris."), "France: Paris, yes.", ["Paris"]),
        (row("Who found radium?", "Marie and Pierre Curie"), "Pierre and Marie Curie.", ["Pierre", "Marie", "Curie"]),
        (row(CHOICE, "B"), "A chair is none. The answer is B.", ["B"]),
        (row("Is 91 prime?", "No"), "91 = 7 * 13, so no.", ["no"]),
        (row("Which is heavier, gold or silver?", "gold"), "Compare both.\nThe answer is gold.", ["gold."]),
        (row("What is 100 + 900?", "1,000"), "It makes 1000.", ["1000"]),
    ],
)
def test_where_a_text_bears_the_answer(qa: QARow, text: str, bearing: list[str]) -> None:
    assert [text[start:end] for start, end in answer_spans(text, qa)] == bearing


@pytest.mark.parametrize(
    ("reference", "forced"),
    [
        ("15 * 13 = 195.", "15 * 13 = 195."),
        ("Answer: 195", "Answer: 195"),
        ("195", "The answer is 195"),
        ("15 * 10 = 150, and 15 * 3 = 45, so 150 + 45 = 195.", "The answer is 195"),
        ("First the tens, 150.\nThen the ones, 45.\n#### 195", "The answer is 195"),
        ("The capital of Australia is Canberra.", "The capital of Australia is Canberra"),
    ],
)
def test_a_forced_answer_brings_no_reasoning(reference: str, forced: str) -> None:
    assert forced_answer(row("What is 15 * 13?", reference)) == forced


def test_an_interrupt_ends_the_measuring_with_its_batch(
    demo_base: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late in `enhance`: the thread that measures is not waited for to its end."""
    seen, stopped = [], Event()
    forward = demo_base[0].forward

    def slow(*args: Any, **named: Any) -> Any:
        seen.append(time.sleep(0.05))
        return forward(*args, **named)

    monkeypatch.setattr(demo_base[0], "forward", slow)
    monkeypatch.setattr(leaks, "MAX_BATCH_TOKENS", 1)  # every text a batch of its own
    qa = row("15 * 13?", "15 * 13 = 195.")
    traces = [
        Trace(qa, "unsolved", (Attempt(1, "no", "incorrect", "exact", hint=f"Try {n}."),), "direct", {})
        for n in range(100)
    ]
    student: Any = SimpleNamespace(loaded=SimpleNamespace(model=demo_base[0], tokenizer=demo_base[1]))

    async def interrupted() -> None:
        work = enhance._leaks(RunDir(tmp_path), student, (trace.to_json("no") for trace in traces), 0)
        measuring = asyncio.ensure_future(work)
        while not seen:
            await asyncio.sleep(0.01)
        measuring.cancel()
        await measuring

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted())
    assert 0 < len(seen) < 50
    stopped.set()
    with pytest.raises(MeasuringStopped):
        measure_hints(*demo_base, [HintUse(qa, "Try again.")], stopped=stopped)


# --- the measures --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(demo_base: tuple[Any, Any]) -> dict[str, list[HintMeasure]]:
    """Ten questions the embedded base gets wrong unaided, with its right answers under a strategy and a spoiler."""
    strategies, spoilers = [], []
    for data in demo_rows("train", 60):
        qa = row(data["messages"][-2]["content"], data["messages"][-1]["content"])
        a, b = parse_product(qa.question) or (0, 0)
        if a >= 80 or len(strategies) == 10:  # these it works out unasked
            continue
        tens, ones = split_tens(b)
        worked = f"{a} * {tens} = {a * tens}, and {a} * {ones} = {a * ones}, so {a * tens} + {a * ones} = {a * b}."
        strategies.append(HintUse(qa, str(breakdown_hint(a, b)), worked))
        spoilers.append(HintUse(qa, f"The answer is {a * b}.", f"{a} * {b} = {a * b}."))
    found = measure_hints(*demo_base, [*strategies, *spoilers])
    return {"strategy": found[:10], "spoiler": found[10:]}


def test_every_spoiler_scores_higher_than_every_strategy(measured: dict[str, list[HintMeasure]]) -> None:
    assert min(found.score for found in measured["spoiler"]) > max(found.score for found in measured["strategy"])
    assert leak_rate(measured["spoiler"]) == 1
    assert leak_rate(measured["strategy"]) == 0


def test_each_measure_tells_them_apart_and_total_reliance_would_keep_the_spoilers(
    measured: dict[str, list[HintMeasure]],
) -> None:
    for strategy, spoiler in zip(measured["strategy"], measured["spoiler"], strict=True):
        assert spoiler.forced_share > 0.9 and strategy.forced_share < 0.5
        assert spoiler.forced_gain > strategy.forced_gain + 1
        assert spoiler.probe_gain > strategy.probe_gain + 10
        assert strategy.reliance and spoiler.reliance
        assert strategy.reliance.head > 5 > abs(strategy.reliance.answer)
        assert spoiler.reliance.answer > 1 > abs(spoiler.reliance.head)
        assert spoiler.reliance.answer_share > 0.9 and strategy.reliance.answer_share < 0.1
        assert strategy.reliance.total > spoiler.reliance.total


def test_a_hint_that_led_nowhere_is_measured_without_reliance(
    demo_base: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    qa = row("What is 15 * 13?", "15 * 13 = 195.")
    nowhere, spoilt = measure_hints(*demo_base, [HintUse(qa, "Try again."), HintUse(qa, "It is 195.")])
    assert (nowhere.reliance, spoilt.reliance) == (None, None)
    assert (nowhere.spoils, spoilt.spoils) == (False, True)
    monkeypatch.setattr(leaks, "_LONGEST_ANSWER", 3)
    too_long = measure_hints(*demo_base, [HintUse(qa, "It is 195.", "15 * 13 = 195.")])
    assert too_long[0].reliance is None


def test_the_order_of_the_hints_does_not_matter(demo_base: tuple[Any, Any]) -> None:
    uses = [HintUse(row(f"What is {a} * 13?", f"{a} * 13 = {a * 13}."), f"It is {a * 13}.") for a in (15, 27, 4)]
    uses[1] = replace(uses[1], response="27 * 13 = 351.")
    there, back = measure_hints(*demo_base, uses), measure_hints(*demo_base, uses[::-1])[::-1]
    for one, other in zip(there, back, strict=True):
        assert one.hint == other.hint and one.score == pytest.approx(other.score, abs=1e-4)


def test_no_hints_no_rate(demo_base: tuple[Any, Any]) -> None:
    assert measure_hints(*demo_base, []) == []
    assert leak_rate([]) is None


# --- hints of finished traces --------------------------------------------------------------------------------------


def trace(name: str, *attempts: Attempt) -> Trace:
    return Trace(row("What is 15 * 13?", "195", name), "unsolved", attempts, "direct", {})


def test_every_hint_comes_with_the_right_answer_it_led_to() -> None:
    found = hint_uses(
        [
            trace(
                "a",
                Attempt(1, "wrong", "incorrect", "numeric", hint="Split 13."),
                Attempt(2, "wrong again", "incorrect", "numeric", given="hint", hint="Do 15 * 10 first."),
                Attempt(3, "right", "correct", "numeric", given="hint"),
            ),
            trace("b", Attempt(1, "right", "correct", "numeric")),
            trace("c", Attempt(1, "right", "correct", "numeric", given="evidence")),
        ]
    )
    assert {(use.row.id, use.hint, use.response) for use in found} == {
        ("a", "Split 13.", None),
        ("a", "Do 15 * 10 first.", "right"),
    }


def test_the_choice_of_hints_is_seeded_and_does_not_depend_on_their_order() -> None:
    traces = [trace(str(at), Attempt(1, "w", "incorrect", "numeric", hint=f"Hint {at}.")) for at in range(50)]
    some = hint_uses(traces, most=10)
    assert len(some) == 10
    assert hint_uses(reversed(traces), most=10) == some
    assert hint_uses(traces, most=10, seed=1) != some
    assert len(hint_uses(traces)) == 50

"""Which right sample is trained on, and the wording of a rewrite."""

from __future__ import annotations

import asyncio
import json

import pytest

from socratune.errors import CallError
from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.prompts import parse_pick, with_private_reference
from socratune.llm.scripted import ScriptedModel
from socratune.rows import Attempt, QARow
from socratune.teaching.echoes import echo
from socratune.teaching.picking import judged_pick

TEXTS = ["195", "15 * 10 = 150, 15 * 3 = 45, so 195.", "195, which I guess, as it looks right and feels right to me."]


def row(name: str) -> QARow:
    return QARow(name, [{"role": "user", "content": "15 * 13?"}, {"role": "assistant", "content": "195"}], {})


def attempts(*texts: str) -> list[Attempt]:
    return [Attempt(number, text, "correct", "numeric") for number, text in enumerate(texts, start=1)]


def shown(messages: Chat) -> list[str]:
    return [one["response"] for one in json.loads(messages[1]["content"])["responses"]]


def picked(model: object, name: str = "r", *texts: str) -> str:
    return asyncio.run(judged_pick(model)(row(name), attempts(*(texts or TEXTS)))).response  # type: ignore[arg-type]


def test_the_models_choice_is_taken_wherever_it_was_shown() -> None:
    model = ScriptedModel(lambda messages: json.dumps({"best": shown(messages).index(TEXTS[1]) + 1, "reason": "steps"}))
    assert {picked(model, f"row-{number}") for number in range(20)} == {TEXTS[1]}
    places = [shown(messages).index(TEXTS[1]) for messages in model.seen]
    assert set(places) == {0, 1, 2}, "always in the same place"
    assert len(model.seen) == 20
    picked(model, "row-0")
    assert shown(model.seen[-1]) == shown(model.seen[0]), "the same row is shown in the same order"


@pytest.mark.parametrize(
    "reply", ["", "the second", '{"best": 0}', '{"best": 4}', '{"best": true}', '{"best": 1} {"best": 2}']
)
def test_without_a_usable_reply_the_longest_is_taken(reply: str) -> None:
    assert picked(ScriptedModel(lambda messages: reply)) == TEXTS[2]


def test_a_refused_or_cut_off_call_costs_no_row() -> None:
    class Refusing(ScriptedModel):
        async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
            raise CallError("content filter")

    class CutOff(ScriptedModel):
        async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
            return Completion('{"best": 1}', stop="length")

    assert picked(Refusing(lambda messages: "")) == picked(CutOff(lambda messages: "")) == TEXTS[2]


def test_equal_samples_cost_no_call() -> None:
    model = ScriptedModel(lambda messages: '{"best": 1}')
    assert picked(model, "r", "195", "195") == "195"
    assert model.seen == []


def test_picks_are_parsed_leniently() -> None:
    assert parse_pick('Sure: ```json\n{"best": 2, "reason": "x"}\n```', 2) == 1
    assert parse_pick('<think>{"best": 1}</think>{"best": 2}', 2) == 1
    assert parse_pick('<think>{"best": 1}', 2) is None


def test_a_rewrite_has_the_reference_in_view_and_no_name_for_it() -> None:
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "15 * 13?"}]
    system, user = with_private_reference(prompt, "<think>hm</think>15 * 13 = 195.")
    assert system["content"].startswith("Be brief.\n\n") and "15 * 13 = 195." in system["content"]
    assert "hm" not in system["content"] and user == prompt[1]
    private = with_private_reference(prompt[1:], "195")[0]["content"].casefold()
    assert not any(name in private for name in ("note", "hint", "reference", "solution", "given answer"))
    assert echo(private, "15 * 13?") is None

"""Each tested environment has a gold test: twenty answers, and what a person says of them."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import pytest

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

from environments.gold import CASES, as_row, gold, question_of, verdict_of

from socratune.environments import environment_judge
from socratune.environments.gym import RULES_AGREE, gym_environment
from socratune.judging import judge_by_rules


@pytest.mark.parametrize("kind", CASES)
def test_the_judge_says_of_twenty_answers_what_a_person_says(kind: str) -> None:
    entry = question_of(kind)
    right, wrong = gold(kind, entry)
    assert len({*right, *wrong}) == 20
    assert [one for one in right if verdict_of(kind, entry, one) != "correct"] == []
    assert [one for one in wrong if verdict_of(kind, entry, one) != "incorrect"] == []


@pytest.mark.parametrize("kind", RULES_AGREE)
def test_rules_are_asked_first_only_where_they_never_contradict_a_person(kind: str) -> None:
    entry = question_of(kind)
    for answers, verdict in zip(gold(kind, entry), ("correct", "incorrect"), strict=True):
        said = {judge_by_rules(entry["question"], f"The answer is {entry['answer']}.", one).verdict for one in answers}
        assert said <= {verdict, "undecided"}


@pytest.mark.parametrize("kind", CASES)
def test_a_hundred_references_are_right_and_the_next_ones_answer_is_wrong(kind: str) -> None:
    entries = gym_environment(kind, {}).questions(3)
    asked = [json.loads(json.dumps(next(entries), default=str)) for _ in range(100)]
    for entry, other in pairwise(asked):
        assert verdict_of(kind, entry, f"The answer is {entry['answer']}.") == "correct"
        if other["answer"] != entry["answer"]:
            assert verdict_of(kind, entry, f"The answer is {other['answer']}.") != "correct"


def test_an_answer_that_takes_itself_back_is_undecided_if_the_right_one_is_among_them() -> None:
    entry = question_of("gsm_symbolic")
    assert verdict_of("gsm_symbolic", entry, f"The answer is 5. That is wrong. It is {entry['answer']}.") == "undecided"
    assert verdict_of("gsm_symbolic", entry, "The answer is 5. That is wrong. It is 7.") == "incorrect"


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("58 + 39 - 19 + 12 + 69", "correct"),
        ("So we have it:\n58+39-19+12+69 = 159", "correct"),
        ("58 + 39 + 12", "incorrect"),
        ("9**9**9", "incorrect"),
        ("__import__('os').remove('/tmp/x')", "incorrect"),
    ],
)
def test_what_countdown_would_evaluate_is_a_sum_and_no_program(said: str, verdict: str) -> None:
    told = {"numbers": [39, 19, 12, 69, 58], "target": 159}
    entry = {"question": "Calculate 159.", "answer": "58 + 39 - 19 + 12 + 69", "metadata": told}
    assert asyncio.run(environment_judge(as_row("countdown", entry), said)).verdict == verdict

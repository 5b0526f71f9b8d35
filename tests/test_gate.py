"""Which adapters the gate refuses, and that the weightiest reason comes first."""

from __future__ import annotations

from typing import Any

import pytest

from socratune.config import GateConfig
from socratune.evaluation.gate import refusals, warnings


def comparison(verdict: str = "better", gain: float = 0.2, half: float = 0.1, **more: Any) -> dict[str, Any]:
    figures = {
        "verdict": verdict, "passed": verdict == "better", "difference": gain, "ci95": [gain - half, gain + half],
        "interval": "bootstrap", "n": 100, "clusters": 40, "undecided": {"base": 0, "adapter": 0, "pairs": 0},
        "worst_case": {"difference": gain, "ci95": [gain - half, gain + half], "n": 100},
    }  # fmt: skip
    return figures | more


def measured(**changed: Any) -> dict[str, Any]:
    tests = {
        "file_integrity": {"passed": True, "problems": []},
        "basic_inference": {"passed": True},
        "prompt_responses": [],
        "base_comparison": comparison(),
        "forgetting": {"passed": True, "proven": True, "reason": "", "enough": True, "drop_upper95": 0.01,
                       "margin": 0.03},
        "performance": {"passed": True},
        "meters": {"passed": True, "warnings": []},
    }  # fmt: skip
    return tests | changed


def why(tests: dict[str, Any], knowledge_rows: int = 0, **gate: Any) -> list[str]:
    return refusals(tests, GateConfig(**gate), knowledge_rows=knowledge_rows)


FORGOT = {"passed": False, "proven": False, "reason": "the drop is +9.0%", "enough": True, "drop_upper95": 0.11,
          "margin": 0.03}  # fmt: skip


def test_what_is_better_and_whole_passes() -> None:
    assert why(measured()) == []


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ({"file_integrity": {"passed": False, "problems": ["x is missing"]}}, "files do not pass: x is missing"),
        ({"basic_inference": {"passed": False}}, "silence"),
        ({"base_comparison": comparison("worse", -0.2)}, "worse than its base: -20.0% (-30.0% … -10.0%)"),
        ({"base_comparison": comparison("inconclusive", 0.01, rows_needed=900)}, "About 900 rows would show"),
        ({"base_comparison": comparison("not_worse", 0.0)}, "not proven better than its base: not worse"),
        ({"forgetting": FORGOT}, "Forgetting is not ruled out: the drop is +9.0%"),
        ({"meters": {"passed": False, "warnings": ["think blocks -90%"]}}, "think blocks -90%"),
        ({"performance": {"passed": False}}, "Failed: performance"),
    ],
)
def test_each_failing_test_is_named(tests: dict[str, Any], said: str) -> None:
    (reason,) = why(measured(**tests))
    assert said in reason


def test_the_weightiest_reason_comes_first() -> None:
    reasons = why(
        measured(base_comparison=comparison("worse", -0.2), forgetting=FORGOT, basic_inference={"passed": False})
    )
    assert ["silence" in reasons[0], "worse than its base" in reasons[1], "Forgetting" in reasons[2]] == [True] * 3


def test_the_users_conditions_hold_by_the_worse_way_of_counting() -> None:
    vague = comparison(
        undecided={"base": 10, "adapter": 10, "pairs": 20},
        worst_case={"difference": 0.1, "ci95": [0.02, 0.2], "n": 100},
    )
    assert why(measured(base_comparison=vague)) == []
    assert "gains +10.0%" in why(measured(base_comparison=vague), min_gain=0.15)[0]
    assert "as small as +2.0%" in why(measured(base_comparison=vague), min_lower_bound=0.05)[0]
    assert "20%" in why(measured(base_comparison=vague), max_undecided_share=0.1)[0]


def test_a_run_that_taught_facts_has_to_show_that_they_are_recalled() -> None:
    flat = comparison("inconclusive", 0.0)
    assert why(measured(base_comparison=flat, recall=comparison()), knowledge_rows=30) == []
    assert why(measured(base_comparison=flat, recall=comparison())) != []  # nothing was taught: recall proves nothing
    (reason,) = why(measured(recall=comparison("inconclusive", 0.01)), knowledge_rows=30)
    assert "what it was taught" in reason
    lost = comparison("inconclusive", -0.12)
    assert "not proven better" in why(measured(base_comparison=lost, recall=comparison()), knowledge_rows=30)[0]
    reasons = why(measured(base_comparison=comparison("worse", -0.2), recall=comparison()), knowledge_rows=30)
    assert len(reasons) == 1 and "worse than its base" in reasons[0]


def test_too_few_recall_questions_claim_nothing() -> None:
    few = measured(recall=comparison("inconclusive", 0.5, clusters=3, n=3))
    assert why(few, knowledge_rows=30) == []  # the held-out questions decide
    assert why(measured(base_comparison=comparison("inconclusive", 0.0)), knowledge_rows=30) != []
    (said,) = warnings(few, knowledge_rows=30)
    assert "30 rows taught facts, and 3 questions" in said and "not claimed" in said
    assert warnings(measured(), knowledge_rows=0) == []


def test_what_is_rough_or_far_off_is_warned_of() -> None:
    tests = measured(
        base_comparison=comparison(interval="t", clusters=9),
        forgetting=FORGOT | {"passed": True},
        meters={"passed": True, "warnings": ["length +80%"]},
    )
    said = warnings(tests, knowledge_rows=0)
    assert ["9 held-out sources" in said[0], "not ruled out" in said[1], "length +80%" in said[2]] == [True] * 3


def test_what_is_lost_is_said_although_as_much_was_won_elsewhere() -> None:
    tests = measured()
    tests["forgetting"] = {"passed": True, "proven": True, "reason": "", "solved": {"n": 110, "lost": 50}}
    (said,) = warnings(tests, knowledge_rows=0)
    assert "Of the 110 other questions the base solves, 50 are lost" in said
    tests["forgetting"]["solved"]["lost"] = 11
    assert warnings(tests, knowledge_rows=0) == []

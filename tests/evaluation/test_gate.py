"""Which adapters the gate refuses, and that the weightiest reason comes first."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

import socratune
from socratune.config import GateConfig
from socratune.evaluation.gate import Proof, proof_of, verdict_headline, verdict_on, why_not_passed


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


def against(tests: dict[str, Any], knowledge_rows: int = 0, **gate: Any) -> list[str]:
    proof = verdict_on(tests, GateConfig(**gate), knowledge_rows=knowledge_rows)
    assert proof.passed == (not proof.reasons)
    return list(proof.reasons)


def warned(tests: dict[str, Any], knowledge_rows: int = 0) -> list[str]:
    return list(verdict_on(tests, GateConfig(), knowledge_rows=knowledge_rows).warnings)


FORGOT = {"passed": False, "proven": False, "reason": "the drop is +9.0%", "enough": True, "drop_upper95": 0.11,
          "margin": 0.03}  # fmt: skip


def test_what_is_better_and_whole_passes() -> None:
    assert against(measured()) == []


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
    (reason,) = against(measured(**tests))
    assert said in reason


def test_one_answer_to_everything_is_no_gain_unless_the_user_says_so() -> None:
    def most(low: float) -> dict[str, Any]:
        found = {"reference": "1", "accuracy": 0.78, "difference": 0.002, "ci95": [low, 0.01]}
        return measured(base_comparison=comparison(majority=found))

    (reason,) = against(most(-0.01))
    assert "not proven better than always answering '1', which is right in 78.0%: +0.2%" in reason
    assert against(most(0.001)) == [] == against(most(-0.01), beat_majority=False)
    assert against(measured(base_comparison=comparison(majority={"reference": "7", "accuracy": 0.02}))) == []


def test_the_weightiest_reason_comes_first() -> None:
    reasons = against(
        measured(base_comparison=comparison("worse", -0.2), forgetting=FORGOT, basic_inference={"passed": False})
    )
    assert ["silence" in reasons[0], "worse than its base" in reasons[1], "Forgetting" in reasons[2]] == [True] * 3


def test_the_users_conditions_hold_by_the_worse_way_of_counting() -> None:
    vague = comparison(
        undecided={"base": 10, "adapter": 10, "pairs": 20},
        worst_case={"difference": 0.1, "ci95": [0.02, 0.2], "n": 100},
    )
    assert against(measured(base_comparison=vague)) == []
    assert "gains +10.0%" in against(measured(base_comparison=vague), min_gain=0.15)[0]
    assert "as small as +2.0%" in against(measured(base_comparison=vague), min_lower_bound=0.05)[0]
    assert "20%" in against(measured(base_comparison=vague), max_undecided_share=0.1)[0]


def test_a_run_that_taught_facts_has_to_show_that_they_are_recalled() -> None:
    flat = comparison("inconclusive", 0.0)
    assert against(measured(base_comparison=flat, recall=comparison()), knowledge_rows=30) == []
    assert against(measured(base_comparison=flat, recall=comparison())) != []  # recall proves nothing here
    (reason,) = against(measured(recall=comparison("inconclusive", 0.01)), knowledge_rows=30)
    assert "what it was taught" in reason
    lost = comparison("inconclusive", -0.12)
    assert "not proven better" in against(measured(base_comparison=lost, recall=comparison()), knowledge_rows=30)[0]
    reasons = against(measured(base_comparison=comparison("worse", -0.2), recall=comparison()), knowledge_rows=30)
    assert len(reasons) == 1 and "worse than its base" in reasons[0]


def test_too_few_recall_questions_claim_nothing() -> None:
    few = measured(recall=comparison("inconclusive", 0.5, clusters=3, n=3))
    assert against(few, knowledge_rows=30) == []  # the held-out questions decide
    assert against(measured(base_comparison=comparison("inconclusive", 0.0)), knowledge_rows=30) != []
    (said,) = warned(few, knowledge_rows=30)
    assert "30 rows taught facts, and 3 questions" in said and "not claimed" in said
    assert warned(measured(), knowledge_rows=0) == []


def test_what_is_rough_or_far_off_is_warned_of() -> None:
    tests = measured(
        base_comparison=comparison(interval="t", clusters=9),
        forgetting=FORGOT | {"passed": True},
        meters={"passed": True, "warnings": ["length +80%"]},
    )
    said = warned(tests, knowledge_rows=0)
    assert ["9 held-out sources" in said[0], "not ruled out" in said[1], "length +80%" in said[2]] == [True] * 3


def test_what_is_lost_is_said_although_as_much_was_won_elsewhere() -> None:
    tests = measured()
    tests["forgetting"] = {"passed": True, "proven": True, "reason": "", "solved": {"n": 110, "lost": 50}}
    (said,) = warned(tests, knowledge_rows=0)
    assert "Of the 110 other questions the base solves, 50 are lost" in said
    tests["forgetting"]["solved"]["lost"] = 11
    assert warned(tests, knowledge_rows=0) == []


# --- one verdict for all who tell it -------------------------------------------------------------------------------


def test_the_same_tests_give_the_same_verdict_out_of_the_results_file_too() -> None:
    for tests in (measured(), measured(forgetting=FORGOT, base_comparison=comparison("worse", -0.2))):
        proof = verdict_on(tests, GateConfig(), knowledge_rows=0, noted=["by a judge"])
        stored = json.loads(json.dumps({"validation": proof.to_json()}))
        again = proof_of(stored)
        assert again == proof and again is not None
        assert verdict_on(again.tests, GateConfig(), knowledge_rows=0, noted=["by a judge"]) == proof
    told = stored["validation"]
    assert list(told) == ["status", "tests", "warnings", "reason", "reasons"]
    assert told["reason"] == " ".join(told["reasons"]) and len(told["reasons"]) == 2
    assert list(verdict_on(measured(), GateConfig(), knowledge_rows=0).to_json()) == ["status", "tests", "warnings"]


def test_what_could_not_be_measured_does_not_pass() -> None:
    files = {"file_integrity": {"passed": True, "problems": [], "sha256": {"a": "b"}}}
    proof = verdict_on(files, GateConfig(), knowledge_rows=5, noted=["x"])
    assert (proof.status, proof.warnings, proof.files, proof.damage) == ("failed", (), {"a": "b"}, [])
    assert "No held-out rows" in proof.reason
    files["file_integrity"] |= {"passed": False, "problems": ["a is cut off"]}
    proof = verdict_on(files, GateConfig(), knowledge_rows=0)
    assert proof.damage == ["a is cut off"] and "a is cut off" in proof.reason and proof.comparison == {}


def test_results_of_other_versions_are_read_too() -> None:
    assert proof_of({}) is None and proof_of({"validation": {}}) is None
    assert Proof.from_json({"status": "failed", "reason": "worse"}).reasons == ("worse",)
    assert not Proof.from_json({"tests": {}}).passed


def results(status: str, word: str | None = None, **more: Any) -> dict[str, Any]:
    tests = {"base_comparison": {"verdict": word}} if word else {}
    stored = {"status": status if status == "passed" else "failed", "tests": tests, "reason": "It is worse."}
    return {"status": status, "validation": stored, **more}


@pytest.mark.parametrize(
    ("told", "title", "tone"),
    [
        (results("passed", "better"), "Better than its base", "good"),
        (results("passed", "not_worse"), "Passed", "good"),  # it recalls what it was taught
        (results("passed"), "Passed", "good"),
        (results("failed", "better"), "Failed", "bad"),
        (results("failed", "not_worse"), "Failed: not proven better", "open"),
        (results("failed", "worse"), "Failed: worse than its base", "bad"),
        (results("interrupted", "worse"), "Interrupted", "open"),
        ({"status": "running", "stages": {}}, "Running", ""),
        ({"status": "of_another_version"}, "of another version", ""),
    ],
)
def test_the_headline_says_what_the_gate_decided(told: dict[str, Any], title: str, tone: str) -> None:
    assert verdict_headline(told) == (title, tone)


def test_why_is_the_error_else_what_the_gate_says() -> None:
    assert why_not_passed(results("failed")) == "It is worse."
    assert why_not_passed(results("failed", error="No row.")) == "No row."
    assert (
        why_not_passed(results("incomplete"))
        == why_not_passed(results("passed"))
        == why_not_passed({"status": "running"})
        == ""
    )


def test_nobody_else_reads_a_verdict_out_of_the_results() -> None:
    """`runs.progress` moves the entry, `stages.validate` makes it, the page shows its tests; `verify`
    holds what `gate` reads of it against what it derives anew.
    """
    package = Path(socratune.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Subscript) and ast.unparse(node.slice) == "'validation'":
                found.add(path.name)
            if isinstance(node, ast.Call) and re.match(r"[^(]*\.get\('validation'", ast.unparse(node)):
                found.add(path.name)
    assert found == {"gate.py", "progress.py"}, found
    pages = [path for path in package.rglob("*.js") if path.name != "compare.js"]  # it shows logs of any tool, no run
    scripts = "".join(path.read_text("utf-8") for path in pages)
    assert "validation?.status" not in scripts and "validation?.reason" not in scripts and "not_worse" not in scripts

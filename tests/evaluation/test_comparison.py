"""What the figures of a comparison say, whatever the judge left open and however many answers were drawn."""

from __future__ import annotations

from typing import Any

import pytest

from socratune.config import ValidateConfig
from socratune.evaluation.comparison import answer_rows, compare_answers
from socratune.rows import QARow

LETTERS = {"c": "correct", "i": "incorrect", "u": "undecided"}


def rows(count: int, per_cluster: int = 1) -> list[QARow]:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    return [QARow(str(at), turns, {}, cluster=str(at // per_cluster)) for at in range(count)]


def answers(verdicts: str) -> list[dict[str, Any]]:
    """One letter per question; `cc i` with spaces is two questions of several samples."""
    questions = verdicts.split() if " " in verdicts else list(verdicts)
    found = []
    for letters in questions:
        drawn = [{"response": f"said {letter}", "verdict": LETTERS[letter]} for letter in letters]
        found.append({**drawn[0], "more": drawn[1:]} if drawn[1:] else drawn[0])
    return found


def compare(base: str, adapter: str, per_cluster: int = 1) -> dict[str, Any]:
    said = answers(base), answers(adapter)
    return compare_answers(rows(len(said[0]), per_cluster), *said, ValidateConfig(bootstrap_draws=1000), 0)


def test_a_gain_is_counted_with_its_wins_losses_ties_and_examples_of_each() -> None:
    found = compare("i" * 60 + "c" * 40, "c" * 50 + "i" * 10 + "c" * 38 + "i" * 2)
    assert (found["wins"], found["losses"], found["ties"]) == (50, 2, 48)
    assert (found["base_accuracy"], found["adapter_accuracy"]) == (0.4, 0.88)
    assert found["verdict"] == "better" and found["passed"]
    assert found["test"] == "mcnemar" and found["n"] == found["clusters"] == 100
    shown = {kind: len(found["examples"][kind]) for kind in ("wins", "losses", "ties")}
    assert shown == {"wins": 3, "losses": 2, "ties": 3}
    loss = found["examples"]["losses"][0]
    assert (loss["base"], loss["adapter"], loss["reference"]) == ("said c", "said i", "!")


def test_undecided_pairs_are_dropped_and_counted_at_their_worst_beside() -> None:
    found = compare("i" * 70 + "u" * 10 + "c" * 20, "c" * 60 + "u" * 10 + "c" * 30)
    assert found["undecided"] == {"base": 10, "adapter": 10, "pairs": 20}
    assert found["n"] == 80 and found["difference"] == pytest.approx(60 / 80)
    worst = found["worst_case"]
    # 60 wins and 20 ties are decided; ten of the base become right (ties), ten of the adapter wrong (ties)
    assert worst["n"] == 100 and worst["difference"] == pytest.approx(0.6)
    assert worst["ci95"][0] < found["ci95"][0]
    assert found["verdict"] == "better"


def test_an_adapter_cannot_choose_its_test_by_answering_vaguely() -> None:
    """Right where it answers, vague where the base was right: the decided pairs alone would call it better."""
    found = compare("i" * 20 + "c" * 80, "c" * 20 + "u" * 80)
    assert found["difference"] == 1 and found["ci95"][0] > 0
    assert found["worst_case"]["difference"] == pytest.approx(-0.6)
    assert found["verdict"] == "inconclusive" and not found["passed"]


def test_nothing_decided_is_inconclusive() -> None:
    found = compare("u" * 30, "u" * 30)
    assert found["verdict"] in ("worse", "inconclusive") and found["n"] == 0 and not found["passed"]


def test_drawn_answers_are_compared_by_the_means_of_their_questions() -> None:
    found = compare("cici iiii " * 20, "cccc ciii " * 20)
    assert found["samples"] == 4 and found["test"] == "sign_flip"
    assert (found["base_accuracy"], found["adapter_accuracy"]) == (0.25, 0.625)
    assert found["wins"] == 40 and found["verdict"] == "better"
    half = compare("ci uu " * 20, "cu cc " * 20)
    assert half["n"] == 20  # of `cu` the decided half counts, of `uu` nothing
    assert half["adapter_accuracy"] == 1 and half["worst_case"]["difference"] == pytest.approx(0)


def test_rows_of_a_source_count_together() -> None:
    base, adapter = "i" * 50 + "c" * 50, "c" * 50 + "c" * 20 + "i" * 30
    alone, together = compare(base, adapter), compare(base, adapter, per_cluster=10)
    assert alone["verdict"] == "better"
    assert together["interval"] == "t" and together["clusters"] == 10 and together["verdict"] != "better"


def test_the_answers_are_written_with_their_verdicts() -> None:
    (row,) = answer_rows(rows(1), answers("i"), answers("c"))
    assert row == {
        "id": "0", "question": "?", "reference": "!",
        "base": {"response": "said i", "verdict": "incorrect"},
        "adapter": {"response": "said c", "verdict": "correct"},
    }  # fmt: skip


def test_each_kind_has_its_own_figures_and_the_most_frequent_answer_its_accuracy() -> None:
    asked = [
        QARow(str(at), [{"role": "user", "content": "?"}, {"role": "assistant", "content": said}], {"kind": kind})
        for at, (kind, said) in enumerate(
            [("logic", "The answer is Yes.")] * 30 + [("sums", str(n)) for n in range(10)]
        )
    ]
    said = answers("i" * 30 + "c" * 10), answers("c" * 20 + "i" * 10 + "c" * 5 + "u" * 5)
    found = compare_answers(asked, *said, ValidateConfig(bootstrap_draws=1000), 0)
    assert (found["majority"]["reference"], found["majority"]["accuracy"]) == ("yes", 0.75)
    assert found["majority"]["ci95"][1] < 0.2, "25 of the 35 decided pairs are right, and yes would be in 30"
    logic, sums = found["by_kind"]["logic"], found["by_kind"]["sums"]
    assert (logic["n"], logic["base_accuracy"]) == (30, 0.0) and logic["adapter_accuracy"] == pytest.approx(2 / 3)
    assert logic["majority"]["accuracy"] == 1.0 and logic["ci95"][0] > 0.4
    assert (sums["n"], sums["base_accuracy"], sums["adapter_accuracy"]) == (5, 1.0, 1.0), "of the decided pairs"
    assert "by_kind" not in compare("ic", "cc") and "asks" not in found


def test_an_adapter_that_gives_one_answer_to_everything_is_told_from_one_that_has_learnt() -> None:
    """So a model of half a billion parameters "learnt" to count letters: 62 to 78 %, and 78 % of the answers were 1."""

    def asked(references: str) -> list[QARow]:
        turns = [[{"role": "user", "content": "?"}, {"role": "assistant", "content": one}] for one in references]
        return [QARow(str(at), turn, {}) for at, turn in enumerate(turns)]

    ones, others = "1" * 78, "234567" * 4
    base = answers("c" * 60 + "i" * 18 + "c" * 4 + "i" * 20)
    config = ValidateConfig(bootstrap_draws=1000)
    collapsed = compare_answers(asked(ones + others), base, answers("c" * 78 + "i" * 24), config, 0)
    assert collapsed["passed"] and collapsed["majority"]["difference"] == 0.0
    learnt = compare_answers(asked(ones + others), base, answers("c" * 78 + "c" * 20 + "i" * 4), config, 0)
    assert learnt["passed"] and learnt["majority"]["ci95"][0] > 0
    for shared in ("2" * 102, "?" * 102):  # a wording that all rows share is no answer
        assert "ci95" not in compare_answers(asked(shared), base, answers("c" * 78 + "i" * 24), config, 0)["majority"]

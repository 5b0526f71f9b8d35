"""socratune compare: what other tools wrote is read as they meant it, matched, and judged as the proof of a run is."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from conftest import write_rows

from socratune.errors import UserError
from socratune.evaluation.compared import compare_logs, compared_rows, overall
from socratune.evaluation.logs import Log
from socratune.evaluation.opening_logs import open_log
from socratune.evaluation.stats import Paired, cautious, holm, paired_difference, shown_by

LOGS = Path(__file__).parent.parent / "samples" / "logs"
SUMS = ["exact_match,strict-match", "exact_match,flexible-extract"]


def rows(right: list[Any], field: str = "correct", **more: Any) -> list[dict[str, Any]]:
    """JSONL rows `q0`, `q1`, … with these scores."""
    return [{"id": f"q{at}", "question": f"Question {at}?", field: one, **more} for at, one in enumerate(right)]


def log(folder: Path, name: str, content: list[Any], **given: Any) -> Log:
    return open_log(str(write_rows(folder / f"{name}.jsonl", content)), **given)


def entries(a: Log, b: Log, **given: Any) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in compare_logs(a, b, **given).result["metrics"]}


def fault(*given: Any, **named: Any) -> str:
    with pytest.raises(UserError) as raised:
        open_log(*given, **named)
    return str(raised.value)


# --- what real tools wrote -----------------------------------------------------------------------------------------


def results_of(side: str) -> dict[str, Any]:
    return json.loads(next((LOGS / f"lm-eval-{side}").glob("results_*.json")).read_text("utf-8"))["results"]


def test_samples_of_lm_eval_come_to_the_figures_that_lm_eval_printed() -> None:
    found = entries(*(open_log(str(LOGS / f"lm-eval-{side}")) for side in "ab"))
    assert list(found) == ["acc", *sorted(SUMS, reverse=True)]
    for name, entry in found.items():
        task, key = ("facts", "acc,none") if name == "acc" else ("sums", name)
        assert [entry["a"], entry["b"]] == pytest.approx([results_of(side)[task][key] for side in "ab"])


def test_lm_eval_says_which_model_and_what_could_not_be_compared() -> None:
    read = open_log(str(LOGS / "lm-eval-a"))
    assert (read.format, read.model, read.tasks) == ("lm-eval", "SmolLM2-135M-Instruct", ["facts", "sums"])
    assert "brier_score left out" in " ".join(read.remarks)


def test_a_choice_is_shown_in_its_words_and_an_answer_as_it_was_written() -> None:
    read = {(one.task, one.id): one for one in open_log(str(LOGS / "lm-eval-b")).questions}
    fact, total = read["facts", "0"], read["sums", "0"]
    assert fact.question == "What is the capital of France?" and fact.reference == "Paris"
    assert fact.answers[0] in {"Paris", "Rome", "Lyon", "Nice"}
    assert total.question.startswith("What is ") and total.answers[0].strip()


def test_results_of_lm_eval_name_the_samples_beside_them(tmp_path: Path) -> None:
    results = next((LOGS / "lm-eval-a").glob("results_*.json"))
    assert len(open_log(str(results)).questions) == len(open_log(str(LOGS / "lm-eval-a")).questions)
    shutil.copy(results, tmp_path)
    assert "--log_samples" in fault(str(tmp_path / results.name))


def test_of_a_task_that_was_run_twice_the_newer_counts(tmp_path: Path) -> None:
    for side in "ab":
        for file in (LOGS / f"lm-eval-{side}").glob("samples_sums_*"):
            shutil.copy(file, tmp_path)
    both, newer = open_log(str(tmp_path)), open_log(str(LOGS / "lm-eval-b"))
    assert [one.scores for one in both.questions] == [one.scores for one in newer.questions if one.task == "sums"]
    assert "older files of the same tasks are left out (1)" in both.remarks[0]


def test_inspect_logs_come_to_the_figures_that_inspect_printed() -> None:
    pytest.importorskip("zstandard", reason="zstandard is not installed")
    a, b = (open_log(str(LOGS / f"inspect-{side}.eval")) for side in "ab")
    found = entries(a, b)
    assert list(found) == ["match", "form.words", "form.brief"] and a.samples == b.samples == 2
    assert found["match"]["n"] == len(a.questions) and a.model == "hf/SmolLM2-135M-Instruct"
    assert found["form.words"]["scale"] == "number" and not found["form.words"]["binary"]


def test_inspect_json_comes_to_the_figures_in_its_own_results() -> None:
    whole = json.loads((LOGS / "inspect-b.json").read_text("utf-8"))
    told = {one["name"]: next(iter(one["metrics"].values()))["value"] for one in whole["results"]["scores"]}
    read = open_log(str(LOGS / "inspect-b.json"))
    for metric, told_as in (("match", "match"), ("form.words", "words"), ("form.brief", "brief")):
        assert np.mean([one.scores[metric][0] or 0.0 for one in read.questions]) == pytest.approx(told[told_as])


def test_inspect_archives_are_read_without_its_compression_too(tmp_path: Path) -> None:
    whole = json.loads((LOGS / "inspect-b.json").read_text("utf-8"))
    samples = whole.pop("samples")
    with zipfile.ZipFile(tmp_path / "b.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(whole))
        for sample in samples:
            archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
    packed, plain = open_log(str(tmp_path / "b.eval")), open_log(str(LOGS / "inspect-b.json"))
    assert packed.questions == plain.questions and packed.model == plain.model


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression", None)
    assert "pip install zstandard" in fault(str(LOGS / "inspect-a.eval"))


def test_two_tools_match_by_the_text_of_the_question() -> None:
    a, b = open_log(str(LOGS / "lm-eval-b")), open_log(str(LOGS / "inspect-b.json"))
    result = compare_logs(a, b, metrics=["exact_match,flexible-extract=match"]).result
    assert result["matched"]["by"] == "question"
    assert result["matched"]["questions"] == len(b.questions)
    assert result["matched"]["unmatched"]["only_a"]["count"] == len(a.questions) - len(b.questions)
    with pytest.raises(UserError, match="--metric acc=match"):
        compare_logs(a, b)


def test_a_field_of_the_document_is_the_cluster() -> None:
    a, b = (open_log(str(LOGS / f"lm-eval-{side}" / next((LOGS / f"lm-eval-{side}").glob("samples_facts_*")).name),
                     cluster="fact") for side in "ab")  # fmt: skip
    assert entries(a, b)["acc"]["clusters"] == 6 and entries(a, b)["acc"]["n"] == 12
    assert "There is: " in fault(str(LOGS / "lm-eval-a"), cluster="no_such_field")


# --- other formats -------------------------------------------------------------------------------------------------


def test_events_of_openai_evals(tmp_path: Path) -> None:
    def events(right: list[bool]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{"spec": {"completion_fns": ["gpt-x"], "eval_name": "sums.dev.v0"}}]
        for at, one in enumerate(right):
            head = {"run_id": "r", "event_id": 2 * at, "sample_id": f"sums.dev.{at}"}
            prompt = [{"role": "system", "content": "Add."}, {"role": "user", "content": f"{at} + 1?"}]
            found.append({**head, "type": "sampling", "data": {"prompt": prompt, "sampled": [str(at)]}})
            found.append({**head, "type": "match", "data": {"correct": one, "expected": str(at + 1), "picked": "x"}})
        return [*found, {"final_report": {"accuracy": 0.5}}]

    a, b = log(tmp_path, "a", events([True, False] * 6)), log(tmp_path, "b", events([True] * 12))
    assert (a.format, a.model) == ("OpenAI evals", "gpt-x")
    assert (a.questions[1].question, a.questions[1].reference, a.questions[1].answers) == ("1 + 1?", "2", ["1"])
    entry = entries(a, b)["correct"]
    assert (entry["won"], entry["lost"], entry["n"], entry["verdict"]) == (6, 0, 12, "better")


def test_output_items_of_openais_platform(tmp_path: Path) -> None:
    items = [
        {
            "object": "eval.run.output_item", "id": f"o{at}", "datasource_item_id": at,
            "datasource_item": {"question": f"{at}?", "answer": "yes"},
            "results": [{"name": "exact", "passed": at % 2 == 0, "score": float(at % 2 == 0)}],
            "sample": {"output": [{"role": "assistant", "content": f"said {at}"}]},
        }
        for at in range(8)
    ]  # fmt: skip
    (tmp_path / "items.json").write_text(json.dumps({"object": "list", "data": items}), "utf-8")
    read = open_log(str(tmp_path / "items.json"))
    assert read.questions == log(tmp_path, "items", items).questions
    one = read.questions[1]
    assert (one.id, one.question, one.reference, one.answers, one.scores) == (
        "1",
        "1?",
        "yes",
        ["said 1"],
        {"exact": [0.0]},
    )


def test_samples_stand_in_rows_of_their_own_or_in_a_list(tmp_path: Path) -> None:
    several = [{"id": "q", "sample": at, "correct": one} for at, one in enumerate([1, 0, None, 1])]
    listed = rows([[True, False, None, True]])
    for name, content in (("a", several), ("b", listed)):
        assert log(tmp_path, name, content).questions[0].scores == {"correct": [1.0, 0.0, None, 1.0]}


def test_a_column_of_ones_own_is_a_metric_where_it_is_named(tmp_path: Path) -> None:
    content = rows([0.5, 0.7], "f1")
    assert log(tmp_path, "a", content, metrics=["f1"]).metrics == ["f1"]
    assert "--metric f1" in fault(str(tmp_path / "a.jsonl"))


# --- matching ------------------------------------------------------------------------------------------------------


def test_ids_of_other_questions_are_no_match(tmp_path: Path) -> None:
    other = [{"id": f"q{at}", "question": f"Another {at}?", "correct": True} for at in range(8)]
    a, b = log(tmp_path, "a", rows([True] * 8)), log(tmp_path, "b", other)
    for by in (None, "id", "question"):
        with pytest.raises(UserError) as raised:
            compare_logs(a, b, by=by)
        assert "some of the same questions" in str(raised.value)
        told = "no common question" if by == "question" else "q0 asks 'Question 0?' in A and 'Another 0?' in B"
        assert told in str(raised.value)


def test_a_question_whose_wording_changed_is_left_out_and_told(tmp_path: Path) -> None:
    changed = rows([True] * 8)
    changed[3]["question"] = "Another?"
    result = compare_logs(log(tmp_path, "a", rows([True] * 8)), log(tmp_path, "b", changed)).result
    assert result["matched"]["unmatched"] == {"other_question": {"count": 1, "examples": ["q3"]}}
    assert result["metrics"][0]["n"] == 7 and "another question" in " ".join(result["remarks"])


def test_renumbered_questions_match_by_their_text(tmp_path: Path) -> None:
    right = [True, False, True, True, False, True, True, False]
    moved = [
        {**row, "id": f"q{(at + 1) % 8}", "question": f"  {row['question']} "} for at, row in enumerate(rows(right))
    ]
    result = compare_logs(log(tmp_path, "a", rows(right)), log(tmp_path, "b", moved)).result
    assert result["matched"]["by"] == "question" and result["metrics"][0]["level"] == 8


def test_a_text_that_stands_there_more_often_in_one_log_is_ambiguous(tmp_path: Path) -> None:
    a = log(tmp_path, "a", [{"id": name, "question": "Same?", "correct": 1} for name in "xy"] + rows([1] * 7))
    renamed = [{**row, "id": f"r-{row['id']}"} for row in rows([1] * 7)]
    b = log(tmp_path, "b", [*renamed, {"id": "z", "question": "Same?", "correct": 1}])
    result = compare_logs(a, b).result
    assert result["matched"]["questions"] == 7 and result["matched"]["unmatched"]["ambiguous"]["count"] == 2


# --- the verdict ---------------------------------------------------------------------------------------------------


def test_binary_rows_get_the_exact_test_and_the_proofs_interval(tmp_path: Path) -> None:
    before, after = [1, 0] * 50, [1, 1, 1, 0] * 25
    entry = entries(log(tmp_path, "a", rows(before)), log(tmp_path, "b", rows(after)))["correct"]
    expected = paired_difference(before, after, [str(at) for at in range(100)], draws=10_000, seed=0)
    assert (entry["test"], entry["p"], entry["difference"]) == ("mcnemar", expected.p, expected.difference)
    assert entry["ci95"] == pytest.approx([expected.low, expected.high], abs=0.01)


def test_clusters_widen_the_interval(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    by_cluster = np.repeat(draw.random(40) < 0.5, 10)
    a = [{**row, "cluster": f"c{at // 10}"} for at, row in enumerate(rows([False] * 400))]
    b = rows(by_cluster.tolist())
    wide = entries(log(tmp_path, "a", a), log(tmp_path, "b", b))["correct"]
    narrow = entries(log(tmp_path, "c", rows([False] * 400)), log(tmp_path, "b", b))["correct"]
    width = [entry["ci95"][1] - entry["ci95"][0] for entry in (wide, narrow)]
    assert (wide["clusters"], narrow["clusters"]) == (40, 400) and width[0] > 2.5 * width[1]


def test_of_a_loss_less_is_better(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    high = (10 + draw.random(60)).tolist()
    low = [one - 1 for one in high]
    a, b = log(tmp_path, "a", rows(high, "score")), log(tmp_path, "b", rows(low, "score"))
    assert entries(a, b)["score"]["verdict"] == "worse"
    entry = entries(a, b, lower=["score"])["score"]
    assert (entry["verdict"], entry["won"], entry["difference"]) == ("better", 60, pytest.approx(1))


def test_figures_beyond_1_have_their_own_units_and_margin(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    before = draw.integers(1, 11, 200)
    after = np.clip(before + draw.integers(-1, 3, 200), 1, 10)
    entry = entries(
        log(tmp_path, "a", rows(before.tolist(), "score")), log(tmp_path, "b", rows(after.tolist(), "score"))
    )["score"]
    assert (entry["scale"], entry["binary"], entry["margin"]) == ("number", False, pytest.approx(0.18))
    assert entry["a"] == pytest.approx(before.mean()) and entry["ci95"][0] < entry["difference"] < entry["ci95"][1]
    assert entry["verdict"] == "better"


def test_an_answer_without_a_score_cannot_help_b(tmp_path: Path) -> None:
    before = [1] * 20 + [0] * 20
    after = [1] * 20 + [1] * 10 + [None] * 10
    entry = entries(log(tmp_path, "a", rows(before)), log(tmp_path, "b", rows(after)))["correct"]
    assert (entry["n"], entry["unscored"], entry["verdict"]) == (30, 10, "better")
    hidden = [None] * 15 + [1] * 5 + [1] * 10 + [0] * 10  # B is silent where it would have been wrong
    entry = entries(log(tmp_path, "a", rows(before)), log(tmp_path, "b", rows(hidden)))["correct"]
    assert entry["difference"] > 0 and entry["worst_case"]["difference"] < 0
    assert entry["verdict"] == "inconclusive"


def test_a_metric_among_ten_has_to_be_better_beyond_what_ten_bring_by_chance(tmp_path: Path) -> None:
    def scores(at: int, side: int) -> dict[str, bool]:
        flips = at < 9 and (at == 0) != bool(side)  # eight won, one lost
        return {"m0": flips, **{f"m{n}": at % 2 == 0 for n in range(1, 10)}}

    a, b = (
        log(tmp_path, "ab"[side], [{"id": str(at), "scores": scores(at, side)} for at in range(60)]) for side in (0, 1)
    )
    alone, among = entries(a, b, metrics=["m0"])["m0"], entries(a, b)["m0"]
    assert (alone["verdict"], alone["p_adjusted"]) == ("better", pytest.approx(0.0390625))
    assert (among["verdict"], among["p_adjusted"]) == ("not_worse", pytest.approx(0.390625))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_a_task_that_gets_worse_fails_the_gate_though_all_together_are_better(tmp_path: Path) -> None:
    before = [{"id": str(at), "task": "old" if at < 40 else "new", "correct": at < 40} for at in range(200)]
    after = [{**row, "correct": row["task"] == "new" or int(row["id"]) % 2} for row in before]
    result = compare_logs(log(tmp_path, "a", before), log(tmp_path, "b", after)).result
    entry = result["metrics"][0]
    assert entry["verdict"] == "better"
    assert {part["task"]: part["verdict"] for part in entry["by_task"]} == {"old": "worse", "new": "better"}
    assert result["gate"] == {"passed": False, "reasons": ["correct is worse on old."]}


def test_the_rows_that_are_said_to_be_needed_are_needed(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)

    def drawn(count: int) -> tuple[list[int], list[int]]:
        changes = draw.choice([0, 1, -1], p=[0.75, 0.16, 0.09], size=count)
        before = np.where(changes == 0, draw.integers(0, 2, count), changes < 0).astype(int)
        return before.tolist(), (before + changes).tolist()

    exact = [1] * 16 + [0] * 9 + [1] * 75, [0] * 16 + [1] * 9 + [1] * 75
    entry = entries(log(tmp_path, "a", rows(exact[1])), log(tmp_path, "b", rows(exact[0])))["correct"]
    needed = entry["rows_needed"]["difference"]
    assert entry["verdict"] == "inconclusive" and 300 < needed < 700
    shown = 0
    for _ in range(150):
        before, after = drawn(needed)
        shown += paired_difference(before, after, list(map(str, range(needed))), draws=300, seed=0).low > 0
    assert 0.68 < shown / 150 < 0.92


def test_few_clusters_show_nothing_and_say_so(tmp_path: Path) -> None:
    result = compare_logs(log(tmp_path, "a", rows([0] * 5)), log(tmp_path, "b", rows([1] * 5))).result
    assert result["verdict"] == "inconclusive" and "nothing can be shown" in " ".join(result["remarks"])
    assert result["metrics"][0]["detectable"] is None


@pytest.mark.parametrize(
    ("verdicts", "all_together"),
    [
        (["better", "not_worse"], "better"), (["better", "worse"], "worse"), (["not_worse"], "not_worse"),
        (["better", "inconclusive"], "inconclusive"), (["inconclusive", "worse"], "worse"),
    ],
)  # fmt: skip
def test_one_word_for_several_metrics(verdicts: list[Any], all_together: str) -> None:
    assert overall(verdicts) == all_together


def test_a_verdict_has_to_hold_both_ways() -> None:
    assert cautious("better", "not_worse") == "not_worse" and cautious("better", "worse") == "inconclusive"
    assert shown_by(Paired(0.1, 0.0, 0.2, 0.5, 100, 5)) is None


def test_scores_of_thousands_of_values_give_the_interval_of_their_normal_approximation() -> None:
    change = np.random.default_rng(5).normal(0.05, 1, 3000)
    found = paired_difference(np.zeros(3000), change, list(map(str, range(3000))), draws=2000, seed=0)
    half = 1.96 * change.std() / np.sqrt(3000)
    assert [found.low, found.high] == pytest.approx([change.mean() - half, change.mean() + half], abs=0.004)
    assert found.p == pytest.approx(2 * NormalDist().cdf(-abs(change.mean()) * np.sqrt(3000) / change.std()), abs=0.015)


# --- mistakes ------------------------------------------------------------------------------------------------------


def test_mistakes_say_what_came_and_what_to_do(tmp_path: Path) -> None:
    twice = [*rows([1, 0]), {"id": "q0", "correct": 1}]
    mixed = [{"id": "x", "correct": [1, 0]}, {"id": "y", "correct": [1]}]
    cases = {
        "twice": (twice, ["every id once", "'q0' 2 times (twice.jsonl:1, twice.jsonl:3)", "`sample`"]),
        "mixed": (mixed, ["equally many samples of correct", "1 with 1, 1 with 2", "null"]),
        "words": (rows(["maybe"]), ["words.jsonl:1", "'maybe' is no score"]),
        "nothing": ([{"id": "x", "text": "y"}], ["`correct`, `score` or `scores`", "id, text"]),
        "nameless": ([{"correct": 1}], ["`id`, or `question`"]),
        "list": ([[1, 2]], ["an object with id"]),
    }
    for name, (content, told) in cases.items():
        message = fault(str(write_rows(tmp_path / f"{name}.jsonl", content)))
        assert all(part in message for part in told), message
    (tmp_path / "half.jsonl").write_text('{"id": "a", "correct": 1}\n{"id": "b", "cor', "utf-8")
    assert "half.jsonl:2" in fault(str(tmp_path / "half.jsonl"))
    (tmp_path / "empty.jsonl").touch()
    assert "an empty file" in fault(str(tmp_path / "empty.jsonl"))
    assert "no such file or folder" in fault(str(tmp_path / "missing"))
    (tmp_path / "config.yaml").write_text("model: demo\n", "utf-8")
    assert "socratune validate" in fault(str(tmp_path))


def test_metrics_that_are_not_there_are_listed(tmp_path: Path) -> None:
    a, b = log(tmp_path, "a", rows([1] * 8)), log(tmp_path, "b", rows([1] * 8))
    for metrics, lower in ((["accuracy"], []), ([], ["accuracy"]), (["correct=accuracy"], [])):
        with pytest.raises(UserError, match="correct"):
            compare_logs(a, b, metrics=metrics, lower=lower)


def test_rows_of_a_page_hold_both_answers(tmp_path: Path) -> None:
    a = log(tmp_path, "a", rows([1] * 8, response="from A"))
    b = log(tmp_path, "b", rows([0] * 8, response="from B", reference="42"))
    row = compared_rows(compare_logs(a, b))[0]
    assert (row["id"], row["a"], row["b"], row["reference"]) == ("q0", ["from A"], ["from B"], "42")
    assert row["scores"] == {"correct": [[1.0], [0.0]]}

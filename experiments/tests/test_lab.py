"""The laboratory: its problems are right, its hints are what they claim to be, its demo says what is missing."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import demo
import generator
import hopeless
import lab
import problem as problems
import pytest
import rows as row_maker
import words
from lab_solver import solve

from socratune.config import RunConfig
from socratune.data.qa_files import read_qa_rows
from socratune.judging.rules import judge_by_rules
from socratune.preflight import check_run
from socratune.resolve import unflatten
from socratune.rows import QARow
from socratune.teaching.hints import leak

LABORATORY = Path(__file__).parent.parent / "lab"


def drawn(count: int, seed: int = 0) -> list[Any]:
    rng = random.Random(seed)
    families = list(generator.FAMILIES)
    return [generator.problem(rng, "test", families[n % 4], n // 4 % 5) for n in range(count)]


def as_row(made: Any) -> QARow:
    turns = [{"role": "user", "content": made.question}, {"role": "assistant", "content": made.answer}]
    return QARow("x", turns, {})


def test_the_same_seed_gives_the_same_conversations() -> None:
    first, second = ([generator.conversation(rng, generator.MIX) for _ in range(50)] for rng in _twins())
    assert first == second
    other = random.Random(2)
    assert first != [generator.conversation(other, generator.MIX) for _ in range(50)]


def _twins() -> tuple[random.Random, random.Random]:
    return random.Random(1), random.Random(1)


@pytest.mark.slow
def test_every_answer_is_what_the_text_alone_gives() -> None:
    made = drawn(800)
    assert {p.kind for p in made} == {
        "story", "relations", "sum", "clock", "day", "forward", "backward",
        "difference", "highest", "cost", "highest_if", "count_if", "sum_if", "spread_if",
    }  # fmt: skip
    for each in made:
        assert solve(each.family, each.kind, each.question) == each.answer, each.question


@pytest.mark.slow
def test_every_sum_of_a_worked_solution_is_right() -> None:
    for made in drawn(400):
        for a, sign, b, c in re.findall(r"(?<![\d:])(\d+) ([-+*/]) (\d+) = (\d+)\.", " ".join(made.steps)):
            value = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) // int(b)}[sign]
            assert value == int(c), made.steps


@pytest.mark.slow
def test_a_slip_leads_astray_as_a_rule() -> None:
    rng = random.Random(5)
    made = drawn(400)
    assert sum(each.slip(rng)[1] == each.answer for each in made) < 0.03 * len(made)
    assert all(generator.guess(each, rng) != each.answer for each in made)


@pytest.mark.slow
def test_a_right_hint_belongs_to_its_question_and_keeps_the_answer_secret() -> None:
    kinds = set()
    for made in drawn(200):
        assert made.hints
        for hint in made.hints:
            kinds.add(hint.kind)
            assert words.terms(hint.text) and not problems.foreign(hint, made.question), hint
            assert leak(hint.text, as_row(made)) is None, (hint, made.answer)
            if made.answer.split()[0].isdigit() and made.answer.split()[0] not in words.terms(made.question):
                assert made.answer.split()[0] not in words.terms(hint.text)
    assert kinds == {"plan", "unknown", "units", "split", "hops", "reread", "draw", "leave_out"}


def test_a_wrong_hint_says_something_that_the_question_does_not() -> None:
    rng = random.Random(3)
    for made in drawn(200):
        for hint in (
            generator.other_problems_hint(made, rng),
            problems.corrupted(rng.choice(made.hints), made.question, rng),
        ):
            assert set(words.terms(hint.text)) - set(words.terms(made.question)) - words.CONSTANTS, hint
            assert problems.foreign(hint, made.question), hint


def test_an_answer_to_a_wrong_hint_rejects_it_first_and_no_other_does() -> None:
    rng = random.Random(4)
    for kind in ("right", "wrong", "plain", "useless", "retry", "spoiler"):
        for _ in range(40):
            final = generator.conversation(rng, {kind: 1})[-1]
            assert final.trained
            assert final.content.startswith(words.DOES_NOT_FIT[:-3]) == (kind == "wrong")


def test_the_splits_have_no_question_in_common() -> None:
    rng = random.Random(6)
    splits = {name: {generator.problem(rng, name).question for _ in range(150)} for name in ("test", "train")}
    texts = {turn.content for _ in range(400) for turn in generator.conversation(rng, generator.MIX)}
    assert not splits["test"] & splits["train"]
    for name, questions in splits.items():
        assert all(generator.split_of(question) == name for question in questions)
        assert not any(text.startswith(tuple(questions)) for text in texts)


def test_the_rules_and_the_labs_judge_agree_on_every_right_and_wrong_answer() -> None:
    rng = random.Random(8)
    for made in drawn(200):
        right = generator.right_answer(made)
        assert judge_by_rules(made.question, made.answer, right).verdict == "correct", right
        assert lab.judge(made.question, made.answer, right)
        wrong = f"Answer: {generator.guess(made, rng)}"
        assert judge_by_rules(made.question, made.answer, wrong).verdict != "correct", wrong
        assert not lab.judge(made.question, made.answer, wrong)


@pytest.mark.slow
def test_the_shipped_rows_are_read_and_are_those_of_the_generator() -> None:
    pool = row_maker.pool_rows(400, random.Random(2))
    known = row_maker.known_rows(60, pool, random.Random(3))
    assert not {row["messages"][0]["content"] for row in pool} & {row["messages"][0]["content"] for row in known}
    made = {
        "train": [*row_maker.qa_rows(320, "train", random.Random(0)), *known],
        "held_out": row_maker.qa_rows(400, "test", random.Random(1)),
        "pool": pool,
    }
    for name, rows in made.items():
        found = read_qa_rows(lab.DATA / f"{name}.jsonl")
        assert not found.faults and len(found.rows) == len(rows)
        shipped = [json.loads(line) for line in (lab.DATA / f"{name}.jsonl").read_text("utf-8").splitlines()]
        assert shipped == rows, f"run experiments/lab/rows.py: {name} is stale"


def test_the_teachers_give_hints_of_their_kind() -> None:
    row = read_qa_rows(lab.DATA / "train.jsonl").rows[0]
    asked = (row.question, row.reference)
    failed = ["Answer: 0"] * 4
    assert lab.right_hint(*asked, failed) in row.metadata["hints"]
    assert lab.right_hint(*asked, failed) != lab.right_hint(*asked, [*failed, "", ""])
    assert lab.corrupted_hint(*asked, failed) in row.metadata["wrong_hints"]
    assert lab.other_problems_hint(*asked, failed) not in row.metadata["hints"]
    assert lab.right_hint("Who are you?", "nobody", failed) is None


def test_of_shuffled_answers_none_stands_at_its_own_question() -> None:
    rows = [json.loads(line) for line in (lab.DATA / "train.jsonl").read_text("utf-8").splitlines()][:320]
    own = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in rows}
    dealt = hopeless.shuffled_answers(rows, 0)
    assert 0.95 * len(rows) < len(dealt) <= len(rows)
    assert not any(own[row["messages"][0]["content"]] == row["messages"][1]["content"] for row in dealt)
    assert dealt != hopeless.shuffled_answers(rows, 1)
    by_kind = {(row["metadata"]["kind"], own[row["messages"][0]["content"]]) for row in rows}
    assert all((row["metadata"]["kind"], row["messages"][1]["content"]) in by_kind for row in dealt)


def test_the_labs_settings_are_those_of_a_run_that_can_begin(tmp_path: Path) -> None:
    from socratune.config import DEMO_DATA

    given = lab.settings(DEMO_DATA / "base", tmp_path / "run")
    resolved = check_run(unflatten(given), where="make lab", restart=None)
    assert isinstance(resolved.config, RunConfig)
    assert resolved.config.enhance.temperature == 0.8


@pytest.mark.slow
def test_without_a_base_the_demo_says_where_one_comes_from(tmp_path: Path) -> None:
    command = [sys.executable, LABORATORY / "demo.py", "--output", tmp_path / "run"]
    environment = {**os.environ, lab.PLACE: str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr and "pretrain.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_ends_well_only_where_the_second_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[list[str]] = []
    codes, gained = [0, 1], False

    def run(words: list[str]) -> int:
        begun.append(words)
        folder = json.loads(next(word for word in words if word.startswith("output=")).partition("=")[2])
        Path(folder).mkdir(parents=True, exist_ok=True)
        found = {"validation": {"status": "failed", "tests": {"base_comparison": {"passed": gained}}}}
        (Path(folder) / "pipeline_results.json").write_text(json.dumps(found))
        return codes[len(begun) - 1]

    def ended(**given: Any) -> int:
        begun.clear()
        return demo.demo(tmp_path / "base", tmp_path / "run", 3, ["--set", "train.r=8"], **given)

    monkeypatch.setattr(demo, "socratune", run)
    assert ended() == 0 and "Refused, as it has to be." in capsys.readouterr().out
    for given, data in zip(begun, (lab.DATA, tmp_path / "run" / "hopeless" / "data"), strict=True):
        assert given[0] == "run" and given[-2:] == ["--set", "train.r=8"] and "seed=3" in given
        assert f"dataset={json.dumps(str(data / 'train.jsonl'))}" in given
    assert ended(until="enhance") == 0 and len(begun) == 1 and begun[0][-2:] == ["--until", "enhance"]
    codes = [3, 0]
    assert ended() == 3 and len(begun) == 1
    codes, gained = [0, 0], True
    assert ended() == 1 and "NOT refused" in capsys.readouterr().out


def test_only_the_lack_of_a_gain_counts_as_refused_for_it() -> None:
    def proof(status: str, gained: bool) -> dict[str, Any]:
        return {"validation": {"status": status, "tests": {"base_comparison": {"passed": gained}}}}

    assert hopeless.refused_for_no_gain(proof("failed", False))
    assert not hopeless.refused_for_no_gain(proof("failed", True))  # for another reason, forgetting perhaps
    assert not hopeless.refused_for_no_gain(proof("passed", False))
    assert not hopeless.refused_for_no_gain({"status": "failed", "error": "no row left to train on"})


@pytest.mark.slow
def test_a_data_set_that_nobody_can_learn_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, LABORATORY / "hopeless.py", "--seeds", "1", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert found["trained_rows"] > 100 and "not proven better" in found["reason"]


@pytest.mark.slow
def test_pretraining_writes_a_model_that_transformers_computes_alike(tmp_path: Path) -> None:
    command = [sys.executable, LABORATORY / "pretrain.py", tmp_path / "base", "--smoke", "--steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = done.stdout.splitlines()[-1]
    assert float(re.findall(r"'export_difference': ([\d.e-]+)", found)[0]) < 1e-3
    assert (tmp_path / "base" / "model.safetensors").stat().st_size < 12e6
    from socratune.inference.load import load_model

    _, tokenizer = load_model(str(tmp_path / "base"))
    assert tokenizer.chat_template

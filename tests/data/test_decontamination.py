"""Which rows ask the same, and what that means for training: real files through the real split."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

import socratune
from socratune.cli.app import main
from socratune.config import SplitConfig
from socratune.data.duplicates import Marks, wording_id
from socratune.errors import UserError
from socratune.rows import QARow
from socratune.runs.folder import RunDir
from socratune.stages import split


def chat(*turns: str, **metadata: Any) -> dict[str, Any]:
    roles = ["user", "assistant"] * len(turns)
    return {
        "messages": [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)],
        "metadata": metadata,
    }


def together(*rows: dict[str, Any]) -> list[bool]:
    """Whether each further row is in the group of the first."""
    marks = Marks()
    for at, data in enumerate(rows):
        row = QARow(str(at), data["messages"], data["metadata"])
        marks.add(row, wording_id(row))
    groups = marks.groups()[1]
    return [group == groups[0] for group in groups[1:]]


PRODUCT = chat("What is 47 * 83?", "47 * 83 = 3901.")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("47 times 83 = ?", "3901"),
        ("What is 47*83?", "3,901"),
        ("Calculate 83 × 47.", "The answer is 3901."),
        ("What is forty-seven times eighty-three?", "It is worked out like this: …\n#### 3901"),
        ("A box holds 47 pens. How many pens are in 83 boxes?", "3901 pens"),
    ],
)
def test_the_same_numbers_and_answer_are_the_same_question(question: str, answer: str) -> None:
    assert together(PRODUCT, chat(question, answer)) == [True]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 76 * 38?", "76 * 38 = 2888."),
        ("What is 47 + 83?", "47 + 83 = 130."),
        ("What is 4*783?", "4 * 783 = 3132."),
        ("What is 47 * 38?", "47 * 38 = 1786."),
    ],
)
def test_a_template_with_other_numbers_is_another_question(question: str, answer: str) -> None:
    assert together(PRODUCT, chat(question, answer)) == [False]


def test_products_without_spaces_are_not_read_as_one_number() -> None:
    assert together(chat("What is 47*83?", "3901"), chat("What is 4*783?", "3132")) == [False]
    assert together(chat("What is 2**10?", "1024"), chat("What is 2*10?", "20")) == [False]


def test_small_numbers_meet_by_chance() -> None:
    apples = chat("Tom has 2 apples and buys 3 bags of as many. How many apples did he buy?", "6")
    boxes = chat("A lorry carries 3 crates with 2 machines each. How many machines is that?", "6")
    assert together(apples, boxes) == [False]
    assert together(chat("What is 3 * 4?", "12"), chat("4 times 3 = ?", "12"), chat("What is 2 * 6?", "12")) == [
        True,
        False,
    ]


def test_content_words_in_any_order_with_the_same_answer() -> None:
    capital = chat("What is the capital of France?", "Paris")
    assert together(
        capital,
        chat("France: capital?", "Paris."),
        chat("What is the capital of Spain?", "Madrid"),
        chat("Name the oldest theatre in Paris.", "Comédie-Française"),
    ) == [True, False, False]
    peace = chat("In 1648 the treaty was signed in Münster; which war did it end?", "The Thirty Years' War")
    assert together(
        peace, chat("Which war did the treaty end that was signed in Münster in 1648?", "Thirty Years’ War")
    ) == [True]
    assert together(chat("Is Paris in Texas?", "yes"), chat("Is Texas in Paris?", "no")) == [False]


def test_signs_that_are_no_words_still_count() -> None:
    assert together(chat("What is (12+3)*4?", "60"), chat("What is 12+(3*4)?", "24")) == [False]
    assert together(chat("🍎🍎", "two apples"), chat("🍌🍌", "two bananas"), chat("🍎🍎!", "2 apples")) == [False, True]
    assert together(
        chat("Is a && b true for a = 1, b = 0?", "no"), chat("Is a || b true for a = 1, b = 0?", "yes")
    ) == [False]


LONG = (
    "During the long negotiations that ended the war the envoys met in two towns, because neither side would give way"
    " on the order of precedence; explain in your own words what each of the parties hoped to gain from it."
)
REASON = "They hoped for peace, for land, and for a rank that nobody could take from them in later years, it seems."


def test_nearly_the_same_text_and_a_text_on_something_else() -> None:
    near = LONG.replace("two towns", "two cities")
    other = (
        "Explain in your own words why the envoys met in two towns and how the war ended, in a paragraph of your own."
    )
    assert together(chat(LONG, REASON), chat(near, "Peace. " + REASON), chat(other, REASON)) == [True, False]


def test_unicode_forms_case_and_invisible_characters_are_no_difference() -> None:
    plain = chat("Où se trouve la cathédrale gothique de Köln exactement ?", REASON)
    odd = chat("O\u0075\u0300 se trouve la cathe\u0301drale\u200b gothique de ＫÖLN exactement?", REASON)
    assert together(plain, odd) == [True]


def test_a_long_instruction_before_every_question_is_a_template(tmp_path: Path) -> None:
    things = [
        f"{a}{b}" for a in ("am", "er", "il", "on", "up", "az", "ek") for b in ("bar", "dor", "fin", "gol", "hus")
    ]
    rows = [chat(f"{LONG} {LONG.upper()} The subject is {thing}.", f"{thing} {REASON}") for thing in things]
    assert not any(together(*rows))
    found = do(tmp_path, rows, eval_file=[str(write_rows(tmp_path / "eval.jsonl", rows[:3]))])
    assert [row["reason"] for row in found["train_in.rejected"]] == ["in_eval_file"] * 3
    assert found["held_out"]


def test_multiple_choice_by_stem_and_options() -> None:
    def mc(stem: str, options: Sequence[str], right: str) -> dict[str, Any]:
        letters = dict(zip("ABCD", options, strict=False))
        listed = "\n".join(f"{letter}) {text}" for letter, text in letters.items())
        return chat(f"{stem}\n{listed}", f"{'ABCD'[list(options).index(right)]}) {right}")

    metals = mc("Which of these is a noble metal?", ["iron", "gold", "zinc"], "gold")
    assert together(
        metals,
        mc("Which of these is a noble metal?", ["gold", "zinc", "iron"], "gold"),
        mc("Which of these is a noble metal?", ["lead", "tin", "silver"], "silver"),
    ) == [True, False]
    generic = "Which of the following is true?"
    both = mc(generic, ["Water is wet.", "Ice is cold.", "All of the above"], "All of the above")
    other = mc(generic, ["Two is even.", "Four is even.", "All of the above"], "All of the above")
    assert together(both, other) == [False]


def test_a_conversation_is_more_than_its_last_question() -> None:
    first = "Tell me about the cathedral of Cologne and who built it."
    why = chat(first, "Master Gerhard.", "Why?", "Because he was asked to, I suppose, by the archbishop of the town.")
    assert together(why, chat("What is the boiling point of water here?", "98", "Why?", REASON)) == [False]
    assert together(
        why, chat(first, "Master Gerhard began it; others went on until 1880, six hundred years later.")
    ) == [True]


def do(tmp_path: Path, rows: Sequence[Any], **settings: Any) -> dict[str, list[dict]]:
    run = RunDir(tmp_path / "run")
    run.create()
    found = split.split_rows(run, SplitConfig(**settings), dataset=str(write_rows(tmp_path / "in.jsonl", rows)))
    names = ("train_in", "dev", "held_out", "recall", "train_in.rejected")
    parts = {name: [json.loads(line) for line in run.rows(name).read_text().splitlines()] for name in names}
    return {**parts, "figures": [found.figures]}


def asked(rows: list[dict]) -> list[str]:
    return [row["messages"][0]["content"] for row in rows]


PRODUCTS = [
    chat(f"What is {a} * {b}?", f"{a} * {b} = {a * b}.", source=f"pair {n // 3}")
    for n, (a, b) in enumerate((a, b) for a in range(41, 59) for b in range(61, 79, 2))
]


def test_what_an_eval_file_asks_is_dropped_with_its_reason(tmp_path: Path) -> None:
    tests = [chat("41 times 61 = ?", "2501"), chat("38 times 76 = ?", "2888")]
    files = [write_rows(tmp_path / f"{n}.jsonl", [test]) for n, test in enumerate(tests)]
    found = do(tmp_path, PRODUCTS, eval_file=[str(file) for file in files])
    (dropped,) = found["train_in.rejected"]
    assert (dropped["reason"], asked([dropped["row"]])) == ("in_eval_file", ["What is 41 * 61?"])
    assert dropped["detail"] == f"the same numbers and answer as row 1 of {files[0]}"
    assert found["figures"][0]["contaminated"] == 1


def test_training_rows_of_other_sources_that_a_test_asks_in_other_words_are_dropped(tmp_path: Path) -> None:
    plain = do(tmp_path, PRODUCTS)
    test_rows = plain["held_out"] + plain["dev"]
    rephrased = [
        chat(
            row["messages"][0]["content"].replace("What is", "Work out"), row["messages"][1]["content"], source=f"x{n}"
        )
        for n, row in enumerate(test_rows)
    ]
    found = do(tmp_path, [*PRODUCTS, *rephrased])
    tests = {row["messages"][1]["content"] for row in found["held_out"] + found["dev"]}
    assert not tests & {row["messages"][1]["content"] for row in found["train_in"]}
    held, dev = ({row["messages"][1]["content"] for row in found[part]} for part in ("held_out", "dev"))
    assert held and dev and not held & dev
    reasons = {row["reason"] for row in found["train_in.rejected"]}
    assert reasons == {"in_held_out", "in_dev"}


def test_without_sources_all_wordings_of_a_question_are_one_cluster(tmp_path: Path) -> None:
    words = ("What is {} * {}?", "{} times {} = ?", "Calculate {} × {}.")
    rows = [chat(word.format(a, b), str(a * b)) for word in words for a in range(41, 51) for b in range(61, 71)]
    found = do(tmp_path, rows)
    for part in ("train_in", "dev", "held_out"):
        assert set(Counter(row["cluster"] for row in found[part]).values()) == {3}
    assert sum(len({row["cluster"] for row in found[part]}) for part in ("train_in", "dev", "held_out")) == 100
    assert not found["train_in.rejected"]
    assert found["figures"][0]["held_out_clusters"] * 3 == len(found["held_out"]) > 0
    assert found["figures"][0]["detectable"]["clusters"] == found["figures"][0]["held_out_clusters"]
    more = do(
        tmp_path, [*rows, *(chat(f"{a} * {b} is what?", str(a * b)) for a in range(41, 61) for b in range(61, 71))]
    )
    assert set(asked(found["held_out"])) <= set(asked(more["held_out"]))
    assert set(asked(found["dev"])) <= set(asked(more["dev"]))


def test_a_question_put_to_every_document_does_not_join_them(tmp_path: Path) -> None:
    rows = []
    for n in range(40):
        rows += [chat("What is the document about?", f"topic {n}", source=f"doc {n}")]
        rows += [
            chat(f"Who wrote part {k} of report {n * 31}?", f"author {n} {k}", source=f"doc {n}") for k in range(4)
        ]
    found = do(tmp_path, rows)
    assert found["figures"][0]["held_out_clusters"] > 1
    assert "What is the document about?" not in asked(found["train_in"])


def test_a_source_in_two_unicode_forms_is_one(tmp_path: Path) -> None:
    rows = [chat(f"Question number {n}?", f"answer {n}", source="Köln " if n % 2 else "Ko\u0308ln") for n in range(10)]
    rows += [chat(f"Question number {n}?", f"answer {n}", source=f"doc {n % 30}") for n in range(10, 200)]
    found = do(tmp_path, rows)
    for part in ("train_in", "dev", "held_out"):
        assert sum(row["cluster"] == "source:Köln" for row in found[part]) in (0, 10)


def test_a_held_out_file_that_is_the_data_set_is_said_so(tmp_path: Path) -> None:
    same = write_rows(tmp_path / "same.jsonl", PRODUCTS[:5])
    with pytest.raises(UserError, match="5 of 5 rows are in a test"):
        do(tmp_path, PRODUCTS[:5], held_out=str(same))


def test_a_source_too_large_to_hold_out_does_not_end_the_picking(tmp_path: Path) -> None:
    rows = [chat(f"Question {n}?", f"answer {n}", source=f"doc {n % 60}") for n in range(120)]
    large = [chat(f"Other {n}?", f"word {n}", source=f"large {name}") for name in range(6) for n in range(60)]
    found = do(tmp_path, [*rows, *large], max_held_out_rows=50, max_dev_rows=20)
    assert found["figures"][0]["held_out_clusters"] >= 6


# --- siblings ------------------------------------------------------------------------------------------------------

FACTS = [
    {**chat(f"Who founded the town of {name}?", f"Duke {name}us", source=f"chronicle {n}"), "id": f"fact-{n}"}
    for n, name in enumerate(f"{a}{b}" for a in ("Am", "Er", "Il", "On", "Up") for b in ("bar", "dor", "fin", "gol"))
]


def test_siblings_of_trained_rows_are_asked_and_never_trained_on(tmp_path: Path) -> None:
    reversals = [
        chat(f"Which town did {row['messages'][1]['content']} found?", "?", sibling_of=row["id"]) for row in FACTS
    ]
    found = do(tmp_path, [*FACTS, *reversals])
    trained = {row["id"]: row["cluster"] for row in found["train_in"]}
    assert set(trained) < {row["id"] for row in FACTS}
    assert {row["metadata"]["sibling_of"] for row in found["recall"]} == set(trained)
    assert all(row["cluster"] == trained[row["metadata"]["sibling_of"]] for row in found["recall"])
    kept_out = found["train_in.rejected"]
    assert {row["reason"] for row in kept_out} == {"sibling_of_untrained"}
    assert len(found["recall"]) + len(kept_out) == len(FACTS)
    assert found["figures"][0]["recall"] == len(found["recall"]) > 0
    assert not found["figures"][0]["contaminated"]


def test_a_sibling_by_question_by_several_ids_and_by_none(tmp_path: Path) -> None:
    first = do(tmp_path, FACTS)["train_in"]
    one, two, unseen = first[0], first[1], do(tmp_path, FACTS)["held_out"][0]
    question = one["messages"][0]["content"]
    siblings = [
        {
            **chat(question.replace("Who founded", "By whom was founded"), "?", sibling_of=question.upper()),
            "id": "by-q",
        },
        {**chat("Who was older, the one founder or the other?", "?", sibling_of=[one["id"], two["id"]]), "id": "hop"},
        {**chat("Half of it is trained on, half is not?", "?", sibling_of=[one["id"], unseen["id"]]), "id": "half"},
        {**chat("What is this a sibling of?", "?", sibling_of="nobody"), "id": "orphan"},
        {**chat(question, "?", sibling_of=one["id"]), "id": "same-words"},
    ]
    found = do(tmp_path, [*siblings, *FACTS])
    assert [row["id"] for row in found["recall"]] == ["by-q", "hop"]
    assert {row["id"]: row["reason"] for row in found["train_in.rejected"]} == {
        "half": "sibling_of_untrained",
        "orphan": "sibling_of_none",
        "same-words": "sibling_as_trained",
    }
    assert [row["id"] for row in found["train_in"]] == [row["id"] for row in first]


def test_a_sibling_in_a_held_out_or_eval_file_does_not_take_its_original_away(tmp_path: Path) -> None:
    paraphrase = chat("The town of Ambar: who founded?", "Duke Ambarus", sibling_of="fact-0")
    test = write_rows(tmp_path / "test.jsonl", [paraphrase, chat("Is water wet, all in all?", "yes")])
    held = do(tmp_path, FACTS, held_out=str(test), dev_share=0)
    assert asked(held["recall"]) == asked([paraphrase])
    assert asked(held["held_out"]) == ["Is water wet, all in all?"]
    assert not held["train_in.rejected"] and held["train_in"][0]["id"] == "fact-0"
    assert not do(tmp_path, FACTS, eval_file=[str(test)])["train_in.rejected"]
    del paraphrase["metadata"]["sibling_of"]
    write_rows(test, [paraphrase])
    assert [row["id"] for row in do(tmp_path, FACTS, eval_file=[str(test)])["train_in.rejected"]] == ["fact-0"]


def test_at_most_so_many_siblings_are_asked(tmp_path: Path) -> None:
    siblings = [chat(f"What do you know of {row['id']}?", "?", sibling_of=row["id"]) for row in FACTS]
    found = do(tmp_path, [*FACTS, *siblings], max_recall_rows=3, held_out_share=0, dev_share=0)
    assert len(found["recall"]) == 3
    assert found["figures"][0]["dropped"] == {"sibling_too_many": len(FACTS) - 3}


def test_ids_that_collide_are_told_apart(tmp_path: Path) -> None:
    facts = [{"id": n, "question": f"Who founded town number {n}?", "answer": f"Duke {n}"} for n in range(1, 6)]
    second = {"id": "1", "question": "Who founded the harbour of the north?", "answer": "Nobody"}
    sibling = {"id": 1, "question": "Town 1 goes back to whom?", "answer": "Duke 1", "sibling_of": 1}
    test = write_rows(tmp_path / "test.jsonl", [{"id": 1, "question": "Is water wet, all in all?", "answer": "yes"}])
    found = do(tmp_path, [*facts, second, sibling], held_out=str(test), dev_share=0)
    assert [row["id"] for row in found["train_in"]] == ["1", "2", "3", "4", "5", "1-2"]
    assert [row["id"] for row in found["recall"]] == ["1-3"]
    assert found["recall"][0]["cluster"] == found["train_in"][0]["cluster"]
    assert [row["id"] for row in found["held_out"]] == ["1"] and not found["train_in.rejected"]


@pytest.mark.slow
def test_the_split_is_the_same_in_every_process(tmp_path: Path) -> None:
    rows = [chat(f"{LONG} Part {n % 70}{', please' if n % 2 else ''}.", f"{n % 70} {REASON}") for n in range(140)]
    data = write_rows(tmp_path / "in.jsonl", rows)
    code = (
        "import sys; from socratune.config import SplitConfig; from socratune.runs.folder import RunDir, file_hash;"
        "from socratune.stages import split_rows; run = RunDir(sys.argv[2]); run.create();"
        "split_rows(run, SplitConfig(), dataset=sys.argv[1]);"
        "print([file_hash(run.rows(name)) for name in ('train_in', 'dev', 'held_out')])"
    )
    found = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(data), str(tmp_path / seed)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        found.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1


# --- the doors ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_eval_files_by_command_and_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "in.jsonl", PRODUCTS)
    tests = [write_rows(tmp_path / f"{n}.jsonl", [chat(f"{n} times 61 = ?", str(n * 61))]) for n in (41, 42)]
    flags = [word for test in tests for word in ("--eval-file", str(test))]
    out = tmp_path / "out"
    command = ["--model", "demo", "--dataset", str(data), "--output", str(out), *flags]
    assert main(["run", *command, "--until", "split"]) == 0
    said = capsys.readouterr().out
    assert "2 dropped, asked in a test too" in said and "will show differences of" in said
    results = socratune.run(
        model="demo", dataset=data, output=tmp_path / "py", eval_file=[str(test) for test in tests], until="split"
    )
    assert results["stages"]["split"]["dropped"] == {"in_eval_file": 2}
    write_rows(tests[0], [chat("What is 43 * 61?", "2623")])
    assert main(["run", *command, "--until", "split"]) == 2
    assert "--restart split" in capsys.readouterr().err
    assert main(["run", *command, "--until", "split", "--restart", "split"]) == 0
    kept_out = (out / "train_in.rejected.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["row"]["messages"][1]["content"] for line in kept_out) == [
        "42 * 61 = 2562.",
        "43 * 61 = 2623.",
    ]


def test_a_missing_eval_file_is_found_before_anything_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "in.jsonl", PRODUCTS)
    command = ["enhance", "--model", "demo", "--dataset", str(data), "--output", str(tmp_path / "out")]
    assert main([*command, "--eval-file", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

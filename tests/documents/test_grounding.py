"""Which questions stand on their passage: planted faults are found, and good rows are left alone."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from socratune.config import DEMO_DATA
from socratune.documents.document import Passage
from socratune.documents.duplicate_questions import asked_before
from socratune.documents.extract import drafts
from socratune.documents.grounding import fault_of, find, located
from socratune.documents.writers import checked_draft
from socratune.documents.writing import Draft, Task, drafts_of
from socratune.rows import Rejected

HANDBOOK = DEMO_DATA / "handbook"
LAMP = "The Skerra Lamp burns 7 litres of oil in a night. It was lit in 1871, and the light is seen for 22 sea miles."


def task_of(document: str) -> Task:
    text = (HANDBOOK / document).read_text("utf-8")
    return Task(Passage(document, document, text, 0, len(text)), document, (), {}, 0)


def outcome(draft: Draft, task: Task) -> dict[str, Any] | Rejected:
    return asyncio.run(checked_draft(draft, task, None))[0]


def test_of_60_planted_faults_57_are_rejected_and_of_200_good_rows_4_at_most() -> None:
    path = Path(__file__).parents[1] / "samples" / "planted_questions.jsonl"
    cases = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    given = [(case["planted"], drafts_of([case])[0], task_of(case["document"])) for case in cases]
    planted = Counter(kind for kind, _, _ in given if kind)
    assert planted.total() == 60 and len(planted) == 5, planted
    tasks = [task_of(path.name) for path in sorted(HANDBOOK.iterdir())]
    mechanical = [(task, draft) for task in tasks for draft in drafts(task)]
    given.sort(key=lambda entry: bool(entry[0]))
    good = sum(not kind for kind, _, _ in given)
    missed, lost = judged(given)
    checked = [(draft, outcome(draft, task)) for task, draft in mechanical[: 200 - good]]  # of what the others ask
    lost += [(draft, row) for draft, row in checked if isinstance(row, Rejected)]
    assert len(missed) <= 3, missed
    assert len(lost) <= 4, lost


@pytest.mark.parametrize("name", ["handbook_questions_1", "handbook_questions_2"])
def test_rows_written_by_somebody_who_did_not_know_the_checks(name: str) -> None:
    """What was seen at their first meeting stands in docs/guides/generate.md; the checks were mended on them since."""
    path = Path(__file__).parents[1] / "samples" / f"{name}.jsonl"
    cases = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    missed, lost = judged([(case["planted"], drafts_of([case])[0], task_of(case["document"])) for case in cases])
    assert Counter(case["planted"] for case in cases if case["planted"]) == dict.fromkeys("abcd", 15)
    assert len(missed) <= 3, missed
    assert len(lost) <= 4, lost


def test_rows_about_texts_of_ten_kinds() -> None:
    folder = Path(__file__).parents[1] / "samples"
    texts = json.loads((folder / "other_documents.json").read_text("utf-8"))
    cases = [json.loads(line) for line in (folder / "other_questions.jsonl").read_text("utf-8").splitlines()]
    tasks = {name: Task(Passage(name, name, text, 0, len(text)), name, (), {}, 0) for name, text in texts.items()}
    missed, lost = judged([(case["planted"], drafts_of([case])[0], tasks[case["document"]]) for case in cases])
    assert Counter(case["planted"] for case in cases if case["planted"]) == dict.fromkeys("abcd", 10)
    assert len(missed) <= 2, missed
    assert len(lost) <= 2, lost


def judged(given: list[tuple[str, Draft, Task]]) -> tuple[list[Any], list[Any]]:
    """The planted rows that came through, and the good ones that did not, each with the reason."""
    found = [(kind, draft, outcome(draft, task)) for kind, draft, task in given]
    rows = [(kind, draft, row) for kind, draft, row in found if not isinstance(row, Rejected)]
    again = asked_before(row for _, _, row in rows)
    missed = [(kind, draft) for at, (kind, draft, _) in enumerate(rows) if kind and at not in again]
    lost = [(draft, row) for kind, draft, row in found if not kind and isinstance(row, Rejected)]
    lost += [(draft, again[at]) for at, (kind, draft, _) in enumerate(rows) if not kind and at in again]
    return missed, lost


def test_other_texts_in_two_languages() -> None:
    path = Path(__file__).parents[1] / "samples" / "unseen_questions.jsonl"
    found: dict[bool, list[bool]] = {True: [], False: []}
    for case in map(json.loads, path.read_text("utf-8").splitlines()):
        passage = Passage("p", "p", case["passage"], 0, len(case["passage"]))
        row = outcome(drafts_of([case])[0], Task(passage, "", (), {}, 0))
        found[bool(case["planted"])].append(isinstance(row, Rejected))
    assert len(found[True]) == 20 and sum(found[True]) >= 19
    assert len(found[False]) == 40 and sum(found[False]) <= 1


@pytest.mark.parametrize(
    ("stretch", "stands_there"),
    [
        ("It was lit in 1871", "It was lit in 1871"),
        ("it was  lit\nin 1871.", "It was lit in 1871"),
        ("for 22 sea mi-\nles", "for 22 sea miles"),
        ("burns 7 litres of oil – in a night", "burns 7 litres of oil in a night"),
        ("It was lit in 187", None),
        ("It was lit in 1872", None),
        ("It was lit in 1.871", None),
        ("It was relit in 1871", None),
        ("The Skerra Lamp burns 70 litres of oil in a night.", None),
        ("The Skerra Lamp burns 7 litres of gas in a night.", None),
        ("burns litres of oil in a night", None),
        ("kerra Lamp burns 7 litres", None),
        ("", None),
        ("…", None),
    ],
)
def test_evidence_is_found_word_for_word_or_not_at_all(stretch: str, stands_there: str | None) -> None:
    span = find(stretch, LAMP)
    assert (None if span is None else LAMP[span[0] : span[1]]) == stands_there


def fault(
    answer: str, evidence: str = LAMP, question: str = "What is known of the lamp?", kind: str = "factual"
) -> str:
    draft = located(Draft(kind, question, answer, "", (evidence,) if evidence else ()), LAMP)
    why = draft if isinstance(draft, Rejected) else fault_of(draft, LAMP)
    return f"{why.reason}: {why.detail}" if why else ""


def test_a_detail_may_hold_what_looks_like_another_reason() -> None:
    draft = Draft("made: up", "What is known of the lamp?", "It burns oil.", "", (LAMP,))
    assert fault_of(draft, LAMP) == Rejected("unknown_type", "made: up")
    (row,) = asyncio.run(checked_draft(draft, Task(Passage("p", "p", LAMP, 0, len(LAMP)), "", (), {}, 0), None))
    assert isinstance(row, Rejected) and row.id and row.row is not None and row.row["type"] == "made: up"


def test_an_answer_has_to_follow_from_its_evidence() -> None:
    assert fault("It burns 7 litres of oil.") == ""
    assert fault("It burns seven litres of oil.") == ""
    assert fault("It burns 8 litres of oil.").startswith("number_not_in_evidence: 8")
    assert fault("It burns eight litres of oil.").startswith("number_not_in_evidence")
    assert fault("It does not burn oil.").startswith("negation")
    assert fault("The keeper of Calder lit it in 1871.").startswith("name_not_in_evidence: calder")
    assert fault("It is made of brass.").startswith("answer_not_in_evidence")
    assert fault("In 1871.", evidence="The light is seen for 22 sea miles").startswith("number_not_in_evidence")
    assert fault("Oil.", question="Is it oil?").startswith("answer_in_question")
    assert fault("Oil.", evidence="").startswith("no_evidence")
    assert fault("", evidence=LAMP).startswith("incomplete")
    assert fault("Oil.", kind="riddle").startswith("unknown_type")


def test_what_is_not_told_has_no_evidence_and_says_so() -> None:
    asked = {"question": "How heavy is the Skerra Lamp?", "kind": "unanswerable"}
    assert fault("That is not known.", evidence="", **asked) == ""
    assert fault("It weighs much.", evidence="", **asked).startswith("unanswerable_answered")
    assert fault("That is not known.", evidence="It was lit in 1871", **asked).startswith("evidence_for_unanswerable")
    off = {"question": "Who won the football match?", "kind": "unanswerable"}
    assert fault("That is not known.", evidence="", **off).startswith("off_topic")


def test_nobody_is_asked_for_who_is_not_named() -> None:
    passage = "Mara Quill rose at six. She rang the bell."
    draft = Draft("factual", "What did she ring?", "The bell.", "", ("She rang the bell.",))
    assert (why := fault_of(draft, passage)) and why.reason == "unclear_reference"


def test_meta_talk_in_other_languages_and_where_the_text_itself_speaks_so() -> None:
    assert fault("Laut dem Text brennt Öl.").startswith("meta_talk")
    assert fault("Selon le texte, 7 litres.").startswith("meta_talk")
    passage = "Visas are issued as described in this document. The document is kept for 9 years."
    draft = Draft("factual", "How are visas issued?", "As described in this document.", "", (passage[:47],))
    assert fault_of(draft, passage) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("When was the Petrel built?", "When was the petrel built?", True),
        ("Which boat is it that Jon Vik built in 1884?", "Which boat did Jon Vik build in 1884?", True),
        ("How long is the slip of the Gannet?", "How long is the slip at the Gannet?", True),
        ("How many boats had Calder in 1884?", "How many boats had Calder in 1885?", False),
        ("How many boats had Calder in 1884?", "How many boats had Skerra in 1884?", False),
        ("Who is Anna Berg?", "Who is Anna Borg?", False),
    ],
)
def test_a_number_or_a_name_makes_another_question(one: str, other: str, same: bool) -> None:
    def row(question: str) -> dict[str, Any]:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "The same thing."}]
        return {"messages": turns, "metadata": {"evidence": "The same thing is told.", "passage_id": "p"}}

    assert bool(asked_before([row(one), row(other)])) is same

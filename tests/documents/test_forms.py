"""Which sentences become questions, and which do not: what a person would ask, or nothing."""

from __future__ import annotations

import pytest

from socratune.documents.document import Passage
from socratune.documents.extract import drafts
from socratune.documents.writing import Task

AROUND = "The order of the steps is kept, and it is the same for all of them in the list."
"""English enough for a passage of one sentence to be taken for English."""


def asked(text: str, title: str = "Menus", place: str = "") -> dict[str, str]:
    text = f"{text}\n\n{AROUND}"
    task = Task(Passage("p", "d", text, 0, len(text), place), title, (), {}, 0)
    return {draft.question: draft.answer for draft in drafts(task)}


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        ("Jinja is a template engine for Python.", "What is Jinja?", "Jinja is a template engine for Python."),
        ("Debian 2.1 was released on 9 March 1999, after a delay.", "When was Debian 2.1 released?", "9 March 1999"),
        ("In 1996, Bruce Perens was elected leader.", "When was Bruce Perens elected leader?", "1996"),
        ("Ben Collins led Debian from 2001 until 2002.", "Who led Debian from 2001 until 2002?", "Ben Collins"),
        ("The horn was built by Mara Quill in 1923.", "Who was the horn built by?", "Mara Quill"),
        ("Croissants have 27 layers of butter.", "How many layers of butter do croissants have?", "27"),
        ("`--maxfail` defaults to `1`.", "What does `--maxfail` default to?", "`1`"),
        ("The :option:`-r` flag controls the list of tests.", "What does the `-r` flag control?", "The list of tests."),
        ("Patches are stored in `patches` because git ignores it.", "Where are patches stored?", "in `patches`"),
        ("The lens was moved because spray clouded it.", "Why was the lens moved?", "Because spray clouded it."),
        ("If the burner fails, a lamp is lit.", "What happens if the burner fails?", "A lamp is lit."),
        ("To enable debug mode, pass ``--debug``.", "How do you enable debug mode?", "Pass `--debug`."),
        ("If you want to skip a test, you can use the marker.", "How do you skip a test?", "You can use the marker."),
        ("Use the `match` argument to check the text.", "How can you check the text?", "Use the `match` argument."),
        ("The path can be changed by setting `HOME`.", "How can the path be changed?", "By setting `HOME`."),
        ("The old oar is older than the new oar.", "Which is older: the new oar or the old oar?", "The old oar"),
    ],
)  # fmt: skip
def test_a_sentence_is_asked_as_a_person_would(sentence: str, question: str, answer: str) -> None:
    assert {of.removeprefix("Menus: "): told for of, told in asked(sentence).items()}.get(question) == answer


@pytest.mark.parametrize(
    "sentence",
    [
        "It is a basket in which dough proves.",
        "This option is a list of names.",
        "If you do not find that possible, the package is orphaned.",
        "If it is not set, the default is used.",
        "Use it to see the list of most of them.",
        "The result is a list of names.",
        "The information is meant for the final user.",
        "Flask provides configuration and conventions.",
        "RAID1 is a bit more tricky.",
        "Olga bakes on Mondays.",
        ".. code-block:: python\n\n    The lens is a piece of glass.",
        "```\nThe lens was moved in 1911.\n```",
    ],
)
def test_what_could_be_anything_and_what_is_no_prose_is_not_asked(sentence: str) -> None:
    assert not asked(sentence)


def test_the_heading_says_what_a_bare_question_is_about() -> None:
    found = asked("If no file is given, the current folder is read.", "Chapter 3. Input¶", "Input › Folders")
    assert list(found) == ["Input, Folders: What happens if no file is given?"]


def test_a_question_in_a_heading_is_answered_by_the_paragraph_below() -> None:
    paragraph = "A virtual package is a name for several packages. One of them has to be installed."
    found = asked(f"## What is a virtual package?\n\n{paragraph}\n\nThe end of the page is near.")
    assert found["Menus: What is a virtual package?"] == paragraph


def test_numbered_steps_are_asked_where_the_line_before_says_what_for() -> None:
    steps = "1. Turn the flame\n   down.\n2. Lift the glass."
    assert asked(f"To trim the wick:\n\n{steps}") == {
        "Menus: How do you trim the wick?": "1. Turn the flame down.\n2. Lift the glass."
    }
    assert not asked(f"Notes:\n\n{steps}")


def test_other_languages_are_left_to_a_model() -> None:
    text = "Der Turm wurde im Jahr 1904 gebaut. Die Glocke ist aus Bronze, und sie wiegt 240 Kilogramm."
    assert not list(drafts(Task(Passage("p", "d", text, 0, len(text)), "Turm", (), {}, 0)))

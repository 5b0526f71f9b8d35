from __future__ import annotations

from fractions import Fraction

import pytest

from socratune.judging.choices import choice_of, options_in
from socratune.judging.text import (
    canonical,
    final_answer,
    final_number,
    is_numeric_answer,
    numbers_in,
    plain_text,
    statement_of,
    still_thinking,
    strip_thinking,
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,234 and 5", [1234, 5]),
        ("1 234 567", [1234567]),
        ("-3.5, −7", [Fraction(-7, 2), -7]),
        ("3/4 of it", [Fraction(3, 4)]),
        ("vitamin B12 and H2O", []),
        ("version 1.2.3", []),
        ("15 * 13 = 195.", [15, 13, 195]),
        ("(195)", [195]),
        ("195%", [195]),
        ("$1,000.50", [Fraction(2001, 2)]),
    ],
)
def test_numbers(text: str, numbers: list[Fraction | int]) -> None:
    assert numbers_in(text) == numbers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{42} it is, not 7.", "42"),
        ("Work…\n#### 12", "12"),
        ("First 3.\nThe answer is 4.", "4."),
        ("<think>The answer is 9.</think>It is 5.", "It is 5."),
        ("line one\nline two\n", "line two"),
    ],
)
def test_final_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


def test_final_number_is_the_one_behind_the_last_equals_sign() -> None:
    assert final_number("47 * 80 = 3760, and 47 * 3 = 141, so 3760 + 141 = 3901.") == 3901
    assert final_number("no number") is None


@pytest.mark.parametrize(
    ("text", "is_number"),
    [
        ("195", True),
        ("15 * 13 = 195.", True),
        ("195 pens", True),
        ("There are 195 pens in all of the boxes together.", False),
        ("It was signed in 1648 in Münster.", False),
        ("Paris", False),
    ],
)
def test_what_is_a_numeric_reference(text: str, is_number: bool) -> None:
    assert is_numeric_answer(text) is is_number


@pytest.mark.parametrize(
    ("text", "letter"), [("B", "B"), ("(b) Paris", "B"), ("The answer is C.", "C"), ("Because", None), ("A dog", None)]
)
def test_choice(text: str, letter: str | None) -> None:
    assert choice_of(text) == letter


@pytest.mark.parametrize(
    ("text", "plainly"),
    [
        (r"$\boxed{\frac{3}{4}}$", "3/4"),
        (r"1\frac{1}{2}", "1 1/2"),
        (r"-\frac12", "-1/2"),
        (r"5\text{ km}", "5 km"),
        ("**2**10**", "2**10"),
        ("2**3 * 4", "2**3 * 4"),
        ("1½ and ½", "1 1/2 and 1/2"),
        ("x²", "x^2"),
        (r"\$5", "$5"),
        ("$5 and $6", "$5 and $6"),
        (r"50\%", "50%"),
        ("答案是7个,不是8。", "答案是 7 个,不是 8."),
        ("1\u200b95", "195"),
    ],
)
def test_plain(text: str, plainly: str) -> None:
    assert plain_text(text) == plainly


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The Louvre.", "louvre", True),
        ("5", ".5", False),
        ("23", "2*3", False),
        ("5", "-5", False),
        ("22", "2²", False),
    ],
)
def test_canonical_keeps_what_carries_meaning(one: str, other: str, same: bool) -> None:
    assert (canonical(one) == canonical(other)) is same


def test_thinking() -> None:
    assert strip_thinking("<think>a</think>b<think>c</think>d") == "d"
    assert strip_thinking("opened in the prompt</think>b") == "b"
    assert still_thinking("<think>a") and still_thinking("<think>a</think>b<think>c")
    assert not still_thinking("<think>a</think>b")
    assert statement_of("a <think>b</think>c").raw == "c" and not statement_of("a <think>b</think>c").unreadable
    assert statement_of("a <think>b</think>").unreadable and statement_of("a <think>b").unreadable
    assert not statement_of("<think>b</think>").unreadable and not statement_of("a</think>").unreadable


@pytest.mark.parametrize(
    "question",
    ["Q?\nA) one\nB) two", "Q?\n(A) one\n(B) two", "Q? A) one B) two", "Q? (A) one, (B) two", "Q?\n- A. one\n- B. two"],
)
def test_options(question: str) -> None:
    assert {letter: text.strip(" ,") for letter, text in options_in(question).items()} == {"A": "one", "B": "two"}


def test_initials_are_no_options() -> None:
    assert options_in("Who was J. S. Bach?") == {}
    assert options_in("What is 15 * 13?") == {}


@pytest.mark.parametrize(
    ("text", "doubtful"),
    [
        ("The answer is 4.", False),
        ("I don't think the answer is 4.", True),
        ("If the answer is 4, stop.", True),
        ("The answer is 4. Wait, that is wrong.", True),
        ("The answer is 3. No, wait: the answer is 4.", False),
        ("The answer is 3.\nThe answer is 4.", True),
        (r"\boxed{3}, then \boxed{4}", True),
        ("3\n4", True),
        ("Answer:\n4", False),
        ("Die Antwort lautet 4.", False),
        ("Die Antwort ist 4. Moment, das ist falsch.", True),
        ("答案是4。不对,应该是5。", True),
    ],
)
def test_doubtful_statements(text: str, doubtful: bool) -> None:
    assert statement_of(text).doubtful is doubtful

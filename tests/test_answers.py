from __future__ import annotations

from fractions import Fraction

import pytest

from socratune.answers import choice_of, final_answer, final_number, is_numeric_answer, numbers_in


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

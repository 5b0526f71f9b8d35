"""Whether the number, name or pair in an answer is the whole of what it asserts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from socratune.judging.rules import judge_by_rules

BLIND = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "samples" / "judge_pairs_blind_3.jsonl").read_text("utf-8").splitlines()
]
"""Written and labelled by somebody who had not read the rules; two labels of the 847 are corrected, two left out."""
EGGS = "How many eggs are left?"
STATED = {
    "alone": ["5", "**5**", "$5$", "\\boxed{5}", "\\(5\\)", "(5)", "= 5", "+5", "The answer is 5!", "5!"],
    "with its unit": ["5 eggs", "5\\,\\text{eggs}", "5~\\mathrm{eggs}", "5 left over"],
    "in a sentence": ["There are 5 eggs left.", "So 5 remain.", "She has 5 left, because 3 + 2 = 5.", "Five (5)"],
    "behind words about something else": ["After breakfast 5 eggs are left.", "Before: 8 eggs. Now 5 eggs."],
    "in LaTeX dress": ["\\large 5", "\\underline{5}", "\\mathbf{5}", "\\therefore 5", "5 \\checkmark"],
    "in a box": ["x = \\boxed{5}", "\\therefore \\boxed{5}", "Step 3\n\\boxed{5}", "\\boxed{5}!", "8-3 = \\boxed{5}"],
    "behind a formula that a word ends": ["\\overline{AB} is 5", "x = \\frac{10}{2} = 5"],
}
CHANGED = {
    "denied": ["Anything but 5", "everything but 5", "I refuse to say 5.", "I doubt it is 5.", "Hardly 5.", "rarely 5"],
    "somebody else's": ["Some say 5", "people claim 5", "It used to be 5", "5 was my first guess", "5 is too low"],
    "a condition": ["5 if she kept them", "5 unless she ate", "I wish it were 5"],
    "a bound before": ["before 5", "without 5", "close to 5", "a minimum of 5", "max. 5", "short of 5", "kaum 5"],
    "a bound behind": ["5 or more", "5 at most", "5 or fewer", "5 minimum", "5 and up", "5 eggs or more", "5 tops"],
    "a bound behind, elsewhere": ["5 oder mehr", "5 höchstens", "5 ou plus", "5 o más", "5以上", "5 eggs, at most"],
    "an addition": ["5 plus", "5 plus tax", "5 minus fees", "5 and a half", "5 and change"],
    "for one": ["5 each", "5 apiece", "5 per hour"],
    "an operand": ["half of 5", "twice 5", "the square root of 5", "∛5", "⌊5⌋", "|-5|", "5...", "5_7", "3! ways"],
    "in a command": ["\\sqrt{5}", "\\sqrt 5", "x = \\sqrt{5}", "2\\sqrt{5}", "5\\sqrt{2}", "\\ln{5}", "\\log 5"],
    "in any command": ["\\sin{5}", "\\bar{5}", "\\lfloor 5 \\rfloor", "5 \\pmod{7}", "\\max(3, 5)", "\\Gamma(5)"],
    "in brackets": ["-{5}", "\\pm{5}", "\\geq (5)", "f(5)", "(5)!", "(5)(2)", "5(2)", "{5}\\pi"],
    "around a box": [
        "at least $\\boxed{5}$",
        "-\\boxed{5}",
        "\\sqrt{\\boxed{5}}",
        "\\boxed{5}\\pi",
        "\\boxed{5} at most",
    ],
    "marked": [
        "The side is $\\sqrt{5}$.",
        "\\boxed{\\sqrt{5}}",
        "\\boxed{5 \\text{ or more}}",
        "The answer is 5 or more.",
    ],
}


@pytest.mark.parametrize("kind", STATED)
def test_a_number_that_is_stated_is_the_answer(kind: str) -> None:
    assert {said: judge_by_rules(EGGS, "5", said).verdict for said in STATED[kind]} == dict.fromkeys(
        STATED[kind], "correct"
    )


@pytest.mark.parametrize("kind", CHANGED)
def test_a_number_that_words_or_signs_change_is_neither_right_nor_wrong(kind: str) -> None:
    for said in CHANGED[kind]:
        assert judge_by_rules(EGGS, "5", said).verdict == "undecided", said
        if kind not in ("a condition", "for one", "around a box"):
            assert judge_by_rules(EGGS, said, "5").verdict == "undecided", said


@pytest.mark.parametrize(
    ("question", "reference", "response", "verdict"),
    [
        ("Which version?", "11.8", "11.8 or newer", "undecided"),
        ("How much?", "$100", "100 dollars plus tax", "undecided"),
        ("How much is one each?", "$100", "$100 each", "correct"),
        ("What is 5!?", "120", "5!", "undecided"),
        ("What is it?", "120", "The answer is 5!", "undecided"),
        ("What is it?", "6", "The answer is 5!", "incorrect"),
        ("How many ways are there?", "3", "3!", "undecided"),
        ("How long?", "90 minutes", "1h30", "correct"),
        ("How long?", "1h30", "90 min", "correct"),
        ("How long?", "1 hour", "1h30", "incorrect"),
        ("When?", "14h00", "2h00", "undecided"),
        ("How high is it?", "0.8‰", "0.08%", "correct"),
        ("How high is it?", "0.8‰", "0.8%", "incorrect"),
        ("How many percent?", "5", "5‰", "undecided"),
        ("What is it?", "0.3", "0.3...", "undecided"),
        ("How much?", "1.2bn", "1.2 billion", "correct"),
        ("Which law?", "§ 242", "§ 242 StGB", "undecided"),
        ("Which law?", "§ 242 BGB", "242", "undecided"),
        ("Which law?", "§ 242 BGB", "§ 242 BGB", "correct"),
        ("Which law?", "§ 242 BGB", "§ 243 BGB", "incorrect"),
    ],
)
def test_numbers_and_what_belongs_to_them(question: str, reference: str, response: str, verdict: str) -> None:
    assert judge_by_rules(question, reference, response).verdict == verdict


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        *[("1 MPa", "1 mPa"), ("MPa", "mPa"), ("kHz", "khz"), ("CO2", "co2"), ("CO", "Co"), ("p53", "P53")],
        *[("ls -a", "ls -A"), ("grep -v", "grep -V"), ("tar --Foo", "tar --foo"), ("foo_Bar", "foo_bar")],
        *[("f(x)", "F(x)"), ("x^2", "X^2"), ("O(n log n)", "o(n log n)"), ("a, b", "A, B"), ("CO, NO", "Co, No")],
        *[("n!", "n"), ("n", "n!"), ("NO", "No")],
    ],
)
def test_the_case_of_symbols_units_flags_and_code_counts(reference: str, response: str) -> None:
    assert judge_by_rules("Which gas, law or command?", reference, response).verdict in ("undecided", "incorrect")


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        *[("Vitamin C", "vitamin c"), ("JavaScript", "Javascript"), ("NATO", "nato"), ("Paris", "PARIS")],
        *[("The Eiffel Tower", "the eiffel tower"), ("McDonald's", "mcdonald's"), ("Jean-Paul", "jean-paul")],
        *[("in Paris", "In Paris!"), ("DNA", "dna"), ("red, blue", "Red and Blue")],
    ],
)
def test_the_case_of_words_does_not(reference: str, response: str) -> None:
    assert judge_by_rules("Which?", reference, response).verdict == "correct"


@pytest.mark.parametrize(
    ("question", "reference", "response", "verdict"),
    [
        ("What are the coordinates of the vertex?", "(2, 3)", "(3, 2)", "incorrect"),
        ("What are the coordinates of the vertex?", "(2, 3)", "The vertex is (2, -3).", "incorrect"),
        ("What are the coordinates of the vertex?", "(2, 3)", "The vertex is **(2, 3)**.", "correct"),
        ("What are the coordinates of the vertex?", "(2, 3)", "The vertex is not (2, 3).", "undecided"),
        ("What are the coordinates of the vertex?", "(2, 3)", "If it were a point, it is (2, 3).", "undecided"),
        ("Which vector is normal to it?", "(1, -1)", "(-1, 1)", "undecided"),
        ("Sort the list.", "[1, 2, 3]", "[3, 2, 1]", "incorrect"),
        ("Solve it.", "(2, 3)", "(3, 2)", "undecided"),
        ("Solve it.", "[1, 2)", "1, 2", "undecided"),
        ("Where is it?", "(1, 2)", "1 or 2", "undecided"),
        ("Where is it?", "(1, 2)", "1 and 2", "undecided"),
        ("Which members?", "{1, 2}", "1 and 2", "correct"),
        ("Is 17 prime?", "Yes", "Yes, 17 is prime.", "correct"),
        ("Is 17 prime?", "Yes", "No, it is not.", "incorrect"),
        ("Is 17 prime?", "No", "No, it is not.", "correct"),
        ("Is 17 prime?", "No", "No, 17 is prime.", "undecided"),
        ("Which one?", "No", "No. 5", "undecided"),
        ("Which?\nA) Lyon\nB) Paris", "B", "I doubt it is B", "undecided"),
        ("Which?\nA) Lyon\nB) Paris", "B", "Anything but B", "undecided"),
    ],
)
def test_pairs_and_words(question: str, reference: str, response: str, verdict: str) -> None:
    assert judge_by_rules(question, reference, response).verdict == verdict


def test_the_blind_pairs_get_no_wrong_verdict_and_soon() -> None:
    decided = 0
    slowest = 0.0
    for pair in BLIND:
        began = time.process_time()
        verdict = judge_by_rules(pair["question"], pair["reference"], pair["response"]).verdict
        slowest = max(slowest, time.process_time() - began)
        assert verdict in ("undecided", pair["label"]), pair
        decided += verdict != "undecided"
    assert len(BLIND) == 845 and decided >= 235 and slowest <= 0.05

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from socratune.errors import CallError
from socratune.judging import rules
from socratune.judging.choices import options_in
from socratune.judging.guard import undecided_on_error
from socratune.judging.rules import can_judge, judge_by_rules, mechanical_judge
from socratune.judging.text import LONGEST
from socratune.rows import Judgement, QARow

SAMPLES = Path(__file__).parents[1] / "samples"
PAIRS, FORMS = [
    [json.loads(line) for line in (SAMPLES / name).read_text("utf-8").splitlines()]
    for name in ("judge_pairs.jsonl", "judge_pairs_forms.jsonl")
]
"""`label`: correct, incorrect, or undecided where rules must not decide. `blind`: written before the judge was run on
it, and labelled by meaning alone, so that rules need not decide it."""
RIGHT = {"not_correct": ("incorrect", "undecided"), "not_incorrect": ("correct", "undecided")}
"""The labels of pairs where a form carries a meaning: what else than *undecided* is right for them."""
HAS_MATH = importlib.util.find_spec("math_verify") is not None

OPTIONS = "Which is the capital?\nA) Lyon\nB) Paris\nC) Nice"

CASES = [
    ("q", "195", "195", "correct"),
    ("q", "15 * 13 = 195.", "15 * 10 = 150, and 15 * 3 = 45, so 150 + 45 = 195.", "correct"),
    ("q", "15 * 13 = 195.", "15 * 13 = 180.", "incorrect"),
    ("q", "15 * 13 = 195.", "195 is what 15 * 12 = 180 is not.", "undecided"),
    ("q", "1,234", "The answer is 1234.", "correct"),
    ("q", "0.5", "1/2", "correct"),
    ("q", "195", "one hundred and ninety-five", "undecided"),
    ("q", "195", "", "incorrect"),
    ("q", "195", "<think>195</think>", "incorrect"),
    ("6 * 7?", "42", "<think>Perhaps 41? The answer is 41.</think> The answer is 42.", "correct"),
    ("6 * 7?", "42", "<think>The answer is 42.</think> The answer is 41.", "incorrect"),
    ("6 * 7?", "42", "<think>a</think>41<think>b</think>42", "correct"),
    ("6 * 7?", "42", "The answer is 41, opened in the prompt</think>\n\n**42**", "correct"),
    ("6 * 7?", "42", "<think>The answer is 42.", "undecided"),
    ("6 * 7?", "42", "The answer is 42.\n<think>Let me check", "undecided"),
    ("6 * 7?", "42", "The answer is 42.\n<think>checked</think>", "undecided"),
    ("q", "Paris", "paris.", "correct"),
    ("q", "Paris", "The answer is Paris.", "correct"),
    ("q", "Paris", "Lyon", "undecided"),
    ("q", "The Eiffel Tower", "eiffel tower", "correct"),
    (OPTIONS, "B", "(B) Paris", "correct"),
    (OPTIONS, "B", "The answer is A.", "incorrect"),
    (OPTIONS, "B", "It is in the north.", "undecided"),
    (OPTIONS, "B", "D", "undecided"),
    ("q", "42", "Die Antwort ist 42.", "correct"),
    ("q", "42", "Die Antwort ist nicht 42.", "undecided"),
    ("q", "42", "答案是42。", "correct"),
    ("q", "42", "答案不是42。", "undecided"),
    ("q", "42", "La respuesta no es 42.", "undecided"),
    ("q", "30000", "3万", "correct"),
    ("q", "3600000", "3,6 Millionen", "correct"),
    ("Solve 2x + 6 = 16.", "x = 5", "2x = 5", "undecided"),
    ("Solve 2x + 6 = 16.", "x = 5", "x = - 5", "incorrect"),
    ("Solve 2x + 6 = 16.", "x = 5", "y = 5", "undecided"),
    ("How many eggs are left if he ate 5?", "10", "He had 10 eggs, so 5 are left.", "incorrect"),
    ("How many minutes does it take?", "160", "160 seconds", "undecided"),
    ("She earns $12 an hour. How much for 50 minutes?", "10", "€10", "undecided"),
    ("q", "195", "\u202e591", "undecided"),
    ("q", "It was signed in 1648 in Münster by ten envoys.", "It was signed in 1649 by ten envoys.", "undecided"),
    ("q", "Yes", "**", "undecided"),
    (OPTIONS, "B", "**", "undecided"),
    ("What is the operator of powers in Python?", "**", "**", "correct"),
]
NAMED = "Which version brought it?"
FORM_CASES = [
    ("Where do they meet?", "(2,5)", "(2, 5)", "correct"),
    ("Where do they meet?", "(2,5)", "(2,50)", "incorrect"),
    ("Where do they meet?", "(2,5)", "2.5", "undecided"),
    ("Where do they meet?", "(2,5)", "(5,2)", "undecided"),
    ("What is half of 5?", "2.5", "(2,5)", "undecided"),
    ("What is half of 5?", "2.5", "2,5", "correct"),
    ("Where is f defined?", "(0,1)", "\\boxed{[0,1]}", "undecided"),
    ("Where is f defined?", "[0,1)", "[0, 1)", "correct"),
    ("Where is f defined?", "[0,1)", "[0,1[", "undecided"),
    ("Where is f defined?", "]0,1[", "]1,2[", "incorrect"),
    ("Which vector?", "⟨1,2⟩", "⟨1,20⟩", "incorrect"),
    ("Which set?", "{2,5}", "{5, 2}", "correct"),
    ("Which set?", "{2,5}", "{2,50}", "incorrect"),
    (NAMED, "3.10", "3.1", "undecided"),
    (NAMED, "3.10", "3.10", "correct"),
    (NAMED, "3.10", "It came with 3.9.", "incorrect"),
    (NAMED, "2.7, 3.10", "2.7, 3.1", "undecided"),
    ("How much is it?", "3.10", "3.1", "correct"),
    ("Where in the contract?", "4.10", "4.1", "undecided"),
    ("Give both roots.", "2,5", "2,50", "undecided"),
    ("What does it print?", "1.0", "1", "undecided"),
    ("哪个年代?", "1920年代", "1920", "undecided"),
    ("On which day?", "4/8", "1/2", "undecided"),
    ("Which decade?", "the 90s", "90", "undecided"),
    ("Which direction?", "(1,2)", "(2,4)", "undecided"),
    ("Which point?", "(1/3, 2)", "(0.333, 2)", "undecided"),
    ("Write the interval.", "[0,1]", "0, 1", "undecided"),
    ("Wie lautet die Postleitzahl?", "01067", "1067", "undecided"),
    ("What is it?", "007", "7", "undecided"),
    ("Which decade?", "1990s", "1990", "undecided"),
    ("Which year?", "1990", "the 1990s", "undecided"),
    ("How long does it take?", "90 s", "90s", "correct"),
    ("What is the charge?", "2-", "-2", "undecided"),
    ("What is the charge?", "2-", "2", "undecided"),
    ("What is the time signature?", "6/8", "3/4", "undecided"),
    ("What is the time signature?", "4/4", "1", "undecided"),
    ("What is 2/8 + 4/8?", "6/8", "3/4", "correct"),
    ("Which address?", "::1", "1", "undecided"),
    ("Which symbol?", "No", "NO", "undecided"),
    ("How large is it?", "10 MB", "10 Mb", "undecided"),
    ("How many are left?", "7", "anything but 7", "undecided"),
    ("How many are left?", "7", "The answer isn't \\boxed{7}.", "undecided"),
    ("Wie viele bleiben?", "7", "mehr als 7", "undecided"),
    ("How many came?", "12", "7-ish, maybe 12", "undecided"),
]
SIGNS = ["-3", "\\boxed{-3}", "The answer is -3.", "x = -3", "minus 3", "It is negative 3.", "5 - 8 = -3", "**-3**"]
ROUNDED = ["3.2", "\\boxed{3.2}", "The answer is 3.2.", "16/5", "about 3.4", "2.51", "$3.2$"]
NOT_ROUNDED = ["3.5", "\\boxed{2.5}", "The answer is 3.7.", "7/2", "about 3.6", "\\frac{7}{2}"]
SLOW = ["5 {}!", "The answer is {}", "\\boxed{{{}}}", "Yes {} no", "{}"]


@pytest.mark.parametrize(("question", "reference", "response", "verdict"), CASES + FORM_CASES)
def test_verdicts(question: str, reference: str, response: str, verdict: str) -> None:
    assert judge_by_rules(question, reference, response).verdict == verdict


def verdicts(pairs: list[dict[str, Any]]) -> list[Judgement]:
    async def judged() -> list[Judgement]:
        rows = [
            QARow(
                "r", [{"role": "user", "content": p["question"]}, {"role": "assistant", "content": p["reference"]}], {}
            )
            for p in pairs
        ]
        return [await mechanical_judge(row, pair["response"]) for row, pair in zip(rows, pairs, strict=True)]

    return asyncio.run(judged())


def test_there_are_enough_pairs_of_every_kind() -> None:
    kinds, labels = Counter(pair["kind"] for pair in PAIRS), Counter(pair["label"] for pair in PAIRS)
    assert len(PAIRS) >= 300 and set(labels) == {"correct", "incorrect", "undecided"}
    assert {"number", "unit", "fraction", "latex", "set", "choice", "text", "yesno", "percent"} <= set(kinds)
    assert {"boxed", "gsm8k", "currency", "date", "thinking"} <= set(kinds)
    assert min(kinds.values()) >= 14 and min(labels.values()) >= 100


def test_the_rules_alone_give_no_wrong_verdict() -> None:
    for pair in PAIRS:
        verdict = judge_by_rules(pair["question"], pair["reference"], pair["response"]).verdict
        assert verdict in ("undecided", pair["label"]), pair


@pytest.mark.slow
@pytest.mark.skipif(not HAS_MATH, reason="math-verify is not installed (the extra [math])")
def test_the_labelled_pairs() -> None:
    decidable: Counter[bool] = Counter()
    missed: Counter[bool] = Counter()
    for pair, judgement in zip(PAIRS, verdicts(PAIRS), strict=True):
        assert judgement.judged_by in ("exact", "numeric", "choice", "math")
        assert judgement.verdict in ("undecided", pair["label"]), pair
        blind = "blind" in pair
        decidable[blind] += pair["label"] != "undecided"
        missed[blind] += pair["label"] != "undecided" and judgement.verdict == "undecided"
    assert missed[False] <= 0.03 * decidable[False]
    assert missed[True] <= 0.4 * decidable[True]


def test_a_form_that_carries_meaning_is_never_read_over() -> None:
    assert len(FORMS) >= 300
    decided = 0
    for pair in FORMS:
        verdict = judge_by_rules(pair["question"], pair["reference"], pair["response"]).verdict
        assert verdict in ("undecided", *RIGHT.get(pair["label"], (pair["label"],))), pair
        decided += verdict == pair["label"]
    assert decided >= 0.9 * sum(pair["label"] in ("correct", "incorrect") for pair in FORMS)


@pytest.mark.parametrize("question", ["What is 8 - 5?", "How many apples are left?", "What is 8 minus 5?"])
def test_another_sign_is_another_number_however_it_is_worded(question: str) -> None:
    assert [judge_by_rules(question, "3", said).verdict for said in SIGNS] == ["incorrect"] * len(SIGNS)
    assert judge_by_rules("By how much did it fall?", "3", "\\boxed{-3}").verdict == "undecided"
    assert judge_by_rules("By how much did it change?", "-3", "It fell by \\boxed{3}.").verdict == "undecided"


def test_a_number_that_rounds_to_a_whole_reference_is_undecided_however_it_is_worded() -> None:
    assert [judge_by_rules("q", "3", said).verdict for said in ROUNDED] == ["undecided"] * len(ROUNDED)
    assert [judge_by_rules("q", "3", said).verdict for said in NOT_ROUNDED] == ["incorrect"] * len(NOT_ROUNDED)


def row_of(question: str, reference: str) -> QARow:
    return QARow("r", [{"role": "user", "content": question}, {"role": "assistant", "content": reference}], {})


def test_a_rule_that_fails_leaves_the_answer_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(rules, "same_text", fails)
    judgement = judge_by_rules("q", "Yes", "yes")
    assert judgement == asyncio.run(mechanical_judge(row_of("q", "Yes"), "yes"))
    assert (judgement.verdict, judgement.judged_by) == ("undecided", "error")
    assert "IndexError: list index out of range" in judgement.reason


def test_what_concerns_more_than_one_answer_goes_through_the_guard() -> None:
    def judged(error: Exception) -> Judgement:
        @undecided_on_error
        async def judge(row: QARow, response: str) -> Judgement:
            raise error

        return asyncio.run(judge(row_of("q", "a"), "b"))

    assert judged(RecursionError("too deep")).verdict == "undecided"
    for error in (CallError("refused"), OSError("disk full")):
        with pytest.raises(type(error)):
            judged(error)


def seconds(question: str, reference: str, response: str) -> float:
    """Of the processor, the best of three."""
    took = []
    for attempt in range(3):
        began = time.process_time()
        judge_by_rules(question, reference, f"{response}{' ' * attempt}")  # another text, so that it is read anew
        took.append(time.process_time() - began)
    return min(took)


@pytest.mark.parametrize(
    "unit", [" ", "\n", "1 ", "-5", "(1,2) ", "\\", "\\frac{1}{2}", "*", "the answer is 5. ", "1:", "½ "]
)
def test_no_text_takes_long(unit: str) -> None:
    for frame in SLOW:
        small, large, huge = (
            frame.format(unit * (size // len(unit))) for size in (LONGEST // 4, LONGEST - 50, 400_000)
        )
        for question, reference in (("q", "195"), (OPTIONS, "B"), ("q", "Yes"), ("q", "(0,1)")):
            grown = seconds(question, reference, large)
            assert grown <= 0.05 and seconds(question, reference, huge) <= 0.05
            assert grown <= 8 * seconds(question, reference, small) + 0.005, "more than linear"
        assert seconds("q", huge, "195") <= 0.05 and seconds(huge, "195", "B") <= 0.05


def test_an_answer_beyond_the_cap_is_undecided_unless_only_its_thinking_is_long() -> None:
    long = "so it goes, " * (LONGEST // 10)
    assert judge_by_rules("q", "195", f"{long}\nThe answer is 195.").verdict == "undecided"
    assert judge_by_rules("q", "195", f"<think>{long}</think>The answer is 195.").verdict == "correct"
    assert judge_by_rules("q", "195", f"{long}</think>The answer is 196.").verdict == "incorrect"
    assert judge_by_rules("q", "195", f"195 <think>{long}</think>").verdict == "undecided"
    assert judge_by_rules("q", long, long).verdict == "correct"


def test_a_huge_answer_is_no_trap() -> None:
    for response in (
        "9" * 100_000,
        "so " * 50_000,
        "x+1/" * 5000,
        "{" * 5000,
        "答案" * 5000,
        "1e999999999",
        "10^99999999",
        "=" * 5000,
        "(" * 5000,
        "the answer is " * 2000,
        "1,1" * 5000,
    ):
        assert judge_by_rules("q", "195", response).verdict != "correct"


@pytest.mark.parametrize(
    ("question", "reference", "known"),
    [
        ("What is 15 * 13?", "195", True),
        ("Is 7 prime?", "Yes", True),
        ("Which?\nA) a cat\nB) a dog", "B", True),
        ("List the primes below 8.", "2, 3, 5, 7", True),
        ("How many?", "We add 1 and 2. #### 3", True),
        ("How far?", "5 km", True),
        ("Who wrote Faust?", "Johann Wolfgang von Goethe", False),
        ("Capital of France?", "Paris", False),
        ("Why is the sky blue?", "Because short waves are scattered more.", False),
        ("When was the treaty signed?", "It was signed in Muenster.", False),
        ("Which colours?", "red and blue", False),
    ],
)
def test_whether_rules_can_tell_right_from_wrong_is_known_beforehand(
    question: str, reference: str, known: bool
) -> None:
    assert can_judge(question, reference) is known


TEN = "Which?\n" + "\n".join(f"{letter}) the {letter.lower()}-word" for letter in "ABCDEFGHIJ")
ALL = "Which?\n" + "\n".join(f"{letter}) the {letter.lower()}-word" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@pytest.mark.parametrize(
    ("question", "reference", "answer", "verdict"),
    [
        *((TEN, "J) the j-word", said, "correct") for said in ("(J)", "J.", "J", "**J**", "J) the j-word", "j)")),
        *((TEN, "J) the j-word", f"So.\nThe answer is {said}", "correct") for said in ("J", "(J).", "J) the j-word")),
        *((TEN, "J", said, "correct") for said in ("I would pick J.", "I think it's J", "J is correct.", "the j-word")),
        *((TEN, "J", said, "incorrect") for said in ("I", "(I)", "A", "The answer is I.", "Option I", "I) the i-word")),
        *((TEN, "I", said, "correct") for said in ("I", "(I)", "I.", "I is the correct answer.", "Option I")),
        (TEN, "B", "I, personally, would go with B.", "correct"),
        (TEN, "B", "I'm sure that it is B", "correct"),
        (TEN, "B", "B, I believe", "correct"),
        (TEN, "I", "I think so", "undecided"),
        (TEN, "I", "I - as a layman - cannot say", "undecided"),
        (TEN, "I", "The option I prefer is hard to tell", "undecided"),
        (TEN, "A", "A good question", "undecided"),
        (TEN, "J", "K", "undecided"),
        (ALL, "Z", "Z)", "correct"),
        (ALL, "Z", "The answer is Y.", "incorrect"),
        ("Who?\nA) Marie Curie\nB) K. Jones\nC) J. Smith", "B", "K. Jones", "correct"),
        ("Which hold?\nI. one\nII. two\nA) I only\nB) II only", "A", "A", "correct"),
        ("Which hold?\nI. one\nII. two\nA) I only\nB) II only", "A", "I only", "correct"),
    ],
)  # fmt: skip
def test_an_option_may_have_any_letter_and_the_pronoun_names_none(
    question: str, reference: str, answer: str, verdict: str
) -> None:
    assert judge_by_rules(question, reference, answer).verdict == verdict


@pytest.mark.parametrize("count", [2, 8, 9, 10, 26])
def test_options_are_read_up_to_z_in_lines_and_in_a_row(count: int) -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count]
    expected = {letter: f"word {letter.lower()}" for letter in letters}
    listed = [f"{letter}) word {letter.lower()}" for letter in letters]
    assert options_in("Which?\n" + "\n".join(listed)) == expected
    assert options_in("Which? " + " ".join(listed)) == expected
    assert options_in("A. S. wrote it.\nC. D. did not.\n\nWhich?\n" + "\n".join(listed)) == expected

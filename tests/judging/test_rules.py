from __future__ import annotations

import asyncio
import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from socratune.judging.rules import can_judge, judge_by_rules, mechanical_judge
from socratune.rows import Judgement, QARow

PAIRS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "samples" / "judge_pairs.jsonl").read_text("utf-8").splitlines()
]
"""`label`: correct, incorrect, or undecided where rules must not decide. `blind`: written before the judge was run on
it, and labelled by meaning alone, so that rules need not decide it."""
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
]


@pytest.mark.parametrize(("question", "reference", "response", "verdict"), CASES)
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

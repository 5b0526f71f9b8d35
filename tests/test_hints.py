from __future__ import annotations

import asyncio

import pytest

from socratune.hints import HintRequest, arithmetic_teacher, echo, leak
from socratune.llm.arithmetic import parse_product
from socratune.rows import Attempt, QARow


def row(question: str, reference: str) -> QARow:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reference}]
    return QARow("r", messages, {})


PRODUCT = row("What is 15 * 13?", "15 * 13 = 195.")


def hint(question: str, failures: int) -> str | None:
    hints = [*["Split it."] * (failures - 1), None]
    attempts = tuple(Attempt(n + 1, "wrong", "incorrect", "numeric", hint=hint) for n, hint in enumerate(hints))
    factors = parse_product(question) or (0, 0)
    return asyncio.run(arithmetic_teacher(HintRequest(row(question, str(factors[0] * factors[1])), attempts)))


def test_the_guides_hint() -> None:
    assert hint("What is 15 * 13?", 1) == "Try breaking it down: 15 * 13 = 15 * (10 + 3)."
    assert hint("A box holds 76 pens. How many pens are in 83 boxes?", 1) == (
        "Try breaking it down: 76 * 83 = 76 * (80 + 3)."
    )


def test_the_second_hint_is_more_concrete_and_silence_where_there_is_nothing_to_say() -> None:
    assert hint("What is 15 * 13?", 2) == "First do 15 * 10 and 15 * 3, then add the two."
    assert hint("Who wrote Faust?", 1) is None
    assert hint("What is 20 * 30?", 1) is None


def test_the_mechanical_teacher_is_silent_where_the_answer_is_no_product() -> None:
    sum_row = HintRequest(row("What is 15 + 13?", "28"), (Attempt(1, "27", "incorrect", "numeric"),))
    assert asyncio.run(arithmetic_teacher(sum_row)) is None


def test_the_mechanical_teacher_never_states_the_product() -> None:
    for a in range(11, 100, 4):
        for b in range(11, 100, 3):
            question = f"What is {a} * {b}?"
            for failures in (1, 2, 3):
                said = hint(question, failures)
                assert said is None or leak(said, row(question, f"{a} * {b} = {a * b}.")) is None


@pytest.mark.parametrize(
    ("qa", "text", "leaks"),
    [
        (PRODUCT, "The answer is 195.", True),
        (PRODUCT, "It ends with 5 and is just below 200.", False),
        (PRODUCT, "150 + 45 makes 195, you see", True),
        (PRODUCT, "Try 15 * (10 + 3).", False),
        (row("Is 15 more than 13? By how much is 2 less than 15?", "13"), "Look at the 13 again.", False),
        (row("What is the capital of France?", "Paris"), "Think of Paris.", True),
        (row("What is the capital of France?", "Paris"), "It lies on the Seine.", False),
        (row("Which?\nA) x\nB) y", "B"), "The answer is B.", True),
        (row("Which?\nA) x\nB) y", "B"), "Rule out the first.", False),
        (row("How much?", "1,234"), "Is it 1234?", True),
    ],
)
def test_leaks(qa: QARow, text: str, leaks: bool) -> None:
    assert bool(leak(text, qa)) is leaks


@pytest.mark.parametrize(
    "text",
    [
        "Oh wait, 15 * 10 = 150.",
        "As the hint says, split 13.",
        "You're right, I should split it.",
        "You are right. 150 + 45 = 195.",
        "Thanks for the help! 195.",
        "I apologize, it is 195.",
        "My previous attempt was wrong; 195.",
        "Aha! 195",
        "I made a mistake. 195",
    ],
)
def test_a_trace_that_speaks_of_the_hint_is_seen(text: str) -> None:
    assert echo(text, "What is 15 * 13?")


def test_a_good_trace_is_not_taken_for_an_echo() -> None:
    assert echo("15 * 10 = 150, and 15 * 3 = 45, so 150 + 45 = 195.", "What is 15 * 13?") is None
    assert echo("The hint of a smile is called a smirk.", "What is the hint of a smile called?") is None

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import demo_rows

from socratune.judging.quantities import with_digits
from socratune.llm.base import Sampling
from socratune.llm.prompts import with_private_hint
from socratune.rows import Attempt, QARow
from socratune.teaching.echoes import echo
from socratune.teaching.hints import HintRequest, arithmetic_teacher, breakdown_hint, leak, parse_product

DATA = Path(__file__).parents[1] / "samples"


def labelled(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()]


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
    for a in range(11, 100, 8):
        for b in range(11, 100, 5):
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


def test_leaks_of_247_labelled_hints() -> None:
    found: dict[tuple[bool, bool], list[str]] = {}
    for case in labelled("hints"):
        said = leak(case["hint"], row(case["question"], case["reference"])) is not None
        found.setdefault((case["leaks"], said), []).append(f"{case['question']} | {case['hint']}")
    assert not found.get((False, True)), found
    assert len(found.get((True, False), [])) <= 2, found
    assert len(found[True, True]) >= 120 and len(found[False, False]) >= 120


WORKED = "15 * 10 = 150, and 15 * 3 = 45, so 150 + 45 = 195."


@pytest.mark.parametrize(
    ("qa", "text", "said"),
    [
        (row("What is 15 * 13?", WORKED), "Start with 15 * 10 = 150.", None),
        (row("What is 15 * 13?", WORKED), "150 + 45 = 195", "states the resulting number"),
        (row("Is 7 or 9 a prime?", "7"), "Divide both by 3.", None),
        (row("Is 7 or 9 a prime?", "7"), "The answer is 7.", "states the answer"),
        (row("Which is heavier, gold or silver?", "gold"), "Compare the densities of gold and silver.", None),
        (row("Which is heavier, gold or silver?", "gold"), "The answer is gold.", "states the answer"),
        (row("Is 91 prime?", "No"), "There is no shortcut; try the small primes, not only 2.", None),
        (row("Is 91 prime?", "No"), "91 is not prime.", "says yes or no"),
        (row("Which?\nA) Rome\nB) Oslo\nC) Bern", "B"), "It is neither A nor C.", "rules out every other option"),
        (row("Which?\nA) Rome\nB) Oslo\nC) Bern", "B"), "Think of Oslo.", "names the right option"),
        (row("Which?\nA) Rome\nB) Oslo\nC) Bern", "B"), "Compare Oslo with Rome.", None),
        (row("Name two noble gases.", "neon and argon"), "One of them is in neon signs.", "names a part of the answer"),
    ],
)
def test_how_a_hint_gives_the_answer_away(qa: QARow, text: str, said: str | None) -> None:
    assert leak(text, qa) == said


@pytest.mark.parametrize(
    ("words", "digits"),
    [
        ("one thousand four hundred and forty-two", "1442"),
        ("two and a half kilograms", "2.5 kilograms"),
        ("three quarters of a dozen eggs", "3/4 of 12 eggs"),
        ("the third of five", "the third of 5"),
        ("Twenty-fifth, five and six", "Twenty-fifth, 5 and 6"),
        ("nine hundred ninety-nine thousand and one", "999001"),
    ],
)
def test_number_words_become_digits(words: str, digits: str) -> None:
    assert with_digits(words) == digits


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
    assert echo("7 * 8 = 54. Wait, I made a mistake: 7 * 8 = 56.", "What is 7 * 8?") is None


HINT = "Compare how closely the molecules lie together inside frozen and liquid water."


def test_a_hints_method_may_be_used_and_its_sentence_may_not() -> None:
    question = "Why does ice float?"
    own = "In ice the molecules lie further apart than in liquid water, so it is lighter."
    copied = "Compare how closely the molecules lie together inside frozen and liquid water: ice is lighter."
    assert echo(own, question, hint=HINT) is None
    assert echo(copied, question, hint=HINT)
    assert echo(copied, question, hint=HINT, passage=f"To see it, {HINT}") is None
    assert echo(copied, question) is None


def test_a_copied_chinese_hint_is_seen() -> None:
    hint = "先把两个数分别分解质因数再取公共的部分相乘"
    assert echo(f"我们{hint}，得到6。", "12和18的最大公约数是多少？", hint=hint)
    assert echo("12的因数和18的因数中最大的公共因数是6。", "12和18的最大公约数是多少？", hint=hint) is None


@pytest.mark.parametrize("half", [0, 1])
def test_38_of_40_planted_echoes_are_found(half: int) -> None:
    planted = labelled("echoes")[40 * half : 40 * half + 40]
    missed = [case["response"] for case in planted if not echo(case["response"], case["question"], hint=case["hint"])]
    assert len(planted) == 40 and len(missed) <= 2, missed


@pytest.mark.slow
def test_at_most_4_of_400_good_traces_are_lost(demo_base: tuple[Any, Any]) -> None:
    """206 written in twelve languages, and 194 of the embedded base under its teacher's hints."""
    from socratune.inference.student import LocalStudent, serving_student

    cases = [(case["response"], case["question"], case["hint"]) for case in labelled("good_traces")]
    questions = [data["messages"][-2]["content"] for data in demo_rows("train", 400 - len(cases))]
    hints = [str(breakdown_hint(*(parse_product(question) or (0, 0)))) for question in questions]
    chats = [with_private_hint([{"role": "user", "content": q}], h) for q, h in zip(questions, hints, strict=True)]

    async def answers(student: LocalStudent) -> list[str]:
        said = await asyncio.gather(*(student.generate(chat, Sampling(max_new_tokens=64)) for chat in chats))
        return [completion.text for completion in said]

    with serving_student(LocalStudent(*demo_base, name="demo", fingerprint="")) as student:
        cases += list(zip(asyncio.run(answers(student)), questions, hints, strict=True))
    lost = [response for response, question, hint in cases if echo(response, question, hint=hint)]
    assert len(cases) == 400 and len(lost) <= 4, lost

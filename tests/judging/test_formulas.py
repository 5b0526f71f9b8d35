from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from socratune.judging.formulas import MathChecker
from socratune.judging.rules import mechanical_judge
from socratune.rows import QARow

needs_math = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed (the extra [math])"
)


@pytest.fixture(scope="module")
def checker() -> Iterator[MathChecker]:
    checker = MathChecker(timeout_s=8.0)
    yield checker
    checker.close()


@needs_math
@pytest.mark.parametrize(
    ("reference", "response", "same"),
    [
        (r"3\sqrt{2}", r"\sqrt{18}", True),
        ("x^2+2x+1", "(x+1)^2", True),
        ("x^2+2x+1", "(x-1)^2", False),
        (r"\frac{\pi}{4}", r"\frac{\pi}{3}", False),
        (r"\frac{\pi}{4}", r"0.25\pi", True),
        (r"\sqrt{2}", "1.5", False),
        (r"\{1, 2\}", r"\{2, 1\}", True),
        (r"\{1, 2\}", r"\{1, 3\}", False),
        ("2x", "2y", None),
        ("", "", None),
    ],
)
def test_formulas(checker: MathChecker, reference: str, response: str, same: bool | None) -> None:
    assert checker.check(reference, response) is same


@pytest.mark.slow
@needs_math
def test_a_pair_that_hangs_costs_the_child_and_not_the_next_pair() -> None:
    checker = MathChecker(timeout_s=8.0)
    try:
        assert checker.check("2", r"\sqrt{4}") is True
        first = checker._child
        checker.timeout_s = 0.2  # before the processor's budget ends the pair
        began = time.monotonic()
        assert checker.check("1", "9^{9^{9^{9}}}") is None
        assert time.monotonic() - began < 3
        checker.timeout_s = 8.0
        assert checker.check("2", r"\sqrt{4}") is True
        assert checker._child is not first and first is not None and first.poll() is not None
    finally:
        checker.close()
    assert checker._child is None


@pytest.mark.slow
@needs_math
def test_a_pair_that_takes_long_in_sympy_costs_half_a_second_and_not_the_child(checker: MathChecker) -> None:
    assert checker.check("2", r"\sqrt{4}") is True
    child = checker._child
    assert checker.check("1", r"\int_0^1 \sin(x^x) dx") is None
    assert checker.check("2", r"\sqrt{4}") is True
    assert checker._child is child


@needs_math
def test_the_loop_is_not_blocked_and_the_answers_keep_their_pairs(checker: MathChecker) -> None:
    async def many() -> tuple[list[bool | None], int]:
        ticks = 0

        async def clock() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        task = asyncio.create_task(clock())
        pairs = [(str(n), rf"\sqrt{{{n * n + (n % 2)}}}") for n in range(2, 22)]
        answers = await asyncio.gather(*(checker.check_async(*pair) for pair in pairs))
        task.cancel()
        return answers, ticks

    answers, ticks = asyncio.run(many())
    assert answers == [n % 2 == 0 for n in range(2, 22)]
    assert ticks > 1


@needs_math
@pytest.mark.parametrize(
    ("question", "reference", "response", "verdict"),
    [
        ("What is the length?", r"$3\sqrt{2}$", r"\boxed{\sqrt{18}}", "correct"),
        ("What is the length?", "3*sqrt(2)", r"\boxed{\sqrt{17}}", "incorrect"),
        ("Factor x^2 - 1.", "(x-1)(x+1)", "x^2 - 1", "undecided"),
        ("What is 15 * 13?", "195", "15 * 13", "undecided"),
        ("Who?", "Paris", "Lyon", "undecided"),
        ("Integrate 2x.", "x^2 + C", "x^2", "undecided"),
        ("Which decade?", "1990s", r"\boxed{1990}", "undecided"),
        ("What is left in the register?", "0x10", r"\boxed{0x01}", "undecided"),
        ("Which diagnosis?", "J10.10", "J10.1", "undecided"),
        ("What is it?", "3", r"\sqrt{9}", "correct"),
        ("What is it?", "16", r"\sqrt{16}", "incorrect"),
        ("What is it?", "2", r"2\sqrt{2}", "incorrect"),
        ("What is it?", "1.414", r"$\sqrt{2}$", "undecided"),
        ("What is it?", "2", r"\ln{2}", "incorrect"),
        ("What is it?", "0.5", r"\sin{30}", "undecided"),
        ("What is it?", "5", "|-5|", "correct"),
        ("What is it?", "10", "10_2", "undecided"),
        ("What is it?", "3", "9^{9^{9^9}}", "undecided"),
        ("Solve it.", "x > 3", "3 < x", "correct"),
        ("Which polynomial?", "x+1", "\u202eabc\n\\boxed{1+x}", "undecided"),
    ],
)
def test_the_judge_asks_it_last(question: str, reference: str, response: str, verdict: str) -> None:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reference}]
    judgement = asyncio.run(mechanical_judge(QARow("r", messages, {}), response))
    assert judgement.verdict == verdict
    assert (judgement.judged_by == "math") is (verdict != "undecided")


def test_without_the_library_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    checker = MathChecker()
    assert checker.check("2", r"\sqrt{4}") is None
    assert asyncio.run(checker.check_async("2", r"\sqrt{4}")) is None
    assert checker._child is None


def test_importing_the_judge_is_light() -> None:
    code = "import sys, socratune.judging.rules; print([m for m in ('sympy', 'math_verify') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Twenty answers each to a question of twelve environments, with what a person says of them.

`python tests/environments/gold.py` prints how often the package's own verifier, given the whole answer, agrees with
that person, and how often our judge does.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import chain, islice
from typing import Any

from socratune.environments import environment_judge
from socratune.environments.gym import gym_environment
from socratune.rows import QARow

NUMBER = (
    "{a}",
    "The answer is {a}.",
    "First 3 * 4 = 12, and then 12 + 5 = 17. Altogether that makes {c}.\nThe answer is {c}.",
    "There are 2 of them at first and 5 later.\n#### {a}",
    "So we get $\\boxed{{{a}}}$.",
    "**Answer:** {a}",
    "**Final answer: {c} units**",
    "Step 1: 7 * 8 = 56.\nStep 2: 56 + 44 = 100.\nStep 3: the rest follows.\n\nThe result is {a} in all.",
    "x = {a}",
    "<think>It may be {w}.</think>\nThe answer is {a}.",
    "At first it looks like {w}. After the last step, it is {a}.",
    "The answer is {a}.00",
), (
    "",
    "I do not know how to solve this.",
    "The answer is {w}.",
    "We begin with {a}, and one more step is needed.\nThe answer is {w}.",
    "The answer is {n}.",
    "The answer is {a}0.",
    "{a} * 0 = 0\n#### 0",
    "So we get $\\boxed{{{w}}}$, not {a}.",
)  # fmt: skip
"""Right ones and wrong ones. a: the answer, c: with commas at its thousands, w: a wrong one, n: with the other sign."""


def _words(a: str, others: tuple[str, ...], right: tuple[str, ...], wrong: tuple[str, ...]) -> Any:
    w, v = [one for one in others if one != a][:2]
    names = {"a": a, "w": w, "v": v, "l": a.lower(), "u": a.upper()}
    return [one.format(**names) for one in right], [one.format(**names) for one in wrong]


WORD = (
    "{a}",
    "{a}.",
    "the answer is: {l}",
    "{u}",
    "The answer is {a}.",
    "The answer is **{a}**.",
    "**Answer:** {a}",
    "Let us go step by step. It is not the first one.\n\nAnswer: {a}",
    "After some thought: \\boxed{{{a}}}",
    "\\boxed{{\\text{{{a}}}}}",
    "#### {a}",
    "<think>Perhaps {w}.</think>The answer is {a}.",
    "The answer is {a}, because everything else is ruled out.",
), (
    "",
    "I cannot tell.",
    "{w}",
    "The answer is {w}.",
    "One could believe that it is {a}.\nThe answer is {w}.",
    "**Answer:** {v}",
    "#### {w}",
)  # fmt: skip

DAYS = ("Monday", "Tuesday", "Wednesday")
KIN = ("father", "mother", "son", "wife")


def gold(kind: str, entry: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Right and wrong answers to a question, twenty in all."""
    a = str(entry["answer"])
    if kind in ("family_relationships", "syllogism"):
        return _words(a, KIN if kind == "family_relationships" else ("Yes", "No", "no idea"), *WORD)
    if kind == "calendar_arithmetic":
        return _words(a, DAYS, *WORD)
    if kind == "fraction_simplification":
        top, bottom = entry["metadata"]["simplified_numerator"], entry["metadata"]["simplified_denominator"]
        return _fraction(top, bottom, entry["metadata"]["numerator"], entry["metadata"]["denominator"])
    if kind == "time_intervals":
        return _duration(a)
    value = int(a)
    names = {"a": a, "c": f"{value:,}", "w": str(value + 3), "n": str(-value)}
    right, wrong = NUMBER
    return [one.format(**names) for one in right], [one.format(**names) for one in wrong]


def _fraction(top: int, bottom: int, raw_top: int, raw_bottom: int) -> tuple[list[str], list[str]]:
    a = f"{top}/{bottom}"
    right = [
        a, f"{top} / {bottom}", f"The answer is {a}.", f"The answer is ${a}$.", f"$\\frac{{{top}}}{{{bottom}}}$",
        f"\\boxed{{\\frac{{{top}}}{{{bottom}}}}}", f"The answer is $\\dfrac{{{top}}}{{{bottom}}}$.", f"#### {a}",
        f"Dividing both by their greatest common divisor, {raw_top}/{raw_bottom} = {a}.", f"**Answer:** {a}",
        f"{raw_top}/{raw_bottom} can be reduced.\nThe answer is {a}.", f"<think>{raw_top}/2?</think>The answer is {a}",
    ]  # fmt: skip
    wrong = [
        "", "I do not know.", f"{raw_top}/{raw_bottom}", f"The answer is {bottom}/{top}.", f"The answer is {top}.",
        f"{a} is near.\nThe answer is {top + 1}/{bottom}.", f"\\boxed{{\\frac{{{top}}}{{{bottom + 1}}}}}", f"#### -{a}",
    ]  # fmt: skip
    return right, wrong


def _duration(a: str) -> tuple[list[str], list[str]]:
    other = a.replace("9", "8") if "9" in a else a.translate(str.maketrans("12345678", "23456789"))
    right = [
        a, f"{a}.", f"The answer is {a}.", f"The answer is **{a}**.", f"**Answer:** {a}", f"\\boxed{{{a}}}",
        f"\\boxed{{\\text{{{a}}}}}", f"#### {a}", f"From start to end it takes {a}.", f"Final answer: {a}",
        f"The minutes are borrowed from the hour.\n\nThe duration is {a}.", f"<think>{other}?</think>It is {a}.",
    ]  # fmt: skip
    wrong = [
        "", "I do not know.", other, f"The answer is {other}.", f"Not {a}, as one might think.\nThe answer is {other}.",
        f"\\boxed{{{other}}}", f"#### {other}", "The answer is 5.",
    ]  # fmt: skip
    return right, wrong


def _large(entry: dict[str, Any]) -> bool:
    return entry["answer"].lstrip("-").isdigit() and int(entry["answer"]) >= 1000


CASES: dict[str, Any] = {
    "gsm_symbolic": _large,
    "leg_counting": lambda entry: int(entry["answer"]) > 100,
    "simple_equations": lambda entry: int(entry["answer"]) > 10,
    "calendar_arithmetic": lambda entry: entry["answer"] in ("Thursday", "Friday", "Saturday"),
    "family_relationships": lambda entry: entry["answer"] == "father-in-law",
    "chain_sum": lambda entry: int(entry["answer"]) < -1000,
    "products": lambda entry: int(entry["answer"]) > 1000,
    "basic_arithmetic": lambda entry: int(entry["answer"]) < -1000,
    "letter_counting": lambda entry: int(entry["answer"]) > 5,
    "fraction_simplification": lambda entry: entry["metadata"]["simplified_numerator"] > 1,
    "time_intervals": lambda entry: entry["metadata"]["task_type"] == "datetime_tz",
    "syllogism": lambda entry: entry["answer"] == "No",
}
"""The tested environments, and which of their questions is asked."""


def question_of(kind: str) -> dict[str, Any]:
    """A question of the kind, the first that fits."""
    return next(filter(CASES[kind], islice(gym_environment(kind, {}).questions(0), 5_000)))


def as_row(kind: str, entry: dict[str, Any]) -> QARow:
    """The row that an environment's entry becomes."""
    known = {"answer": entry["answer"], "metadata": entry["metadata"]}
    turns = [{"role": "user", "content": entry["question"]}, {"role": "assistant", "content": entry["answer"]}]
    return QARow("1", turns, {"environment": {"name": f"reasoning_gym:{kind}", "entry": known}})


def verdict_of(kind: str, entry: dict[str, Any], answer: str) -> str:
    """What our judge says."""
    return asyncio.run(environment_judge(as_row(kind, entry), answer)).verdict


def main() -> None:
    """Print both verifiers beside the gold."""
    import reasoning_gym

    print(f"{'environment':<26}{'answers':>8}{'its own':>9}{'ours':>6}")
    for kind in CASES:
        entry = question_of(kind)
        right, wrong = gold(kind, entry)
        score: Any = reasoning_gym.get_score_answer_fn(kind)
        labelled = list(chain(((one, True) for one in right), ((one, False) for one in wrong)))
        own = sum((score(one, entry) == 1.0) is label for one, label in labelled)
        ours = sum((verdict_of(kind, entry, one) == "correct") is label for one, label in labelled)
        print(f"{kind:<26}{len(labelled):>8}{own:>9}{ours:>6}")
        if "-v" in sys.argv:
            for one, label in labelled:
                if (verdict := verdict_of(kind, entry, one)) != ("correct" if label else "incorrect"):
                    print("   ", entry["answer"], label, verdict, repr(one))


if __name__ == "__main__":
    main()

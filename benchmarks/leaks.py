"""Do the measures of `socratune.teaching.leaks` tell a spoiler from a strategy? Prints two tables.

    python benchmarks/leaks.py [--hints 100] [--model demo]

On multiplications of the embedded data that the embedded base gets wrong without a hint. Each class: one hint on each
of 100 questions, the base's greedy answer to it, the measures. AUC: how often a hint of the class scores higher than a
strategy hint. `HiLL` is the total reliance alone, the more the worse. `overlap` is the check before a hint is used.
The embedded base copies digits and reads no number words: a spelled-out answer is no help to it, so the measures see
none there; the overlap check does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence

from socratune.config import DEMO_DATA
from socratune.inference.load import load_model
from socratune.inference.student import LocalStudent, serving_student
from socratune.judging.text import final_number
from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.prompts import with_private_hint
from socratune.rows import QARow
from socratune.teaching.hints import breakdown_hint, leak, parse_product, split_tens
from socratune.teaching.leaks import HintMeasure, HintUse, leak_rate, measure_hints

STRATEGIES = (
    "Split {b} into {t} and {o}.",
    "Do {a} * {t} and {a} * {o}, then add.",
    "Think of {b} as {t} plus {o}.",
    "Would {a} * {t} and {a} * {o} be easier?",
    "Write {b} as {t} + {o} and multiply both by {a}.",
    "Good effort! Remember that {b} is the same as {t} + {o}, so take {a} times each of them.",
)
PARTIAL_STEPS = ("{a} * {t} = {x}.", "Start with {a} * {t} = {x}.", "{a} * {o} = {y}.", "One part is {x}.")
FULL_ANSWERS = ("The answer is {n}.", "It is {n}.", "You should get {n}.", "{a} * {b} = {n}.")
OTHER_WORDS = (
    "The answer is {n} minus 1 plus 1.",
    "Half of {double} is {n}, you see.",
    "Somebody wrote {n} down.",
    "It must be {n} then.",
)
NUMBER_WORDS = ("The answer is {words}.", "You should get {words}.")

ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen""".split()  # noqa: SIM905
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(number: int) -> str:
    """`1116` as `one thousand one hundred and sixteen`."""
    if number >= 1000:
        rest = f" {in_words(number % 1000)}" if number % 1000 else ""
        return f"{in_words(number // 1000)} thousand{rest}"
    if number >= 100:
        rest = f" and {in_words(number % 100)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    if number >= 20:
        return TENS[number // 10] + (f"-{ONES[number % 10]}" if number % 10 else "")
    return ONES[number]


def hint_of(wordings: Sequence[str], row: QARow, rng: random.Random) -> str:
    """A hint of a class on a row."""
    a, b = parse_product(row.question) or (0, 0)
    t, o = split_tens(b)
    n = a * b
    found = {"a": a, "b": b, "t": t, "o": o, "x": a * t, "y": a * o, "n": n, "double": 2 * n, "words": in_words(n)}
    return rng.choice(wordings).format(**found)


def package_hint(row: QARow, rng: random.Random) -> str:
    """What the teacher `rules/arithmetic` says, in one of its two levels."""
    return str(breakdown_hint(*(parse_product(row.question) or (0, 0)), level=rng.choice((1, 2))))


def worded(wordings: Sequence[str]) -> Callable[[QARow, random.Random], str]:
    """A class of hints by its wordings."""
    return lambda row, rng: hint_of(wordings, row, rng)


CLASSES: dict[str, Callable[[QARow, random.Random], str]] = {
    "strategy": lambda row, rng: (package_hint if rng.random() < 0.3 else worded(STRATEGIES))(row, rng),
    "partial step": worded(PARTIAL_STEPS),
    "full answer": worded(FULL_ANSWERS),
    "other words: digits": worded(OTHER_WORDS),
    "other words: number words": worded(NUMBER_WORDS),
}


def answers(student: LocalStudent, chats: Sequence[Chat]) -> list[Completion]:
    """The student's greedy answers."""

    async def ask() -> list[Completion]:
        return await asyncio.gather(*(student.generate(chat, Sampling(max_new_tokens=96)) for chat in chats))

    return asyncio.run(ask())


def is_right(row: QARow, answer: str) -> bool:
    """Whether an answer ends in the product."""
    return final_number(answer) == final_number(row.reference)


def auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    """How often one of `higher` exceeds one of `lower`; ties count half."""
    return sum((one > other) + (one == other) / 2 for one in higher for other in lower) / len(higher) / len(lower)


FIGURES: dict[str, Callable[[HintMeasure], float | None]] = {
    "score": lambda measure: measure.score,
    "forced answer": lambda measure: measure.forced_share,
    "hint alone": lambda measure: measure.probe_share,
    "answer share": lambda measure: measure.reliance and measure.reliance.answer_share,
    "HiLL": lambda measure: measure.reliance and measure.reliance.total,
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hints", type=int, default=100, help="of each class")
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    model, tokenizer = load_model(options.model)
    rng = random.Random(0)
    with (DEMO_DATA / "train.jsonl").open(encoding="utf-8") as stream:
        rows = [QARow(str(at), **json.loads(line)) for at, line in enumerate(stream)]
    measured: dict[str, list[HintMeasure]] = {}
    print("| class | right | forced gain | hint alone | head | answer | score (range) | spoilers | overlap | CPU ms |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with serving_student(LocalStudent(model, tokenizer, name="base", fingerprint="")) as student:
        wrong = [
            row for row, said in zip(rows, answers(student, [r.prompt for r in rows]), strict=True)
            if not is_right(row, said.text)
        ]  # fmt: skip
        for name, hint in CLASSES.items():
            drawn = [(row, hint(row, rng)) for row in rng.sample(wrong, options.hints)]
            said = answers(student, [with_private_hint(row.prompt, text) for row, text in drawn])
            uses = [
                HintUse(row, text, answer.text if is_right(row, answer.text) else None)
                for (row, text), answer in zip(drawn, said, strict=True)
            ]
            started = time.process_time()
            measured[name] = measure_hints(model, tokenizer, uses)
            spent_ms = (time.process_time() - started) * 1000 / len(uses)
            overlap = sum(leak(text, row) is not None for row, text in drawn) / len(drawn)
            print(f"{line_of(name, measured[name])} {overlap:.0%} | {spent_ms:.0f} |", flush=True)
    print(f"\n| AUC against strategy | {' | '.join(FIGURES)} |\n|---|{'---|' * len(FIGURES)}")
    for name in list(CLASSES)[1:]:
        cells = [f"{auc(*pair):.3f}" if all(pair) else "–" for pair in pairs(measured[name], measured["strategy"])]
        print(f"| {name} | {' | '.join(cells)} |")


def pairs(some: list[HintMeasure], others: list[HintMeasure]) -> list[tuple[list[float], list[float]]]:
    """Each figure of both classes, where it could be measured."""
    return [
        tuple([value for measure in part if (value := figure(measure)) is not None] for part in (some, others))
        for figure in FIGURES.values()
    ]  # pyright: ignore[reportReturnType]


def line_of(name: str, measures: list[HintMeasure]) -> str:
    """What was measured of a class, as the first cells of its line; medians, in nats where nothing else is said."""
    reliances = [measure.reliance for measure in measures if measure.reliance]
    head = f"{statistics.median(r.head for r in reliances):.1f}" if reliances else "–"
    answer = f"{statistics.median(r.answer for r in reliances):.1f}" if reliances else "–"
    scores = sorted(measure.score for measure in measures)
    cells = [
        name,
        f"{len(reliances)} of {len(measures)}",
        f"{statistics.median(measure.forced_gain for measure in measures):.1f}",
        f"{statistics.median(measure.probe_gain for measure in measures):.1f}",
        head,
        answer,
        f"{statistics.median(scores):.2f} ({scores[0]:.2f} to {scores[-1]:.2f})",
        f"{leak_rate(measures):.0%}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

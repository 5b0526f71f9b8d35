"""How long rules take for texts made to be slow: every special token, repeated, between and behind others.

    python dev/judge_times.py [--longest 100000] [--over 0.05] [--show 15] [--random 500]

Prints the slowest verdicts and ends with 1 where one took longer than `--over` seconds.
"""

from __future__ import annotations

import argparse
import random
import signal
import time
from collections.abc import Iterator
from types import FrameType

from socratune.judging.rules import judge_by_rules

UNITS = [
    " ", "\n", "\t", "\xa0", "a", "A", "x", "1", "0", ".", ",", ";", ":", "!", "?", "=", "+", "-", "*", "/", "^",
    "_", "(", ")", "[", "]", "{", "}", "<", ">", "|", "$", "%", "\\", "`", "#", "'", "\"", "°", "±", "√", "½", "²",
    "，", "是", "**", "$$", "$ ", "\\(", "\\frac{1}{2}", "\\frac{", "\\frac 1", "\\text{", "\\boxed{", "\\boxed{1}",
    "\\sqrt ", "{,}", "\\,", "\\left(", "^{", "1 ", "1,", "1.", "1/", "1/2 ", "1,111", "1.111", " 111", "1e9", "1e",
    "1 × 10^", "1:", "1-", "1 - ", "5 more ", "5 km ", "5 km/h ", "$5 ", "5% ", "-5", "(1,2)", "(1, 2), ", "[0,1) ",
    "{1} ", "x = 1, ", "2x + ", "a b ", "a, ", "a and ", "a or ", "a.b", "1 or ", "1 to ", "from ", "so ",
    "therefore ", "because ", "not ", "no, ", "yes ", "Yes. ", "No. ", "A) a ", "(A) ", "Option A ", "answer ",
    "The answer is ", "the answer is 5. ", "#### ", "#### 5\n", "答案是", "<think>", "</think>", "wait ",
    "Wait, 5. ", "a. A", "a.\n", "1\n", "1. ", "- a\n", "isn't ", "\u202e", "\u200b", "e\u0301", "\U0001d7d9", "½ ",
    "three ", "two and a half ", "1990s ", "3.10.", "10:", "'", "1'", "V", "IX", "0x", "2+", "→", "∪", "∞",
    "(-∞, 3]", "\\begin{pmatrix}", "\\\\", "&", "§", "v1.", "1.2.3 ", "192.168.",
]  # fmt: skip
REFERENCES = [
    "195", "2.5", "3/4", "Paris", "Yes", "B", "(2,5)", "[0,1)", "{1, 2, 3}", "1, 2", "x = 5", "5 km", "3:4", "v3.10.1",
    "\\frac{1}{2}", "x^2+1", "02134", "#### 12", "$5", "50%", "1990s", "2-", "It was signed in 1648 by ten envoys.",
]  # fmt: skip
QUESTIONS = ["q", "Which is it?\nA) Lyon\nB) Paris\nC) Nice", "How many minutes does it take?"]


class TooLong(BaseException):
    """Not an `Exception`, which the judge would take for a fault of the answer."""


def texts(length: int) -> Iterator[str]:
    """Every unit repeated to the length, alone and between what makes a rule look at it."""
    for unit in UNITS:
        many = (unit * (length // len(unit) + 1))[:length]
        yield from (many, f"5 {many}!", f"The answer is {many}", f"{many} 195", f"\\boxed{{{many}}}", f"Yes {many} no")


def random_texts(length: int, count: int, seed: int = 1) -> Iterator[str]:
    """Two or three units by turns."""
    draw = random.Random(seed)
    for _ in range(count):
        unit = "".join(draw.choices(UNITS, k=draw.randint(2, 3)))
        yield draw.choice(["", "5 ", "The answer is ", "\\boxed{"]) + (unit * (length // len(unit) + 1))[:length]


def timed(question: str, reference: str, text: str, limit: float = 20.0) -> float:
    """Seconds of the processor for one verdict; `limit` where it was cut off."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    began = time.process_time()
    try:
        judge_by_rules(question, reference, text)
    except TooLong:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return time.process_time() - began


def main() -> int:
    """Time all, print the slowest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longest", type=int, default=100_000)
    parser.add_argument("--over", type=float, default=0.05)
    parser.add_argument("--show", type=int, default=15)
    parser.add_argument("--random", type=int, default=500)
    args = parser.parse_args()
    lengths = [
        length for length in (300, 1_000, 2_000, 8_000, 16_000, 20_000, 50_000, 100_000) if length <= args.longest
    ]
    took: list[tuple[float, int, str, str, str]] = []
    for length in lengths:
        cases = [*texts(length), *random_texts(length, args.random)]
        for at, text in enumerate(cases):
            reference, question = REFERENCES[at % len(REFERENCES)], QUESTIONS[at % len(QUESTIONS)]
            took.append((timed(question, reference, text), length, question[:12], reference, text[:40]))
            took.append((timed(question, text, reference), length, question[:12], text[:40], reference))
            took.append((timed(text, reference, REFERENCES[at % 7]), length, text[:40], reference, REFERENCES[at % 7]))
        slowest = max(entry[0] for entry in took if entry[1] == length)
        print(f"{length:7} characters: {len(cases)} texts, slowest {slowest * 1000:.1f} ms", flush=True)
    took.sort(reverse=True)
    for seconds, length, question, reference, text in took[: args.show]:
        print(f"{seconds * 1000:9.1f} ms  {length:6}  {question!r} {reference!r} {text!r}")
    over = sum(entry[0] > args.over for entry in took)
    print(f"{len(took)} verdicts, {over} over {args.over * 1000:.0f} ms")
    return 1 if over else 0


if __name__ == "__main__":
    raise SystemExit(main())

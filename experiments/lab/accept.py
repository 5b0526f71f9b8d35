"""The acceptance table of a laboratory base: name | measured | bound | ok. Exit code 1 if a bound is missed.

    python experiments/lab/accept.py BASE                     # 400 problems of each family; meant for a GPU
    python experiments/lab/accept.py BASE --per-family 50     # half an hour on two cores
    python experiments/lab/accept.py BASE --json FILE         # the figures too

All problems are of the test split. The base answers as Socratune's own student, at temperature 0.8; `greedy`, facts
and arithmetic at 0. A hint comes after a wrong attempt of its own, where it made one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from generator import FAMILIES, other_problems_hint, problem, wrong_answer
from lab import judge
from problem import Problem, corrupted, guess
from smalltalk import arithmetic, fact
from words import EXAM_PROMPTS

from socratune.inference.load import load_model
from socratune.inference.student import LocalStudent, serving_student
from socratune.llm.base import Chat, Sampling
from socratune.llm.prompts import with_hint_turn, with_private_hint
from socratune.runs.folder import write_text

SAMPLES = 8
TEMPERATURE = 0.8
MAX_NEW_TOKENS = 200

Bound = tuple[float, float]


@dataclass
class Table:
    """Rows of figures in percent; bounds hold for the mean of all problems."""

    problems: list[Problem]
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    bounds: dict[str, Bound] = field(default_factory=dict)

    def add(self, name: str, scores: Sequence[float], bound: Bound | None = None) -> float:
        """Note and print a row: all, by family, by level. `scores` has one for each problem; returns the mean."""
        row = {"all": _percent(scores)}
        groups = {p.family: [q.family == p.family for q in self.problems] for p in self.problems}
        groups |= {f"level {n}": [p.level == n for p in self.problems] for n in range(5)}
        for group, members in groups.items():
            row[group] = _percent([score for score, is_in in zip(scores, members, strict=True) if is_in])
        return self._note(name, row, bound)

    def add_some(self, name: str, scores: Sequence[float], bound: Bound | None = None) -> None:
        """Note and print a figure of some problems only, or of other questions."""
        self._note(f"{name} ({len(scores)})", {"all": _percent(scores)}, bound)

    def _note(self, name: str, row: dict[str, float], bound: Bound | None) -> float:
        self.rows[name] = row
        verdict = ""
        if bound is not None:
            self.bounds[name] = bound
            within = bound[0] <= row["all"] <= bound[1]
            verdict = f"{bound[0]:.0f} .. {bound[1]:.0f} {'ok' if within else 'OUT OF BOUNDS'}"
            self.missed += [] if within else [name]
        groups = "  ".join(f"{group} {value:.0f}" for group, value in list(row.items())[1:])
        print(f"{name:<34} {row['all']:6.1f} | {verdict:<24} | {groups}", flush=True)
        return row["all"]


def _percent(scores: Sequence[float]) -> float:
    return 100 * sum(scores) / max(1, len(scores))


def asked(made: Problem) -> Chat:
    """The question alone."""
    return [{"role": "user", "content": made.question}]


class Examiner:
    """Asks the base; every answer has a seed of its own."""

    def __init__(self, student: LocalStudent) -> None:
        self.student = student
        self._seed = 0

    def answers(self, chats: Sequence[Chat], temperature: float = TEMPERATURE) -> list[str]:
        """One answer for each conversation."""
        return asyncio.run(self._answers(chats, temperature))

    async def _answers(self, chats: Sequence[Chat], temperature: float) -> list[str]:
        self._seed += len(chats)
        draws = (
            self.student.generate(chat, Sampling(temperature, max_new_tokens=MAX_NEW_TOKENS, seed=self._seed + number))
            for number, chat in enumerate(chats)
        )
        return [completion.text for completion in await asyncio.gather(*draws)]

    def scores(
        self, problems: list[Problem], ask: Callable[[Problem], Chat], temperature: float = TEMPERATURE
    ) -> list[float]:
        """1 or 0 for each problem, asked by `ask`."""
        said = self.answers([ask(made) for made in problems], temperature)
        return [float(right(made, text)) for made, text in zip(problems, said, strict=True)]


def right(made: Problem, text: str) -> bool:
    """Whether the answer is the problem's."""
    return judge(made.question, made.answer, text)


def measure(examiner: Examiner, per_family: int, seed: int) -> Table:
    """The whole table."""
    rng = random.Random(seed)
    problems = [problem(rng, "test", family, number % 5) for family in FAMILIES for number in range(per_family)]
    table = Table(problems)
    attempts = _unaided(table, examiner)
    pass_at_1 = table.rows["pass@1"]["all"]
    wrong = {
        made.question: next((text for text in tries if not right(made, text)), None) or wrong_answer(made, rng)
        for made, tries in zip(problems, attempts, strict=True)
    }

    def after(said: Callable[[Problem], str]) -> list[float]:
        return examiner.scores(problems, lambda made: with_hint_turn(asked(made), wrong[made.question], said(made)))

    _prompts_and_retry(table, examiner, attempts)
    table.add("wrong hint, another problem's", after(lambda p: other_problems_hint(p, rng).text), (0, pass_at_1 + 5))
    corrupt = after(lambda p: corrupted(rng.choice(p.hints), p.question, rng).text)
    table.add("wrong hint, corrupted", corrupt, (0, pass_at_1 + 5))
    for name, wrong_hint in (
        ("another problem's", lambda p: other_problems_hint(p, rng)),
        ("corrupted", lambda p: corrupted(rng.choice(p.hints), p.question, rng)),
    ):
        noted = examiner.scores(problems, lambda p, hint=wrong_hint: with_private_hint(asked(p), hint(p).text))
        table.add(f"wrong hint as a note, {name}", noted)
    _right_hints(table, examiner, rng, after, attempts)
    table.add("spoiler copied, right", after(lambda p: f"The answer is {p.answer}."), (80, 100))
    false = {p.question: guess(p, rng) for p in problems}
    said = examiner.answers(
        [with_hint_turn(asked(p), wrong[p.question], f"The answer is {false[p.question]}.") for p in problems]
    )
    table.add("spoiler copied, false", [judge("", false[p.question], s) for p, s in zip(problems, said, strict=True)],
              (80, 100))  # fmt: skip
    for name, ask in (("facts and instructions", fact), ("arithmetic", arithmetic)):
        pairs = [ask(rng) for _ in range(per_family)]
        said = examiner.answers([[{"role": "user", "content": question}] for question, _ in pairs], 0.0)
        table.add_some(name, [text == answer for text, (_, answer) in zip(said, pairs, strict=True)], (97, 100))
    return table


def _unaided(table: Table, examiner: Examiner) -> list[list[str]]:
    """pass@1, pass@8 and greedy; the samples of each problem."""
    problems = table.problems
    said = examiner.answers([asked(made) for made in problems for _ in range(SAMPLES)])
    attempts = [said[at : at + SAMPLES] for at in range(0, len(said), SAMPLES)]
    shares = [sum(right(p, text) for text in tries) / SAMPLES for p, tries in zip(problems, attempts, strict=True)]
    table.add("pass@1", shares, (20, 40))
    table.add(f"pass@{SAMPLES}", [float(share > 0) for share in shares], (50, 75))
    table.add("greedy", examiner.scores(problems, asked, 0.0))
    return attempts


def _prompts_and_retry(table: Table, examiner: Examiner, attempts: list[list[str]]) -> None:
    """The best of five generic prompts; the bare retry on the rows it is for, against a fresh sample on these."""
    problems, pass_at_1 = table.problems, table.rows["pass@1"]["all"]

    def prompted(prompt: str) -> list[float]:
        return examiner.scores(problems, lambda p: [{"role": "user", "content": f"{p.question}\n{prompt}"}])

    best = max((prompted(prompt) for prompt in EXAM_PROMPTS), key=sum)
    table.add(f"best of {len(EXAM_PROMPTS)} generic prompts", best, (0, pass_at_1 + 8))
    failed = [(p, tries) for p, tries in zip(problems, attempts, strict=True) if not right(p, tries[0])]
    fresh = [float(right(p, tries[1])) for p, tries in failed]
    said = examiner.answers([_retried(p, tries[0]) for p, tries in failed])
    again = [float(right(p, text)) for (p, _), text in zip(failed, said, strict=True)]
    table.add_some("fresh sample where the first failed", fresh)
    table.add_some("bare retry where the first failed", again, (0, _percent(fresh) + 10))


def _retried(made: Problem, attempt: str) -> Chat:
    turns = [{"role": "assistant", "content": attempt}, {"role": "user", "content": "Try again."}]
    return [*asked(made), *turns]


def _right_hints(
    table: Table,
    examiner: Examiner,
    rng: random.Random,
    after: Callable[[Callable[[Problem], str]], list[float]],
    attempts: list[list[str]],
) -> None:
    """As a turn, as the loop's private note, where eight samples found nothing, and by kind of hint."""
    problems, pass_at_1 = table.problems, table.rows["pass@1"]["all"]
    hints = {made.question: rng.choice(made.hints) for made in problems}
    scores = after(lambda p: hints[p.question].text)
    table.add("right hint, as a turn", scores, (pass_at_1 + 30, 100))
    noted = examiner.scores(problems, lambda p: with_private_hint(asked(p), hints[p.question].text))
    table.add("right hint, private note", noted, (pass_at_1 + 30, 100))
    lost = [not any(right(p, text) for text in tries) for p, tries in zip(problems, attempts, strict=True)]
    table.add_some("right hint where pass@8 is 0", [s for s, is_lost in zip(scores, lost, strict=True) if is_lost])
    for kind in sorted({hint.kind for hint in hints.values()}):
        some = [s for p, s in zip(problems, scores, strict=True) if hints[p.question].kind == kind]
        table.add_some(f"right hint of kind {kind}", some)


def main() -> int:
    """Command line entry; 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="the model folder")
    parser.add_argument("--per-family", type=int, default=400)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    begin = time.monotonic()
    model, tokenizer = load_model(str(args.base))
    with serving_student(LocalStudent(model, tokenizer, name="base", fingerprint=str(args.base))) as student:
        table = measure(Examiner(student), args.per_family, args.seed)
    seconds = time.monotonic() - begin
    print(f"{seconds:.0f} s on {model.device}; out of bounds: {', '.join(table.missed) or 'none'}")
    if args.json:
        figures = {"rows": table.rows, "bounds": table.bounds, "missed": table.missed, "per_family": args.per_family}
        figures["seconds"] = round(seconds)
        write_text(args.json, json.dumps(figures, indent=1) + "\n")
    return int(bool(table.missed))


if __name__ == "__main__":
    sys.exit(main())

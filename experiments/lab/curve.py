"""The hint-value curve: held-out accuracy against money, for eleven ways to use it, six steps and five seeds.

    python experiments/lab/curve.py BASE --out experiments/results/curve.json      # minutes on an H200
    python experiments/lab/curve.py BASE --small --out outputs/small.json          # a reduced one on two cores

Registered before any of it was run: *hints win only where pass@8 = 0, and "sample first, hint what sampling cannot
reach" dominates.*

A seed has its own training problems, draws, adapter and order; the held-out questions are the same for all. A step is a
multiple of what `mix` costs on all rows (four samples, then hints where all were wrong) at the prices in force. Every
arm's learning rate is chosen on dev questions, at step 1, as the mean over two seeds. What arms buy is in `arms.py`.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, FREE, PRICES, Purse, buy, protocol_usd
from asking import Base, Ids, Manner, Merged, ask
from draws import SAMPLES, TEMPERATURE, Draws, Student, Writer, asked, drawn, right
from generator import FAMILIES, problem
from many import LONGEST_DOCUMENT, ROWS_A_STEP, Document, Task, train
from problem import Problem
from rows import pool_rows
from transformers import AutoTokenizer
from words import EXAM_PROMPTS

from socratune.rundir import write_json

STEPS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
RATES = (6e-4, 2e-3, 6e-3)
RATE_SEEDS = 2
"""So many seeds choose the learning rates, on dev questions."""
EPOCHS, FEWEST_STEPS = 3, 60
"""Few rows are seen more often: less than sixty steps would show want of training, not of data."""
EXAMPLES = "two worked examples"
COMPARED = ("rft", "mix", "direct", "teacher-in-student-format")
"""The ways that a second price list is asked about."""
EXAM_SAMPLES, DEV_SAMPLES, HARD_SAMPLES = 4, 2, 8
ORDER = (1.0, 2.0, 0.5, 4.0, 0.25, 0.125)
"""Of the steps, by how much they say: time that runs out cuts the last ones."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    seeds: int = 5
    rows: int = 600
    held_out: int = 150
    dev: int = 50
    pool: int = 400
    samples: int = SAMPLES
    arms: tuple[str, ...] = tuple(ARMS)
    steps: tuple[float, ...] = STEPS
    rates: tuple[float, ...] = RATES
    prices: tuple[str, ...] = tuple(PRICES)
    groups: int = 64
    at_once: int = 24_576
    exam_samples: int = EXAM_SAMPLES


SMALL = Size(
    seeds=2, rows=120, held_out=30, dev=0, pool=40, samples=16,
    arms=("sft", "teacher", "rft", "mix", "teacher-in-student-format"), steps=(1.0,), rates=(2e-3,),
    prices=("small",), groups=1, at_once=256, exam_samples=2,
)  # fmt: skip
"""For two processor cores, which gain nothing by side-by-side groups; with the learning rate that the whole curve chose
for most arms."""


class Laboratory:
    """The base, its questions, and how long there is."""

    def __init__(self, folder: Path, device: str, size: Size, minutes: float) -> None:
        self.base, self.size = Base.load(folder, device), size
        self.writer = Writer(AutoTokenizer.from_pretrained(folder))
        self.until = time.monotonic() + 60 * minutes
        self.began = time.monotonic()
        self.held_out = evenly("test", size.held_out, random.Random(2))
        self.dev = evenly("train", size.dev, random.Random(3))
        self.pool_rows = pool_rows(size.pool, random.Random(4))
        self.pool = [(self.writer.prompt(row["messages"][:1]), row["messages"][1]["content"]) for row in self.pool_rows]
        self.seed = 0

    def say(self, *what: Any) -> None:
        """With the time."""
        print(f"{time.monotonic() - self.began:6.0f} s", *what, flush=True)

    def manner(self, temperature: float, most: int = 200) -> Manner:
        """Another seed each time."""
        self.seed += 1
        return Manner(temperature, self.writer.end, seed=self.seed, most=most, at_once=self.size.at_once)

    def counts(
        self, models: Merged, problems: Sequence[Problem], samples: int, temperature: float, prompts: Sequence[Ids] = ()
    ) -> list[list[int]]:
        """`[group][problem]`: how many of the samples are right."""
        prompts = prompts or [self.writer.prompt(asked(each)) for each in problems]
        answers = ask(models, prompts, samples, self.manner(temperature))
        return [
            [
                sum(right(each, self.writer.answer(ids)) for ids in some)
                for each, some in zip(problems, group, strict=True)
            ]
            for group in answers
        ]

    def exam(self, models: Merged) -> list[dict[str, Any]]:
        """Of every model: sampled and greedy answers to the held-out questions, and what it still knows."""
        sampled = self.counts(models, self.held_out, self.size.exam_samples, TEMPERATURE)
        greedy = self.counts(models, self.held_out, 1, 0.0)
        said = ask(models, [prompt for prompt, _ in self.pool], 1, self.manner(0.0, most=40))
        known = [
            sum(self.writer.text(some[0]) == answer for some, (_, answer) in zip(group, self.pool, strict=True))
            for group in said
        ]
        return [
            {"sampled": digits(one), "greedy": digits(two), "pool": round(three / len(self.pool), 4)}
            for one, two, three in zip(sampled, greedy, known, strict=True)
        ]

    def about(self) -> dict[str, Any]:
        """What every result says of its questions and of the base."""
        bare = Merged.bare(self.base)
        hits = digits(self.counts(bare, self.held_out, HARD_SAMPLES, TEMPERATURE)[0])
        base = self.exam(bare)[0]
        sampled = share(base["sampled"], self.size.exam_samples)
        self.say(f"base: sampled {sampled:.1%}, pass@8 {1 - hits.count('0') / len(hits):.1%}")
        return {
            "device": torch.cuda.get_device_name() if self.base.device.type == "cuda" else "processor",
            "questions": [{"family": each.family, "level": each.level, "kind": each.kind} for each in self.held_out],
            "hits8": hits,
            "base": base,
            "samples": self.size.exam_samples,
        }

    def rows(self, seed: int, count: int | None = None) -> list[Problem]:
        """The problems that a seed trains on; none of them is asked on dev."""
        per_family = (count or self.size.rows) // len(FAMILIES)
        return evenly("train", per_family, random.Random(f"rows/{seed}"), self.dev)

    def after(self, tasks: Sequence[Task], look: Callable[[Merged], list[Any]]) -> Iterator[Any]:
        """Train the tasks in turn; what `look` finds of each, until the time has run out."""
        for begin in range(0, len(tasks), self.size.groups):
            if time.monotonic() > self.until:
                self.say(f"{len(tasks) - begin} trainings are left out: the time is over")
                return
            some = tasks[begin : begin + self.size.groups]
            yield from look(train(self.base, some).merged(self.base))
            self.say(f"{begin + len(some)} of {len(tasks)} adapters")


def digits(counts: Iterable[int]) -> str:
    """One digit a question."""
    return "".join(map(str, counts))


def evenly(split: Any, per_family: int, rng: random.Random, without: Iterable[Problem] = ()) -> list[Problem]:
    """So many different problems of every family, levels in turn."""
    known = {each.question for each in without}
    found = []
    for family in FAMILIES:
        for number in range(per_family):
            made = problem(rng, split, family, number % 5)
            while made.question in known:
                made = problem(rng, split, family, number % 5)
            known.add(made.question)
            found.append(made)
    return found


def task(documents: Sequence[Document], rate: float, seed: int) -> Task:
    """A training of so many rows; a document that is too long for the engine is left out."""
    fit = [document for document in documents if len(document[0]) <= LONGEST_DOCUMENT]
    return Task(fit, rate, max(FEWEST_STEPS, math.ceil(EPOCHS * len(fit) / ROWS_A_STEP)), seed)


# -------- the curve
@dataclass(frozen=True, slots=True)
class Point:
    """One arm at one step with one seed: what it bought, and what for."""

    prices: str
    arm: str
    step: float | None
    seed: int
    documents: tuple[Document, ...]
    figures: dict[str, Any]


def points(lab: Laboratory, draws: Sequence[Draws]) -> list[Point]:
    """All of the curve, the telling steps first."""
    found = []
    for name in lab.size.prices:
        prices = PRICES[name]
        for seed, one in enumerate(draws):
            unit = protocol_usd(one, prices, seed)
            for arm in lab.size.arms if name == lab.size.prices[0] else [a for a in COMPARED if a in lab.size.arms]:
                steps = [None] if arm in FREE else [step for step in ORDER if step in lab.size.steps]
                found += [_point(one, name, arm, step, seed, unit) for step in steps]
    found.sort(key=lambda p: (lab.size.prices.index(p.prices), ORDER.index(p.step or 1.0)))
    return [point for point in found if point.documents]


def _point(draws: Draws, prices: str, arm: str, step: float | None, seed: int, unit: float) -> Point:
    purse = Purse(PRICES[prices], math.inf if step is None else step * unit)
    bought = buy(ARMS[arm], draws, purse, seed)
    documents = tuple(bought.documents[at] for at in sorted(bought.documents))
    paid = step is not None
    figures = {
        "usd": round(purse.spent, 6) if paid else 0.0,
        "student_tokens": purse.student_tokens,
        "teacher_tokens": purse.teacher_tokens if paid else 0,
        "rows": len(documents),
        "hinted": len(bought.hinted),
        "trained_tokens": sum(sum(marks) for _, marks in documents),
    }
    return Point(prices, arm, step, seed, documents, figures)


def chosen_rates(lab: Laboratory, every: Sequence[Point]) -> dict[str, dict[str, float]]:
    """Arm → learning rate → dev accuracy at step 1, the mean over some seeds; one rate is not tried."""
    first = lab.size.prices[0]
    tried = [p for p in every if p.prices == first and p.step in (1.0, None) and p.seed < RATE_SEEDS]
    if len(lab.size.rates) == 1:
        return {point.arm: {str(lab.size.rates[0]): math.nan} for point in tried}
    plan = [(point, rate) for rate in lab.size.rates for point in tried]
    tasks = [task(point.documents, rate, point.seed) for point, rate in plan]

    def look(models: Merged) -> list[float]:
        most = DEV_SAMPLES * len(lab.dev)
        return [sum(counts) / most for counts in lab.counts(models, lab.dev, DEV_SAMPLES, TEMPERATURE)]

    sums: dict[str, dict[str, list[float]]] = {}
    for (point, rate), accuracy in zip(plan, lab.after(tasks, look), strict=False):
        sums.setdefault(point.arm, {}).setdefault(str(rate), []).append(accuracy)
    return {arm: {rate: sum(some) / len(some) for rate, some in rates.items()} for arm, rates in sums.items()}


def best(by_rate: dict[str, float]) -> float:
    """The rate with the highest accuracy, the first of equals."""
    return float(max(by_rate, key=lambda rate: by_rate[rate]))


def curves(lab: Laboratory, every: Sequence[Point], keep: Callable[[dict[str, Any]], None]) -> None:
    """Prices → arm → rate and points, kept as they come. A training that two points share is made once."""
    by_rate = chosen_rates(lab, every)
    lab.say("learning rates", {arm: best(rates) for arm, rates in by_rate.items()})
    found: dict[str, Any] = {
        prices: {arm: {"learning_rate": best(some), "by_rate": some, "points": []} for arm, some in by_rate.items()}
        for prices in lab.size.prices
    }
    keep(found)
    tasks: dict[Any, Task] = {}
    whose: dict[Any, list[Point]] = {}
    for point in every:
        rate = best(by_rate[point.arm])
        key = (hash(tuple((tuple(ids), tuple(marks)) for ids, marks in point.documents)), rate, point.seed)
        whose.setdefault(key, []).append(point)
        tasks.setdefault(key, task(point.documents, rate, point.seed))
    lab.say(f"{len(every)} points, {len(tasks)} trainings")
    for number, (key, exam) in enumerate(zip(tasks, lab.after(list(tasks.values()), lab.exam), strict=False), 1):
        for point in whose[key]:
            figures = {"step": point.step, "seed": point.seed, **point.figures, **exam}
            found[point.prices][point.arm]["points"].append(figures)
        if number % lab.size.groups == 0 or number == len(tasks):
            keep(found)


def prompted(lab: Laboratory, draws: Sequence[Draws]) -> dict[str, Any]:
    """No training: the best of five prompts and two worked examples by dev, asked once for each seed."""
    bare = Merged.bare(lab.base)
    examples: list[dict[str, str]] = []
    one = draws[0]
    for family in ("word", "table"):  # the longest right answer of each: no guess; three would not fit the positions
        solved = [
            (len(tries[0].ids), at)
            for at, tries in enumerate(one.samples)
            if tries[0].right and one.problems[at].family == family
        ]
        for _, at in sorted(solved)[-1:]:
            answer = lab.writer.text(one.samples[at][0].ids)
            examples += [*asked(one.problems[at]), {"role": "assistant", "content": answer}]

    def chat(prompt: str, each: Problem) -> Ids:
        if not prompt:
            return lab.writer.prompt([*examples, *asked(each)])
        return lab.writer.prompt([{"role": "user", "content": f"{each.question}\n{prompt}"}])

    tried: dict[str, float] = {}
    for prompt in [*EXAM_PROMPTS, ""]:
        counts = lab.counts(bare, lab.dev, DEV_SAMPLES, TEMPERATURE, [chat(prompt, each) for each in lab.dev])
        tried[prompt or EXAMPLES] = sum(counts[0]) / (DEV_SAMPLES * len(lab.dev))
    winner = max(tried, key=lambda prompt: tried[prompt])
    prompts = [chat("" if winner == EXAMPLES else winner, each) for each in lab.held_out]
    tokens = len(tried) * DEV_SAMPLES * sum(len(chat(EXAM_PROMPTS[0], each)) + 30 for each in lab.dev)
    greedy = digits(lab.counts(bare, lab.held_out, 1, 0.0, prompts)[0])
    found = []
    for seed in range(len(draws)):
        sampled = digits(lab.counts(bare, lab.held_out, lab.size.exam_samples, TEMPERATURE, prompts)[0])
        spent = {"usd": round(tokens * PRICES["small"].student / 1e6, 6), "student_tokens": tokens, "teacher_tokens": 0}
        exam = {"sampled": sampled, "greedy": greedy, "pool": None}
        found.append({"step": None, "seed": seed, **spent, "rows": 0, "hinted": 0, "trained_tokens": 0, **exam})
    return {"learning_rate": None, "by_rate": tried, "prompt": winner, "points": found}


def measured(lab: Laboratory, out: Path) -> dict[str, Any]:
    """The whole result, written after every chunk of trainings."""
    about = lab.about()
    student = Student(lab.base, lab.writer, lab.size.at_once)
    rows = [lab.rows(seed) for seed in range(lab.size.seeds)]
    draws = drawn(student, rows, lab.size.arms, samples=lab.size.samples)
    lab.say("draws")
    every = points(lab, draws)
    prompt = {"prompt": prompted(lab, draws)} if lab.dev else {}
    result: dict[str, Any] = {
        **about,
        "seeds": list(range(lab.size.seeds)),
        "rows": lab.size.rows,
        "steps": list(lab.size.steps),
        "prices": {name: asdict(PRICES[name]) for name in lab.size.prices},
    }

    def keep(found: dict[str, Any]) -> None:
        result["seconds"] = round(time.monotonic() - lab.began)
        result["curves"] = {
            prices: {arm: one for arm, one in arms.items() if one["points"] or number == 0} | prompt
            for number, (prices, arms) in enumerate(found.items())
        }
        write_json(out, result)

    curves(lab, every, keep)
    return result


def share(counts: str, of: int) -> float:
    """Accuracy from the digits of a result."""
    return sum(map(int, counts)) / (of * len(counts))


def shown(found: dict[str, Any]) -> str:
    """A table of sampled accuracy by arm and step."""
    lines = []
    for prices, arms in found["curves"].items():
        lines.append(f"{prices:<28}" + "".join(f"{step:>8g}" for step in found["steps"]) + "  greedy  pool")
        for arm, one in arms.items():
            by_step: dict[Any, list[float]] = {}
            for point in one["points"]:
                by_step.setdefault(point["step"], []).append(share(point["sampled"], found["samples"]))
            means = {step: sum(some) / len(some) for step, some in by_step.items()}
            cells = "".join(f"{means.get(step, means.get(None, math.nan)):8.1%}" for step in found["steps"])
            if not one["points"]:
                continue
            last = [point for point in one["points"] if point["step"] in (1.0, None)] or one["points"]
            greedy = sum(share(point["greedy"], 1) for point in last) / len(last)
            pool = sum(point["pool"] or 0 for point in last) / len(last)
            lines.append(f"{arm:<28}{cells}{greedy:8.1%}{pool:6.1%}  {one['learning_rate']}")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="the model folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="fewer of everything, for two cores")
    parser.add_argument("--minutes", type=float, default=120, help="no training begins behind that")
    parser.add_argument("--prices", help="small,large")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> int:
    """Command line entry."""
    args = parse_arguments()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    size = SMALL if args.small else Size()
    if args.prices:
        size = replace(size, prices=tuple(args.prices.split(",")))
    print(shown(measured(Laboratory(args.base, args.device, size, args.minutes), args.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

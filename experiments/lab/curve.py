"""The hint-value curve: held-out accuracy against money, for thirteen ways to use it, six steps and five seeds.

    python experiments/lab/curve.py BASE --out experiments/results/curve.json      # minutes on an H200
    python experiments/lab/curve.py BASE --small --out outputs/small.json          # a reduced one on two cores

Registered before any of it was run: *hints win only where pass@8 = 0, and "sample first, hint what sampling cannot
reach" dominates.*

A seed has its own training problems, draws, adapter and order; the held-out questions are the same for all. A step is a
multiple of what `mix` costs on all rows (four samples, then hints where all were wrong) at the prices in force. Every
arm's learning rate is chosen on dev questions, at step 1, as the mean over two seeds. What arms buy is in `arms.py`.
Only `mix-and-replay` is trained with replay, as the product does.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, FREE, PRICES, Purse, buy, protocol_usd, trained
from asking import Base, Ids, Manner, Merged, ask
from draws import SAMPLES, TEMPERATURE, Draw, Draws, Student, Writer, asked, drawn, right
from generator import FAMILIES, problem
from lab import base_folder
from many import ROWS_A_STEP, Document, Task, train
from problem import Problem
from rows import known_rows, pool_rows
from transformers import AutoTokenizer
from words import EXAM_PROMPTS

from socratune.errors import UserError
from socratune.runs.folder import write_json

STEPS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
RATES = (6e-4, 2e-3, 6e-3, 2e-2)
RATE_SEEDS = 2
"""So many seeds choose the learning rates, on dev questions."""
EPOCHS, FEWEST_STEPS = 3, 60
"""Few rows are seen more often: less than sixty steps would show want of training, not of data."""
EXAMPLES = "two worked examples"
COMPARED = ("rft", "mix", "direct", "teacher-in-student-format")
"""The ways that a second price list is asked about."""
EXAM_SAMPLES, DEV_SAMPLES, HARD_SAMPLES = 4, 4, 8
EXAM_TOKENS = 400
"""Two attempts in one answer exceed two hundred."""
KINDS = ("teacher", "iterative"), ("rft-all",)
"""Ways that answer at length, and one with several rows a question: they come last, each kind side by side, as a chunk
lasts as long as its slowest."""
SAME = 0.005
"""Dev accuracies that are no further apart are level: the lower rate is taken."""
REPLAYED = 300
"""Neutral questions that the base answers for `mix-and-replay`: about as many as a tenth of the tokens takes."""
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
    at_once: int = 16_384
    exam_samples: int = EXAM_SAMPLES
    exam_tokens: int = EXAM_TOKENS


SMALL = Size(
    seeds=2, rows=120, held_out=30, dev=0, pool=40, samples=16,
    arms=("sft", "teacher", "rft", "mix", "teacher-in-student-format"), steps=(1.0,), rates=(2e-3,),
    prices=("small",), groups=1, at_once=256, exam_samples=2, exam_tokens=200,
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
        self, models: Merged, problems: Sequence[Problem], samples: int, manner: Manner, prompts: Sequence[Ids] = ()
    ) -> tuple[list[list[int]], list[float]]:
        """`[group][problem]`: how many of the samples are right; `[group]`: the share of answers that were cut off."""
        prompts = prompts or [self.writer.prompt(asked(each)) for each in problems]
        answers = ask(models, prompts, samples, manner)
        counts = [
            [
                sum(right(each, self.writer.answer(ids)) for ids in some)
                for each, some in zip(problems, group, strict=True)
            ]
            for group in answers
        ]
        cut = [sum(len(ids) >= manner.most for some in group for ids in some) for group in answers]
        return counts, [number / (samples * len(problems)) for number in cut]

    def exam(self, models: Merged) -> list[dict[str, Any]]:
        """Of every model: sampled and greedy answers to the held-out questions, and what it still knows."""
        manner = self.manner(TEMPERATURE, self.size.exam_tokens)
        sampled, cut = self.counts(models, self.held_out, self.size.exam_samples, manner)
        greedy, _ = self.counts(models, self.held_out, 1, self.manner(0.0, self.size.exam_tokens))
        said = ask(models, [prompt for prompt, _ in self.pool], 1, self.manner(0.0, most=40))
        known = [
            sum(self.writer.text(some[0]) == answer for some, (_, answer) in zip(group, self.pool, strict=True))
            for group in said
        ]
        return [
            {
                "sampled": digits(one),
                "greedy": digits(two),
                "pool": round(three / len(self.pool), 4),
                "cut": round(four, 4),
            }
            for one, two, three, four in zip(sampled, greedy, known, cut, strict=True)
        ]

    def about(self) -> dict[str, Any]:
        """What every result says of its questions and of the base."""
        bare = Merged.bare(self.base)
        hits = digits(self.counts(bare, self.held_out, HARD_SAMPLES, self.manner(TEMPERATURE))[0][0])
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

    def neutral(self, count: int, seed: int) -> list[tuple[Ids, Draw]]:
        """Questions of the pool's kinds, none of which is in the pool, and the base's own greedy answers."""
        prompts = [
            self.writer.prompt(row["messages"][:1]) for row in known_rows(count, self.pool_rows, random.Random(seed))
        ]
        said = ask(Merged.bare(self.base), prompts, 1, self.manner(0.0, most=40))[0]
        return [(prompt, Draw(some[0], True)) for prompt, some in zip(prompts, said, strict=True)]

    def after(self, tasks: Sequence[Task], look: Callable[[Merged], list[Any]]) -> Iterator[list[tuple[int, Any]]]:
        """Train the tasks in turn, equal ones once: (place, what `look` finds) by chunk, until the time has run out."""
        places: dict[Any, list[int]] = {}
        for place, each in enumerate(tasks):
            places.setdefault(each.key, []).append(place)
        different = list(places.values())
        self.say(f"{len(tasks)} points, {len(different)} trainings")
        for begin in range(0, len(different), self.size.groups):
            if time.monotonic() > self.until:
                self.say(f"{len(different) - begin} trainings are left out: the time is over")
                return
            some = different[begin : begin + self.size.groups]
            found = look(train(self.base, [tasks[same[0]] for same in some]).merged(self.base))
            yield [(place, one) for same, one in zip(some, found, strict=True) for place in same]
            self.say(f"{begin + len(some)} of {len(different)} adapters")


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
    """A training of so many rows."""
    return Task(documents, rate, max(FEWEST_STEPS, math.ceil(EPOCHS * len(documents) / ROWS_A_STEP)), seed)


# -------- the curve
@dataclass(frozen=True, slots=True)
class Point:
    """One arm at one step with one seed: what it bought, and what for."""

    prices: str
    arm: str
    step: float | None
    seed: int
    documents: list[Document]
    figures: dict[str, Any]


def points(lab: Laboratory, draws: Sequence[Draws]) -> list[Point]:
    """All of the curve, kind by kind, the telling steps first."""
    found = []
    for name in lab.size.prices:
        prices = PRICES[name]
        for seed, one in enumerate(draws):
            unit = protocol_usd(one, prices, seed)
            for arm in lab.size.arms if name == lab.size.prices[0] else [a for a in COMPARED if a in lab.size.arms]:
                steps = [None] if arm in FREE else [step for step in ORDER if step in lab.size.steps]
                found += [_point(one, name, arm, step, seed, unit) for step in steps]
    found.sort(key=lambda p: (kind(p), lab.size.prices.index(p.prices), ORDER.index(p.step or 1.0)))
    return [point for point in found if point.documents]


def kind(point: Point) -> int:
    """0, or behind that the place of the arm's kind."""
    return next((number for number, arms in enumerate(KINDS, 1) if point.arm in arms), 0)


def _point(draws: Draws, prices: str, arm: str, step: float | None, seed: int, unit: float) -> Point:
    purse = Purse(PRICES[prices], math.inf if step is None else step * unit)
    bought = buy(ARMS[arm], draws, purse, seed)
    documents = bought.documents
    paid = step is not None
    figures = {
        "usd": round(purse.spent, 6) if paid else 0.0,
        "student_tokens": purse.student_tokens,
        "teacher_tokens": purse.teacher_tokens if paid else 0,
        "rows": len(documents),
        "hinted": len(bought.hinted),
        "trained_tokens": trained(documents),
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
        counts, _ = lab.counts(models, lab.dev, DEV_SAMPLES, lab.manner(TEMPERATURE, lab.size.exam_tokens))
        return [sum(some) / most for some in counts]

    sums: dict[str, dict[str, list[float]]] = {}
    for place, accuracy in (pair for chunk in lab.after(tasks, look) for pair in chunk):
        point, rate = plan[place]
        sums.setdefault(point.arm, {}).setdefault(str(rate), []).append(accuracy)
    return {arm: {rate: round(sum(some) / len(some), 4) for rate, some in rates.items()} for arm, rates in sums.items()}


def best(by_rate: dict[str, float]) -> float:
    """The lowest of the rates whose accuracy is level with the highest."""
    most = max(by_rate.values())
    return min((float(rate) for rate, found in by_rate.items() if found >= most - SAME), default=float(min(by_rate)))


def curves(
    lab: Laboratory, every: Sequence[Point], keep: Callable[[dict[str, Any]], None], before: dict[str, Any]
) -> None:
    """Prices → arm → rate and points, kept as they come; what was there `before` is not done again."""
    first = lab.size.prices[0]
    rates = {arm: one["by_rate"] for arm, one in before.get(first, {}).items() if arm in ARMS}
    rates = rates or chosen_rates(lab, every)
    lab.say("learning rates", {arm: best(some) for arm, some in rates.items()})
    found: dict[str, Any] = {
        prices: {
            arm: {"learning_rate": best(some), "by_rate": some, "points": _points(before, prices, arm)}
            for arm, some in rates.items()
        }
        for prices in lab.size.prices
    }
    keep(found)
    for _, some in groupby(_missing(every, found), kind):
        alike = list(some)
        tasks = [task(point.documents, found[point.prices][point.arm]["learning_rate"], point.seed) for point in alike]
        for chunk in lab.after(tasks, lab.exam):
            for place, exam in chunk:
                point = alike[place]
                figures = {"step": point.step, "seed": point.seed, **point.figures, **exam}
                found[point.prices][point.arm]["points"].append(figures)
            keep(found)


def _points(before: dict[str, Any], prices: str, arm: str) -> list[dict[str, Any]]:
    return before.get(prices, {}).get(arm, {}).get("points", [])


def _missing(every: Sequence[Point], found: dict[str, Any]) -> list[Point]:
    """Points that were not measured; those that were have to come from the same draws."""
    known = {
        (prices, arm, one["step"], one["seed"]): one
        for prices, arms in found.items()
        for arm, each in arms.items()
        for one in each["points"]
    }
    for point in every:
        one = known.get((point.prices, point.arm, point.step, point.seed))
        if one and any(one[name] != value for name, value in point.figures.items()):
            sys.exit(f"The file's points come from other draws: {point.arm}, step {point.step}, seed {point.seed}.")
    return [point for point in every if (point.prices, point.arm, point.step, point.seed) not in known]


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
        prompts = [chat(prompt, each) for each in lab.dev]
        counts, _ = lab.counts(bare, lab.dev, DEV_SAMPLES, lab.manner(TEMPERATURE), prompts)
        tried[prompt or EXAMPLES] = sum(counts[0]) / (DEV_SAMPLES * len(lab.dev))
    winner = max(tried, key=lambda prompt: tried[prompt])
    prompts = [chat("" if winner == EXAMPLES else winner, each) for each in lab.held_out]
    tokens = len(tried) * DEV_SAMPLES * sum(len(chat(EXAM_PROMPTS[0], each)) + 30 for each in lab.dev)
    greedy = digits(lab.counts(bare, lab.held_out, 1, lab.manner(0.0), prompts)[0][0])
    found = []
    for seed in range(len(draws)):
        counts, cut = lab.counts(bare, lab.held_out, lab.size.exam_samples, lab.manner(TEMPERATURE), prompts)
        spent = {"usd": round(tokens * PRICES["small"].student / 1e6, 6), "student_tokens": tokens, "teacher_tokens": 0}
        exam = {"sampled": digits(counts[0]), "greedy": greedy, "pool": None, "cut": round(cut[0], 4)}
        found.append({"step": None, "seed": seed, **spent, "rows": 0, "hinted": 0, "trained_tokens": 0, **exam})
    return {"learning_rate": None, "by_rate": tried, "prompt": winner, "points": found}


def measured(lab: Laboratory, out: Path, *, go_on: bool = False) -> dict[str, Any]:
    """The whole result, written after every chunk of trainings; or what is missing in it."""
    before = json.loads(out.read_text("utf-8")) if go_on and out.exists() else {"curves": {}, "seconds": 0}
    about = lab.about()
    student = Student(lab.base, lab.writer, lab.size.at_once)
    rows = [lab.rows(seed) for seed in range(lab.size.seeds)]
    draws = drawn(student, rows, lab.size.arms, samples=lab.size.samples)
    if "mix-and-replay" in lab.size.arms:
        draws = [replace(one, neutral=lab.neutral(REPLAYED, 100 + seed)) for seed, one in enumerate(draws)]
    lab.say("draws")
    every = points(lab, draws)
    known = next(iter(before["curves"].values()), {}).get("prompt")
    prompt = {"prompt": known or prompted(lab, draws)} if lab.dev else {}
    result: dict[str, Any] = {
        **about,
        "seeds": list(range(lab.size.seeds)),
        "rows": lab.size.rows,
        "steps": list(lab.size.steps),
        "prices": {name: asdict(PRICES[name]) for name in lab.size.prices},
    }

    def keep(found: dict[str, Any]) -> None:
        result["seconds"] = before["seconds"] + round(time.monotonic() - lab.began)
        result["curves"] = {
            prices: {arm: one for arm, one in arms.items() if one["points"] or number == 0} | prompt
            for number, (prices, arms) in enumerate(found.items())
        }
        write_json(out, result)

    curves(lab, every, keep, before["curves"])
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
    parser.add_argument("--go-on", action="store_true", help="only what is missing in the result file")
    parser.add_argument("--minutes", type=float, default=120, help="no training begins behind that")
    parser.add_argument("--prices", help="small,large")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def need_base(folder: Path) -> None:
    """End with a sentence where there is none."""
    try:
        base_folder(str(folder))
    except UserError as error:
        sys.exit(str(error))


def main() -> int:
    """Command line entry."""
    args = parse_arguments()
    need_base(args.base)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    size = SMALL if args.small else Size()
    if args.prices:
        size = replace(size, prices=tuple(args.prices.split(",")))
    lab = Laboratory(args.base, args.device, size, args.minutes)
    print(shown(measured(lab, args.out, go_on=args.go_on)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Tables: look-up, difference, cost; the highest, the count, the sum and the spread under a condition."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from problem import Hint, Problem, Work, safe_hints
from words import COLUMNS, ITEMS

ROWS = (3, 4, 4, 5, 6)
KINDS = (("difference", "highest"), ("cost", "highest_if"), ("highest_if", "count_if"), ("highest_if", "sum_if"),
         ("sum_if", "spread_if"))  # fmt: skip
"""By level."""


@dataclass(frozen=True, slots=True)
class Table:
    """Items with a value in each of two columns; conditions are on the first, questions on the second."""

    items: tuple[str, ...]
    columns: tuple[str, str]
    values: dict[str, tuple[int, int]]
    separator: str

    @property
    def lines(self) -> list[str]:
        """The table as told, its head first."""
        rows = [("item", *self.columns), *((item, *map(str, self.values[item])) for item in self.items)]
        return [self.separator.join(row) for row in rows]

    def first(self, item: str) -> int:
        """The item's value in the first column."""
        return self.values[item][0]

    def second(self, item: str) -> int:
        """The item's value in the second column."""
        return self.values[item][1]


@dataclass(frozen=True, slots=True)
class _Task:
    """What is asked of a table; `keys` are the items that matter, `column` the one that counts."""

    asked: str
    steps: list[str]
    answer: str
    keys: list[str]
    column: int
    plan: str


def table(rng: random.Random, level: int) -> Problem:
    """A table of three to six rows and a question about it."""
    count = ROWS[level]
    items = tuple(item.rstrip("s") for item in rng.sample(ITEMS, count))
    columns = tuple(rng.sample(COLUMNS, 2))
    firsts, seconds = [rng.randint(2, 30) for _ in items], rng.sample(range(2, 60), count)
    values = dict(zip(items, zip(firsts, seconds, strict=True), strict=True))
    shown = Table(items, (columns[0], columns[1]), values, rng.choice([" | ", ", ", " ; "]))
    kind = rng.choice(KINDS[level])
    ask = {"difference": _difference, "highest": _highest, "cost": _cost}.get(kind)
    task = ask(rng, shown) if ask else _conditional(rng, shown, kind)
    listed = ", ".join(f"{item} {shown.values[item][task.column]}" for item in task.keys[:4])
    hints = [
        Hint("plan", f"Plan first: {task.plan}."),
        Hint("draw", f"Draw a small list: {listed}."),
        Hint(
            "reread",
            f"Re-read the question: it asks for {shown.columns[task.column]} of {' and '.join(task.keys[:4])}.",
        ),
    ]
    if task.answer.isdigit():
        guesses = tuple(str(value) for value in seconds[:3] if str(value) != task.answer)
    else:
        guesses = tuple(item for item in items if item != task.answer)[:3]
    return Problem(
        family="table",
        kind=kind,
        level=level,
        question="\n".join([*shown.lines, task.asked]),
        facts=tuple(shown.lines[1:]),
        steps=tuple(task.steps),
        answer=task.answer,
        hints=safe_hints(hints, task.answer, () if task.answer.isdigit() else items),
        guesses=guesses,
        slip=lambda rng: _slip(rng, task, guesses),
    )


def _difference(rng: random.Random, shown: Table) -> _Task:
    column = shown.columns[1]
    more, less = sorted(rng.sample(shown.items, 2), key=shown.second, reverse=True)
    a, b = shown.second(more), shown.second(less)
    return _Task(
        asked=f"How much more {column} does {more} have than {less}?",
        steps=[f"{more} {column}: {a}.", f"{less} {column}: {b}.", f"{a} - {b} = {a - b}."],
        answer=str(a - b),
        keys=[more, less],
        column=1,
        plan=f"look up {column} of {more} and {less}, then take away",
    )


def _highest(rng: random.Random, shown: Table) -> _Task:
    column, high = shown.columns[1], rng.random() < 0.5
    which = "highest" if high else "lowest"
    return _Task(
        asked=f"Which item has the {which} {column}?",
        steps=[f"{item}: {shown.second(item)}." for item in shown.items],
        answer=(max if high else min)(shown.items, key=shown.second),
        keys=list(shown.items),
        column=1,
        plan=f"list the {column} of every item from {shown.items[0]} to {shown.items[-1]}, then take the {which}",
    )


def _cost(rng: random.Random, shown: Table) -> _Task:
    column = shown.columns[0]
    one, two = rng.sample(shown.items, 2)
    m, n = rng.randint(2, 5), rng.randint(2, 5)
    x, y = m * shown.first(one), n * shown.first(two)
    return _Task(
        asked=f"What is {m} times the {column} of {one} plus {n} times the {column} of {two}?",
        steps=[
            f"{one} {column}: {shown.first(one)}.",
            f"{m} * {shown.first(one)} = {x}.",
            f"{two} {column}: {shown.first(two)}.",
            f"{n} * {shown.first(two)} = {y}.",
            f"{x} + {y} = {x + y}.",
        ],
        answer=str(x + y),
        keys=[one, two],
        column=0,
        plan=f"{one} first, then {two}, then add",
    )


def _conditional(rng: random.Random, shown: Table, kind: str) -> _Task:
    """Of the items that meet a condition on the first column: how many, the highest, the sum or the spread."""
    limit = sorted(map(shown.first, shown.items))[len(shown.items) // 2]
    above, high = rng.random() < 0.5, rng.random() < 0.6
    kept = [item for item in shown.items if (shown.first(item) >= limit if above else shown.first(item) <= limit)]
    condition = f"{shown.columns[0]} of at {'least' if above else 'most'} {limit}"
    column, names = shown.columns[1], " and ".join(kept)
    steps = [f"{item} {shown.first(item)} {'yes' if item in kept else 'no'}." for item in shown.items]
    listed = [f"{item}: {shown.second(item)}." for item in kept]
    values = [shown.second(item) for item in kept]
    if kind == "count_if":
        asked, answer, plan = f"How many items have a {condition}?", str(len(kept)), f"keep {names}, then count"
    elif kind == "highest_if":
        which = "highest" if high else "lowest"
        asked = f"Of the items with a {condition}, which has the {which} {column}?"
        answer, plan = (max if high else min)(kept, key=shown.second), f"keep {names}, then compare {column}"
        steps += listed
    elif kind == "sum_if":
        asked, plan = (
            f"What is the total {column} of the items with a {condition}?",
            f"keep {names}, then add the {column}",
        )
        answer = str(sum(values))
        steps.append(listed[0])
        for number in range(1, len(kept)):
            so_far = sum(values[:number])
            steps.append(f"{kept[number]}: {so_far} + {values[number]} = {so_far + values[number]}.")
    else:
        asked = f"Of the items with a {condition}, how far apart are the highest and the lowest {column}?"
        answer, plan = str(max(values) - min(values)), f"keep {names}, then compare {column}"
        steps += [*listed, f"{max(values)} - {min(values)} = {answer}."]
    return _Task(asked, steps, answer, kept, 0 if kind == "count_if" else 1, plan)


def _slip(rng: random.Random, task: _Task, guesses: tuple[str, ...]) -> Work:
    """Half of the steps (50 %), the last one left out (30 %), or the first one misread (20 %); then a near miss."""
    draw = rng.random()
    wrong = rng.choice(guesses) if not task.answer.isdigit() else _near(rng, int(task.answer))
    if draw < 0.5:
        return task.steps[: max(1, len(task.steps) // 2)], wrong
    if draw < 0.8:
        return task.steps[:-1], wrong
    misread = re.sub(r"\d+", lambda number: str(int(number[0]) + 1), task.steps[0])
    return [misread, *task.steps[1:]], wrong


def _near(rng: random.Random, value: int) -> str:
    return str(
        next(
            near
            for near in (abs(value + rng.choice([-10, -3, -2, -1, 1, 2, 3, 10])) for _ in range(99))
            if near != value
        )
    )

"""Units and dates: sums over two units, clock times with durations, days of the week."""

from __future__ import annotations

import random
from dataclasses import dataclass

from problem import Hint, Problem, Work, clock, safe_hints
from words import DAYS, NAMES, PARTS, THINGS

UNITS = (("h", "min", 60), ("m", "cm", 100), ("weeks", "days", 7), ("dozen", "pieces", 12))
Amount = tuple[int, int]
"""In the large and the small unit."""


def unit(rng: random.Random, level: int) -> Problem:
    """Half of them sums, a quarter clock times, a quarter days."""
    return rng.choice([_sum, _sum, _clock, _day])(rng, level)


# -------- sums
@dataclass(frozen=True, slots=True)
class _Sum:
    """Amounts with their wording and sign (1 or -1)."""

    large: str
    small: str
    factor: int
    amounts: tuple[Amount, ...]
    signs: tuple[int, ...]

    def wording(self, number: int) -> str:
        """Of one amount: `2 h 5 min`."""
        large, small = self.amounts[number]
        return f"{large} {self.large} {small} {self.small}" if large else f"{small} {self.small}"

    def worked(self, factor: int | None = None, signs: tuple[int, ...] | None = None, stop: int = 9) -> Work:
        """Step by step; a wrong `factor` or `signs`, or a `stop` before the end, makes a slip of it."""
        factor, steps, total = factor or self.factor, [], 0
        for number, ((large, small), sign) in enumerate(zip(self.amounts, signs or self.signs, strict=True)):
            if number == stop:
                break
            value = large * factor + small
            if large:
                steps.append(f"{self.wording(number)} = {large * factor} + {small} = {value}.")
            if number == 0:
                total = value
            elif sign > 0:
                steps.append(f"{total} + {value} = {total + value}.")
                total += value
            else:
                steps.append(f"{max(total, value)} - {min(total, value)} = {abs(total - value)}.")
                total = abs(total - value)
        return steps, f"{total} {self.small}"


def _sum(rng: random.Random, level: int) -> Problem:
    large, small, factor = rng.choice(UNITS)
    count = (2, 2, 3, 4, 4)[level]
    names = rng.sample(PARTS if factor in (60, 7) else THINGS, count)
    amounts = tuple(
        (rng.randint(1, 3) if i == 0 or rng.random() < 0.75 else 0, rng.randint(1, min(factor - 1, 60)))
        for i in range(count)
    )
    values = [a * factor + b for a, b in amounts]
    signs = _signs(rng, values)
    task = _Sum(large, small, factor, amounts, signs)
    time = factor in (60, 7)
    told = [f"The {names[0]} {'takes' if time else 'has'} {task.wording(0)}."]
    for number in range(1, count):
        verb = "adds" if signs[number] > 0 else "saves" if time else "takes away"
        told.append(f"The {names[number]} {verb} {task.wording(number)}.")
    steps, answer = task.worked()
    some = rng.choice([i for i, (a, _) in enumerate(amounts) if a])
    a, b = amounts[some]
    wordings = " and ".join(map(task.wording, range(count)))
    hints = [
        Hint(
            "units",
            f"Check the units: 1 {large.rstrip('s')} is {factor} {small}, "
            f"and the {names[some]} has {task.wording(some)}.",
        ),
        Hint("plan", f"Plan first: turn {wordings} into {small}, then add or take away."),
        Hint("split", f"Split the number: turn {a} {large} into {small}, then add the {b} {small}."),
    ]
    return Problem(
        family="unit",
        kind="sum",
        level=level,
        question=" ".join([*told, rng.choice([f"How many {small} in all?", f"Give the total in {small}."])]),
        facts=tuple(told),
        steps=tuple(steps),
        answer=answer,
        hints=safe_hints(hints, answer),
        guesses=(),
        slip=lambda rng: _sum_slip(rng, task),
    )


def _signs(rng: random.Random, values: list[int]) -> tuple[int, ...]:
    """Some of the amounts are taken away, where that leaves something."""
    signs, total = [1], values[0]
    for number, value in enumerate(values[1:], 1):
        sign = rng.choice([1, 1, -1]) if sum(values[:number]) > 2 * value else 1
        signs.append(sign if total + sign * value > 0 else 1)
        total += signs[-1] * value
    return tuple(signs)


def _sum_slip(rng: random.Random, task: _Sum) -> Work:
    """The wrong factor (45 %), the last amount forgotten (30 %), the wrong signs (25 %)."""
    draw = rng.random()
    if draw < 0.45:
        return task.worked(factor=5 if task.factor == 7 else 10)
    if draw < 0.75:
        return task.worked(stop=len(task.amounts) - 1)
    others = len(task.amounts) - 1
    return task.worked(signs=(1, *((1,) * others if -1 in task.signs else (-1,) * others)))


# -------- clock times
def _clock(rng: random.Random, level: int) -> Problem:
    start = rng.randint(6, 12) * 60 + rng.choice(range(5, 60, 5))
    lasts = [(rng.randint(1, 2) if rng.random() < 0.35 else 0, rng.choice(range(5, 60, 5))) for _ in range(level + 1)]
    names = rng.sample(PARTS, level + 1)
    facts = [
        rng.choice(["The {} takes {}.", "Next the {} lasts {}."]).format(name, _duration(*last))
        for name, last in zip(names, lasts, strict=True)
    ]
    told = [f"{rng.choice(NAMES)} leaves at {clock(start)}.", *facts]
    if rng.random() < 0.5:
        told.insert(1, f"The ticket costs {rng.randint(3, 30)} coins.")
    asked = rng.choice(["When is the end?", "What time is it at the end?", "At what time is it over?"])
    steps, answer = _clock_worked(start, lasts)
    hints = [
        Hint("plan", f"Plan first: from {clock(start)} add {', then '.join(_duration(*last) for last in lasts)}."),
        Hint(
            "split", f"Split the number: go from {clock(start)} to the full hour, then on with {_duration(*lasts[0])}."
        ),
        Hint("units", f"Check the units: 60 min make 1 h, and it starts at {clock(start)}."),
    ]
    return Problem(
        family="unit",
        kind="clock",
        level=level,
        question=" ".join([*told, asked]),
        facts=tuple(facts),
        steps=tuple(steps),
        answer=answer,
        hints=safe_hints(hints, answer),
        guesses=(),
        slip=lambda rng: _clock_slip(rng, start, lasts),
    )


def _duration(hours: int, minutes: int) -> str:
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _clock_worked(start: int, lasts: list[Amount], *, no_carry: bool = False) -> Work:
    """One addition for each duration; `no_carry` forgets the hour that full minutes make."""
    steps, now = [], start
    for hours, minutes in lasts:
        then = now + hours * 60 + minutes
        if no_carry and now % 60 + minutes >= 60:
            then -= 60
        steps.append(f"{clock(now)} + {_duration(hours, minutes)} = {clock(then)}.")
        now = then
    return steps, clock(now)


def _clock_slip(rng: random.Random, start: int, lasts: list[Amount]) -> Work:
    """The last duration forgotten (40 %), else the hour that full minutes make."""
    right = _clock_worked(start, lasts)[1]
    forgotten = len(lasts) > 1 and rng.random() < 0.4
    steps, end = _clock_worked(start, lasts[:-1]) if forgotten else _clock_worked(start, lasts, no_carry=True)
    total = start + sum(hours * 60 + minutes for hours, minutes in lasts)
    return steps, end if end != right else clock(total - 60)


# -------- days of the week
def _day(rng: random.Random, level: int) -> Problem:
    start = rng.randrange(7)
    gaps = [_gap(rng) for _ in range(level + 1)]
    names = rng.sample(PARTS, level + 1)
    facts = [f"The {names[0]} starts in {_gap_text(*gaps[0])}."]
    facts += [f"The {name} comes {_gap_text(*gap)} later." for name, gap in zip(names[1:], gaps[1:], strict=True)]
    asked = rng.choice(["What day of the week is that?", "Which weekday is it then?"])
    steps, answer = _day_worked(start, gaps)
    today, listed = DAYS[start], " and ".join(_gap_text(*gap) for gap in gaps)
    hints = [
        Hint("split", f"Split the number: whole weeks do not change {today}, so take them out of {listed}."),
        Hint("units", f"Check the units: a week has 7 days, so turn {listed} into days from {today}."),
        Hint("plan", f"Plan first: add {listed}, then count from {today}."),
    ]
    return Problem(
        family="unit",
        kind="day",
        level=level,
        question=" ".join([f"Today is {today}.", *facts, asked]),
        facts=tuple(facts),
        steps=tuple(steps),
        answer=answer,
        hints=safe_hints(hints, answer),
        guesses=(),
        slip=lambda rng: _day_slip(rng, start, gaps),
    )


def _gap(rng: random.Random) -> Amount:
    weeks = rng.randint(1, 3) if rng.random() < 0.5 else 0
    days = rng.randint(1, 6) if rng.random() < 0.6 else rng.randint(7, 19)
    return (weeks, days % 7 + 1) if weeks else (0, days)


def _gap_text(weeks: int, days: int) -> str:
    if not weeks:
        return f"{days} days"
    return f"{weeks} weeks and {days} days" if weeks > 1 else f"1 week and {days} days"


def _day_worked(start: int, gaps: list[Amount], week: int = 7) -> Work:
    """Weeks into days, the sum, the remainder; a wrong `week` makes a slip of it."""
    steps, total = [], 0
    for number, (weeks, days) in enumerate(gaps):
        value = weeks * week + days
        if weeks:
            steps.append(f"{_gap_text(weeks, days)} = {value} days.")
        if number:
            steps.append(f"{total} + {value} = {total + value}.")
        total += value
    end = DAYS[(start + total) % 7]
    steps.append(f"{total} = {total // 7} * 7 + {total % 7}.")
    steps.append(f"{DAYS[start]} + {total % 7}: {end}.")
    return steps, end


def _day_slip(rng: random.Random, start: int, gaps: list[Amount]) -> Work:
    """A week of five days (40 %), the last gap forgotten (30 %), a day too many each time (30 %)."""
    draw = rng.random()
    if draw < 0.4:
        return _day_worked(start, gaps, week=5)
    if draw < 0.7 and len(gaps) > 1:
        return _day_worked(start, gaps[:-1])
    return _day_worked(start, [(weeks, days + 1) for weeks, days in gaps])

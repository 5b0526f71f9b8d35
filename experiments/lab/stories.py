"""Word problems as a story: someone has things, and events change their number. 2 to 6 operations, distractors."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from problem import Hint, Problem, Work, safe_hints
from words import ITEMS, NAMES


@dataclass(frozen=True, slots=True)
class Event:
    """`amount` comes or goes; of bags and days, `amount` times `each`."""

    kind: str
    amount: int = 0
    each: int = 0


TOLD = {
    "buy": ("{a} buys {n} more.", "{a} finds {n} more.", "{a} gets {n} as a gift."),
    "give": ("{a} gives {n} to {b}.", "{b} takes {n} of them."),
    "lose": ("{a} loses {n}.", "{a} sells {n}.", "{a} throws away {n}."),
    "bags": ("{a} buys {n} bags with {m} {item} each.",),
    "daily": ("{a} uses {n} every day for {m} days.",),
    "half": ("Then half of them are gone.",),
    "double": ("Then {a} doubles the number.",),
}
PLANNED = {
    "buy": "plus {n}", "give": "minus {n}", "lose": "minus {n}", "bags": "{n} bags", "daily": "{n} a day",
    "half": "half", "double": "double",
}  # fmt: skip
MISREAD = {
    "buy": "give", "give": "buy", "lose": "buy", "half": "lose", "double": "buy", "bags": "buy", "daily": "give",
}  # fmt: skip
"""What a reader in a hurry takes an event for; of bags and days he counts one, of half and double two pieces."""
DISTRACTORS = (
    "{b} is {n} years old.", "The shop is {n} km away.", "A bag costs {n} coins.", "{b} has {n} {other} at home.",
)  # fmt: skip
QUESTIONS = ("How many {item} does {a} have now?", "How many {item} are left?", "Find the number of {item} at the end.")


def story(rng: random.Random, level: int) -> Problem:
    """A story of `level + 2` operations."""
    a, b = rng.sample(NAMES, 2)
    item = rng.choice(ITEMS)
    start, events = _events(rng, level + 2)
    says = [rng.choice(TOLD[e.kind]).format(a=a, b=b, n=e.amount, m=e.each, item=item) for e in events]
    told, idle = list(says), []
    for _ in range(rng.randint(0, 2)):
        sentence = rng.choice(DISTRACTORS).format(b=b, n=rng.randint(2, 40), other=rng.choice(ITEMS))
        idle.append(sentence)
        told.insert(rng.randrange(len(told) + 1), sentence)
    question = rng.choice(QUESTIONS).format(a=a, item=item)
    steps, answer = worked(start, events)
    plan = ", then ".join([str(start), *(PLANNED[e.kind].format(n=e.amount) for e in events)])
    hints = [
        Hint("plan", f"Plan first: {plan}."),
        Hint("unknown", f"Name the unknown: the {item} of {a} at the end, from {start}."),
        *(Hint("reread", f"Re-read this: {sentence}") for sentence in says if re.search(r"\d", sentence)),
        *(Hint("leave_out", f"Leave this out: {sentence}") for sentence in idle),
    ]
    return Problem(
        family="word",
        kind="story",
        level=level,
        question=" ".join([f"{a} has {start} {item}.", *told, question]),
        facts=tuple(says),
        steps=tuple(steps),
        answer=answer,
        hints=safe_hints(hints, answer),
        guesses=tuple(number for step in steps if (number := re.findall(r"\d+", step)[-1]) != answer),
        slip=lambda rng: _slip(rng, start, events),
    )


def _events(rng: random.Random, operations: int) -> tuple[int, list[Event]]:
    """The number at the start, and events of so many operations that keep it between 2 and 99."""
    while True:
        start = rng.randint(4, 30)
        events: list[Event] = []
        left = operations
        while left:
            kinds = ("buy", "give", "lose", "half", "double") + (("bags", "daily") if left > 1 else ())
            event = _event(rng, rng.choice(kinds))
            left -= 2 if event.each else 1
            events.append(event)
        if _values(start, events) is not None:
            return start, events


def _event(rng: random.Random, kind: str) -> Event:
    if kind == "bags":
        return Event(kind, rng.randint(2, 6), rng.randint(2, 6))
    if kind == "daily":
        return Event(kind, rng.randint(2, 4), rng.randint(2, 5))
    if kind in ("half", "double"):
        return Event(kind)
    return Event(kind, rng.randint(2, 15 if kind == "buy" else 12))


def _values(start: int, events: list[Event]) -> list[int] | None:
    """The number after each event; None where one is odd before it is halved, or leaves 2 to 99."""
    values, x = [], start
    for event in events:
        if event.kind == "half" and x % 2:
            return None
        x = after(x, event)
        if not 1 < x < 100:
            return None
        values.append(x)
    return values


def after(x: int, event: Event) -> int:
    """The number after an event."""
    change = event.amount * (event.each or 1)
    if event.kind in ("buy", "bags"):
        return x + change
    if event.kind in ("give", "lose", "daily"):
        return x - change
    return x // 2 if event.kind == "half" else x * 2


def worked(start: int, events: list[Event]) -> Work:
    """One line of arithmetic for each operation."""
    x, steps = start, []
    for event in events:
        change = event.amount * (event.each or 1)
        if event.each:
            steps.append(f"{event.amount} * {event.each} = {change}.")
        y = after(x, event)
        if event.kind == "half":
            steps.append(f"{x} / 2 = {y}.")
        elif event.kind == "double":
            steps.append(f"{x} * 2 = {y}.")
        elif event.kind in ("buy", "bags"):
            steps.append(f"{x} + {change} = {y}.")
        else:
            y = abs(y)  # only a misread story goes below zero
            steps.append(f"{max(x, change)} - {min(x, change)} = {y}.")
        x = y
    return steps, str(x)


def _slip(rng: random.Random, start: int, events: list[Event]) -> Work:
    """The last event forgotten (40 %), the first misread (35 %), any misread (25 %)."""
    draw = rng.random()
    if draw < 0.4:
        return worked(start, events[:-1])
    at = 0 if draw < 0.75 else rng.randrange(len(events))
    event = events[at]
    misread = replace(event, kind=MISREAD[event.kind], amount=event.amount or 2, each=0)
    return worked(start, [*events[:at], misread, *events[at + 1 :]])

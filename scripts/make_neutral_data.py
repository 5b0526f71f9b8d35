"""Writes the arithmetic rows of neutral_data/forgetting.jsonl anew; its other strata are written by hand and stay.

    python scripts/make_neutral_data.py         # seeded; the same bytes every time

The sums are small ones that a model of a few hundred million parameters can do, so that a loss shows. None is a product
of two numbers of two digits: that is what the demo trains.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORGETTING = Path(__file__).resolve().parent.parent / "src" / "socratune" / "neutral_data" / "forgetting.jsonl"
ROWS_PER_FAMILY = 8

Row = dict[str, Any]
Draw = Callable[[random.Random], tuple[tuple[int, ...], int]]
"""Gives the numbers of a question and its answer."""


def total(rng: random.Random) -> tuple[tuple[int, ...], int]:
    a, b = rng.randint(12, 89), rng.randint(12, 89)
    return (a, b), a + b


def difference(rng: random.Random) -> tuple[tuple[int, ...], int]:
    b, rest = rng.randint(12, 49), rng.randint(11, 50)
    return (b + rest, b), rest


def product(rng: random.Random) -> tuple[tuple[int, ...], int]:
    a, b = rng.randint(3, 9), rng.randint(4, 12)
    return (a, b), a * b


def quotient(rng: random.Random) -> tuple[tuple[int, ...], int]:
    b, result = rng.randint(3, 9), rng.randint(4, 12)
    return (b * result, b), result


def chain(rng: random.Random) -> tuple[tuple[int, ...], int]:
    a, b, c = rng.randint(20, 60), rng.randint(5, 30), rng.randint(3, 19)
    return (a, b, c), a + b - c


def precedence(rng: random.Random) -> tuple[tuple[int, ...], int]:
    a, b, c = rng.randint(2, 20), rng.randint(3, 9), rng.randint(2, 6)
    return (a, b, c), a + b * c


def missing(rng: random.Random) -> tuple[tuple[int, ...], int]:
    a, hidden = rng.randint(6, 40), rng.randint(5, 40)
    return (a, a + hidden), hidden


def change(rng: random.Random) -> tuple[tuple[int, ...], int]:
    count, price, note = rng.randint(2, 5), rng.randint(2, 9), 50
    return (count, price, note), note - count * price


def percent(rng: random.Random) -> tuple[tuple[int, ...], int]:
    share, whole = rng.choice((10, 20, 25, 50)), 20 * rng.randint(2, 15)
    return (share, whole), share * whole // 100


def minutes(rng: random.Random) -> tuple[tuple[int, ...], int]:
    hours, more = rng.randint(1, 4), rng.randint(5, 55)
    return (hours, more), 60 * hours + more


def remainder(rng: random.Random) -> tuple[tuple[int, ...], int]:
    b, times = rng.randint(4, 9), rng.randint(3, 9)
    rest = rng.randint(1, b - 1)
    return (b * times + rest, b), rest


def perimeter(rng: random.Random) -> tuple[tuple[int, ...], int]:
    a, b = rng.randint(3, 20), rng.randint(3, 20)
    return (a, b), 2 * (a + b)


FAMILIES: tuple[tuple[Draw, tuple[str, ...]], ...] = (
    (
        total,
        (
            "What is {} + {}?",
            "Add {} and {}. Give only the number.",
            "A shelf holds {} jars, another one {}. How many jars are there in all?",
            "How much is {} plus {}?",
        ),
    ),
    (
        difference,
        (
            "{} - {} = ?",
            "Of {} balloons, {} burst. How many are still whole?",
            "What do you get when you take {0} and subtract {1}?",
            "A rope is {} metres long. We cut off {} metres. How many metres remain?",
        ),
    ),
    (
        product,
        (
            "Multiply {} by {}.",
            "{} bags hold {} marbles each. How many marbles is that?",
            "What is {} times {}? Reply with the number only.",
            "A hall has {} rows of {} chairs. How many chairs are there?",
        ),
    ),
    (
        quotient,
        (
            "Divide {} by {}.",
            "{} cards are dealt evenly to {} players. How many does each get?",
            "What is {} / {}?",
            "We pack {} rolls into boxes of {}. How many boxes do we fill?",
        ),
    ),
    (
        chain,
        (
            "Work out {} + {} - {}.",
            "There were {} people on the bus, {} got on and {} got off. How many are on it now?",
            "Start at {}, go up by {}, then down by {}. Where do you end?",
            "I had {} stamps, found {} more and gave away {}. How many do I have?",
        ),
    ),
    (
        precedence,
        (
            "Calculate {} + {} * {}.",
            "Mind the order of operations: {} + {} × {} = ?",
            "A basket costs {} euros, and I add {} melons at {} euros each. What is the total in euros?",
            "{} guests sit alone and {} tables seat {} guests each. How many guests are there?",
        ),
    ),
    (
        missing,
        (
            "Which number must be added to {} to make {}?",
            "{} + x = {}. What is x?",
            "We have {} tiles and need {}. How many are we short of?",
            "Fill the gap with one number: {} + __ = {}",
        ),
    ),
    (
        change,
        (
            "I buy {} pens at {} euros each and pay with {} euros. How many euros do I get back?",
            "{} tickets cost {} euros apiece. What is left of {} euros?",
            "Tea for {} people at {} euros a cup, paid with a {}-euro note: how much change, in euros?",
            "From a purse I pay {} times {} euros. There were {} euros in it. How many are in it now?",
        ),
    ),
    (
        percent,
        (
            "What is {} % of {}?",
            "{} percent of {} visitors came by train. How many visitors were that?",
            "Give {} % of {} as a plain number.",
            "A discount of {} % on a price of {} euros is how many euros?",
        ),
    ),
    (
        minutes,
        (
            "How many minutes are {} h and {} min?",
            "A hike lasts {} h {} min. Express that in minutes.",
            "Convert to minutes: {} h {} min. Number only.",
            "The concert took {} h and another {} min for the encores. How many minutes altogether?",
        ),
    ),
    (
        remainder,
        (
            "What is the remainder of {} divided by {}?",
            "{} eggs go into cartons of {}. How many eggs are left over?",
            "{} mod {} = ?",
            "{} children form teams of {}. How many stay without a team?",
        ),
    ),
    (
        perimeter,
        (
            "A rectangle is {} cm long and {} cm wide. What is its perimeter in cm?",
            "How many metres of fence does a rectangular garden of {} m by {} m need?",
            "The sides of a rectangle are {} and {}. Give its perimeter.",
            "A picture of {} by {} cm gets a ribbon all around. How long is the ribbon, in cm?",
        ),
    ),
)


def arithmetic_rows(rng: random.Random) -> list[Row]:
    """The rows of the stratum: no sum twice, and no answer that stands in its question."""
    rows: list[Row] = []
    for draw, wordings in FAMILIES:
        drawn: set[tuple[int, ...]] = set()
        while len(drawn) < ROWS_PER_FAMILY:
            values, answer = draw(rng)
            if values in drawn or answer in values:
                continue
            drawn.add(values)
            question = wordings[len(drawn) % len(wordings)].format(*values)
            slip = rng.choice([s for s in (-10, -1, 1, 10) if answer + s > 0 and answer + s not in values])
            rows.append(
                {
                    "id": f"arithmetic-{len(rows) + 1:02}",
                    "stratum": "arithmetic",
                    "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": str(answer)}],
                    "check": {"kind": "number", "value": answer},
                    "bad": str(answer + slip),
                }
            )
    return rows


def main() -> None:
    """Put the generated rows behind the hand-written ones."""
    lines = FORGETTING.read_text("utf-8").splitlines() if FORGETTING.exists() else []
    written = [line for line in lines if json.loads(line)["stratum"] != "arithmetic"]
    generated = [json.dumps(row, ensure_ascii=False) for row in arithmetic_rows(random.Random(0))]
    FORGETTING.write_text("\n".join(written + generated) + "\n", "utf-8")


if __name__ == "__main__":
    main()

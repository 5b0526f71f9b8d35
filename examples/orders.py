"""An environment of one's own: of which item does an order list the most?

    socratune run --model smollm2 --env python:examples/orders.py --output outputs/orders

The three functions are all that `--env python:FILE.py` asks for. `make demo-real` takes this one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

ITEMS = (
    "lamps", "chairs", "tables", "cups", "plates", "forks", "books", "pens", "boots", "shirts", "hats", "coats",
    "shoes", "bags", "rugs", "clocks",
)  # fmt: skip


def questions(seed: int) -> Iterator[dict[str, Any]]:
    """Orders without end, the same for the same seed, each with a worked solution, half of which is the first hint."""
    draw = random.Random(seed)
    while True:
        items, counts = draw.sample(ITEMS, 3), draw.sample(range(2, 10), 3)
        most = max(counts)
        answer = items[counts.index(most)]
        listed = [f"{count} {item}" for count, item in zip(counts, items, strict=True)]
        yield {
            "question": f"An order lists {listed[0]}, {listed[1]} and {listed[2]}. Of which item are there the most?",
            "answer": answer,
            "items": items,
            "solution": f"The largest of {counts[0]}, {counts[1]} and {counts[2]} is {most}.\n"
            f"The order lists {most} {answer}.",
        }


def verify(entry: dict[str, Any], said: str) -> bool | None:
    """Whether the final answer names the right item, in singular or plural, and neither of the other two."""
    named = [item for item in entry["items"] if re.search(rf"\b{item.removesuffix('s')}", said.casefold())]
    return named == [entry["answer"]]


def template(entry: dict[str, Any]) -> str | None:
    """All are one form, so the test asks new orders, not new kinds of question."""
    return None

"""Word problems as relations between owners, told in shuffled order: 2 to 6 operations, distractors."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from problem import Hint, Problem, Work, safe_hints
from words import COLOURS, ITEMS, NAMES, ROOMS, SHOPS, TEAMS, capital


@dataclass(frozen=True, slots=True)
class Relation:
    """Owner `of` has as many as `base`, changed by `amount`, or together with owner number `amount` (kind `sum`)."""

    of: int
    kind: str
    base: int
    amount: int


def _persons(rng: random.Random, count: int) -> list[str]:
    return rng.sample(NAMES, count)


def _boxes(rng: random.Random, count: int) -> list[str]:
    box = rng.choice(["box", "bag", "jar", "crate", "shelf", "drawer"])
    return [f"the {colour} {box}" for colour in rng.sample(COLOURS, count)]


def _shops(rng: random.Random, count: int) -> list[str]:
    return [f"the {name} shop" for name in rng.sample(SHOPS, count)]


def _rooms(rng: random.Random, count: int) -> list[str]:
    return [f"the {name}" for name in rng.sample(ROOMS, count)]


def _teams(rng: random.Random, count: int) -> list[str]:
    return [f"team {name}" for name in rng.sample(TEAMS, count)]


OWNERS: list[tuple[Callable[[random.Random, int], list[str]], tuple[str, ...]]] = [
    (_persons, ("has", "owns", "keeps", "carries")),
    (_boxes, ("holds", "contains", "has")),
    (_shops, ("sells", "has", "stocks")),
    (_rooms, ("has", "holds", "contains")),
    (_teams, ("has", "owns", "collects")),
]
TOLD = {
    "more": ("{a} {v} {n} more {i} than {b}.", "{a} {v} {n} {i} more than {b}.", "{b} {v} {n} fewer {i} than {a}."),
    "fewer": ("{a} {v} {n} fewer {i} than {b}.", "{a} {v} {n} {i} less than {b}.", "{b} {v} {n} more {i} than {a}."),
    "times": ("{a} {v} {times} as many {i} as {b}.",),
    "half": ("{a} {v} half as many {i} as {b}.",),
    "sum": ("{a} {v} as many {i} as {b} and {c} together.",),
}
MISREAD = {"more": "fewer", "fewer": "more", "times": "more", "half": "fewer", "sum": "more"}
QUESTIONS = (
    "How many {i} does {t} have?", "Find the number of {i} of {t}.", "How many {i} are there with {t}?",
    "{T}: how many {i}?",
)  # fmt: skip


def relations(rng: random.Random, level: int) -> Problem:
    """Owner 0 is told; the others hang on each other, and owner `level + 2` is asked for."""
    last = level + 2
    extra = rng.randint(0, 2 if level in (2, 3) else 1)  # at level 4 two would take all nine colours
    owners_of, verbs = OWNERS[0] if level < 2 and rng.random() < 0.5 else rng.choice(OWNERS)
    owners, verb, item = owners_of(rng, last + 1 + extra), rng.choice(verbs), rng.choice(ITEMS)
    start, links = _links(rng, last, extra)
    says = [_told(rng, link, owners, verb, item) for link in links]
    needed = _needed(links, last)
    useful = [link for link in links if link.of in needed]
    steps, answer = worked(useful, start, owners)
    facts = [f"{owners[0]} {verb} {start} {item}.", *says]
    told = rng.sample(facts, len(facts))
    target = owners[last]
    question = rng.choice(QUESTIONS).format(i=item, t=target, T=capital(target))
    chain = [owners[link.of] for link in useful]
    needs = " ".join(
        f"It needs {owners[link.base]}."
        if link.of == last
        else f"{capital(owners[link.of])} needs {owners[link.base]}."
        for link in list(reversed(useful))[:3]
    )
    hints = [
        Hint("plan", f"Plan first: find {', then '.join(chain)}."),
        Hint("unknown", f"Name the unknown: {target}. {needs}"),
        *(Hint("reread", f"Re-read this condition: {capital(facts[link.of])}") for link in useful),
    ]
    return Problem(
        family="word",
        kind="relations",
        level=level,
        question=" ".join([*map(capital, told), question]),
        facts=tuple(capital(facts[number]) for number in sorted(needed)),
        steps=tuple(steps),
        answer=answer,
        hints=safe_hints(hints, answer),
        guesses=tuple(value for step in steps if (value := step.rstrip(".").split()[-1]) != answer),
        slip=lambda rng: _slip(rng, useful, start, owners),
    )


def _links(rng: random.Random, last: int, extra: int) -> tuple[int, list[Relation]]:
    """The number of owner 0, and the relations of the others (`extra` of them idle) with values between 2 and 99."""
    while True:
        values = [rng.randint(2, 20)]
        links = []
        for of in range(1, last + 1 + extra):
            base = of - 1 if of <= last else rng.randrange(of)
            kinds = ["more", "fewer", "times"] + (["more", "fewer", "half", "sum"] if of > 1 else [])
            link = _link(rng, of, rng.choice(kinds), base)
            if (link.kind == "half" and values[base] % 2) or (link.kind == "sum" and link.amount == base):
                break
            value = value_of(link, values)
            if not 1 < value < 100:
                break
            links.append(link)
            values.append(value)
        else:
            return values[0], links


def _link(rng: random.Random, of: int, kind: str, base: int) -> Relation:
    amount = {
        "more": rng.randint(2, 12),
        "fewer": rng.randint(2, 9),
        "times": rng.choice([2, 2, 3, 4, 5]),
        "half": 2,
        "sum": rng.randrange(of),
    }[kind]
    return Relation(of, kind, base, amount)


def value_of(link: Relation, values: list[int] | dict[int, int]) -> int:
    """What the owner has, from what the others have."""
    base = values[link.base]
    if link.kind == "more":
        return base + link.amount
    if link.kind == "fewer":
        return base - link.amount
    if link.kind == "times":
        return base * link.amount
    return base // 2 if link.kind == "half" else base + values[link.amount]


def _told(rng: random.Random, link: Relation, owners: list[str], verb: str, item: str) -> str:
    third = owners[link.amount] if link.kind == "sum" else ""
    times = "twice" if link.amount == 2 else f"{link.amount} times"
    sentence = rng.choice(TOLD[link.kind])
    a, b = owners[link.of], owners[link.base]
    return sentence.format(a=a, b=b, c=third, v=verb, n=link.amount, i=item, times=times)


def _needed(links: list[Relation], last: int) -> set[int]:
    """The owners on the way to the last one."""
    needed = {last}
    for link in reversed(links):
        if link.of in needed:
            needed |= {link.base} | ({link.amount} if link.kind == "sum" else set())
    return needed


def worked(links: list[Relation], start: int, owners: list[str]) -> Work:
    """One line for each owner, in the order in which they can be found."""
    values = {0: start}
    steps = [f"{capital(owners[0])}: {start}."]
    for link in links:
        base = values[link.base]
        value = abs(value_of(link, values))  # only a misread relation goes below zero
        sums = {
            "more": f"{base} + {link.amount}",
            "fewer": f"{max(base, link.amount)} - {min(base, link.amount)}",
            "times": f"{base} * {link.amount}",
            "half": f"{base} / 2",
            "sum": f"{base} + {values.get(link.amount)}",
        }
        values[link.of] = value
        steps.append(f"{capital(owners[link.of])}: {sums[link.kind]} = {value}.")
    return steps, str(values[links[-1].of])


def _slip(rng: random.Random, links: list[Relation], start: int, owners: list[str]) -> Work:
    """The last relation forgotten (40 %), the first misread (35 %), any misread (25 %)."""
    draw = rng.random()
    if draw < 0.4:
        return worked(links[:-1], start, owners)
    at = 0 if draw < 0.75 else rng.randrange(len(links))
    link = links[at]
    amount = rng.randint(2, 9) if link.kind == "sum" else link.amount
    misread = replace(link, kind=MISREAD[link.kind], amount=amount)
    return worked([*links[:at], misread, *links[at + 1 :]], start, owners)

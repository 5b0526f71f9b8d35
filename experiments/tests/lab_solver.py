"""Solves the laboratory's problems from their text alone, without a line of their generator."""

from __future__ import annotations

import re
from collections.abc import Callable

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
FACTORS = {"min": 60, "cm": 100, "days": 7, "pieces": 12}


def solve(family: str, kind: str, question: str) -> str:
    solvers: dict[str, Callable[[str], str]] = {
        "story": _story, "relations": _relations, "sum": _sum, "clock": _clock, "day": _day, "hop": _hop,
        "table": _table,
    }  # fmt: skip
    return solvers[kind if kind in solvers else family](question)


def _number(text: str) -> int:
    return int(re.findall(r"\d+", text)[0])


def _story(question: str) -> str:
    first, *events = re.split(r"(?<=[.?]) ", question)
    who, x = first.split()[0], _number(first)
    for event in events[:-1]:
        numbers = [int(n) for n in re.findall(r"\d+", event)]
        words = event.split()
        if "half" in words:
            x //= 2
        elif "doubles" in words:
            x *= 2
        elif "bags" in words:
            x += numbers[0] * numbers[1]
        elif "uses" in words:
            x -= numbers[0] * numbers[1]
        elif words[0] == who and words[1] in ("buys", "finds", "gets"):
            x += numbers[0]
        elif (words[0] == who and words[1] in ("gives", "loses", "sells", "throws")) or words[1] == "takes":
            x -= numbers[0]
    return str(x)


_VERBS = r"(?:has|owns|keeps|carries|holds|contains|sells|stocks|collects)"


def _relations(question: str) -> str:
    *facts, asked = re.split(r"(?<=[.?]) ", question)
    values: dict[str, int] = {}
    for _ in facts:
        for fact in facts:
            _deduce(fact.lower().rstrip("."), values)
    named = [owner for owner in values if re.search(rf"\b{owner}\b", asked.lower())]
    return str(values[max(named, key=len)])


def _deduce(fact: str, values: dict[str, int]) -> None:
    """What follows of one fact from what is known."""
    who, said = re.split(rf" {_VERBS} ", fact, maxsplit=1)
    if found := re.fullmatch(r"as many \w+ as (.+) and (.+) together", said):
        if {found[1], found[2]} <= values.keys():
            values[who] = values[found[1]] + values[found[2]]
    elif found := re.fullmatch(r"(twice|half|\d+ times) as many \w+ as (.+)", said):
        if found[2] in values:
            base = values[found[2]]
            values[who] = base // 2 if found[1] == "half" else base * (2 if found[1] == "twice" else _number(found[1]))
    elif found := re.fullmatch(r"(\d+) (?:(more|fewer) \w+|\w+ (more|less)) than (.+)", said):
        sign = 1 if "more" in (found[2], found[3]) else -1
        if found[4] in values:
            values[who] = values[found[4]] + sign * int(found[1])
        elif who in values:
            values[found[4]] = values[who] - sign * int(found[1])
    else:
        values[who] = _number(said)


def _amount(text: str, small: str) -> int:
    large, rest = re.search(rf"(?:(\d+) \w+ )?(?:and )?(\d+) {small}", text).groups()  # type: ignore[union-attr]
    return int(large or 0) * FACTORS[small] + int(rest)


def _sum(question: str) -> str:
    small = next(unit for unit in FACTORS if re.search(rf"\b{unit}\b", question.rsplit(". ", 1)[1]))
    total = 0
    for sentence in question.split(". ")[:-1]:
        total += _amount(sentence, small) * (-1 if re.search("saves|takes away", sentence) else 1)
    return f"{total} {small}"


def _clock(question: str) -> str:
    hours, minutes = map(int, re.search(r"at (\d+):(\d+)", question).groups())  # type: ignore[union-attr]
    now = hours * 60 + minutes
    for hour, minute in re.findall(r"(?:takes|lasts) (?:(\d+) h )?(\d+) min", question):
        now += int(hour or 0) * 60 + int(minute)
    return f"{now // 60 % 24}:{now % 60:02d}"


def _day(question: str) -> str:
    today = question.split()[2].rstrip(".")
    gaps = re.findall(r"(?:(\d+) weeks? and )?(\d+) days", question)
    return DAYS[(DAYS.index(today) + sum(int(w or 0) * 7 + int(d) for w, d in gaps)) % 7]


_EDGES = {
    "boss": (r"(\w+) is the boss of (\w+)", r"(?P<b>\w+) reports to (?P<a>\w+)"),
    "sister": (r"(\w+) is the sister of (\w+)", r"The sister of (?P<b>\w+) is (?P<a>\w+)"),
    "best friend": (r"(\w+) is the best friend of (\w+)", r"The best friend of (?P<b>\w+) is (?P<a>\w+)"),
    "teacher": (r"(\w+) teaches (\w+)", r"(?P<b>\w+) learns from (?P<a>\w+)"),
}


def _edges(facts: list[str]) -> dict[tuple[str, str], str]:
    edges: dict[tuple[str, str], str] = {}
    for fact in facts:
        for name, (plain, turned) in _EDGES.items():
            if found := re.fullmatch(plain, fact):
                edges[name, found[2]] = found[1]
            elif found := re.fullmatch(turned, fact):
                edges[name, found["b"]] = found["a"]
        if found := re.fullmatch(r"(\w+) works at (\w+)", fact):
            edges["firm", found[1]], edges["worker", found[2]] = found[2], found[1]
        elif found := re.fullmatch(r"(\w+) employs (\w+)|At (\w+) works (\w+)", fact):
            firm, person = found[1] or found[3], found[2] or found[4]
            edges["firm", person], edges["worker", firm] = firm, person
        elif found := re.fullmatch(r"(\w+) (?:is|has its seat) in (\w+)", fact):
            edges["town", found[1]], edges["firm in", found[2]] = found[2], found[1]
        elif found := re.fullmatch(r"In (\w+) there is the firm (\w+)", fact):
            edges["town", found[2]], edges["firm in", found[1]] = found[1], found[2]
        elif found := re.fullmatch(r"(\w+) lies on the river (\w+)", fact):
            edges["river", found[1]] = found[2]
        elif found := re.fullmatch(r"The river (\w+) flows through (\w+)", fact):
            edges["river", found[2]] = found[1]
    return edges


def _hop(question: str) -> str:
    *facts, asked = re.split(r"(?<=[.]) ", question)
    edges = _edges([fact.rstrip(".") for fact in facts])
    if found := re.search(r"works? in ([A-Z]\w+)", asked):
        person = edges["worker", edges["firm in", found[1]]]
    else:
        person = re.findall(r"\b[A-Z]\w+", asked)[-1]
    for relation in reversed(re.findall("the (boss|sister|best friend|teacher) of", asked)):
        person = edges[relation, person]
    if asked.startswith(("Who", "Name")):
        return person
    firm = edges["firm", person]
    if re.match("At which firm|Where", asked):
        return firm
    town = edges["town", firm]
    return edges["river", town] if "river" in asked else town


def _table(question: str) -> str:
    head, *lines, asked = question.split("\n")
    columns = re.split(r"[^\w]+", head)
    rows = {cells[0]: dict(zip(columns[1:], map(int, cells[1:]), strict=True)) for cells in map(_cells, lines)}
    if found := re.search(r"How much more (\w+) does (\w+) have than (\w+)", asked):
        return str(rows[found[2]][found[1]] - rows[found[3]][found[1]])
    if found := re.search(r"What is (\d+) times the (\w+) of (\w+) plus (\d+) times the \w+ of (\w+)", asked):
        times = int(found[1]) * rows[found[3]][found[2]], int(found[4]) * rows[found[5]][found[2]]
        return str(sum(times))
    kept = rows
    if found := re.search(r"a (\w+) of at (least|most) (\d+)", asked):
        limit, sign = int(found[3]), 1 if found[2] == "least" else -1
        kept = {item: row for item, row in rows.items() if sign * row[found[1]] >= sign * limit}
    if asked.startswith("How many"):
        return str(len(kept))
    if found := re.search(r"(?:the (highest|lowest) |total )(\w+)(?: of the items|\?)", asked):
        column = found[2]
        values = {item: row[column] for item, row in kept.items()}
        if "total" in asked:
            return str(sum(values.values()))
        if "how far apart" in asked:
            return str(max(values.values()) - min(values.values()))
        return (max if found[1] == "highest" else min)(values, key=lambda item: values[item])
    raise AssertionError(asked)


def _cells(line: str) -> list[str]:
    return re.split(r"[^\w]+", line)

"""Questions over a small graph told in prose: people, firms, towns, rivers; 2 to 5 hops, forward or reversed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from problem import Hint, Problem, Work, safe_hints
from words import FIRMS, NAMES, RIVERS, TOWNS, capital

RELATIONS = {
    "boss": ("{a} is the boss of {b}.", "the boss of {b}", "{b} reports to {a}."),
    "sister": ("{a} is the sister of {b}.", "the sister of {b}", "The sister of {b} is {a}."),
    "friend": ("{a} is the best friend of {b}.", "the best friend of {b}", "The best friend of {b} is {a}."),
    "teacher": ("{a} teaches {b}.", "the teacher of {b}", "{b} learns from {a}."),
}
"""As told of `a`, as asked about `b`, as told of `b`."""
WORKS = ("{a} works at {f}.", "{f} employs {a}.", "At {f} works {a}.")
SEAT = ("{f} is in {t}.", "{f} has its seat in {t}.", "In {t} there is the firm {f}.")
FLOWS = ("{t} lies on the river {r}.", "The river {r} flows through {t}.")
HOPS = (2, 2, 3, 4, 5)
"""By level."""


@dataclass(slots=True)
class _Chain:
    """The way from what the question names to its answer, as far as it is built."""

    rng: random.Random
    people: list[str]
    firms: list[str]
    towns: list[str]
    rivers: list[str]
    relations: list[str]
    facts: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    asked: str = ""
    answer: str = ""

    def add(self, fact: str, step: str, hop: str, answer: str) -> None:
        """One hop."""
        self.facts.append(fact)
        self.steps.append(step)
        self.order.append(hop)
        self.answer = answer

    def along_people(self, *, named: bool) -> None:
        """A hop for each relation; `named`: the first one's order names whom it starts from."""
        for number, relation in enumerate(self.relations):
            here, there = self.people[number : number + 2]
            asked = RELATIONS[relation][1]
            hop = asked.format(b=here) if named and number == 0 else f"the {relation}"
            step = f"{capital(asked.format(b=here))} is {there}."
            self.add(_related(self.rng, relation, there, here), step, hop, there)
            self.asked = asked.format(b=self.asked)


def hop(rng: random.Random, level: int) -> Problem:
    """A person's firm, town and river, by way of other people; or from a town back to a person."""
    hops = HOPS[level]
    backward = level in (1, 3) or (level == 4 and rng.random() < 0.5) or (level == 2 and rng.random() < 0.3)
    among_people = hops - 2 if backward else {2: 1, 3: 1, 4: 2, 5: 3}[hops]
    chain = _Chain(
        rng,
        rng.sample(NAMES, 8),
        rng.sample(FIRMS, 4),
        rng.sample(TOWNS, 4),
        rng.sample(RIVERS, 4),
        [rng.choice(list(RELATIONS)) for _ in range(among_people)],
    )
    asked = _backward(chain) if backward else _forward(chain, hops)
    facts = list(dict.fromkeys([*chain.facts, *_idle_facts(chain)]))
    rng.shuffle(facts)
    kin = next(kin for kin in (chain.towns, chain.firms, chain.rivers, chain.people) if chain.answer in kin)
    guesses = tuple(name for name in kin if name != chain.answer)[:3]
    middle = chain.steps[-2].rstrip(".").split()[-1]
    hints = [
        Hint("hops", f"Order the hops: first {', then '.join(chain.order)}."),
        Hint("unknown", f"Name the unknown: {chain.order[-1]} comes last, and you get there from {middle}."),
        *(Hint("reread", f"Re-read this fact: {capital(fact)}") for fact in chain.facts),
    ]
    return Problem(
        family="hop",
        kind="backward" if backward else "forward",
        level=level,
        question=" ".join([*map(capital, facts), asked]),
        facts=tuple(map(capital, chain.facts)),
        steps=tuple(chain.steps),
        answer=chain.answer,
        hints=safe_hints(hints, chain.answer),
        guesses=guesses,
        slip=lambda rng: _slip(rng, chain.steps, chain.answer, guesses),
    )


def _forward(chain: _Chain, hops: int) -> str:
    """Person → … → firm → town → river; the question."""
    rng, firm, town, river = chain.rng, chain.firms[0], chain.towns[0], chain.rivers[0]
    chain.asked = chain.people[0]
    chain.along_people(named=True)
    person, who, rest = chain.people[len(chain.relations)], chain.asked, hops - len(chain.relations)
    chain.add(rng.choice(WORKS).format(a=person, f=firm), f"{person} works at {firm}.", "the firm", firm)
    if rest == 1:
        return rng.choice([f"At which firm does {who} work?", f"Where does {who} work?"])
    chain.add(rng.choice(SEAT).format(f=firm, t=town), f"{firm} is in {town}.", "the town", town)
    if rest == 2:
        return rng.choice([f"In which town does {who} work?", f"In what town is the firm of {who}?"])
    chain.add(rng.choice(FLOWS).format(t=town, r=river), f"{town} lies on the {river}.", "the river", river)
    return f"On which river does the town lie where {who} works?"


def _backward(chain: _Chain) -> str:
    """Town → firm → person → …; the question."""
    rng, firm, town, person = chain.rng, chain.firms[0], chain.towns[0], chain.people[0]
    chain.add(rng.choice(SEAT).format(f=firm, t=town), f"The firm in {town} is {firm}.", f"the firm in {town}", firm)
    chain.add(rng.choice(WORKS).format(a=person, f=firm), f"At {firm} works {person}.", "who works there", person)
    chain.asked = f"the one who works in {town}"
    chain.along_people(named=False)
    if chain.relations:
        return f"Who is {chain.asked}?"
    return rng.choice([f"Who works in {town}?", f"Name the one who works in {town}."])


def _related(rng: random.Random, relation: str, a: str, b: str) -> str:
    of_a, _, of_b = RELATIONS[relation]
    return rng.choice([of_a, of_b]).format(a=a, b=b)


def _idle_facts(chain: _Chain) -> list[str]:
    """The same kinds of facts about other people, firms and towns."""
    rng, others = chain.rng, chain.people[len(chain.relations) + 1 :]
    facts = [
        rng.choice(SEAT).format(f=firm, t=town)
        for firm, town in zip(chain.firms[1 : rng.randint(3, 4)], chain.towns[1:], strict=False)
    ]
    facts += [rng.choice(WORKS).format(a=others[i], f=chain.firms[1 + i]) for i in range(2)]
    if chain.relations:
        facts += [_related(rng, relation, others[-1], others[-2]) for relation in chain.relations[:2]]
        facts.append(_related(rng, rng.choice(list(RELATIONS)), others[0], others[1]))
    if any("river" in fact for fact in chain.facts):
        facts += [rng.choice(FLOWS).format(t=chain.towns[i], r=chain.rivers[i]) for i in (1, 2)]
    return facts


def _slip(rng: random.Random, steps: list[str], answer: str, guesses: tuple[str, ...]) -> Work:
    """One hop too few (45 %), the first one left out (35 %), or the last one wrong (20 %); then a guess."""
    draw, wrong = rng.random(), rng.choice(guesses)
    if draw < 0.45:
        return steps[:-1], wrong
    kept = steps[1:] if draw < 0.8 else list(steps)
    return [*kept[:-1], kept[-1].replace(answer, wrong)], wrong

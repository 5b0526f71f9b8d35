"""What was registered before the runs, and what the curve says of it. Every sentence follows from figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from evidence_data import (
    ALL,
    LOST,
    OURS,
    REACHED,
    REPLAYED,
    WITHOUT_TEACHER,
    Answers,
    Curve,
    in_order,
    listed,
    points,
    signed,
)

from socratune.evaluation.stats import t_quantile
from socratune.ways.reading import Difference

HOLDS, FAILS, OPEN, UNMEASURED = "holds", "does not hold", "not shown", "not measured"

FAMILIES_WANTED, LOST_WANTED, MARGIN = 3, 0.05, 0.03
"""Families in which `mix` has to be at least level; points it has to be ahead where sampling finds nothing; points
that may be forgotten."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What was expected, what came out, and whether that is what was expected."""

    text: str
    measured: str
    status: str


@dataclass(frozen=True, slots=True)
class Lead:
    """How far `mix` is ahead of the best of some arms, with the same budget, on some questions."""

    rival: str
    gap: Difference
    same: bool = False
    """The very same trainings: with so little money both bought the same rows."""

    def __str__(self) -> str:
        return f"{self.points} against `{self.rival}`"

    @property
    def points(self) -> str:
        return "the same rows: no hint was bought yet" if self.same else points(self.gap)

    @property
    def at_least(self) -> bool:
        return self.gap.low >= 0

    @property
    def clear(self) -> bool:
        return self.gap.low > 0

    @property
    def behind(self) -> bool:
        return self.gap.high < 0


class Reading:
    """Of one curve under one price list; every difference is computed once."""

    def __init__(self, curve: Curve, prices: str) -> None:
        self.curve, self.prices = curve, prices
        self._leads: dict[tuple[float, str, bool], Lead | None] = {}

    def lead(self, group: str = ALL, step: float | None = None, *, without_teacher: bool) -> Lead | None:
        """Of `mix` before the best arm without a teacher, or before the best of all arms; None: not measured."""
        step = self.curve.main_step if step is None else step
        key = step, group, without_teacher
        if key not in self._leads:
            self._leads[key] = self._lead(group, step, WITHOUT_TEACHER if without_teacher else None)
        return self._leads[key]

    def _lead(self, group: str, step: float, among: Sequence[str] | None) -> Lead | None:
        if group not in self.curve.groups or self.curve.get(self.prices, OURS, step) is None:
            return None
        rival = self.curve.best(self.prices, step, group, among)
        if rival is None:
            return None
        one, other = (self.curve.get(self.prices, arm, step) for arm in (OURS, rival))
        same = one is not None and other is not None and np.array_equal(one.sampled, other.sampled)
        return Lead(rival, self.curve.versus(self.prices, OURS, rival, step, group), same)

    def claims(self) -> list[Claim]:
        """Of the registered prediction and its targets."""
        return [self.families(), self.lost(), self.only(), self.dominates()]

    def families(self) -> Claim:
        """Is `mix` at least level with the best arm without a teacher on three families?"""
        text = (
            f"`mix` at least level with the best way without a teacher (lower bound ≥ 0) on {FAMILIES_WANTED} families"
        )
        leads = {family: self.lead(family, without_teacher=True) for family in self.curve.families}
        found = {family: lead for family, lead in leads.items() if lead}
        if not found:
            return Claim(text, "–", UNMEASURED)
        level = [family for family, lead in found.items() if lead.at_least]
        told = f"{len(level)} of {len(found)} families" + (f": {listed(level)}" if level else "")
        behind = [family for family, lead in found.items() if lead.behind]
        told += f"; clearly behind on {listed(behind)}" if behind else ""
        failed = len(found) - len(behind) < FAMILIES_WANTED
        return Claim(text, told, HOLDS if len(level) >= FAMILIES_WANTED else FAILS if failed else OPEN)

    def lost(self) -> Claim:
        """Is it five points ahead where none of eight samples is right?"""
        text = (
            f"`mix` {100 * LOST_WANTED:.0f} points ahead (lower bound) of the best way without a teacher where "
            f"pass@8 = 0, under the price list `{self.prices}`"
        )
        lead = self.lead(LOST, without_teacher=True)
        if lead is None:
            return Claim(text, "–", UNMEASURED)
        status = HOLDS if lead.gap.low >= LOST_WANTED else FAILS if lead.gap.high < LOST_WANTED else OPEN
        return Claim(text, str(lead), status)

    def only(self) -> Claim:
        """Do hints win where sampling finds nothing, and nowhere else?"""
        text = "hints win only where pass@8 = 0"
        lost, reached = (self.lead(group, without_teacher=True) for group in (LOST, REACHED))
        if lost is None or reached is None:
            return Claim(text, "–", UNMEASURED)
        told = f"pass@8 = 0: {lost}; pass@8 > 0: {reached}"
        status = FAILS if reached.clear or lost.behind else HOLDS if lost.clear else OPEN
        return Claim(text, told, status)

    def dominates(self) -> Claim:
        """Is no other way better than `mix` at any budget, and `mix` clearly ahead at its own?"""
        text = '"sample first, hint what sampling cannot reach" dominates all other ways'
        leads = {step: self.lead(ALL, step, without_teacher=False) for step in self.curve.steps}
        found = {step: lead for step, lead in leads.items() if lead}
        main = found.get(self.curve.main_step)
        if main is None:
            return Claim(text, "–", UNMEASURED)
        behind = [f"{step:g}" for step, lead in found.items() if lead.behind]
        told = str(main) + (f"; clearly behind the best other way with budget {listed(behind)}" if behind else "")
        return Claim(text, told, FAILS if behind else HOLDS if main.clear else OPEN)

    def prediction(self) -> str:
        """Both halves of what was registered, in one word."""
        statuses = {self.only().status, self.dominates().status}
        return next((one for one in (FAILS, UNMEASURED, OPEN) if one in statuses), HOLDS)

    def worth(self) -> Claim:
        """Is `mix` at least level with the best arm without a teacher, over all questions?"""
        text = f"`mix` at least level with the best way without a teacher under the price list `{self.prices}`"
        lead = self.lead(without_teacher=True)
        if lead is None:
            return Claim(text, "–", UNMEASURED)
        return Claim(text, str(lead), HOLDS if lead.at_least else FAILS if lead.behind else OPEN)

    def keeps(self, arm: str) -> Claim:
        """Does an arm forget less than three points of the pool?"""
        how = {OURS: "without replay", REPLAYED: "with replay of questions of the pool's kinds"}[arm]
        text = f"`mix` {how} forgets less than {100 * MARGIN:.0f} points of the facts, instructions and arithmetic"
        found = self.curve.get(self.prices, arm, self.curve.main_step)
        drop = dropped(self.curve, found) if found else None
        if drop is None:
            return Claim(text, "–", UNMEASURED)
        return Claim(text, f"drop {signed(drop[0])}, at most {signed(drop[1])}", kept(drop[1]))


@lru_cache(maxsize=16)
def read_by(curve: Curve, prices: str) -> Reading:
    """The reading of a curve under a price list, the same one each time."""
    return Reading(curve, prices)


def kept(most: float) -> str:
    """What the upper end of the drop's interval says of non-inferiority; NaN: one seed."""
    return OPEN if math.isnan(most) else HOLDS if most <= MARGIN else FAILS


def dropped(curve: Curve, found: Answers) -> tuple[float, float] | None:
    """The mean drop of the pool's accuracy and the upper end of its one-sided 95 % interval, by t over seeds.

    NaN for the upper end where there is one seed; None where the pool was not asked.
    """
    drops = curve.base.pool[0] - found.pool
    if np.isnan(drops).any():
        return None
    mean, seeds = float(drops.mean()), len(drops)
    if seeds < 2:
        return mean, math.nan
    return mean, mean + t_quantile(0.95, seeds - 1) * float(drops.std(ddof=1)) / math.sqrt(seeds)


# -------- what a hint may cost
@dataclass(frozen=True, slots=True)
class BreakEven:
    """How many tokens sampling takes to come to what `mix` comes to with its whole protocol.

    Attributes:
        needed: student tokens, prompts included; None where no amount that was tried comes to it.
        most: the most that sampling was given.
        own: the student tokens of `mix`.
        teacher: its teacher tokens.
        hinted: its rows that came through a hint.
        student_price: USD a million student tokens.
    """

    needed: float | None
    most: float
    own: float
    teacher: float
    hinted: float
    student_price: float

    def price(self, tokens: float) -> float:
        """USD a million teacher tokens, at which so much sampling costs as much as `mix`."""
        return (tokens - self.own) * self.student_price / self.teacher

    def row(self, tokens: float) -> float:
        """What a row won by a hint saves then, in student tokens."""
        return (tokens - self.own) / self.hinted


def break_even(curve: Curve) -> BreakEven | None:
    """From the points of `rft` under all price lists together; None where `mix` or `rft` was not run."""
    prices = next((name for name in curve.lists if curve.get(name, OURS, curve.main_step)), None)
    ours = curve.get(prices, OURS, curve.main_step) if prices else None
    runs = [found for arms in curve.lists.values() if "rft" in arms for found in arms["rft"].at.values()]
    runs = sorted(
        (one for one in runs if one.numbers.get("student_tokens")), key=lambda one: one.numbers["student_tokens"]
    )
    if prices is None or ours is None or not runs or not ours.numbers.get("teacher_tokens"):
        return None
    tokens = [one.numbers["student_tokens"] for one in runs]
    return BreakEven(
        needed=reaches(tokens, [one.mean() for one in runs], ours.mean()),
        most=tokens[-1],
        own=ours.numbers.get("student_tokens", 0.0),
        teacher=ours.numbers["teacher_tokens"],
        hinted=ours.numbers.get("hinted", 0.0),
        student_price=curve.prices.get(prices, {}).get("student", 0.0),
    )


def reaches(tokens: Sequence[float], shares: Sequence[float], wanted: float) -> float | None:
    """The first number of tokens that comes to the accuracy, straight between two points over log tokens."""
    for at, (count, share) in enumerate(zip(tokens, shares, strict=True)):
        if share < wanted:
            continue
        if at == 0 or shares[at - 1] >= share:
            return count
        part = (wanted - shares[at - 1]) / (share - shares[at - 1])
        return tokens[at - 1] * (count / tokens[at - 1]) ** part
    return None


# -------- the order of the arms
@dataclass(frozen=True, slots=True)
class Order:
    """Pairs of arms whose difference excludes 0 in the full curve, by what a reduced rerun says of them.

    Attributes:
        agreed: the same sign.
        open: the other sign, but so near to 0 that the reduced run cannot tell; a sentence each.
        turned: the other sign, and its interval excludes 0; a sentence each.
    """

    agreed: int
    open: list[str]
    turned: list[str]

    @property
    def compared(self) -> int:
        return self.agreed + len(self.open) + len(self.turned)

    def __str__(self) -> str:
        told = f"{self.agreed} of {self.compared} pairs have the same sign"
        told += f", {len(self.open)} cannot be told apart in so short a run" if self.open else ""
        return told + (f", {len(self.turned)} turned round" if self.turned else "")


def arms_order(full: Mapping[str, Any], small: Mapping[str, Any]) -> Order:
    """Read at the whole protocol of `mix` under the first price list that both have."""
    large, reduced = Curve(full, "the full curve"), Curve(small, "the reduced rerun")
    prices = next((name for name in large.lists if name in reduced.lists), None)
    if prices is None:
        return Order(0, [], [])
    here, there = large.main_step, reduced.main_step
    arms = [
        arm for arm in in_order(large.lists[prices]) if large.get(prices, arm, here) and reduced.get(prices, arm, there)
    ]
    agreed, unclear, turned = 0, [], []
    for one, other in combinations(arms, 2):
        before = large.versus(prices, one, other, here)
        if before.low <= 0 <= before.high:
            continue
        again = reduced.versus(prices, one, other, there)
        if again.value * before.value > 0:
            agreed += 1
        else:
            told = f"`{one}` − `{other}`: {points(before)} in full, {points(again)} reduced"
            (unclear if again.low <= 0 <= again.high else turned).append(told)
    return Order(agreed, unclear, turned)

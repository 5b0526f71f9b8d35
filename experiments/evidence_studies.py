"""The sections that do not come from the curve: side studies, rounds, the bases, refusals, the reduced rerun."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from addition import DIGITS, ENOUGH, rounds_to_enough
from evidence_claims import FAILS, HOLDS, OPEN, Claim, arms_order
from evidence_curve import Facts, Figures
from evidence_data import Answers, Curve, answers, apart, between, counted, level, listed, percent, points, table
from evidence_figures import SHADES, Line, Panel, figure

from socratune.evaluation.stats import t_quantile
from socratune.ways.reading import Difference

STUDIES: dict[str, tuple[str, float | None]] = {
    "attempts": ("Samples before a hint", 4),
    "attempts-erring": ("Samples before a hint of a teacher that errs", 4),
    "masking": ("Masking of wrong attempts", None),
    "leaked-hints": ("Hints that leak", None),
    "judge-errors": ("A judge that errs", 0),
    "rows": ("Rows to learn from", None),
    "rank": ("Rank of the adapter", 16),
    "replay": ("Replay", 10),
    "replay-sft": ("Replay beside references", 10),
    "reliance": ("Reliance on the hint", None),
    "reliance-answer": ("Reliance of the answer alone", None),
}
"""Study → its heading, and the number in the name of the default setting; None: the first setting in the file."""
STAR = ("89.5 %", "76.3 %")
"""After 16 rounds with rationalisation; the same model trained directly. arXiv:2203.14465."""
FEWER_ROUNDS = 2.0
"""So many times fewer rounds to 90 % are expected with rationalisation."""


# -------- side studies
def side_section(raw: Mapping[str, Any], facts: Facts) -> list[str]:
    """A table and a sentence for each study."""
    base = answers([raw["base"]], raw, "side, base") if raw.get("base") else None
    lines = ["On the first base alone, with the learning rates of its curve.", ""]
    for name, (heading, number) in STUDIES.items():
        lines += [f"### {heading}", ""]
        study = raw["studies"].get(name)
        if not study or not study["rows"]:
            lines += ["Not measured.", ""]
            continue
        settings: dict[str, list[Any]] = {}
        for row in study["rows"]:
            settings.setdefault(row["setting"], []).append(row | row.get("also", {}))
        found = {setting: answers(rows, raw, f"side, {name}, {setting}") for setting, rows in settings.items()}
        default = _default(list(found), number)
        also = list(dict.fromkeys(each for row in study["rows"] for each in row.get("also", {})))
        gaps = {one: apart(found[one].sampled, found[default].sampled) for one in found if one != default}
        greedy = {one: apart(found[one].greedy, found[default].greedy) for one in gaps}
        sentence = finding(default, gaps, {one: each.seeds for one, each in found.items()}) + _pools(found)
        facts[f"study_{name.replace('-', '_')}"] = sentence
        if name == "attempts" and {"1", default} <= {*found}:
            hinted = [f"{found[one].numbers['hinted']:.0f}" for one in ("1", default)]
            facts["attempts"] = (
                f"one sample − four: sampled {points(gaps['1'])}, greedily {points(greedy['1'])}, "
                f"rows that came through a hint {hinted[0]} and {hinted[1]}"
            )
        lines += [study["about"], "", *_study_table(found, base, default, gaps, greedy, also), sentence, ""]
    return lines


def _default(settings: Sequence[str], number: float | None) -> str:
    """The setting with that number in its name, else the first."""

    def named(setting: str) -> float | None:
        inside = re.search(r"\d[\d,.]*", setting)
        return float(inside[0].replace(",", "").rstrip(".")) if inside else None

    return next((one for one in settings if number is not None and named(one) == number), settings[0])


def _study_table(
    found: Mapping[str, Answers],
    base: Answers | None,
    default: str,
    gaps: Mapping[str, Difference],
    greedy: Mapping[str, Difference],
    also: Sequence[str],
) -> list[str]:
    against = [f"against {default} (95 %)", "greedily"]
    heads = ["setting", "seeds", "rows", "sampled", "greedy", "pool", *against, *also]
    rows = []
    if base:
        shares = [percent(base.mean("sampled")), percent(base.mean("greedy")), percent(float(base.pool.mean()))]
        rows.append(["the base as it is", "–", "–", *shares, "", "", *[""] * len(also)])
    for setting, one in found.items():
        shares = [percent(one.mean("sampled")), percent(one.mean("greedy")), percent(float(one.pool.mean()))]
        gap = ["–", "–"] if setting == default else [points(gaps[setting]), points(greedy[setting])]
        more = [f"{one.numbers[name]:.3g}" if name in one.numbers else "–" for name in also]
        rows.append([setting, str(one.seeds), f"{one.numbers.get('rows', 0):,.0f}", *shares, *gap, *more])
    return table(heads, rows)


def finding(default: str, gaps: Mapping[str, Difference], seeds: Mapping[str, int]) -> str:
    """What the differences to the default say."""
    if not gaps:
        return "There is nothing to compare with."
    few = min(seeds.values())
    shown = f"{counted(few, 'seed')} can show"
    better = [f"{one} ({points(gap)})" for one, gap in gaps.items() if gap.low > 0]
    worse = [f"{one} ({points(gap)})" for one, gap in gaps.items() if gap.high < 0]
    rest = [one for one, gap in gaps.items() if gap.low <= 0 <= gap.high]
    told = [f"better: {listed(better)}"] * bool(better) + [f"worse: {listed(worse)}"] * bool(worse)
    if rest:
        told.append(f"no difference that {shown}" + (f": {listed(rest)}" if told else ""))
    return f"Against {default}, {'; '.join(told)}."


def _pools(found: Mapping[str, Answers]) -> str:
    """A second sentence where settings differ in what is forgotten."""
    pools = {setting: float(one.pool.mean()) for setting, one in found.items() if not np.isnan(one.pool).any()}
    if not pools or max(pools.values()) - min(pools.values()) < 0.005:
        return ""
    low, high = min(pools, key=lambda one: pools[one]), max(pools, key=lambda one: pools[one])
    return f" Of the pool {percent(pools[low])} % are right with {low}, {percent(pools[high])} % with {high}."


# -------- rounds
def rounds_section(raw: Mapping[str, Any], facts: Facts, drawn: Figures) -> list[str]:
    """Rounds to 90 % by digits and arm, beside STaR's figures."""
    seeds = list(raw["seeds"].values())
    heads = ["digits", "without, by seed", "with, by seed", "fewer rounds, times (95 %)"]
    rows = [[str(n or "all"), *_rounds_row(seeds, str(n) if n else None)] for n in [*DIGITS, 0]]
    drawn["evidence-rounds.svg"] = rounds_figure(seeds)
    facts["rounds"] = f"rounds to 90 % of all sums with rationalisation, times fewer than without: {rows[-1][-1]}"
    return [
        f"Rounds until {100 * ENOUGH:.0f} % of fresh sums are right, {counted(len(seeds), 'seed')}; a dash "
        "means not within the rounds that were played. *With*: the student words an unsolved row anew from the answer "
        "(`enhance.unsolved: rewrite`, STaR's rationalisation); *without*: it is dropped. The last column is the mean "
        "over seeds (geometric); a course that never came there counts as one round more than were played.",
        "", "![accuracy by round and digits](figures/evidence-rounds.svg)", "", *table(heads, rows),
        f"STaR (arXiv:2203.14465) reports {STAR[0]} after 16 rounds with rationalisation, and {STAR[1]} for the same "
        "model trained on 10,000 sums without rationales. These figures do not compare: there a general language model "
        "of 6 billion parameters began from ten examples, here a net of 0.1 million was made for this very notation "
        "and has the skill before the first round begins. Only the shape is looked for: with rationalisation digits "
        "are learnt together, without it one after another.", "",
    ]  # fmt: skip


def _rounds_row(seeds: Sequence[Mapping[str, Any]], number: str | None) -> list[str]:
    found = {arm: [rounds_to_enough(one["arms"][arm], number) for one in seeds] for arm in ("without", "with")}
    shown = [", ".join(str(each or "–") for each in each_arm) for each_arm in found.values()]
    ratio = fewer_rounds(seeds, number)
    return [*shown, "–" if ratio is None else f"{ratio.value:.1f} ({ratio.low:.1f} … {ratio.high:.1f})"]


def fewer_rounds(seeds: Sequence[Mapping[str, Any]], number: str | None = None) -> Difference | None:
    """Rounds without over rounds with: geometric mean and t-interval over seeds; None where no course came there.

    With one seed the interval is the point: nothing is known of how seeds vary.
    """
    logs, reached = [], False
    never = 1 + max(len(course) for one in seeds for course in one["arms"].values())
    for one in seeds:
        rounds = []
        for arm in ("without", "with"):
            course = one["arms"][arm]
            first = rounds_to_enough(course, number)
            reached |= first is not None
            rounds.append(first or never)
        logs.append(np.log(rounds[0] / rounds[1]))
    if not reached:
        return None
    mean, count = float(np.mean(logs)), len(logs)
    half = t_quantile(0.975, count - 1) * float(np.std(logs, ddof=1)) / count**0.5 if count > 1 else 0.0
    return Difference(float(np.exp(mean)), float(np.exp(mean - half)), float(np.exp(mean + half)))


def rounds_claim(raw: Mapping[str, Any]) -> Claim:
    """Are rounds to 90 % cut by two?"""
    seeds = list(raw["seeds"].values())
    found = fewer_rounds(seeds)
    text = f"rationalisation cuts the rounds to 90 % by {FEWER_ROUNDS:g} or more, seed for seed"
    if found is None:
        return Claim(text, "no course came to 90 % of all sums", FAILS)
    each = [one.value for seed in seeds if (one := fewer_rounds([seed]))]
    enough = sum(value >= FEWER_ROUNDS for value in each)
    told = f"in {enough} of {len(seeds)}; {found.value:.1f} times ({found.low:.1f} … {found.high:.1f})"
    if len(seeds) < 2:
        return Claim(text, told, OPEN)
    held = enough == len(seeds) and found.low > 1
    return Claim(text, told, HOLDS if held else FAILS if found.high < FEWER_ROUNDS else OPEN)


def rounds_figure(seeds: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy by round, a line for each number of digits, a panel for each arm; means over seeds."""
    last = max((len(one["arms"][arm]) for one in seeds for arm in one["arms"]), default=1)
    panels = []
    for arm, title in (("without", "without rationalisation: right, %"), ("with", "with rationalisation: right, %")):
        lines = []
        for shade, n in zip(SHADES, DIGITS, strict=True):
            places = [(float(at + 1), *[_at(seeds, arm, at, str(n))] * 3) for at in range(last)]
            lines.append(Line(f"{n} digit{'s' * (n > 1)}", places, colour=shade))
        ticks = [float(at + 1) for at in range(last)]
        panels.append(Panel(title, lines, 290, 230, "round", ticks=ticks, range=(0.0, 1.0)))
    return figure(panels, 2, "Accuracy of sums by round and number of digits")


def _at(seeds: Sequence[Mapping[str, Any]], arm: str, at: int, number: str) -> float:
    """Mean accuracy after a round; a course that ended earlier stays where it ended."""
    courses = [one["arms"][arm] for one in seeds if one["arms"][arm]]
    return float(np.mean([course[min(at, len(course) - 1)]["accuracy"][number] for course in courses] or [0.0]))


# -------- the bases
def acceptance_section(raw: Mapping[str, Any]) -> list[str]:
    """The acceptance table and what was missed."""
    bounds, missed = raw.get("bounds", {}), raw["missed"]
    groups = list(dict.fromkeys(name for row in raw["rows"].values() for name in row))
    rows = []
    for name, row in raw["rows"].items():
        bound = bounds.get(name)
        verdict = "missed" if name in missed else "ok" if bound else ""
        limits = f"{bound[0]:.0f} … {bound[1]:.0f}" if bound else ""
        rows.append([name, *[f"{row[group]:.1f}" if group in row else "" for group in groups], limits, verdict])
    told = f"Out of bounds: {listed(missed)}." if missed else "All rows that have a bound are within it."
    intro = f"Percent of held-out problems, {raw['per_family']} of each family."
    return [intro, "", *table(["", *groups, "bound", ""], rows), told, ""]


def acceptance_claim(raw: Mapping[str, Any]) -> Claim:
    """Are all rows within bounds?"""
    missed = raw["missed"]
    told = f"missed: {listed(missed)}" if missed else "none missed"
    return Claim("the base is what it should be: all acceptance rows within bounds", told, FAILS if missed else HOLDS)


# -------- the hopeless data
def hopeless_section(raw: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many of the planted data sets were refused, and why."""
    refused = [one for one in raw if one["refused"]]
    reasons = Counter(str(one.get("reason") or "no reason") for one in raw)
    lines = [
        f"Answers dealt anew among the questions of a kind: there is nothing to learn. Refused for want of a gain: "
        f"**{len(refused)} of {len(raw)}**.", "",
    ]  # fmt: skip
    rows = [
        [str(one["seed"]), "–" if one.get("trained_rows") is None else f"{one['trained_rows']:,}",
         *["–" if one.get(name) is None else percent(one[name]) for name in ("base", "adapter")],
         _interval(one.get("ci95")), "yes" if one["refused"] else "**no**"]
        for one in raw
    ]  # fmt: skip
    lines += table(["seed", "trained rows", "base", "adapter", "difference, 95 %", "refused"], rows, words=0)
    lines += [f"- {count} of {len(raw)}: {reason}" for reason, count in reasons.most_common()]
    return [*lines, ""]


def _interval(ends: Sequence[float] | None) -> str:
    return "–" if not ends else f"{100 * ends[0]:+.1f} … {100 * ends[-1]:+.1f}"


def hopeless_claim(raw: Sequence[Mapping[str, Any]]) -> Claim:
    """Were all refused?"""
    refused = sum(bool(one["refused"]) for one in raw)
    status = HOLDS if raw and refused == len(raw) else FAILS
    told = f"{refused} of {len(raw)} refused"
    if status == HOLDS:
        told += f": at least {100 * 0.05 ** (1 / len(raw)):.0f} % of such sets are (95 %)"
    return Claim("a data set that nobody can learn is refused, whatever the seed", told, status)


# -------- the reduced rerun
def order_section(full: Mapping[str, Any], small: Mapping[str, Any]) -> tuple[list[str], Claim]:
    """Whether the reduced rerun puts the arms in the same order, and both readings beside each other."""
    found = arms_order(full, small)
    large, reduced = Curve(full, "curve"), Curve(small, "small")
    prices = next((name for name in large.lists if name in reduced.lists), None)
    rows = []
    for arm in large.lists.get(prices or "", {}):
        here, there = large.get(prices or "", arm, large.main_step), reduced.get(prices or "", arm, reduced.main_step)
        if here and there:
            rows.append([f"`{arm}`", between(level(here.sampled)), between(level(there.sampled))])
    lines = [
        f"The reduced run: {reduced.raw['device']}, {reduced.raw['seconds'] / 60:.0f} minutes, "
        f"{len(reduced.questions):,} questions, "
        f"{reduced.raw['rows']:,} rows, seeds {', '.join(map(str, reduced.raw['seeds']))}. Sampled accuracy at the "
        f"budget nearest to one whole protocol, price list `{prices}`:", "",
        *table(["way", "full", "reduced"], rows),
        f"Of the pairs of ways whose difference excludes 0 in the full curve: {found}.", "",
        *[f"- {each}" for each in [*found.turned, *found.open]], *[""] * bool(found.turned or found.open),
    ]  # fmt: skip
    status = FAILS if found.turned else HOLDS if found.compared and not found.open else OPEN
    return lines, Claim("the reduced rerun puts the ways in the same order", str(found), status)

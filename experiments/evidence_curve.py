"""The sections that come from the hint-value curve, with their figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import evidence_figures as figures
import numpy as np
from evidence_claims import HOLDS, MARGIN, BreakEven, Lead, Reading, break_even, dropped, kept, read_by
from evidence_data import (
    ALL,
    DOES,
    LOST,
    OURS,
    REACHED,
    REPLAYED,
    Answers,
    Curve,
    Difference,
    counted,
    level,
    listed,
    money,
    percent,
    points,
    signed,
    table,
)

Figures = dict[str, str]
"""File name → SVG."""
Facts = dict[str, str]
"""Name → a sentence computed from results, for the table of defaults."""
MONEY = "USD of generation and teacher (log scale)"
CUT = 0.005
"""A smaller share of answers that were cut off is not told."""
NOT_MEASURED = "Not measured: there is no result file for this section."


# -------- the curve
EXPLAINED = """Across: what generation and teacher cost, in USD (log scale). A budget of 1 is what the whole protocol
of `mix` costs on all rows; a way that cannot spend its budget stands where its spending ended. `prompt` and `sft` do
not spend by budget: flat lines. Every way with a student spends what its own course leaves on further samples, up to
four right ones or 64 a row. Sampled: answers to every question at temperature 0.8, the main figure; greedy beside it.
Cells are means over seeds with half the width of the 95 % interval; the bands in the figures are those intervals for
`mix` and the best way without a teacher.

The learning rate of every way was chosen by dev rows at budget 1 from four, over two seeds; rates whose accuracy is
within half a point are level, and the lower is taken. An answer may have 400 tokens; what is cut off counts as wrong
unless it has its answer already."""


def _measured(curve: Curve) -> str:
    """How much was asked, on what, for how long."""
    raw = curve.raw
    return (
        f"{len(curve.questions):,} held-out questions ({listed(curve.families)}), {raw['rows']:,} rows to learn from, "
        f"{counted(len(raw['seeds']), 'seed')}; {raw['device']}, {raw['seconds'] / 3600:.1f} hours."
    )


def curve_section(curve: Curve, facts: Facts | None, drawn: Figures) -> list[str]:
    """The figures and tables of every price list; without `facts`, which are those of the first base, it is brief."""
    told = _measured(curve) if facts is None else f"{_measured(curve)} {EXPLAINED}"
    lines = [line for paragraph in told.split("\n\n") for line in (paragraph, "")]
    for prices, arms in curve.lists.items():
        name = f"evidence-{curve.name}-{prices}.svg"
        drawn[name] = money_figure(curve, prices)
        lines += [f"### Price list `{prices}`", "", _prices(curve, prices), ""]
        lines += [f"![accuracy against money, price list {prices}](figures/{name})", ""]
        lines += _by_budget(curve, prices) + _spent(curve, prices)
        lines += _by_rate(curve, prices) if prices == next(iter(curve.lists)) else []
        lines += _gaps(curve, prices)
        missing = [arm for arm in DOES if arm not in arms]
        lines += [f"Not run under this price list: {listed([f'`{arm}`' for arm in missing])}.", ""] if missing else []
    return lines + _by_group(curve, facts, drawn)


def _prices(curve: Curve, prices: str) -> str:
    found = curve.prices.get(prices)
    if not found:
        return "The prices are not in the result file."
    return (
        f"USD a million tokens: student {found['student']:.2f}, teacher {found['teacher_in']:.2f} in and "
        f"{found['teacher_out']:.2f} out."
    )


def _gaps(curve: Curve, prices: str) -> list[str]:
    """What the time did not suffice for: budgets without a point, and those with fewer seeds."""
    of, never, fewer = len(curve.raw["seeds"]), [], []
    for step in curve.steps:
        seeds = {
            name: sum(point["step"] == step for point in arm["points"])
            for name, arm in curve.raw["curves"][prices].items()
            if any(point["step"] is not None for point in arm["points"])
        }
        some = [f"`{name}` {count}" for name, count in seeds.items() if 0 < count < of]
        none = [f"`{name}`" for name, count in seeds.items() if not count]
        never += [f"budget {step:g} ({'all ways' if len(none) == len(seeds) else listed(none)})"] if none else []
        fewer += [f"budget {step:g}: {listed(some)}"] if some else []
    lines = [f"Not run: {'; '.join(never)}."] if never else []
    lines += [f"Fewer than {of} seeds, {'; '.join(fewer)}."] if fewer else []
    return [" ".join(lines), ""] if lines else []


def _with_half(found: Difference) -> str:
    return f"{percent(found.value)} ±{100 * (found.high - found.low) / 2:.1f}"


def _by_budget(curve: Curve, prices: str) -> list[str]:
    """Sampled accuracy by way and budget."""
    heads = ["way", "learning rate", *[f"budget {step:g}" for step in curve.steps]]
    rows = [["the base as it is", "–", _with_half(level(curve.base.sampled)), *['"'] * (len(curve.steps) - 1)]]
    for name, arm in curve.lists[prices].items():
        cells = [_with_half(level(found.sampled)) if (found := arm.get(step)) else "–" for step in curve.steps]
        cells = [cells[0], *['"'] * (len(cells) - 1)] if arm.flat else cells
        rows.append([f"`{name}`", "–" if arm.rate is None else f"{arm.rate:g}", *cells])
    return table(heads, rows)


def _spent(curve: Curve, prices: str) -> list[str]:
    """What each way is, and what it took at the main budget."""
    step = curve.main_step
    heads = [
        "way, budget " + f"{step:g}",
        "what it is",
        "greedy",
        "USD",
        "student tokens",
        "teacher tokens",
        "rows",
        "of these hinted",
    ]
    rows = [["the base as it is", "", _with_half(level(curve.base.greedy)), *["–"] * 5]]
    for name, arm in curve.lists[prices].items():
        if found := arm.get(step):
            got = found.numbers
            counts = [_count(got, each) for each in ("student_tokens", "teacher_tokens", "rows", "hinted")]
            rows.append(
                [f"`{name}`", DOES.get(name, ""), _with_half(level(found.greedy)), money(got.get("usd", 0.0)), *counts]
            )
    cut = {name: found.numbers.get("cut", 0.0) for name, arm in curve.lists[prices].items() if (found := arm.get(step))}
    told = [f"`{name}` {percent(share)} %" for name, share in cut.items() if share > CUT]
    lines = [f"Of the sampled answers cut off: {listed(told)}.", ""] if told else []
    return [*table(heads, rows, words=2), *lines]


def _by_rate(curve: Curve, prices: str) -> list[str]:
    """Dev accuracy of each way by learning rate."""
    ways = {name: one["by_rate"] for name, one in curve.raw["curves"][prices].items() if one["learning_rate"]}
    rates = list(dict.fromkeys(rate for by_rate in ways.values() for rate in by_rate))
    if len(rates) < 2:
        return []
    rows = [
        [f"`{name}`", *(percent(ways[name][rate]) for rate in rates)] for name in curve.lists[prices] if name in ways
    ]
    lines = table(["dev accuracy by learning rate", *(f"{float(rate):g}" for rate in rates)], rows)
    for which, edge in (("lowest", min(rates, key=float)), ("highest", max(rates, key=float))):
        if some := [f"`{name}`" for name, arm in curve.lists[prices].items() if arm.rate == float(edge)]:
            lines += [f"At the {which} rate of the grid: {listed(some)}. With few rows it may suit them badly.", ""]
    return lines


def _count(numbers: Mapping[str, float], name: str) -> str:
    return f"{numbers[name]:,.0f}" if name in numbers else "–"


def _by_group(curve: Curve, facts: Facts | None, drawn: Figures) -> list[str]:
    """By family and by what sampling reaches, at the main budget of the first price list."""
    prices, step = next(iter(curve.lists)), curve.main_step
    groups = list(curve.groups)
    shown = {name: found for name, arm in curve.lists[prices].items() if (found := arm.get(step))}
    cells: dict[str, list[str]] = {name: [] for name in ["base", *shown]}
    for mask in curve.groups.values():  # group by group: resamples are kept for one number of questions
        for name, found in {"base": curve.base, **shown}.items():
            cells[name].append(_with_half(level(found.sampled, mask)))
    heads = ["way", *[f"{group} ({int(curve.groups[group].sum())})" for group in groups]]
    rows = [["the base as it is" if name == "base" else f"`{name}`", *found] for name, found in cells.items()]
    files = {"families": curve.families, "difficulty": [name for name in (LOST, REACHED) if name in curve.groups]}
    lines = [f"### By family and by difficulty, price list `{prices}`", ""]
    for what, names in files.items():
        file = f"evidence-{curve.name}-{what}.svg"
        drawn[file] = groups_figure(curve, prices, names)
        lines += [f"![sampled accuracy by {what}](figures/{file})", ""]
    if facts is not None:
        facts["replay"] = _replay_fact(curve, prices)
        _format_fact(curve, prices, facts)
    return [
        *lines,
        f"Sampled accuracy with budget {step:g}; the number of questions in brackets.",
        "",
        *table(heads, rows),
    ]


def _replay_fact(curve: Curve, prices: str) -> str:
    """What replay costs in accuracy, and what it keeps."""
    both = [curve.get(prices, arm, curve.main_step) for arm in (REPLAYED, OURS)]
    if None in both:
        return NOT_MEASURED
    gap = points(curve.versus(prices, REPLAYED, OURS, curve.main_step))
    pools = [percent(float(one.pool.mean())) for one in both if one]
    return f"`{REPLAYED}` − `{OURS}`: {gap}; of the pool {pools[0]} % are right with it, {pools[1]} % without"


def _format_fact(curve: Curve, prices: str, facts: Facts) -> None:
    """How the training formats, and more samples before the first hint stand beside `direct`."""
    step = curve.main_step
    budgets = [each for each in curve.steps if curve.get(prices, OURS, each) and curve.get(prices, "direct", each)]
    facts["attempts_by_budget"] = "; ".join(
        f"{each:g}: {points(curve.versus(prices, OURS, 'direct', each))}, "
        f"greedily {points(curve.versus(prices, OURS, 'direct', each, kind='greedy'))}"
        for each in budgets
    )
    told = [
        f"`{arm}` − `direct`: {points(curve.versus(prices, arm, 'direct', step))}"
        for arm in ("clean", "iterative")
        if curve.get(prices, arm, step) and curve.get(prices, "direct", step)
    ]
    if told:
        facts["formats"] = "; ".join(told)


# -------- figures
def _line(curve: Curve, prices: str, arm: str, kind: str, mask: np.ndarray | None, band: bool) -> figures.Line:
    """Of one arm: accuracy by mean money."""
    found = curve.lists[prices][arm]
    strong = arm == OURS
    if found.flat:
        return figures.Line(arm, level=found.at[None].mean(kind, mask), strong=strong)
    places: list[tuple[float, float, float, float]] = []
    for step in curve.steps:
        at = found.at.get(step)
        usd = at.numbers.get("usd", 0.0) if at else 0.0
        # What could not be spent puts budgets on one place: the first of them is drawn.
        if at and usd > 0 and (not places or usd > places[-1][0] * 1.02):
            share = level(getattr(at, kind), mask) if band else None
            mean = at.mean(kind, mask)
            places.append((usd, mean, share.low if share else mean, share.high if share else mean))
    return figures.Line(arm, places, strong=strong, band=band)


def _lines(curve: Curve, prices: str, kind: str, mask: np.ndarray | None, banded: Sequence[str]) -> list[figures.Line]:
    base = figures.Line("base", level=curve.base.mean(kind, mask))
    return [base, *(_line(curve, prices, arm, kind, mask, arm in banded) for arm in curve.lists[prices])]


def money_figure(curve: Curve, prices: str) -> str:
    """Sampled accuracy by money, and greedy beside it; bands for ours and the best way without a teacher."""
    rival = read_by(curve, prices).lead(without_teacher=True)
    banded = [OURS, *([rival.rival] if rival else [])]
    sampled, greedy = (_lines(curve, prices, kind, None, banded) for kind in ("sampled", "greedy"))
    both = figures.span([*sampled, *greedy])
    panels = [
        figures.Panel("sampled accuracy, %", sampled, 390, 330, MONEY, range=both),
        figures.Panel("greedy accuracy, %", greedy, 240, 330, MONEY, range=both),
    ]
    return figures.figure(panels, 2, f"Accuracy on held-out questions against money, price list {prices}")


def groups_figure(curve: Curve, prices: str, groups: Sequence[str]) -> str:
    """Sampled accuracy by money, a panel for each group of questions."""
    panels = [
        figures.Panel(
            f"{group}: sampled accuracy, %", _lines(curve, prices, "sampled", curve.groups[group], []), 290, 250,
            MONEY,
        )
        for group in groups
    ]  # fmt: skip
    return figures.figure(panels, 2, f"Sampled accuracy by group of questions, price list {prices}")


# -------- the prediction
def prediction_section(curve: Curve, reading: Reading, facts: Facts | None) -> list[str]:
    """How far `mix` is ahead, by group and by budget, and what that says of the prediction."""
    lines = _lead_tables(curve, reading)
    for claim in [*reading.claims(), reading.worth()]:
        lines.append(f"- {claim.text[0].upper()}{claim.text[1:]}: **{claim.status}** ({claim.measured}).")
    lines += ["", f"The prediction as a whole: **{reading.prediction()}**.", ""]
    if facts is None:
        return lines
    for name, group in {"mix_cheap": ALL, "mix_lost": LOST}.items():
        if lead := reading.lead(group, without_teacher=True):
            facts[name] = str(lead)
    return lines


def _lead_tables(curve: Curve, reading: Reading) -> list[str]:
    def cells(get: Callable[[bool], Lead | None]) -> list[str]:
        found = [get(True), get(False)]
        return [cell for lead in found for cell in ((f"`{lead.rival}`", lead.points) if lead else ("–", "–"))]

    if curve.get(reading.prices, OURS, curve.main_step) is None:
        return [f"`{OURS}` was not run under this price list.", ""]
    two = ["best without a teacher", "`mix` − it", "best of all other ways", "`mix` − it"]
    step = curve.main_step
    groups = [
        [
            f"{group} ({int(mask.sum())})",
            *cells(lambda without, group=group: reading.lead(group, without_teacher=without)),
        ]
        for group, mask in curve.groups.items()
    ]
    budgets = [
        [f"{each:g}", *cells(lambda without, each=each: reading.lead(ALL, each, without_teacher=without))]
        for each in curve.steps
    ]
    lines = [f"Points of sampled accuracy with the same budget, {step:g}, and 95 % intervals; the rival is the one "
             "with the best mean on those very questions:", "", *table(["questions", *two], groups)]  # fmt: skip
    lines += _unspent(curve, reading.prices)
    lines += ["The same over all questions, by budget:", "", *table(["budget", *two], budgets)]
    return [*lines, *_greedy_too(curve, reading.prices)]


def _unspent(curve: Curve, prices: str) -> list[str]:
    """Ways that could not spend what `mix` did."""
    ours = curve.get(prices, OURS, curve.main_step)
    assert ours is not None, "the caller has looked"
    told = []
    for name, arm in curve.lists[prices].items():
        found = arm.get(curve.main_step)
        if found and not arm.flat and found.numbers["usd"] < 0.9 * ours.numbers["usd"]:
            told.append(f"`{name}` spent {found.numbers['usd']:.3f} of {ours.numbers['usd']:.3f} USD")
    return [f"Not equal money: {listed(told)}, as there was nothing left to buy.", ""] if told else []


def _greedy_too(curve: Curve, prices: str) -> list[str]:
    """`mix` against the telling ways, sampled and greedy."""
    step = curve.main_step
    arms = [name for name in ("rft", "direct", "teacher-in-student-format") if curve.get(prices, name, step)]
    if not arms:
        return []
    heads = [f"`mix` − `{name}`, {kind}" for name in arms for kind in ("sampled", "greedy")]
    rows = [
        [group, *(points(curve.versus(prices, OURS, name, step, group, kind))
                  for name in arms for kind in ("sampled", "greedy"))]
        for group in (ALL, LOST, REACHED) if group in curve.groups
    ]  # fmt: skip
    told = "The figure depends on how the student answers: sampled at temperature 0.8, or greedily."
    return [f"{told} Budget {step:g}:", "", *table(["questions", *heads], rows)]


# -------- forgetting
def forgetting_section(curve: Curve, facts: Facts | None) -> list[str]:
    """Pool accuracy by arm."""
    prices, step = next(iter(curve.lists)), curve.main_step
    rows, lost = [["the base as it is", percent(float(curve.base.pool[0])), "", "", ""]], []
    for name, arm in curve.lists[prices].items():
        found = arm.get(step)
        drop = dropped(curve, found) if found else None
        if found is None or drop is None:
            continue
        worst = min(float(one.pool.min()) for one in arm.at.values())
        known = not math.isnan(drop[1])
        status = kept(drop[1])
        verdict = "one seed" if not known else "non-inferior" if status == HOLDS else "not shown to be non-inferior"
        lost += [] if status == HOLDS else [f"`{name}`"]
        most = signed(drop[1]) if known else "–"
        rows.append(
            [f"`{name}`", percent(float(found.pool.mean())), percent(worst), f"{signed(drop[0])}, {most}", verdict]
        )
        if name == REPLAYED and facts is not None:
            facts["forgetting"] = f"`{name}` loses {percent(drop[0])} points of the pool: {verdict}"
    heads = [
        "way",
        f"pool, budget {step:g}",
        "worst seed at any budget",
        "drop, at most (95 %)",
        f"at {100 * MARGIN:.0f} points",
    ]
    found = (
        f"Not shown to be non-inferior: {listed(lost)}." if lost
        else "Every way that was measured is non-inferior." if len(rows) > 1 else "The pool was not asked."
    )  # fmt: skip
    intro = (
        f"Accuracy on facts, instructions and arithmetic that nobody trained, asked greedily. Only `{REPLAYED}` was "
        "trained with replay: a tenth of the tokens, of questions of the pool's kinds that are not in it, all of which "
        "it paid for at first. What other shares change is among the side studies; the product replays answers to "
        "general prompts instead, and how far those protect other knowledge was not measured. Non-inferior: the upper "
        "end of the "
        f"one-sided 95 % interval of the drop is at most {100 * MARGIN:.0f} points. The interval is over seeds, which "
        "were all asked the same questions."
    )
    return [*([intro, ""] if facts is not None else []), *table(heads, rows), found, ""]


# -------- prices
def price_section(curve: Curve) -> list[str]:
    """The other price lists, and what a hint may cost."""
    lines: list[str] = []
    for prices in list(curve.lists)[1:]:
        lines += [f"Under the price list `{prices}`. {_prices(curve, prices)}", ""]
        reading = read_by(curve, prices)
        lines += _lead_tables(curve, reading)
        claim = reading.worth()
        lines += [f"{claim.text[0].upper()}{claim.text[1:]}: **{claim.status}** ({claim.measured}).", ""]
    if len(curve.lists) < 2:
        lines += ["There is one price list only: what another would change was not measured.", ""]
    found = break_even(curve)
    if found is None:
        return [*lines, "What a hint may cost was not measured: it takes points of `mix` and `rft`.", ""]
    return [*lines, " ".join([*_break_even(found), *_paid(curve)]), ""]


def _break_even(found: BreakEven) -> list[str]:
    """From which teacher price on sampling wins, in sentences; the first is the finding."""
    reach = found.most if found.needed is None else found.needed
    times = (
        f"{reach / found.own:.1f} times the student tokens of `{OURS}`" if found.own else f"{reach:,.0f} student tokens"
    )
    if found.needed is not None and found.needed <= found.own:
        return [f"`rft` comes to the accuracy of `{OURS}` with {times}: sampling wins at any teacher price."]
    price = f"{found.price(reach):,.2f} USD a million teacher tokens (in and out together)"
    if found.needed is None:
        told = [
            f"The mean sampled accuracy of `rft` stays below that of `{OURS}` up to {times}, where no sample was left: "
            f"below {price} hints are the cheaper way; whether sampling without an end would come there is not known."
        ]
    else:
        told = [
            f"`rft` comes to the accuracy of `{OURS}` with {times}: above {price} sampling wins, below it hints do."
        ]
    if found.hinted:
        bound = "at least" if found.needed is None else "as much as"
        told.append(
            f"A row that came through hints may cost {bound} {found.row(reach):,.0f} student tokens, prompts and hints "
            "that failed included."
        )
    return told


def _paid(curve: Curve) -> list[str]:
    """What was paid under each price list: for a teacher token, and for a row that came through a hint."""
    told = []
    for prices in curve.lists:
        ours = curve.get(prices, OURS, curve.main_step)
        student = curve.prices.get(prices, {}).get("student")
        if ours is None or not student or not ours.numbers.get("teacher_tokens"):
            continue
        teacher = ours.numbers.get("usd", 0.0) - ours.numbers.get("student_tokens", 0.0) * student / 1e6
        text = (
            f"Under `{prices}` a teacher token cost {1e6 * teacher / ours.numbers['teacher_tokens']:,.2f} USD a million"
        )
        if ours.numbers.get("hinted"):
            tokens = 1e6 * teacher / ours.numbers["hinted"] / student
            text += f", a row won by hints as much as {tokens:,.0f} student tokens"
        told.append(text + ".")
    return told


def first_answers(curve: Curve) -> dict[str, Answers]:
    """Arm → answers at the main budget of the first price list."""
    prices = next(iter(curve.lists))
    return {name: found for name, arm in curve.lists[prices].items() if (found := arm.get(curve.main_step))}

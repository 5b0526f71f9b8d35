"""Writes `ablation.json`, `ablation.md` and `ablation.svg` after every arm: the table, the sentence, the plot."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from socratune.runs import write_json, write_text
from socratune.ways.arms import ARMS, REFERENCE
from socratune.ways.folders import READINGS, AblationJob, folder
from socratune.ways.reading import DRAWS, Advice, advice, arm_difference, mean_accuracy, other_readings
from socratune.ways.work import LOCAL_USD_PER_TOKEN, MOST_EPOCHS

ARM_HEADS = ("way", "what is trained on", "rows", "trained tokens", "calls, tokens", "learning rate",
         "equal rows", "equal trained tokens", "equal money", "gain at equal rows (95 %)")  # fmt: skip

NOTES = """Accuracies on the held-out questions, means over seeds. *Equal rows*: what each way makes of the same
questions, with the configured epochs. *Equal trained tokens*: epochs (and rows, where one epoch is too much) so that
as many tokens carry loss as with `{reference}`, at most {most} times the epochs. *Equal money*: a way that costs more
than `{reference}` gets the share of its rows that the same money buys; `rft` and `mix` draw as many samples as
`{reference}` pays calls for; a way that costs less, or nothing, has nothing to spend the rest on. A dash: not done, or
not possible (a prompt trains nothing). Unpaid tokens count {per_million:g} USD a million. The
learning rate of every way was chosen on the dev rows with the first seed, out of 0.3, 1 and 3 times the configured
one. Intervals: seeds first, then questions by source, {draws:,} resamples. Undecided answers count as wrong. The way
was chosen by these very questions, so its own figure is a little too good."""


@dataclass(slots=True)
class Findings:
    """What an ablation has found so far.

    Attributes:
        base: whether the untrained model answers each held-out question right.
        done: the result of `work.do` for each finished job; `right` and `prompt` for the arms that train nothing.
        not_done: maps a job to the reason.
        broke: True after an arm was cut because the budget was spent; later arms pay nothing.
    """

    arms: list[str]
    clusters: list[str]
    base: list[bool]
    base_paid_usd: float = 0.0
    broke: bool = False
    done: dict[AblationJob, dict[str, Any]] = field(default_factory=dict)
    not_done: dict[AblationJob, str] = field(default_factory=dict)

    def verdicts(self, arm: str, reading: str = "rows") -> list[list[bool]]:
        """Returns the verdicts of the finished seeds, (S, Q)."""
        return [result["right"] for job, result in self.done.items() if (job.arm, job.reading) == (arm, reading)]

    def paid_usd(self) -> float:
        """Returns the cost of the base's exam and all jobs. A training for two readings is paid for once."""
        paid = {done.get("key", job.arm): done["paid_usd"] for job, done in self.done.items()}
        return self.base_paid_usd + sum(paid.values())


def write_ablation(output: Path, found: Findings) -> dict[str, Any]:
    """Writes the three files and returns the content of `ablation.json`."""
    rows = [_row(arm, found) for arm in found.arms]
    arms = {arm: verdicts for arm in found.arms if (verdicts := found.verdicts(arm))}
    advised = advice([found.base], arms, found.clusters)
    cautions = list(advised.cautions)
    for reading in READINGS[1:]:
        read = {arm: found.verdicts(arm, "rows" if arm == REFERENCE else reading) for arm in found.arms}
        cautions += other_readings(advised.arm, reading, read, found.clusters)
    result = {
        "advice": {
            "arm": advised.arm,
            "sentence": advised.sentence,
            "cautions": cautions,
            "next": _next(output, advised),
        },
        "base": mean_accuracy([found.base]),
        "held_out": {"rows": len(found.base), "clusters": len(set(found.clusters))},
        "arms": rows,
        "not_done": _not_done(found),
    }
    write_json(output / "ablation.json", result)
    write_text(output / "ablation.svg", plot(result["base"], rows))
    write_text(output / "ablation.md", page(result))
    return result


def _next(output: Path, advised: Advice) -> str | None:
    """Returns the command that puts the advised adapter before the gate, since no way was asked what it forgot."""
    if advised.arm is None or ARMS[advised.arm].kind == "prompt":
        return None
    return f"socratune validate {shlex.quote(str(folder(output, AblationJob(advised.arm)).root))}"


def _not_done(found: Findings) -> dict[str, list[str]]:
    """Returns the jobs by reason, without those that only follow from an arm's first."""
    why: dict[str, list[str]] = {}
    for job, reason in found.not_done.items():
        if job == AblationJob(job.arm) or AblationJob(job.arm) not in found.not_done:
            why.setdefault(reason, []).append(str(job))
    return why


def arms_not_done(result: dict[str, Any]) -> list[str]:
    """Returns a line on the dropped jobs for each reason."""
    return [f"Not done, {why}: {'; '.join(jobs)}." for why, jobs in result["not_done"].items()]


def _row(arm: str, found: Findings) -> dict[str, Any]:
    """Returns an arm's row of the table, with None for missing numbers."""
    first = found.done.get(AblationJob(arm), {})
    row: dict[str, Any] = {"arm": arm, "does": ARMS[arm].does, "control": ARMS[arm].control}
    row |= {name: first.get(name) for name in ("rows", "trained_tokens", "calls_tokens", "cost_usd", "learning_rate")}
    row["readings"] = {reading: _read(found, arm, reading) for reading in READINGS}
    return row | {name: first[name] for name in ("prompt", "dev") if name in first}


def _read(found: Findings, arm: str, reading: str) -> dict[str, Any]:
    """Returns the mean accuracy, that of each seed, and the gain over the base as [value, low, high]."""
    verdicts = found.verdicts(arm, "rows" if arm == REFERENCE else reading)
    if not verdicts:
        return {"accuracy": None, "seeds": [], "gain": None}
    gain = arm_difference(verdicts, [found.base], found.clusters)
    seeds = [mean_accuracy([right]) for right in verdicts]
    return {"accuracy": mean_accuracy(verdicts), "seeds": seeds, "gain": [gain.value, gain.low, gain.high]}


def arm_cells(row: dict[str, Any]) -> list[str]:
    """Returns an arm as a line of the table, in the order of `ARM_HEADS`."""
    gain = row["readings"]["rows"]["gain"]
    interval = "–" if gain is None else f"{gain[0] * 100:+.1f} ({gain[1] * 100:+.1f} … {gain[2] * 100:+.1f})"
    readings = ["–" if (value := row["readings"][name]["accuracy"]) is None else f"{value:.1%}" for name in READINGS]
    counts = ["–" if row[name] is None else f"{row[name]:,}" for name in ("rows", "trained_tokens", "calls_tokens")]
    rate = "–" if row["learning_rate"] is None else f"{row['learning_rate']:g}"
    does = row["does"] + (f": {row['prompt']}" if "prompt" in row else "") + (" (control)" if row["control"] else "")
    return [row["arm"], does, *counts, rate, *readings, interval]


def page(result: dict[str, Any]) -> str:
    """Returns the text of `ablation.md`."""
    lines = ["# Which way is worth it", "", result["advice"]["sentence"], ""]
    lines += [f"- {text}" for text in result["advice"]["cautions"]] + [""] * bool(result["advice"]["cautions"])
    if command := result["advice"]["next"]:
        lines += ["What this adapter has forgotten was not asked. The gate asks it:", "", f"    {command}", ""]
    lines += [_line(ARM_HEADS), _line(["---"] * 2 + ["--:"] * (len(ARM_HEADS) - 2))]
    base = ["the model as it is", "", "–", "–", "–", "–", *[f"{result['base']:.1%}"] * 3, ""]
    lines += [_line(base), *(_line(arm_cells(row)) for row in result["arms"])]
    lines += ["", "![accuracy by way](ablation.svg)", ""]
    figures = {"reference": REFERENCE, "most": MOST_EPOCHS, "per_million": LOCAL_USD_PER_TOKEN * 1e6, "draws": DRAWS}
    lines += [NOTES.format(**figures), ""]
    lines += [f"- {text}" for text in arms_not_done(result)] + [""] * bool(result["not_done"])
    return "\n".join(lines)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


LEFT, WIDTH, STEP = 210, 480, 26


def plot(base: float, rows: Sequence[dict[str, Any]]) -> str:
    """Returns an SVG of each arm's accuracy at equal rows with its 95 % interval, and the untrained model as a line."""
    shown = [row for row in rows if row["readings"]["rows"]["gain"]]
    bottom = STEP * len(shown) + 30

    def x(share: float) -> float:
        return LEFT + WIDTH * min(1.0, max(0.0, share))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 70} {bottom + 25}" '
        'font-family="sans-serif" font-size="13" fill="#888">'
    ]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<line x1="{x(tick)}" x2="{x(tick)}" y1="10" y2="{bottom}" stroke="#8884"/>')
        parts.append(f'<text x="{x(tick)}" y="{bottom + 18}" text-anchor="middle">{tick:.0%}</text>')
    parts.append(f'<line x1="{x(base)}" x2="{x(base)}" y1="10" y2="{bottom}" stroke="#c60" stroke-dasharray="4 3"/>')
    for at, row in enumerate(shown):
        y, value = 28 + at * STEP, row["readings"]["rows"]["accuracy"]
        _, low, high = row["readings"]["rows"]["gain"]
        color = "#999" if row["control"] else "#27c"
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(row["arm"])}</text>')
        parts.append(
            f'<line x1="{x(base + low)}" x2="{x(base + high)}" y1="{y}" y2="{y}" stroke="{color}" stroke-width="3"/>'
        )
        parts.append(f'<circle cx="{x(value)}" cy="{y}" r="5" fill="{color}"/>')
        parts.append(f'<text x="{x(1) + 12}" y="{y + 4}">{value:.1%}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"

"""The main page of evidence: real models first, then what the laboratory adds, what failed, and what was not done.

Sentences are written by hand; each figure comes from a result file, where there is one. A figure that was measured
without keeping its answers is marked as such.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from evidence_claims import Claim, read_by
from evidence_curve import first_answers
from evidence_data import OURS, Curve, apart, between, level, money, percent, points, signed, table

NAMES = {"qwen2.5-coder-0.5b-instruct": "Qwen2.5-Coder-0.5B-Instruct", "smollm2-135m-instruct": "SmolLM2-135M-Instruct"}

HEAD = """# Evidence: do hints pay off?

Socratune lets the model to be trained try each question, hints where it fails, and trains on what it then answers in
its own words. Hints cost money. This page says what is known about their worth, on real models first, and what is not.
Intervals are 95 %.

- **Fine-tuning on its own right answers makes a real model better where it is right sometimes.** Of eight runs with two
  models, the gate passed three, and refused two that had only learnt the most frequent answer.
- **That a hint's content helps is not shown on a real model.** Two comparisons at equal money have been made, with one
  seed each. On a 135 M model hints lead sampling by DIRECT_RFT points, but hints of *other rows* do as well: right
  hints minus wrong ones is DIRECT_WRONG. On a 0.5 B model hints and sampling came out level (34.5 and 34.5 %).
- **If you have worked solutions, train on them.** On the task of `make demo-real`, they bring a 135 M model to SFT,
  hints from half of each solution to DIRECT. Bare answers without steps do the opposite: they made a 0.5 B model worse.
- **In the laboratory hints win at equal money** (LAB_LEAD points over the best way without a teacher) on two small
  bases that were built so that a right hint helps. A teacher's solutions in the student's own format do as well.
- **A gain on new numbers is no gain on new problems.** The 0.5 B model gained 11.7 points on templates it had seen with
  other numbers, and nothing proven on templates it had not.

So the product does not assume that hints pay off. `socratune run` samples first, and hints only where sampling fails;
[`socratune ablate`](guides/ablation.md) compares the ways on *your* questions, at equal money, before you pay for more;
the gate refuses an adapter that is not proven better than its base, or than one answer to everything.
"""

FIRST = """The first real comparison (2026-11-30, one seed, 200 questions of seen templates, answers not kept):
Qwen2.5-Coder-0.5B on `gsm_symbolic`, base 18.0 %. `direct` 34.5, `rft` 34.5, `mix` 31.0, a prompt 19.0, bare answers
**6.0**. In one trainer with 500 fresh questions, rows won by hints added 4.4 points (0.8 … 8.2) to own right samples,
which is not at equal money. A KL divergence towards the hinted model did not beat its control with another row's hint
(27.0 against 29.2)."""

NEGATIVE = """- **Hints against sampling, 0.5 B, equal money**: 34.5 and 34.5 %. No difference.
- **Right hints against hints of other rows, 135 M**: no difference (the table above). `distil`, which is to carry the
  hint into the weights, came out last of the ways that train.
- **New templates**: +3.5 (−1.0 … +8.7) points at the default learning rate, and none proven at any of five rates.
- **A model that cannot do it at all does not learn it**: SmolLM2 on `gsm_symbolic`, 0.5 → 0.2 %, with 1,740 hints.
- **Two gains were the most frequent answer**: +15.8 and +42.8 points on `letter_counting`, where 78 % of the answers
  are *1*. On the other questions these adapters are right in 1 %.
- **The gate refuses some good adapters**: of adapters that change 6 % of the other answers without harm, one in five
  fails the limit of 3 points of forgetting; of those that change 10 %, two in five.
- **Preference training alone unlearns**: DPO without a likelihood term took the embedded model from 27 to 4 %.
- **The published clip of distillation** left 12 to 14 % of the embedded task's dev rows right, its base 27 %.
- **Hints that state the answer** cost 32.5 points in the laboratory, and hints with all steps but the last 9.8. The
  leak check drops the first kind, and hints of the second kind are worth little."""

NOT_DONE = """- No full protocol on a real model: several seeds for each way, budgets of 1, 4 and 16 times, the
  controls of distillation (no hint, another row's hint, the solution), and a mixed model over tasks. What stands
  above are a table of single runs and a screen.
- `gemma-3-270m` was run on a CPU alone ([real models](real-models.md#a-base-model-gemma-3-270m-on-two-cores)). All
  weights are dequantised from 4 bits.
- Questions from documents, with retrieval as a rival (*retrieve, do not fine-tune*), and with blind human labels of the
  judge's verdicts.
- `distil`, `grpo`, `weights` and `star` on a GPU. On the embedded model all four work
  ([methods](guides/methods.md#measured)).
- A prediction of which way will pay off, before it is tried. `ablate` tries them instead."""


def main_page(
    real: Mapping[str, Any] | None, ways: Mapping[str, Any] | None, curves: Sequence[Curve], rows: Sequence[Any]
) -> str:
    """Returns the lines of the page.

    Args:
        real: `figures.json` of the runs on a GPU.
        ways: the `ablation.json` of a real model; None if there is none.
        curves: of the laboratory.
        rows: `evidence.claims`.
    """
    sections = {
        "Real models, the whole pipeline": _runs(real) if real else ["Not measured.", ""],
        "A real model, ways at equal money": [*(_ways(ways) if ways else []), FIRST, ""],
        "The laboratory": _laboratory(curves),
        "What was predicted, and what came of it": _predicted(rows),
        "What did not work": [NEGATIVE, ""],
        "Little data": _little(),
        "What was not done": [NOT_DONE, ""],
    }
    lines = [HEAD, *(line for title, body in sections.items() for line in (f"## {title}", "", *body))]
    return _filled("\n".join(map(_flowed, lines)), ways, curves)


def _flowed(text: str) -> str:
    """Joins the lines of each paragraph and item; tables and commands come line by line."""
    return re.sub(r"(?<=\S)\n +(?=\S)|(?<=[^\n])\n(?=[A-Za-z0-9(`\[*](?!\*\*))", " ", text)


def _filled(text: str, ways: Mapping[str, Any] | None, curves: Sequence[Curve]) -> str:
    figures = dict.fromkeys(("DIRECT_RFT", "DIRECT_WRONG", "LAB_LEAD", "SFT", "DIRECT"), "(not measured)")
    if curves and (lead := read_by(curves[0], next(iter(curves[0].lists))).lead(without_teacher=True)):
        figures["LAB_LEAD"] = points(lead.gap)
    if ways:
        right = {arm: np.array(verdicts, float)[None] for arm, verdicts in ways["verdicts"].items()}
        figures["DIRECT_RFT"] = points(apart(right["direct"], right["rft"]))
        figures["DIRECT_WRONG"] = points(apart(right["direct"], right["wrong-hints"]))
        figures |= {"SFT": f"{percent(right['sft'].mean())} %", "DIRECT": f"{percent(right['direct'].mean())} %"}
    for name, figure in figures.items():
        text = text.replace(name, figure)
    return text


def _runs(real: Mapping[str, Any]) -> list[str]:
    cells = []
    for cell in (cell for cell in real["cells"] if cell["part"] == "table"):
        tests = {"": cell["held_out"]} | ({"new numbers": cell["new_numbers"]} if cell["new_numbers"] else {})
        for what, test in tests.items():
            name = "new templates" if len(tests) > 1 and not what else what
            low, high = test["ci95"]
            gain = f"{signed(test['difference'])} ({signed(low)} … {signed(high)})"
            sides = f"{percent(test['base_accuracy'])} → {percent(test['adapter_accuracy'])}"
            task = f"`{cell['cell']}`{', ' * bool(name)}{name}"
            cells.append([NAMES[cell["model"]], task, f"{test['n']}", sides, gain])
    return [
        "Defaults, 1,000 questions asked, a teacher by rules that never says the answer. Which runs the gate passed, "
        "why it refused the others, times, costs and learning rates: [real models](real-models.md).", "",
        *table(["model", "task", "questions", "base → adapter, %", "gain in points (95 %)"], cells, words=2),
        "```bash", "python experiments/real/cells.py table OUT MODEL…", "```", "",
    ]  # fmt: skip


def _ways(ways: Mapping[str, Any]) -> list[str]:
    cells = [["the model as it is", "", "", percent(ways["base"]), ""]]
    for row in ways["arms"]:
        reading = row["readings"]["rows"]
        if reading["gain"]:
            gain, low, high = reading["gain"]
            rate = f"{row['learning_rate']:g}" if row["learning_rate"] else "–"
            count = " · ".join(f"{row[name]:,}" if row[name] else "–" for name in ("rows", "calls_tokens"))
            does = row["does"] + " (control)" * row["control"]
            told = f"{signed(gain)} ({signed(low)} … {signed(high)})"
            cells.append([f"`{row['arm']}`", does, f"{count} · {rate}", percent(reading["accuracy"]), told])
    held_out = ways["held_out"]["rows"]
    return [
        "**A screen of one cell, one seed.** SmolLM2-135M-Instruct on two CPU cores, the task of `make demo-real` "
        f"(which item does an order list most of?), 182 questions to learn from, {held_out} held out, all of one form. "
        "A worked solution comes with each question; its first half is the hint. `rft` draws as many samples as the "
        "calls of `direct` pay for. The tokens of all calls are in the table: `mix` and `star` are not at equal money.",
        "",
        *table(["way", "what is trained on", "rows · tokens · learning rate", "right, %", "gain (95 %)"], cells, 3),
        "The rates were chosen by 18 dev rows out of three; where the chosen one is 0.0015, it is the largest that was "
        "tried. So few rows make few steps, and one seed says nothing about how much trainings vary.", "",
        "```bash", "socratune ablate --config experiments/real/ways.yaml --seeds 1 --minutes 110 \\",
        "    --arms direct,prompt,rft,sft,bare-retry,wrong-hints,mix,star,weights,distil", "```", "",
    ]  # fmt: skip


def _laboratory(curves: Sequence[Curve]) -> list[str]:
    """The ways at a budget of 1 on each base."""
    if not curves:
        return ["Not measured.", ""]
    shown = [first_answers(curve) for curve in curves]
    arms = sorted(shown[0], key=lambda arm: -shown[0][arm].mean())
    cells = [
        [f"`{arm}`", *(between(level(found[arm].sampled)) if arm in found else "–" for found in shown)] for arm in arms
    ]
    usd = shown[0][OURS].numbers.get("usd") if OURS in shown[0] else None
    return [
        "Two bases of 5.6 million parameters, built so that a right hint brings out what they can do; teachers that "
        f"are never wrong; {len(curves[0].questions)} held-out questions; the money of one whole protocol of `{OURS}`"
        f"{f' ({money(usd)} USD)' if usd else ''} for each way. Accuracy when sampled, in percent. Whether any of it "
        "carries over to real models is not known.", "",
        *table(["way", "first base", "second base"][: len(curves) + 1], cells),
        "Six budgets, two price lists, side studies and caveats: [the laboratory's evidence](evidence-laboratory.md).",
        "",
    ]  # fmt: skip


def _predicted(rows: Sequence[Sequence[Claim]]) -> list[str]:
    cells = [[row[0].text, *(claim.status for claim in row), *[""] * (2 - len(row))] for row in rows]
    return [
        "Registered before the laboratory's runs. For real models nothing was registered, as no protocol was run.", "",
        *table(["expected", "first base", "second base"], cells, words=3),
    ]  # fmt: skip


def _little() -> list[str]:
    return [
        "With 100 rows 19 are held out, and only a gain of 39 points or more shows. [Small data]"
        "(support.md#small-data-50-to-300-rows) has the table from 25 to 600 rows, and what helps.", "",
    ]  # fmt: skip

"""Writes the main page of evidence: real models first, then the laboratory, what failed, and what was not done.

The sentences are written by hand. Their numbers come from the result files. A number that was measured without a
result file is marked on the page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from evidence_claims import Claim, read_by
from evidence_curve import first_answers
from evidence_data import OURS, Curve, apart, between, level, listed, money, percent, points, signed, table

from socratune.evaluation.comparison import FREQUENT
from socratune.ways.reading import Difference
from socratune.ways.report import ARM_HEADS, arm_cells

Numbers = dict[str, str]
"""Maps a name in the text to the number that stands for it."""

NAMES = {"qwen2.5-coder-0.5b-instruct": "Qwen2.5-Coder-0.5B-Instruct", "smollm2-135m-instruct": "SmolLM2-135M-Instruct"}
QWEN, SMOL = NAMES
PASSED, UNPROVEN, UNDECIDED, ONE_ANSWER = "passed", "gain not proven", "undecided answers", "one answer to everything"
IN_STUDENT_FORMAT = "teacher-in-student-format"
LARGEST_RATE = 1.5e-3
"""Three times the rate in `experiments/real/ways.yaml`. `ablate` tries no larger one."""
UNKNOWN = "(not measured)"

HEAD = """# Evidence: do hints pay off?

Socratune lets a model try each question, gives a hint where the model fails, and trains the model on the right answers
that it then finds in its own words. Hints cost money. This page says what is known about their worth and what is not.
Real models come first. Intervals are 95 %.

- **Training on its own right answers improves a real model on tasks that it sometimes gets right.** Of {runs} runs with
  two models, the gate passed {passed}.
- The gate refused {unproven} runs because their gain was not proven or too many answers were undecided, and
  {one_answer} because the adapter had only learned the most frequent answer.
- **No real model has shown yet that hints pay off.** For the same money, hints and sampling came out level on a 0.5 B
  model (34.5 and 34.5 %). On a 135 M model hints were ahead by {direct_rft} points. Both comparisons have one seed.
- On the 135 M model, hints that were written for *other rows* did as well as the right hints: the difference is
  {direct_wrong} points. So what a hint says has not been shown to matter.
- **If you have worked solutions, train on them first.** They took the 135 M model from {base} to {sft}. Hints
  took it to {direct}.
- Bare answers without steps are no substitute. The 0.5 B model fell from 18.0 to 6.0 % when it was trained on them.
- **In the laboratory, hints win for the same money**, by {lab_lead} points over the best way without a teacher. Its
  models are small and were built so that a right hint helps.
- Even there, a teacher's solutions in the student's own format are better than hints, by {lab_teacher} points.
- **A gain on new numbers is not a gain on new problems.** The 0.5 B model gained {new_numbers} points on templates that
  it had seen with other numbers. On templates that it had not seen, the gain is not proven: {new_templates}.
- **The full comparison has not been run on a real model**: several seeds, several budgets and all controls.

So Socratune does not assume that hints pay off. `socratune run` samples first, and gives hints only where sampling
fails. [`socratune ablate`](guides/ablation.md) compares the ways on *your* questions before you spend more. The gate
refuses an adapter unless it is proven better than its base and better than one answer to everything.
"""

RUNS = """Default settings, 1,000 questions to learn from, one seed, and a teacher by rules that never states the
answer. [Real models](real-models.md) has the reasons of the gate in detail, times, costs, learning rates and the base
model gemma-3-270m."""

OLD_GATE = """{old} was recorded as passed. The gate did not compare with one answer to everything then. It does now,
and refuses this adapter."""

FIRST = """The first comparison on a real model was made on 2026-11-30 with one seed. Its 200 questions came from
templates that had been trained on, and its answers were not kept. Qwen2.5-Coder-0.5B on `gsm_symbolic` had 18.0 % as it
was, 34.5 with `direct`, 34.5 with `rft`, 31.0 with `mix`, 19.0 with a prompt and **6.0** with bare answers.

A separate trial used 500 fresh questions. Rows that were won by hints, on top of the model's own right samples, added
4.4 points (0.8 … 8.2), but not for the same money. A KL divergence towards the hinted model did not beat its control
with another row's hint (27.0 against 29.2 %)."""

SCREEN = """**This is a screen: one task, one seed.** SmolLM2-135M-Instruct learned on two CPU cores, on the task of
`make demo-real`: which item does an order list most of? There were {learned} questions to learn from and {held_out}
held-out questions, all of one form. Each question comes with a worked solution, which is the *reference answer*
of `sft`. Its first half is the hint."""

SCREEN_MONEY = """All ways had the same questions. {same} paid for about as many tokens as `direct`, so these
comparisons are for the same money. {other} The way `rft` draws as many samples as the calls of `direct` pay for.
Readings at equal trained tokens and at equal money were not made."""

SCREEN_LIMITS = """Each learning rate was chosen from three by 18 dev rows. {edge} chose the largest rate, so a still
larger one might suit them better. The trainings are short, and one seed says nothing about how much they vary."""

NEGATIVE = """- **Hints against sampling, 0.5 B, equal money**: 34.5 and 34.5 %. There is no difference.
- **Right hints against hints of other rows, 135 M**: {direct_wrong}. There is no difference that one seed can show.
- **`distil`**, which is meant to move the hint into the weights, reached {distil} and came last among the ways that
  train the 135 M model.
- **New templates**: {new_templates} points at the default learning rate, and no proven gain at any of five rates.
- **A model that cannot do a task at all does not learn it**: SmolLM2 on `gsm_symbolic` went from {hopeless}, with
  {hopeless_hints} hints.
- **Two gains were only the most frequent answer**: {majority_gains} points on `letter_counting`, where {majority} of
  the answers are *1*. On the other questions these adapters are right in 1 %.
- **The gate refuses some good adapters.** One in five fails the limit of 3 points of forgetting if it changes 6 % of
  the other answers without harm. If it changes 10 %, two in five fail.
- **Preference training alone unlearns**: DPO without a likelihood term took the embedded model from 27 to 4 %.
- **Distillation with the published clip** left 12 to 14 % of the embedded task's dev rows right. The base has 27 %.
- **Hints that state the answer** cost {leak_answer} points in the laboratory, and hints with all steps but the last
  cost {leak_steps}. The leak check drops the first kind. Hints of the second kind are worth little."""

NOT_DONE = """- No full protocol has been run on a real model. It needs several seeds for each way, budgets of 1, 4 and
  16 times, the controls of distillation (no hint, another row's hint, the solution), and a mixed model over tasks.
  The results above are single runs and a screen.
- `gemma-3-270m` was run on a CPU only ([real models](real-models.md#a-base-model-gemma-3-270m-on-two-cores)). The
  weights of all models are dequantised from 4 bits.
- Questions from documents were not compared with retrieval (*retrieve, do not fine-tune*). No human has labelled the
  judge's verdicts blind.
- `distil`, `grpo`, `weights` and `star` were not run on a GPU. On the embedded model all four work
  ([methods](guides/methods.md#measured)).
- No rule predicts which way will pay off before it is tried. `ablate` tries the ways instead."""

LITTLE = """With 100 rows only 19 are held out, and the test shows only a gain of about 39 points or more.
[Small data](support.md#small-data-50-to-300-rows) has the table from 25 to 600 rows, and says what helps."""


def main_page(
    real: Mapping[str, Any] | None,
    ways: Mapping[str, Any] | None,
    curves: Sequence[Curve],
    rows: Sequence[Sequence[Claim]],
    side: Mapping[str, Any] | None = None,
) -> str:
    """Returns the text of the page.

    Args:
        real: `figures.json` of the runs on a GPU.
        ways: the `ablation.json` of a real model. Without it, its section has only the first comparison.
        curves: the laboratory's curves.
        rows: `evidence.claims`.
        side: the laboratory's side studies.
    """
    numbers = _of_runs(real) | _of_ways(ways) | _of_laboratory(curves) | _of_studies(side)
    count = f": {len(ways['arms'])} ways compared" if ways else ""
    sections = {
        "Real models, the whole pipeline": _runs(real) if real else ["Not measured.", ""],
        f"A real model on two cores{count}": [*(_ways(ways) if ways else []), FIRST, ""],
        "The laboratory": _laboratory(curves),
        "What did not work": [NEGATIVE, ""],
        "What was predicted, and what came of it": _predicted(rows),
        "Little data": [LITTLE, ""],
        "What was not done": [NOT_DONE, ""],
    }
    lines = [HEAD, *(line for title, body in sections.items() for line in (f"## {title}", "", *body))]
    text = "\n".join(map(_flowed, lines))
    return re.sub(r"\{(\w+)\}", lambda name: numbers.get(name[1], UNKNOWN), text)


def _flowed(text: str) -> str:
    """Joins the lines of each paragraph and item. Tables and commands come line by line."""
    return re.sub(r"(?<=\S)\n +(?=\S)|(?<=[^\n])\n(?=[A-Za-z0-9({`\[*](?!\*\*))", " ", text)


# -------- numbers in the text
def _of_runs(real: Mapping[str, Any] | None) -> Numbers:
    if not real:
        return {}
    cells = _table_cells(real)
    by_name = {(cell["model"], cell["cell"]): cell for cell in cells}
    found = Counter(map(gate, cells))
    numbers = {
        "runs": _counted(len(cells)), "passed": _counted(found[PASSED]), "one_answer": _counted(found[ONE_ANSWER]),
        "unproven": _counted(found[UNPROVEN] + found[UNDECIDED]),
    }  # fmt: skip
    if templates := by_name.get((QWEN, "gsm_symbolic")):
        numbers["new_templates"] = points(_gain(templates["held_out"]))
        numbers["new_numbers"] = points(_gain(templates["new_numbers"]))
    if hopeless := by_name.get((SMOL, "gsm_symbolic")):
        numbers["hopeless"] = f"{_sides(hopeless['held_out'], ' to ')} %"
        numbers["hopeless_hints"] = f"{hopeless['hints']:,}"
    if counters := [cell["held_out"] for cell in cells if gate(cell) == ONE_ANSWER]:
        numbers["majority_gains"] = listed([signed(test["difference"]) for test in counters])
        numbers["majority"] = f"{100 * counters[0]['majority']['accuracy']:.0f} %"
    return numbers


def _of_ways(ways: Mapping[str, Any] | None) -> Numbers:
    if not ways:
        return {}
    right = {arm: np.array(verdicts, float)[None] for arm, verdicts in ways["verdicts"].items()}
    numbers = {arm: f"{percent(float(found.mean()))} %" for arm, found in right.items()}
    numbers |= {"base": percent(ways["base"])}
    for name, less in (("direct_rft", "rft"), ("direct_wrong", "wrong-hints")):
        if {"direct", less} <= {*right}:
            numbers[name] = points(apart(right["direct"], right[less]))
    return numbers


def _of_laboratory(curves: Sequence[Curve]) -> Numbers:
    if not curves:
        return {}
    curve, prices = curves[0], next(iter(curves[0].lists))
    numbers = {}
    if lead := read_by(curve, prices).lead(without_teacher=True):
        numbers["lab_lead"] = points(lead.gap)
    if {OURS, IN_STUDENT_FORMAT} <= {*first_answers(curve)}:
        numbers["lab_teacher"] = points(curve.versus(prices, IN_STUDENT_FORMAT, OURS, curve.main_step))
    return numbers


def _of_studies(side: Mapping[str, Any] | None) -> Numbers:
    """Returns what leaking hints cost against hints of strategy."""
    rows = side["studies"].get("leaked-hints", {}).get("rows", []) if side else []
    shares = {
        setting: np.mean([[int(digit) for digit in row["sampled"]] for row in rows if row["setting"] == setting])
        for setting in {row["setting"] for row in rows}
    }
    samples = (side or {}).get("samples", 4)
    names = {"leak_answer": "the answer", "leak_steps": "all steps but the last"}
    return {
        name: f"{100 * (shares['strategy'] - shares[setting]) / samples:.1f}"
        for name, setting in names.items()
        if {"strategy", setting} <= {*shares}
    }


# -------- sections
def _table_cells(real: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [cell for cell in real["cells"] if cell["part"] == "table"]


def gate(cell: Mapping[str, Any]) -> str:
    """Returns what today's gate says of a run: `PASSED`, or the reason for which it refuses the adapter.

    The comparison with one answer to everything is newer than some runs. Without its interval, an adapter is refused
    if it is not even more accurate than the most frequent answer.
    """
    test = cell["held_out"]
    most = test["majority"]
    if test["verdict"] != "better":
        return UNDECIDED if test["ci95"][0] > 0 else UNPROVEN
    low = most["ci95"][0] if "ci95" in most else test["adapter_accuracy"] - most["accuracy"]
    if most["accuracy"] >= FREQUENT and low <= 0:
        return ONE_ANSWER
    return PASSED if cell["status"] == "passed" else "refused"


def _gain(test: Mapping[str, Any]) -> Difference:
    return Difference(test["difference"], *test["ci95"])


def _sides(test: Mapping[str, Any], between: str = " → ") -> str:
    return between.join(percent(test[f"{side}_accuracy"]) for side in ("base", "adapter"))


def _counted(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count] if count < len(words) else f"{count}"


def _runs(real: Mapping[str, Any]) -> list[str]:
    cells, old = [], []
    for cell in _table_cells(real):
        tests = {"": cell["held_out"]} | ({"new numbers": cell["new_numbers"]} if cell["new_numbers"] else {})
        for what, test in tests.items():
            name = "new templates" if len(tests) > 1 and not what else what
            task = f"`{cell['cell']}`{', ' * bool(name)}{name}"
            verdict = "" if what else gate(cell) if gate(cell) == PASSED else f"refused: {gate(cell)}"
            cells.append([NAMES[cell["model"]], task, verdict, f"{test['n']}", _sides(test), points(_gain(test))])
        if cell["status"] == "passed" and gate(cell) != PASSED:
            old.append(f"{NAMES[cell['model']]} on `{cell['cell']}`")
    heads = ["model", "task", "gate", "questions", "base → adapter, %", "gain in points (95 %)"]
    return [
        RUNS, "", *table(heads, cells, words=3), *([OLD_GATE.replace("{old}", listed(old)), ""] if old else []),
        "```bash", "python experiments/real/cells.py table OUT MODEL…   # needs a GPU", "```", "",
    ]  # fmt: skip


def _ways(ways: Mapping[str, Any]) -> list[str]:
    arms = {row["arm"]: row for row in ways["arms"]}
    base = ["the model as it is", "", "–", "–", "–", "–", *[f"{ways['base']:.1%}"] * 3, ""]
    done = [[f"`{name}`", *arm_cells(row)[1:]] for name, row in arms.items() if row["readings"]["rows"]["gain"]]
    # A reading that only `direct` has was not made: `direct` is what the others are made equal to.
    shown = [at for at in range(len(ARM_HEADS)) if sum(cells[at] not in ("–", "") for cells in done) > 1]
    lines = table([ARM_HEADS[at] for at in shown], [[cells[at] for at in shown] for cells in (base, *done)], words=2)
    learned = max(row["rows"] or 0 for row in arms.values())
    screen = SCREEN.replace("{learned}", f"{learned}").replace("{held_out}", f"{ways['held_out']['rows']}")
    edge = [f"`{name}`" for name, row in arms.items() if row["learning_rate"] == LARGEST_RATE]
    limits = SCREEN_LIMITS.replace("{edge}", listed(edge) if edge else "No way")
    return [
        screen, "", *lines, *_paid(arms), limits, "",
        "```bash", "socratune ablate --config experiments/real/ways.yaml --seeds 1 --minutes 110 \\",
        f"    --arms {','.join(arms)}", "```", "",
    ]  # fmt: skip


def _paid(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a paragraph on which ways paid for as many tokens as `direct`, and which paid for more or for none."""
    paid = {name: row["calls_tokens"] for name, row in arms.items() if row["calls_tokens"] is not None}
    if not paid.get("direct"):
        return []
    ratio = {name: tokens / paid["direct"] for name, tokens in paid.items() if name != "direct"}
    same = [f"`{name}`" for name, times in ratio.items() if abs(times - 1) < 0.1]
    more = [f"`{name}` paid for {100 * (times - 1):.0f} % more" for name, times in ratio.items() if times >= 1.1]
    none = [f"`{name}` for none" for name, times in ratio.items() if not times]
    other = listed([*more, *none])
    text = SCREEN_MONEY.replace("{same}", listed(same) if same else "No other way")
    return [text.replace("{other}", f"{other[0]}{other[1:]}." if other else ""), ""]


def _laboratory(curves: Sequence[Curve]) -> list[str]:
    """Returns the ways at a budget of 1 on each base."""
    if not curves:
        return ["Not measured.", ""]
    shown = [first_answers(curve) for curve in curves]
    arms = sorted(shown[0], key=lambda arm: -shown[0][arm].mean())
    cells = [
        [f"`{arm}`", *(between(level(found[arm].sampled)) if arm in found else "–" for found in shown)] for arm in arms
    ]
    usd = shown[0][OURS].numbers.get("usd") if OURS in shown[0] else None
    price = f", {money(usd)} USD" if usd else ""
    return [
        "The laboratory has two models of 5.6 million parameters, its *bases*, which were built so that a right hint "
        f"brings out what they can do. Its teachers are never wrong. Each way may spend what `{OURS}` costs on all "
        f"rows{price}. The table shows the accuracy on {len(curves[0].questions)} held-out questions, in percent, when "
        "the model samples its answers. Whether any of this carries over to real models is not known.", "",
        *table(["way", "first base", "second base"][: len(curves) + 1], cells),
        "[The laboratory's evidence](evidence-laboratory.md) explains the ways. It has six budgets, two price lists, "
        "side studies and all caveats.", "",
        "```bash", "python experiments/lab/curve.py experiments/lab/base --out experiments/results/curve.json", "```",
        "",
    ]  # fmt: skip


def _predicted(rows: Sequence[Sequence[Claim]]) -> list[str]:
    cells = [[row[0].text, *(claim.status for claim in row), *[""] * (2 - len(row))] for row in rows]
    return [
        "These predictions were registered before the laboratory's runs. The measured values stand in "
        "[the appendix](evidence-laboratory.md#what-came-out). Nothing was registered for real models, as no full "
        "protocol was run on them.", "",
        *table(["expected", "first base", "second base"], cells, words=3),
    ]  # fmt: skip

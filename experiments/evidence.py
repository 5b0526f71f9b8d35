"""Writes docs/evidence.md, docs/evidence-laboratory.md and their figures from the result files of the experiments.
`--check` fails where one of them is stale.

    python experiments/evidence.py                      # write
    python experiments/evidence.py --check              # exit code 1 where what is written is not what the files say
    python experiments/evidence.py --order SMALL.json   # are the ways in the same order as in the full curve?

The same result files give the same bytes. A section without its result file says that it was not measured.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the products are too small to share among cores

from evidence_claims import UNMEASURED, Claim, arms_order, read_by
from evidence_curve import (
    NOT_MEASURED,
    Facts,
    Figures,
    curve_section,
    first_answers,
    forgetting_section,
    prediction_section,
    price_section,
)
from evidence_data import (
    DOES,
    OURS,
    REPLAYED,
    WITHOUT_TEACHER,
    Curve,
    between,
    level,
    listed,
    money,
    percent,
    read,
    table,
    wrapped,
)
from evidence_main import main_page
from evidence_studies import (
    acceptance_claim,
    acceptance_section,
    hopeless_claim,
    hopeless_section,
    order_section,
    rounds_claim,
    rounds_section,
    side_section,
)

from socratune.ways import reading

ROOT = Path(__file__).parent.parent
PREDICTION = 'hints win only where pass@8 = 0, and "sample first, hint what sampling cannot reach" dominates.'
"""Registered before the runs, verbatim."""
RESULTS = ("curve", "curve-2", "side", "acceptance", "acceptance-2", "hopeless", "addition", "small")
COMMANDS = {
    "addition": "python experiments/addition.py --seeds 5",
    "curve": "python experiments/lab/curve.py experiments/lab/base --out experiments/results/curve.json",
    "side": "python experiments/lab/side.py experiments/lab/base --curve experiments/results/curve.json "
    "--out experiments/results/side.json",
    "hopeless": "python experiments/lab/hopeless.py --base experiments/lab/base --seeds 20",
    "acceptance": "python experiments/lab/accept.py experiments/lab/base --per-family 300 "
    "--json experiments/results/acceptance.json",
    "small": "make evidence-small",
}
"""Result file → the command that repeats it, as far as there is one; also for the second base."""


# -------- which default rests on which row: (settings, section, template)
@dataclass(frozen=True, slots=True)
class Default:
    """A default and what decided it.

    Attributes:
        setting: a key of the configuration, whose default is read from the code; or words.
        section: the heading that has the row.
        template: filled with the facts that the sections found; a fact that was not measured says so.
    """

    setting: str
    section: str
    template: str


DEFAULTS = (
    Default("hints", "The prediction", "`mix` {mix_cheap}; where pass@8 = 0 {mix_lost}"),
    Default(
        "enhance.attempts",
        "Side studies",
        "kept at four where all rows are gone through: {attempts}. No greedy difference shows then, and the exam asks "
        "greedily; fewer rows need the teacher. With less money four fall behind, `mix` − `direct` by "
        "budget: {attempts_by_budget}. With `attempts: 1` most rows are hinted ones: raise `curate.max_hinted_share`, "
        "which drops what is above 40 % and was not measured here",
    ),
    Default("enhance.thinking_format", "The hint-value curve", "no format: the answer alone (`direct`). {formats}"),
    Default("enhance.unsolved", "Rounds on addition", "left at `drop`: {rounds}, on bases that had the skill"),
    Default("curate.mask_wrong_attempts", "Side studies", "{study_masking}"),
    Default("curate.replay_share", "Forgetting", "{forgetting}; {replay}. {study_replay}"),
    Default("train.r", "Side studies", "{study_rank}"),
    Default("hints that leak are dropped", "Side studies", "{study_leaked_hints}"),
    Default("enhance.judge_mode", "Side studies", "what rules can decide, no model does: {study_judge_errors}"),
)
"""Facts: attempts, attempts_by_budget, mix_cheap, mix_lost, formats, forgetting, replay, rounds, and study_NAME for
every side study (`-` becomes `_`)."""


def defaults_section(facts: Facts) -> list[str]:
    """The table of `DEFAULTS`, filled."""
    known = defaultdict(lambda: UNMEASURED, facts)
    rows = [
        [f"`{one.setting}`" if "." in one.setting else one.setting, shipped(one.setting),
         f"[{one.section}](#{anchor(one.section)})", one.template.format_map(known)]
        for one in DEFAULTS
    ]  # fmt: skip
    return table(["default", "value", "section", "what it rests on"], rows, words=4)


def shipped(setting: str) -> str:
    """The default of a key in the code; nothing for what is no key.

    Raises:
        KeyError: a part of the key is no setting.
    """
    from pydantic import BaseModel

    from socratune.config import RunConfig

    if "." not in setting:
        return ""
    section: type[BaseModel] = RunConfig
    *parts, last = setting.split(".")
    for part in parts:
        names = {field.alias or name: field.annotation for name, field in section.model_fields.items()}
        kind = names[part]
        assert isinstance(kind, type) and issubclass(kind, BaseModel)
        section = kind
    return f"`{section.model_fields[last].default}`"


def anchor(heading: str) -> str:
    """The link to a heading, as GitHub makes it."""
    return "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c == "-")


# -------- what came out
def claims(found: Mapping[str, Any], curves: Sequence[Curve], order: Claim | None) -> list[list[Claim]]:
    """For each claim what each base says of it; a base that was not asked has none."""
    rows: list[list[Claim]] = []
    by_curve = []
    for curve in curves:
        found_by = [read_by(curve, prices) for prices in curve.lists]
        keeps = [found_by[0].keeps(arm) for arm in (REPLAYED, OURS)]
        by_curve.append([*found_by[0].claims(), *keeps, *(one.worth() for one in found_by)])
    if by_curve:
        second = {claim.text: claim for claim in by_curve[1]} if len(by_curve) > 1 else {}
        rows += [[claim, second[claim.text]] if claim.text in second else [claim] for claim in by_curve[0]]
    accepted = [acceptance_claim(found[name]) for name in ("acceptance", "acceptance-2") if found[name]]
    rows += [accepted] if accepted else []
    rows += [[hopeless_claim(found["hopeless"])]] if found["hopeless"] else []
    rows += [[rounds_claim(found["addition"])]] if found["addition"] else []
    return [*rows, *([[order]] if order else [])]


def summary(found: Mapping[str, Any], curves: Sequence[Curve], order: Claim | None) -> list[str]:
    """One paragraph and one table."""
    rows = claims(found, curves, order)
    two = any(len(row) > 1 for row in rows)
    sentences = _headline(curves[0]) if curves else ["The hint-value curve was not measured yet."]
    if curves:
        whole = [read_by(curve, next(iter(curve.lists))).prediction() for curve in curves]
        second = "" if len(whole) < 2 else f", on a second base **{whole[1]}**"
        sentences.append(f"The prediction registered before the runs: **{whole[0]}**{second}.")
    for status in ("does not hold", "not shown"):
        names = [row[0].text for row in rows if any(claim.status == status for claim in row)]
        if names:
            where = " on at least one base" if two else ""
            sentences.append(f"{status[0].upper()}{status[1:]}{where}: {'; '.join(names)}.")
    if rows and not any(claim.status in ("does not hold", "not shown") for row in rows for claim in row):
        sentences.append("Of what was expected, everything that was measured holds.")
    cells = [
        [
            row[0].text,
            *(cell for claim in row for cell in (f"**{claim.status}**", claim.measured)),
            *[""] * 2 * (two - len(row) + 1),
        ]
        for row in rows
    ]
    heads = ["expected", "does it hold?", "measured", *(["on a second base", "measured"] if two else [])]
    return [" ".join(sentences), "", *(table(heads, cells, words=len(heads)) if cells else [])]


def _headline(curve: Curve) -> list[str]:
    """Base, best way, `mix` and the best way without a teacher, at the main budget."""
    prices, shown = next(iter(curve.lists)), first_answers(curve)
    told = [
        f"Of {len(curve.questions):,} held-out questions the base gets {percent(curve.base.mean())} % right when it "
        f"samples, {percent(curve.base.mean('greedy'))} % greedily."
    ]
    if not shown:
        return told
    best = max(shown, key=lambda arm: shown[arm].mean())
    ours = shown.get(OURS)
    usd = f" ({money(ours.numbers['usd'])} USD)" if ours and ours.numbers.get("usd") else ""
    times = "" if curve.main_step == 1 else f"{curve.main_step:g} times "
    told.append(
        f"With {times}the money of one whole protocol of `{OURS}`{usd}, at the prices of the list `{prices}`, "
        f"the best way is `{best}` ({DOES.get(best, best)}): {between(level(shown[best].sampled))} %."
    )
    cheap = curve.best(prices, curve.main_step, among=WITHOUT_TEACHER)
    others = [arm for arm in dict.fromkeys((OURS, cheap)) if arm in shown and arm != best]
    told += (
        [f"{listed([f'`{arm}` comes to {between(level(shown[arm].sampled))} %' for arm in others])}."] if others else []
    )
    lead = read_by(curve, prices).lead(without_teacher=True)
    return [*told, f"`{OURS}` before the best way without a teacher: {lead}."] if lead else told


# -------- the document
def documents(results: Path) -> tuple[dict[str, str], Figures]:
    """The texts of both pages, and their figures, by file name."""
    found = {name: read(results, name) for name in RESULTS}
    curves = [Curve(found[name], name) for name in ("curve", "curve-2") if found[name]]
    curves = [curve for curve in curves if curve.lists]
    facts: Facts = {}
    drawn: Figures = {}
    order_lines, order = [NOT_MEASURED, ""], None
    if curves and found["small"]:
        order_lines, order = order_section(found["curve"], found["small"])
    sections = {
        "What came out": summary(found, curves, order),
        **_curve_sections(curves, facts, drawn),
        "Side studies": side_section(found["side"], facts) if found["side"] else [NOT_MEASURED, ""],
        "Rounds on addition": _rounds(found["addition"], facts, drawn),
        "The bases": _bases(found),
        "A data set that nobody can learn": hopeless_section(found["hopeless"])
        if found["hopeless"]
        else [NOT_MEASURED, ""],
        "The reduced rerun": order_lines,
    }
    sections["Which default rests on which row"] = defaults_section(facts)
    commands = {"Rounds on addition": "addition", "The bases": "acceptance",
                "A data set that nobody can learn": "hopeless", "The reduced rerun": "small",
                "The hint-value curve": "curve", "Side studies": "side"}  # fmt: skip
    lines = [HEAD.replace("DRAWS", f"{reading.DRAWS:,}")]
    for heading, body in sections.items():
        command = COMMANDS.get(commands.get(heading, ""))
        lines += [f"## {heading}", "", *body, *(["```bash", command, "```", ""] if command else [])]
    first = main_page(
        read(results / "real", "figures"), read(results / "real", "ways"), curves, claims(found, curves, order),
        found["side"],
    )  # fmt: skip
    pages = {"evidence.md": first, "evidence-laboratory.md": "\n".join(lines)}
    return {name: _folded(text) for name, text in pages.items()}, drawn


def _folded(text: str) -> str:
    """The text in lines of at most 120 characters, commands and tables aside."""
    parts = text.split("```")
    parts[::2] = ["\n".join(wrapped(line) for line in part.split("\n")) for part in parts[::2]]
    return "```".join(parts).rstrip() + "\n"


HEAD = """# The laboratory's evidence: does the loop teach, and when is it worth its money?

*An appendix to [Evidence](evidence.md), where real models come first.*

*Written by `python experiments/evidence.py` from the files in `experiments/results`; sentences with figures are
computed from them, whichever way they came out, and what a default follows from is written by hand. Intervals are
95 %: seeds are drawn first, then questions, DRAWS times, paired by question where two ways are compared, and not by
seed, although the ways share its rows and draws. With five seeds such an interval is a little too narrow for what
trainings vary. What the base was taught, and that it shows nothing about real models, is in [the
laboratory](guides/lab.md).*

*How far this goes: two bases of 5.6 million parameters from two pre-training seeds, made so that a right hint brings
out what they can do; problems of four kinds that a generator writes; teachers that are never wrong, and a judge that
is exact, but where a side study says otherwise. A teacher's solutions in the student's very format are the
generator's own, which no real teacher is sure to write. Sampling is one round: sampling again from the trained
student, STaR's rationalisation and a filter for bare answers were not tried on this task. About twenty solutions in
the student's format already give more than 70 %, so what is measured is largely which manner of answering the traces
install. Whether any of it carries over to real models is not known; that `teacher` falls below the base is a property
of so small a net.*
"""


def _curve_sections(curves: Sequence[Curve], facts: Facts, drawn: Figures) -> dict[str, list[str]]:
    """The sections of the curve by heading; a second base comes after the first in each."""
    makers = {
        "The hint-value curve": lambda curve, into: curve_section(curve, into, drawn),
        "The prediction": lambda curve, into: prediction_section(curve, read_by(curve, next(iter(curve.lists))), into),
        "Forgetting": forgetting_section,
        "What a hint may cost": lambda curve, _: price_section(curve),
    }
    sections = {}
    for heading, make in makers.items():
        lines = ["Registered before the runs:", "", f"> *{PREDICTION}*", ""] if heading == "The prediction" else []
        for number, curve in enumerate(curves):
            if number:
                lines += [f"**The same on a second base** (`{curve.name}.json`)", ""]
            lines += make(curve, facts if number == 0 else None)
        sections[heading] = lines if curves else [*lines, NOT_MEASURED, ""]
    return sections


def _rounds(raw: Mapping[str, Any] | None, facts: Facts, drawn: Figures) -> list[str]:
    if not raw or not raw["seeds"]:
        return [NOT_MEASURED, ""]
    return rounds_section(raw, facts, drawn)


SECOND = (
    "**A second base**, from another pre-training seed. `accept.py` and `curve.py` then take its folder, and write "
    "`acceptance-2.json` and `curve-2.json`:"
)
PRETRAIN = "python experiments/lab/pretrain.py outputs/lab-base --minutes 5.6 --seed 1"


def _bases(found: Mapping[str, Any]) -> list[str]:
    """The acceptance table of each base."""
    lines = []
    for name, heading in (("acceptance", ""), ("acceptance-2", SECOND)):
        if found[name]:
            again = [heading, "", "```bash", PRETRAIN, "```", ""] if heading else []
            lines += [*again, *acceptance_section(found[name])]
    return lines or [NOT_MEASURED, ""]


# -------- files
def stale(docs: Path, texts: Mapping[str, str], drawn: Figures) -> list[str]:
    """Names of files that are not what the results say, or that nothing writes any more."""
    wanted = {
        **{docs / name: text for name, text in texts.items()},
        **{docs / "figures" / name: svg for name, svg in drawn.items()},
    }
    wrong = [path for path, content in wanted.items() if not path.exists() or path.read_text() != content]
    return [str(path) for path in [*wrong, *_left_over(docs, drawn)]]


def _left_over(docs: Path, drawn: Figures) -> list[Path]:
    return sorted(path for path in (docs / "figures").glob("evidence-*.svg") if path.name not in drawn)


def write(docs: Path, texts: Mapping[str, str], drawn: Figures) -> None:
    """The pages and their figures; a figure that nothing writes any more goes."""
    from socratune.runs.folder import write_text

    (docs / "figures").mkdir(parents=True, exist_ok=True)
    for path in _left_over(docs, drawn):
        path.unlink()
    for name, svg in drawn.items():
        write_text(docs / "figures" / name, svg)
    for name, text in texts.items():
        write_text(docs / name, text)


def tell_order(results: Path, small: Path) -> int:
    """Print whether the ways are in the same order; 1 where a pair is clearly not, or none is known to be."""
    both = {path: read(path.parent, path.stem) for path in (results / "curve.json", small)}
    for path, raw in both.items():
        if raw is None or "curves" not in raw:
            print(f"{path} is no result of curve.py, or is not there: nothing to compare")
            return 1
    found = arms_order(*both.values())
    print(str(found), *found.turned, *found.open, sep="\n")
    return int(bool(found.turned) or not found.agreed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "experiments" / "results", help="folder to read from")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder to write to")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where something is stale")
    parser.add_argument("--order", type=Path, metavar="SMALL.json", help="compare a reduced rerun with curve.json")
    options = parser.parse_args(arguments)
    if options.order:
        return tell_order(options.results, options.order)
    texts, drawn = documents(options.results)
    if options.check:
        wrong = stale(options.docs, texts, drawn)
        print(
            *[f"{name} is stale: run python experiments/evidence.py" for name in wrong],
            sep="\n",
            end="\n" * bool(wrong),
        )
        return int(bool(wrong))
    write(options.docs, texts, drawn)
    print(f"{', '.join(str(options.docs / name) for name in texts)} and {len(drawn)} figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())

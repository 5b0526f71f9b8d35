"""Predicts before anything runs what the loop can achieve: whether rules can judge the answers, and who hints."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod

from socratune.compute.plan import loop_usd
from socratune.config import RunConfig
from socratune.data import data_path, data_set
from socratune.errors import Fault, Shown, UserError
from socratune.judging import can_judge, judge_by_rules
from socratune.llm import NOBODY, OF_ROWS, RULES, resolve_alias, teacher_of
from socratune.resolve import Resolved
from socratune.rows import QARow
from socratune.runs import STAGES, Results, RunDir, iter_rows
from socratune.teaching import parse_product

log = logging.getLogger(__name__)

LOOKED_AT = 200
"""References of so many rows, spread over the data set, are checked, which gives the share to about 7 points."""
JUDGE, TEACHER = "gpt-4o-mini", "anthropic/max"
"""The guide's models, named where a model is missing."""
_OTHERS = "NAME with --{role}-api-base URL (a server of your own), local/NAME (in this process) or python:FILE.py:F"


_JUDGES = ("enhance.judge_model", "enhance.judge_mode")
_UNSEEN = (
    "The rows are yet to be written, and rules alone are to judge the answers. Where these are words, and no numbers "
    "or choices, rules cannot, and the loop will not begin without a --judge-model. What was written is kept."
)


@dataclass(frozen=True, slots=True)
class LoopOutlook:
    """What a look at the rows shows.

    Attributes:
        faults: why the loop cannot succeed.
        notices: what it will not do, and which settings would change that.
    """

    faults: tuple[Fault, ...] = ()
    notices: tuple[str, ...] = ()


def loop_outlook(resolved: Resolved, *, restart: str | None = None, anew: bool = False) -> LoopOutlook:
    """Returns the outlook of a loop that is still to come; empty if it is done, or its rows are not written yet.

    Args:
        restart: the first stage that will be redone.
        anew: the loop begins now, whatever the results contain of it.

    Raises:
        UserError: the data set is corrupt.
        OutsideError: it is on the Hub, which could not be asked.
    """
    config, run = resolved.config, RunDir(resolved.config.output)
    begun = Results(run).stage("enhance").get("status") if run.results.is_file() else None
    if anew or (restart is not None and STAGES.index(restart) <= STAGES.index("enhance")):
        begun = None
    if begun == "done":
        return LoopOutlook()
    rows, total = _some_rows(config, anew=restart in ("generate", "split"))
    given = {key for key, origin in resolved.origins.items() if origin != "default"}
    if not rows:
        unseen = _rules_alone(config) and given.isdisjoint(_JUDGES) and begun is None
        return LoopOutlook(notices=(_UNSEEN,) if unseen else ())
    faults, notices = _of_judge(config, rows, total, given)
    if begun in ("running", "interrupted", "stopped"):  # it resumes with its settings
        faults = []
    if not faults:
        ways = "" if notices else f" {_ways(config, total, judge=False)}"
        notices += _of_teacher(config, rows, ways, given)
    return LoopOutlook(tuple(faults), tuple(notices))


def look_at_rows(resolved: Resolved) -> None:
    """Checks rows that were only just written when their loop begins, and logs the notices of `loop_outlook`.

    Raises:
        UserError: its faults.
    """
    outlook = loop_outlook(resolved, anew=True)
    if outlook.faults:
        raise UserError(*outlook.faults)
    for text in outlook.notices:
        log.warning("%s", text)


def _some_rows(config: RunConfig, *, anew: bool) -> tuple[list[QARow], int]:
    """Returns rows spread over all, and the number of all; none if they are not written yet."""
    run = RunDir(config.output)
    if run.rows("train_in").exists() and not anew:
        with run.rows("train_in").open("rb") as stream:
            total = sum(1 for _ in stream)
        every: Iterator[QARow] = iter_rows(run.rows("train_in"), QARow.from_json)
    elif config.writes_rows:
        return [], 0
    else:
        data = data_set(data_path(config.dataset))
        total, every = data.reading.rows, data.rows()
    step = max(1, -(-total // LOOKED_AT))
    return list(islice(every, 0, None, step)), total


def _rules_alone(config: RunConfig) -> bool:
    """Returns True if no model and no function judges besides the rules."""
    loop = config.enhance
    return loop.judge_mode == "mechanical" or resolve_alias(loop.judge_model) == RULES["judge"]


def _of_judge(config: RunConfig, rows: Sequence[QARow], total: int, given: set[str]) -> tuple[list[Fault], list[str]]:
    """Returns faults and notices about references that rules alone judge; none if a model or function judges too."""
    if not _rules_alone(config):
        return [], []
    decided = sum(can_judge(row.question, row.reference) for row in rows)
    judge = f"rules, which can tell right from wrong in {decided} of {len(rows)} rows"
    if decided < len(rows) / 2 and given.isdisjoint(_JUDGES):
        fix = (
            f"{_ways(config, total, judge=True)} Or --judge-model {RULES['judge']}, where a right answer is the "
            "reference word for word: whatever else is said stays undecided, and is neither hinted at nor trained on."
        )
        return [Fault("enhance.judge_model", "a judge that can decide these answers", Shown(judge), fix)], []
    if decided < len(rows) * (1 - config.validate_.gate.max_undecided_share):
        text = f"The judge is {judge}: the others stay undecided, untrained, and at their worst in the proof."
        return [], [f"{text} {_ways(config, total, judge=True)}"]
    return [], []


def _of_teacher(config: RunConfig, rows: Sequence[QARow], ways: str, given: set[str]) -> list[str]:
    """Returns notices if no hints can be expected. `ways` names who could give them."""
    loop, teacher = config.enhance, teacher_of(config.enhance)
    if loop.max_iterations == 1:
        return []
    samples = f"{loop.attempts} samples" if loop.attempts > 1 else "one sample"
    alone = (
        f"what the student gets right by itself in {samples} (enhance.attempts) is trained on, the rest is left out "
        f"(rejection sampling).{ways}"
    )
    if teacher == NOBODY and "enhance.teacher_model" not in given:
        return [f"No teacher is named, so there are no hints: {alone}"]
    if teacher == OF_ROWS["teacher"]:
        solved = sum(bool(row.metadata.get("thinking")) for row in rows)
        if solved < len(rows) / 2:
            text = f"The teacher {teacher} hints by worked solutions, and {solved} of {len(rows)} rows bring one"
            return [f"{text}. Of the others {alone}"]
    if teacher == RULES["teacher"]:
        products = sum(map(_is_product, rows))
        if products < len(rows) / 2:
            text = f"The teacher {teacher} takes products apart, and {products} of {len(rows)} questions ask for one"
            return [f"{text}. Of the others {alone}"]
    return []


def _is_product(row: QARow) -> bool:
    factors = parse_product(row.question)
    return factors is not None and judge_by_rules(row.question, row.reference, str(prod(factors))).verdict == "correct"


def _ways(config: RunConfig, rows: int, *, judge: bool) -> str:
    """Returns the flags that name a capable model, and what the guide's models would cost."""
    weak = teacher_of(config.enhance) in (NOBODY, RULES["teacher"], OF_ROWS["teacher"])
    hints = weak and config.enhance.max_iterations > 1
    named = {"judge_model": JUDGE} if judge else {}
    named |= {"teacher_model": TEACHER} if hints else {}
    changed = config.enhance.model_copy(update={**named, "judge_mode": "cascade"})
    usd, _ = loop_usd(changed, config.model, rows, judged_share=1.0 if judge else 0.5)
    flags = " ".join(f"--{name.replace('_', '-')} {ref}" for name, ref in named.items())
    price = "at a price that is not known" if usd is None else f"about {usd:.2g} USD"
    role = "judge" if judge else "teacher"
    return (
        f"Name one: {flags} ({price} for {rows} rows by list prices; --estimate measures it), or "
        f"{_OTHERS.format(role=role)}. Rows go to a vendor only where its model is named: a key alone sends nothing."
    )

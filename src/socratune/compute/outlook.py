"""What the loop can bring, before anything runs: whether rules can judge these answers, and whether anybody hints."""

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
from socratune.llm import NOBODY, RULES, resolve_alias, teacher_of
from socratune.resolve import Resolved
from socratune.rows import QARow
from socratune.runs import STAGES, Results, RunDir, iter_rows
from socratune.teaching import parse_product

log = logging.getLogger(__name__)

LOOKED_AT = 200
"""Of so many rows the references are looked at, spread over the data set: the share is known to about 7 points."""
JUDGE, TEACHER = "gpt-4o-mini", "anthropic/max"
"""The guide's models, named where somebody needs one."""
_OTHERS = "NAME with --{role}-api-base URL (a server of your own), local/NAME (in this process) or python:FILE.py:F"


_JUDGES = ("enhance.judge_model", "enhance.judge_mode")
_UNSEEN = (
    "The rows are yet to be written, and rules alone are to judge the answers. Where these are words, and no numbers "
    "or choices, rules cannot, and the loop will not begin without a --judge-model. What was written is kept."
)


@dataclass(frozen=True, slots=True)
class LoopOutlook:
    """What a look at the rows found.

    Attributes:
        faults: why the loop cannot come to anything.
        notices: what it will not do, and what to give for it.
    """

    faults: tuple[Fault, ...] = ()
    notices: tuple[str, ...] = ()


def loop_outlook(resolved: Resolved, *, restart: str | None = None, anew: bool = False) -> LoopOutlook:
    """The outlook of a run whose loop is still to come; empty where it is done, or its rows are not written yet.

    Args:
        restart: the first stage that will be redone.
        anew: the loop begins at this moment, whatever stands of it in the results.

    Raises:
        UserError: the data set is damaged.
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
    if begun in ("running", "interrupted", "stopped"):  # it goes on as it began
        faults = []
    if not faults:
        ways = "" if notices else f" {_ways(config, total, judge=False)}"
        notices += _of_teacher(config, rows, ways, given)
    return LoopOutlook(tuple(faults), tuple(notices))


def look_at_rows(resolved: Resolved) -> None:
    """`loop_outlook` at the moment the loop begins, of rows that were only just written: its notices go to the log.

    Raises:
        UserError: its faults.
    """
    outlook = loop_outlook(resolved, anew=True)
    if outlook.faults:
        raise UserError(*outlook.faults)
    for text in outlook.notices:
        log.warning("%s", text)


def _some_rows(config: RunConfig, *, anew: bool) -> tuple[list[QARow], int]:
    """Rows spread over all there are, and how many these are; none where they are not written yet."""
    run = RunDir(config.output)
    if run.rows("train_in").exists() and not anew:
        with run.rows("train_in").open("rb") as stream:
            total = sum(1 for _ in stream)
        every: Iterator[QARow] = iter_rows(run.rows("train_in"), QARow.from_json)
    elif config.writes_rows:
        return [], 0
    else:
        found = data_set(data_path(config.dataset))
        total, every = found.reading.rows, found.rows()
    step = max(1, -(-total // LOOKED_AT))
    return list(islice(every, 0, None, step)), total


def _rules_alone(config: RunConfig) -> bool:
    """Whether no model and no function judges besides the rules."""
    loop = config.enhance
    return loop.judge_mode == "mechanical" or resolve_alias(loop.judge_model) == RULES["judge"]


def _of_judge(config: RunConfig, rows: Sequence[QARow], total: int, given: set[str]) -> tuple[list[Fault], list[str]]:
    """What rules alone make of these references; nothing where a model or a function judges as well."""
    if not _rules_alone(config):
        return [], []
    decided = sum(can_judge(row.question, row.reference) for row in rows)
    found = f"rules, which can tell right from wrong in {decided} of {len(rows)} rows"
    if decided < len(rows) / 2 and given.isdisjoint(_JUDGES):
        fix = (
            f"{_ways(config, total, judge=True)} Or --judge-model {RULES['judge']}, where a right answer is the "
            "reference word for word: whatever else is said stays undecided, and is neither hinted at nor trained on."
        )
        return [Fault("enhance.judge_model", "a judge that can decide these answers", Shown(found), fix)], []
    if decided < len(rows) * (1 - config.validate_.gate.max_undecided_share):
        text = f"The judge is {found}: the others stay undecided, untrained, and at their worst in the proof."
        return [], [f"{text} {_ways(config, total, judge=True)}"]
    return [], []


def _of_teacher(config: RunConfig, rows: Sequence[QARow], ways: str, given: set[str]) -> list[str]:
    """Whether hints can be expected; `ways`: who could give them."""
    loop, teacher = config.enhance, teacher_of(config.enhance)
    if loop.max_iterations == 1:
        return []
    samples = f"{loop.attempts} samples" if loop.attempts > 1 else "one sample"
    alone = (
        f"what the student gets right by itself in {samples} (enhance.attempts) is trained on, the rest is left out "
        f"(rejection sampling).{ways}"
    )
    if teacher == NOBODY and "enhance.teacher_model" not in given:
        return [f"No teacher is named, so nobody hints: {alone}"]
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
    """The flags that name somebody who can, and what the guide's models would cost."""
    hints = teacher_of(config.enhance) in (NOBODY, RULES["teacher"]) and config.enhance.max_iterations > 1
    named = {"judge_model": JUDGE} if judge else {}
    named |= {"teacher_model": TEACHER} if hints else {}
    asked = config.enhance.model_copy(update={**named, "judge_mode": "cascade"})
    usd, _ = loop_usd(asked, config.model, rows, judged_share=1.0 if judge else 0.5)
    flags = " ".join(f"--{name.replace('_', '-')} {ref}" for name, ref in named.items())
    price = "at a price that is not known" if usd is None else f"about {usd:.2g} USD"
    role = "judge" if judge else "teacher"
    return (
        f"Name one: {flags} ({price} for {rows} rows by list prices; --estimate measures it), or "
        f"{_OTHERS.format(role=role)}. Rows go to a vendor only where its model is named: a key alone sends nothing."
    )

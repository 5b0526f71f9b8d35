"""Draws a blind sample of a run's answers for a person to label, and reads the labels for an audit of the judge."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratune.errors import Fault, Shown, UserError
from socratune.evaluation.audit import SIDES, Labelled, Reported, Side
from socratune.judging import Judge
from socratune.rows import CUT_OFF, Judgement, QARow
from socratune.runs import Journal, Results, RunDir, read_rows


@dataclass(frozen=True, slots=True)
class Answer:
    """Holds an answer of a finished validation. Its `id` does not reveal its side."""

    id: str
    row: QARow
    side: Side
    response: str
    judgement: Judgement

    @property
    def truncated(self) -> bool:
        """Returns True if it was cut off at the limit of tokens, which counts as wrong and is not judged."""
        return self.judgement.judged_by in CUT_OFF.values()


def run_answers(folder: Path) -> list[Answer]:
    """Returns the answers of base and adapter in a run's finished validation.

    Raises:
        UserError: the run has no finished validation.
    """
    run = RunDir(folder)
    key = Results(run).stage("validate").get("key") if run.results.exists() else None
    answers: list[Answer] = []
    if key and run.journal.exists():
        rows = read_rows(run.rows("held_out"), QARow.from_json)
        journal = Journal(run.journal)
        try:
            for side in SIDES:
                found = list(journal.rows(f"validate.{key}.{side}"))
                complete = len(found) == len(rows)
                answers += [_answer(row, side, data) for row, data in zip(rows, found, strict=False) if complete]
        finally:
            journal.close()
    if {answer.side for answer in answers} != set(SIDES):
        fix = f"Run it first: socratune validate {folder}."
        raise UserError(Fault(str(folder), "a run with a finished validation", Shown("none"), fix))
    return answers


def _answer(row: QARow, side: Side, data: dict[str, Any]) -> Answer:
    name = hashlib.sha256(f"{side}/{row.id}/{data['response']}".encode("utf-8", "replace")).hexdigest()[:12]
    return Answer(name, row, side, data["response"], Judgement(data["verdict"], data["judged_by"]))


def draw_audit_sheet(folder: Path, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Draws answers of a run for a person to label: half base, half adapter, shuffled, without their side.

    `label` is null and becomes true or false. `id` links the row to its side again. Undecided answers are left out,
    because they have no verdict to check.

    Raises:
        UserError: the run has no finished validation, or fewer answers than requested.
    """
    generator = random.Random(seed)
    judged = (answer for answer in run_answers(folder) if not answer.truncated)
    answers = [answer for answer in judged if answer.judgement.verdict != "undecided"]
    drawn: list[Answer] = []
    for side, share in zip(SIDES, (count // 2, count - count // 2), strict=True):
        of_side = [answer for answer in answers if answer.side == side]
        if not 0 < share <= len(of_side):
            got = Shown(f"{share} of the {len(of_side)} judged answers of the {side}")
            raise UserError(Fault("--rows", f"a number from 2 to twice the answers of each side in {folder}", got))
        drawn += generator.sample(of_side, share)
    generator.shuffle(drawn)
    return [
        {
            "id": answer.id,
            "question": answer.row.question,
            "reference": answer.row.reference,
            "response": answer.response,
            "label": None,
        }
        for answer in drawn
    ]


def read_labels(path: Path, folder: Path | None = None) -> list[Labelled]:
    """Returns the labelled answers of a JSONL file. Rows whose `label` is null are not labelled yet and are left out.

    Args:
        folder: the run whose `audit_sheet` was labelled. Its ids give each row's side.

    Raises:
        UserError: all errors of the file at once.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fix = "Write one with: socratune audit-judge RUN --sheet labels.jsonl."
        raise UserError(Fault(str(path), "a JSONL file of labelled answers", Shown(str(error)), fix)) from None
    sides: dict[str, Side] = {answer.id: answer.side for answer in run_answers(folder)} if folder else {}
    faults: list[Fault] = []
    labelled: list[Labelled] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found = _parsed(line, f"{path}, line {number}", sides)
            if isinstance(found, list):
                faults += found
            elif found is not None:
                labelled.append(found)
    if faults:
        raise UserError(*faults)
    if not labelled:
        fix = 'Set "label" to true where the response is right, and to false where it is wrong.'
        raise UserError(Fault(str(path), "at least one labelled answer", Shown("none"), fix))
    return labelled


def _parsed(line: str, where: str, sides: Mapping[str, Side]) -> Labelled | list[Fault] | None:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        return [Fault(where, "one JSON object per line", Shown(f"{error.msg} at column {error.colno}"))]
    if not isinstance(data, dict):
        return [Fault(where, 'an object with "question", "reference", "response" and "label"', data)]
    faults = []
    for name in ("question", "reference", "response"):
        if not isinstance(data.get(name), str):
            faults.append(Fault(where, f'"{name}" to be a text', data.get(name, Shown("nothing"))))
    label, side = data.get("label", Shown("nothing")), data.get("side")
    if label is not None and not isinstance(label, bool):
        faults.append(Fault(where, '"label" to be true, false, or null (not labelled yet)', label))
    if side is not None and side not in SIDES:
        faults.append(Fault(where, '"side" to be base or adapter', side))
    elif side is None and sides and (side := sides.get(str(data.get("id")))) is None:
        faults.append(Fault(where, '"id" to be one of the sheet of this run', data.get("id", Shown("nothing"))))
    if faults:
        return faults
    if label is None:
        return None
    turns = [{"role": "user", "content": data["question"]}, {"role": "assistant", "content": data["reference"]}]
    return Labelled(QARow(where, turns, {}), data["response"], label, side)


def reported_by(folder: Path) -> dict[Side, Reported]:
    """Returns the result of a run's validation by side, for `audit` to correct. Undecided answers are left out.

    Raises:
        UserError: the run has no finished validation.
    """
    reported: dict[Side, Reported] = {}
    known = run_answers(folder)
    for side in SIDES:
        answers = [answer for answer in known if answer.side == side]
        verdicts = [answer.judgement.verdict for answer in answers if not answer.truncated]
        correct, incorrect = verdicts.count("correct"), verdicts.count("incorrect")
        reported[side] = Reported(correct, correct + incorrect, len(answers) - len(verdicts))
    return reported


def recorded_judge(folder: Path) -> Judge:
    """Returns the judge of a finished validation, which repeats its recorded verdicts without a call.

    An answer from outside that run is undecided.

    Raises:
        UserError: the run has no finished validation.
    """
    known = {(a.row.question, a.row.reference, a.response): a.judgement for a in run_answers(folder)}

    async def judge(row: QARow, response: str) -> Judgement:
        return known.get((row.question, row.reference, response), Judgement("undecided", "none", "not of this run"))

    return judge

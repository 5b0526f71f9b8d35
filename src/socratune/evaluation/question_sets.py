"""Reads the proof's questions besides the held-out ones: the user's own prompts, and those that test forgetting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from socratune.config import DEMO, DEMO_DATA
from socratune.data import FaultTally, parse_row, read_qa_rows
from socratune.errors import Fault, Shown, UserError
from socratune.rows import QARow, content_id, unique_ids
from socratune.runs import json_decode

WRITE_PROMPTS = 'Write each as {"prompt": "…", "expected": "…"}; a file of another name is read as one prompt a line.'
SHIPPED = Path(__file__).parents[1] / "neutral_data"


def read_prompts(name: str) -> list[QARow]:
    """Returns the prompts of a file as rows. A prompt without an expected answer has the reference "".

    In a file named `.jsonl`, each line is an object with `prompt` and optionally `expected`, or a row in the format of
    `--dataset`. In any other file, each line that is not blank is a prompt.

    Raises:
        UserError: every kind of invalid line, once, with line numbers; a missing file; a file without prompts.
    """
    path = Path(name)
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "bytes that are not UTF-8"
        raise UserError(Fault(f"--prompts {path}", "a readable text or JSONL file", Shown(reason))) from None
    rows: list[QARow] = []
    faults = FaultTally(str(path))
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found = _parsed(line, f"{path}, line {number}") if path.suffix == ".jsonl" else _row(line.strip(), "")
            if isinstance(found, QARow):
                rows.append(found)
            else:
                faults.add(f"line {number}", [replace(fault, fix=fault.fix or WRITE_PROMPTS) for fault in found])
    if faults.rows:
        raise UserError(*faults.faults)
    if not rows:
        raise UserError(Fault(f"--prompts {path}", "at least one prompt", Shown("an empty file"), WRITE_PROMPTS))
    return list(unique_ids(rows))


def _parsed(line: str, where: str) -> QARow | list[Fault]:
    try:
        data: Any = json_decode(line)
    except ValueError as error:
        return [Fault(where, "one JSON object per line", Shown(str(error)), WRITE_PROMPTS)]
    if (
        not isinstance(data, dict)
        or isinstance(data.get("prompt", []), list)
        or data.keys() & {"completion", "response"}
    ):
        return parse_row(data, where)
    expected = data.get("expected")
    prompt = data["prompt"]
    if not isinstance(expected, str | int | float | None) or not isinstance(prompt, str) or not prompt.strip():
        return [Fault(where, '"prompt" and, if it is to be judged, "expected" as text', data, WRITE_PROMPTS)]
    return _row(prompt, "" if expected is None else str(expected))


def _row(prompt: str, expected: str) -> QARow:
    turns = _turns(prompt, expected)
    return QARow(content_id(turns), turns, {})


def _turns(prompt: str, expected: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": expected}]


def forgetting_rows(name: str | None) -> list[QARow]:
    """Returns the questions: the 450 shipped ones, those of the embedded model (`demo`), or the user's own data set.

    Raises:
        UserError: rows of that data set are unreadable.
    """
    if name is not None:
        found = read_qa_rows(DEMO_DATA / "probe.jsonl" if name == DEMO else Path(name))
        if found.faults:
            raise UserError(*found.faults)
        return found.rows
    return [
        QARow(data["id"], data["messages"], {"check": data["check"], "stratum": data["stratum"]})
        for data in _shipped("forgetting.jsonl")
    ]


def meter_rows() -> list[QARow]:
    """Returns the 206 shipped neutral prompts, without a reference."""
    rows = _shipped("meter_prompts.jsonl")
    return [QARow(data["id"], _turns(data["prompt"], ""), {}) for data in rows]


def _shipped(name: str) -> list[dict[str, Any]]:
    return [json_decode(line) for line in (SHIPPED / name).read_text("utf-8").splitlines()]

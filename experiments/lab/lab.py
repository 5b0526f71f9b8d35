"""The settings of a run on the laboratory's base, and the judge and the teachers that know its rows.

A run names the functions from `judge` on as `python:experiments/lab/lab.py:FUNCTION`. The rows they know are those of
`data/train.jsonl`, which `rows.py` writes.
"""

from __future__ import annotations

import os
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from socratune.errors import Fault, Shown, UserError
from socratune.resolve import flatten
from socratune.runs.folder import read_jsonl

HERE = Path(__file__).resolve()
DATA = HERE.parent / "data"
SHIPPED = HERE.parent / "base"
PLACE = "SOCRATUNE_LAB"
"""Environment variable with the folder of the base."""


def base_folder(given: str | None = None) -> Path:
    """Where the laboratory's base is: as given, else by `SOCRATUNE_LAB`, else beside this file.

    Raises:
        UserError: there is none.
    """
    folder = Path(given or os.environ.get(PLACE) or SHIPPED)
    if (folder / "config.json").is_file():
        return folder
    fix = "It is experiments/lab/base of the repository: --base FOLDER, or SOCRATUNE_LAB; pretrain.py makes another."
    raise UserError(Fault("--base", "a folder with the laboratory's base", Shown(f"no model in {folder}"), fix))


def function(name: str) -> str:
    """A function of this file as a run's settings name it."""
    return f"python:{HERE}:{name}"


def settings(base: Path, output: Path, *, data: Path = DATA) -> dict[str, Any]:
    """Settings of a run on the laboratory's base by dotted key; `data` holds `train.jsonl` and `held_out.jsonl`."""
    return flatten(yaml.safe_load((DATA / "profile.yaml").read_text("utf-8"))) | {
        "model": str(base),
        "dataset": str(data / "train.jsonl"),
        "output": str(output),
        "split.held_out": str(data / "held_out.jsonl"),
        "enhance.judge_model": function("judge"),
        "enhance.teacher_model": function("right_hint"),
        "validate.forgetting": str(DATA / "pool.jsonl"),
    }


# --- the judge and the teachers ------------------------------------------------------------------------------------


def judge(question: str, reference: str, response: str) -> bool:
    """Right is what stands behind the last `Answer:`, letter for letter; asked where the rules cannot tell."""
    said = response.rpartition("Answer:")[2] if "Answer:" in response else ""
    return said.strip().rstrip(".").casefold() == reference.casefold()


def right_hint(question: str, reference: str, responses: list[str]) -> str | None:
    """A right hint of the row, another one in the next round; None for a question of others."""
    return _in_turn(_hints("hints").get(question), responses)


def corrupted_hint(question: str, reference: str, responses: list[str]) -> str | None:
    """The hint with a name or a number that is not in the text."""
    return _in_turn(_hints("wrong_hints").get(question), responses)


def other_problems_hint(question: str, reference: str, responses: list[str]) -> str | None:
    """A right hint of another row: the same one for the same question and round."""
    others = [hints for asked, hints in _hints("hints").items() if hints and asked != question]
    digest = sha256(f"{question}/{len(responses)}".encode()).digest()
    return _in_turn(others[int.from_bytes(digest[:8], "big") % len(others)], responses)


def try_again(question: str, reference: str, responses: list[str]) -> str:
    """The bare retry."""
    return "Try again."


def _in_turn(hints: list[str] | None, responses: list[str]) -> str | None:
    return hints[len(responses) // 2 % len(hints)] if hints else None  # two more responses each round


@cache
def _hints(name: str) -> dict[str, list[str]]:
    """The hints of the training rows by their question."""
    return {row["messages"][-2]["content"]: row["metadata"][name] for row in read_jsonl(DATA / "train.jsonl")}

"""The laboratory: a small base that reads short texts, its data set, its judge and its teachers.

`experiments/lab` makes base and rows and says what they are. The functions below `judge` are named in a run as
`python:FILE:FUNCTION`, FILE being this one (`function`); the rows they know are those of `train.jsonl` beside it.
"""

from __future__ import annotations

import os
import random
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from socratune.errors import Fault, Shown, UserError
from socratune.gate import proof_of
from socratune.resolve import flatten
from socratune.rundir import read_jsonl, write_jsonl

LAB_DATA = Path(__file__).parent / "lab_data"
SHIPPED = Path(__file__).parent.parent.parent / "experiments" / "lab" / "base"
"""In a clone; 11 MB that an installed package does without."""
PLACE = "SOCRATUNE_LAB"
"""Environment variable with the folder of the base."""


def base_folder(given: str | None = None) -> Path:
    """Where the laboratory's base is: as given, else by `SOCRATUNE_LAB`, else in the clone that this code runs from.

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
    return f"python:{Path(__file__)}:{name}"


def settings(base: Path, output: Path, *, data: Path = LAB_DATA) -> dict[str, Any]:
    """Settings of a run on the laboratory's base by dotted key; `data` holds `train.jsonl` and `held_out.jsonl`."""
    return flatten(yaml.safe_load((LAB_DATA / "profile.yaml").read_text("utf-8"))) | {
        "model": str(base),
        "dataset": str(data / "train.jsonl"),
        "output": str(output),
        "split.held_out": str(data / "held_out.jsonl"),
        "enhance.judge_model": function("judge"),
        "enhance.teacher_model": function("right_hint"),
        "validate.forgetting": str(LAB_DATA / "pool.jsonl"),
    }


def plant_hopeless(folder: Path, *, train: int, held_out: int, seed: int) -> None:
    """Write the laboratory's data into `folder` with the answers dealt anew among questions of one kind.

    What a question asks then has nothing to do with its answer: nobody can learn it, and luck is all that is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("held_out", held_out)):
        rows = [row for row in read_jsonl(LAB_DATA / f"{name}.jsonl") if "family" in row["metadata"]][:count]
        write_jsonl(folder / f"{name}.jsonl", shuffled_answers(rows, seed))


def shuffled_answers(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The rows with their reference answers dealt anew among rows of one family and kind; no row keeps its own.

    In a plain shuffle of few rows many do, and what is left of the truth can be learnt: with 160 held-out rows in 14
    kinds the gate saw a gain of 3.8 points, and was right. Rows that no other answer is left for are dropped.
    """
    rng = random.Random(seed)
    kinds: dict[Any, list[int]] = {}
    for at, row in enumerate(rows):
        kinds.setdefault((row["metadata"].get("family"), row["metadata"].get("kind")), []).append(at)
    dealt: dict[int, str] = {}
    for places in kinds.values():
        answers = [rows[at]["messages"][-1]["content"] for at in places]
        given = zip(places, answers, _deranged(answers, rng), strict=True)
        dealt |= {at: answer for at, own, answer in given if answer != own}
    return [
        {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": dealt[at]}]}
        for at, row in enumerate(rows)
        if at in dealt
    ]


def _deranged(answers: list[str], rng: random.Random) -> list[str]:
    """The answers in an order in which none stands where it or its like stood, as far as there is one."""
    dealt = rng.sample(answers, len(answers))
    for at, own in enumerate(answers):
        if dealt[at] == own:
            others = [o for o, theirs in enumerate(answers) if own not in (theirs, dealt[o])]
            if others:
                other = rng.choice(others)
                dealt[at], dealt[other] = dealt[other], dealt[at]
    return dealt


def refused_for_no_gain(results: dict[str, Any]) -> bool:
    """Whether the gate refused a run because the adapter was not proven better; `results`: its results file."""
    proof = proof_of(results)
    return proof is not None and not proof.passed and proof.comparison.get("passed") is False


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
    return {row["messages"][-2]["content"]: row["metadata"][name] for row in read_jsonl(LAB_DATA / "train.jsonl")}

"""Derives tests from answers, for a validation and for a later check, and reads and writes the files of answers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from socratune.config import StudentTeacherConfig, ValidateConfig
from socratune.environments import environment_judge
from socratune.errors import Fault, Shown, UserError
from socratune.evaluation.comparison import compare_answers, samples
from socratune.evaluation.forgetting import non_inferiority
from socratune.evaluation.gate import Tests
from socratune.judging import Judge, mechanical_judge
from socratune.llm import OF_ROWS, RULES, resolve_alias
from socratune.rows import CUT_OFF, QARow, Verdict
from socratune.runs import RunDir, json_decode, read_rows

Rows = dict[str, list[QARow]]
"""Questions by paper."""
Sides = dict[str, dict[str, list[dict[str, Any]]]]
"""Answers by paper and side."""
_CHECKED_BY = ("source", "stratum", "kind", "check")
"""Keys of a row's metadata that decide how its answer is checked and counted."""


def tests_on_answers(rows: Rows, said: Sides, config: ValidateConfig, seed: int) -> Tests:
    """Returns the numbers of all tests that rest on answers, by name. Papers without answers have no test."""
    asked, answers = rows["held_out"], said["held_out"]["adapter"]
    silent = sum(not answer["response"] for answer in answers)
    own = "prompts" in rows
    shown = asked[: config.prompts], answers[: config.prompts]
    if own:
        shown = rows["prompts"], said["prompts"]["adapter"]
    tests: Tests = {
        "basic_inference": {
            "passed": silent <= len(answers) / 2,
            "response_length": len(answers[0]["response"]),
            "silent": silent,
            **_looped(said["held_out"]),
        },
        "prompt_responses": [_prompt(row, answer, own) for row, answer in zip(*shown, strict=True)],
    }
    for name, test in (("held_out", "base_comparison"), ("recall", "recall")):
        if name in rows:
            tests[test] = compare_answers(rows[name], said[name]["base"], said[name]["adapter"], config, seed)
    if "forgetting" in rows:
        tests["forgetting"] = non_inferiority(
            rows["forgetting"],
            said["forgetting"]["base"],
            said["forgetting"]["adapter"],
            margin=config.gate.max_forgetting,
            draws=config.bootstrap_draws,
            seed=seed,
        )
    return tests


def _looped(said: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns `looped`: side → number of answers stopped for repeating themselves; empty without any."""
    counts = {
        side: sum(one.get("stop") == "loop" for each in all_ for one in samples(each)) for side, all_ in said.items()
    }
    return {"looped": counts} if any(counts.values()) else {}


def _prompt(row: QARow, answer: dict[str, Any], own: bool) -> dict[str, Any]:
    """Returns a test prompt, the user's `own` or held out, with its verdict if an answer is expected."""
    verdict = answer["verdict"] if row.reference else "not_judged"
    return {
        "prompt": row.question,
        "own": own,
        "expected": row.reference or None,
        "response": answer["response"],
        "verdict": verdict,
        "judged_by": answer.get("judged_by") if row.reference else None,
        "passed": verdict == "correct" if verdict in ("correct", "incorrect") else None,
    }


def judge_warnings(asking: StudentTeacherConfig) -> list[str]:
    """Warns about a judge that also chose the training data, because it may prefer the adapter's style."""
    judge = resolve_alias(asking.judge_model)
    if rules_say(asking) == "all" or judge.startswith("python:"):
        return []
    return [
        f"{judge} judged here and chose the traces that were trained on. Is it kinder to the adapter? "
        "socratune audit-judge RUN --sheet FILE tells."
    ]


# --- the files of answers ------------------------------------------------------------------------------------------


def checked_answer_rows(rows: list[QARow], kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the `answer_rows` of questions that are in no file of the run, each with the check of its answer."""
    return [
        {**one, "metadata": {key: row.metadata[key] for key in _CHECKED_BY if key in row.metadata}}
        for row, one in zip(rows, kept, strict=True)
    ]


def read_answers(path: Path) -> tuple[list[QARow], dict[str, list[dict[str, Any]]]]:
    """Returns the questions of a file of answers, and the answers by side.

    Raises:
        UserError: the file is missing, or a line differs from what a validation writes.
    """
    read = read_rows(path, _answered)
    return [row for row, _ in read], {side: [answers[side] for _, answers in read] for side in ("base", "adapter")}


def _answered(data: dict[str, Any]) -> tuple[QARow, dict[str, dict[str, Any]]]:
    texts = [data[name] for name in ("id", "question", "reference")]
    metadata = data.get("metadata", {})
    if not all(isinstance(text, str) for text in texts) or not isinstance(metadata, dict):
        raise ValueError("expected id, question and reference as text")
    for side in ("base", "adapter"):
        for sample in samples(data[side]):
            if not isinstance(sample["response"], str) or sample["verdict"] not in get_args(Verdict):
                raise ValueError(f"expected a response and a verdict of {side}")
    row_id, question, reference = texts
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": reference}]
    return QARow(row_id, turns, metadata), {side: data[side] for side in ("base", "adapter")}


def journal_answers(run: RunDir, key: str, paper: str) -> dict[str, list[dict[str, Any]]] | None:
    """Returns a validation's answers from the journal, or None if it has none. The journal is only read.

    Raises:
        UserError: the journal is corrupt.
    """
    if not run.journal.is_file():
        return None
    inner = "" if paper == "held_out" else f"{paper}."
    query = "SELECT value FROM rows WHERE stage = ? ORDER BY position"
    found: dict[str, list[dict[str, Any]]] = {}
    path = run.journal.resolve()
    log = Path(f"{path}-wal")
    how = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"  # the latter creates no file there
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?{how}", uri=True)) as db:
            for side in ("base", "adapter"):
                found[side] = [json_decode(value) for (value,) in db.execute(query, (f"validate.{key}.{inner}{side}",))]
                for sample in (sample for answer in found[side] for sample in samples(answer)):
                    if not isinstance(sample["response"], str) or sample["verdict"] not in get_args(Verdict):
                        raise ValueError(f"an answer of {side}")
    except (sqlite3.Error, ValueError, LookupError, TypeError, AttributeError) as error:
        got = Shown(f"{type(error).__name__}: {error}")
        raise UserError(Fault(str(run.journal), "the journal of the run", got)) from None
    return found if all(found.values()) else None


# --- the verdicts again --------------------------------------------------------------------------------------------

RulesSay = Literal["all", "first", "nothing"]
_RULES = ("exact", "numeric", "choice", "math", "check", "environment")
"""Names of rules in `judged_by`."""


@dataclass(frozen=True, slots=True)
class Flip:
    """Holds a verdict that the rules now give differently: of sample `number` of a side's answer at position `at`."""

    at: int
    side: str
    number: int
    verdict: Verdict


def rules_say(asking: StudentTeacherConfig) -> RulesSay:
    """Returns whether all verdicts come from rules, only those that rules can decide, or none."""
    if asking.judge_mode == "mechanical" or resolve_alias(asking.judge_model) in (RULES["judge"], OF_ROWS["judge"]):
        return "all"
    return "first" if asking.judge_mode == "cascade" else "nothing"


def judge_again(asking: StudentTeacherConfig) -> Judge:
    """Returns the rules that can judge again: those of an environment if they judged, else the mechanical judge."""
    by_environment = asking.judge_mode != "mechanical" and resolve_alias(asking.judge_model) == OF_ROWS["judge"]
    return environment_judge if by_environment else mechanical_judge


def flipped(
    rows: list[QARow], said: dict[str, list[dict[str, Any]]], judge: Judge, *, all_by_rules: bool
) -> list[Flip]:
    """Returns the verdicts that this version's rules give differently.

    Args:
        judge: the rules: `check_judge` for forgetting, else `judge_again`.
        all_by_rules: only rules have judged, so what they leave undecided is undecided.
    """
    return asyncio.run(_flipped(rows, said, judge, all_by_rules))


async def _flipped(
    rows: list[QARow], said: dict[str, list[dict[str, Any]]], judge: Judge, all_by_rules: bool
) -> list[Flip]:
    found = []
    for side, at, number, sample in _every(said):
        by = sample.get("judged_by")
        if by == CUT_OFF.get(sample.get("stop", "length")) and sample["verdict"] == "incorrect":
            continue  # it was cut off, so no judge saw it
        rules = await judge(rows[at], sample["response"])
        by_rules_alone = (all_by_rules or by in _RULES) and by != "math"  # the math extra may be missing here
        if rules.verdict != sample["verdict"] and (rules.verdict != "undecided" or by_rules_alone):
            found.append(Flip(at, side, number, rules.verdict))
    return found


def _every(said: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, int, int, dict[str, Any]]]:
    for side, answers in said.items():
        for at, answer in enumerate(answers):
            for number, sample in enumerate(samples(answer)):
                yield side, at, number, sample


def turned(said: dict[str, list[dict[str, Any]]], flips: Sequence[Flip]) -> dict[str, list[dict[str, Any]]]:
    """Returns a copy of the answers with the verdicts that the rules give."""
    again = {
        side: [{**answer, "more": [dict(one) for one in answer.get("more", [])]} for answer in answers]
        for side, answers in said.items()
    }
    for flip in flips:
        samples(again[flip.side][flip.at])[flip.number]["verdict"] = flip.verdict
    return again

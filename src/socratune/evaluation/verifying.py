"""Verifies a run folder: derives the verdict again from its answers, and compares its files with their hashes.

    files ── are they the pinned ones, and do they agree with each other? ───────┐
    answers ── rules judge again ── comparison, recall, forgetting ── gate ──────┴─→ what does not agree

What a validation measured with the model (speed, divergence from the base, public tasks) is accepted as pinned. A
falsehood that is consistent in every file cannot be told from the truth: docs/security.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from socratune.config import RunConfig, ValidateConfig
from socratune.errors import Fault, Shown, UserError
from socratune.evaluation.deriving import (
    Rows,
    Sides,
    flipped,
    journal_answers,
    judge_again,
    judge_warnings,
    read_answers,
    rules_say,
    tests_on_answers,
    turned,
)
from socratune.evaluation.differences import differences
from socratune.evaluation.folder_checks import folder_faults, not_pinned_before
from socratune.evaluation.forgetting import check_judge
from socratune.evaluation.gate import Proof, Tests, proof_of, verdict_on
from socratune.evaluation.pinning import rules_mark
from socratune.evaluation.question_sets import forgetting_rows
from socratune.rows import Example, QARow
from socratune.runs import PROVENANCE, Pin, RunDir, iter_rows, read_pins, read_rows

_DERIVED = ("basic_inference", "base_comparison", "recall", "forgetting")
_MEASURED = ("performance", "meters", "lm_eval")
"""Tests that need the model. Their stored results are used."""


@dataclass(slots=True)
class Verification:
    """Holds what a run folder claims about its adapter, and what its files show.

    Attributes:
        claimed: the verdict in the results.
        proof: the verdict derived again; the claimed verdict if there is nothing to derive it from.
        faults: what does not agree, in full sentences; empty if everything agrees.
        remarks: what a reader must know about a verdict that agrees.
        pinned: True if the test was pinned before the training.
    """

    claimed: Proof
    proof: Proof
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    pinned: bool = False

    @property
    def agrees(self) -> bool:
        return not self.faults


def verify_run(run: RunDir, config: RunConfig, results: dict[str, Any]) -> Verification | None:
    """Verifies a run with a finished validation, and returns None without one. Writes nothing, calls no model.

    Args:
        config: the settings of `config.yaml`.
        results: the contents of `pipeline_results.json`.

    Raises:
        UserError: a file cannot be read.
    """
    claimed = claimed_proof(run, results)
    if claimed is None:
        return None
    pins = read_pins(run / PROVENANCE) if (run / PROVENANCE).is_file() else []
    found = Verification(claimed, claimed)
    try:
        found.faults += folder_faults(run, config, results, pins, claimed)
        _derive(run, config, results, {one.what: one for one in pins}, found)
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError, RecursionError) as error:
        # a file may hold anything instead of a number or a check
        got = Shown(f"{type(error).__name__}: {error}")
        raise UserError(Fault(str(run.results), "the tests of a validation", got)) from None
    if reason := not_pinned_before(pins):
        found.remarks.append(reason)
    found.pinned = not reason
    found.remarks += _changed_conditions(pins)
    return found


def claimed_proof(run: RunDir, results: dict[str, Any]) -> Proof | None:
    """Returns the outcome of the validation as the results state it.

    Raises:
        UserError: the stored outcome is invalid.
    """
    try:
        proof = proof_of(results)
        if proof is None:
            return None
        texts = [*proof.reasons, *proof.warnings]
        if proof.status not in ("passed", "failed") or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"status {proof.status!r}")
        if not all(isinstance(proof.tests[name], dict) for name in proof.tests if name != "prompt_responses"):
            raise ValueError("tests that are none")
        sha256 = proof.files
        if not all(isinstance(text, str) for pair in sha256.items() for text in pair):
            raise ValueError("hashes that are none")
        return proof
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        got = Shown(f"{type(error).__name__}: {error}")
        raise UserError(Fault(str(run.results), "the outcome of a validation", got)) from None


# --- from the answers ----------------------------------------------------------------------------------------------


def _derive(run: RunDir, config: RunConfig, results: dict[str, Any], pins: dict[str, Pin], found: Verification) -> None:
    """Sets the proof derived from the answers, and adds where the claimed proof differs."""
    claimed, proof = found.claimed, partial(_proof, run, config)
    pinned = pins["proof"].content if "proof" in pins else {}
    if "base_comparison" not in claimed.tests:
        found.proof = proof({"file_integrity": claimed.tests["file_integrity"]})
    else:
        rows, said = _read(run, config, results, found, pinned)
        if "held_out" not in rows:
            return  # answers to other questions prove nothing
        tests = tests_on_answers(rows, said, config.validate_, config.seed)
        found.proof = proof(_joined(claimed.tests, tests, own_prompts=config.validate_.prompts_file is not None))
        found.faults += differences(
            {name: claimed.tests[name] for name in _DERIVED if name in claimed.tests}, tests, exact=_same_numpy(pinned)
        )
        _judge_again(config, rows, said, pinned.get("rules") == rules_mark(), found, proof)
    ours, theirs = found.proof, claimed
    if ours.status != theirs.status:
        why = f": {ours.reason}" if ours.reasons else "."
        found.faults.append(f"It says {theirs.status}, but its answers come to {ours.status}{why}")
    elif len(ours.reasons) != len(theirs.reasons):
        found.faults.append(f"It gives {len(theirs.reasons)} reasons, but its answers come to {len(ours.reasons)}.")
    elif ours.reasons != theirs.reasons:
        found.remarks.append(f"It tells its reasons otherwise than this version does: {ours.reason}")


def _same_numpy(pinned: dict[str, Any]) -> bool:
    """Returns True if the intervals were drawn by this numpy version, which draws the same."""
    return pinned.get("numpy") == np.__version__


def _proof(run: RunDir, config: RunConfig, tests: Tests) -> Proof:
    taught = run.rows("train")
    examples = iter_rows(taught, Example.from_json) if taught.is_file() else iter(())
    knowledge_rows = sum(example.outcome == "solved_with_evidence" for example in examples)
    noted = judge_warnings(config.enhance)
    return verdict_on(tests, config.validate_.gate, knowledge_rows=knowledge_rows, noted=noted)


def _joined(stored: Tests, derived: Tests, *, own_prompts: bool) -> Tests:
    """Returns the derived tests in the order of the stored tests, with the stored results that need the model."""
    names = [*(name for name in stored if name in derived), *(name for name in derived if name not in stored)]
    kept = {name: stored[name] for name in ("file_integrity", *_MEASURED) if name in stored}
    tests = {**{name: derived[name] for name in names}, **kept}
    if own_prompts:  # additional answers, which are no condition
        tests["prompt_responses"] = stored.get("prompt_responses", [])
    if "forgetting" not in derived and "forgetting" in stored:
        tests["forgetting"] = stored["forgetting"]
    return {name: tests[name] for name in (*stored, *tests) if name in tests}


def _read(
    run: RunDir, config: RunConfig, results: dict[str, Any], found: Verification, pinned: dict[str, Any]
) -> tuple[Rows, Sides]:
    """Returns the questions and the answers of all papers from which a test can be derived."""
    rows: Rows = {}
    said: Sides = {}
    key = str(results["stages"].get("validate", {}).get("key"))
    for name in ("held_out", "recall", "forgetting"):
        path = run.rows(f"{name}_answers")
        if name not in ("held_out", "recall") and not path.is_file():
            rows |= _asked_elsewhere(run, config, key, said, found)
            continue
        if name == "recall" and not path.is_file() and "recall" not in found.claimed.tests:
            continue
        answered, answers = read_answers(path)
        asked = read_rows(run.rows(name), QARow.from_json) if name != "forgetting" else answered
        if not asked or [_asks(row) for row in asked] != [_asks(row) for row in answered]:
            found.faults.append(f"{path.name} answers other questions than {name}.jsonl asks.")
            continue
        said[name], rows[name] = answers, asked
        recorded = journal_answers(run, key, name)
        if recorded is None or any(len(recorded[side]) != len(asked) for side in recorded):
            continue
        pairs = [pair for side in recorded for pair in zip(answers[side], recorded[side], strict=True)]
        if changed := sum(not _alike(one, other) for one, other in pairs):
            found.faults.append(f"{changed} answers of {path.name} are not those that journal.sqlite has recorded.")
        elif not pinned:
            said[name] = recorded  # includes who judged, and all samples, which older files lack
    return rows, said


def _asked_elsewhere(run: RunDir, config: RunConfig, key: str, said: Sides, found: Verification) -> Rows:
    """Returns the forgetting questions of an older run, which keeps their answers only in its journal."""
    if "forgetting" not in found.claimed.tests:
        return {}
    recorded = journal_answers(run, key, "forgetting")
    try:
        rows = forgetting_rows(config.validate_.forgetting)
    except UserError:  # the user's file no longer exists
        rows = []
    if recorded is None or any(len(recorded[side]) != len(rows) for side in recorded):
        found.remarks.append("Forgetting is taken as it was stored: this run has kept no answers of it.")
        return {}
    said["forgetting"] = recorded
    return {"forgetting": rows}


def _asks(row: QARow) -> tuple[str, str, str]:
    return row.id, row.question, row.reference


def _alike(answer: dict[str, Any], recorded: dict[str, Any]) -> bool:
    return all(answer[name] == recorded.get(name) for name in ("response", "verdict"))


def _judge_again(config: RunConfig, rows: Rows, said: Sides, same_rules: bool, found: Verification, proof: Any) -> None:
    """Lets the rules judge again if they can. A different verdict is an error, or due to another version's rules."""
    by_rules, judge, flips, again = rules_say(config.enhance), judge_again(config.enhance), {}, dict(said)
    for name, answers in said.items():
        checks = name == "forgetting"
        if by_rules == "nothing" and not checks:
            continue
        judged = [at for at, row in enumerate(rows[name]) if not (checks and _has_pattern(row.metadata.get("check")))]
        some = {side: [each[at] for at in judged] for side, each in answers.items()}
        asked = [rows[name][at] for at in judged]
        changed = flipped(asked, some, check_judge if checks else judge, all_by_rules=checks or by_rules == "all")
        if changed:
            flips[name] = [replace(flip, at=judged[flip.at]) for flip in changed]
            again[name] = turned(answers, flips[name])
    if by_rules == "nothing":
        found.remarks.append("A model judged every answer: only its recorded verdicts were counted again.")
    if not flips:
        return
    told = ", ".join(f"{len(some)} of {name}_answers.jsonl" for name, some in flips.items())
    if same_rules:
        found.faults.append(f"Verdicts are not those that the rules give: {told}.")
        return
    tests = tests_on_answers(rows, again, config.validate_, config.seed)
    anew = proof(_joined(found.claimed.tests, tests, own_prompts=True))
    text = f"The rules of this version judge otherwise: {told}"
    if anew.status == found.proof.status:
        found.remarks.append(f"{text}. The verdict stays the same.")
    else:
        found.faults.append(f"{text}; the verdict would then be {anew.status}. {anew.reason}".rstrip())


def _has_pattern(check: Any) -> bool:
    """Returns True if a check contains a pattern by its author, which could be built to take hours."""
    if isinstance(check, dict):
        return check.get("kind") == "regex" or any(map(_has_pattern, check.get("checks") or []))
    return check is not None


def answers_differ(folder: Path, proof: Proof, config: ValidateConfig, seed: int) -> list[str]:
    """Returns where a published comparison differs from the result of the published answers to the held-out questions.

    Raises:
        UserError: a file cannot be read.
    """
    run = RunDir(folder)
    asked = read_rows(run.rows("held_out"), QARow.from_json)
    answered, said = read_answers(run.rows("held_out_answers"))
    if not asked or [_asks(row) for row in asked] != [_asks(row) for row in answered]:
        return ["held_out_answers.jsonl answers other questions than held_out.jsonl asks."]
    tests = tests_on_answers({"held_out": asked}, {"held_out": said}, config, seed)
    stored = {name: proof.tests[name] for name in ("basic_inference", "base_comparison") if name in proof.tests}
    return differences(stored, tests, exact=False)


def _changed_conditions(pins: Sequence[Pin]) -> Iterator[str]:
    """Yields the conditions that were different before the training."""
    gates = {one.what: one.content.get("gate") for one in pins}
    before, after = gates.get("held_out"), gates.get("proof")
    if isinstance(before, dict) and isinstance(after, dict):
        changed = [name for name in after if before.get(name) != after[name]]
        if changed:
            told = ", ".join(f"{name} {before.get(name)} → {after[name]}" for name in changed)
            yield f"Conditions were changed after the test was fixed: {re.sub(r'[^ -~→]', '?', told)[:300]}."

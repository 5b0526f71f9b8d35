"""validate: is the adapter better than its base on questions neither has seen, and has it unlearnt nothing?

The guide's five checks, each real, and forgetting as the sixth. What they measure goes to `gate.py`, which decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

from socratune.config import StudentTeacherConfig, ValidateConfig
from socratune.evaluation import (
    EXAMS,
    Answered,
    Paper,
    Proof,
    Sitting,
    answer_rows,
    answering_manner,
    compare_answers,
    exam_papers,
    file_integrity,
    non_inferiority,
    recorded_answers,
    take_exam,
    verdict_on,
)
from socratune.llm import RULES, UNLIMITED, Base, Ledger, Limits, resolve_alias
from socratune.rows import QARow
from socratune.runs import Journal, RunDir, StageResult, read_rows, write_jsonl
from socratune.teaching import assemble_cast

log = logging.getLogger(__name__)


async def validate_adapter(
    run: RunDir,
    config: ValidateConfig,
    base: Base,
    *,
    asking: StudentTeacherConfig,
    knowledge_rows: int,
    spent: dict[str, Any],
    limits: Limits = UNLIMITED,
    journal: Journal,
    key: str,
    tick: Callable[[int, int], None],
) -> StageResult:
    """Compare base and adapter on `held_out.jsonl`; measures, verdict and reasons are in the figures.

    Both are asked greedily; a model that thinks first draws `config.samples` answers per question. What they said where
    the model is (`evaluation.exam`) is judged without asking them again. Writes `held_out_answers.jsonl`, and
    `recall_answers.jsonl` where facts are asked for again.

    Args:
        asking: whose judge holds here too; answers are as long as there at most.
        knowledge_rows: rows that taught a fact; see `gate.verdict_on`.
        spent: by the loop, role by role; the limits are those of loop and proof together.
    """
    rows = read_rows(run.rows("held_out"), QARow.from_json)
    tests: dict[str, Any] = {"file_integrity": file_integrity(run.adapter, base.model_name)}
    if not tests["file_integrity"]["passed"] or not rows:
        return _result(verdict_on(tests, config.gate, knowledge_rows=knowledge_rows), rows)
    from socratune.inference import LocalModels

    ledger = Ledger(limits)
    ledger.carry_over(spent)
    # for a judge, also of the base's weights: PEFT puts the adapter into the base itself
    with closing(LocalModels(load_in_4bit=base.load_in_4bit)) as local:
        people = assemble_cast(asking, stage="validate", journal=journal, ledger=ledger, local=local.load)
        try:
            papers = {paper.name: paper for paper in exam_papers(run, config, people.judge)}
            how = answering_manner(base, config, asking)
            sitting = Sitting(papers, how, journal, key, asking.concurrency, tick)
            if record := recorded_answers(run, papers, how, base, config):
                measured = await record.examine(sitting)
            else:
                measured = await take_exam(sitting, run.adapter, base, config)
        finally:
            await people.close()
    answers = sitting.answers
    for name in EXAMS & papers.keys():
        write_jsonl(
            run.rows(f"{name}_answers"), answer_rows(papers[name].rows, answers[name]["base"], answers[name]["adapter"])
        )
    tests |= _tests(papers, answers, config, base.seed) | measured
    proof = verdict_on(tests, config.gate, knowledge_rows=knowledge_rows, noted=_judge_warnings(asking))
    result = _result(proof, rows)
    own = {role: took for role, took in ledger.summary().items() if role not in spent}
    return replace(result, figures=result.figures | ({"spent": own} if own else {}))


def _tests(papers: dict[str, Paper], answers: Answered, config: ValidateConfig, seed: int) -> dict[str, Any]:
    """The figures of all tests that rest on answers, by name."""
    rows, said = papers["held_out"].rows, answers["held_out"]["adapter"]
    silent = sum(not answer["response"] for answer in said)
    own = papers.get("prompts")
    shown = (own.rows, answers["prompts"]["adapter"]) if own else (rows[: config.prompts], said[: config.prompts])
    tests: dict[str, Any] = {
        "basic_inference": {
            "passed": silent <= len(said) / 2,
            "response_length": len(said[0]["response"]),
            "silent": silent,
        },
        "prompt_responses": [_prompt(row, answer, own is not None) for row, answer in zip(*shown, strict=True)],
        "base_comparison": _compared("held_out", papers, answers, config, seed),
    }
    if "recall" in papers:
        tests["recall"] = _compared("recall", papers, answers, config, seed)
    tests["forgetting"] = non_inferiority(
        papers["forgetting"].rows,
        answers["forgetting"]["base"],
        answers["forgetting"]["adapter"],
        margin=config.gate.max_forgetting,
        draws=config.bootstrap_draws,
        seed=seed,
    )
    return tests


def _compared(
    name: str, papers: dict[str, Paper], answers: Answered, config: ValidateConfig, seed: int
) -> dict[str, Any]:
    return compare_answers(papers[name].rows, answers[name]["base"], answers[name]["adapter"], config, seed)


def _prompt(row: QARow, answer: dict[str, Any], own: bool) -> dict[str, Any]:
    """A test prompt, the user's `own` or held out, with its verdict; none where no answer is expected."""
    verdict = answer["verdict"] if row.reference else "not_judged"
    return {
        "prompt": row.question,
        "own": own,
        "expected": row.reference or None,
        "response": answer["response"],
        "verdict": verdict,
        "judged_by": answer["judged_by"] if row.reference else None,
        "passed": verdict == "correct" if verdict in ("correct", "incorrect") else None,
    }


def _judge_warnings(asking: StudentTeacherConfig) -> list[str]:
    """A model that chose what was trained on may like the adapter for its manner."""
    judge = resolve_alias(asking.judge_model)
    if judge == RULES["judge"] or judge.startswith("python:") or asking.judge_mode == "mechanical":
        return []
    return [
        f"{judge} judged here and chose the traces that were trained on. Is it kinder to the adapter? "
        "socratune audit-judge RUN --sheet FILE tells."
    ]


def _result(proof: Proof, rows: list[QARow]) -> StageResult:
    for text in proof.warnings:
        log.warning("%s", text)
    figures = {"validation": proof.to_json()}
    return StageResult(rows_in=len(rows), rows_out=len(rows), figures=figures, failure=proof.reason or None)

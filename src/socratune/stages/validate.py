"""validate: compares the adapter with its base on questions that neither has seen, and measures forgetting.

It runs the guide's five checks, and forgetting as the sixth. `gate.py` decides on what they measure.
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
    Proof,
    Sitting,
    answer_rows,
    answering_manner,
    checked_answer_rows,
    exam_papers,
    file_integrity,
    judge_warnings,
    recorded_answers,
    take_exam,
    tests_on_answers,
    verdict_on,
)
from socratune.llm import UNLIMITED, Base, Ledger, Limits
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
    """Compares base and adapter on `held_out.jsonl`. Measures, verdict and reasons are in the figures.

    Both answer greedily; a model that thinks first draws `config.samples` answers per question. Recorded answers
    (`evaluation.exam`) are judged without asking again. Writes `held_out_answers.jsonl`, `forgetting_answers.jsonl`,
    and `recall_answers.jsonl` if facts are asked again.

    Args:
        asking: the loop's settings, whose judge and answer length hold here too.
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
    # A judge of the base's weights needs them loaded again, as PEFT puts the adapter into the base itself.
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
    rows_of = {name: paper.rows for name, paper in papers.items()}
    _write_answers(run, rows_of, answers)
    tests |= tests_on_answers(rows_of, answers, config, base.seed) | measured
    proof = verdict_on(tests, config.gate, knowledge_rows=knowledge_rows, noted=judge_warnings(asking))
    result = _result(proof, rows)
    own = {role: took for role, took in ledger.summary().items() if role not in spent}
    return replace(result, figures=result.figures | ({"spent": own} if own else {}))


def _write_answers(run: RunDir, rows_of: dict[str, list[QARow]], answers: Answered) -> None:
    """Writes all answers from which the verdict can be derived again."""
    for name in (*EXAMS, "forgetting"):
        path = run.rows(f"{name}_answers")
        path.unlink(missing_ok=True)
        if name in rows_of:
            rows, answered = rows_of[name], answers[name]
            kept = answer_rows(rows, answered["base"], answered["adapter"])
            write_jsonl(path, checked_answer_rows(rows, kept) if name == "forgetting" else kept)


def _result(proof: Proof, rows: list[QARow]) -> StageResult:
    for text in proof.warnings:
        log.warning("%s", text)
    figures = {"validation": proof.to_json()}
    return StageResult(rows_in=len(rows), rows_out=len(rows), figures=figures, failure=proof.reason or None)

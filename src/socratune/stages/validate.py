"""validate: is the adapter better than its base on questions neither has seen, and has it unlearnt nothing?

The guide's five checks, each real, and forgetting as the sixth. What they measure goes to `gate.py`, which decides.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from socratune import forgetting
from socratune.answering import answer_and_judge, behind
from socratune.comparison import answer_rows, compared
from socratune.config import StudentTeacherConfig, ValidateConfig
from socratune.errors import StageFailed
from socratune.gate import refusals, warnings
from socratune.integrity import file_integrity
from socratune.journal import Journal
from socratune.judge import Judge
from socratune.ledger import Ledger
from socratune.lm_tasks import task_results
from socratune.modelref import Base
from socratune.performance import performance
from socratune.questions import forgetting_rows, meter_rows, read_prompts
from socratune.roles import RULES, cast, resolve_alias
from socratune.rows import QARow
from socratune.rundir import RunDir, StageResult, read_rows, write_jsonl
from socratune.sampling import is_thinking

log = logging.getLogger(__name__)

SIDES = ("base", "adapter")
EXAMS = {"held_out", "recall"}
"""Papers on which the adapter has to gain; a model that thinks first draws several answers to each question."""

Answered = dict[str, dict[str, list[dict[str, Any]]]]
"""The answers by paper and side."""


@dataclass(frozen=True, slots=True)
class Paper:
    """A set of questions with its judge; `of` says who is asked, `longest` bounds the answer of a model that does not
    think first, in tokens.
    """

    name: str
    rows: list[QARow]
    judge: Judge
    of: tuple[str, ...] = SIDES
    longest: int = sys.maxsize


async def run(
    run: RunDir,
    config: ValidateConfig,
    base: Base,
    *,
    asking: StudentTeacherConfig,
    knowledge_rows: int,
    spent: dict[str, Any],
    journal: Journal,
    key: str,
    tick: Callable[[int, int], None],
) -> StageResult:
    """Compare base and adapter on `held_out.jsonl`; measures, verdict and reasons are in the figures.

    Both are asked greedily; a model that thinks first draws `config.samples` answers per question. Writes
    `held_out_answers.jsonl`, and `recall_answers.jsonl` where facts are asked for again.

    Args:
        asking: whose judge and limits hold here too; answers are as long as there at most.
        knowledge_rows: rows that taught a fact; see `gate.refusals`.
        spent: by the loop, role by role; the limits are those of the whole run.
    """
    rows = read_rows(run.rows("held_out"), QARow.from_json)
    tests: dict[str, Any] = {"file_integrity": file_integrity(run.adapter, base.model_name)}
    if not tests["file_integrity"]["passed"]:
        return _result(tests, rows, refusals(tests, config.gate, knowledge_rows=knowledge_rows))
    if not rows:
        return _result(tests, rows, ["No held-out rows: nothing can be proven. Raise split.held_out_share."])
    from socratune.local_models import LocalModels

    ledger = Ledger(asking.max_usd, asking.max_total_tokens)
    ledger.carry_over(spent)
    # for a judge, also of the base's weights: PEFT puts the adapter into the base itself
    with closing(LocalModels(load_in_4bit=base.load_in_4bit)) as local:
        people = cast(asking, stage="validate", journal=journal, ledger=ledger, local=local.load)
        try:
            papers = {paper.name: paper for paper in _papers(run, config, rows, people.judge)}
            examine = partial(_examine, journal=journal, key=key, tick=tick)
            answers, measured = await examine(papers, run.adapter, base, config, asking)
        finally:
            await people.close()
    for name in EXAMS & papers.keys():
        write_jsonl(
            run.rows(f"{name}_answers"), answer_rows(papers[name].rows, answers[name]["base"], answers[name]["adapter"])
        )
    tests |= _tests(papers, answers, config, base.seed) | measured
    refused = refusals(tests, config.gate, knowledge_rows=knowledge_rows)
    return _result(tests, rows, refused, [*warnings(tests, knowledge_rows=knowledge_rows), *_judge_warnings(asking)])


def _papers(run: RunDir, config: ValidateConfig, rows: list[QARow], judge: Judge) -> Iterator[Paper]:
    yield Paper("held_out", rows, judge)
    if run.rows("recall").exists() and (recall := read_rows(run.rows("recall"), QARow.from_json)):
        yield Paper("recall", recall, judge)
    short = forgetting.LONGEST_ANSWER
    yield Paper("forgetting", forgetting_rows(config.forgetting), forgetting.check_judge, longest=short)
    if config.forgetting is None:  # a user's own questions serve the meters too
        yield Paper("meter", meter_rows(), forgetting.no_judge, longest=short)
    if config.prompts_file:
        yield Paper("prompts", read_prompts(config.prompts_file), judge, of=("adapter",))


async def _examine(
    papers: dict[str, Paper],
    adapter: Path,
    base: Base,
    config: ValidateConfig,
    asking: StudentTeacherConfig,
    *,
    journal: Journal,
    key: str,
    tick: Callable[[int, int], None],
) -> tuple[Answered, dict[str, Any]]:
    """Base and adapter at their papers, one after the other, and what is measured while the adapter is loaded.

    Raises:
        StageFailed: PEFT refuses the adapter.
    """
    from peft import PeftModel

    from socratune.backends import hf
    from socratune.student import LocalStudent, serving

    model, tokenizer = hf.load(base.model_name, load_in_4bit=base.load_in_4bit)
    answers: Answered = {name: {} for name in papers}
    total, done = sum(len(paper.rows) * len(paper.of) for paper in papers.values()), 0
    measured: dict[str, Any] = {}
    for who in SIDES:
        if who == "adapter":
            try:
                model = PeftModel.from_pretrained(model, adapter).eval()
            except (RuntimeError, ValueError, KeyError, TypeError) as error:  # what `base_problems` does not know of
                reason = " ".join(str(error).split())[:300]
                raise StageFailed(f"PEFT cannot put the adapter on {base.model_name}: {reason}.") from error
        with serving(LocalStudent(model, tokenizer, name=who, fingerprint=key)) as student:
            exam = student.exam_sampling(asking.max_new_tokens)
            for paper in (paper for paper in papers.values() if who in paper.of):
                longest = exam.max_new_tokens if student.thinking else min(paper.longest, exam.max_new_tokens)
                answers[paper.name][who] = await answer_and_judge(
                    paper.rows,
                    student,
                    paper.judge,
                    replace(exam, max_new_tokens=longest),
                    journal=journal,
                    # `audit_sheet` reads the held-out answers by this name
                    key=f"{key}.{who}" if paper.name == "held_out" else f"{key}.{paper.name}.{who}",
                    concurrency=asking.concurrency,
                    tick=behind(tick, done, total),
                    samples=config.samples if exam.temperature > 0 and paper.name in EXAMS else 1,
                )
                done += len(paper.rows)
            if who == "adapter":
                measured["performance"] = await performance(student, papers["held_out"].rows, exam)
    neutral = papers["meter" if "meter" in papers else "forgetting"]
    said = answers[neutral.name]
    measured["meters"] = forgetting.meters(
        model, tokenizer, neutral.rows, said["base"], said["adapter"], thinking=is_thinking(tokenizer.chat_template)
    )
    if config.lm_eval:
        measured["lm_eval"] = task_results(model, tokenizer, config.lm_eval)
    return answers, measured


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
    tests["forgetting"] = forgetting.non_inferiority(
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
    return compared(papers[name].rows, answers[name]["base"], answers[name]["adapter"], config, seed)


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


def _result(
    tests: dict[str, Any], rows: list[QARow], reasons: list[str], warned: list[str] | None = None
) -> StageResult:
    validation: dict[str, Any] = {"status": "failed" if reasons else "passed", "tests": tests, "warnings": warned or []}
    failure = " ".join(reasons) or None
    if failure:
        validation |= {"reason": failure, "reasons": reasons}
    for text in validation["warnings"]:
        log.warning("%s", text)
    return StageResult(rows_in=len(rows), rows_out=len(rows), figures={"validation": validation}, failure=failure)

"""The arm `gepa`: an instruction evolved for the money of the reference's loop, then asked as any prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from socratune.config import RunConfig
from socratune.inference import LocalModels
from socratune.llm import NOBODY, TEACHER_SAMPLING, Ledger, Limits, endpoints_of, reached_model, teacher_of
from socratune.rows import QARow
from socratune.runs import Journal, RunDir, fingerprint
from socratune.teaching import answer_and_judge, assemble_cast, evolve_instruction


def evolved_prompt(
    run: RunDir, config: RunConfig, train: Sequence[QARow], dev: Sequence[QARow], *, calls: int
) -> tuple[str, dict[str, Any]]:
    """The instruction, and what judge and reflecting model were paid by role; all answers are kept in the journal.

    The teacher reflects where it is a model, else the student itself.

    Raises:
        StageFailed: the package `gepa` is not installed.
        BudgetSpent: finished calls are kept.
    """
    limits = Limits(config.budget.enhance, config.enhance.max_total_tokens, raised_by="--budget-usd USD")
    ledger, loop = Ledger(limits), config.enhance
    with (
        closing(Journal(run.journal)) as journal,
        asyncio.Runner() as runner,
        LocalModels(load_in_4bit=config.train.load_in_4bit) as models,
    ):
        kept: dict[str, Any] = {"journal": journal, "ledger": ledger, "local": models.load}
        people = assemble_cast(loop, stage="validate", **kept)
        student, ref = models.load(config.model), teacher_of(loop)
        if ref == NOBODY or ref.startswith(("rules/", "python:")):
            ref = f"local/{config.model}"
        wise = reached_model(ref, endpoints_of(loop)["teacher"], TEACHER_SAMPLING, role="validate.teacher", **kept)
        people.models.extend(wise.connected)

        def answer(rows: list[QARow]) -> list[dict[str, Any]]:
            asked = answer_and_judge(
                rows,
                student,
                people.judge,
                student.exam_sampling(loop.max_new_tokens),
                journal=journal,
                key=f"validate.{fingerprint([row.to_json() for row in rows])}",
                concurrency=loop.concurrency,
                tick=lambda done, total: None,
            )
            return runner.run(asked)

        def reflect(prompt: str) -> str:
            return runner.run(wise.model.generate([{"role": "user", "content": prompt}], wise.sampling)).text

        try:
            found = evolve_instruction(train, dev, answer, reflect, calls=calls, seed=config.seed)
        finally:
            runner.run(people.close())
    return found, ledger.summary()

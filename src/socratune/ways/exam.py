"""Sets of questions, answered by the base or with an adapter, and judged as the proof of a run would judge them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from socratune.config import RunConfig
from socratune.llm import Ledger, Limits
from socratune.rows import QARow
from socratune.runs import Journal, RunDir, Tick, file_hash, fingerprint, write_text
from socratune.teaching import answer_and_judge, assemble_cast, counted_from

_WEIGHTS = "adapter_model.safetensors"

Sets = Mapping[str, list[QARow]]


def examined(run: RunDir, config: RunConfig, sets: Sets, adapter: Path | None, tick: Tick) -> dict[str, Any]:
    """`right`: name of the set → for each row whether its answer is right; `spent` by the judge.

    An undecided answer counts as wrong, for every arm alike. Kept in `exam.json`; answers of an exam that was cut short
    are in the journal.

    Raises:
        BudgetSpent: the judge would go over the limit.
    """
    weights = file_hash(adapter / _WEIGHTS) if adapter else "base"
    key = fingerprint(weights, {name: [row.to_json() for row in rows] for name, rows in sets.items()})
    path = run / "exam.json"
    if path.exists() and (found := json.loads(path.read_text("utf-8")))["key"] == key:
        return found
    found = {"key": key, **asyncio.run(_sit(run, config, sets, adapter, key, tick))}
    write_text(path, json.dumps(found))
    return found


async def _sit(
    run: RunDir, config: RunConfig, sets: Sets, adapter: Path | None, key: str, tick: Tick
) -> dict[str, Any]:
    from socratune.inference import LocalModels, LocalStudent, load_model, serving_student

    limits = Limits(config.budget.enhance, config.enhance.max_total_tokens, raised_by="--budget-usd USD")
    ledger = Ledger(limits)
    journal = Journal(run.journal)
    local = LocalModels(load_in_4bit=config.train.load_in_4bit)
    people = assemble_cast(config.enhance, stage="validate", journal=journal, ledger=ledger, local=local.load)
    total = sum(len(rows) for rows in sets.values())
    answers: dict[str, list[dict[str, Any]]] = {}
    done = 0
    try:
        model, tokenizer = load_model(config.model, adapter=adapter, load_in_4bit=config.train.load_in_4bit)
        with serving_student(LocalStudent(model, tokenizer, name=run.root.name, fingerprint=key)) as student:
            for name, rows in sets.items():
                answers[name] = await answer_and_judge(
                    rows,
                    student,
                    people.judge,
                    student.exam_sampling(config.enhance.max_new_tokens),
                    journal=journal,
                    key=f"validate.{key}.{name}",
                    concurrency=config.enhance.concurrency,
                    tick=counted_from(tick, done, total),
                )
                done += len(rows)
    finally:
        await people.close()
        local.close()
        journal.close()
    right = {name: [answer["verdict"] == "correct" for answer in some] for name, some in answers.items()}
    return {"right": right, "spent": ledger.summary()}

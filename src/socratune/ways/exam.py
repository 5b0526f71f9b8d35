"""Sets of questions, answered by the base or with an adapter, and judged like the proof of a run."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from socratune.config import RunConfig
from socratune.llm import NOBODY, TEACHER_SAMPLING, Ledger, Limits, endpoints_of, reached_model, teacher_of
from socratune.rows import QARow
from socratune.runs import Journal, RunDir, Tell, Tick, file_hash, fingerprint, write_text
from socratune.teaching import answer_and_judge, assemble_cast, counted_from, evolve_instruction

_WEIGHTS = "adapter_model.safetensors"

Sets = Mapping[str, list[QARow]]


def examined(run: RunDir, config: RunConfig, sets: Sets, adapter: Path | None, tick: Tick) -> dict[str, Any]:
    """Returns `right`, which maps the name of a set to whether the answer to each row is right, and what the judge
    `spent`.

    An undecided answer counts as wrong, for every arm alike. The result is kept in `exam.json`; the answers of an
    interrupted exam are in the journal.

    Raises:
        BudgetSpent: the judge would exceed the limit.
    """
    weights = file_hash(adapter / _WEIGHTS) if adapter else "base"
    key = fingerprint(weights, {name: [row.to_json() for row in rows] for name, rows in sets.items()})
    path = run / "exam.json"
    if path.exists() and (known := json.loads(path.read_text("utf-8")))["key"] == key:
        return known
    exam = {"key": key, **asyncio.run(_sit(run, config, sets, adapter, key, tick))}
    write_text(path, json.dumps(exam))
    return exam


@contextmanager
def telling(tell: Tell, name: str) -> Iterator[Tick]:
    """Yields a tick that reports work outside the stages as if it were a stage."""
    began = time.monotonic()

    def tick(done: int, total: int, /, **live: Any) -> None:
        entry = {"done": done, "total": total, "seconds": time.monotonic() - began, **live}
        tell("tick", name, entry)

    tell("begin", name, {})
    try:
        yield tick
    finally:
        tell("done", name, {})


def arm_ledger(config: RunConfig) -> Ledger:
    """Returns a ledger with the limits of an arm."""
    return Ledger(Limits(config.budget.enhance, config.enhance.max_total_tokens, raised_by="--budget-usd USD"))


async def _sit(
    run: RunDir, config: RunConfig, sets: Sets, adapter: Path | None, key: str, tick: Tick
) -> dict[str, Any]:
    from socratune.inference import LocalModels, LocalStudent, load_model, serving_student

    ledger = arm_ledger(config)
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
    right = {name: [answer["verdict"] == "correct" for answer in rows] for name, rows in answers.items()}
    return {"right": right, "spent": ledger.summary()}


# --- the arm `gepa` -----------------------------------------------------------------------------------------------


def evolved_prompt(
    run: RunDir, config: RunConfig, train: Sequence[QARow], dev: Sequence[QARow], *, calls: int
) -> tuple[str, dict[str, Any]]:
    """Returns the instruction, and what judge and reflecting model cost by role. The journal keeps all answers.

    The teacher reflects if it is a model, or else the student itself.

    Raises:
        StageFailed: the package `gepa` is not installed.
        BudgetSpent: finished calls are kept.
    """
    ledger, loop = arm_ledger(config), config.enhance
    from socratune.inference import LocalModels

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
        reflecting = reached_model(
            ref, endpoints_of(loop)["teacher"], TEACHER_SAMPLING, role="validate.teacher", **kept
        )
        people.models.extend(reflecting.connected)

        def answer(rows: list[QARow]) -> list[dict[str, Any]]:
            answers = answer_and_judge(
                rows,
                student,
                people.judge,
                student.exam_sampling(loop.max_new_tokens),
                journal=journal,
                key=f"validate.{fingerprint([row.to_json() for row in rows])}",
                concurrency=loop.concurrency,
                tick=lambda done, total: None,
            )
            return runner.run(answers)

        def reflect(prompt: str) -> str:
            return runner.run(
                reflecting.model.generate([{"role": "user", "content": prompt}], reflecting.sampling)
            ).text

        try:
            text = evolve_instruction(train, dev, answer, reflect, calls=calls, seed=config.seed)
        finally:
            runner.run(people.close())
    return text, ledger.summary()

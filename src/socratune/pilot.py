"""`--estimate` predicts what a run takes from a pilot of a few rows, whose calls the run does not pay for again."""

from __future__ import annotations

import asyncio
from typing import Any

from socratune.compute import budget_of, settle_placement
from socratune.errors import Fault, Shown, StageFailed, UserError
from socratune.llm import RULES, student_of
from socratune.pipeline import Pipeline, opened, run_stages
from socratune.resolve import Resolved
from socratune.rows import QARow
from socratune.runs import STAGES, Tell, fingerprint
from socratune.stages import estimate_loop, estimate_source, rows_of_shard, trained_rows


def estimate_run(resolved: Resolved, *, tell: Tell) -> dict[str, Any]:
    """Predicts what the loop takes from a pilot of a few rows, in the form that `stages.estimate_loop` returns.

    Where a model is to write the rows first, what that would take is in `generate`, and the loop's pilot has the rows
    of a few passages.

    Raises:
        As `run_pipeline`.
    """
    decision = settle_placement(resolved.config, fits=False)
    engine, _ = student_of(resolved.config.enhance, resolved.config.model)
    if decision.where != "local" and engine != "http":
        fix = "socratune plan says what it takes by arithmetic; or serve it, and give --student-api-base."
        raise UserError(Fault("--estimate", "a student that answers here", Shown(decision.reason), fix))
    with opened(resolved, None) as pipeline:
        pipeline.budget = budget_of(resolved.config, rented=decision.where != "local")
        if _to_be_written(pipeline):
            found = _with_source(pipeline)
        else:
            run_stages(pipeline, STAGES[: STAGES.index("split") + 1], tell)
            rows = list(rows_of_shard(pipeline.run, pipeline.config.shard))
            found = _of_loop(pipeline, rows, len(rows))
        pipeline.results.data["estimate"] = found
        pipeline.note_budget()
        pipeline.results.write()
    return pipeline.results.data


def _to_be_written(pipeline: Pipeline) -> bool:
    """Returns True if a model still has to write the rows."""
    config = pipeline.config.generate
    mechanical = config.writer_model == RULES["writer"] and config.checker_model is None
    return config.source is not None and not mechanical and pipeline.results.stage("generate").get("status") != "done"


def _with_source(pipeline: Pipeline) -> dict[str, Any]:
    """Runs the pilot of a few passages, then that of the loop on their rows."""
    work = estimate_source(
        pipeline.place,
        pipeline.config.generate,
        model_name=pipeline.config.model,
        seed=pipeline.config.seed,
        journal=pipeline.journal,
        key=f"estimate.{pipeline.key('generate')}",
        tick=_untold,
        limits=pipeline.limits("generate"),
    )
    found, rows = asyncio.run(work)
    if not rows:
        raise StageFailed("No question of the pilot stood its checks, so nothing can be said of the loop.")
    total = trained_rows(found["questions"][0], pipeline.config.split)
    return {**_of_loop(pipeline, rows, max(total, 1)), "generate": found}


def _of_loop(pipeline: Pipeline, rows: list[QARow], total: int) -> dict[str, Any]:
    work = estimate_loop(
        pipeline.run,
        rows,
        total,
        pipeline.config.enhance,
        pipeline.base,
        journal=pipeline.journal,
        key=f"estimate.{fingerprint(pipeline.key('enhance'), [row.id for row in rows])}",
        tick=_untold,
        limits=pipeline.limits("enhance"),
    )
    return asyncio.run(work)


def _untold(done: int, total: int, **live: Any) -> None:
    """Ignores the progress of a pilot, which nobody watches."""

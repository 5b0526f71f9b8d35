"""Writes the loop's traces as files for other trainers, from `enhanced_dataset.jsonl` alone.

preference.jsonl   {"prompt": […], "chosen": […], "rejected": […]}       DPO and its kin
sdft.jsonl         {"prompt": […], "privileged_context": "…"}            TRL's self-distillation trainers
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from socratune.rows import Trace
from socratune.runs import RunDir, iter_rows, write_jsonl
from socratune.teaching import last_wrong_answer, rejection


def write_views(run: RunDir, views: Sequence[str]) -> dict[str, int]:
    """Writes the named views into the run folder and returns the number of rows of each."""
    return {view: write_jsonl(run.rows(view), view_rows(run, view)) for view in views}


def view_rows(run: RunDir, view: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a view."""
    for trace in iter_rows(run.enhanced, Trace.from_json):
        if (data := VIEWS[view](trace)) is not None:
            yield {"id": trace.row.id, **data}


def preference(trace: Trace) -> dict[str, Any] | None:
    """Returns the last wrong attempt and the right one, or None for a row that lacks one or is not trained on.

    Both are answers of the student's own, so the pair says what was wrong and not who wrote it.
    """
    wrong = last_wrong_answer(trace)
    if trace.chosen is None or wrong is None or rejection(trace):
        return None
    right = trace.attempts[trace.chosen - 1]
    return {
        "prompt": trace.row.prompt,
        "chosen": [{"role": "assistant", "content": right.response}],
        "rejected": [{"role": "assistant", "content": wrong.text}],
    }


def sdft(trace: Trace) -> dict[str, Any] | None:
    """Returns the question and what the teacher of self-distillation may see: the hint that worked, the evidence, or
    the reference answer. None for a row that the student masters or that could not be judged.
    """
    if trace.pass_rate == 1.0 or trace.outcome in ("undecided", "error"):
        return None
    hints = [attempt.hint for attempt in trace.attempts if attempt.hint is not None]
    context = trace.row.reference
    if trace.outcome == "solved_with_hint" and hints:
        context = hints[-1]
    elif trace.outcome == "solved_with_evidence":
        context = trace.row.evidence or context
    return {"prompt": trace.row.prompt, "privileged_context": context}


VIEWS = {"preference": preference, "sdft": sdft}

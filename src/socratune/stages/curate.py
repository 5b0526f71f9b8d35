"""curate: which traces are trained on. Every dropped row is kept with its reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from socratune.chat import answer_pieces, solved
from socratune.hints import echo
from socratune.rows import Example, Rejected, Trace
from socratune.rundir import RunDir, StageResult, read_jsonl, write_jsonl


def run(run: RunDir, *, mask_wrong_attempts: bool) -> StageResult:
    """Write `train.jsonl` and `train.rejected.jsonl` from `enhanced_dataset.jsonl`."""
    kept, dropped = [], []
    for data in read_jsonl(run.enhanced):
        trace = Trace.from_json(data)
        if reason := rejection(trace):
            dropped.append(Rejected(trace.row.id, *reason, row=data))
            continue
        pieces = answer_pieces(trace, mask_wrong_attempts=mask_wrong_attempts)
        assert pieces is not None
        kept.append(Example(trace.row.id, trace.row.prompt, pieces, trace.outcome))
    write_jsonl(run.rows("train"), (example.to_json() for example in kept))
    write_jsonl(run.rejected("train"), (asdict(item) for item in dropped))
    figures = {"dropped": dict(Counter(item.reason for item in dropped))}
    failure = None if kept else "No trainable row is left."
    return StageResult(rows_in=len(kept) + len(dropped), rows_out=len(kept), figures=figures, failure=failure)


def rejection(trace: Trace) -> tuple[str, str] | None:
    """Reason and detail why a trace is not trained on, or None."""
    if not solved(trace):
        return trace.outcome, trace.error or ""
    hinted = trace.format == "direct" and trace.outcome == "solved_with_hint"
    if hinted and (found := echo(trace.attempts[-1].response, trace.row.question)):
        return "hint_echo", f"speaks of a hint or an earlier attempt: {found!r}"
    return None

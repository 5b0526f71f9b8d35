"""curate: which traces are trained on. Every dropped row is kept with its reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from hashlib import sha256

from socratune.chat import answer_pieces, training_text
from socratune.config import CurateConfig
from socratune.hints import echo
from socratune.rows import Example, Piece, Rejected, Trace
from socratune.rundir import RunDir, StageResult, read_rows, write_jsonl


def run(run: RunDir, config: CurateConfig, *, mask_wrong_attempts: bool) -> StageResult:
    """Write `train.jsonl` and `train.rejected.jsonl` from `enhanced_dataset.jsonl`."""
    traces = read_rows(run.enhanced, Trace.from_json)
    answers = read_rows(run.enhanced, lambda data: data["messages"][-1]["content"])
    over = _over_the_caps([trace for trace in traces if rejection(trace) is None], config)
    kept, dropped = [], []
    for trace, answer in zip(traces, answers, strict=True):
        if reason := rejection(trace) or over.get(trace.row.id):
            dropped.append(Rejected(trace.row.id, *reason, row=trace.to_json(trace.row.reference)))
            continue
        pieces = answer_pieces(trace, mask_wrong_attempts=mask_wrong_attempts)
        assert pieces is not None
        if answer != training_text(trace):  # edited by hand: the words as they stand now
            pieces = (Piece(answer),)
        kept.append(Example(trace.row.id, trace.row.prompt, pieces, trace.outcome))
    write_jsonl(run.rows("train"), (example.to_json() for example in kept))
    write_jsonl(run.rejected("train"), (asdict(item) for item in dropped))
    figures = {"dropped": dict(Counter(item.reason for item in dropped))}
    failure = None if kept else "No trainable row is left."
    return StageResult(rows_in=len(kept) + len(dropped), rows_out=len(kept), figures=figures, failure=failure)


def rejection(trace: Trace) -> tuple[str, str] | None:
    """Reason and detail why a trace is not trained on, or None."""
    if trace.chosen is None:
        return trace.outcome, trace.error or ""
    chosen = trace.attempts[trace.chosen - 1]
    if chosen.given == "question" or trace.format == "iterative":
        return None
    if chosen.given == "hint" and trace.format == "clean":
        return "not_found_unaided", "right with the hint, but in no sample without it"
    if found := echo(chosen.response, trace.row.question):
        return "hint_echo", f"speaks of a hint or an earlier attempt: {found!r}"
    return None


def is_hinted(trace: Trace) -> bool:
    """True where the text that is trained on came with a hint."""
    return trace.chosen is not None and trace.attempts[trace.chosen - 1].given == "hint"


def is_mastered(trace: Trace) -> bool:
    """True where several samples were drawn and all were right."""
    return trace.pass_rate == 1.0 and len(trace.attempts) > 1


def _over_the_caps(traces: list[Trace], config: CurateConfig) -> dict[str, tuple[str, str]]:
    """Ids that are too many of their kind, with the reason. Which ones is decided by the hash of the id."""
    over: dict[str, tuple[str, str]] = {}
    caps = (("hinted", is_hinted, config.max_hinted_share), ("mastered", is_mastered, config.max_mastered_share))
    for kind, belongs, share in caps:
        some = sorted((t.row.id for t in traces if belongs(t)), key=lambda name: sha256(name.encode()).digest())
        others = len(traces) - len(some)
        room = len(some) if share == 1 else round(others * share / (1 - share))
        if others:  # a cap is a share of a mix; where there is nothing else, there is no mix
            for name in some[room:]:
                over[name] = (f"too_many_{kind}", f"at most {share:.0%} of the training rows (curate.max_{kind}_share)")
    return over

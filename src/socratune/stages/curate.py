"""curate: chooses the traces to train on. Every dropped row is kept with its reason.

The traces are read one by one and never held: first to decide, then to write the kept rows, then the dropped ones. A
person's decision about a trace (`review.jsonl`) overrides every choice made here, but no check for leaks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

from socratune.config import CurateConfig
from socratune.rows import Example, Piece, Rejected, Trace
from socratune.runs import (
    Review,
    ReviewDecision,
    RunDir,
    StageResult,
    iter_rows,
    review_decisions,
    write_jsonl,
    write_rejected,
)
from socratune.teaching import answer_pieces, rejection, training_text


def curate_traces(run: RunDir, config: CurateConfig) -> StageResult:
    """Writes `train.jsonl` and `train.rejected.jsonl` from `enhanced_dataset.jsonl`."""
    read = partial(_read, review_decisions(run))
    reviewed: Counter[ReviewDecision] = Counter()
    reasons = _reasons(run, config, read, reviewed)
    students: set[str] = set()
    outcomes: Counter[str] = Counter()
    examples = _kept(run, reasons, read, config.mask_wrong_attempts, students, outcomes)
    kept = write_jsonl(run.rows("train"), (item.to_json() for item in examples))
    dropped = write_rejected(run.rejected("train"), _dropped(run, reasons, read))
    figures: dict[str, Any] = {"dropped": dict(dropped), "students": sorted(students), "reviewed": dict(reviewed)}
    figures["outcomes"] = dict(outcomes)  # of what is kept
    failure = None if kept else "No trainable row is left."
    return StageResult(rows_in=len(reasons), rows_out=kept, figures=figures, failure=failure)


_Row = tuple[Trace, str, ReviewDecision | None]
"""A trace, the assistant's message, and a person's decision about it."""
Read = Callable[[dict[str, Any]], _Row]


def _read(reviews: dict[str, Review], data: dict[str, Any]) -> _Row:
    """Reads a trace with its message: the review's, or else the file's, where a person may have edited it."""
    trace, answer = Trace.from_json(data), data["messages"][-1]["content"]
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError("the last message has no text")
    if trace.chosen is not None and not 1 <= trace.chosen <= len(trace.attempts):
        raise ValueError(f"attempt {trace.chosen} is chosen, there are {len(trace.attempts)}")
    review = reviews.get(trace.row.id)
    if review is None or not review.holds_for(answer):
        return trace, answer, None
    return trace, review.text if review.decision == "edit" and review.text else answer, review.decision


def _kept(
    run: RunDir,
    reasons: list[Rejected | None],
    read: Read,
    mask_wrong_attempts: bool,
    students: set[str],
    outcomes: Counter[str],
) -> Iterator[Example]:
    """Yields what to train on, adds the names of its writers to `students`, and counts `outcomes`."""
    for (trace, answer, _), reason in zip(iter_rows(run.enhanced, read), reasons, strict=True):
        if reason is None:
            pieces = answer_pieces(trace, mask_wrong_attempts=mask_wrong_attempts)
            if pieces is None or _edited(trace, answer) is not None:
                pieces = (Piece(answer),)
            outcomes[trace.outcome] += 1
            students.add(trace.models.get("student_model", "unnamed"))
            yield Example(trace.row.id, trace.row.prompt, pieces, trace.outcome)


def _dropped(run: RunDir, reasons: list[Rejected | None], read: Read) -> Iterator[Rejected]:
    for (trace, *_), reason in zip(iter_rows(run.enhanced, read), reasons, strict=True):
        if reason is not None:
            yield replace(reason, id=trace.row.id, row=trace.to_json(trace.row.reference))


def _edited(trace: Trace, answer: str) -> str | None:
    """Returns the answer if a person has changed it, else None."""
    return None if answer == (training_text(trace) or trace.row.reference) else answer


def _reason(trace: Trace, answer: str, decision: ReviewDecision | None) -> Rejected | None:
    """Returns why a row is dropped before any cap. A person's approval overrides choices, but no leak check."""
    if decision == "reject":
        return Rejected("rejected_in_review", "rejected in review")
    if decision is not None and trace.format == "clean":  # to drop an answer that was not found unaided was a choice
        trace = replace(trace, format="direct")
    return rejection(trace, answer if decision == "edit" else _edited(trace, answer))


def is_hinted(trace: Trace) -> bool:
    """Returns True if the text to train on followed a hint."""
    return trace.chosen is not None and trace.attempts[trace.chosen - 1].given == "hint"


def is_mastered(trace: Trace) -> bool:
    """Returns True if several samples were drawn and all were right."""
    return trace.pass_rate == 1.0 and len(trace.attempts) > 1


def _reasons(run: RunDir, config: CurateConfig, read: Read, reviewed: Counter[ReviewDecision]) -> list[Rejected | None]:
    """Returns why each row is dropped, caps included, and None for kept rows. Counts the decisions in `reviewed`.

    The hash of its id decides which row exceeds a cap. A row that a person accepted never does.
    """
    caps = {"hinted": (is_hinted, config.max_hinted_share), "mastered": (is_mastered, config.max_mastered_share)}
    kinds: dict[str, list[tuple[bytes, int]]] = {kind: [] for kind in caps}  # hash of the id, position
    reasons: list[Rejected | None] = []
    for trace, answer, decision in iter_rows(run.enhanced, read):
        reasons.append(_reason(trace, answer, decision))
        if decision is not None:
            reviewed[decision] += 1
            continue
        for kind, (belongs, _) in caps.items():
            if reasons[-1] is None and belongs(trace):
                kinds[kind].append((sha256(trace.row.id.encode()).digest(), len(reasons) - 1))
    shares = {kind: share for kind, (_, share) in caps.items()}
    room = _room({kind: len(rows) for kind, rows in kinds.items()}, shares, reasons.count(None))
    for kind, rows in kinds.items():
        detail = f"at most {shares[kind]:.0%} of the training rows (curate.max_{kind}_share)"
        for _, at in sorted(rows)[room[kind] :]:
            reasons[at] = Rejected(f"too_many_{kind}", detail)
    return reasons


def _room(counts: dict[str, int], shares: dict[str, float], usable: int) -> dict[str, int]:
    """Returns how many rows of each kind keep all caps at once. What one cap removes counts in no other's mix.

    A cap is a share of a mix, so without other rows there is no cap.
    """
    room = dict(counts)
    free = usable - sum(counts.values())
    while free:
        mix = free + sum(room.values())
        new = {
            kind: count if shares[kind] == 1 else min(count, int((mix - count) * shares[kind] / (1 - shares[kind])))
            for kind, count in room.items()
        }
        if new == room:
            break
        room = new
    return room

"""Keeps a person's decisions about traces: `review.jsonl`, one line per decision; a row's last line counts.

The file is only ever appended to, and belongs to nobody else: a trace can be reviewed while a run holds the folder.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.runs.folder import RunDir

ReviewDecision = Literal["accept", "edit", "reject", "undo"]
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Review:
    """Holds one decision.

    Attributes:
        id: of the row.
        decision: `accept`: train on the answer although curate would leave it out by choice; `edit`: train on `text`;
            `reject`: do not train on it; `undo`: as if nobody had decided.
        text: the answer that is accepted or rejected, as it was seen (another answer to the row is not meant), or the
            new one of an edit. None in an accept or reject means whatever the answer is.
        time: UTC, ISO 8601.
    """

    id: str
    decision: ReviewDecision
    text: str | None
    time: str

    def holds_for(self, answer: str) -> bool:
        """Returns False if the decision was made about another answer than the present one."""
        return self.decision == "edit" or self.text is None or self.text == answer


def record_decision(run: RunDir, row_id: str, decision: ReviewDecision, text: str | None) -> Review:
    """Appends a decision. It is on the disk when this returns.

    Raises:
        OutsideError: it cannot be written.
    """
    review = Review(row_id, decision, text, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    _append(run, review)
    return review


def take_over_reviews(run: RunDir, parts: Iterable[RunDir]) -> None:
    """Appends decisions of other folders about undecided rows, for `socratune merge`.

    Raises:
        UserError: a file of them is damaged.
        OutsideError: they cannot be written.
    """
    known = review_decisions(run)
    for part in parts:
        for row_id, review in review_decisions(part).items():
            if row_id not in known:
                _append(run, review)


def _append(run: RunDir, review: Review) -> None:
    import fcntl

    line = json.dumps(asdict(review)).encode() + b"\n"
    try:
        with run.review.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            whole = run.review.read_bytes().rfind(b"\n") + 1
            stream.truncate(whole)  # what a power cut tore behind it was never told to be kept
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OutsideError(f"{run.review}: cannot be written: {error.strerror}.") from error


def review_decisions(run: RunDir) -> dict[str, Review]:
    """Returns the valid decision by row id. Rows without a decision are absent.

    Raises:
        UserError: a line is no decision; names it. A last line that was cut off by a crash is passed over.
    """
    decisions: dict[str, Review] = {}
    if not run.review.exists():
        return decisions
    try:
        lines = run.review.read_bytes().split(b"\n")
    except OSError as error:
        got = Shown(error.strerror or str(error))
        raise UserError(Fault(str(run.review), "the decisions as the page writes them", got)) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            review = _read(json.loads(line))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            if number == len(lines):
                break
            got = Shown(f"{type(error).__name__}: {error}")
            fix = "Fix or delete the line."
            raise UserError(
                Fault(f"{run.review}, line {number}", "a decision as the page writes it", got, fix)
            ) from None
        decisions.pop(review.id, None)
        if review.decision != "undo":
            decisions[review.id] = review
    return decisions


def _read(data: dict[str, Any]) -> Review:
    row_id, decision, text, when = data["id"], data["decision"], data.get("text"), data.get("time", "")
    if reason := review_fault(row_id, decision, text):
        raise ValueError(reason)
    return Review(row_id, decision, text, when if isinstance(when, str) else "")


def review_fault(row_id: Any, decision: Any, text: Any) -> str:
    """Returns why a line is no decision about a row, or "". Page and file share these rules."""
    known = get_args(ReviewDecision)
    if not isinstance(row_id, str):
        return f"id: expected the id of a row as text, got {type(row_id).__name__}"
    if not isinstance(decision, str) or decision not in known:
        return f"decision: expected one of {', '.join(known)}"
    if text is not None and not isinstance(text, str):
        return f"text: expected text or null, got {type(text).__name__}"
    if decision != "edit":
        return ""  # the text is only compared with the answer that was seen
    if not (text or "").strip():
        return "an edit without text"
    # no tokenizer takes it, and what is trained on is written as UTF-8
    return "text: expected whole characters, got half of a surrogate pair" if _SURROGATE.search(text or "") else ""

"""What a person decided about single traces: `review.jsonl`, one line per decision, the last one of a row counts.

The file is only ever appended to, and belongs to nobody else: a trace can be reviewed while a run holds the folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.runs.folder import RunDir

ReviewDecision = Literal["accept", "edit", "reject", "undo"]


@dataclass(frozen=True, slots=True)
class Review:
    """One decision.

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
        """False where it was said of another answer than the one that stands there now."""
        return self.decision == "edit" or self.text is None or self.text == answer


def record_decision(run: RunDir, row_id: str, decision: ReviewDecision, text: str | None) -> Review:
    """Append a decision; it is on the disk when this returns.

    Raises:
        OutsideError: it cannot be written.
    """
    review = Review(row_id, decision, text, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    _append(run, review)
    return review


def take_over_reviews(run: RunDir, parts: Iterable[RunDir]) -> None:
    """Append the decisions of other folders about rows nobody has decided about here, for `socratune merge`.

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
    """The decision that counts, by row id; rows without one are not in it.

    Raises:
        UserError: a line is no decision; names it. A last line that was cut off by a crash is passed over.
    """
    found: dict[str, Review] = {}
    if not run.review.exists():
        return found
    lines = run.review.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            review = _read(json.loads(line))
        except (ValueError, TypeError, LookupError) as error:
            if number == len(lines):
                break
            got = Shown(f"{type(error).__name__}: {error}")
            fix = "Mend or delete the line."
            raise UserError(
                Fault(f"{run.review}, line {number}", "a decision as the page writes it", got, fix)
            ) from None
        found.pop(review.id, None)
        if review.decision != "undo":
            found[review.id] = review
    return found


def _read(data: dict[str, Any]) -> Review:
    review = Review(data["id"], data["decision"], data.get("text"), data.get("time", ""))
    if not isinstance(review.id, str) or review.decision not in get_args(ReviewDecision):
        raise ValueError(f"decision {review.decision!r} of row {review.id!r}")
    if review.decision == "edit" and not (isinstance(review.text, str) and review.text.strip()):
        raise ValueError("an edit without text")
    return review

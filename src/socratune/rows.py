"""The rows that flow between the stages. Each has a type, and an id derived from its content.

QARow ─enhance→ Trace ─curate→ Example        (and Rejected wherever a row is dropped)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Verdict = Literal["correct", "incorrect", "undecided"]
Outcome = Literal[
    "solved_first_try", "solved_with_evidence", "solved_with_hint", "rewritten", "trained_on_reference",
    "unsolved", "undecided", "error",
]  # fmt: skip
TRAINABLE = ("solved_first_try", "solved_with_evidence", "solved_with_hint", "rewritten", "trained_on_reference")
"""Outcomes that leave something to train on."""
Given = Literal["question", "evidence", "hint", "reference"]
Gap = Literal["knowledge", "skill"]


@dataclass(frozen=True, slots=True)
class QARow:
    """One question with its reference answer, as the user provided it.

    Attributes:
        id: the input's own, else the first 16 hex digits of the sha256 of its messages.
        messages: the conversation; the last message is the assistant's reference answer.
        metadata: everything else the input row said, untouched.
        cluster: rows that may not be parted: never split between train and test, resampled together. Set by split.
    """

    id: str
    messages: list[dict[str, str]]
    metadata: dict[str, Any]
    cluster: str | None = None

    @property
    def prompt(self) -> list[dict[str, str]]:
        """Returns the conversation up to and including the question."""
        return self.messages[:-1]

    @property
    def question(self) -> str:
        """Returns the last user turn."""
        return self.messages[-2]["content"]

    @property
    def reference(self) -> str:
        """Returns the answer that came with the row."""
        return self.messages[-1]["content"]

    @property
    def source(self) -> str | None:
        """Returns the source of the row (`metadata.source`). Rows of one source are never split between train and
        test.
        """
        source = self.metadata.get("source")
        return None if source is None else str(source)

    @property
    def evidence(self) -> str | None:
        """Returns the passage that answers the row (`metadata.evidence` or `metadata.context`), or None."""
        found = self.metadata.get("evidence") or self.metadata.get("context")
        return found if isinstance(found, str) and found.strip() else None

    def to_json(self) -> dict[str, Any]:
        """Returns the JSONL object of the guide, with id and cluster."""
        data = {"id": self.id, "messages": self.messages, "metadata": self.metadata}
        return data if self.cluster is None else {**data, "cluster": self.cluster}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> QARow:
        """Inverts `to_json` for files of our own. A user's file is read by `data`."""
        return cls(data["id"], data["messages"], data["metadata"], data.get("cluster"))


MOST_IDS = 1 << 31
"""An upper bound of token ids. No vocabulary is larger."""
LONGEST_REASON = 300
"""Number of characters of a judge's reason that are kept."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judge's verdict on one answer, and the means by which it was reached."""

    verdict: Verdict
    judged_by: str
    reason: str = ""

    @property
    def kept_reason(self) -> str:
        """Returns the part of the reason to keep. Only an undecided answer has one, so that a person can see what
        would decide it.
        """
        return self.reason.strip()[:LONGEST_REASON] if self.verdict == "undecided" else ""


CUT_OFF = {"length": "truncated", "loop": "looped"}
"""Maps the reason why an answer stopped early to the `by` of its judgement, because no judge is asked then."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of the student. `hint` is what the teacher said *after* the attempt failed, or `None`."""

    attempt: int
    response: str
    verdict: Verdict
    judged_by: str
    hint: str | None = None
    given: Given = "question"
    """What the student saw besides the question: nothing, the evidence, the newest hint, or the reference answer."""
    token_ids: tuple[int, ...] | None = None
    """The token ids that the student sampled, without the end of turn. `None` if a server does not report them."""
    reason: str = ""
    """Why the judge left the answer undecided, in at most `LONGEST_REASON` characters. "" if it was decided."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A row with everything that happened to it in the student-teacher loop."""

    row: QARow
    outcome: Outcome
    attempts: tuple[Attempt, ...]
    format: str
    models: dict[str, str]
    """Maps the role (`student_model`, `teacher_model`, `judge_model`) to the resolved model name."""
    hints_rejected: int = 0
    """Hints that would have revealed the answer and were not used."""
    chosen: int | None = None
    """The number of the attempt that is trained on, or None."""
    pass_rate: float | None = None
    """The share of right answers among the first samples, without hint or evidence."""
    gap: Gap | None = None
    """Why every sample was wrong: the model lacks the fact (it is right with the evidence), or it lacks the skill."""
    error: str | None = None

    def to_json(self, answer: str) -> dict[str, Any]:
        """Returns one line of `enhanced_dataset.jsonl`, with `answer` as the assistant's message."""
        attempts = []
        for attempt in self.attempts:
            entry = {
                "attempt": attempt.attempt,
                "response": attempt.response,
                "verdict": attempt.verdict,
                "judged_by": attempt.judged_by,
                "hint": attempt.hint,
                "given": attempt.given,
            }
            entry |= {"reason": attempt.reason} if attempt.reason else {}
            attempts.append(entry if attempt.token_ids is None else {**entry, "token_ids": attempt.token_ids})
        enhancement = {
            "outcome": self.outcome,
            "iterations": len(self.attempts),
            "format": self.format,
            **self.models,
            "reference": self.row.reference,
            "hints_rejected": self.hints_rejected,
            "pass_rate": self.pass_rate,
            "gap": self.gap,
            "chosen": self.chosen,
            "trace": attempts,
        }
        if self.error:
            enhancement["error"] = self.error
        return {
            "id": self.row.id,
            "messages": [*self.row.prompt, {"role": "assistant", "content": answer}],
            "metadata": {**self.row.metadata, "enhancement": enhancement},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Trace:
        """Inverts `to_json`."""
        metadata = dict(data["metadata"])
        enhancement = metadata.pop("enhancement")
        reference = {"role": "assistant", "content": enhancement["reference"]}
        attempts = []
        for entry in enhancement["trace"]:
            attempts.append(Attempt(**{**entry, "token_ids": read_token_ids(entry.get("token_ids"))}))
        return cls(
            row=QARow(data["id"], [*data["messages"][:-1], reference], metadata),
            outcome=enhancement["outcome"],
            attempts=tuple(attempts),
            format=enhancement["format"],
            models={role: name for role, name in enhancement.items() if role.endswith("_model")},
            hints_rejected=enhancement.get("hints_rejected", 0),
            chosen=enhancement.get("chosen"),
            pass_rate=enhancement.get("pass_rate"),
            gap=enhancement.get("gap"),
            error=enhancement.get("error"),
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of an assistant message: its text, whether it counts in the loss, and the sampled token ids, if known."""

    text: str
    trained: bool = True
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One training row: the prompt without any hint, and the assistant's message in pieces."""

    id: str
    prompt: list[dict[str, str]]
    pieces: tuple[Piece, ...]
    outcome: str

    def to_json(self) -> dict[str, Any]:
        """Returns one line of `train.jsonl`."""
        pieces = [{k: v for k, v in asdict(piece).items() if v is not None} for piece in self.pieces]
        return {"id": self.id, "prompt": self.prompt, "pieces": pieces, "outcome": self.outcome}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Example:
        """Inverts `to_json`."""
        pieces = []
        for piece in data["pieces"]:
            pieces.append(Piece(piece["text"], piece["trained"], read_token_ids(piece.get("token_ids"))))
        return cls(data["id"], data["prompt"], tuple(pieces), data["outcome"])


def read_token_ids(value: Any) -> tuple[int, ...] | None:
    """Validates token ids from a server or a file, and returns None if there are none.

    Raises:
        TypeError: it is no list of whole numbers that could be ids.
    """
    if value is None:
        return None
    if not isinstance(value, list | tuple) or any(type(one) is not int or not 0 <= one < MOST_IDS for one in value):
        raise TypeError(f"token ids that are a list of whole numbers from 0, not {str(value)[:60]}")
    return tuple(value)


def shared_system(rows: Iterable[Example]) -> str | None:
    """Returns the system turn that all rows share, or None if there is none or if they differ."""
    turns = {row.prompt[0]["content"] if row.prompt[0]["role"] == "system" else None for row in rows}
    return turns.pop() if len(turns) == 1 else None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a row is not used, from the check that finds the reason to the `*.rejected.jsonl` that keeps it.

    Attributes:
        reason: a word to count by.
        detail: the reason in full, for a person.
        id: the row's id; a check that does not know it leaves it to its caller.
        row: the row itself, as far as it could be read; likewise.
    """

    reason: str
    detail: str = ""
    id: str = field(default="", kw_only=True)
    row: dict[str, Any] | None = field(default=None, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """Returns one line of a `*.rejected.jsonl`."""
        return {"id": self.id, "reason": self.reason, "detail": self.detail, "row": self.row or {}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Rejected:
        """Inverts `to_json`."""
        return cls(data["reason"], data.get("detail", ""), id=data["id"], row=data.get("row") or None)


def content_id(messages: list[dict[str, str]]) -> str:
    """Returns the first 16 hex digits of the sha256 of the messages as compact JSON with sorted keys."""
    text = json.dumps(messages, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unique_ids(rows: Iterable[QARow]) -> Iterator[QARow]:
    """Returns the same rows with unique ids: the second row with an id gets the suffix `-2`, the third `-3`."""
    seen: set[str] = set()
    counts: dict[str, int] = {}
    for row in rows:
        name = row.id
        while name in seen:
            counts[row.id] = counts.get(row.id, 1) + 1
            name = f"{row.id}-{counts[row.id]}"
        seen.add(name)
        yield row if name == row.id else replace(row, id=name)

"""Reads traces and held-out answers for a page: their order, the rows that match a filter, and what is shown.

Of every row its id, where it lies and what it is are held; the rows stay in their file, or in the journal while the
loop still works.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from socratune.rows import Rejected
from socratune.runs import Review, RunDir, journal_error, json_decode

TRACE_KINDS = (
    "unsolved", "error", "undecided", "knowledge", "hinted", "reference", "learnable", "first_try", "mastered",
)  # fmt: skip
"""What the loop found of a row, in the order in which a person wants to see them."""
ANSWER_KINDS = ("lost", "undecided", "both_wrong", "won", "both_right")
"""How base and adapter did on a held-out question, losses first."""
LEAKED, DROPPED = 1, 2
VERDICTS = ("correct", "incorrect", "undecided")
_KIND_OF = {
    "solved_with_hint": "hinted",
    "solved_with_evidence": "knowledge",
    "rewritten": "reference",
    "trained_on_reference": "reference",
}


@dataclass(frozen=True, slots=True)
class Filter:
    """The rows that a person wants to see. An empty text sets no limit."""

    kind: str = ""
    mark: str = ""
    """`leaked`, `dropped`, `trained` or `reviewed`."""
    verdict: str = ""
    """Of the first answer."""
    text: str = ""


@dataclass(slots=True)
class _Marks:
    """What other files of the run record about traces: why one was dropped, whether a hint leaked, what was decided."""

    dropped: dict[str, Rejected] = field(default_factory=dict)
    spoiled: set[str] = field(default_factory=set)
    reviews: dict[str, Review] = field(default_factory=dict)


@dataclass(slots=True)
class Source:
    """Rows that can be fetched one by one.

    Attributes:
        scan: (handle, line of JSON) of every row, one after the other.
        fetch: the lines behind some handles, in the same order.
        name: of the file.
    """

    scan: Callable[[], Iterator[tuple[int, bytes]]]
    fetch: Callable[[Iterable[int]], Iterator[bytes]]
    name: str


def in_file(path: Path) -> Source:
    """Returns the lines of a JSONL file as a source whose handles are offsets. A missing file has no rows."""

    def scan() -> Iterator[tuple[int, bytes]]:
        if path.is_file():
            with path.open("rb") as stream:
                offset = 0
                for line in stream:
                    yield offset, line
                    offset += len(line)

    def fetch(handles: Iterable[int]) -> Iterator[bytes]:
        if not path.is_file():
            return
        with path.open("rb") as stream:
            for handle in handles:
                stream.seek(handle)
                yield stream.readline()

    return Source(scan, fetch, path.name)


def in_journal(path: Path, stage: str) -> Source:
    """Returns the finished rows of a running stage as a source whose handles are positions. It only reads.

    Raises:
        SocratuneError: where it is read, the journal is damaged or cannot be opened.
    """

    def lines(query: str, *given: Any) -> Iterator[tuple[int, bytes]]:
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
                for position, value in db.execute(f"SELECT position, value FROM rows WHERE stage = ? {query}", given):
                    yield position, value.encode()
        except sqlite3.Error as error:
            raise journal_error(path, error, "read") from None

    def fetch(handles: Iterable[int]) -> Iterator[bytes]:
        return (line for handle in handles for _, line in lines("AND position = ?", stage, handle))

    return Source(lambda: lines("", stage) if path.exists() else iter(()), fetch, path.name)


class Index:
    """Where the rows of a source are and what they are: their ids, and a few bytes per row."""

    def __init__(self, source: Source, kinds: tuple[str, ...], marks: _Marks | None = None) -> None:
        self.source = source
        self.kinds = kinds
        self.marks = marks or _Marks()
        self.damaged = 0
        self.ids: dict[str, int] = {}
        self._handles = array("Q")
        self._kind = bytearray()
        self._mark = bytearray()
        self._verdict = bytearray()
        for handle, line in source.scan():
            try:
                self._add(handle, json_decode(line))
            except (ValueError, LookupError, TypeError, AttributeError):
                self.damaged += 1

    def _add(self, handle: int, data: dict[str, Any]) -> None:
        if "metadata" in data:
            shown = trace_row(data, self.marks)
            kind, verdict = shown["kind"], shown["attempts"][0]["verdict"] if shown["attempts"] else ""
            mark = LEAKED * bool(shown["leaks"]) | DROPPED * bool(shown["dropped"])
        else:
            kind, verdict, mark = answer_kind(data), data["base"]["verdict"], 0
        code = self.kinds.index(kind)
        self.ids[data["id"]] = len(self._handles)
        self._handles.append(handle)
        self._kind.append(code)
        self._mark.append(mark)
        self._verdict.append(VERDICTS.index(verdict) if verdict in VERDICTS else len(VERDICTS))

    def __len__(self) -> int:
        return len(self._handles)

    def counts(self, positions: Iterable[int] | None = None) -> dict[str, int]:
        """Returns the number of rows of each kind that has rows."""
        found = Counter(self._kind if positions is None else (self._kind[at] for at in positions))
        return {kind: found[code] for code, kind in enumerate(self.kinds) if found[code]}

    def leaked(self) -> int:
        """Returns the number of rows in which a hint leaked, was rejected as a leak, or shows in the answer."""
        return sum(mark & LEAKED for mark in self._mark)

    def order(self) -> array[int]:
        """Returns all positions in reading order: by kind, leaked rows right after the first kind."""

        def rank(at: int) -> int:
            leaked = self._mark[at] & LEAKED and self._kind[at] > 0
            return 1 if leaked else 2 * self._kind[at]

        return array("L", sorted(range(len(self)), key=rank))

    def lines(self, positions: Iterable[int]) -> Iterator[bytes]:
        """Yields the rows at some positions as the file has them."""
        return self.source.fetch(self._handles[at] for at in positions)

    def rows(self, positions: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yields the rows at some positions as a page shows them."""
        return (page_row(json_decode(line), self.marks) for line in self.lines(positions))

    def matching(self, wanted: Filter) -> array[int]:
        """Returns the positions of the matching rows, in `order`."""
        reviewed = {self.ids[row_id] for row_id in self.marks.reviews if row_id in self.ids}
        found = array("L", (at for at in self.order() if self._fits(at, wanted, reviewed)))
        if not wanted.text.strip():
            return found
        needle = wanted.text.strip().lower()
        raw = json.dumps(needle, ensure_ascii=False)[1:-1]

        def says_it(line: bytes) -> bool:
            text = line.decode("utf-8", "replace").lower()
            escaped = not raw.isascii() and "\\u" in text
            return (raw in text or escaped) and needle in _words(page_row(json_decode(line), self.marks))

        return array("L", (at for at, line in zip(found, self.lines(found), strict=True) if says_it(line)))

    def _fits(self, at: int, wanted: Filter, reviewed: set[int]) -> bool:
        if wanted.kind and self.kinds[self._kind[at]] != wanted.kind:
            return False
        if wanted.verdict and wanted.verdict != (*VERDICTS, "")[self._verdict[at]]:
            return False
        mark = self._mark[at]
        fitting = {
            "leaked": bool(mark & LEAKED),
            "dropped": bool(mark & DROPPED),
            "trained": not mark & DROPPED,
            "reviewed": at in reviewed,
        }
        return fitting.get(wanted.mark, True)


def _words(value: Any) -> str:
    """Returns all text of a row as a page shows it, in lower case."""
    if isinstance(value, str):
        return value.lower()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return "\n".join(_words(part) for part in parts)


def page_row(data: dict[str, Any], marks: _Marks) -> dict[str, Any]:
    """Returns a trace or a held-out answer as a page shows it."""
    return trace_row(data, marks) if "metadata" in data else {**data, "kind": answer_kind(data)}


def trace_row(data: dict[str, Any], marks: _Marks) -> dict[str, Any]:
    """Returns a line of `enhanced_dataset.jsonl` as a page shows it. `answer` is None if it is the chosen attempt's."""
    told = data["metadata"]["enhancement"]
    row_id, review = data["id"], marks.reviews.get(data["id"])
    answer, chosen = data["messages"][-1]["content"], told.get("chosen")
    dropped = marks.dropped.get(row_id)
    leaks = []
    if refused := told.get("hints_rejected", 0):
        hints = (
            "hint would have given the answer away and was"
            if refused == 1
            else "hints would have given the answer away and were"
        )
        leaks.append(f"{refused} {hints} not used")
    if row_id in marks.spoiled:
        leaks.append("by the student's own probabilities, a hint gives the answer away")
    if dropped and dropped.reason == "hint_echo":
        leaks.append("the answer mentions the hint")
    attempts = [
        {name: entry.get(name) for name in ("response", "verdict", "judged_by", "reason", "hint", "given")}
        for entry in told["trace"]
    ]
    return {
        "id": row_id,
        "kind": trace_kind(told),
        "outcome": told["outcome"],
        "turns": data["messages"][:-2],
        "question": data["messages"][-2]["content"],
        "reference": told["reference"],
        "answer": None if chosen and told["trace"][chosen - 1]["response"] == answer else answer,
        "attempts": attempts,
        "chosen": chosen,
        "pass_rate": told.get("pass_rate"),
        "source": data["metadata"].get("source"),
        "leaks": leaks,
        "dropped": dropped and [dropped.reason, dropped.detail],
        "error": told.get("error"),
        "review": None if review is None else {name: getattr(review, name) for name in ("decision", "text", "time")},
    }


def trace_kind(told: dict[str, Any]) -> str:
    """Returns what the loop found for a row: one of `TRACE_KINDS`."""
    outcome = told["outcome"]
    if outcome in ("unsolved", "undecided", "error"):
        return outcome
    if outcome != "solved_first_try":
        return _KIND_OF.get(outcome, "error")
    if told.get("pass_rate") == 1:
        return "mastered" if len(told["trace"]) > 1 else "first_try"
    return "learnable"


def answer_kind(data: dict[str, Any]) -> str:
    """Returns how base and adapter did on a question: one of `ANSWER_KINDS`."""
    base, adapter = data["base"]["verdict"], data["adapter"]["verdict"]
    if {base, adapter} - {"correct", "incorrect"}:
        return "undecided"
    if base == adapter:
        return "both_right" if base == "correct" else "both_wrong"
    return "won" if adapter == "correct" else "lost"


def marks_of(run: RunDir, reviews: dict[str, Review]) -> _Marks:
    """Returns what the other files of a run record about its traces. A missing file records nothing."""
    marks = _Marks(reviews=reviews)
    for data in _readable(run.rejected("train"), "id", "reason"):
        marks.dropped[data["id"]] = Rejected.from_json({**data, "row": None})
    marks.spoiled |= {data["row_id"] for data in _readable(run.hint_measures, "row_id") if data.get("spoils")}
    return marks


def _readable(path: Path, *names: str) -> Iterator[dict[str, Any]]:
    """Yields the objects of a JSONL file that have these texts and skips the others: a damaged run has a page, too."""
    for _, line in in_file(path).scan():
        with suppress(ValueError):
            data = json_decode(line)
            if isinstance(data, dict) and all(isinstance(data.get(name), str) for name in names):
                yield data


def traces_of(run: RunDir, reviews: dict[str, Review], stage_key: str | None = None) -> Index:
    """Returns the traces of a run. While the loop of `stage_key` runs, these are the finished ones."""
    source = in_file(run.enhanced)
    if not run.enhanced.exists() and stage_key and run.journal.exists():
        source = in_journal(run.journal, f"enhance.{stage_key}")
    return Index(source, TRACE_KINDS, marks_of(run, reviews))


def answers_of(run: RunDir) -> Index:
    """Returns the answers of base and adapter to the held-out questions."""
    return Index(in_file(run.rows("held_out_answers")), ANSWER_KINDS)

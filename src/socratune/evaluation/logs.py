"""Holds the log of any evaluation tool as one kind of record: questions with the scores of every metric.

    run folder · lm-eval · inspect_ai · OpenAI evals · JSONL  →  samples  →  Log

A reader (`log_formats`) yields samples in the order of the file. This module groups them by question and checks them.
It needs neither PyTorch nor a run folder's lock, so it works beside any tool.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from socratune.errors import Fault, Shown, UserError
from socratune.runs import json_decode

Score = float | None
"""Score of an answer. None means that the answer was not scored."""


@dataclass(slots=True)
class LoggedSample:
    """Holds one answer to one question, as the log records it.

    Attributes:
        where: file and line, or the name inside an archive.
        number: the sample's number among its question's samples; None if the log does not number samples.
        scores: the scores by metric; several if one row holds several samples.
        fields: all fields by which rows can be clustered.
    """

    where: str
    id: str
    scores: dict[str, list[Score]]
    number: int | None = None
    task: str = ""
    question: str = ""
    reference: str = ""
    answers: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class LoggedQuestion:
    """Holds a question with all its scores in one log: one per sample and metric."""

    id: str
    task: str
    question: str
    reference: str
    cluster: str | None
    scores: dict[str, list[Score]]
    answers: list[str]


@dataclass(slots=True)
class Log:
    """Holds one side of a comparison.

    Attributes:
        name: the log's name as the user wrote it.
        format: the format of the tool that wrote the log.
        lower: the metrics where less is better.
        remarks: what a reader must know about the log, in full sentences.
    """

    name: str
    format: str
    questions: list[LoggedQuestion]
    model: str | None = None
    lower: frozenset[str] = frozenset()
    remarks: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> list[str]:
        """Returns all metrics, in the order of their first appearance."""
        return list(dict.fromkeys(name for question in self.questions for name in question.scores))

    @property
    def tasks(self) -> list[str]:
        """Returns all named tasks, in the order of their first appearance."""
        return list(dict.fromkeys(question.task for question in self.questions if question.task))

    @property
    def samples(self) -> int:
        """Returns the largest number of samples of a question."""
        return max((len(scores) for one in self.questions for scores in one.scores.values()), default=0)


def gathered(samples: Iterable[LoggedSample], name: str, cluster: str | None) -> list[LoggedQuestion]:
    """Groups the samples by question, in the order of their first appearance.

    Args:
        name: the log's name, for errors.
        cluster: the field that holds a row's cluster; None means `cluster`, if it exists.

    Raises:
        UserError: no samples, a duplicate sample, unequal numbers of samples, or a missing field.
    """
    groups: dict[tuple[str, str], list[LoggedSample]] = {}
    for sample in samples:
        groups.setdefault((sample.task, sample.id), []).append(sample)
    if not any(sample.scores for group in groups.values() for sample in group):
        got = Shown(f"{len(groups)} questions without a score" if groups else "none")
        fix = "Is it a finished log? A metric whose value is no number, as a perplexity's in lm-eval, is not compared."
        raise UserError(Fault(name, "at least one scored sample", got, fix))
    _refuse_repeated(groups.values(), name)
    _refuse_other_field(groups.values(), name, cluster)
    found = [_question(group, cluster) for group in groups.values()]
    _refuse_mixed(found, name)
    return found


def _question(group: list[LoggedSample], cluster: str | None) -> LoggedQuestion:
    first = group[0]
    if len(group) > 1:
        group = sorted(group, key=lambda sample: sample.number or 0)
    scores: dict[str, list[Score]] = {}
    for sample in group:
        for metric, values in sample.scores.items():
            scores.setdefault(metric, []).extend(values)
    value = first.fields.get(cluster or "cluster")
    answers = [answer for sample in group for answer in sample.answers]
    return LoggedQuestion(
        first.id,
        first.task,
        first.question,
        first.reference,
        None if value is None else text_of(value),
        scores,
        answers,
    )


def _refuse_repeated(groups: Iterable[list[LoggedSample]], name: str) -> None:
    for group in groups:
        numbers = Counter(sample.number for sample in group)
        repeated = next((number for number, count in numbers.items() if count > 1), None)
        if len(group) > 1 and (None in numbers or repeated is not None):
            places = ", ".join(sample.where for sample in group[:3])
            fix = (
                "Remove all but one, or give each a number: a field `sample` (or `epoch`) makes them samples of one "
                "question."
            )
            got = Shown(f"{group[0].id!r} {len(group)} times ({places})")
            raise UserError(Fault(name, "every id once, or once per sample", got, fix))


def _refuse_other_field(groups: Iterable[list[LoggedSample]], name: str, cluster: str | None) -> None:
    if cluster is None:
        return
    fields: Counter[str] = Counter()
    rows = 0
    for group in groups:
        rows += 1
        fields.update({field for field, value in group[0].fields.items() if value is not None})
    if cluster not in fields:
        known = ", ".join(sorted(fields)[:12]) or "no field"
        raise UserError(Fault("--cluster", f"a field of the rows of {name}", cluster, f"There is: {known}."))
    if fields[cluster] < rows:
        got = Shown(f"{rows - fields[cluster]} of {rows} rows without it")
        raise UserError(Fault(f"--cluster {cluster}", f"it in every row of {name}", got, "Fill it in."))


def _refuse_mixed(questions: list[LoggedQuestion], name: str) -> None:
    counts: dict[str, Counter[int]] = {}
    for question in questions:
        for metric, scores in question.scores.items():
            counts.setdefault(metric, Counter())[len(scores)] += 1
    for metric, found in counts.items():
        if len(found) > 1:
            told = ", ".join(f"{count} with {samples}" for samples, count in sorted(found.items()))
            fix = (
                "Finish the log, or take as many samples of every question; a sample that failed stands there without "
                "a score (null)."
            )
            expected = f"equally many samples of {metric} for every question"
            raise UserError(Fault(name, expected, Shown(f"questions: {told}"), fix))


# --- values --------------------------------------------------------------------------------------------------------


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def parsed(data: bytes, where: str) -> Any:
    """Parses JSON text, NaN included. Half a surrogate pair, which cannot be printed, becomes a replacement character.

    Raises:
        UserError: it is not valid JSON.
    """
    try:
        value = json_decode(data)
        return _printable(value) if _HALF.search(data) else value
    except (ValueError, RecursionError):
        fix = "Is the file whole? A log that is still being written ends in half a line."
        raise UserError(Fault(where, "JSON", Shown("something else"), fix)) from None


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_printable(name): _printable(part) for name, part in value.items()}
    return [_printable(part) for part in value] if isinstance(value, list) else value


def lines_of(path: Path) -> Iterable[tuple[str, Any]]:
    """Yields (place, value) for every non-empty line of a JSONL file."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                where = f"{path.name}:{number}"
                yield where, parsed(line, where)


_WORDS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}
"""Letters and words that inspect_ai counts as numbers: correct, incorrect, partial, no answer."""


_LARGEST = 1e100
"""Largest score. Beyond it, squares of scores overflow."""


def as_score(value: Any) -> Score:
    """Converts a log's score to a number, or to None if the answer was not scored.

    Raises:
        ValueError: it is not a score.
    """
    if value is None:
        return None
    if isinstance(value, str):
        word = value.strip()
        value = _WORDS.get(word, _WORDS.get(word.lower(), word))
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is no score") from None
    if abs(number) > _LARGEST and math.isfinite(number):
        raise ValueError(f"{value!r} is no score")
    return number if math.isfinite(number) else None


def text_of(value: Any) -> str:
    """Returns a text for people: the last user message of a conversation, or else JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        users = [part for part in value if part.get("role") == "user"] or value
        content = users[-1].get("content", users[-1].get("text"))
        return text_of(content) if content is not None else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)

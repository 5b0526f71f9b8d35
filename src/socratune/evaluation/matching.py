"""Matches the questions of two logs: by id if both logs ask the same question under it, else by text."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Literal

from socratune.errors import Fault, Shown, UserError
from socratune.evaluation.logs import Log, LoggedQuestion

By = Literal["id", "question"]
_SHOWN = 3
"""Number of unmatched examples to show."""
_LONGEST = 30
"""Most characters of a question in a message."""


@dataclass(slots=True)
class Matched:
    """Holds the pairs in the order of A, and what is not paired.

    Attributes:
        by: what the pairs were matched by.
        only_a, only_b: ids that are missing in the other log.
        other_question: ids in both logs that ask different questions.
        ambiguous: texts that occur several times in a log, and not as often in the other.
    """

    by: By
    pairs: list[tuple[LoggedQuestion, LoggedQuestion]]
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    other_question: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)


def match_logs(a: Log, b: Log, by: By | None = None) -> Matched:
    """Matches the questions that both logs have.

    Args:
        by: None matches by id, unless most ids differ in their question or none match.

    Raises:
        UserError: the logs have no common question.
    """
    others: list[str] = []
    if by != "question":
        matched = _by_id(a, b)
        others = matched.other_question
        if matched.pairs and (len(matched.pairs) > len(others) or by == "id"):
            return matched
        if by == "id":
            raise UserError(_no_overlap(a, b, "id", others))
    found = _by_question(a, b)
    if not found.pairs:
        raise UserError(_no_overlap(a, b, by or "id or question", others))
    return found


def _by_id(a: Log, b: Log) -> Matched:
    with_task = bool(set(a.tasks) & set(b.tasks))

    def keyed(log: Log) -> dict[tuple[str, str], LoggedQuestion]:
        return {(one.task if with_task else "", one.id): one for one in log.questions}

    first, second = keyed(a), keyed(b)
    found = Matched("id", [])
    for key, one in first.items():
        other = second.get(key)
        if other is None:
            found.only_a.append(named(one))
        elif one.question and other.question and normal(one.question) != normal(other.question):
            found.other_question.append(named(one))
        else:
            found.pairs.append((one, other))
    found.only_b = [named(other) for key, other in second.items() if key not in first]
    return found


def _by_question(a: Log, b: Log) -> Matched:
    """Pairs a text in order if both logs have it equally often, and else leaves it out."""
    first, second = _texts(a), _texts(b)
    found = Matched("question", [])
    for text, ones in first.items():
        others = second.get(text, [])
        if not others:
            found.only_a += map(named, ones)
        elif len(ones) != len(others):
            found.ambiguous += map(named, ones)
        else:
            found.pairs += zip(ones, others, strict=True)
    found.only_b = [named(other) for text, others in second.items() if text not in first for other in others]
    return found


def _texts(log: Log) -> dict[str, list[LoggedQuestion]]:
    found: dict[str, list[LoggedQuestion]] = {}
    for one in log.questions:
        if one.question:
            found.setdefault(normal(one.question), []).append(one)
    return found


def named(question: LoggedQuestion) -> str:
    """Returns the question's name: the id, prefixed with the task if there is one."""
    return f"{question.task}/{question.id}" if question.task else question.id


def normal(text: str) -> str:
    """Returns the text without differences that do not matter: Unicode forms of a letter, and whitespace."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _no_overlap(a: Log, b: Log, what: str, others: list[str]) -> Fault:
    """Returns the error for logs without a common question. `others` holds common ids of different questions."""
    if others:
        name = others[0]
        one, other = (next(q.question for q in log.questions if named(q) == name) for log in (a, b))
        got = Shown(f"two tasks: {name} asks {_cut(one)} in A and {_cut(other)} in B")
    elif a.tasks and b.tasks and not set(a.tasks) & set(b.tasks):
        got = Shown(f"no common {what}: A is of {_list(a.tasks)}, B of {_list(b.tasks)}")
    else:
        got = Shown(f"no common {what}: A has {_ids(a)}, B has {_ids(b)}")
    fix = "Give two logs of the same task; --by question matches by the text of the question, --by id by the ids."
    return Fault(f"{a.name} and {b.name}", "some of the same questions", got, fix)


def _ids(log: Log) -> str:
    return _list([one.id for one in log.questions])


def _list(names: list[str]) -> str:
    return ", ".join(_cut(name) for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _cut(text: str) -> str:
    text = normal(text)
    return repr(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def unmatched(matched: Matched) -> dict[str, object]:
    """Returns what did not match, for the result: the number of each kind, and the first few."""
    kinds = ("only_a", "only_b", "other_question", "ambiguous")
    found: dict[str, list[str]] = {kind: getattr(matched, kind) for kind in kinds}
    return {kind: {"count": len(names), "examples": names[:_SHOWN]} for kind, names in found.items() if names}


def clusters_of(pairs: list[tuple[LoggedQuestion, LoggedQuestion]]) -> list[str]:
    """Returns the cluster of every pair: from A, else from B, else each question alone."""
    side = 0 if any(one.cluster is not None for one, _ in pairs) else 1
    return [f"in {pair[side].cluster}" if pair[side].cluster is not None else f"of {named(pair[0])}" for pair in pairs]

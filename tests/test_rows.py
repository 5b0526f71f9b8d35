from __future__ import annotations

import json

from socratune.rows import Attempt, QARow, Trace, content_id, unique_ids

GOOD = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}]


def row(name: str, **metadata: str) -> QARow:
    return QARow(name, GOOD, metadata)


def test_repeated_ids_are_numbered() -> None:
    rows = [row("x"), row("x"), row("7"), row("x"), row("x-2")]
    assert [r.id for r in unique_ids(rows)] == ["x", "x-2", "7", "x-3", "x-2-2"]


def test_the_id_by_content_does_not_depend_on_the_order_of_keys() -> None:
    turned = [dict(reversed(list(turn.items()))) for turn in GOOD]
    assert content_id(turned) == content_id(GOOD) != content_id(GOOD[:1])


def test_a_trace_survives_its_json() -> None:
    parsed = row("r", source="s", thinking="t")
    attempts = (
        Attempt(1, "5", "incorrect", "numeric", hint="Count."),
        Attempt(2, "4", "correct", "numeric", token_ids=(5, 2)),
    )
    trace = Trace(parsed, "solved_with_hint", attempts, "direct", {"student_model": "m"}, hints_rejected=1)
    data = json.loads(json.dumps(trace.to_json("4")))
    assert Trace.from_json(data) == trace
    assert data["metadata"]["thinking"] == "t"
    assert data["metadata"]["enhancement"]["iterations"] == 2
    assert data["metadata"]["enhancement"]["reference"] == "4"

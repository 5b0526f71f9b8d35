from __future__ import annotations

import hashlib
import json

import pytest

from socratune.rows import Attempt, QARow, Trace, parse_row, unique_ids

GOOD = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}]


def row(messages: object = None, **more: object) -> object:
    return parse_row({"messages": GOOD if messages is None else messages, **more}, "f.jsonl, line 1")


def test_id_is_the_hash_of_the_messages() -> None:
    text = json.dumps(GOOD, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    parsed = row(metadata={"source": "s"})
    assert isinstance(parsed, QARow)
    assert parsed.id == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert (parsed.question, parsed.reference, parsed.source) == ("What is 2 + 2?", "4", "s")


def test_own_id_is_kept_and_repeats_are_numbered() -> None:
    rows = [row(id="x"), row(id="x"), row(id=7), row(id="x")]
    assert [r.id for r in unique_ids(r for r in rows if isinstance(r, QARow))] == ["x", "x-2", "7", "x-3"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "an object"),
        ({}, '"messages" list'),
        ({"messages": []}, "at least a user and an assistant turn"),
        ({"messages": "hi"}, "got 'hi'"),
        ({"messages": 0}, "got 0"),
        ({"messages": [{"role": "user", "content": "q"}]}, "an assistant turn last, got user"),
        ({"messages": list(reversed(GOOD))}, "got assistant, user"),
        ({"messages": [*GOOD, GOOD[0]]}, "an assistant turn last"),
        ({"messages": [GOOD[0], {"role": "assistant", "content": "  "}]}, "non-empty assistant text"),
        ({"messages": [GOOD[0], {"role": "assistant", "content": 0}]}, '"content" to be a text, got 0'),
        ({"messages": [GOOD[0], {"role": "assistant", "content": None}]}, "got null"),
        ({"messages": [GOOD[0], {"role": "bot", "content": "4"}]}, "got 'bot'"),
        ({"messages": [GOOD[0], {"content": "4"}]}, "got no role"),
        ({"messages": [GOOD[0], "4"]}, "messages[1]"),
        ({"messages": [GOOD[0], {"role": "assistant", "content": "a\x00b"}]}, "NUL"),
        ({"messages": GOOD, "metadata": []}, '"metadata" to be an object'),
        ({"messages": GOOD, "id": 1.5}, '"id"'),
        ({"messages": GOOD, "id": True}, '"id"'),
    ],
)
def test_faults_say_what_was_expected_and_what_came(data: object, said: str) -> None:
    faults = parse_row(data, "f.jsonl, line 3")
    assert isinstance(faults, list)
    assert said in "\n".join(map(str, faults))
    assert all(str(fault).startswith("f.jsonl, line 3") for fault in faults)


def test_every_fault_of_a_row_is_found() -> None:
    faults = parse_row({"messages": [{"role": "x", "content": ""}, 3], "metadata": 1}, "l")
    assert isinstance(faults, list)
    assert len(faults) == 4


def test_a_trace_survives_its_json() -> None:
    parsed = row(metadata={"source": "s", "thinking": "t"})
    assert isinstance(parsed, QARow)
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

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

import socratune
from socratune.errors import UserError
from socratune.llm.base import Completion
from socratune.rows import Attempt, Example, QARow, Rejected, Trace, content_id, unique_ids
from socratune.runs.folder import iter_rows, read_jsonl, write_rejected

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


def test_what_is_out_is_written_by_one_function_and_counted_by_reason(tmp_path: Path) -> None:
    out = [
        Rejected("hint_echo", "speaks of: 'the hint'", id="a", row={"é": (1, 2)}),
        Rejected("unsolved", id="b"),
        Rejected("hint_echo", id="c"),
    ]
    wide, compact = tmp_path / "wide.jsonl", tmp_path / "compact.jsonl"
    assert list(write_rejected(wide, iter(out)).items()) == [("hint_echo", 2), ("unsolved", 1)]
    assert write_rejected(compact, out, compact=True) == Counter(hint_echo=2, unsolved=1)
    first, second, _ = wide.read_text("utf-8").splitlines()
    assert first == """{"id": "a", "reason": "hint_echo", "detail": "speaks of: 'the hint'", "row": {"é": [1, 2]}}"""
    assert second == '{"id": "b", "reason": "unsolved", "detail": "", "row": {}}'
    assert compact.read_text("utf-8").splitlines()[1] == '{"id":"b","reason":"unsolved","detail":"","row":{}}'
    again = [Rejected.from_json(data) for data in read_jsonl(wide)]
    assert again == [Rejected(out[0].reason, out[0].detail, id="a", row={"é": [1, 2]}), out[1], out[2]]


def test_no_other_function_writes_a_rejected_file_and_no_reason_is_read_out_of_a_text() -> None:
    for path in Path(socratune.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and path.name != "folder.py":
                name, given = ast.unparse(call.func).split(".")[-1], ast.unparse(call)
                assert name not in ("write_jsonl", "write_lines") or "rejected" not in given, f"{path.name}: {given}"
                assert name != "partition" or "': '" not in given, f"{path.name}: {given}"


@pytest.mark.parametrize("ids", [["00"], [None, 1], [-1, 2], [1.0], [True], "12", 5, {"a": 1}, [[1]], [2**70]])
def test_ids_that_cannot_be_are_damage_of_the_file_that_holds_them(tmp_path: Path, ids: object) -> None:
    example = {"id": "r", "prompt": [], "pieces": [{"text": "a", "trained": True, "token_ids": ids}], "outcome": "x"}
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(example) + "\n")
    with pytest.raises(UserError, match="line 1: expected a row as its stage wrote it, got TypeError: token ids"):
        list(iter_rows(path, Example.from_json))
    kept = {"text": "a", "stop": "end", "prompt_tokens": 1, "completion_tokens": 1}
    assert Completion.read({**kept, "token_ids": ids}) is None  # asked again
    assert Completion.read({**kept, "token_ids": [1, 2]}) == Completion("a", "end", 1, 1, (1, 2))

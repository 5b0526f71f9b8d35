"""Rows as TRL, axolotl, LLaMA-Factory and known data sets have them: understood as meant, or refused with advice."""

from __future__ import annotations

import csv
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from socratune.data.columns import decoded
from socratune.data.qa_files import read_qa_rows
from socratune.data.records import arrow_records
from socratune.data.shapes import may_have_shape, parse_row
from socratune.errors import Fault
from socratune.rows import QARow

SHAPES: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "samples" / "shapes.jsonl").read_text("utf-8").splitlines()
]
"""`name`, `row`, and either the turns it means (`chat`, and `metadata` where that matters) or words of its refusal."""


def shape(name: str) -> dict[str, Any]:
    return next(item["row"] for item in SHAPES if item["name"] == name)


@pytest.mark.parametrize("item", SHAPES, ids=lambda item: item["name"])
def test_a_row_is_understood_as_meant_or_refused_with_what_to_change(item: dict[str, Any]) -> None:
    parsed = parse_row(item["row"], "f.jsonl, line 1")
    assert may_have_shape(item["row"]) or "refused" in item
    if "refused" in item:
        assert isinstance(parsed, list), parsed
        said = "\n".join(map(str, parsed))
        assert all(words in said for words in item["refused"]), said
        return
    assert isinstance(parsed, QARow), "\n".join(map(str, parsed))
    assert turns(parsed) == item["chat"]
    if "metadata" in item:
        assert parsed.metadata == item["metadata"]


def turns(parsed: QARow) -> list[str]:
    return [f"{turn['role']}: {turn['content']}" for turn in parsed.messages]


@pytest.mark.parametrize("write", [json.dumps, repr], ids=["as JSON", "as Python"])
def test_a_csv_file_means_the_same(write: Any, tmp_path: Path) -> None:
    """Numbers and lists are texts there; only an answer that is a list may have been asked for."""
    for item in SHAPES:
        if "chat" not in item or item["name"] == "an answer in a list":
            continue
        cells = [
            "" if value is None else write(value) if isinstance(value, list | dict) else str(value)
            for value in item["row"].values()
        ]
        path = tmp_path / "rows.csv"
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([item["row"].keys(), cells])
        found = read_qa_rows(path)
        assert [turns(row) for row in found.rows] == [item["chat"]], (item["name"], found.faults)


def test_an_arrow_table_means_the_same() -> None:
    pa = pytest.importorskip("pyarrow")
    read = 0
    for item in SHAPES:
        try:
            table = pa.Table.from_pylist([item["row"], dict.fromkeys(item["row"])])
        except pa.ArrowInvalid:  # texts and lists in one column
            continue
        if "chat" in item:
            _, row = next(arrow_records(table.to_batches(), table.schema.names, "f"))
            parsed = parse_row(row, "f, row 1")
            assert isinstance(parsed, QARow) and turns(parsed) == item["chat"], item["name"]
            read += 1
    assert read > 100


def test_the_list_of_shapes_is_long_and_names_each_once() -> None:
    names = [item["name"] for item in SHAPES]
    assert len(names) == len(set(names)) >= 80


def test_a_number_for_an_option_is_refused_where_it_may_mean_two() -> None:
    """The number 1 is the second of a list, the text of another option, and the first of those that are numbered."""
    for row in (
        {"choices": ["2", "3", "1"], "answer": "1"},
        {"choices": [2, 3, 1], "answer": 1},
        {"choice1": "x", "choice2": "y", "answer": 1},
        {"choices": ["O", "A", "B", "AB"], "answer": "A"},
    ):
        parsed = parse_row({"question": "Which?", **row}, "f, line 1")
        assert isinstance(parsed, list) and ("which may mean" in str(parsed[0])), row
    parsed = parse_row({"question": "Which?", "choices": ["x", "y"], "answer": 2}, "f, line 1")
    assert isinstance(parsed, list) and "if yours count from 1, write letters" in str(parsed[0])


def test_text_that_python_or_json_wrote_is_read_and_nothing_else() -> None:
    assert decoded("['a' 'b'\n 'c']") == ["a", "b", "c"]
    assert decoded("[\"it's\" 'b']") == ["it's", "b"]
    assert decoded("{'text': array(['x', 'y'], dtype=object), 'label': array(['A', 'B'], dtype=object)}") == {
        "text": ["x", "y"], "label": ["A", "B"],
    }  # fmt: skip
    for text in (
        "[1] shows it",
        "[" * 100_000,
        "['\\ud800']",
        '["\\ud800"]',
        "[" * 150 + "]" * 150,
        "{1: b'x'}",
        "[x]",
    ):
        assert decoded(text) is text
    start = time.perf_counter()
    for text in ("array([" * 100_000 + "]", "['a' " * 100_000 + "]", "[" + "'" * 100_000 + "]"):
        decoded(text)
    assert time.perf_counter() - start < 2


def test_long_texts_are_read_in_no_time() -> None:
    start = time.perf_counter()
    for text in (" " * 100_000, "A) " * 30_000, "\n" * 50_000 + "|", "a" * 100_000, "1. " * 30_000, "(" * 50_000):
        for row in (
            {"question": text + "q", "choices": ["x", "y"], "answer": text + "B"},
            {"question": "q", "choices": text, "answer": "B"},
            {"question": "Which of the following " + text, "answer": "B"},
            {"instruction": "i", "input": text, "history": text, "output": text + "o"},
        ):
            parse_row(row, "f, line 1")
    assert time.perf_counter() - start < 5


# --- mutations -----------------------------------------------------------------------------------------------------

ODD: list[Any] = [
    None, "", " ", "x", "B", "[", "[]", "{}", "[None]", "\x00", "\ud800", 0, 1, -1, 2.0, 1e300, float("nan"),
    float("inf"), 10**30, True, False, [], {}, [None], [[]], [{}], {"": None}, ["x", 1], ["a", "b"], [["a", "b"]],
    {"A": "x", "B": "y"},
    {"role": "user", "content": "x"}, [{"role": "user", "content": "x"}], {"from": ["human"], "value": ["x"]},
    {"type": "text", "text": "x"}, [{"type": "image_url"}], {"text": ["x", "y"], "label": ["A"]}, "['a' 'b']",
]  # fmt: skip


def mutated(value: Any, chance: random.Random) -> Any:
    """A copy with one member somewhere removed, replaced, doubled, wrapped, or turned into text."""
    if isinstance(value, dict | list) and value and chance.random() < 0.8:
        copy = value.copy()
        at = chance.choice(list(copy)) if isinstance(copy, dict) else chance.randrange(len(copy))
        what = chance.random()
        if what < 0.15:
            del copy[at]
        elif what < 0.3:
            other = chance.choice(list(value.values()) if isinstance(value, dict) else value)
            copy[at] = other
        else:
            copy[at] = mutated(copy[at], chance)
        return copy
    what = chance.random()
    if what < 0.1:
        return [value]
    if what < 0.2:
        return {chance.choice(["role", "text", "A", "x"]): value}
    if what < 0.3:
        return json.dumps(value) if chance.random() < 0.5 else repr(value)
    return chance.choice(ODD)


def mutations(count: int, seed: int) -> Iterator[Any]:
    chance = random.Random(seed)
    names = sorted({name for item in SHAPES for name in item["row"]})
    for _ in range(count):
        row = chance.choice(SHAPES)["row"]
        for _ in range(chance.randint(1, 4)):
            row = mutated(row, chance)
        if isinstance(row, dict) and chance.random() < 0.3:
            row = {**row, chance.choice(names): chance.choice(chance.choice(SHAPES)["row"] and ODD)}
        yield row


def test_whatever_is_changed_in_a_row_it_is_read_or_refused() -> None:
    read = 0
    for row in mutations(4000, seed=17):
        parsed = parse_row(row, "f.jsonl, line 1")
        if isinstance(parsed, QARow):
            read += 1
            roles = [turn["role"] for turn in parsed.messages]
            assert roles[-2:] == ["user", "assistant"], row
            assert all(turn["content"].strip() for turn in parsed.messages), row
            "".join(turn["content"] for turn in parsed.messages).encode("utf-8")
        else:
            assert parsed and all(isinstance(fault, Fault) and str(fault) for fault in parsed), row
    assert 400 < read < 3600  # both ways are tried

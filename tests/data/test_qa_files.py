from __future__ import annotations

import csv
import errno
import gzip
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from socratune.data import qa_files, records, shapes
from socratune.data.qa_files import _Reading, data_path, data_set, forget_data_sets, qa_rows, read_qa_rows
from socratune.data.tally import MOST_KINDS
from socratune.errors import OutsideError, UserError
from socratune.rows import QARow

GOOD = json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}).encode()
PAIRS = [{"question": f"What is {n} + 1?", "answer": str(n + 1), "source": f"doc-{n}"} for n in range(300)]


def read(tmp_path: Path, content: bytes, name: str = "rows.jsonl"):
    path = tmp_path / name
    path.write_bytes(content)
    return read_qa_rows(path)


def questions(found: Any) -> list[str]:
    return [row.question for row in found.rows]


# --- JSON lines ----------------------------------------------------------------------------------------------------


def test_every_bad_line_is_reported_with_its_number(tmp_path: Path) -> None:
    lines = [GOOD, b'{"messages": [', GOOD, b'{"x": 1}', b"\xff\xfe", b"\x00\x00\x00", b"", b"[1]", b"0", GOOD]
    found = read(tmp_path, b"\n".join(lines))
    assert len(found.rows) == 3
    assert [fault.where.rsplit(" ", 1)[1] for fault in found.faults] == ["2", "4", "5", "6", "8", "9"]
    rejected = list(data_set(tmp_path / "rows.jsonl").bad_rows())
    assert [item.id for item in rejected] == ["line-2", "line-4", "line-5", "line-6", "line-8", "line-9"]
    assert (rejected[0].row, rejected[1].row) == ({"line": '{"messages": ['}, {"line": '{"x": 1}'})
    assert "0xff at position 1" in str(found.faults[2])
    assert "NUL" in str(found.faults[3])


def test_byte_order_mark_crlf_and_blank_lines_are_fine(tmp_path: Path) -> None:
    found = read(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n  \n" + GOOD + b"\r\n")
    assert (len(found.rows), found.faults) == (2, [])
    assert found.rows[1].id == found.rows[0].id + "-2"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_a_fault(tmp_path: Path, content: bytes) -> None:
    assert "an empty file" in str(read(tmp_path, content).faults[0])


def test_deeply_nested_json_and_half_a_surrogate_pair_are_faults_not_crashes(tmp_path: Path) -> None:
    assert read(tmp_path, b"[" * 100_000).faults
    assert "surrogate" in str(read(tmp_path, GOOD.replace(b'"q"', b'"\\ud800"')).faults[0])


def test_of_very_many_faults_the_first_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    names = ["".join(pair) for pair in itertools.product("abcdefghij", repeat=3)]
    path.write_text("".join(f'{{"{name}": 1}}\n' for name in names) + GOOD.decode())
    reading = _Reading()
    assert len(list(qa_rows(path, reading))) == 1
    assert (reading.rows, reading.bad_rows, len(reading.faults)) == (1, 1000, MOST_KINDS + 1)
    assert f"{1000 - MOST_KINDS} more" in str(reading.faults[-1])


def test_the_same_fault_in_many_rows_is_told_once_with_their_number_and_the_first(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "bot", "content": "a"}, {"role": "bot", "content": "b"}]
    lines = [
        b'{"messages": [',
        *([json.dumps({"messages": turns}).encode()] * 250),
        b'{"text": "t"}',
        GOOD,
        b'{"text": 1}',
    ]
    found = read(tmp_path, b"\n".join(lines))
    said = [str(fault).removeprefix(f"{tmp_path / 'rows.jsonl'}, ") for fault in found.faults]
    assert len(found.rows) == 1 and len(said) == 3
    assert said[0].startswith("line 1: expected one JSON object per line")
    assert said[1].startswith('250 rows (lines 2, 3, 4, …), messages[1]: expected "role" to be one of')
    assert said[2].startswith("2 rows (lines 252, 254): expected columns of a known shape")
    assert [item.id for item in data_set(tmp_path / "rows.jsonl").bad_rows()][-2:] == ["line-252", "line-254"]


def test_the_training_rows_of_a_run_are_one_fault_that_says_what_to_type(tmp_path: Path) -> None:
    row = {"id": "1", "prompt": [{"role": "user", "content": "q"}], "pieces": [{"text": "a"}], "outcome": "as_given"}
    found = read(tmp_path, "\n".join([json.dumps(row)] * 120).encode(), "train.jsonl")
    assert len(found.faults) == 1
    assert "train.jsonl, 120 rows (lines 1, 2, 3, …): " in str(found.faults[0])
    assert str(found.faults[0]).endswith(f"training rows of a run: look at them with socratune inspect {tmp_path}.")


def test_where_a_number_shows_that_options_are_counted_from_1_no_row_of_the_file_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"question": "q", "choices": ["x", "y", "z"], "answer": number} for number in (1, 2, 3, 1, 3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"2 rows \(lines 3, 5\), answer: .*if yours count from 1, write letters"):
        list(data_set(path).rows())


@pytest.mark.parametrize("depth", [99, 150, 330, 500, 700, 900, 960, 980, 990, 995, 1000, 5000])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_nothing_is_too_deep_to_be_refused(tmp_path: Path, depth: int, name: str) -> None:
    deep = "[" * depth + "]" * depth
    rows = [f'{{"x": {deep}}}', f'{{"question": "q", "answer": "a", "level": {deep}}}', f'{{"messages": {deep}}}']
    path = tmp_path / name
    path.write_text(f"[{','.join(rows)}]" if name.endswith(".json") else "\n".join(rows))
    found = data_set(path)
    assert "".join(map(str, [*found.reading.faults, *found.damage]))
    assert len(list(found.bad_rows())) == found.reading.bad_rows


def test_reading_says_which_shapes_it_recognised(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(GOOD + b'\n{"question": "q", "answer": "a"}\n' + GOOD)
    reading = _Reading()
    list(qa_rows(path, reading))
    assert reading.shapes == {"messages": 2, "question–answer": 1}


# --- other files ---------------------------------------------------------------------------------------------------


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0].keys(), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


LINES = "".join(json.dumps(row) + "\n" for row in PAIRS).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", json.dumps(PAIRS).encode()),
        ("rows.json", b"\xef\xbb\xbf" + json.dumps(PAIRS, indent=2).encode() + b"\n"),
        ("rows.json", LINES),
        ("rows.txt", LINES),
        ("rows.jsonl.gz", gzip.compress(LINES)),
        ("rows.json.gz", gzip.compress(json.dumps(PAIRS).encode())),
        ("rows.csv", as_csv(PAIRS)),
        ("rows.csv", b"\xef\xbb\xbf" + as_csv(PAIRS, ";")),
        ("rows.tsv", as_csv(PAIRS, "\t")),
        ("rows.csv.gz", gzip.compress(as_csv(PAIRS))),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    found = read(tmp_path, content, name)
    assert found.faults == []
    assert found.rows == read(tmp_path, LINES).rows


def test_a_parquet_file_gives_the_same_rows(tmp_path: Path) -> None:
    assert read(tmp_path, as_parquet(PAIRS), "rows.parquet").rows == read(tmp_path, LINES).rows


def test_a_json_array_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_CHUNK", 7)  # every token is cut somewhere
    found = read(tmp_path, json.dumps(PAIRS[:20], indent=1).encode(), "rows.json")
    assert questions(found) == [row["question"] for row in PAIRS[:20]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"question": "q", "answer": "a"}, {"question": ', "row 2: expected a JSON array of rows"),
        (b'[{"question": "q", "answer": "a"}', "the end of the file"),
        (b'[{"question": "q", "answer": "a"} {}]', "Expecting ',' or ']'"),
        (b'[{"question": "\xff", "answer": "a"}]', "0xff"),
        (b"[" * 100_000, "recursion"),
        (b"[]", "an empty file"),
        (b'[{"question": "q", "answer": "a"}, 3]', "row 2: expected an object"),
        (b'{\n  "data": [\n    {"question": "q", "answer": "a"}]}', "Take the array with the rows out of it."),
    ],
)
def test_what_is_wrong_with_a_json_array(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in "\n".join(map(str, read(tmp_path, content, "rows.json").faults))


def test_csv_cells_with_commas_and_line_ends_and_empty_ones(tmp_path: Path) -> None:
    text = ',question,answer,source\n0,"a, ""b""\nc?",x,\n,,,\n1,q,y,doc\n'
    found = read(tmp_path, text.encode(), "rows.csv")
    assert found.faults == []
    assert [(row.question, row.reference, row.metadata) for row in found.rows] == [
        ('a, "b"\nc?', "x", {}), ("q", "y", {"source": "doc"}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("question,answer\nq,a\nonly\n", "row 3: expected 2 cells, as the first row has, got 1"),
        ("question,answer\nq,a\nonly\nq,a,more\n", "2 rows (rows 3, 4): expected 2 cells"),
        ("question,answer\nq,a\nq,a,more\n", "row 3: expected 2 cells, as the first row has, got 3"),
        ('question,answer\n"q,a\n', "row 2: expected CSV"),
        ("question,answer\nq,\n", "row 2: expected columns of a known shape"),
        ("text,label\nt,1\n", "row 1: expected columns of a known shape"),
        ("Frage,Antwort\nf,a\n", 'Name the columns "question" and "answer".'),
        ("question,reply\nq,a\n", "got the columns question, reply"),
        ("question,answer,answer\nq,a,b\n", "answer twice"),
        ("question,answer\n", "an empty file"),
        (b"question,answer\nq,\xe4\nq,a\n", "row 2: expected UTF-8 text, got the byte 0xe4"),
        ("question,answer\nq,a\n".encode("utf-16"), "row 1: expected UTF-8 text"),
    ],
)
def test_what_is_wrong_with_a_csv_file(tmp_path: Path, content: str | bytes, said: str) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    found = read(tmp_path, data, "rows.csv")
    assert said in str(found.faults[0])
    str(found.faults[0]).encode()  # can be printed


def test_a_faulty_parquet_row_has_its_number_and_odd_columns_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {"thumbnail": b"\x89PNG", "score": float("nan"), "level": 2}
    rows = [{"question": "q", "answer": "a", **odd}, {"question": "q", "answer": None, **odd}]
    found = read(tmp_path, as_parquet(rows), "rows.parquet")
    assert [row.metadata for row in found.rows] == [{"level": 2}]
    assert "row 2: expected columns of a known shape" in str(found.faults[0])
    assert caplog.text.count('"thumbnail" is left out') == 1


def test_a_question_is_not_asked_without_its_picture(tmp_path: Path) -> None:
    rows = [{"question": "What is it?", "answer": "a cat", "image": {"bytes": b"\x89PNG", "path": None}}]
    found = read(tmp_path, as_parquet([*rows, {"question": "q", "answer": "a", "image": None}]), "rows.parquet")
    assert [row.question for row in found.rows] == ["q"]
    assert 'a column "image" beside it. Only text can be asked' in str(found.faults[0])


def test_what_is_wrong_with_a_parquet_file(tmp_path: Path) -> None:
    whole = as_parquet(PAIRS)
    assert "expected a Parquet file" in str(read(tmp_path, whole[:-20], "a.parquet").faults[0])
    damaged = whole[:100] + b"\xff" * 200 + whole[300:]
    assert "expected a" in str(read(tmp_path, damaged, "b.parquet").faults[0])
    assert "got the columns text" in str(read(tmp_path, as_parquet([{"text": "t"}]), "c.parquet").faults[0])


@pytest.mark.parametrize("content", [gzip.compress(LINES)[:-9], LINES, gzip.compress(LINES)[:50] + b"\xff" * 50])
def test_a_damaged_gzip_file_is_a_fault(tmp_path: Path, content: bytes) -> None:
    assert "a whole gzip file" in str(read(tmp_path, content, "rows.jsonl.gz").faults[-1])


def test_a_damaged_file_is_refused_even_where_bad_rows_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(LINES)[:-9])
    with pytest.raises(UserError, match="whole gzip file"):
        list(qa_rows(path, _Reading()))


def test_missing_file_and_directory(tmp_path: Path) -> None:
    (tmp_path / "my_rows.jsonl").write_bytes(GOOD)
    assert "no such file" in str(read_qa_rows(tmp_path / "other.jsonl").faults[0])
    assert f"Did you mean {tmp_path / 'my_rows.jsonl'}?" in str(read_qa_rows(tmp_path / "my_row.jsonl").faults[0])
    assert "a directory" in str(read_qa_rows(tmp_path).faults[0])
    assert "given as org/name" in str(read_qa_rows(Path("gsm8k")).faults[0])


def test_without_the_libraries_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    for name in (tmp_path / "rows.parquet", Path("org/name")):
        found = read_qa_rows(name)
        assert "pip install 'socratune[data]'" in str(found.faults[0])


def test_embedded_data_keeps_its_promises() -> None:
    train, held_out = read_qa_rows(data_path("demo")), read_qa_rows(data_path("demo", held_out=True))
    assert not train.faults and not held_out.faults
    assert len(train.rows) >= 600 and len(held_out.rows) >= 400
    assert train.rows[0].question == "What is 15 * 13?"
    assert not {row.source for row in train.rows} & {row.source for row in held_out.rows}


# --- parsed once ---------------------------------------------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The name of every file that is parsed."""
    found: list[str] = []
    real = records.read_records

    def read_records(path: Path) -> Iterator[records.Record]:
        found.append(path.name)
        return real(path)

    monkeypatch.setattr(qa_files, "read_records", read_records)
    forget_data_sets()
    yield found
    forget_data_sets()


def test_a_data_set_is_parsed_once_and_anew_when_it_has_changed(tmp_path: Path, parsed: list[str]) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(GOOD + b"\n{}\n" + GOOD.replace(b'"q"', b'"r"') + b"\n[]")
    first = data_set(path)
    assert [row.question for row in first.rows()] == [row.question for row in data_set(path).rows()] == ["q", "r"]
    assert [item.id for item in first.bad_rows()] == ["line-2", "line-4"]
    assert [(one.question, other.question) for one, other in zip(first.rows(), first.rows(), strict=True)] == [
        ("q", "q"),
        ("r", "r"),
    ]
    assert (parsed, first.reading.rows, first.reading.bad_rows) == (["in.jsonl"], 2, 2)
    path.write_bytes(GOOD.replace(b'"q"', b'"s"'))
    assert [row.question for row in data_set(path).rows()] == ["s"]
    assert [row.question for row in first.rows()] == ["q", "r"]  # who began with the old one ends with it
    assert len(parsed) == 2
    forget_data_sets()
    assert data_set(path) is data_set(path) and len(parsed) == 3


def test_rows_wait_as_they_were_read(tmp_path: Path) -> None:
    row = json.loads(GOOD) | {
        "metadata": {"n": 2**70, "x": 0.1, "none": None, "text": "ü\u2028\n", "deep": [{"a": []}]}
    }
    path = tmp_path / "in.json"
    path.write_text(json.dumps([row, row]), "utf-8")
    assert list(data_set(path).rows()) == list(qa_rows(path, _Reading()))


def test_without_room_on_the_disk_the_rows_are_parsed_anew(
    tmp_path: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    path = tmp_path / "in.jsonl"
    path.write_bytes(GOOD + b"\n{}")
    found = data_set(path)
    assert [row.question for row in found.rows()] == ["q"] and [item.id for item in found.bad_rows()] == ["line-2"]
    assert len(parsed) == 3


def test_a_file_that_changes_while_it_is_parsed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "in.jsonl", shapes.parse_row
    path.write_bytes(GOOD + b"\n" + GOOD)

    def parse_row(value: Any, where: str) -> Any:
        path.write_bytes(GOOD)
        return real(value, where)

    monkeypatch.setattr(qa_files, "parse_row", parse_row)
    with pytest.raises(OutsideError, match="has changed while it was read"):
        data_set(path)
    monkeypatch.undo()
    assert len(list(data_set(path).rows())) == 1


def test_damage_is_told_with_the_faults_before_it(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n" + GOOD * 50_000)[:-200])
    found = data_set(path)
    assert "whole gzip file" in str(found.damage[0]) and found.reading.bad_rows == 1
    with pytest.raises(UserError, match="whole gzip file"):
        next(found.rows())
    assert all(isinstance(row, QARow) for row in qa_rows(data_path("demo"), _Reading()))

from __future__ import annotations

import json
from pathlib import Path

import pytest

from socratune.sources.qa_files import data_path, read_qa_rows

GOOD = json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}).encode()


def read(tmp_path: Path, content: bytes):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    return read_qa_rows(path)


def test_every_bad_line_is_reported_with_its_number(tmp_path: Path) -> None:
    lines = [GOOD, b'{"messages": [', GOOD, b'{"x": 1}', b"\xff\xfe", b"\x00\x00\x00", b"", b"[1]", b"0", GOOD]
    found = read(tmp_path, b"\n".join(lines))
    assert len(found.rows) == 3
    assert [fault.where.rsplit(" ", 1)[1] for fault in found.faults] == ["2", "4", "5", "6", "8", "9"]
    assert [item.id for item in found.rejected] == ["line-2", "line-4", "line-5", "line-6", "line-8", "line-9"]
    assert "0xff at position 1" in str(found.faults[2])
    assert "NUL" in str(found.faults[3])


def test_byte_order_mark_crlf_and_blank_lines_are_fine(tmp_path: Path) -> None:
    found = read(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n  \n" + GOOD + b"\r\n")
    assert (len(found.rows), found.faults) == (2, [])
    assert found.rows[1].id == found.rows[0].id + "-2"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_a_fault(tmp_path: Path, content: bytes) -> None:
    assert "an empty file" in str(read(tmp_path, content).faults[0])


def test_missing_file_and_directory(tmp_path: Path) -> None:
    assert "no such file" in str(read_qa_rows(tmp_path / "no").faults[0])
    assert "a directory" in str(read_qa_rows(tmp_path).faults[0])


def test_deeply_nested_json_is_a_fault_not_a_crash(tmp_path: Path) -> None:
    assert read(tmp_path, b"[" * 100_000).faults


def test_embedded_data_keeps_its_promises() -> None:
    train, held_out = read_qa_rows(data_path("demo")), read_qa_rows(data_path("demo", held_out=True))
    assert not train.faults and not held_out.faults
    assert len(train.rows) >= 600 and len(held_out.rows) >= 400
    assert train.rows[0].question == "What is 15 * 13?"
    assert not {row.source for row in train.rows} & {row.source for row in held_out.rows}

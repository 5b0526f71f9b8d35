"""What a run remembers of its finished stages, where somebody or something has been at their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from socratune.errors import UserError
from socratune.runs.folder import RunDir, read_jsonl, write_jsonl
from socratune.runs.progress import is_incomplete

DONE = {"status": "done", "empty": ["train.rejected.jsonl"]}
ROWS = b'{"id": "1"}\n{"id": "2"}\n'


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    write_jsonl(run.rows("train"), [{"id": "1"}, {"id": "2"}])
    write_jsonl(run.rejected("train"), [])
    return run


@pytest.mark.parametrize(
    "torn", [ROWS[:-4], b"", b"\x00\xff", b"3\n", b"[" * 100_000, ROWS + b"\xe2\x28\n"], ids=range(6)
)
def test_a_torn_file_is_done_again_and_kept_aside(run: RunDir, torn: bytes) -> None:
    run.rows("train").write_bytes(torn)
    assert is_incomplete(run, "curate", DONE)
    assert (run / "train.jsonl.damaged").read_bytes() == torn and not run.rows("train").exists()


def test_a_folder_in_the_place_of_a_file_is_moved_aside(run: RunDir) -> None:
    run.rows("train").unlink()
    run.rows("train").mkdir()
    (run / "train.jsonl.damaged").mkdir()
    assert is_incomplete(run, "curate", DONE)
    assert not run.rows("train").exists()


@pytest.mark.parametrize("edited", [ROWS, ROWS[:12], ROWS * 2, ROWS.rstrip(), b'{"id": "another"}\n'], ids=range(5))
def test_what_somebody_edited_stays_as_it_is(run: RunDir, edited: bytes) -> None:
    run.rows("train").write_bytes(edited)
    assert not is_incomplete(run, "curate", DONE)
    assert run.rows("train").read_bytes() == edited


def test_only_what_is_finished_is_looked_at_and_an_earlier_version_noted_no_empty_files(run: RunDir) -> None:
    run.rows("train").write_bytes(b"")
    assert not is_incomplete(run, "curate", {"status": "done"})
    run.rows("train").write_bytes(b"{")
    assert not is_incomplete(run, "curate", {"status": "running"})


def test_a_line_that_cannot_be_read_is_named_with_what_to_do(run: RunDir) -> None:
    run.rows("train").write_bytes(ROWS + b"\xff\n")
    with pytest.raises(UserError, match=r"train\.jsonl, line 3: .*not UTF-8.* Delete the file\."):
        list(read_jsonl(run.rows("train")))

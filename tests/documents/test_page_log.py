"""The log of a drain that was damaged: a user's error with the way out, or read anew; never a bug."""

from __future__ import annotations

import random
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from socratune.documents.document import Document
from socratune.documents.page_log import Drained, PageLog
from socratune.errors import SocratuneError, UserError


def begun(folder: Path, *, finished: bool = False) -> Path:
    with PageLog(folder, "q") as log:
        for page in range(20):
            rows = [Document(f"c/{page * 10 + number}", "t", "text " * 200) for number in range(10)]
            log.keep("c", str(page), rows, done=page == 19)
        if finished:
            log.finish()
    return folder / "pages.sqlite"


def go_on(folder: Path) -> Drained:
    """What the same command does then."""
    with PageLog(folder, "q") as log:
        if finished := log.finished():
            return finished
        _ = log.position("c"), log.count("c"), list(log.batches(0, 50)), log.other_ends(0)
        log.keep("d", "", [Document("d/1", "t", "text")], done=True)
        return log.finish()


def sql(*statements: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database, database:
            for statement in statements:
                database.execute(statement)

    return run


DAMAGES: dict[str, Callable[[Path], object]] = {
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "its beginning": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "no database": lambda path: path.write_bytes(b"x" * 5000),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "other columns": sql("DROP TABLE steps", "CREATE TABLE steps (name TEXT PRIMARY KEY, place TEXT, over INTEGER)"),
    "a table as a view": sql("DROP TABLE asked", "CREATE VIEW asked AS SELECT 1 AS id"),
    "bytes that are no text": sql("UPDATE documents SET value = CAST(x'ff00' AS TEXT) WHERE number = 3"),
    "no JSON": sql("UPDATE documents SET value = '{bad' WHERE number = 3"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_with_a_way_out_that_works(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "with a blank"
    DAMAGES[name](begun(folder))
    with pytest.raises(UserError, match="Move it aside") as caught:
        go_on(folder)
    command = str(caught.value).split("beginning: ")[1].split(" (nothing")[0]
    subprocess.run(["sh", "-c", command], check=True)
    assert go_on(folder).document_count == 1 and (folder / "damaged").is_dir()


@pytest.mark.parametrize("fact", ["'{bad'", "'[1]'", "'{\"x\": 1}'", "x'ff00'", "''", "7"])
def test_a_note_of_another_version_is_no_answer(tmp_path: Path, fact: str) -> None:
    path = begun(tmp_path, finished=True)
    assert go_on(tmp_path).document_count == 200
    sql(f"UPDATE facts SET value = {fact} WHERE name = 'drained'")(path)
    assert go_on(tmp_path).document_count == 1  # read anew


@pytest.mark.parametrize("seed", range(30))
def test_bytes_that_were_changed_bring_about_no_bug(tmp_path: Path, seed: int) -> None:
    path, draw = begun(tmp_path), random.Random(seed)
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    for place in range(at, min(len(data), at + draw.choice([1, 50, 4096]))):
        data[place] = draw.randrange(256)
    path.write_bytes(data)
    try:
        go_on(tmp_path)
    except SocratuneError as error:
        assert error.exit_code in (2, 3)

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest

from socratune.errors import OutsideError, SocratuneError, UserError
from socratune.llm.base import Sampling
from socratune.llm.ledger import MeteredModel, call_key
from socratune.llm.scripted import ScriptedModel
from socratune.rows import QARow
from socratune.runs import journal as journal_module
from socratune.runs.journal import Journal
from socratune.runs.runner import map_rows

ROWS = [
    QARow(str(n), [{"role": "user", "content": str(n)}, {"role": "assistant", "content": "a"}], {}) for n in range(50)
]


SAMPLED = [field.name for field in fields(Sampling)]


def run_rows(journal: Journal, step, rows=ROWS, stage="s.1", concurrency=8) -> list[tuple[int, int]]:
    ticks: list[tuple[int, int]] = []
    work = map_rows(
        rows, step, journal=journal, stage=stage, concurrency=concurrency, tick=lambda d, t: ticks.append((d, t))
    )
    asyncio.run(work)
    return ticks


def test_a_call_is_made_once_for_the_same_question_and_sampling(tmp_path: Path) -> None:
    model = ScriptedModel(lambda messages: "yes")
    ask = [{"role": "user", "content": "?"}]
    for _ in range(2):
        journal = Journal(tmp_path / "j.sqlite")
        metered = MeteredModel(model, journal, "enhance.student")
        first = asyncio.run(metered.generate(ask, Sampling(seed=1)))
        assert asyncio.run(metered.generate(ask, Sampling(seed=1))) == first
        journal.close()
    assert len(model.seen) == 1
    journal = Journal(tmp_path / "j.sqlite")
    asyncio.run(MeteredModel(model, journal, "enhance.student").generate(ask, Sampling(seed=2)))
    assert len(model.seen) == 2
    assert journal.spent()["enhance.student"]["calls"] == 2


def put(journal: Journal, *keys: bytes, text: str = "yes") -> None:
    async def main() -> None:
        took = {"role": "r", "model": "m", "tokens": (1, 2), "seconds": 0.5}
        await asyncio.gather(*(journal.put_call(key, answer={"text": text}, **took) for key in keys))

    asyncio.run(main())


def test_calls_are_found_by_their_key_alone(tmp_path: Path) -> None:
    """Also those whose keys begin alike, and after the file is opened anew."""
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        put(journal, b"abcd", b"abce", b"xyz")
        assert journal.find_call(b"abcd") == {"text": "yes"}
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        assert all(journal.find_call(key) for key in (b"abcd", b"abce", b"xyz"))
        assert journal.find_call(b"abcf") is journal.find_call(b"other") is None


@pytest.mark.parametrize("text", ["\ud800 half a pair", "é, 中", "\x00", "x" * 1_000_000])
def test_any_text_comes_back(text: str, tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        put(journal, b"key", text=text)
        assert journal.find_call(b"key") == {"text": text}


def test_any_row_comes_back_exactly(tmp_path: Path) -> None:
    value = {"text": "\ud800", "number": 2**70, "share": 0.1, "ids": [1, 2], "nothing": None, "é": {}}
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        asyncio.run(journal.put_row("s", 0, "\udfff", value))
        assert list(journal.rows("s")) == [value]
        assert all("\n" not in text for text in journal.row_texts("s"))


def test_a_key_changes_with_all_that_may_change_the_answer() -> None:
    ask = [{"role": "user", "content": "?"}]
    keys = [
        call_key("enhance.student", "f", ask, Sampling()),
        call_key("validate.student", "f", ask, Sampling()),
        call_key("enhance.student", "g", ask, Sampling()),
        call_key("enhance.student", "f", [*ask, *ask], Sampling()),
        *(call_key("enhance.student", "f", ask, replace(Sampling(), **{name: 7})) for name in SAMPLED),
        call_key("enhance.student", "f", [{"role": "user", "content": "\ud800"}], Sampling()),
    ]
    assert len(set(keys)) == len(keys)


def test_a_cancelled_row_does_not_cancel_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        rows = [asyncio.create_task(journal.put_row("s", at, str(at), {})) for at in range(3)]
        await asyncio.sleep(0)
        rows[1].cancel()
        await asyncio.gather(rows[0], rows[2])

    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        asyncio.run(main())
        assert journal.done_positions("s") >= {0, 2}


def test_what_cannot_be_written_is_told_to_everyone_who_waits(tmp_path: Path) -> None:
    async def main() -> list[BaseException | None]:
        puts = (journal.put_row("s", at, str(at), {}) for at in range(3))
        return await asyncio.gather(*puts, return_exceptions=True)

    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        with closing(sqlite3.connect(tmp_path / "j.sqlite")) as other:
            other.execute("DROP TABLE rows")
        told = asyncio.run(main())
    assert len(told) == 3
    assert all(isinstance(error, OutsideError) and "cannot be written" in str(error) for error in told)


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold within ten seconds."""
    until = time.monotonic() + 10
    while not holds() and time.monotonic() < until:
        time.sleep(0.005)
    return holds()


def test_the_disk_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was put is in the file, and the file is told to the disk after that, without anyone waiting for it."""
    sizes: list[int] = []
    real = journal_module._to_disk
    monkeypatch.setattr(journal_module, "_to_disk", lambda file: (sizes.append(os.fstat(file).st_size), real(file)))
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        for number in range(5):
            put(journal, b"key %d" % number)
            written = (tmp_path / "j.sqlite-wal").stat().st_size
            assert eventually(lambda written=written: bool(sizes) and sizes[-1] >= written)


def test_a_disk_that_fails_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int) -> None:
        raise OSError(5, "Input/output error")

    def stopped() -> bool:
        try:
            put(journal, b"key")
        except OutsideError as error:
            return "Input/output error" in str(error)
        return False

    monkeypatch.setattr(journal_module, "_to_disk", fail)
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        assert eventually(stopped)


def test_finished_rows_are_not_done_again_and_come_back_in_order(tmp_path: Path) -> None:
    seen: list[str] = []

    async def step(row: QARow) -> dict[str, str]:
        await asyncio.sleep(0.001 * (int(row.id) % 5))
        if row.id == "30" and "30" not in seen:
            seen.append(row.id)
            raise OutsideError("the network is gone")
        seen.append(row.id)
        return {"id": row.id}

    journal = Journal(tmp_path / "j.sqlite")
    with pytest.raises(OutsideError, match="network is gone"):
        run_rows(journal, step)
    done_before = len(journal.done_positions("s.1"))
    assert 20 <= done_before < 50
    ticks = run_rows(journal, step)
    assert ticks[0] == (done_before, 50)
    assert ticks[-1] == (50, 50)
    assert [row["id"] for row in journal.rows("s.1")] == [row.id for row in ROWS]
    finished = [row for row in seen if row != "30"]
    assert len(finished) - len(set(finished)) <= 8  # only what was in flight was repeated


def test_rows_of_another_key_are_not_found(tmp_path: Path) -> None:
    async def step(row: QARow) -> dict[str, str]:
        return {"id": row.id}

    journal = Journal(tmp_path / "j.sqlite")
    run_rows(journal, step)
    assert journal.done_positions("s.2") == set()
    journal.forget("s")
    assert journal.done_positions("s.1") == set()


def test_what_was_used_is_in_the_file_after_sigkill(tmp_path: Path) -> None:
    script = """
import asyncio, os, signal, sys
from pathlib import Path
from socratune.runs.journal import Journal
async def main():
    journal = Journal(Path(sys.argv[1]))
    for n in range(100):
        await journal.put_row("s", n, str(n), {"n": n})
        print(n, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    path = tmp_path / "j.sqlite"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(done.stdout.split()) == 100
    assert len(Journal(path).done_positions("s")) == 100


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_journal_is_an_outside_fault(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutsideError):
        Journal(tmp_path / "j.sqlite")


def test_a_path_that_cannot_be_a_journal_is_an_outside_fault(tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match="cannot be opened"):
        Journal(tmp_path)


def filled(path: Path) -> bytes:
    """A journal with a few pages of calls and rows; its bytes."""

    async def fill(journal: Journal) -> None:
        for number in range(120):
            key = number.to_bytes(16, "little")
            answer = {"text": "x" * 200, "stop": "end", "prompt_tokens": 1, "completion_tokens": 1, "token_ids": None}
            await journal.put_call(key, role="r", model="m", answer=answer, tokens=(1, 1), seconds=0.0)
            await journal.put_row("s.1", number, str(number), {"n": "y" * 200})

    with closing(Journal(path)) as journal:
        asyncio.run(fill(journal))
    return path.read_bytes()


def read_all(path: Path) -> None:
    """Everything a run asks of a journal."""
    with closing(Journal(path)) as journal:
        for number in range(120):
            journal.find_call(number.to_bytes(16, "little"))
        for read in (journal.rows, journal.done_positions):
            list(read("s.1"))
        for look in (journal.spent, partial(journal.spent_by, "r"), journal.pods):
            look()
        journal.forget("s.1")


def damaged(whole: bytes) -> dict[str, bytes]:
    """A journal spoiled in many ways."""
    pages = {
        f"page {at}": whole[: at * 4096] + b"\xff" * 4096 + whole[(at + 1) * 4096 :] for at in range(len(whole) // 4096)
    }
    cut = {f"cut at {at}": whole[:at] for at in (1, 50, 100, 4096, 5000, 3 * 4096, len(whole) - 4096)}
    return {
        **pages,
        **cut,
        "text": b"not a database at all" * 50,
        "zeros": bytes(8192),
        "answers": whole.replace(b"xxx", b'x"x'),
    }


def test_a_damaged_journal_says_what_to_do_and_what_is_kept(tmp_path: Path) -> None:
    """Whatever is broken where: it works, or it is named with the way out; never an error of SQLite's own."""
    whole, said = filled(tmp_path / "j.sqlite"), []
    for number, spoiled in enumerate(damaged(whole).values()):
        path = tmp_path / str(number) / "journal.sqlite"
        path.parent.mkdir()
        path.write_bytes(spoiled)
        try:
            read_all(path)
        except UserError as error:
            said.append((path, str(error)))
    assert len(said) > 20
    for path, text in said:
        assert f"mv {path}* {path.parent / 'damaged'}" in text and "Finished stages are kept" in text
    path, text = said[0]
    move = text.split("command again: ", 1)[1].splitlines()[0]
    subprocess.run(["sh", "-c", move], check=True)
    read_all(path)  # the same command goes on
    assert (path.parent / "damaged" / path.name).exists()


def test_a_journal_of_other_columns_is_none(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "j.sqlite")) as other:
        other.execute("CREATE TABLE calls (key TEXT, said TEXT)")
        other.execute("INSERT INTO calls VALUES ('a', 'b')")
        other.commit()
    with pytest.raises(UserError, match="The file is corrupt"):
        read_all(tmp_path / "j.sqlite")


def test_an_answer_that_cannot_be_read_is_asked_for_again(tmp_path: Path) -> None:
    ask, model = [{"role": "user", "content": "?"}], ScriptedModel(lambda messages: "yes")
    for answer in (
        "{",
        "7",
        "{}",
        '{"text": 7, "stop": "end", "prompt_tokens": 1, "completion_tokens": 1, "token_ids": null}',
    ):
        with closing(Journal(tmp_path / "j.sqlite")) as journal:
            asyncio.run(MeteredModel(model, journal, "r").generate(ask, Sampling()))
            journal._db.execute("UPDATE calls SET answer = ?", (answer,))
            assert asyncio.run(MeteredModel(model, journal, "r").generate(ask, Sampling())).text == "yes"


def test_rows_that_cannot_be_read_are_a_damaged_journal(tmp_path: Path) -> None:
    filled(tmp_path / "j.sqlite")
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        journal._db.execute("UPDATE rows SET value = '[1' WHERE position = 3")
        with pytest.raises(SocratuneError, match="The file is corrupt"):
            list(journal.rows("s.1"))

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from socratune.errors import OutsideError
from socratune.journal import Journal
from socratune.llm.base import Sampling
from socratune.llm.metered import MeteredModel
from socratune.llm.scripted import ScriptedModel
from socratune.rowmap import map_rows
from socratune.rows import QARow

ROWS = [
    QARow(str(n), [{"role": "user", "content": str(n)}, {"role": "assistant", "content": "a"}], {}) for n in range(50)
]


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


def test_no_more_rows_in_flight_than_asked(tmp_path: Path) -> None:
    flying = most = 0

    async def step(row: QARow) -> dict[str, str]:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.001)
        flying -= 1
        return {}

    run_rows(Journal(tmp_path / "j.sqlite"), step, concurrency=7)
    assert most == 7


def test_what_was_used_is_in_the_file_after_sigkill(tmp_path: Path) -> None:
    script = """
import asyncio, os, signal, sys
from pathlib import Path
from socratune.journal import Journal
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

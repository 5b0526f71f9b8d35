"""The page a researcher reads first does what it says."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOOP = ROOT / "examples" / "loop.py"


@pytest.mark.slow
def test_the_loop_on_one_question_solves_teaches_and_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(LOOP.read_text("utf-8").splitlines()) <= 150
    assert runpy.run_path(str(LOOP))["main"]() == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("is incorrect") and said[1].startswith("hint: ") and said[2].endswith("is correct")
    [trained] = [line for line in said if line.startswith("trained")]
    before, _, answer = trained.partition("assistant")
    assert (
        "[" not in before.partition(": ")[2] and "Try breaking" not in trained
    )  # no loss on the prompt, no hint in it
    assert "[<|im_end|>]" in answer and "3" in answer
    assert said[-1].startswith("attempt 1") and said[-1].endswith("is correct")


def test_the_task_of_the_real_demo_has_a_right_solution_and_no_favourite_answer() -> None:
    task = runpy.run_path(str(ROOT / "examples" / "orders.py"))
    entries = list(islice(task["questions"](0), 600))
    assert entries == list(islice(task["questions"](0), 600)) and task["template"](entries[0]) is None
    places = Counter(entry["items"].index(entry["answer"]) for entry in entries)
    assert min(places.values()) > 150  # naming the first, or the last, is right in a third
    assert Counter(entry["answer"] for entry in entries).most_common(1)[0][1] < 60
    for entry in entries:
        wrong = next(item for item in entry["items"] if item != entry["answer"])
        assert task["verify"](entry, entry["solution"].splitlines()[-1])
        assert not task["verify"](entry, f"The answer is {wrong}.")
        assert not task["verify"](entry, f"{wrong} and {entry['answer']}") and not task["verify"](entry, "9")


def test_every_fault_of_planted_has_its_place_in_the_source() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "dev" / "planted.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

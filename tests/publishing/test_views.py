"""Preference pairs and self-distillation prompts out of the loop's traces."""

from __future__ import annotations

import json
from pathlib import Path

from socratune.publishing import views
from socratune.rows import Attempt, QARow, Trace
from socratune.runs.folder import RunDir, write_jsonl

QUESTION = {"role": "user", "content": "How much is 15 × 13?"}
ROW = QARow("r", [QUESTION, {"role": "assistant", "content": "195"}], {"evidence": "15 × 13 is 195."})


def trace(outcome, *attempts: Attempt, **fields) -> Trace:
    return Trace(ROW, outcome, attempts, "direct", {}, **fields)


WRONG = Attempt(1, "180", "incorrect", "number")
HINTED = Attempt(1, "181", "incorrect", "number", hint="Split 13.")
RIGHT = Attempt(2, "15 × 10 + 15 × 3 = 195", "correct", "number", given="hint")
CUT = Attempt(1, "15 times", "undecided", "truncated")


def test_a_pair_needs_a_wrong_and_a_right_attempt() -> None:
    pair = views.preference(trace("solved_with_hint", HINTED, RIGHT, chosen=2))
    assert pair == {
        "prompt": [QUESTION],
        "chosen": [{"role": "assistant", "content": RIGHT.response}],
        "rejected": [{"role": "assistant", "content": "181"}],
    }
    assert views.preference(trace("unsolved", WRONG)) is None
    assert views.preference(trace("solved_first_try", CUT, RIGHT, chosen=2)) is None


def test_what_the_self_distillation_teacher_sees() -> None:
    def context(found: Trace) -> str | None:
        view = views.sdft(found)
        return None if view is None else view["privileged_context"]

    assert context(trace("solved_with_hint", HINTED, RIGHT, chosen=2)) == "Split 13."
    assert context(trace("solved_with_evidence", WRONG, RIGHT, chosen=2)) == "15 × 13 is 195."
    assert context(trace("unsolved", WRONG)) == "195"
    assert context(trace("solved_first_try", RIGHT, RIGHT, chosen=1, pass_rate=1.0)) is None
    assert context(trace("undecided", CUT)) is None


def test_the_views_are_files_of_the_run(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    found = [trace("solved_with_hint", HINTED, RIGHT, chosen=2), trace("unsolved", WRONG)]
    write_jsonl(run.enhanced, (each.to_json("195") for each in found))
    assert views.write_views(run, ["preference", "sdft"]) == {"preference": 1, "sdft": 2}
    first = json.loads((tmp_path / "sdft.jsonl").read_text().splitlines()[0])
    assert first == {"id": "r", "prompt": [QUESTION], "privileged_context": "Split 13."}

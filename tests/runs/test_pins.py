"""What was fixed first stands first, stays as long as it is true, and is not lost with a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from socratune.errors import UserError
from socratune.runs.folder import RunDir
from socratune.runs.pins import pin, pins_faults, read_pins


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "adapter").mkdir()
    return RunDir(tmp_path)


def pinned(run: RunDir) -> list[tuple[str, Any]]:
    return [(one.what, one.content["n"]) for one in read_pins(run / "provenance.json")]


def test_what_is_pinned_anew_as_it_was_stays_and_what_has_changed_ends_what_stood_behind_it(run: RunDir) -> None:
    results: dict[str, Any] = {}
    for what in ("held_out", "train", "adapter", "proof"):
        pin(run, results, what, {"n": 1})
    whole = (run / "provenance.json").read_text()
    for what in ("train", "held_out", "proof"):
        pin(run, results, what, {"n": 1})
    assert (run / "provenance.json").read_text() == whole == (run.adapter / "provenance.json").read_text()
    assert not pins_faults(read_pins(run / "provenance.json"), results["provenance"])
    pin(run, results, "train", {"n": 2})
    assert pinned(run) == [("held_out", 1), ("train", 2)]


@pytest.mark.parametrize("damage", [None, b"", b"{", b"[]", b"\xff", b'{"format": 9, "pins": []}', b"[" * 100_000])
def test_a_file_that_is_lost_or_damaged_comes_back_from_the_copy(run: RunDir, damage: bytes | None) -> None:
    results: dict[str, Any] = {}
    pin(run, results, "held_out", {"n": 1})
    path = run / "provenance.json"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"provenance.json: expected the provenance of a run"):
            read_pins(path)
    pin(run, results, "train", {"n": 1})
    assert pinned(run) == [("held_out", 1), ("train", 1)]


def test_where_the_copy_is_lost_too_it_begins_anew_and_says_so(run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    results: dict[str, Any] = {}
    pin(run, results, "held_out", {"n": 1})
    for path in (run / "provenance.json", run.adapter / "provenance.json"):
        path.write_text("{")
    pin(run, results, "proof", {"n": 1})
    assert pinned(run) == [("proof", 1)] and "It is recorded again from here on" in caplog.text


def test_a_run_that_was_killed_before_its_results_were_written_goes_on(run: RunDir) -> None:
    pin(run, {}, "held_out", {"n": 1})
    results: dict[str, Any] = {"provenance": "of before"}
    pin(run, results, "train", {"n": 1})
    assert pinned(run) == [("held_out", 1), ("train", 1)]
    assert not pins_faults(read_pins(run / "provenance.json"), results["provenance"])


def test_an_entry_that_was_edited_added_or_moved_is_found(run: RunDir) -> None:
    results: dict[str, Any] = {}
    for what in ("held_out", "train"):
        pin(run, results, what, {"n": 1})
    told = json.loads((run / "provenance.json").read_text())
    first, second = told["pins"]
    for pins in ([{**first, "n": 2}, second], [first, {**second, "n": 2}], [second, first], [second], [first], []):
        (run / "provenance.json").write_text(json.dumps({**told, "pins": pins}))
        assert pins_faults(read_pins(run / "provenance.json"), results["provenance"])

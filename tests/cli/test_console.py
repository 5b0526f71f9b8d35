"""How a command can end."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from socratune.cli.console import going_on, guarded, majority_text
from socratune.errors import Fault, OutsideError, StageFailed, UserError


def end_with(error: BaseException, log: Path | None = None) -> int:
    def command() -> int:
        raise error

    return guarded(command, lambda: log)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError(Fault("x", "y")), 2),
        (StageFailed("no"), 1),
        (OutsideError("no network"), 3),
        (OSError(errno.ENOSPC, "No space left on device", "/data/run/x"), 3),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("ours"), 70),
        (OSError(errno.EBADF, "ours"), 70),
    ],
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert end_with(error) == code
    assert ("Traceback" in capsys.readouterr().err) is (code == 70)


def test_a_bugs_traceback_is_in_the_run_log_and_not_on_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_with(ZeroDivisionError("ours"), tmp_path / "run.log") == 70
    assert "Traceback" in (tmp_path / "run.log").read_text()
    said = capsys.readouterr().err
    assert "run.log" in said and "Traceback" not in said and "ZeroDivisionError: ours" in said


def test_only_what_can_go_on_is_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    def said(**given: Any) -> str:
        assert guarded(interrupted, **given) == 130
        return capsys.readouterr().err.strip()

    assert said() == "Interrupted."  # a chat, a plan, an export
    assert said(goes_on=lambda: going_on(tmp_path)) == "Interrupted."  # nothing was begun
    (tmp_path / "pipeline_results.json").write_text("{}")
    assert said(goes_on=lambda: going_on(tmp_path)) == "Interrupted. The same command goes on from here."
    again = said(goes_on=lambda: going_on(tmp_path, restart=True))
    assert again == "Interrupted. Without --restart the same command goes on from here."


def test_an_adapter_that_gives_the_most_frequent_answer_and_no_more_is_told() -> None:
    """SmolLM2 on letter_counting went from 31 to 74 % so: 78 % of the answers are 1."""
    found = {"majority": {"reference": "1", "accuracy": 0.778}, "base_accuracy": 0.312, "adapter_accuracy": 0.74}
    assert majority_text(found).endswith("the base is in 31.2%, the adapter in 74.0%.")
    assert majority_text({**found, "majority": {"reference": "1", "accuracy": 0.05}}) == ""

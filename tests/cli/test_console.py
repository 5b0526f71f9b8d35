"""How a command can end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from socratune.cli.console import guarded
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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at the signals that a process handles")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_libraries_are_loaded_ends_with_130(kind: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "socratune", "demo", "--output", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not handles(process.pid, signal.SIGTERM):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.005)
        process.send_signal(kind)
        said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in said[1] and "Traceback" not in said[1]
    assert not (tmp_path / "run").exists()


def handles(pid: int, kind: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    caught = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")), 0)
    return bool(caught & 1 << (kind - 1))


def test_guarded_hears_an_interrupt_where_the_start_would_have_ended_the_process() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, lambda *_: os._exit(99))

        def command() -> int:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
            return 0

        assert guarded(command) == 130
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a background job
        assert guarded(lambda: 0) == 0 and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)

"""The last line of a session names what was not tested and the command that mends it; in CI a stray skip fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import untested

pytest_plugins = ["pytester"]

SKIPPING = """
import pytest

@pytest.mark.parametrize("number", range(2))
def test_of_the_page(number):
    pytest.skip("Chromium is not installed: apt-get install chromium")

def test_with_a_pod():
    pytest.skip("not installed here: ssh-keygen, rsync, sshd")

@pytest.mark.skipif(True, reason="ray is not installed (the extra [ray])")
def test_ray():
    pass

def test_that_passes():
    pass
"""
LINE = (
    "Not tested: the page in a browser (2 tests), rented machines behind a real sshd (1 test), "
    "Ray, SkyPilot, wandb, MLflow (1 test). "
    "Mend: {sudo}apt-get install chromium openssh-client rsync openssh-server && make test-engines"
)


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(Path(untested.__file__).parent))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    return pytester


def test_the_last_line_names_what_was_not_tested(session: pytest.Pytester) -> None:
    session.makepyfile(SKIPPING)
    done = session.runpytest_inprocess("-p", "untested", "-ra")
    assert done.ret == 0 and done.outlines[-1] == LINE.format(sudo="sudo ")


@pytest.mark.slow
def test_workers_report_each_skip_once(session: pytest.Pytester) -> None:
    session.makepyfile(SKIPPING, test_module="import pytest\npytest.importorskip('no_such_package')")
    done = session.runpytest_subprocess("-p", "untested", "-n", "2")
    said = done.outlines[-1]
    assert done.ret == 0 and "browser (2 tests)" in said and "could not import 'no_such_package'" in said
    assert "(3 tests)" not in said and "no_such_package': No module named 'no_such_package' (1 test)" in said
    assert "pip install -e '.[dev]'" in said


def test_ci_fails_on_a_skip_that_is_not_listed(session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    session.makepyfile(SKIPPING)
    done = session.runpytest_inprocess("-p", "untested")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    refused = [line for line in done.outlines if line.startswith("CI may not skip ")]
    assert len(refused) == 3 and not any("test_ray" in line for line in refused)
    assert refused[-1].endswith("::test_with_a_pod: not installed here: ssh-keygen, rsync, sshd")


def test_ci_passes_where_only_listed_tests_are_skipped(
    session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    session.makepyfile(SKIPPING)
    done = session.runpytest_inprocess("-p", "untested", "-k", "test_ray or test_that_passes")
    assert done.ret == 0 and done.outlines[-1].endswith("Mend: make test-engines")


def test_nothing_is_said_where_all_was_tested(session: pytest.Pytester) -> None:
    session.makepyfile(SKIPPING)
    assert "Not tested" not in session.runpytest_inprocess("-p", "untested", "-k", "test_that_passes").stdout.str()


def test_what_nobody_can_mend_has_no_command() -> None:
    said = untested.untested({"a": "root may write anywhere"})
    assert said == "Not tested: folders that are write-protected (1 test)."

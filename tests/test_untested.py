"""The last line of a session names what was not tested and the command that mends it; in CI a stray skip fails."""

from __future__ import annotations

import re
import shutil
import subprocess
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
    "other people's programs (1 test). "
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


def installing(folder: Path, *, user: int, sudo: int, apt: int) -> tuple[str, list[str]]:
    """What `scripts/test-programs.sh` says, and asks of apt-get, where of all the programs only openssl is there.

    Args:
        user: its number.
        sudo: how `sudo` ends that may not ask for a password; 0 where it does what is asked.
        apt: how `apt-get` ends.
    """
    asked = folder / "asked"
    fakes = {
        "openssl": "",
        "systemctl": "",
        "id": f"echo {user}",
        "sudo": f'[ {sudo} = 0 ] || exit {sudo}; shift; "$@"',
        "apt-get": f'echo "$DEBIAN_FRONTEND $*" >>{asked}; echo "E: no such package"; exit {apt}',
    }
    for name, text in fakes.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        (folder / name).chmod(0o755)
    for name in ("env", "ls", "mktemp", "rm", "tail", "sh"):
        (folder / name).symlink_to(str(shutil.which(name)))
    script = Path(untested.__file__).parent.parent / "scripts" / "test-programs.sh"
    command = ["/bin/sh", str(script)]
    done = subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    return done.stdout + done.stderr, asked.read_text("utf-8").splitlines() if asked.exists() else []


@pytest.mark.parametrize(("user", "sudo"), [(0, 1), (1000, 0)])
def test_what_tests_start_is_installed(user: int, sudo: int, tmp_path: Path) -> None:
    said, asked = installing(tmp_path, user=user, sudo=sudo, apt=0)
    assert said.startswith("Installing chromium rsync ") and said.endswith(" with apt-get: tests start them.\n")
    assert asked[-1].startswith("noninteractive ")
    assert " install --yes --no-install-recommends chromium rsync" in asked[-1] and "openssl" not in asked[-1]


def test_who_may_not_install_is_not_asked_for_a_password(tmp_path: Path) -> None:
    assert installing(tmp_path, user=1000, sudo=1, apt=0) == ("", [])


def test_tests_begin_though_apt_fails(tmp_path: Path) -> None:
    said, asked = installing(tmp_path, user=0, sudo=1, apt=100)
    assert "apt-get could not install chromium rsync" in said and "E: no such package" in said
    assert asked[-1].endswith(" update")


def test_ci_may_skip_whatever_make_test_engines_runs() -> None:
    """The programs beside Socratune are not installed where `make test` runs, so each reason has to be a known gap."""
    source = "\n".join(path.read_text() for path in Path(__file__).parent.glob("engines/*.py"))
    written = re.findall(r"""(?:reason=|skip\()f?"([^"]+ not installed[^"]*)\"""", source)
    helped = [f"{name} is not installed" for name in re.findall(r"""\bneeds\("([^"]+)"\)""", source)]
    reasons = {reason for reason in written + helped if not reason.startswith("{")}
    assert len(reasons) > 5 and not untested.refused({reason: reason for reason in reasons})

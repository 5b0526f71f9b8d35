"""Says at the end of a session what was not tested, and the command that mends it.

Where CI=true is set, a skipped test fails the session unless `GAPS` says why it may be skipped there.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

PACKAGES = {
    "Chromium": "chromium",
    "rsync": "rsync",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "openssl": "openssl",
}
"""Debian's packages by the word for them in the reason of a skip; `scripts/test-programs.sh` installs the same."""


class Gap(NamedTuple):
    """A part that some machines cannot test.

    Attributes:
        pattern: the regular expression that finds it in the reason of a skip.
        what: the part.
        mend: the command after which it is tested; empty for what only Debian's packages, or nothing, can mend.
        allowed: why CI may skip it; empty where it may not.
    """

    pattern: str
    what: str
    mend: str = ""
    allowed: str = ""


GAPS = (
    Gap("Chromium|playwright", "the page in a browser"),
    Gap("^not installed here: ", "rented machines behind a real sshd"),
    Gap("openssl", "TLS"),
    Gap(
        "^(ray|SkyPilot|wandb|mlflow|trackio|trl|gepa|xllamacpp|openai|llm|langchain-openai|axolotl|verifiers|SmolLM2"
        "|LiteLLM|uvloop|llama.cpp's converter) is not installed",
        "other people's programs", "make test-engines",
        allowed="`make test-engines` runs them",
    ),
    Gap(
        "^SmolLM2 is not here", "a real model", "socratune plan --model smollm2",
        allowed="the package index could not be reached",
    ),
    Gap("^reasoning-gym is not installed", "environments of reasoning-gym", "pip install -e '.[gym]'"),
    Gap("^trackio is installed here", "a tracker that is missing", allowed="`make test` runs it where it is missing"),
    Gap("^Unsloth is not installed", "Unsloth", allowed="it needs an NVIDIA GPU"),
    Gap("^root may write anywhere", "folders that are write-protected", allowed="it needs a user other than root"),
    Gap("OpenAPI document", "the double of RunPod against RunPod's schema", allowed="the schema is not ours to ship"),
    Gap("file system .* mounted", "rented machines with a full disk"),
)  # fmt: skip
PACKAGE = re.compile("playwright|is not installed|could not import")
INSTALL = "pip install -e '.[dev]'"


def untested(skips: dict[str, str]) -> str:
    """The line for these reasons of skips by test, e.g. "Not tested: the page in a browser (12 tests). Mend: …"."""
    counts, commands, packages = Counter[str](), dict[str, None](), dict[str, None]()
    for reason in skips.values():
        gap = _gap(reason)
        counts[gap.what] += 1
        named = {PACKAGES[word]: None for word in re.findall(r"[\w-]+", reason) if word in PACKAGES}
        packages |= named
        if gap.mend or (PACKAGE.search(reason) and not gap.allowed and not named):
            commands[gap.mend or INSTALL] = None
    parts = ", ".join(f"{what} ({count} test{'s'[: count > 1]})" for what, count in counts.most_common())
    if packages:
        sudo = "" if os.geteuid() == 0 else "sudo "
        commands = {f"{sudo}apt-get install {' '.join(packages)}": None} | commands
    return f"Not tested: {parts}." + (f" Mend: {' && '.join(commands)}" if commands else "")


def refused(skips: dict[str, str]) -> list[str]:
    """A sentence for each test that CI may not skip."""
    return [f"CI may not skip {test}: {reason}" for test, reason in skips.items() if not _gap(reason).allowed]


def _gap(reason: str) -> Gap:
    known = (gap for gap in GAPS if re.search(gap.pattern, reason))
    return next(known, Gap("", reason))


def _skips(reporter: Any) -> dict[str, str]:
    """Reasons by test; a module that is skipped as a whole counts once, though every worker of xdist reports it."""
    said = {report.nodeid: report.longrepr for report in reporter.stats.get("skipped", [])}
    return {test: text[2].removeprefix("Skipped: ") for test, text in said.items() if isinstance(text, tuple)}


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost, so that the line comes after all that pytest says
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    yield
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput") or not (skips := _skips(reporter)):
        return
    sentences = refused(skips) if os.environ.get("CI", "").lower() in ("1", "true") else []
    for sentence in sentences:
        reporter.write_line(sentence, red=True)
    if sentences and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    reporter.write_line(untested(skips))

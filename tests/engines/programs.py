"""Which programs are here. `make test-engines` installs them; a test without its program is skipped."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from conftest import Fork


def needs(package: str) -> pytest.MarkDecorator:
    """Skips where a package is missing; by what is installed, as a folder of tests may bear its name."""
    try:
        version(package)
    except PackageNotFoundError:
        return pytest.mark.skipif(True, reason=f"{package} is not installed")
    return pytest.mark.skipif(False, reason="")


@contextmanager
def serving(what: str | Path) -> Iterator[str]:
    """`socratune serve` on a free port; its API base. Ctrl-C ends it."""
    with NamedTemporaryFile() as said:
        process = Fork("serve", what, "--port", "0", files=(Path(said.name), Path(os.devnull)))
        try:
            while not (found := re.search(r"http://\S+(?=\s)", Path(said.name).read_text("utf-8"))):
                assert process.poll() is None, "no address was printed"
                time.sleep(0.02)
            yield found.group()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)

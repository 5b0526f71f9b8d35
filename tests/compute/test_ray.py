"""The loop in two Ray workers on this machine: the same rows as in one process, also when a worker is killed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import demo_rows, write_rows
from model_server import Answer, ModelServer
from test_shards import quiet, student

from socratune.compute.ray import enhance_on_ray
from socratune.config import StudentTeacherConfig
from socratune.errors import OutsideError, UserError
from socratune.llm.ledger import BudgetSpent
from socratune.pipeline import run_pipeline
from socratune.preflight import check_run
from socratune.runs.folder import RunDir, write_jsonl
from socratune.runs.journal import Journal

ROWS, IN_FLIGHT = 60, 8
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed (the extra [ray])")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A small Ray of this machine alone. Its two GPUs are only numbers: Ray hands them out, and no one uses them."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray  # pyright: ignore[reportMissingImports]

    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets lie in it, whose paths must be short
    ray.init(
        num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20,
        _temp_dir=folder,
    )  # fmt: skip
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", demo_rows("train", ROWS))


def enhanced(
    data: Path, output: Path, server: ModelServer | None, engine: str, *, workers: int = 2, **limits: Any
) -> dict[str, Any]:
    """The results of a run up to `enhance`; without a server the embedded model is the student."""
    served = {"student_model": "small", "student_api_base": [server.openai_base]} if server else {}
    given = {
        "model": "demo", "dataset": str(data), "output": str(output), "engine": engine, "workers": workers,
        "split": {"held_out_share": 0.1, "max_dev_rows": 0},
        "enhance": {"attempts": 1, "hint_attempts": 1, "concurrency": IN_FLIGHT, **served, **limits},
    }  # fmt: skip
    return run_pipeline(check_run(given, where="test"), until="enhance", tell=quiet)


def begin(run: RunDir, work: Any, *, workers: int) -> None:
    """The engine by itself, with another loop in the place of enhance."""
    config = StudentTeacherConfig()
    enhance_on_ray(run, config, work, model_name="demo", shard=None, workers=workers, stage="enhance.k", tick=ignore)


def ignore(*_: Any, **__: Any) -> Any:
    """A tick, or a loop that is not begun."""


def prepared(folder: Path) -> RunDir:
    """A run that has been split and has its journal."""
    run = RunDir(folder)
    write_jsonl(run.rows("train_in"), [{"id": "1"}])
    Journal(run.journal).close()
    return run


def same(one: Path, other: Path) -> bool:
    return (one / "enhanced_dataset.jsonl").read_bytes() == (other / "enhanced_dataset.jsonl").read_bytes()


def assert_counted_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    entries = [results["stages"]["enhance"] for results in (one, other)]
    leaks, expected = (entry["leaks"] for entry in entries)
    assert leaks == (expected and pytest.approx(expected))
    assert {**entries[0], "seconds": 0, "leaks": 0} == {**entries[1], "seconds": 0, "leaks": 0}


@needs_ray
@pytest.mark.slow
def test_two_workers_make_the_same_rows(cluster: None, data: Path, tmp_path: Path) -> None:
    here = enhanced(data, tmp_path / "here", None, "here")
    on_ray = enhanced(data, tmp_path / "ray", None, "ray")
    assert_counted_alike(on_ray, here)
    assert same(tmp_path / "ray", tmp_path / "here")
    assert (tmp_path / "ray" / "hint_measures.jsonl").exists()
    assert not (tmp_path / "ray" / "shards").exists()


@needs_ray
@pytest.mark.slow
def test_a_killed_worker_loses_nothing_but_its_calls_in_flight(cluster: None, data: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one(body: dict[str, Any], number: int) -> Answer:
        if number >= 30 and not killed:
            locks = [lock.read_text() for lock in (tmp_path / "ray" / "shards").glob("*/run.lock")]
            killed.append(next(int(owner.split()[1]) for owner in locks if owner))  # "pid N on host H"
            os.kill(killed[0], signal.SIGKILL)
        return student(body, number)

    with ModelServer(student) as server:
        here = enhanced(data, tmp_path / "here", server, "here")
        calls = len(server.seen)
    with ModelServer(kill_one) as server:
        on_ray = enhanced(data, tmp_path / "ray", server, "ray")
        assert calls <= len(server.seen) <= calls + IN_FLIGHT // 2  # in flight in the worker that was killed
    with pytest.raises(ProcessLookupError):
        os.kill(killed[0], 0)
    assert same(tmp_path / "ray", tmp_path / "here")
    assert_counted_alike(on_ray, here)


@needs_ray
@pytest.mark.slow
def test_a_spent_budget_stops_all_and_any_engine_goes_on(cluster: None, data: Path, tmp_path: Path) -> None:
    with ModelServer(student) as server:
        enhanced(data, tmp_path / "here", server, "here")
        calls = len(server.seen)
    with ModelServer(student) as server:
        for share, workers in ((0.6, 2), (0.9, 3)):
            limit = int(29 * calls * share)  # a call takes 29 tokens
            with pytest.raises(BudgetSpent):
                enhanced(data, tmp_path / "ray", server, "ray", workers=workers, max_total_tokens=limit)
            assert '"status": "stopped"' in RunDir(tmp_path / "ray").results.read_text()
            assert 0 < 29 * len(server.seen) <= limit
        enhanced(data, tmp_path / "ray", server, "here")
        assert calls <= len(server.seen) <= calls + 2 * IN_FLIGHT  # those in flight when it stopped
    assert same(tmp_path / "ray", tmp_path / "here")


@needs_ray
@pytest.mark.slow
def test_what_stops_a_worker_is_said_as_without_ray(cluster: None, data: Path, tmp_path: Path) -> None:
    with (
        ModelServer(lambda body, number: Answer("no", status=401)) as server,
        pytest.raises(UserError, match="an API key that is accepted"),
    ):
        enhanced(data, tmp_path / "ray", server, "ray")


@needs_ray
@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_ends_the_run(cluster: None, data: Path, tmp_path: Path) -> None:
    run = prepared(tmp_path)

    async def die(run: RunDir, *_: Any, **__: Any) -> Any:
        with (run / "starts").open("a") as stream:
            stream.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(OutsideError, match="A Ray worker ended 4 times"):
        begin(run, die, workers=1)
    assert (run / "shards" / "1-of-1" / "starts").read_text() == "xxxx"


@needs_ray
@pytest.mark.slow
def test_more_workers_than_gpus_are_refused(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 workers, 2 GPUs in the Ray cluster\. Use --set workers=2"):
        begin(prepared(tmp_path), ignore, workers=3)


def test_without_ray_the_engine_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'socratune\[ray\]'"):
        begin(prepared(tmp_path), ignore, workers=2)

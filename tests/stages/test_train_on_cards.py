"""Several processes train one adapter: the one that a single process trains, whatever ends them and however many.

The ranks are real processes that share the CPU and exchange over gloo; on cards it is NCCL. Where the subject is what
they compute, and not how they are started and ended, `forked_ranks` stands in for torchrun.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fork, demo_rows, socratune, write_rows
from vllm_stub import alive

from socratune.config import EnhancedTrainingConfig, RunConfig
from socratune.errors import OutsideError, UserError
from socratune.inference import memory
from socratune.inference.ranks import shares
from socratune.inference.template import Rendered
from socratune.runs.folder import RunDir, StageResult, Tick
from socratune.stages import train, train_on_cards

ROWS = 120
CLOSE = 3e-5
"""Relative; float32 sums in another order, magnified by a dozen steps at a large learning rate."""


def row(name: str, length: int) -> Rendered:
    return Rendered(name, [1] * length, [1] * length, 0)


def test_a_step_is_shared_by_tokens() -> None:
    parts = shares([row(str(at), length) for at, length in enumerate((90, 10, 50, 40, 30, 60))], 3)
    assert sorted(sum(len(item.ids) for item in part) for part in parts) == [90, 90, 100]
    assert sorted(item.id for part in parts for item in part) == list("012345")
    assert [len(part) for part in shares([row("a", 5)], 3)] == [1, 0, 0]


def test_a_base_spread_over_cards_fits_where_it_does_not_alone() -> None:
    shape = memory.Shape.of({
        "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        "intermediate_size": 28672, "vocab_size": 128256,
    })  # fmt: skip
    options: dict[str, Any] = {"longest": 2048, "rank": 16, "load_in_4bit": False}
    assert memory.plan_memory(shape, 139.0, **options) is None
    spread = memory.plan_memory(shape, 139.0, **options, shards=2)
    assert spread is not None and "16-bit weights on 2 GPUs" in spread.reason
    whole = memory.BYTES * shape.parameters / memory.GIB
    assert whole / 2 < spread.gib["weights"] < whole * 0.56, "embeddings and some blocks are whole on each"


def test_what_cannot_be_shared_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(asked: int | str, **train: Any) -> str:
        given = {"model": "demo", "dataset": "demo", "output": "x", "where": {"gpus": asked}, "train": train}
        return str(train_on_cards.gpus_fault(RunConfig.model_validate(given)))

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert said(1, backend="unsloth") == said(2) == said("all") == "None"
    assert "where.gpus: expected at most 2, the GPUs of this machine, got 3" in said(3)
    assert "trains on one GPU" in said(2, backend="unsloth")
    assert train_on_cards.rank_count("all") == 2


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the embedded model, ready to be trained."""
    folder = tmp_path_factory.mktemp("curated")
    dataset = write_rows(folder / "data.jsonl", demo_rows("train", ROWS))
    held_out = write_rows(folder / "held_out.jsonl", demo_rows("held_out", 20))
    done = socratune(
        "run", "--model", "demo", "--dataset", dataset, "--held-out", held_out, "--output", folder / "run",
        "--until", "curate",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "run"


def silent(done: int, total: int, /, **live: Any) -> None:
    pass


class Trained:
    """A training of a copy of the curated run."""

    def __init__(self, curated: Path, folder: Path, **settings: Any) -> None:
        self.run = RunDir(folder)
        shutil.copytree(curated, folder)
        self.losses: dict[int, float] = {}
        self.figures: dict[str, Any] = {}
        settings = {
            "learning_rate": 3e-3, "num_train_epochs": 2, "per_device_train_batch_size": 16, "max_seq_length": 256,
            "gradient_accumulation_steps": 1, **settings,
        }  # fmt: skip
        self.config = EnhancedTrainingConfig(**settings)

    def by(self, ranks: int, tick: Tick = silent, **given: Any) -> StageResult:
        """Go on with it."""

        def hear(done: int, total: int, /, **live: Any) -> None:
            self.losses[done] = live["loss"]
            tick(done, total, **live)

        arguments: dict[str, Any] = {
            "model_name": "demo", "seed": 0, "key": "k", "max_new_tokens": 64, "replay_share": 0.0, "students": [],
            "report_to": [], **given,
        }  # fmt: skip
        work = train.train_adapter if ranks == 1 else partial(train_on_cards.train_on_ranks, ranks=ranks)
        result = work(self.run, self.config, tick=hear, **arguments)
        self.figures = result.figures
        return result

    @property
    def adapter(self) -> torch.Tensor:
        from safetensors.torch import load_file

        weights = load_file(self.run.adapter / "adapter_model.safetensors")
        return torch.cat([weights[name].flatten() for name in sorted(weights)])


def difference(one: Trained, other: Trained) -> float:
    return float((one.adapter - other.adapter).norm() / other.adapter.norm())


@pytest.fixture(scope="module")
def alone(curated: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """What one process trains."""
    trained = Trained(curated, tmp_path_factory.mktemp("alone") / "run")
    trained.by(1)
    return trained


class Ranks:
    """Processes that train together: forks that have their libraries already, with torchrun's variables and its habit
    of ending all when one fails.
    """

    def __init__(self, count: int, place: Path, environment: dict[str, str], log_path: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log_path.touch()
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
        own = [{"RANK": str(at), "LOCAL_RANK": str(at)} for at in range(count)]
        self.forks = [Fork(place, entry="rank", env=shared | each, files=[log_path] * 2) for each in own]

    def poll(self) -> int | None:
        codes = [fork.poll() for fork in self.forks]
        if any(codes):
            self.end()
        return None if None in codes else max(map(abs, filter(None, codes)), default=0)

    def end(self) -> None:
        for fork in self.forks:
            fork.kill()
        for fork in self.forks:
            fork.wait()


@pytest.fixture
def forked_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would start torchrun starts `Ranks`."""

    @contextmanager
    def kept(command: list[str], environment: dict[str, str], log_path: Path, _stop_s: float) -> Iterator[Ranks]:
        count = int(command[command.index("--nproc-per-node") + 1])
        ranks = Ranks(count, Path(command[-1]), environment, log_path)
        try:
            yield ranks
        finally:
            ranks.end()

    monkeypatch.setattr(train_on_cards, "child_process", kept)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_ranks")
@pytest.mark.parametrize(
    ("ranks", "parallel"), [(2, "data"), pytest.param(4, "data", marks=pytest.mark.storm), (2, "sharded")]
)
def test_several_processes_train_the_adapter_of_one(
    curated: Path, alone: Trained, tmp_path: Path, ranks: int, parallel: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    several = Trained(curated, tmp_path / "run")
    figures = several.by(ranks, join={"parallel": parallel}).figures
    expected = alone.figures
    assert difference(several, alone) < CLOSE
    assert several.losses == pytest.approx(alone.losses, abs=2e-4)
    assert figures["epochs"] == expected["epochs"] and figures["best_epoch"] == expected["best_epoch"]
    assert (figures["engine"]["gpus"], figures["engine"]["parallel"]) == (ranks, parallel)
    assert f"{ranks} processes share each step" in caplog.text
    same = ("steps", "trained_tokens", "max_seq_length")
    assert [figures[name] for name in same] == [expected[name] for name in same]
    assert form(several) == form(alone) and not processes(several)
    assert events(several) == events(alone) == 1, "only the leading process writes the curves"


def form(trained: Trained) -> tuple[Any, ...]:
    """Of an adapter: its files, its configuration, its tensors but for their values."""
    from safetensors.torch import load_file

    config = json.loads((trained.run.adapter / "adapter_config.json").read_text("utf-8"))
    config["target_modules"].sort()  # a set, in any order
    tensors = load_file(trained.run.adapter / "adapter_model.safetensors")
    shapes = {name: (weight.shape, weight.dtype) for name, weight in tensors.items()}
    return sorted(path.name for path in trained.run.adapter.iterdir()), config, shapes


def events(trained: Trained) -> int:
    return len(list(trained.run.tensorboard.rglob("events.*")))


def processes(trained: Trained) -> dict[int, dict[str, str]]:
    """Whatever still works on this training: pid → environment."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            opened = [each.readlink() for each in (place / "fd").iterdir()]
            if any(link.is_relative_to(trained.run.root) for link in opened) and int(place.name) != os.getpid():
                variables = (place / "environ").read_bytes().decode().split("\0")
                found[int(place.name)] = dict(each.split("=", 1) for each in variables if "=" in each)
        except OSError:  # gone, or not ours
            continue
    return found


def rank_of(trained: Trained, rank: int) -> int:
    return next(pid for pid, variables in processes(trained).items() if variables.get("RANK") == str(rank))


@pytest.mark.storm
@pytest.mark.slow
def test_preference_pairs_replay_and_a_sweep_are_shared_too(curated: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": "dpo", "num_train_epochs": 1}
    one, two = Trained(curated, tmp_path / "a", **settings), Trained(curated, tmp_path / "b", **settings)
    one.by(1)
    two.by(2)
    assert difference(two, one) < CLOSE
    settings = {"by_dev": {"sweep_lr": [0.03, 0.3]}, "num_train_epochs": 1}
    one, two = Trained(curated, tmp_path / "c", **settings), Trained(curated, tmp_path / "d", **settings)
    expected = one.by(1, replay_share=0.05).figures
    found = two.by(2, replay_share=0.05, join={"parallel": "sharded"}).figures
    assert difference(two, one) < CLOSE
    assert found["sweep"] == expected["sweep"] and found["replay_rows"] == expected["replay_rows"] > 0


class Enough(Exception):
    """Of a caller that wants to end."""


def once(at: int, act: Callable[[], Any]) -> Tick:
    """Acts when that step is done."""
    acted: list[bool] = []

    def tick(done: int, total: int, /, **live: Any) -> None:
        if done >= at and not acted:
            acted.append(True)
            act()

    return tick


def enough() -> None:
    raise Enough


@pytest.mark.storm
@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes(curated: Path, alone: Trained, tmp_path: Path) -> None:
    steps = max(alone.losses)
    trained = Trained(curated, tmp_path / "run")
    with pytest.raises(Enough):
        trained.by(2, once(steps // 2 + 1, enough))
    assert not processes(trained)
    assert (trained.run.checkpoints / f"step-{steps // 2}").is_dir() and not trained.run.adapter.exists()
    before = dict(trained.losses)
    trained.losses.clear()
    trained.by(1)
    assert min(trained.losses) == steps // 2 + 1
    assert {**before, **trained.losses} == pytest.approx(alone.losses, abs=2e-4)
    assert difference(trained, alone) < CLOSE


@pytest.mark.slow
def test_a_process_that_is_killed_ends_all_and_the_training_goes_on(
    curated: Path, alone: Trained, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    trained = Trained(curated, tmp_path / "run")
    steps = max(alone.losses)
    kill = once(steps // 2 + 1, lambda: os.kill(rank_of(trained, 1), signal.SIGKILL))
    with pytest.raises(OutsideError, match=r"Signal 9 \(SIGKILL\)[^$]*resume from the last checkpoint"):
        trained.by(2, kill)
    assert not processes(trained)
    request.getfixturevalue("forked_ranks")
    trained.by(3)
    assert difference(trained, alone) < CLOSE


@pytest.mark.storm
@pytest.mark.slow
def test_a_process_that_hangs_is_not_waited_for_without_end(curated: Path, tmp_path: Path) -> None:
    trained = Trained(curated, tmp_path / "run")
    with pytest.raises(OutsideError, match="ended by itself"):
        trained.by(2, once(2, lambda: os.kill(rank_of(trained, 1), signal.SIGSTOP)), join={"timeout_s": 3.0})
    assert not processes(trained)


@pytest.mark.storm
@pytest.mark.slow
def test_what_one_process_ran_into_ends_all_and_is_what_is_told(curated: Path, tmp_path: Path) -> None:
    trained = Trained(curated, tmp_path / "run")
    trained.run.checkpoints.mkdir()
    (trained.run.checkpoints / "made_for.json").write_text(json.dumps("k"))
    for step in range(1, ROWS):  # in the way of the leading process, which writes the checkpoints
        (trained.run.checkpoints / f".step-{step}.tmp").touch()
    with pytest.raises(ValueError, match="should be a directory, not a file"):
        trained.by(2)
    assert not processes(trained)
    trained.config = trained.config.model_copy(update={"max_seq_length": 16})
    with pytest.raises(UserError, match="expected rows of at most 16 tokens") as caught:
        trained.by(2)
    assert caught.value.faults[0].where == "train.max_seq_length"
    trained.config = trained.config.model_copy(update={"max_seq_length": 256, "peft": {"use_dora": True}})
    with pytest.raises(UserError, match=r"train\.peft\.use_dora: expected a setting for a base that fits one GPU"):
        trained.by(2, join={"parallel": "sharded"})


@pytest.mark.slow
def test_the_command_trains_on_several_and_leaves_nothing_when_it_is_killed(curated: Path, tmp_path: Path) -> None:
    trained = Trained(curated, tmp_path / "run")
    command = [sys.executable, "-m", "socratune", "train", str(trained.run.root), "--gpus", "2"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: list(trained.run.checkpoints.glob("step-*")), 60)
        left = processes(trained)
        assert {variables.get("RANK") for variables in left.values()} >= {"0", "1"}
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in left), 30)
    done = socratune("train", trained.run.root, "--gpus", "2")
    assert done.returncode == 0, done.stderr
    figures = json.loads(trained.run.results.read_text("utf-8"))["stages"]["train"]
    assert (figures["status"], figures["engine"]["gpus"]) == ("done", 2)
    done = socratune("train", trained.run.root, "--gpus", "2", "--restart", "--backend", "unsloth")
    assert done.returncode == 2 and "where.gpus: expected 1 beside --backend unsloth" in done.stderr


def wait_for(what: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)

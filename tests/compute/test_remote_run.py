"""A whole run on a rented machine: student, training and answers there, loop and verdicts here; the same result.

Once all of it is done there in earnest; in the other tests a prepared training comes between loop and exam.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_runpod
import pytest
from conftest import Fork, demo_rows, socratune, write_rows
from fake_runpod import KEY, FakeRunPod
from few import few_forgetting_questions
from forging import verified
from pod_training import hold, train_like, trainings_begun
from vllm_stub import Stub

from socratune.inference.provenance import identity, student_grade
from socratune.llm.vllm import vllm_arguments

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(fake_runpod.missing() is not None, reason=fake_runpod.missing() or ""),
]
SAME = ("enhanced_dataset.jsonl", "train.jsonl", "adapter/adapter_model.safetensors", "held_out_answers.jsonl")


@pytest.fixture
def service() -> Iterator[FakeRunPod]:
    with FakeRunPod() as fake:
        yield fake
    assert fake.contract_faults == []


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("rows")
    train = write_rows(folder / "train.jsonl", demo_rows("train", 60))
    held_out = write_rows(folder / "held_out.jsonl", demo_rows("held_out", 30))
    few = f"validate.forgetting={few_forgetting_questions(folder)}"
    return ["run", "--model", "demo", "--dataset", str(train), "--held-out", str(held_out), "--set", few]


@pytest.fixture(scope="module")
def here(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on this machine."""
    folder = tmp_path_factory.mktemp("here") / "run"
    done = socratune(*command, "--output", folder)
    assert done.returncode in (0, 1), done.stderr
    return folder


def there(service: FakeRunPod, run: Path) -> list[str]:
    settings = ["--where", "runpod", "--set", f"where.api_base={service.api_base}"]
    return ["--output", str(run), *settings]


def results_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "pipeline_results.json").read_text("utf-8"))


def is_the_same(run: Path, here: Path) -> None:
    for name in SAME:
        assert (run / name).read_bytes() == (here / name).read_bytes(), name
    ours, theirs = results_of(run), results_of(here)
    assert ours["status"] == theirs["status"]
    assert ours["validation"]["tests"]["base_comparison"] == theirs["validation"]["tests"]["base_comparison"]
    assert ours["stages"]["train"]["students"]["demo"]["grade"] == "same"
    assert ours["rented"]["usd"] > 0


def test_a_whole_run_there_is_the_run_here(
    command: list[str], here: Path, service: FakeRunPod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    run = tmp_path / "run"
    done = socratune(*command, *there(service, run))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    is_the_same(run, here)
    assert verified(run).agrees and verified(run).pinned, verified(run).faults
    assert service.pods == {} and len(service.ended) == 1
    again = socratune(*command, *there(service, run))
    assert again.returncode == done.returncode and len(service.ended) == 1  # nothing was left to do there


def test_killed_again_and_again_the_run_takes_its_machine_over(
    command: list[str], here: Path, service: FakeRunPod, tmp_path: Path
) -> None:
    """SIGKILL once in each phase; every time the same command goes on, on the same machine, and trains there once."""
    train_like(service, here)
    run = tmp_path / "run"

    def pod(path: str) -> Path:
        return service.only_pod().folder / "home" / "socratune" / path

    moments: dict[str, Callable[[], bool]] = {
        "ordered": lambda: service.pods != {},
        "set up": lambda: pod("jobs/setup/log").exists(),
        "the student comes": lambda: pod("jobs/student/log").exists(),
        "the loop goes": lambda: results_of(run)["stages"]["enhance"]["done"] >= 5,
        "training begins": lambda: pod("jobs/train/log").exists(),
        "a checkpoint": lambda: any(pod("run/checkpoints").glob("step-*")),
        "the exam begins": lambda: pod("jobs/exam/log").exists(),
        "the exam ends": lambda: pod("jobs/exam/exit_code").exists(),
        "the exam is here": (run / "exam.json").exists,
    }
    reached = []
    for name, happens in moments.items():
        process = begun(command, service, run)
        while process.poll() is None and not safely(happens):
            time.sleep(0.02)
        if process.poll() is None:
            reached.append(name)
            process.kill()
            process.wait()
            assert len(service.pods) == 1 or name == "ordered"
    process = begun(command, service, run)
    assert process.wait(300) in (0, 1), (run / "run.log").read_text("utf-8")
    is_the_same(run, here)
    assert service.pods == {} and len(service.ended) == 1
    assert trainings_begun(service) == 1
    assert len(reached) >= 6, reached


def test_a_vllm_of_the_image_serves_the_student(
    command: list[str], here: Path, service: FakeRunPod, tmp_path: Path
) -> None:
    train_like(service, here)
    hold(service).touch()
    stub, run, sent = Stub(service.root), tmp_path / "run", {}
    service.image_environment["VLLM_API_KEY"] = "of the image"

    def trains() -> bool:
        folder = service.only_pod().folder / "home/socratune"
        if started := (folder / "jobs/train/log").exists():
            sent.update(json.loads((folder / "run/pipeline_results.json").read_text("utf-8"))["stages"]["enhance"])
        return started

    process = begun([*command, "--until", "train"], service, run)
    try:
        while not safely(trains):
            assert process.poll() is None, (run / "run.log").read_text("utf-8")
            time.sleep(0.02)
        assert stub.gone(), "the card's memory is the training's"
        seen, pod = stub.seen, service.only_pod()
        model, port = Path(seen["flags"]["model_tag"]), seen["flags"]["port"]
        assert model.is_relative_to(pod.folder) and (model / "config.json").exists()
        hold(service).unlink()
        assert process.wait(300) == 0, (run / "run.log").read_text("utf-8")
    finally:
        process.kill()  # it must not outlive its service
    assert seen["argv"] == vllm_arguments(str(model), "demo", port)
    assert (seen["stats"], seen["key"]) == ("1", None)
    assert seen["asked"]["model"] == "demo" and seen["at"] != f"127.0.0.1:{port}", "not through the tunnel"
    stages = results_of(run)["stages"]
    student = stages["enhance"]["student"]
    assert (student["name"], student["engine"], student["quantisation"]) == ("demo", "vllm", "none")
    assert stages["enhance"]["outcomes"] == {"solved_first_try": stages["enhance"]["rows_in"]}
    assert sent["student"] == student  # by which the training there judges who wrote the traces
    assert student_grade(student, identity("demo"))[0] == "near"
    assert service.pods == {} and len(service.ended) == 1


def begun(command: list[str], service: FakeRunPod, run: Path) -> Fork:
    return Fork(*command, *there(service, run), env={"RUNPOD_API_KEY": KEY})


def safely(happens: Callable[[], bool]) -> bool:
    try:
        return happens()
    except (OSError, ValueError, LookupError):  # a file that comes or goes; no pod yet
        return False

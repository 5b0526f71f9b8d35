"""Runs as a whole: killed and gone on with, changed and refused, spoilt and failed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_servers import verdict
from conftest import Fork, demo_rows, few_general_questions, socratune, write_rows
from model_server import Answer, ModelServer

from socratune.data import qa_files
from socratune.preflight import check_run
from socratune.rounds import run_rounds
from socratune.runs import progress
from socratune.runs.folder import RunDir


def again(run: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The run's own command once more, on a copied folder."""
    from socratune.resolve import read_config_file

    config = read_config_file(run / "config.yaml")
    given = ["--model", config["model"], "--dataset", config["dataset"], "--held-out", config["split"]["held_out"]]
    proof = [f"validate.forgetting={config['validate']['forgetting']}", "validate.gate.max_forgetting=null"]
    settings = [word for setting in ("train.num_train_epochs=6", *proof) for word in ("--set", setting)]
    return socratune("run", *given, "--output", run, *settings, *more)


def test_a_finished_run_does_nothing_twice(copied_run: Path, results_of: Callable[[Path], Any]) -> None:
    before = results_of(copied_run)
    done = again(copied_run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(done before)") == 5
    after = results_of(copied_run)
    assert after["stages"] == before["stages"]
    assert after["status"] == "passed"


@pytest.mark.slow
def test_a_run_parses_and_hashes_its_data_set_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed, hashed = [], []

    def counted(module: Any, name: str, calls: list[str]) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda path: [calls.append(path.name), real(path)][1])

    counted(qa_files, "read_records", parsed)
    counted(progress, "file_hash", hashed)
    dataset = write_rows(tmp_path / "in.jsonl", [*demo_rows("train", 12), {"bad": 1}])
    eval_file = write_rows(tmp_path / "eval.jsonl", demo_rows("train", 1))  # that row is dropped
    given = {"model": "demo", "dataset": str(dataset), "output": str(tmp_path / "run")}
    given |= {"split": {"on_bad_row": "skip", "eval_file": [str(eval_file)]}, "train": {"num_train_epochs": 1}}
    tasks = run_rounds(check_run(given, where="here"), until="train", tell=lambda event, stage, entry: None)["stages"]
    assert (tasks["train"]["status"], tasks["split"]["bad_rows"], tasks["split"]["contaminated"]) == ("done", 1, 1)
    assert (parsed.count("in.jsonl"), hashed.count("in.jsonl")) == (1, 1)
    assert (parsed.count("eval.jsonl"), hashed.count("eval.jsonl")) == (1, 1)
    assert not qa_files._kept  # nothing waits on the disk any longer
    assert max(hashed.count(name) for name in hashed) == 1  # also of what the stages hand on


def test_other_settings_in_the_same_folder_are_refused(copied_run: Path) -> None:
    done = again(copied_run, "--set", "train.learning_rate=0.1", "--max-iterations", "2", "--seed", "7")
    assert done.returncode == 2
    for key in ("train.learning_rate: expected 0.003", "enhance.max_iterations: expected 3", "seed: expected 0"):
        assert key in done.stderr
    assert "--restart train" in done.stderr and "Traceback" not in done.stderr
    free = again(copied_run, "--set", "enhance.concurrency=3")
    assert free.returncode == 0, free.stderr


def test_a_run_of_a_version_that_knew_fewer_settings_stays_done(
    copied_run: Path, results_of: Callable[[Path], Any]
) -> None:
    results, text = results_of(copied_run), (copied_run / "config.yaml").read_text("utf-8")
    for section, name in (("train", "fp8"), ("gate", "max_undecided_share")):
        {**results["config"], **results["config"]["validate"]}[section].pop(name)
        text = "".join(line for line in text.splitlines(keepends=True) if not line.strip().startswith(f"{name}:"))
    (copied_run / "pipeline_results.json").write_text(json.dumps(results), "utf-8")
    (copied_run / "config.yaml").write_text(text, "utf-8")
    done = socratune("validate", copied_run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(done before)") == 4  # all but split, which is not asked for


def test_another_data_set_is_refused_before_anything_is_lost_and_does_not_touch_what_is_behind_the_split(
    copied_run: Path, results_of: Callable[[Path], Any]
) -> None:
    from socratune.resolve import read_config_file

    dataset = Path(read_config_file(copied_run / "config.yaml")["dataset"])
    content, before = dataset.read_bytes(), results_of(copied_run)
    try:
        dataset.write_bytes(content + content.splitlines(keepends=True)[0])
        for more in ((), ("--restart", "train")):
            done = again(copied_run, *more)
            assert done.returncode == 2 and "got a changed one" in done.stderr
            assert results_of(copied_run) == before
            assert (copied_run / "adapter" / "adapter_model.safetensors").is_file()
        validated = socratune("validate", copied_run)
        assert validated.returncode == 0, validated.stderr
        assert results_of(copied_run)["inputs"] == before["inputs"]
    finally:
        dataset.write_bytes(content)


def test_a_new_setting_at_its_default_is_no_other_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import closing

    from socratune import pipeline
    from socratune.resolve import dump, resolve_settings
    from socratune.runs.folder import Results
    from socratune.runs.journal import Journal

    def key(**train: Any) -> str:
        config = resolve_settings({"model": "demo", "dataset": "demo", "output": str(tmp_path), "train": train}).config
        with closing(Journal(tmp_path / "journal.sqlite")) as journal:
            return pipeline.Pipeline(config, journal, Results(RunDir(tmp_path))).key("train")

    def of_an_older_version(config: Any) -> dict[str, Any]:
        values = dump(config)
        values["train"].pop("fp8", None)
        return values

    now, changed = key(), key(fp8=True)
    monkeypatch.setattr(pipeline, "dump", of_an_older_version)
    assert key() == now != changed


def test_a_busy_folder_names_its_owner(copied_run: Path) -> None:
    with RunDir(copied_run).locked():
        done = again(copied_run)
    assert done.returncode == 2
    assert f"pid {os.getpid()} on host" in done.stderr


def test_restart_redoes_a_stage_and_what_is_behind_it(copied_run: Path, results_of: Callable[[Path], Any]) -> None:
    before = results_of(copied_run)["stages"]
    shorter = ["--set", "train.learning_rate=0.002", "--set", "train.num_train_epochs=1"]
    done = again(copied_run, "--restart", "train", "--until", "train", *shorter)
    assert done.returncode == 0, done.stderr
    after = results_of(copied_run)
    assert after["stages"]["enhance"] == before["enhance"]
    assert after["stages"]["train"]["key"] != before["train"]["key"]
    assert "validate" not in after["stages"] and after["status"] == "incomplete"


def spoil_zero(adapter: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: torch.zeros_like(value) for name, value in weights.items()}, adapter / "adapter_model.safetensors")


def spoil_nan(adapter: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, adapter / "adapter_model.safetensors")


def spoil_cut(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "is missing"),
        (spoil_zero, "untrained"),
        (spoil_nan, "not finite"),
        (spoil_cut, "cannot be read"),
    ],
)
def test_a_spoilt_adapter_is_refused(
    copied_run: Path, spoil: Callable[[Path], None], said: str, results_of: Callable[[Path], Any]
) -> None:
    spoil(copied_run / "adapter")
    done = socratune("validate", copied_run)
    assert done.returncode == 1, done.stderr
    results = results_of(copied_run)
    assert results["status"] == results["validation"]["status"] == "failed"
    assert said in results["validation"]["reason"]
    refused = socratune("publish", copied_run, "--hub-id", "me/adapter")
    assert refused.returncode == 1
    assert "publish" not in results_of(copied_run)["stages"]


@pytest.mark.slow
def test_an_adapter_that_gains_nothing_fails(copied_run: Path, results_of: Callable[[Path], Any]) -> None:
    from safetensors.torch import load_file, save_file

    path = copied_run / "adapter" / "adapter_model.safetensors"
    weights = {name: value * 1e-6 for name, value in load_file(path).items()}
    save_file(weights, path)
    done = socratune("validate", copied_run)
    assert done.returncode == 1, done.stderr
    comparison = results_of(copied_run)["validation"]["tests"]["base_comparison"]
    assert (comparison["verdict"], comparison["passed"]) == ("not_worse", False)


@pytest.mark.slow
def test_shuffled_answers_fail(tmp_path: Path, results_of: Callable[[Path], Any]) -> None:
    rows = demo_rows("train", 120)
    answers = [row["messages"][-1]["content"] for row in rows]
    random.Random(0).shuffle(answers)
    for row, answer in zip(rows, answers, strict=True):
        row["messages"][-1]["content"] = answer
    data = write_rows(tmp_path / "shuffled.jsonl", rows)
    flags = ["--dataset", data, "--held-out", "demo", "--output", tmp_path / "run", *few_general_questions(tmp_path)]
    done = socratune("run", "--model", "demo", *flags)
    assert done.returncode == 1, done.stdout + done.stderr
    results = results_of(tmp_path / "run")
    assert results["status"] == "failed"
    assert results["stages"]["enhance"]["outcomes"].get("solved_with_hint", 0) <= 3


@pytest.mark.slow
def test_too_few_held_out_rows_are_inconclusive(tmp_path: Path, results_of: Callable[[Path], Any]) -> None:
    data = write_rows(tmp_path / "few.jsonl", demo_rows("train", 40))
    held_out = write_rows(tmp_path / "held.jsonl", demo_rows("held_out", 4))
    flags = ["--dataset", data, "--held-out", held_out, "--output", tmp_path / "run"]
    done = socratune("run", "--model", "demo", *flags)
    assert done.returncode == 1
    comparison = results_of(tmp_path / "run")["validation"]["tests"]["base_comparison"]
    assert comparison["verdict"] == "inconclusive" and comparison["n"] == 4


@pytest.mark.slow
def test_sigkill_at_any_moment_loses_nothing(tmp_path: Path, results_of: Callable[[Path], Any]) -> None:
    """Killed again and again, each time a little later, the run ends as one that was never killed."""
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 150))
    held_out = write_rows(tmp_path / "held.jsonl", demo_rows("held_out", 40))
    flags = ["run", "--model", "demo", "--dataset", data, "--held-out", held_out, *few_general_questions(tmp_path)]
    whole = tmp_path / "whole"
    assert socratune(*flags, "--output", whole).returncode in (0, 1)
    killed = tmp_path / "killed"
    command = [*flags, "--output", killed]
    seen_done: set[str] = set()
    for watched in ("split", "enhance", "enhance", "train", "train", "validate"):
        process = Fork(*command)
        _wait_until(process, killed, watched)
        process.kill()
        process.wait()
        if (killed / "pipeline_results.json").exists():
            stages = results_of(killed)["stages"]
            done = {name for name, entry in stages.items() if entry["status"] == "done"}
            assert seen_done <= done
            seen_done = done
    assert socratune(*command).returncode in (0, 1)
    assert (killed / "enhanced_dataset.jsonl").read_bytes() == (whole / "enhanced_dataset.jsonl").read_bytes()
    assert (killed / "train.jsonl").read_bytes() == (whole / "train.jsonl").read_bytes()
    assert results_of(killed)["status"] == results_of(whole)["status"]
    comparison = results_of(killed)["validation"]["tests"]["base_comparison"]
    assert comparison == results_of(whole)["validation"]["tests"]["base_comparison"]


def _wait_until(process: Fork, run: Path, stage: str) -> None:
    """Until the stage is under way and a row of it is done, or the process ends; at most two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            entry = json.loads((run / "pipeline_results.json").read_text())["stages"].get(stage, {})
        except (OSError, json.JSONDecodeError):
            entry = {}
        if entry.get("status") == "done" or entry.get("done", 0) > 0:
            return
        time.sleep(0.02)


@pytest.mark.slow
def test_interrupt_is_130_and_resumable(tmp_path: Path, results_of: Callable[[Path], Any]) -> None:
    """The judge answers ten calls and then keeps the others waiting, so the interrupt cannot come too late."""
    waiting = True

    def behave(body: dict[str, Any], number: int) -> Answer:
        if waiting and number > 10:
            return Answer(fault="hang")
        return Answer(verdict(body))

    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 60))
    said = tmp_path / "stderr"
    said.touch()
    with ModelServer(behave) as server:
        flags = ["run", "--model", "demo", "--dataset", data, "--output", tmp_path / "run", "--until", "enhance"]
        flags += ["--judge-model", "openai/gpt-4o-mini", "--judge-api-base", server.openai_base, "--judge-mode", "llm"]
        flags += ["--concurrency", "2"]  # with two calls waiting, the client has had all ten answers
        process = Fork(*flags, env={"OPENAI_API_KEY": "sk-double"}, files=(Path(os.devnull), said))
        while len(server.seen) < 12:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "The same command goes on from here" in said.read_text() and "Traceback" not in said.read_text()
        assert results_of(tmp_path / "run")["status"] == "interrupted"
        waiting = False
        assert socratune(*flags, env={"OPENAI_API_KEY": "sk-double"}).returncode == 0
        bodies = [json.dumps(request.body, sort_keys=True) for request in server.seen]
        assert not set(bodies[:10]) & set(bodies[10:])  # what the judge had answered is not asked again
    assert results_of(tmp_path / "run")["status"] == "incomplete"


@pytest.mark.slow
def test_the_python_door(tmp_path: Path) -> None:
    from socratune import EnhancedTrainingConfig, StudentTeacherConfig, UserError, run

    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 30))
    with pytest.raises(UserError, match="dataset"):
        run(model="demo", dataset=tmp_path / "none", output=tmp_path / "run")
    results = run(
        dataset=data,
        output=tmp_path / "run",
        enhance=StudentTeacherConfig(max_iterations=2),
        train=EnhancedTrainingConfig(model_name="demo", r=4, num_train_epochs=1),
        until="train",
    )
    assert results["status"] == "incomplete"
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 4
    assert results["stages"]["enhance"]["outcomes"]["solved_with_hint"] > 0


@pytest.mark.slow
def test_a_folder_with_files_of_ones_own_is_left_alone(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "train.jsonl", demo_rows("train", 20))
    before = data.read_bytes()
    done = socratune("run", "--model", "demo", "--dataset", data, "--output", tmp_path)
    assert done.returncode == 2 and "a folder with train.jsonl" in done.stderr
    assert socratune("run", "--model", "demo", "--dataset", data, "--output", "").returncode == 2
    assert data.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


def test_restart_deletes_nothing_that_it_cannot_make_again(copied_run: Path, results_of: Callable[[Path], Any]) -> None:
    data = Path(results_of(copied_run)["dataset"])
    kept = data.read_bytes()
    try:
        data.write_bytes(kept + b"broken\n")
        assert again(copied_run, "--restart", "split").returncode == 2
    finally:
        data.write_bytes(kept)
    backwards = again(copied_run, "--restart", "enhance", "--from", "train")
    assert backwards.returncode == 2 and "--restart" in backwards.stderr
    assert again(copied_run, "--from", "train", "--until", "split").returncode == 2
    assert (copied_run / "adapter" / "adapter_model.safetensors").exists()


def test_a_run_goes_on_from_anywhere_and_heals_a_lost_file(copied_run: Path, results_of: Callable[[Path], Any]) -> None:
    (copied_run / "enhanced_dataset.jsonl").unlink()
    assert socratune("train", copied_run, cwd="/").returncode == 0  # nothing is asked again: the journal has it
    assert (copied_run / "enhanced_dataset.jsonl").exists()
    assert results_of(copied_run)["status"] == "passed"


@pytest.mark.parametrize("name", ["held_out.jsonl", "enhanced_dataset.jsonl", "train.jsonl", "held_out_answers.jsonl"])
def test_a_torn_file_is_made_again_and_kept_aside(
    copied_run: Path, results_of: Callable[[Path], Any], name: str
) -> None:
    path = copied_run / name
    whole = path.read_bytes()
    torn = whole[: len(whole) // 2].rstrip(b"\n}")
    path.write_bytes(torn)
    done = again(copied_run)
    assert done.returncode == 0 and f"{name} is corrupt" in done.stderr, done.stderr
    assert path.read_bytes() == whole
    assert path.with_name(f"{name}.damaged").read_bytes() == torn
    assert results_of(copied_run)["status"] == "passed"


def test_an_edited_answer_is_trained_as_it_stands(copied_run: Path) -> None:
    path = copied_run / "enhanced_dataset.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["messages"][-1]["content"] = "Edited by hand: 195."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = again(copied_run, "--until", "curate")
    assert done.returncode == 0, done.stderr
    first = json.loads((copied_run / "train.jsonl").read_text().splitlines()[0])
    assert first["pieces"] == [{"text": "Edited by hand: 195.", "trained": True}]


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"stages": 3}', "x"])
def test_damaged_results_are_said(copied_run: Path, content: str) -> None:
    (copied_run / "pipeline_results.json").write_text(content)
    done = socratune("validate", copied_run)
    assert done.returncode == 2 and "pipeline_results.json" in done.stderr and "Traceback" not in done.stderr

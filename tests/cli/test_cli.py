"""The command line as a user meets it: exit codes, messages, no traceback, nothing half-written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import demo_rows, socratune, write_rows

from socratune import __version__
from socratune.cli.app import main


@pytest.mark.slow
def test_version_and_help() -> None:
    assert socratune("--version").stdout.strip() == f"socratune {__version__}"
    shown = socratune("--help")
    assert shown.returncode == 0
    for command in ("run", "demo", "enhance", "train", "validate", "publish", "export", "inspect", "chat", "doctor"):
        assert f"  {command} " in shown.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo", "--lab"], "make lab"),
        (["demo", "--seed", "1", "--base=/models/lab"], "experiments/lab/demo.py --base FOLDER"),
        (["grok-demo", "--weight-decay", "0"], "python experiments/grok_demo.py"),
    ],
)
def test_what_left_the_package_says_what_to_run_instead(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"socratune {words[0]}") and said in shown.err and not shown.out
    assert len(shown.err.splitlines()) == 1


@pytest.mark.slow
def test_a_command_of_these_tests_is_a_fork_unless_something_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each command would import the large libraries anew, and the tests would take four times as long."""
    started: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: started.append(command))
    assert socratune("--version").returncode == 0 and not started
    socratune("--version", env={"HF_ENDPOINT": "http://127.0.0.1:9/elsewhere"})
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    socratune("--version")
    assert len(started) == 2


@pytest.mark.slow
def test_the_guides_ways_in_are_the_same_command() -> None:
    flags = ["--model", "no/such/model", "--dataset", "/no/such.jsonl", "--output", "/dev/null/x"]
    ways = [["-m", "socratune", "run"], ["-m", "socratune.pipeline"]]
    said = [subprocess.run([sys.executable, *way, *flags], capture_output=True, text=True, check=False) for way in ways]
    assert said[0].stderr == said[1].stderr
    assert [done.returncode for done in said] == [2, 2]


@pytest.mark.slow
def test_every_fault_of_a_command_at_once(tmp_path: Path) -> None:
    data = tmp_path / "bad.jsonl"
    data.write_bytes(json.dumps(demo_rows("train", 1)[0]).encode() + b'\n{"messages": []}\n{broken\n\xff\n')
    config = tmp_path / "run.yaml"
    config.write_text("train: {learnin_rate: 1}\nenhance: {max_iterations: zero}\n")
    (tmp_path / "file").write_text("")
    done = socratune(
        "run", "--model", tmp_path / "nothing", "--dataset", data, "--output", tmp_path / "file" / "run",
        "--config", config, "--set", "seed", "--until", "trane",
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for said in (
        "line 2", "line 3", "line 4", "train.learnin_rate", "Did you mean train.learning_rate?",
        "enhance.max_iterations", "no such folder", "is a file", "--set", "--until",
    ):  # fmt: skip
        assert said in done.stderr, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "file", "run.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--dataset", "{tmp}"], "a directory"),
        (["--dataset", "{tmp}/none.jsonl"], "no such file"),
        (["--dataset", "{tmp}/empty.jsonl"], "an empty file"),
        (["--model", "{tmp}"], "a folder without config.json"),
        (["--model", "./none"], "no such folder"),
        (["--output", "{tmp}/empty.jsonl"], "a file"),
        (["--output", "/proc/x"], "expected"),
        (["--config", "{tmp}/none.yaml"], "No such file"),
        (["--hub-id", "nameonly"], "myusername/my-adapter"),
        (["--set", "enhance.teacher_model=openai/gpt"], "enhance.teacher_model"),
        (["--held-out", "{tmp}/none.jsonl"], "no such file"),
        (["--frobnicate"], "No such option"),
        (["--hub-id"], "Option '--hub-id' requires an argument"),
        (["--lr", "1e-4"], "No such option: --lr. Did you mean --set train.learning_rate=…?"),
        (["--base-model", "demo"], "Did you mean --model?"),
        (["--bf16"], "Leave it out: the number format is chosen by the machine."),
    ],
)
def test_a_users_mistake_is_exit_2_without_traceback_or_trace(tmp_path: Path, flags: list[str], said: str) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    given = {"--model": "demo", "--dataset": "demo", "--output": str(tmp_path / "run")}
    extra = [flag.replace("{tmp}", str(tmp_path)) for flag in flags]
    given.update(dict(zip(extra[::2], extra[1::2], strict=False)))
    arguments = [part for pair in given.items() for part in pair] + (extra if len(extra) == 1 else [])
    done = socratune("run", *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_hub_that_cannot_be_asked_is_exit_3(tmp_path: Path) -> None:
    flags = ["--dataset", "demo", "--output", tmp_path / "run"]
    done = socratune("run", "--model", "org/unknown", *flags, env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.returncode == 3, done.stderr
    assert "could not be asked" in done.stderr and "Traceback" not in done.stderr
    near = socratune("run", "--model", "SmolLM-2", *flags, env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert "Did you mean --model smollm2?" in near.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_commands_on_a_folder_that_is_no_run(tmp_path: Path) -> None:
    for command in (["train"], ["validate"], ["publish", "--hub-id", "a/b"], ["chat"]):
        extra = ["why?"] if command[0] == "chat" else []
        done = socratune(command[0], tmp_path, *command[1:], *extra)
        assert done.returncode == 2, done.stderr
        assert "the folder of a run" in done.stderr


@pytest.mark.slow
def test_doctor_says_what_is_wrong_and_how_to_mend_it() -> None:
    secret = "canary-key-0123456789"
    done = socratune("doctor", env={"OPENAI_API_KEY": secret})
    assert "✓ Python" in done.stdout and "✓ torch" in done.stdout
    assert "OPENAI_API_KEY: set" in done.stdout
    assert secret not in done.stdout + done.stderr


@pytest.mark.slow
def test_inspect_a_data_set(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 5))
    done = socratune("inspect", data, "--model", "demo", "--rows", "1")
    assert done.returncode == 0, done.stderr
    assert "15 * 13 = 195." in done.stdout and "5 rows, labels right" in done.stdout
    assert socratune("inspect", data).returncode == 2


def test_inspect_of_a_run_s_own_file_says_in_one_line_what_to_type(tmp_path: Path) -> None:
    row = {"id": "1", "prompt": [{"role": "user", "content": "q"}], "pieces": [{"text": "a"}], "outcome": "as_given"}
    done = socratune("inspect", write_rows(tmp_path / "train.jsonl", [row] * 120))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 2  # with that of the code
    assert "120 rows" in done.stderr and f"socratune inspect {tmp_path}" in done.stderr


def test_inspect_finds_rows_that_would_be_cut(copied_run: Path) -> None:
    config = copied_run / "config.yaml"
    config.write_text(config.read_text().replace("max_seq_length: 256", "max_seq_length: 20"))
    done = socratune("inspect", copied_run)
    assert done.returncode == 1
    assert "truncation would cut the answer" in done.stdout


def test_chat_compares_base_and_adapter(copied_run: Path) -> None:
    done = socratune("chat", copied_run, "What is 15 * 13?", "--compare")
    assert done.returncode == 0, done.stderr
    base, adapter = done.stdout.strip().splitlines()
    assert base.startswith("base:") and "195" not in base
    assert adapter.startswith("adapter:") and adapter.endswith("195.")


def test_the_small_run_has_the_guides_output_tree(finished_run: Path, results_of: Callable[[Path], Any]) -> None:
    for name in ("enhanced_dataset.jsonl", "checkpoints", "adapter", "tensorboard", "pipeline_results.json", "run.log"):
        assert (finished_run / name).exists(), name
    assert list((finished_run / "tensorboard").glob("events.out.tfevents.*"))
    results = results_of(finished_run)
    assert results["status"] == results["validation"]["status"] == "passed"
    tests = results["validation"]["tests"]
    assert set(tests) == {
        "basic_inference", "prompt_responses", "base_comparison", "performance", "file_integrity",
        "forgetting", "meters",
    }  # fmt: skip
    assert tests["performance"]["tokens_per_second"] > 0
    comparison = tests["base_comparison"]
    low, high = comparison["ci95"]
    assert low <= comparison["difference"] <= high and comparison["n"] == 80
    rows = [json.loads(line) for line in (finished_run / "enhanced_dataset.jsonl").read_text().splitlines()]
    given = [json.loads(line) for line in (finished_run / "train_in.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in given]
    hinted = next(row for row in rows if row["metadata"]["enhancement"]["outcome"] == "solved_with_hint")
    assert hinted["messages"][-1]["content"] == hinted["metadata"]["enhancement"]["trace"][-1]["response"]
    assert hinted["metadata"]["thinking"].startswith("I need to multiply")
    assert not [path for path in finished_run.rglob("*") if path.is_file() and _holds(path, str(finished_run))]


def _holds(path: Path, text: str) -> bool:
    """True where a file of the run knows its own absolute place (its configuration and log may)."""
    return path.name not in ("config.yaml", "run.log") and text.encode() in path.read_bytes()


def test_the_adapter_loads_with_plain_peft(finished_run: Path, demo_base: tuple[Any, Any]) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(finished_run / "adapter", dtype=torch.float32)
    tokenizer = demo_base[1]
    question = [{"role": "system", "content": "You are a helpful assistant."}]
    question += [{"role": "user", "content": "What is 15 * 13?"}]
    text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    answer = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False)
    assert "195." in tokenizer.decode(answer[0, ids.shape[1] :])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--judge-mode", "foo"], "judge_mode: expected cascade, mechanical or llm"),
        (["--judge-model", "nonsense"], "enhance.judge_model: expected one of rules/mechanical"),
        (["--judge-model", "openai/gpt-4o"], "OPENAI_API_KEY in the environment"),
        (["--judge-mode", "llm"], "a --judge-model, got none"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_found_before_an_audit(tmp_path: Path, given: list[str], said: str) -> None:
    row = {"question": "6 * 7?", "reference": "42", "response": "It is 42.", "label": True}
    done = socratune("audit-judge", "--labels", write_rows(tmp_path / "labels.jsonl", [row]), *given)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_model_in_this_process_can_be_audited(tmp_path: Path) -> None:
    row = {"question": "6 * 7?", "reference": "42", "response": "It is 42.", "label": True}
    data = write_rows(tmp_path / "labels.jsonl", [row])
    done = socratune("audit-judge", "--labels", data, "--judge-model", "local/demo", "--judge-mode", "llm")
    assert done.returncode == 0, done.stderr
    assert "decided none of 1" in done.stdout  # the embedded model is no judge; it is asked, and gives no verdict


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_libraries_load_ends_as_any_other(kind: int) -> None:
    begin = "import sys, socratune.cli; print(flush=True); sys.exit(socratune.cli.main(['doctor']))"
    with subprocess.Popen([sys.executable, "-c", begin], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(kind)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said.decode().startswith("Interrupted."), said

"""The loop with a judge in batches: killed, gone on with, interrupted, estimated, refused."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_servers import KEY, BatchServer, verdict
from conftest import Fork, demo_rows, socratune, write_rows

SECRET = {"DOUBLE_KEY": KEY}
BATCH = ["--set", "enhance.endpoints.judge.batch=true"]


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer() as server:
        yield server


@pytest.fixture
def flags(tmp_path: Path, server: BatchServer) -> list[Any]:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 150))
    judged = ["--judge-model", "openai/gpt-4o-mini", "--judge-api-base", server.openai_base, "--judge-mode", "llm"]
    judged += ["--set", "enhance.endpoints.judge.api_key_env=DOUBLE_KEY", "--teacher-model", "rules/arithmetic"]
    return ["enhance", "--model", "demo", "--dataset", data, *judged]


def wait_until(process: Fork, true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_sigkill_while_a_batch_is_out_costs_nothing(
    tmp_path: Path, server: BatchServer, flags: list[Any], results_of: Callable[[Path], Any]
) -> None:
    assert socratune(*flags, "--output", tmp_path / "direct", env=SECRET).returncode == 0
    direct, server.runs = server.runs, type(server.runs)()
    command = [*flags, *BATCH, "--output", tmp_path / "batched"]
    server.finish_after = None
    process = Fork(*command, env=SECRET)
    wait_until(process, lambda: server.batches and server.batches["batch_1"].looks)
    process.kill()
    process.wait()
    server.finish_after = 0
    process = Fork(*command, env=SECRET)
    wait_until(process, lambda: server.batches["batch_1"].results)
    server.finish_after = None
    wait_until(process, lambda: "batch_2" in server.batches)
    process.kill()
    process.wait()
    server.finish_after = 0
    done = socratune(*command, env=SECRET)
    assert done.returncode == 0, done.stderr
    assert server.runs == direct and set(server.runs.values()) == {1}
    same = [(tmp_path / name / "enhanced_dataset.jsonl").read_bytes() for name in ("direct", "batched")]
    assert same[0] == same[1]
    whole, half = (results_of(tmp_path / name)["stages"]["enhance"] for name in ("direct", "batched"))
    batches = half["batches"]["judge"]
    assert batches["batches"] == len(server.batches) and batches["calls"] == batches["answered"] > 100
    spent = [figures["spent"]["enhance.judge"] for figures in (whole, half)]
    assert spent[0]["tokens"] == spent[1]["tokens"]
    direct_calls = sum(server.runs.values()) - batches["calls"]
    share = (direct_calls + batches["calls"] / 2) / sum(server.runs.values())
    assert spent[1]["usd"] == pytest.approx(spent[0]["usd"] * share, rel=1e-3)


@pytest.mark.slow
def test_judge_and_teacher_in_batches_make_the_rows_of_direct_calls(
    tmp_path: Path, server: BatchServer, flags: list[Any], results_of: Callable[[Path], Any]
) -> None:
    """Within a limit that does not let all worst cases be out at once."""

    def answer(body: dict[str, Any]) -> str:
        if '"response": ' in body["messages"][-1]["content"] and "reason" in str(body.get("response_format")):
            return verdict(body)
        return "Take the second number apart into tens and ones, multiply each, and add."

    server.answer = answer
    server.finish_after = 0
    taught = ["--teacher-model", "openai/gpt-4o", "--teacher-api-base", server.openai_base]
    taught += ["--set", "enhance.endpoints.teacher.api_key_env=DOUBLE_KEY"]
    both = [*BATCH, "--set", "enhance.endpoints.teacher.batch=true", "--set", "max_usd=0.4"]
    made = []
    for name, more in (("direct", []), ("batched", both)):
        server.runs.clear()
        done = socratune(*flags, *taught, *more, "--output", tmp_path / name, env=SECRET)
        assert done.returncode == 0, done.stderr
        made.append((server.runs.copy(), (tmp_path / name / "enhanced_dataset.jsonl").read_bytes()))
    assert made[0] == made[1] and set(made[1][0].values()) == {1}
    stage = results_of(tmp_path / "batched")["stages"]["enhance"]
    assert stage["batches"]["judge"]["batches"] > 1 and stage["batches"]["teacher"]["batches"] > 1
    assert sum(role["usd"] for role in stage["spent"].values()) < 0.4


@pytest.mark.slow
def test_ctrl_c_leaves_the_batch_and_says_so(tmp_path: Path, server: BatchServer, flags: list[Any]) -> None:
    server.finish_after = None
    said = tmp_path / "stderr"
    said.touch()
    command = [*flags, *BATCH, "--output", tmp_path / "run"]
    process = Fork(*command, env=SECRET, files=(Path(os.devnull), said))
    wait_until(process, lambda: server.batches and server.batches["batch_1"].looks)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    text = " ".join(said.read_text().split())
    assert "batch batch_1 with" in text and "continues at the vendor and is paid for" in text
    assert server.asked(".*/cancel") == 0
    server.finish_after = 0
    assert socratune(*command, env=SECRET).returncode == 0 and set(server.runs.values()) == {1}


@pytest.mark.slow
def test_the_estimate_says_what_batches_save(
    tmp_path: Path, server: BatchServer, flags: list[Any], results_of: Callable[[Path], Any]
) -> None:
    told = {}
    for name, more in (("direct", []), ("batched", BATCH)):
        done = socratune(*flags, *more, "--output", tmp_path / name, "--estimate", env=SECRET)
        assert done.returncode == 0, done.stderr
        told[name] = " ".join(done.stdout.split())
    direct, batched = (results_of(tmp_path / name)["estimate"] for name in ("direct", "batched"))
    assert batched["usd"]["all"][0] == pytest.approx(direct["usd"]["all"][0] / 2)
    assert batched["batches"]["saved_usd"] == pytest.approx(direct["usd"]["all"][0] / 2)
    assert not server.batches
    assert "Batches for judge save about" in told["batched"] and "at the latest after 24 hours" in told["batched"]
    assert "Batches" not in told["direct"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "a model of openai/… or anthropic/…, whose API takes batches"),
        (["--judge-model", "local/demo"], "a model of openai/… or anthropic/…, whose API takes batches"),
        (["--judge-model", "openai/a", "--judge-api-base", "http://127.0.0.1:9/v1"], "at a server without a key"),
        (["--judge-model", "openai/gpt-4o-mini", "--judge-mode", "mechanical"], "rules/mechanical"),
        (["--judge-model", "openai/gpt-4o-mini", "--set", "engine=ray"], "one process, which gathers all calls"),
        (
            ["--set", "generate.endpoints.writer.batch=true"],
            "only the judge and the teacher of the loop can wait for one",
        ),
        (
            ["--set", "enhance.endpoints.student.batch=true"],
            "only the judge and the teacher of the loop can wait for one",
        ),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_batched_is_refused_before_anything(tmp_path: Path, given: list[str], said: str) -> None:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 5))
    command = ["enhance", "--model", "demo", "--dataset", data, "--output", tmp_path / "run", *BATCH, *given]
    done = socratune(*command, env={"OPENAI_API_KEY": KEY})
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert said in " ".join(done.stderr.split())


@pytest.mark.slow
def test_the_plan_says_what_batches_save(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 150))
    command = ["plan", "--model", "demo", "--dataset", data, "--set", "enhance.judge_model=openai/gpt-4o-mini"]
    told = [
        json.loads(socratune(*command, *more, "--json", env={"OPENAI_API_KEY": KEY}).stdout) for more in ([], BATCH)
    ]
    assert told[1]["usd"]["enhancement"] == pytest.approx(told[0]["usd"]["enhancement"] / 2, abs=1e-4)
    assumed = " ".join(told[1]["assumed"])
    assert (
        "the calls of judge go in batches, which saves about" in assumed and "at the latest after 24 hours" in assumed
    )

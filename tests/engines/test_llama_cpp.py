"""llama.cpp as student, judge and teacher of a run with a real model, and as the reader of what the run exports.

SmolLM2-135M-Instruct is weak: what is shown is that the programs understand each other, not how good such a judge is.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import socratune
from facts import HARD, HELD_OUT, KNOWN, write_facts
from programs import needs

from socratune.errors import UserError
from socratune.inference.load import load_model
from socratune.inference.student import LocalStudent, serving_student
from socratune.inference.template import prompt_ids
from socratune.llm.base import Completion, Sampling
from socratune.llm.http import HttpModel
from socratune.llm.locate import model_location
from socratune.publishing.export import CONVERTER
from socratune.publishing.export_parity import NEAR_TIE_STEPS, bfloat16_step
from socratune.rows import QARow
from socratune.runs.folder import RunDir, read_rows

pytestmark = [needs("xllamacpp"), pytest.mark.slow]

SERVER = Path(__file__).with_name("llama_server.py")
TOKENS = 32
GREEDY = Sampling(temperature=0.0, max_new_tokens=TOKENS)


@contextmanager
def llama_server(gguf: Path, context: int) -> Iterator[str]:
    """llama.cpp's server with a model; its API base. `context`: tokens of each of its two slots."""
    command = [sys.executable, str(SERVER), str(gguf), str(2 * context)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            assert address, "llama.cpp's server did not start"
            yield f"{address}/v1"
        finally:
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a folder."""
    try:
        place = Path(os.environ.get("SOCRATUNE_SMOLLM2") or model_location("smollm2"))
    except (UserError, OSError) as error:
        pytest.skip(f"SmolLM2 is not installed: {error}")
    if not place.is_dir():
        pytest.skip("SmolLM2 is not installed; SOCRATUNE_SMOLLM2 names a folder with it")
    return place


@pytest.fixture(scope="module")
def llama_cpp() -> Path:
    """The folder with llama.cpp's converter."""
    place = Path(os.environ.get("LLAMA_CPP") or Path(sys.prefix) / "llama.cpp")
    if not (place / CONVERTER).is_file():
        pytest.skip("llama.cpp's converter is not installed; LLAMA_CPP names the folder with it")
    return place


@pytest.fixture(scope="module")
def run(llama_cpp: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop in which llama.cpp is asked for everything, and an adapter trained on what came of it."""
    folder = tmp_path_factory.mktemp("llama.cpp")
    gguf = folder / "smollm2.gguf"
    command = [sys.executable, str(llama_cpp / CONVERTER), str(smollm2), "--outfile", str(gguf), "--outtype", "bf16"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    rows = write_facts(folder / "rows.jsonl", KNOWN, HARD)
    held_out = write_facts(folder / "held_out.jsonl", HELD_OUT)
    with llama_server(gguf, 768) as base:  # less than the 1,024 tokens that a judge may say
        done = socratune(
            "enhance", "--model", smollm2, "--dataset", rows, "--held-out", held_out, "--output", folder / "run",
            "--student-api-base", base, "--judge-model", "smollm2", "--judge-api-base", base,
            "--teacher-model", "smollm2", "--teacher-api-base", base, "--attempts", "1", "--hint-attempts", "1",
            "--concurrency", "2", "--set", "enhance.temperature=0.2", "--set", f"enhance.max_new_tokens={TOKENS}",
            "--set", "split.max_dev_rows=0", "--set", "train.num_train_epochs=3", "--set", "train.learning_rate=1e-3",
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    trained = socratune("train", folder / "run")  # the servers of the loop are gone, and are not missed
    assert trained.returncode == 0, trained.stdout + trained.stderr
    return folder / "run"


def test_llama_cpp_attempts_judges_and_teaches(run: Path) -> None:
    loop = json.loads((run / "pipeline_results.json").read_text())["stages"]["enhance"]
    assert sum(loop["outcomes"].values()) == len(KNOWN) + len(HARD) and "error" not in loop["outcomes"]
    assert {name.removeprefix("enhance.") for name in loop["spent"]} == {"student", "judge", "teacher"}
    assert all(spent["tokens"] > 0 for spent in loop["spent"].values()) and loop["hints"] + loop["hints_rejected"] > 0
    rows = [json.loads(line) for line in (run / "enhanced_dataset.jsonl").read_text().splitlines()]
    attempts = [one for row in rows for one in row["metadata"]["enhancement"]["trace"]]
    assert any(one["judged_by"] == "llm" and one["verdict"] in ("correct", "incorrect") for one in attempts)


def test_what_was_left_out_was_neutral_for_llama_cpp_too(run: Path) -> None:
    """It takes the neutral values of all that it would otherwise fill in itself, so none of them is left to it."""
    sampling = json.loads((run / "pipeline_results.json").read_text())["stages"]["enhance"]["student"]["sampling"]
    neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    assert sampling == {"temperature": 0.2, "top_p": 0.8, "max_new_tokens": TOKENS, **neutral}


def test_the_gguf_export_answers_in_llama_cpp_as_the_adapter_does(run: Path, llama_cpp: Path, smollm2: Path) -> None:
    done = socratune("export", run, "--to", "gguf", "--llama-cpp", llama_cpp, "--prompts", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_rows(RunDir(run).rows("held_out"), QARow.from_json)
    model, tokenizer = load_model(str(smollm2), adapter=run / "adapter")
    with llama_server(run / "export" / "gguf" / "model.gguf", 512) as base:
        said = asyncio.run(answers(base, rows))
        rendered = [llama_ids(base, row.prompt) for row in rows]
    assert rendered == [prompt_ids(tokenizer, row.prompt) for row in rows]
    expected = asyncio.run(adapters_answers(model, tokenizer, rows))
    gaps = [
        gap
        for row, mine, theirs in zip(rows, expected, said, strict=True)
        if (gap := gap_in_steps(model, tokenizer, row, mine, theirs)) is not None
    ]
    print(f"{len(rows) - len(gaps)} of {len(rows)} answers equal; gaps of the others, in steps of bfloat16: {gaps}")
    assert len(gaps) < len(rows) / 2 and all(gap <= NEAR_TIE_STEPS for gap in gaps)


async def answers(base: str, rows: list[QARow]) -> list[Completion]:
    model = HttpModel(kind="openai", model="exported", api_bases=[base], api_key=None, max_retries=0)
    try:
        return [await model.generate(row.prompt, GREEDY) for row in rows]
    finally:
        await model.close()


async def adapters_answers(model: Any, tokenizer: Any, rows: list[QARow]) -> list[Completion]:
    with serving_student(LocalStudent(model, tokenizer, name="adapter", fingerprint="adapter")) as student:
        return await asyncio.gather(*(student.generate(row.prompt, GREEDY) for row in rows))


def llama_ids(base: str, messages: list[dict[str, str]]) -> list[int]:
    """A conversation by llama.cpp's own template engine and tokenizer."""

    def asked(path: str, body: dict[str, Any]) -> Any:
        place, head = f"{base.removesuffix('/v1')}{path}", {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(place, json.dumps(body).encode(), head)) as reply:
            return json.load(reply)

    text = asked("/apply-template", {"messages": messages})["prompt"]
    return asked("/tokenize", {"content": text, "parse_special": True})["tokens"]


def gap_in_steps(model: Any, tokenizer: Any, row: QARow, mine: Completion, theirs: Completion) -> float | None:
    """How far apart the adapter itself holds the two tokens at which the answers part; None where they do not."""
    import torch

    if mine.text == theirs.text:
        return None
    own, other = list(mine.token_ids or ()), tokenizer(theirs.text, add_special_tokens=False).input_ids
    end = tokenizer.eos_token_id
    pairs = zip([*own, end], [*other, end], strict=False)
    at = next((n for n, (one, another) in enumerate(pairs) if one != another), None)
    if at is None:
        return None  # one of the two was cut off
    ids = torch.tensor([[*prompt_ids(tokenizer, row.prompt), *own[:at]]])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, -1].float()
    best, rival = logits[[*own, end][at]], logits[[*other, end][at]]
    return float(best - rival) / bfloat16_step(float(best))

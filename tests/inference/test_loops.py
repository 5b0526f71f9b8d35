"""Answers that say the same over and over, as ids and from a model that cannot end."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import demo_rows, socratune, write_rows
from test_student import small_llama

from socratune.inference.loops import LONGEST_PERIOD, LOOKED_EVERY, loops
from socratune.inference.student import LocalStudent, serving_student
from socratune.llm import Sampling

WORDS = random.Random(0)
START = [WORDS.randrange(50_000) for _ in range(300)]


def passage(tokens: int) -> list[int]:
    return [100_000 + WORDS.randrange(50_000) for _ in range(tokens)]


@pytest.mark.parametrize("period", [1, 2, 3, 7, 16, 31, 32, 33, 50, LONGEST_PERIOD])
def test_a_passage_over_and_over_is_a_loop(period: int) -> None:
    again = passage(period)
    said = [*START, *again * (400 // period)]
    assert loops(said) and loops([*START[:2], *said]) and loops([*said, *again[: period // 2]])
    assert loops([0] * 400)  # of the smallest id, whose bytes are all alike


@pytest.mark.parametrize(
    "said",
    [
        START,
        [],
        [7],
        [*START, *[9] * 100],  # a row of dashes
        [*START, *passage(60) * 3],  # a paragraph, thrice
        [*START, *passage(LONGEST_PERIOD + 1) * 5],
        [n for line in range(60) for n in (1, line, 2, 3, 4, 5, 6, 7)],  # a table whose rows have numbers
        [256 * n for n in range(300)],  # bytes that repeat, tokens that do not
        [*[1, 2, 3] * 130, 4],  # it came out of it
    ],
)
def test_what_goes_on_is_no_loop(said: list[int]) -> None:
    assert not loops(said)


def endless_llama() -> Any:
    """What comes next depends on the last token alone, so a few tokens come round again."""
    model = small_llama(eos_token_id=None)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    return model


@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.parametrize("ends_loops", [False, True])
def test_a_model_that_cannot_end_is_stopped(demo_base: tuple[Any, Any], slots: bool, ends_loops: bool) -> None:
    model, tokenizer = endless_llama(), demo_base[1]
    student = LocalStudent(model, tokenizer, name="small", fingerprint="x", slots=slots, ends_loops=ends_loops)
    with serving_student(student):
        chat = [{"role": "user", "content": "What is 12 * 34?"}]
        answer = asyncio.run(student.generate(chat, Sampling(max_new_tokens=400)))
    assert answer.token_ids is not None
    if ends_loops:
        assert answer.stop == "loop" and answer.completion_tokens < 400
        assert answer.completion_tokens == len(answer.token_ids) and answer.completion_tokens % LOOKED_EVERY == 0
    else:
        assert (answer.stop, answer.completion_tokens) == ("length", 400)


@pytest.mark.slow
def test_a_run_counts_the_answers_that_were_stopped(tmp_path: Path, demo_base: tuple[Any, Any]) -> None:
    endless_llama().save_pretrained(tmp_path / "endless")
    demo_base[1].save_pretrained(tmp_path / "endless")
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 20))
    flags = ["--model", tmp_path / "endless", "--dataset", data, "--output", tmp_path / "run"]
    done = socratune("enhance", *flags, "--set", "enhance.temperature=0")
    assert done.returncode == 1, done.stderr  # no answer is right, so there is nothing to train on
    stage = json.loads((tmp_path / "run" / "pipeline_results.json").read_text())["stages"]["enhance"]
    assert stage["looped"] > 0
    assert f"{stage['looped']} answers repeated themselves and were stopped" in " ".join(done.stdout.split())

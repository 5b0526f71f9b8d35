"""Is the student the model that is trained?"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import demo_rows
from safetensors.torch import load_file, save_file

from socratune.config import DEMO_DATA
from socratune.inference.provenance import foreign_fault, identity, mean_kl, student_grade, trace_writers as writers
from socratune.inference.template import prompt_ids
from socratune.llm.base import Sampling
from socratune.rows import Example, Piece
from socratune.training.fit import graded_students

BASE = identity("demo")


def copied(to: Path) -> Path:
    shutil.copytree(DEMO_DATA / "base", to)
    return to


def test_the_same_model_is_the_same_wherever_it_lies(tmp_path: Path) -> None:
    student = identity(str(copied(tmp_path / "copy")), sampling=Sampling(0.7, 0.8, max_new_tokens=9))
    assert student_grade(student, BASE)[0] == "same"
    assert student_grade({**student, "name": f"local/{tmp_path}/copy"}, BASE)[0] == "same"
    assert student["sampling"] == {"temperature": 0.7, "top_p": 0.8, "top_k": 0, "max_new_tokens": 9}


def test_one_number_in_the_weights_makes_another_model(tmp_path: Path) -> None:
    file = copied(tmp_path / "other") / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.self_attn.q_proj.weight"][3, 5] += 0.5
    save_file(weights, file, {"format": "pt"})
    found, reason = student_grade(identity(str(file.parent)), BASE)
    assert found == "foreign" and "other weights" in reason


def test_another_template_is_foreign_another_engine_or_quantisation_near(tmp_path: Path) -> None:
    folder = copied(tmp_path / "other")
    template = folder / "chat_template.jinja"
    template.write_text("{{ 'Be kind.' }}" + template.read_text())
    assert student_grade(identity(str(folder)), BASE)[0] == "foreign"
    assert student_grade(identity("demo", engine="vllm"), BASE) == ("near", "engine 'vllm' instead of 'local'")
    assert student_grade({**BASE, "quantisation": "4bit"}, BASE) == ("near", "quantisation '4bit' instead of 'none'")


def test_nobody_can_look_behind_a_servers_name() -> None:
    assert student_grade(identity("demo", engine="http"), BASE)[0] == "unverified"
    assert student_grade(identity("gpt-4o", engine="http"), BASE)[0] == "unverified"


def test_traces_of_someone_else_are_known_by_name_alone() -> None:
    assert student_grade({"name": "local/demo"}, BASE)[0] == "unverified"
    assert student_grade({"name": "Qwen/Qwen3-8B"}, BASE)[0] == "foreign"
    here, there = {"name": "a/b", "weights": None, "revision": "1"}, {"name": "a/b", "weights": None, "revision": "2"}
    assert student_grade(here, there)[0] == "foreign" and student_grade(here, here)[0] == "unverified"


def test_who_wrote_a_set_of_traces() -> None:
    assert writers(["local/demo", "demo"], BASE) == [BASE]
    assert writers(["gpt-4o", "demo"], BASE) == [BASE, {"name": "gpt-4o"}]
    assert writers(["gpt-4o"], None) == [{"name": "gpt-4o"}]


def test_foreign_traces_are_refused_unless_allowed() -> None:
    writers = [BASE, {"name": "demo", "engine": "http"}, {"name": "Qwen/Qwen3-8B"}]
    assert foreign_fault(writers[:2], BASE, allowed=False) is None
    fault = foreign_fault(writers, BASE, allowed=False)
    assert fault is not None and "Qwen/Qwen3-8B" in str(fault) and "train.allow_foreign_student=true" in str(fault)
    assert foreign_fault(writers, BASE, allowed=True) is None


def test_the_divergence_of_a_perturbed_copy(demo_base: tuple[Any, Any]) -> None:
    model, tokenizer = demo_base
    examples = [
        Example("e", row["messages"][:-1], (Piece(row["messages"][-1]["content"]),), "solved_first_try")
        for row in demo_rows("held_out", 32)
    ]
    found = []
    for size in (0.0, 0.01, 0.05):
        other = copy.deepcopy(model)
        noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in other.parameters():
                weight.add_(size * weight.std() * torch.randn(weight.shape, generator=noise))
        found.append(mean_kl(model, other, tokenizer, examples))
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert 0 < 2 * found[1] < found[2]


def test_the_divergence_is_the_textbooks(demo_base: tuple[Any, Any]) -> None:
    """Of one trained token against KL computed by torch from the two distributions."""
    model, tokenizer = demo_base
    doubled = copy.deepcopy(model)
    with torch.no_grad():
        doubled.model.norm.weight *= 2  # twice the logits: the distribution at temperature 0.5
    example = Example("e", [{"role": "user", "content": "What is 2 * 3?"}], (Piece(""),), "solved_first_try")
    ids = torch.tensor([prompt_ids(tokenizer, example.prompt)])
    with torch.no_grad():
        log_probs = model(ids).logits[0, -1].log_softmax(-1)
    expected = torch.nn.functional.kl_div((2 * log_probs).log_softmax(-1), log_probs, reduction="sum", log_target=True)
    assert mean_kl(model, doubled, tokenizer, [example]) == pytest.approx(float(expected), rel=1e-4)


def test_what_is_not_the_same_is_warned_of_and_measured_where_it_can_be(
    demo_base: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """On a CPU there is no 4-bit model, so the divergence that is measured is 0: the way is shown, not the size."""
    examples = [Example("e", [{"role": "user", "content": "What is 2 * 3?"}], (Piece("6"),), "solved_first_try")]
    students = [BASE, {**identity("demo"), "quantisation": "4bit"}]
    assert graded_students(students[:1], BASE, *demo_base, examples)["demo"]["grade"] == "same" and not caplog.text
    entry = graded_students(students[1:], BASE, *demo_base, examples)["demo"]
    assert (entry["grade"], entry["mean_kl_nats"]) == ("near", pytest.approx(0, abs=1e-6))
    assert "quantisation '4bit' instead of 'none'; the next token differs by 0.0000 nats" in caplog.text
    assert "mean_kl_nats" not in graded_students([identity("demo", engine="vllm")], BASE, *demo_base, examples)["demo"]

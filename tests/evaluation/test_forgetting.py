"""What the forgetting test concludes, and what the meters see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from socratune.errors import UserError
from socratune.evaluation.forgetting import meters, non_inferiority
from socratune.evaluation.question_sets import forgetting_rows, meter_rows, read_prompts
from socratune.rows import QARow


def rows(count: int) -> list[QARow]:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    return [QARow(str(at), turns, {"stratum": "odd" if at % 2 else "even"}) for at in range(count)]


def concluded(base: list[bool], adapter: list[bool], margin: float | None = 0.03) -> dict[str, Any]:
    said = [[{"verdict": "correct" if right else "incorrect"} for right in side] for side in (base, adapter)]
    return non_inferiority(rows(len(base)), *said, margin=margin, draws=2000, seed=0)


def test_no_loss_on_450_questions_is_proof() -> None:
    found = concluded([True] * 400 + [False] * 50, [True] * 400 + [False] * 50)
    assert found["proven"] and found["passed"]
    assert found["drop"] == 0 and 0 < found["drop_upper95"] < 0.01
    assert found["solved"] == {"n": 400, "lost": 0, "lost_share_upper95": pytest.approx(0.00746, abs=1e-4)}
    assert found["strata"]["even"] == {"n": 225, "base": 200, "adapter": 200}


def test_some_noise_both_ways_is_no_forgetting() -> None:
    base = [True] * 400 + [False] * 50
    adapter = [False] * 8 + [True] * 392 + [True] * 8 + [False] * 42
    assert concluded(base, adapter)["proven"]


def test_five_points_lost_are_refused_though_two_might_have_been_meant() -> None:
    found = concluded([True] * 450, [False] * 23 + [True] * 427)
    assert not found["proven"] and not found["passed"]
    assert found["drop"] == pytest.approx(0.051, abs=1e-3) and found["drop_upper95"] > 0.06
    assert "at most" in found["reason"]
    assert concluded([True] * 450, [False] * 23 + [True] * 427, margin=None)["passed"]


def test_a_base_that_fails_nearly_all_proves_nothing() -> None:
    found = concluded([True] * 40 + [False] * 410, [True] * 40 + [False] * 410)
    assert not found["proven"] and not found["passed"]
    assert "solves only 40 of 450" in found["reason"]
    assert concluded([False] * 450, [False] * 450)["solved"]["lost_share_upper95"] == 1


# --- the meters ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tuned() -> tuple[Any, Any]:
    """The embedded model with an adapter that does nothing yet."""
    from peft import get_peft_model

    from socratune.config import EnhancedTrainingConfig
    from socratune.inference.load import load_model
    from socratune.training.adapters import lora_config

    model, tokenizer = load_model("demo")
    return get_peft_model(model, lora_config(EnhancedTrainingConfig(r=4))).eval(), tokenizer


def said(text: str, count: int, tokens: int = 10) -> list[dict[str, Any]]:
    return [{"response": text, "tokens": tokens, "verdict": "undecided"}] * count


def test_an_adapter_that_does_nothing_has_no_divergence_and_one_that_does_has(tuned: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = tuned
    asked, base = forgetting_rows("demo")[:12], said("The capital of France is Paris.", 12)
    assert meters(model, tokenizer, asked, base, base, thinking=False)["mean_kl_nats"] == 0
    weights = [weight for name, weight in model.named_parameters() if "lora_B" in name]
    with torch.no_grad():
        for weight in weights:
            weight.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    moved = meters(model, tokenizer, asked, base, base, thinking=False)
    with torch.no_grad():
        for weight in weights:
            weight.mul_(20)
    wrecked = meters(model, tokenizer, asked, base, base, thinking=False)
    with torch.no_grad():
        for weight in weights:
            weight.zero_()
    assert 0 < moved["mean_kl_nats"] < wrecked["mean_kl_nats"]
    assert wrecked["mean_kl_nats"] > 0.1 and "KL" in wrecked["warnings"][0]


def test_the_divergence_does_not_depend_on_what_is_padded_beside(tuned: tuple[Any, Any]) -> None:
    import torch

    from socratune.evaluation import forgetting

    model, tokenizer = tuned
    asked = forgetting_rows("demo")[:7]
    base = [{"response": row.reference * (1 + at), "tokens": 9} for at, row in enumerate(asked)]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.02)
    together = meters(model, tokenizer, asked, base, base, thinking=False)["mean_kl_nats"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forgetting, "KL_BATCH_TOKENS", 1)
        alone = meters(model, tokenizer, asked, base, base, thinking=False)["mean_kl_nats"]
    assert together == pytest.approx(alone, rel=1e-3) and alone > 0


def test_shifts_of_length_think_blocks_and_doubt_are_seen(tuned: tuple[Any, Any]) -> None:
    model, tokenizer = tuned
    asked = forgetting_rows("demo")[:30]
    plain = said("<think>so</think> It is Paris.", 30, 10)
    longer = meters(model, tokenizer, asked, plain, said("<think>so</think> It is Paris.", 30, 16), thinking=True)
    assert longer["shift"]["length"] == pytest.approx(0.6) and longer["warnings"] == ["length +60%"]
    assert longer["passed"]
    no_thought = meters(model, tokenizer, asked, plain, said("It is Paris.", 30), thinking=True)
    assert no_thought["shift"]["think_blocks"] == -1 and not no_thought["passed"]
    assert meters(model, tokenizer, asked, plain, said("It is Paris.", 30), thinking=False)["passed"]
    doubtful = meters(
        model, tokenizer, asked, said("Maybe Paris.", 30), said("Maybe, wait, vielleicht Paris?", 30), thinking=False
    )
    assert doubtful["shift"]["uncertainty_markers"] == pytest.approx(2)
    rare = meters(model, tokenizer, asked[:2], said("Paris.", 2), said("Maybe Paris.", 2), thinking=False)
    assert rare["shift"]["uncertainty_markers"] == 0  # two words are chance


# --- the questions -------------------------------------------------------------------------------------------------


def test_the_shipped_questions_are_enough() -> None:
    assert len(forgetting_rows(None)) >= 400 and len(meter_rows()) >= 200
    assert len(forgetting_rows("demo")) >= 400
    assert {row.metadata["stratum"] for row in forgetting_rows(None)} >= {"facts", "arithmetic", "instruction"}


def test_prompts_come_as_lines_or_as_jsonl(tmp_path: Path) -> None:
    text, lines = tmp_path / "p.txt", tmp_path / "p.jsonl"
    text.write_text('What is 1 + 1?\n\n{"not": "parsed"}\n', "utf-8")
    assert [(row.question, row.reference) for row in read_prompts(str(text))] == [
        ("What is 1 + 1?", ""), ('{"not": "parsed"}', ""),
    ]  # fmt: skip
    given = [
        {"prompt": "a?", "expected": 2},
        {"prompt": "b?"},
        {"question": "c?", "answer": "3"},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "d?"},
                      {"role": "assistant", "content": "4"}]},
        {"prompt": "b?"},
    ]  # fmt: skip
    lines.write_text("".join(json.dumps(row) + "\n" for row in given))
    found = read_prompts(str(lines))
    assert [row.reference for row in found] == ["2", "", "3", "4", ""]
    assert found[3].prompt[0]["role"] == "system" and len({row.id for row in found}) == 5


def test_every_faulty_prompt_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a?"}\nnonsense\n{"prompt": 3}\n{"prompt": "b?", "expected": [1]}\n')
    with pytest.raises(UserError) as caught:
        read_prompts(str(path))
    assert [fault.where.rsplit(", ")[-1] for fault in caught.value.faults] == ["line 2", "4)"]
    assert "2 rows (lines 3, 4)" in str(caught.value)
    path.write_text("".join(f'{{"prompt": {n}}}\n' for n in range(200)) + "nonsense\n" * 50 + "[" * 100_000)
    with pytest.raises(UserError) as caught:
        read_prompts(str(path))
    assert len(caught.value.faults) <= 3  # by kind, not by line
    assert "200 rows (lines 1, 2, 3, …)" in str(caught.value) and 'Write each as {"prompt"' in str(caught.value)
    (tmp_path / "empty.txt").write_text("\n")
    for name in ("empty.txt", "none.txt"):
        with pytest.raises(UserError, match="--prompts"):
            read_prompts(str(tmp_path / name))

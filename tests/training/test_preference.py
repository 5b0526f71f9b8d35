"""Preference training: the loss of the papers, on packed rows, and what it does to the two answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import socratune
from peft import get_peft_model
from test_engine import SMALL, row, silent, small

from socratune.config import EnhancedTrainingConfig
from socratune.inference.template import Rendered
from socratune.training import engine as hf
from socratune.training.adapters import lora_config
from socratune.training.engine import HFEngine
from socratune.training.preference import Pair, answer_losses, pair_mean, with_base_margins

CONFIG = EnhancedTrainingConfig(
    method="dpo", num_train_epochs=8, per_device_train_batch_size=3, gradient_accumulation_steps=1, r=4,
    learning_rate=1e-2,
)  # fmt: skip
PAIRS = [Pair(row(str(at), length), row(str(at), length + 5, seed=9)) for at, length in enumerate((12, 30, 21))]
assert SMALL["vocab_size"] > 290


def log_likelihood(model: Any, answer: Rendered) -> torch.Tensor:
    """Of the labelled tokens by the plain way."""
    logits = model(input_ids=torch.tensor([answer.ids])).logits[0, :-1].log_softmax(-1)
    return sum((logits[at, label] for at, label in enumerate(answer.labels[1:]) if label != -100), torch.zeros(()))


@pytest.mark.parametrize("micro_tokens", [4096, 64, 0])
def test_the_loss_is_that_of_the_papers(micro_tokens: int) -> None:
    torch.manual_seed(0)
    model = get_peft_model(small("llama"), lora_config(CONFIG))
    engine = HFEngine(model, PAIRS, CONFIG)
    engine.micro_tokens = micro_tokens
    with torch.no_grad():
        expected_base = [log_likelihood(model, p.chosen) - log_likelihood(model, p.rejected) for p in PAIRS]
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    pairs = with_base_margins(engine, PAIRS)
    assert [pair.base_margin for pair in pairs] == pytest.approx([float(each) for each in expected_base], abs=1e-4)
    expected = torch.zeros(())
    for pair, base in zip(PAIRS, expected_base, strict=True):
        right, wrong = log_likelihood(model, pair.chosen), log_likelihood(model, pair.rejected)
        expected = expected - torch.log(torch.sigmoid(0.1 * (right - wrong - base)))
        expected = expected - right / len(pair.chosen.trained_ids)
    expected = expected / len(PAIRS)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    expected_gradient = torch.autograd.grad(expected, weights)
    with engine.training():
        engine.stepped()
        found = torch.stack(list(pair_mean(engine, pairs))).sum()
        gradient = torch.autograd.grad(found, weights)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    for one, other in zip(gradient, expected_gradient, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_right_answer_gains_on_the_wrong_one_and_is_not_lost(tmp_path: Path) -> None:
    losses: list[dict[str, float]] = []
    base = small("llama")
    with torch.no_grad():
        before = [(log_likelihood(base, p.chosen), log_likelihood(base, p.rejected)) for p in PAIRS]
    model, state = hf.train_hf(base, PAIRS, CONFIG, tmp_path, silent(losses), seed=1)
    engine = HFEngine(model, PAIRS, CONFIG)
    with engine.training(), torch.no_grad():
        right, wrong = answer_losses(engine, PAIRS)
    assert losses[-1]["loss"] < losses[0]["loss"] and state.step == 8
    for at, (old_right, old_wrong) in enumerate(before):
        assert -right[at] > old_right, "the right answer has become likelier"
        assert -right[at] + wrong[at] > old_right - old_wrong


@pytest.mark.slow
def test_a_second_training_on_the_same_model_begins_anew(tmp_path: Path) -> None:
    first, _ = hf.train_hf(small("llama"), PAIRS, CONFIG, tmp_path / "a", silent(), seed=1)
    again, _ = hf.train_hf(first, PAIRS, CONFIG, tmp_path / "b", silent(), seed=1)
    alone, _ = hf.train_hf(small("llama"), PAIRS, CONFIG, tmp_path / "c", silent(), seed=1)
    for one, other in zip(again.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


def shortened(run: Path) -> Path:
    """The run, to be trained anew for half as many epochs, which suffice."""
    text = (run / "config.yaml").read_text("utf-8")
    assert "num_train_epochs: 6" in text
    (run / "config.yaml").write_text(text.replace("num_train_epochs: 6", "num_train_epochs: 3"), "utf-8")
    return run


def test_a_run_is_trained_on_its_preference_pairs(
    copied_run: Path, results_of: Callable[[Path], dict[str, Any]]
) -> None:
    refused = socratune("train", copied_run, "--method", "dpo")
    assert refused.returncode == 2 and "--restart train" in refused.stderr
    done = socratune("train", shortened(copied_run), "--method", "dpo", "--sweep-lr", "1,10", "--restart")
    assert done.returncode == 0, done.stderr
    results = results_of(copied_run)
    training = results["stages"]["train"]
    hinted = results["stages"]["enhance"]["outcomes"]["solved_with_hint"]
    assert training["pairs"] >= hinted > 0, "every hinted row has a wrong answer beside the right one"
    assert results["origins"]["train.learning_rate"] == "for dpo"
    assert [arm["learning_rate"] for arm in training["sweep"]] == pytest.approx([3e-4, 3e-3])
    assert training["epochs"][-1]["dev_accuracy"] > 0.8, "the base has 0.28"


def test_the_dev_rows_choose_the_learning_rate(copied_run: Path, results_of: Callable[[Path], dict[str, Any]]) -> None:
    done = socratune("train", shortened(copied_run), "--sweep-lr", "1,0.001", "--restart")
    assert done.returncode == 0, done.stderr
    training = results_of(copied_run)["stages"]["train"]
    small, given = training["sweep"]
    assert (small["learning_rate"], given["learning_rate"]) == (pytest.approx(3e-6), 3e-3)
    assert given["dev_accuracy"] > 0.8 > small["dev_accuracy"]
    assert training["learning_rate"] == 3e-3
    assert socratune("validate", copied_run).returncode == 0, "the adapter is that of the better rate"

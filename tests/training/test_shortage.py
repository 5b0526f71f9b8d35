"""Memory that runs out in spite of the arithmetic: one retreat that changes no result, then a clear stop."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from test_engine import ROWS, adapted, small

from socratune.config import EnhancedTrainingConfig
from socratune.errors import StageFailed
from socratune.training import steps as loop
from socratune.training.engine import HFEngine
from socratune.training.packing import PackedRow
from socratune.training.steps import Hooks

CONFIG = EnhancedTrainingConfig(num_train_epochs=2, per_device_train_batch_size=5, gradient_accumulation_steps=1, r=4)
HOOKS = Hooks(lambda model: {}, lambda step, steps, figures: None)


class Card(HFEngine):
    """The real engine on a card with room for so many tokens: what is larger runs out of memory on its way back."""

    room = 10**9

    def loss(self, row: PackedRow) -> torch.Tensor:
        loss = super().loss(row)
        if len(row.ids) > self.room:
            loss.register_hook(_run_out)
        return loss


def _run_out(gradient: torch.Tensor) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def trained(folder: Path, room: int) -> tuple[Card, torch.Tensor]:
    engine = Card(adapted(small("llama")), ROWS, CONFIG)
    engine.room = room
    loop.run_steps(engine, ROWS, CONFIG, folder, HOOKS, seed=0)
    weights: list[Any] = [weight.flatten() for weight in engine.model.parameters() if weight.requires_grad]
    return engine, torch.cat(weights).detach()


def test_half_the_micro_batch_trains_to_the_same_adapter_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = sum(len(row.ids) for row in ROWS)
    _, expected = trained(tmp_path / "roomy", 10**9)
    with caplog.at_level(logging.WARNING):
        engine, found = trained(tmp_path / "tight", tokens - 1)
    assert engine.halved and engine.micro_tokens == tokens // 2
    assert caplog.text.count("OUT OF MEMORY") == 1
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_second_time_is_a_clear_stop(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="half the micro-batch too") as stopped:
        trained(tmp_path, 60)
    assert "train.max_seq_length" in str(stopped.value)


def test_a_single_row_is_not_halved(tmp_path: Path) -> None:
    engine = Card(adapted(small("llama")), ROWS[:1], CONFIG)
    engine.room = 10
    with pytest.raises(StageFailed, match="a single row of 40 tokens"):
        loop.run_steps(engine, ROWS[:1], CONFIG, tmp_path, HOOKS, seed=0)
    assert not engine.halved

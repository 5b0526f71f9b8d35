"""Train a LoRA adapter with transformers and PEFT, on CUDA, Apple's MPS and the CPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model

from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown, UserError
from socratune.inference import ranks, torch_device
from socratune.training import steps
from socratune.training.checkpoints import TrainState, disk_faults
from socratune.training.engine import HFEngine
from socratune.training.fp8 import available as fp8_available
from socratune.training.lora import lora_config
from socratune.training.preference import pair_mean, with_base_margins
from socratune.training.steps import Hooks

__all__ = ["Hooks", "TrainState", "disk_faults", "torch_device", "train_hf"]

log = logging.getLogger(__name__)


def train_hf(
    model: Any,
    rows: list[Any],
    config: EnhancedTrainingConfig,
    checkpoints: Path,
    hooks: Hooks,
    *,
    seed: int,
    most_tokens: int | None = None,
) -> tuple[Any, TrainState]:
    """Train a LoRA adapter, resumed where it was killed.

    Args:
        model: the base, or what an earlier call has returned.
        rows: rendered rows; for `method: dpo` each a `preference.Pair`.
        most_tokens: of a micro-batch; None: as many as fit.

    Returns:
        The PEFT model with the weights of the best epoch by `dev_accuracy` (the last one where there are no dev
        rows), and the training's course.

    Raises:
        StageFailed: loss or gradient is not finite; the last whole checkpoint is kept.
        UserError: the card is too small, or has no products in 8 bits.
    """
    if config.fp8 and not fp8_available(torch_device()):
        fix = "Leave it out."
        raise UserError(
            Fault("train.fp8", "a GPU of the Ada or Hopper generation or later", Shown(str(torch_device())), fix)
        )
    torch.manual_seed(seed)
    if isinstance(model, PeftModel):  # of the training before
        model = model.unload()
    model = get_peft_model(model, lora_config(config))
    ranks.as_first([weight.data for weight in model.parameters() if weight.requires_grad])
    if not ranks.leads():
        torch.manual_seed(seed + ranks.rank())  # its dropout is its own
    engine = HFEngine(model, rows, config, most_tokens=most_tokens)
    if config.method == "dpo":
        rows = with_base_margins(engine, rows)
    losses = pair_mean if config.method == "dpo" else steps.token_mean
    state = steps.run_steps(engine, rows, config, checkpoints, hooks, seed=seed, losses=losses)
    state.engine = engine.figures()
    return model, state

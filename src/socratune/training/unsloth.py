"""The `unsloth` back end: Unsloth's kernels and its checkpoints in main memory, with our loop and our packed rows.

Only this module imports unsloth. It takes less memory than `hf` and is slower on packed rows. Without a GPU it runs on
Unsloth's own CPU back end, which is enough to try it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown, UserError, one_line
from socratune.inference import IGNORE, Rendered, base_dtype, load_tokenizer, model_on_meta, torch_device
from socratune.llm import model_json, model_location
from socratune.training import steps
from socratune.training.checkpoints import TrainState
from socratune.training.packing import PackedRow
from socratune.training.steps import Hooks

UNSLOTH_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_MICRO_TOKENS = 8192
"""Tokens of a micro-batch, unless the model has fewer positions. Unsloth's checkpoints lie in main memory."""


def pad_token_fault(name: str) -> Fault | None:
    """Returns why Unsloth would refuse the tokenizer of a model for want of a pad token; None if it would not.

    Unsloth's own function decides, on the tokenizer and a model without weights. Its file is loaded alone, since
    its package patches transformers.

    Args:
        name: a folder, a Hub id, or `demo`.
    """
    package = find_spec("unsloth_zoo")
    file = Path(package.origin).with_name("pad_token.py") if package and package.origin else None
    if file is None or not file.is_file():
        return None  # another version, which reports the error itself
    spec = spec_from_file_location("unsloth_pad_token", file)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        with redirect_stdout(StringIO()):
            module.fix_pad_token(load_tokenizer(name), model_on_meta(model_json(name, "config.json")))
    except RuntimeError as error:
        expected = "a tokenizer with a pad token that Unsloth accepts"
        reason = Shown(str(error).splitlines()[0])  # the other lines are advice to programmers
        return Fault(f"--model {name}", expected, reason, "--backend hf.")
    return None


def load_unsloth(name: str, config: EnhancedTrainingConfig) -> tuple[Any, Any]:
    """Returns the model with a new adapter, and its tokenizer.

    Raises:
        UserError: the model cannot be read, or Unsloth does not support its family.
    """
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    from unsloth import FastLanguageModel  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    where = torch_device()
    four_bit = config.load_in_4bit is True and where.type == "cuda"
    targets = UNSLOTH_LINEAR if config.target_modules == "all-linear" else config.target_modules
    shape = model_json(name, "config.json")
    positions = shape.get("text_config", shape).get("max_position_embeddings", _MICRO_TOKENS)
    try:
        model, tokenizer = FastLanguageModel.from_pretrained(
            str(model_location(name)),
            max_seq_length=min(_MICRO_TOKENS, positions),  # beyond its positions Unsloth stretches them
            dtype=base_dtype(where),
            load_in_4bit=four_bit,
        )
        model = FastLanguageModel.get_peft_model(
            model,
            r=config.r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=targets,
            bias="none",
            use_gradient_checkpointing=False if config.gradient_checkpointing is False else "unsloth",
            **config.peft,
        )
    except (OSError, TypeError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        expected = "a model that Unsloth can train"
        raise UserError(Fault(f"--model {name}", expected, one_line(error), "--backend hf")) from error
    return model, tokenizer


def train_unsloth(
    model: Any, rows: list[Rendered], config: EnhancedTrainingConfig, checkpoints: Path, hooks: Hooks, *, seed: int
) -> tuple[Any, TrainState]:
    """Trains a model of `load_unsloth`, otherwise as `engine.train_hf` does."""
    torch.manual_seed(seed)
    engine = UnslothEngine(model)
    state = steps.run_steps(engine, rows, config, checkpoints, hooks, seed=seed)
    state.engine = engine.figures()
    return model, state


class UnslothEngine:
    """Computes the loss of packed rows with Unsloth. See `steps.TrainingEngine`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.micro_tokens = min(_MICRO_TOKENS, model.config.max_position_embeddings)
        self.halved = False

    def loss(self, row: PackedRow) -> torch.Tensor:
        where = self.model.device
        ids, positions = (torch.from_numpy(part).unsqueeze(0).to(where) for part in (row.ids, row.positions))
        labels = torch.full_like(ids, IGNORE)
        labels[0, torch.from_numpy(row.at + 1).to(where)] = torch.from_numpy(row.targets).to(where)
        lengths = torch.from_numpy(row.boundaries).diff().to(where, torch.int32)
        with torch.autocast(where.type, base_dtype(where), enabled=where.type == "cuda"):
            return self.model(
                input_ids=ids,
                position_ids=positions,
                labels=labels,
                packed_seq_lengths=lengths,
                num_items_in_batch=torch.ones((), device=where),
                use_cache=False,
            ).loss

    def stepped(self) -> None:
        """Does nothing, since Unsloth multiplies with the parameters themselves."""

    @contextmanager
    def training(self) -> Iterator[None]:
        """Switches Unsloth to training; the loop switches back."""
        from unsloth import FastLanguageModel  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

        FastLanguageModel.for_training(self.model)
        yield

    def figures(self) -> dict[str, Any]:
        """Returns the choice and the measured memory, for the results."""
        figures: dict[str, Any] = {"back_end": "unsloth", "packed": True, "micro_tokens": self.micro_tokens}
        if self.model.device.type == "cuda":
            figures["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        return figures

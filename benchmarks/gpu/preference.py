"""Our preference training against TRL's: the same pairs, the same schedule, the same seed. Are the losses the same?

    python benchmarks/gpu/preference.py [--model demo] [--pairs 16] [--steps 12]

Every step takes all pairs, so their order does not matter. TRL's part needs `pip install trl` (1.15 was used); its
loss is ["sigmoid", "sft"] with weights 1 and 1. TRL takes the mean over all answer tokens of a step in the second
term, we the mean over the pairs of each one's mean (as the paper has it), so the answers here are of one length.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model

from socratune.config import EnhancedTrainingConfig
from socratune.inference.load import load_model
from socratune.inference.template import Rendered
from socratune.training import engine, steps
from socratune.training.adapters import lora_config
from socratune.training.preference import ALPHA, BETA, Pair
from socratune.training.steps import Hooks

ANSWER_TOKENS = 24


def made_pairs(count: int, vocabulary: int) -> list[Pair]:
    """Random ids: prompts of several lengths, answers of one."""
    draw = torch.Generator().manual_seed(0)

    def ids(length: int) -> list[int]:
        return torch.randint(5, vocabulary, (length,), generator=draw).tolist()

    def answer(name: str, prompt: list[int]) -> Rendered:
        found = ids(ANSWER_TOKENS)
        return Rendered(name, prompt + found, [-100] * len(prompt) + found, len(prompt))

    prompts = [ids(4 + at % 13) for at in range(count)]
    return [Pair(answer(str(at), prompt), answer(str(at), prompt)) for at, prompt in enumerate(prompts)]


def ours(model: Any, pairs: list[Pair], config: EnhancedTrainingConfig) -> list[float]:
    """The loss of each step."""
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        hooks = Hooks(lambda _model: {}, lambda _done, _total, figures: losses.append(figures["loss"]))
        engine.train_hf(model, pairs, config, Path(folder), hooks, seed=0)
    return losses


def trl(model: Any, tokenizer: Any, pairs: list[Pair], config: EnhancedTrainingConfig) -> list[float]:
    """The same by TRL's DPOTrainer."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    torch.manual_seed(0)
    model = get_peft_model(model, lora_config(config))
    rows = [
        {
            "prompt_ids": pair.chosen.ids[: pair.chosen.prompt_length],
            "chosen_ids": pair.chosen.trained_ids,
            "rejected_ids": pair.rejected.trained_ids,
        }
        for pair in pairs
    ]
    schedule = steps.Schedule(config.learning_rate, config.warmup_ratio, config.num_train_epochs)
    on_card = torch.cuda.is_available()

    class SameSchedule(DPOTrainer):
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            optimizer = optimizer or self.optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda at: schedule.at(at) / config.learning_rate
            )
            return self.lr_scheduler

        def _prepare_dataset(self, dataset: Any, *_args: Any, **_options: Any) -> Any:
            return dataset

    with tempfile.TemporaryDirectory() as folder:
        options = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=len(pairs),
            gradient_accumulation_steps=1,
            num_train_epochs=config.num_train_epochs,
            learning_rate=config.learning_rate,
            beta=BETA,
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, ALPHA],
            max_grad_norm=config.max_grad_norm,
            logging_steps=1,
            report_to=[],
            bf16=on_card,
            use_cpu=not on_card,
            gradient_checkpointing=False,
            disable_tqdm=True,
            save_strategy="no",
        )
        trainer = SameSchedule(
            model=model,
            args=options,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            data_collator=DataCollatorForPreference(pad_token_id=0),
        )
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main() -> None:
    """Print both curves and the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    config = EnhancedTrainingConfig(
        method="dpo",
        per_device_train_batch_size=options.pairs,
        gradient_accumulation_steps=1,
        num_train_epochs=options.steps,
        learning_rate=1e-3,
    )
    curves, seconds = {}, {}
    for name in ("ours", "trl"):
        model, tokenizer = load_model(options.model)
        pairs = made_pairs(options.pairs, min(400, model.config.vocab_size))
        started = time.monotonic()
        curves[name] = ours(model, pairs, config) if name == "ours" else trl(model, tokenizer, pairs, config)
        seconds[name] = round(time.monotonic() - started, 1)
    apart = max(abs(a - b) / b for a, b in zip(curves["ours"], curves["trl"], strict=True))
    print(json.dumps({**curves, "seconds": seconds, "largest_relative_difference": apart}))


if __name__ == "__main__":
    main()

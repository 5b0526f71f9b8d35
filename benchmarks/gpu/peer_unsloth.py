"""The fastest peer on the same work: Unsloth without gradient checkpointing, through TRL's SFTTrainer, its own packing.

    python benchmarks/gpu/shapes.py llama-3.1-8b FOLDER
    python benchmarks/gpu/peer_unsloth.py FOLDER [--windows 3] [--only fixed,qa] [--output results.jsonl]

Needs unsloth, trl and datasets (src/socratune/compute/constraints-gpu.txt). Same shape, lengths, rank and clock as
train.py: 16,384 tokens a step, one window of ten steps to warm up. `get_peft_model(use_gradient_checkpointing=False)`
is what turns checkpointing off; the Trainer's own switch does not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import unsloth  # first: it patches what follows
from unsloth import FastLanguageModel

# isort: split
import torch
from datasets import Dataset
from shapes import PEAK, fixed, flops, question_answer
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

SHAPE, ROWS, ACCUMULATE, LENGTH, WINDOW = "llama-3.1-8b", 4, 2, 2048, 10
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Counter:
    """A collator that counts the tokens it hands out."""

    def __init__(self, collate: Any) -> None:
        self.tokens: list[int] = []
        self._collate = collate

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        self.tokens.append(sum(len(example["input_ids"]) for example in examples))
        return self._collate(examples)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_collate"], name)


class Clock(TrainerCallback):
    """Reads the time, the card's work done, every ten steps."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % WINDOW == 0:
            torch.cuda.synchronize()
            self.marks.append(time.monotonic())


def measure(model: Any, tokenizer: Any, lengths: str, windows: int) -> dict[str, Any]:
    """Train and read the clock."""
    steps = WINDOW * (windows + 1)
    rows = fixed(ROWS * ACCUMULATE * steps, LENGTH) if lengths == "fixed" else question_answer(16384 * (steps + 2))
    options = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=ROWS,
        gradient_accumulation_steps=ACCUMULATE,
        max_steps=steps,
        bf16=True,
        max_length=LENGTH,
        packing=lengths == "qa",
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        optim="adamw_torch_fused",
        lr_scheduler_type="constant",
    )
    data = Dataset.from_dict({"input_ids": [row.ids for row in rows]})
    trainer = SFTTrainer(model=model, args=options, train_dataset=data, processing_class=tokenizer)
    clock, counter = Clock(), Counter(trainer.data_collator)
    trainer.data_collator = counter
    trainer.add_callback(clock)
    FastLanguageModel.for_training(model, use_gradient_checkpointing=False)
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    seconds = [after - before for before, after in zip(clock.marks, clock.marks[1:], strict=False)]
    micro = WINDOW * ACCUMULATE
    tokens = [sum(counter.tokens[at * micro : (at + 1) * micro]) for at in range(1, windows + 1)]
    speeds = [count / each for count, each in zip(tokens, seconds, strict=True)]
    speed = statistics.harmonic_mean(speeds)
    useful = flops(SHAPE, rows)[0] / sum(len(row.ids) for row in rows)
    return {
        "work": f"8b-{lengths}",
        "peer": f"unsloth {unsloth.__version__}",
        "tok_s": round(speed),
        "low": round(min(speeds)),
        "high": round(max(speeds)),
        "mfu": round(useful * speed / PEAK, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
    }


def main() -> None:
    """Print one JSON line per kind of lengths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--only", default="fixed,qa")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    model, tokenizer = FastLanguageModel.from_pretrained(
        options.folder, max_seq_length=LENGTH, dtype=torch.bfloat16, load_in_4bit=False
    )
    adapter = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "bias": "none", "target_modules": TARGETS}
    model = FastLanguageModel.get_peft_model(model, **adapter, use_gradient_checkpointing=False)
    for lengths in options.only.split(","):
        found = measure(model, tokenizer, lengths, options.windows)
        print(json.dumps(found), flush=True)
        if options.output:
            with options.output.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

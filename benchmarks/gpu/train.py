"""LoRA training speed on one card, through the very loop of `socratune train`. The table in dev/LOG.md.

    python benchmarks/gpu/train.py [--only 8b-fixed,1b-qa] [--windows 3] [--output results.jsonl]
    python benchmarks/gpu/train.py --floors        # what the arithmetic allows, without a GPU
    python benchmarks/gpu/train.py --tiny          # tiny shapes on a CPU: does it still run?

r = 16 on all linear layers, random weights, every token labelled (as the peers were measured). One window of steps
warms up, then `--windows` windows of ten steps are timed; the figure is all tokens by all seconds, and the spread is
that of the windows. Memory is the peak of the allocator plus the context.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from shapes import PEAK, build, fixed, flops, question_answer

from socratune.config import EnhancedTrainingConfig
from socratune.inference.template import Rendered
from socratune.training import engine
from socratune.training.steps import READ_EVERY, Hooks


@dataclass(frozen=True)
class Work:
    """One row of the table."""

    shape: str
    lengths: str
    floor: int
    aim: int
    load_in_4bit: bool = False
    most_tokens: int | None = None
    prompt_share: float = 0.0
    step_tokens: int = 16384
    fp8: bool = False
    dtype: torch.dtype = torch.bfloat16


WORK = {
    "8b-fixed": Work("llama-3.1-8b", "fixed", 15_000, 17_500),
    "8b-qa": Work("llama-3.1-8b", "qa", 15_300, 17_000),
    "8b-qa-prompts": Work("llama-3.1-8b", "qa", 15_300, 17_000, prompt_share=0.4),
    "8b-4bit": Work("llama-3.1-8b", "fixed", 10_500, 11_500, load_in_4bit=True, most_tokens=4096, step_tokens=8192),
    "phi-qa": Work("phi-3.5-mini", "qa", 24_500, 28_000),
    "1b-qa": Work("llama-3.2-1b", "qa", 66_000, 85_000, step_tokens=32768),
    "1b-qa-fp16": Work("llama-3.2-1b", "qa", 66_000, 85_000, step_tokens=32768, dtype=torch.float16),
    "8b-fixed-fp8": Work("llama-3.1-8b", "fixed", 15_000, 20_000, fp8=True),
    "8b-qa-fp8": Work("llama-3.1-8b", "qa", 15_300, 20_000, fp8=True),
}


def rows_of(work: Work, steps: int, *, tiny: bool) -> tuple[list[Rendered], int]:
    """The rows of all steps, and rows per step."""
    tokens, longest = (512, 64) if tiny else (work.step_tokens, 2048)
    if work.lengths == "fixed":
        per_step = tokens // longest
        return fixed(per_step * steps, longest, prompt_share=work.prompt_share), per_step
    rows = question_answer(tokens * steps, most=longest, prompt_share=work.prompt_share)
    per_step = len(rows) // steps
    return rows[: per_step * steps], per_step


def measure(name: str, work: Work, windows: int, *, tiny: bool) -> dict[str, Any]:
    """Train and read the clock."""
    rows, per_step = rows_of(work, (windows + 1) * READ_EVERY, tiny=tiny)
    shape = "tiny" if tiny else work.shape
    model = build(shape, load_in_4bit=work.load_in_4bit and not tiny, dtype=work.dtype)
    config = EnhancedTrainingConfig(
        per_device_train_batch_size=per_step,
        gradient_accumulation_steps=1,
        num_train_epochs=1,
        gradient_checkpointing=work.load_in_4bit or "auto",
        fp8=work.fp8 and not tiny,
    )
    speeds: list[float] = []

    def step(done: int, _total: int, figures: dict[str, float]) -> None:
        if done % READ_EVERY == 0:
            speeds.append(figures["tokens_per_second"])

    with tempfile.TemporaryDirectory() as folder:
        hooks = Hooks(lambda _model: {}, step)
        _, state = engine.train_hf(model, rows, config, Path(folder), hooks, seed=0, most_tokens=work.most_tokens)
    warm_up, *timed = speeds
    speed = statistics.harmonic_mean(timed)
    useful, done = (
        each / sum(len(row.ids) for row in rows) for each in flops(shape, rows, recompute=work.load_in_4bit)
    )
    return {
        "work": name,
        "tok_s": round(speed),
        "low": round(min(timed)),
        "high": round(max(timed)),
        "floor": work.floor,
        "aim": work.aim,
        "mfu": round(useful * speed / PEAK, 3),
        "hfu": round(done * speed / PEAK, 3),
        "warm_up_tok_s": round(warm_up),
        **{key: state.engine.get(key) for key in ("micro_tokens", "peak_gib", "memory_gib", "reason")},
    }


def floors() -> None:
    """What no version can beat: operations by the measured rate, nothing else counted."""
    for name, work in WORK.items():
        rows, _ = rows_of(work, 20, tiny=False)
        _, done = flops(work.shape, rows, recompute=work.load_in_4bit)
        tokens = sum(len(row.ids) for row in rows)
        print(f"{name:15} {tokens / (done / PEAK):9,.0f} tok/s at 790 TFLOP/s, {tokens / (done / 700e12):9,.0f} at 700")


def main() -> None:
    """Print one JSON line per row of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(WORK), help="comma-separated names of " + ", ".join(WORK))
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--floors", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.floors:
        floors()
        return
    for name in options.only.split(","):
        found = measure(name, WORK[name], options.windows, tiny=options.tiny)
        print(json.dumps(found), flush=True)
        if options.output:
            with options.output.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(found) + "\n")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

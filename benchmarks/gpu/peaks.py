"""Memory by arithmetic against memory measured. The table of docs/reference/memory.md.

    python benchmarks/gpu/peaks.py [--output peaks.jsonl]

Each line trains three steps of a shape with random weights and compares `socratune.inference.memory` with the peak of
PyTorch's allocator plus the context (which the first line measures).
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from pathlib import Path

import torch
from shapes import build, fixed

from socratune.config import EnhancedTrainingConfig
from socratune.inference.memory import GIB, free_gib
from socratune.training import engine
from socratune.training.steps import Hooks

CASES = [  # shape, 4-bit, activations recomputed, rows a step, tokens a row
    ("llama-3.2-1b", False, False, 4, 2048),
    ("llama-3.2-1b", False, False, 32, 512),
    ("llama-3.2-1b", True, True, 4, 2048),
    ("llama-3.2-3b", False, False, 16, 512),
    ("llama-3.2-3b", False, True, 2, 4096),
    ("llama-3.1-8b", False, False, 4, 2048),
    ("llama-3.1-8b", False, False, 8, 512),
    ("llama-3.1-8b", False, True, 8, 2048),
    ("llama-3.1-8b", True, True, 2, 2048),
    ("llama-3.1-8b", True, False, 8, 512),
    ("qwen2.5-14b", False, False, 2, 2048),
    ("qwen2.5-14b", False, True, 4, 2048),
    ("qwen2.5-14b", True, True, 16, 512),
]


def measure(shape: str, four_bit: bool, recompute: bool, count: int, length: int) -> dict[str, object]:
    """Estimate and peak of one case, in GiB."""
    torch.cuda.reset_peak_memory_stats()
    model = build(shape, load_in_4bit=four_bit)
    config = EnhancedTrainingConfig(
        per_device_train_batch_size=count,
        gradient_accumulation_steps=1,
        num_train_epochs=1,
        gradient_checkpointing=recompute,
    )
    with tempfile.TemporaryDirectory() as folder:
        hooks = Hooks(lambda _model: {}, lambda _done, _total, _figures: None)
        _, state = engine.train_hf(model, fixed(3 * count, length), config, Path(folder), hooks, seed=0)
    estimate, peak = state.engine["memory_gib"]["total"], state.engine["peak_gib"]
    return {
        "shape": shape,
        "weights": "nf4" if four_bit else "bfloat16",
        "activations": "recomputed" if recompute else "kept",
        "rows": f"{count} x {length}",
        "micro_tokens": state.engine["micro_tokens"],
        "estimate_gib": estimate,
        "peak_gib": peak,
        "error": round(estimate / peak - 1, 3),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
        "parts": state.engine["memory_gib"],
    }


def main() -> None:
    """Print one JSON line per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.zeros(1, device="cuda")
    total = torch.cuda.mem_get_info()[1] / GIB
    print(json.dumps({"context_gib": round(total - free_gib(), 2), "card_gib": round(total, 1)}))
    for case in CASES:
        found = measure(*case)
        print(json.dumps(found), flush=True)
        if options.output:
            with options.output.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(found) + "\n")
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

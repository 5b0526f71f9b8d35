"""In which precision the adapter is kept and multiplied: the same loss curve?

    python benchmarks/gpu/precision.py [--steps 100]

A 150-million-parameter shape with random weights learns the bytes of Python's own standard library through a LoRA
adapter, from the same seed: PEFT's own layers (float32 adapters in float32 products), ours (float32 adapters, products
in bfloat16), adapters kept in bfloat16, and ours with the frozen weights' products in 8 bits. Prints the mean loss of
each tenth of the steps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch
from peft import get_peft_model
from shapes import build

from socratune.config import EnhancedTrainingConfig
from socratune.inference.template import Rendered
from socratune.training.adapters import lora_config
from socratune.training.engine import HFEngine
from socratune.training.fp8 import available
from socratune.training.steps import Hooks, run_steps

VARIANTS = ("float32, PEFT's layers", "float32, products in bfloat16", "bfloat16", "float32, frozen weights in fp8")


class PlainEngine(HFEngine):
    """With PEFT's own layers."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._adapters.fast = nullcontext  # type: ignore[method-assign]


def text_rows(count: int, length: int) -> list[Rendered]:
    """Rows of the standard library's bytes."""
    sources = b"".join(path.read_bytes() for path in sorted(Path(argparse.__file__).parent.glob("*.py")))
    rows = []
    for at in range(count):
        ids = [byte + 5 for byte in sources[at * length : (at + 1) * length]]
        rows.append(Rendered(str(at), ids, ids, 0))
    return rows


def main() -> None:
    """Print one JSON line per variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--shape", default="bytes-150m")
    parser.add_argument("--length", type=int, default=1024)
    options = parser.parse_args()
    config = EnhancedTrainingConfig(
        per_device_train_batch_size=8, gradient_accumulation_steps=1, num_train_epochs=1, learning_rate=1e-3
    )
    rows = text_rows(8 * options.steps, options.length)
    for variant in VARIANTS:
        torch.manual_seed(0)
        model = get_peft_model(build(options.shape), lora_config(config))
        if variant == "bfloat16":
            for weight in model.parameters():
                weight.data = weight.data.bfloat16()
        fp8 = variant == VARIANTS[3]
        if fp8 and not available(model.device):
            continue
        config = config.model_copy(update={"fp8": fp8})
        engine = (PlainEngine if variant == VARIANTS[0] else HFEngine)(model, rows, config)
        losses: list[float] = []
        hooks = Hooks(lambda _model: {}, lambda _done, _total, figures, into=losses: into.append(figures["loss"]))
        with tempfile.TemporaryDirectory() as folder:
            run_steps(engine, rows, config, Path(folder), hooks, seed=0)
        tenth = max(1, len(losses) // 10)
        curve = [round(sum(losses[at : at + tenth]) / tenth, 4) for at in range(0, len(losses), tenth)]
        print(json.dumps({"adapter": variant, "loss": curve}), flush=True)


if __name__ == "__main__":
    main()

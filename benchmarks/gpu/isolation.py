"""Packed documents do not see each other: gradients of packed rows against those of the same documents alone.

    python benchmarks/gpu/isolation.py [--shape llama-3.1-8b]

Prints relative differences: the same twice (noise), packed against alone, and a row without boundaries against alone
(what a leak looks like). Ends with an error if packing is not far from the leak. `tests/training/test_engine.py` does
this on a CPU, with the embedded model.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import numpy as np
import torch
from peft import get_peft_model
from shapes import build

from socratune.config import EnhancedTrainingConfig
from socratune.inference.template import Rendered
from socratune.training.adapters import lora_config
from socratune.training.engine import HFEngine
from socratune.training.packing import PackedRow, join_rows

LENGTHS = (700, 300, 900, 148)


def main() -> None:
    """Print the three differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-3.1-8b")
    options = parser.parse_args()
    config = EnhancedTrainingConfig()
    draw = torch.Generator().manual_seed(5)
    documents = [torch.randint(5, 500, (length,), generator=draw).tolist() for length in LENGTHS]
    rows = [Rendered(str(at), ids, ids, 0) for at, ids in enumerate(documents)]
    model = get_peft_model(build(options.shape), lora_config(config))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)  # so that A has a gradient too
    engine = HFEngine(model, rows, config)
    alone = [join_rows([(ids, ids)]) for ids in documents]
    packed = join_rows([(ids, ids) for ids in documents])
    leaking = replace(packed, boundaries=packed.boundaries[[0, -1]], positions=np.arange(len(packed.ids)))
    reference = gradient(engine, alone)

    def difference(packs: list[PackedRow]) -> float:
        return round(float((gradient(engine, packs) - reference).norm() / reference.norm()), 4)

    found = {"noise": difference(alone), "packed": difference([packed]), "without boundaries": difference([leaking])}
    print(json.dumps({"shape": options.shape, **found}))
    if not found["packed"] < 0.2 * found["without boundaries"]:
        raise SystemExit("packed documents see each other")


def gradient(engine: HFEngine, packs: list[PackedRow]) -> torch.Tensor:
    """Of the summed loss, by all adapter weights."""
    engine.model.zero_grad()
    with engine.training():
        engine.stepped()
        for row in packs:
            engine.loss(row).backward()
    weights = [weight.grad for weight in engine.model.parameters() if weight.grad is not None]
    return torch.cat([weight.float().flatten() for weight in weights]).clone()


if __name__ == "__main__":
    main()

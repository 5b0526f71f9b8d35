"""The measured task: addition modulo 41, learnt by a small net from 60 % of its table. Groks in seconds, or does not.

    python experiments/grok_demo.py                         # generalises late
    python experiments/grok_demo.py --weight-decay 0        # never does
    python experiments/grok_demo.py --json                  # the phases as JSON

The same monitor (`grokking.phases`) watches a LoRA training.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from socratune.training.grokking import Point, grokking_phases

MODULUS = 41
TRAIN_SHARE = 0.6
WIDTH, HIDDEN = 64, 256
LEARNING_RATE = 1e-3
STEPS = 5000
EVERY = 50  # steps between two measurements


def run(*, weight_decay: float = 1.0, seed: int = 0, steps: int = STEPS) -> dict[str, Any]:
    """Train the net; its phases as `memorised_step`, `generalised_step`, `delayed_generalisation`, and the `curve`.

    Stops early when it has generalised. One thread: the net is too small to share.
    """
    curve = measured_curve(weight_decay=weight_decay, seed=seed, steps=steps)
    found = asdict(grokking_phases(curve))
    return {"weight_decay": weight_decay, "seed": seed, **found, "curve": [asdict(point) for point in curve]}


def measured_curve(*, weight_decay: float, seed: int, steps: int, modulus: int = MODULUS) -> list[Point]:
    """Train and test accuracy every `EVERY` steps: full batches, AdamW with betas (0.9, 0.98)."""
    import torch
    from torch.nn import functional

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    table = torch.cartesian_prod(torch.arange(modulus), torch.arange(modulus))  # (modulus², 2)
    order = torch.randperm(len(table), generator=generator)
    cut = round(TRAIN_SHARE * len(table))
    train, test = table[order[:cut]], table[order[cut:]]
    net = torch.nn.ModuleList([torch.nn.Embedding(modulus, WIDTH), torch.nn.Embedding(modulus, WIDTH)])
    head = torch.nn.Sequential(torch.nn.Linear(2 * WIDTH, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, modulus))

    def logits(pairs: Any) -> Any:  # (N, 2) → (N, modulus)
        return head(torch.cat([net[0](pairs[:, 0]), net[1](pairs[:, 1])], dim=-1))

    def accuracy(pairs: Any) -> float:
        with torch.no_grad():
            return float((logits(pairs).argmax(-1) == pairs.sum(-1) % modulus).float().mean())

    weights = [*net.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=weight_decay, betas=(0.9, 0.98))
    curve: list[Point] = []
    try:
        for step in range(1, steps + 1):
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(logits(train), train.sum(-1) % modulus).backward()
            optimizer.step()
            if step % EVERY == 0:
                curve.append(Point(step, accuracy(train), accuracy(test)))
                if curve[-1].dev > 0.98 and grokking_phases(curve).generalised_step:
                    break
    finally:
        torch.set_num_threads(threads)
    return curve


def show(found: dict[str, Any]) -> None:
    """Print about fifteen points of the curve, then the phases."""
    curve = found["curve"]
    for point in curve[:: max(1, len(curve) // 15)]:
        print(f"step {point['step']:>5}   train {point['train']:6.1%}   test {point['dev']:6.1%}")
    for name in ("memorised", "generalised"):
        step = found[f"{name}_step"]
        print(f"{name}: {'no' if step is None else f'step {step}'}")
    print(f"delayed generalisation: {'yes' if found['delayed_generalisation'] else 'no'}")


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weight-decay", type=float, default=1.0, help="1 generalises late, 0 never")
    parser.add_argument("--seed", type=int, default=0, help="of the table's split and of the weights")
    parser.add_argument("--json", action="store_true", help="the phases as JSON")
    args = parser.parse_args()
    found = run(weight_decay=args.weight_decay, seed=args.seed)
    if args.json:
        print(json.dumps({name: value for name, value in found.items() if name != "curve"}))
    else:
        show(found)


if __name__ == "__main__":
    main()

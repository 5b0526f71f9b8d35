"""A training on a card, killed with SIGKILL and gone on with: the same losses? And one that runs out of memory.

    python benchmarks/gpu/resume.py [--kills 3]

A 150-million-parameter shape learns the bytes of Python's standard library, with a checkpoint every half second. Prints
the largest difference between the losses of a training without and one with kills, beside that of two without; then
how a training ends whose card has less memory than it said.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from precision import text_rows
from shapes import build, question_answer

from socratune.config import EnhancedTrainingConfig
from socratune.training import engine, steps
from socratune.training.steps import Hooks

STEPS = 60
CONFIG = EnhancedTrainingConfig(
    per_device_train_batch_size=8, gradient_accumulation_steps=1, num_train_epochs=1, learning_rate=1e-3
)


def train(folder: Path) -> None:
    """In this process; the loss of every step goes to `losses.jsonl`."""
    steps.SAVE_EVERY_S = 0.5
    with (folder / "losses.jsonl").open("a") as stream:

        def step(done: int, _total: int, figures: dict[str, float]) -> None:
            stream.write(json.dumps([done, figures["loss"]]) + "\n")
            stream.flush()

        hooks = Hooks(lambda _model: {}, step)
        engine.train_hf(build("bytes-150m"), text_rows(8 * STEPS, 1024), CONFIG, folder, hooks, seed=0)


def losses_after(kills: int) -> list[float]:
    """Of a training in a process of its own, killed so often at random."""
    draw = random.Random(kills)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--train", folder]
        log = Path(folder) / "losses.jsonl"
        for _ in range(kills):
            process = subprocess.Popen(command)
            before = len(log.read_text().splitlines()) if log.exists() else 0
            while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) <= before):
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 2))
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, check=True)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        print(json.dumps({"kills": kills, "steps_computed": len(lines), "steps": STEPS}), flush=True)
        return [loss for _, loss in sorted(dict(lines).items())]


def out_of_memory() -> None:
    """The card promises more than it gives: half the micro-batch, and on."""
    torch.cuda.set_per_process_memory_fraction(0.25)
    rows = question_answer(32768 * 10, most=2048)
    config = EnhancedTrainingConfig(per_device_train_batch_size=80, gradient_accumulation_steps=1, num_train_epochs=1)
    speeds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        hooks = Hooks(lambda _model: {}, lambda _done, _total, figures: speeds.append(figures["tokens_per_second"]))
        _, state = engine.train_hf(build("llama-3.2-1b"), rows, config, Path(folder), hooks, seed=0)
    print(json.dumps({"tokens_per_s": round(speeds[-1]), **state.engine}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train)
        return
    curves = [losses_after(kills) for kills in (0, 0, options.kills)]
    for name, other in (("without kills, twice", curves[1]), ("with kills", curves[2])):
        apart = max(abs(a - b) for a, b in zip(curves[0], other, strict=True))
        print(json.dumps({"compared": name, "largest_difference": apart, "last_loss": other[-1]}))
    out_of_memory()


if __name__ == "__main__":
    main()

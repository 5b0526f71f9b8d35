"""Several cards of one machine: how much faster, and does a base that fits no card train on all of them?

    python benchmarks/gpu/scaling.py [--only speed,sharded] [--gpus 2] [--output results.jsonl]
    python benchmarks/gpu/scaling.py --tiny        # tiny shapes, processes on the CPU: does it still run?

`speed`: an 8B shape with random weights, r = 16, the very same steps on one card and on all of them; tokens a second of
all cards, by three windows of ten steps after one to warm up. Reading the clock, the cards are otherwise idle.

`sharded`: every process may take `--cap-gib` of its card (14; the weights alone are 15). On one card loading fails; on
all of them the base is spread, and trains.

Both compare the adapters: names, shapes and types of the saved tensors, the PEFT configuration, the largest relative
difference of the weights; and one from several cards is loaded by plain PEFT.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WINDOWS = 3


def train(options: argparse.Namespace, folder: Path) -> None:
    """What each rank does; the leading one leaves `found.json` and `adapter` in the folder."""
    from socratune.backends import ranks

    sharded = options.work == "sharded"
    ranks.join(parallel="sharded" if sharded else "data")
    import torch
    from shapes import build, question_answer

    from socratune.backends import hf
    from socratune.backends.loop import READ_EVERY
    from socratune.config import EnhancedTrainingConfig

    if sharded and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(options.cap_gib * 2**30 / torch.cuda.mem_get_info()[1])
    if sharded:
        model, _ = hf.load(str(options.base), load_in_4bit=False)
    else:
        model = build(options.shape)
    steps = READ_EVERY * (1 if sharded else WINDOWS + 1)
    rows = question_answer(options.step_tokens * steps, most=64 if options.tiny else 2048)
    per_step = len(rows) // steps
    config = EnhancedTrainingConfig(
        per_device_train_batch_size=per_step,
        gradient_accumulation_steps=1,
        num_train_epochs=1,
        gradient_checkpointing=sharded or "auto",
    )
    speeds: list[float] = []
    losses: list[float] = []

    def step(done: int, _total: int, figures: dict[str, float]) -> None:
        losses.append(figures["loss"])
        if done % READ_EVERY == 0:
            speeds.append(figures["tokens_per_second"])

    hooks = hf.Hooks(lambda _model: {}, step)
    most = 4096 if sharded else None  # the arithmetic does not know of the cap
    rows = rows[: per_step * steps]
    model, state = hf.train(model, rows, config, folder / "checkpoints", hooks, seed=0, most_tokens=most)
    if ranks.leads():
        model.save_pretrained(folder / "adapter")
        timed = speeds if sharded else speeds[1:]
        found = {
            "tok_s": round(statistics.harmonic_mean(timed)),
            "low": round(min(timed)),
            "high": round(max(timed)),
            "losses": [losses[0], losses[-1]],
            **state.engine,
        }
        (folder / "found.json").write_text(json.dumps(found))
    ranks.leave()


def measured(options: argparse.Namespace, work: str, count: int, folder: Path) -> dict[str, Any]:
    """One training by so many ranks under torchrun; the end of what it said where it failed."""
    folder.mkdir()
    given = ["--work", work, "--folder", str(folder), "--step-tokens", str(options.step_tokens)]
    given += ["--shape", options.shape, "--base", str(options.base), "--cap-gib", str(options.cap_gib)]
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*started, __file__, *given, *(["--tiny"] if options.tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line: dict[str, Any] = {"work": work, "gpus": count}
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "Error" in line]
        return {**line, "failed": (errors or [done.stderr[-300:]])[0][:200]}
    return {**line, **json.loads((folder / "found.json").read_text())}


def compared(one: Path, other: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Two saved adapters; the second is loaded by plain PEFT."""
    from peft import PeftModel
    from safetensors.torch import load_file
    from shapes import build

    weights = [load_file(each / "adapter" / "adapter_model.safetensors") for each in (one, other)]
    forms = [{name: (tuple(weight.shape), str(weight.dtype)) for name, weight in each.items()} for each in weights]
    configs = [json.loads((each / "adapter" / "adapter_config.json").read_text()) for each in (one, other)]
    for config in configs:
        config["target_modules"].sort()  # a set, in any order
    distance = [float((weights[0][name] - weights[1][name]).norm()) for name in weights[0]]
    length = [float(weight.norm()) for weight in weights[0].values()]
    loaded = PeftModel.from_pretrained(build(options.shape), other / "adapter")
    return {
        "same_form": forms[0] == forms[1] and configs[0] == configs[1],
        "relative_difference": sum(each**2 for each in distance) ** 0.5 / sum(each**2 for each in length) ** 0.5,
        "peft_loads": sum("lora_A" in name for name, _ in loaded.named_parameters()),
    }


def main() -> None:
    """Print one JSON line per training and per comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="speed,sharded")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--shape", default="llama-3.1-8b")
    parser.add_argument("--step-tokens", type=int, default=32768)
    parser.add_argument("--cap-gib", type=float, default=14.0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        train(options, options.folder)
        return
    if options.tiny:
        options.shape, options.step_tokens = "tiny", 512
    with tempfile.TemporaryDirectory() as name:
        options.base = Path(name) / "base"
        for work in options.only.split(","):
            if work == "sharded":
                save = [sys.executable, Path(__file__).with_name("shapes.py"), options.shape, options.base]
                subprocess.run(save, check=True)
            one, several = Path(name) / f"{work}-1", Path(name) / f"{work}-{options.gpus}"
            lines = [measured(options, work, 1, one), measured(options, work, options.gpus, several)]
            if "failed" not in lines[0] | lines[1]:
                lines[1]["times_faster"] = round(lines[1]["tok_s"] / lines[0]["tok_s"], 2)
                lines.append({"work": work, **compared(one, several, options)})
            for line in lines:
                print(json.dumps(line), flush=True)
                if options.output:
                    with options.output.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

"""Several cards of one machine: how much faster, and does a base that fits no card train on all of them?

    python benchmarks/gpu/scaling.py [--only speed,sharded] [--gpus 2] [--windows 3] [--output results.jsonl]
    python benchmarks/gpu/scaling.py --tiny        # tiny shapes, where there is no card on the CPU: does it still run?

`speed`: an 8B shape with random weights, r = 16, the very same steps on one card and on all of them; tokens a second of
all cards, by `--windows` windows of ten steps after one to warm up. Reading the clock, the cards are otherwise idle.

`sharded`: every process may take `--cap-gib` of its card (14; the weights alone are 15). On one card loading fails; on
all of them the base is spread, and trains.

Both load the adapter from several cards by plain PEFT, and compare it with the one from a single card where there is
one: names, shapes and types of the saved tensors, the PEFT configuration, the largest relative difference of the
weights.

What fails says so in its line, with the end of what each process has said, and the next work begins.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TAIL = 4000
"""Characters of what a process that failed has said."""
REASON = re.compile(r"^[\w.]*(Error|Failed|Timeout)\b.*", re.MULTILINE)
HANDED_ON = ("shape", "base", "step_tokens", "cap_gib", "windows", "timeout_s")


def rank(options: argparse.Namespace) -> None:
    """Train; what fails ends this process at once, as an orderly end waits for the others."""
    faulthandler.dump_traceback_later(options.timeout_s, exit=True)
    try:
        train(options, options.folder)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    faulthandler.cancel_dump_traceback_later()


def train(options: argparse.Namespace, folder: Path) -> None:
    """What each rank does; the leading one leaves `found.json` and `adapter` in the folder."""
    from socratune.inference import ranks

    sharded = options.work == "sharded"
    ranks.join_ranks(options.timeout_s, parallel="sharded" if sharded else "data")
    import torch
    from shapes import build, question_answer

    from socratune.config import EnhancedTrainingConfig
    from socratune.inference.load import load_model
    from socratune.training import engine
    from socratune.training.steps import READ_EVERY, Hooks

    if sharded and torch.cuda.is_available():
        share = options.cap_gib * 2**30 / torch.cuda.mem_get_info(0)[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), 0)  # of the one card that this process sees
    if sharded:
        model, _ = load_model(str(options.base), load_in_4bit=False)
    else:
        model = build(options.shape)
    steps = READ_EVERY * (1 if sharded else options.windows + 1)
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

    hooks = Hooks(lambda _model: {}, step)
    most = 2048 if sharded else None  # the arithmetic does not know of the cap
    rows = rows[: per_step * steps]
    model, state = engine.train_hf(model, rows, config, folder / "checkpoints", hooks, seed=0, most_tokens=most)
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
    """One training by so many ranks under torchrun."""
    folder.mkdir()
    here = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(count)]
    logs = ["--redirects", "2", "--log-dir", str(folder / "logs")]
    started = [sys.executable, "-m", "torch.distributed.run", *here, *logs]
    return {"work": work, "gpus": count, **found_by(started, work, folder, options)}


def found_by(start: list[str], work: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What this script leaves in `found.json` when it is started so; if it fails, the end of what each process said."""
    given = ["--work", work, "--folder", str(folder), *(["--tiny"] if options.tiny else [])]
    for name in HANDED_ON:
        given += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    code, said = ended([*start, __file__, *given], options.timeout_s)
    path = folder / "found.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if code == 0 and found:
        return found
    by_rank = {log.parent.name: log.read_text(errors="replace") for log in folder.glob("logs/**/stderr.log")}
    texts = {**dict(sorted(by_rank.items())), "start": said}
    reasons = [*filter(None, map(REASON.search, texts.values()))]
    tails = {name: text[-TAIL:] for name, text in texts.items()}
    return {**found, "failed": reasons[0].group()[:200] if reasons else f"ended with {code}", "stderr": tails}


def ended(command: list[str], timeout_s: int) -> tuple[int | None, str]:
    """Exit code and stderr of a command; it is ended, with None, a minute after its ranks should have ended."""
    environment = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", **os.environ}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", env=environment) as process:
        try:
            said = process.communicate(timeout=timeout_s + 60)[1]
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun then ends its ranks, which a kill would leave behind
            return None, process.communicate()[1]
    return process.returncode, said


def compared(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The adapter in `several`, loaded by plain PEFT, and how far it is from that in `one` where there is one."""
    from peft import PeftModel
    from shapes import build

    one, several = (folder / name / "adapter" for name in ("one", "several"))
    loaded = PeftModel.from_pretrained(build(options.shape), several)
    found = {"peft_loads": sum("lora_A" in name for name, _ in loaded.named_parameters())}
    return {**distance(one, several), **found} if one.exists() else found


def distance(one: Path, other: Path) -> dict[str, Any]:
    """Between two saved adapters."""
    from safetensors.torch import load_file

    weights = [load_file(each / "adapter_model.safetensors") for each in (one, other)]
    forms = [{name: (tuple(weight.shape), str(weight.dtype)) for name, weight in each.items()} for each in weights]
    configs = [json.loads((each / "adapter_config.json").read_text()) for each in (one, other)]
    for config in configs:
        config["target_modules"].sort()  # a set, in any order
    if forms[0] != forms[1] or configs[0] != configs[1]:
        return {"same_form": False}
    apart = [float((weights[0][name] - weights[1][name]).norm()) for name in weights[0]]
    length = [float(weight.norm()) for weight in weights[0].values()]
    relative = sum(each**2 for each in apart) ** 0.5 / sum(each**2 for each in length) ** 0.5
    return {"same_form": True, "relative_difference": relative}


def lines(options: argparse.Namespace, work: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Of each training and of the comparison, as soon as they are known."""
    folder.mkdir()
    if work == "sharded":
        save = [sys.executable, str(Path(__file__).with_name("shapes.py")), options.shape, str(options.base)]
        code, said = ended(save, options.timeout_s)
        if code != 0:
            yield {"work": work, "failed": f"saving the base ended with {code}", "stderr": {"start": said[-TAIL:]}}
            return
    one = measured(options, work, 1, folder / "one")
    yield one
    several = measured(options, work, options.gpus, folder / "several")
    if "tok_s" in one and "tok_s" in several:
        several["times_faster"] = round(several["tok_s"] / one["tok_s"], 2)
    yield several
    if "failed" not in several:
        yield {"work": work, "compared": True, **found_by([sys.executable], "compared", folder, options)}


def main() -> None:
    """Print one JSON line per training and per comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="speed,sharded")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--shape", default="llama-3.1-8b")
    parser.add_argument("--step-tokens", type=int, default=32768)
    parser.add_argument("--windows", type=int, default=3, help="of ten steps, measured after one more; 3")
    parser.add_argument("--cap-gib", type=float, default=14.0)
    parser.add_argument("--timeout-s", type=int, default=1800, help="of one training; it then says where it stood")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work == "compared":
        (options.folder / "found.json").write_text(json.dumps(compared(options.folder, options)))
    elif options.work:
        rank(options)
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Tell of all that is asked for."""
    if options.tiny:
        options.shape, options.step_tokens = "tiny", 512
    with tempfile.TemporaryDirectory() as name:
        options.base = Path(name) / "base"
        for work in options.only.split(","):
            for line in lines(options, work, Path(name) / work):
                print(json.dumps(line), flush=True)
                if options.output:
                    with options.output.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

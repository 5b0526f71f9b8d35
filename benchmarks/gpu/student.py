"""How fast the student in this process decodes on a GPU, and whether it answers as plain `generate` does.

    python benchmarks/gpu/student.py [--shape llama-3.1-8b] [--ways slots,unfused,growing,generate] [--runs 3]
                                     [--drawn] [--equality] [--load-in-4bit]

Random weights from a config, 256 prompts of 64 to 256 tokens, 256 new tokens each. `unfused` is `slots` with the
model's own norms and rotations. Equality is shown on 4 layers of the same width, in float32 and in bf16. Where an
answer first differs, two tokens had nearly the same logit: their distance is given, in standard deviations of the
logits, and beside it what `generate` does to itself when the same prompts come in smaller batches.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch
from shapes import SHAPES, config_of, quantise
from transformers import AutoModelForCausalLM

from socratune.inference.decoding.fusing import Fused
from socratune.inference.decoding.growing import GrowingDecoder
from socratune.inference.decoding.rows import Decoder, DecodingRow
from socratune.inference.decoding.slots import SlotDecoder, slot_bytes
from socratune.llm.base import Sampling

BYTES_PER_SECOND = 4.3e12  # a device-to-device copy on an NVIDIA H200, bytes read and written


def build(shape: str, dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Any:
    """A model of that shape with random weights, in eval mode, that never ends an answer."""
    config = config_of(shape)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    return model


def prompts(count: int) -> list[list[int]]:
    """Random token ids, 64 to 256 of them."""
    lengths = random.Random(0)
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(5, 4000, (lengths.randint(64, 256),), generator=generator).tolist() for _ in range(count)]


def decode(decoder: Decoder, texts: list[list[int]], sampling: Sampling) -> list[list[int]]:
    """The answers, none of which ends before `max_new_tokens`."""
    rows = [DecodingRow(ids, sampling.drawn(at), Future()) for at, ids in enumerate(texts)]
    waiting = list(rows)
    while waiting or decoder.rows:
        for row, new_ids in decoder.step(waiting):
            row.new_ids += new_ids[: sampling.max_new_tokens - len(row.new_ids)]
            row.done = len(row.new_ids) == sampling.max_new_tokens
    return [row.new_ids for row in rows]


def generate(model: Any, texts: list[list[int]], new: int) -> list[list[int]]:
    """The library's greedy answers, all in one batch padded on the left."""
    longest = max(map(len, texts))
    ids = torch.tensor([[0] * (longest - len(text)) + text for text in texts], device="cuda")
    mask = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts], device="cuda")
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=mask, pad_token_id=0, max_new_tokens=new, do_sample=False)
    return out[:, longest:].tolist()


def way(name: str, model: Any, sampling: Sampling) -> Callable[[list[list[int]]], list[list[int]]]:
    """Texts to answers, in one of the ways."""
    if name == "generate":
        return lambda texts: generate(model, texts, sampling.max_new_tokens)
    if name == "growing":
        return lambda texts: decode(GrowingDecoder(model, pad_id=0, max_batch=256), texts, sampling)
    if name == "unfused":
        Fused._look_at = lambda self, model: None  # type: ignore[method-assign]
    cost = slot_bytes(model)
    slots = SlotDecoder(model, pad_id=0, max_batch=256, position_bytes=cost)
    return lambda texts: decode(slots, texts, sampling)


def timed(name: str, model: Any, runs: int, sampling: Sampling) -> dict[str, Any]:
    """Seconds of the first call and tokens per second of those after it."""
    texts, seconds, tokens = prompts(256), [], 0
    fuses = Fused._look_at
    answer = way(name, model, sampling)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(runs + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        tokens = sum(map(len, answer(texts)))
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    Fused._look_at = fuses  # type: ignore[method-assign]
    rates = [round(tokens / each) for each in seconds[1:]]
    gib = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    return {"way": name, "first_s": round(seconds[0], 2), "tokens_per_s": rates, "peak_gib": gib}


def bound_ms(model: Any, texts: list[list[int]], new: int) -> float:
    """Milliseconds a step takes that reads every weight and every kept key and value once."""
    config = model.config
    weights = sum(p.nbytes for p in model.parameters())
    if not config.tie_word_embeddings:
        weights -= model.get_input_embeddings().weight.nbytes  # looked up, not read
    per_token = (
        config.num_hidden_layers
        * 2
        * config.num_key_value_heads
        * (config.head_dim or config.hidden_size // config.num_attention_heads)
        * 2
    )
    kept = sum(len(text) + new / 2 for text in texts) * per_token
    return (weights + kept) / BYTES_PER_SECOND * 1e3


def equality(shape: str, dtype: torch.dtype) -> list[dict[str, Any]]:
    """How many of 64 greedy answers of 64 tokens are `generate`'s, and how near a tie the others first differ at."""
    model, texts = build(shape, dtype, num_hidden_layers=4, initializer_range=0.05), prompts(64)
    expected = generate(model, texts, 64)
    found = {n: way(n, model, Sampling(max_new_tokens=64))(texts) for n in ("slots", "growing")}
    found["generate, 16 at a time"] = [
        row for at in range(0, 64, 16) for row in generate(model, texts[at : at + 16], 64)
    ]
    results = []
    for name, answers in found.items():
        gaps = [gap(model, *each) for each in zip(texts, answers, expected, strict=True)]
        unlike = [each for each in gaps if each is not None]
        result = {"way": name, "dtype": str(dtype).removeprefix("torch."), "same_of_64": 64 - len(unlike)}
        results.append({**result, "widest_gap": round(max(unlike, default=0.0), 6)})
    return results


@torch.inference_mode()
def gap(model: Any, text: list[int], answer: list[int], expected: list[int]) -> float | None:
    """How far apart the logits were where two answers first differ, in standard deviations; None: nowhere."""
    at = next((at for at, (a, b) in enumerate(zip(answer, expected, strict=True)) if a != b), None)
    if at is None:
        return None
    logits = model(torch.tensor([text + expected[:at]], device="cuda"), logits_to_keep=1).logits[0, -1].float()
    return float((logits[expected[at]] - logits[answer[at]]).abs() / logits.std())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--ways", default="slots,unfused,growing,generate")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--drawn", action="store_true", help="temperature 0.7")
    parser.add_argument("--equality", action="store_true")
    parser.add_argument("--load-in-4bit", action="store_true")
    args = parser.parse_args()
    if args.equality:
        for dtype in (torch.float32, torch.bfloat16):
            for result in equality(args.shape, dtype):
                print(json.dumps(result), flush=True)
    model = build(args.shape)
    if args.load_in_4bit:
        quantise(model)
    sampling = Sampling(0.7, max_new_tokens=256) if args.drawn else Sampling(max_new_tokens=256)
    print(json.dumps({"shape": args.shape, "bound_ms_a_step": round(bound_ms(model, prompts(256), 256), 2)}))
    for name in args.ways.split(","):
        print(json.dumps(timed(name, model, args.runs, sampling)), flush=True)


if __name__ == "__main__":
    main()

"""Makes the embedded demo base from nothing: tokenizer, generated conversations, pre-training, model folder.

    python scripts/pretrain_demo_base.py OUT --seed 4              # the shipped base: 8,000 steps; meant for a GPU
    python scripts/pretrain_demo_base.py OUT --preset cpu          # from nothing on one CPU core: only to try it
    python scripts/pretrain_demo_base.py --check-leak 200000       # only the leak check

Measured: 250 M tokens in 316 s on one H200 beside two other seeds with five generator processes each, which is what
it waits for. Of the seeds 3, 4 and 5, `scripts/accept_demo_base.py --lora` accepts 4; seed 3 misses one unseen hint
wording (70-78 % of 80) and its adapter forgets sums (79 %), seed 5's adapter misses one sum of 48.
The CPU preset (1,760 steps, 6.9 M tokens, 548 s on one core) gave a half-able base with an earlier mixture: 10 % right
without and 50 % with a hint. Ten CPU minutes do not make this base.

The text is generated, one shard after the other, by worker processes; a shard's content depends on `--seed` and
its number alone, so the data and the number of steps are the same on every machine and for any number of workers.
The tokenizer is bit-reproducible. The weights are not across devices or library versions (kernels add in
another order): repeat the acceptance table, not the checksum.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the workers are the parallelism

import numpy as np
import torch
from demo_task import MIX, MIX_SHORT, Turn, conversation, count_leaks, leaks
from demo_wordings import DEFAULT_SYSTEM, FACTS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
VOCABULARY = 512
ROW = 256
"""Tokens per packed row. The longest kind of conversation, two hints and three attempts, has about 230."""

SHARD_STEPS = 8
"""Steps per shard file: large enough that handing one over costs nothing beside the steps."""

IGNORED = 255
"""Document number of padding inside a packed row."""

DECISION_WEIGHT = 4
"""Loss weight of the one token that decides between guessing and working step by step (see `encode`)."""

PRESETS = {
    # rows per step, steps; a row holds two to three conversations
    "gpu": {"rows": 128, "steps": 8000},
    "cpu": {"rows": 16, "steps": 1760},
}
SHORT_SHARE = 0.2
"""Share of the steps that see only short conversations (`MIX_SHORT`)."""

MUON_RATE, ADAM_RATE = 5e-3, 3e-3
WARM_UP_STEPS = 100
DECAY_SHARE = 0.5
"""The learning rate falls linearly to zero over this last share of the steps."""

CONTINUED_RATE = 0.3
"""Factor on the learning rates where training continues from an earlier base (`--init`)."""

INIT_STD = 0.06
"""The library's default of 0.02 is far too small for so narrow a model: it does not start to learn."""


# -------- tokenizer
def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 512 tokens in which every digit is a token, trained on the generator's own text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(seed)
    texts = [turn.content for _ in range(12000) for turn in conversation(rng, MIX)]
    texts += ["system\n", "user\n", "assistant\n", DEFAULT_SYSTEM] * 2000
    texts += [text for question, answer, _ in FACTS for text in (question, answer)] * 4
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START, END],
        model_max_length=512,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


class Encoder:
    """Conversations to token numbers and loss weights, as the chat template would render them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.headers = {role: self._ids(f"{START}{role}\n") for role in ("system", "user", "assistant")}
        self.end = [*self._ids(END), *self._ids("\n")]
        self.times = self._ids(" *")[0]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode(self, conversations: list[list[Turn]]) -> list[tuple[list[int], list[int]]]:
        """Token numbers and weights; the weight is 0 where no loss is taken.

        Both kinds of answer begin alike, "47 * 8", and part at the next token: "3" guesses, "0" goes step by step.
        That token carries the whole effect of a hint, one of about thirty, hence `DECISION_WEIGHT`.
        """
        contents = [turn.content for turns in conversations for turn in turns]
        encoded = iter(self.tokenizer.encode_batch_fast(contents, add_special_tokens=False))
        result = []
        for turns in conversations:
            ids: list[int] = []
            weights: list[int] = []
            for turn in turns:
                header, body = self.headers[turn.role], next(encoded).ids
                ids += [*header, *body, *self.end]
                weight = [int(turn.trained)] * (len(body) + 1)
                if turn.trained and self.times in body:
                    decision = body.index(self.times) + 3  # " *", " ", first digit, and then the token that decides
                    weight[decision] = DECISION_WEIGHT
                weights += [0] * len(header) + weight + [0]
            result.append((ids, weights))
        return result


# -------- packed shards
def pack(documents: Iterator[tuple[list[int], list[int]]], rows: int) -> tuple[np.ndarray, ...]:
    """First-fit packing of whole documents: token numbers, weights, document numbers, each [rows, ROW]."""
    ids = np.zeros((rows, ROW), np.uint16)
    weights = np.zeros((rows, ROW), np.uint8)
    owners = np.full((rows, ROW), IGNORED, np.uint8)
    free, used, begin = [ROW] * rows, [0] * rows, 0
    while begin < rows:
        tokens, loss = next(documents)
        if len(tokens) > ROW:
            continue
        window = range(begin, min(begin + 24, rows))  # a few open rows are enough to fill them well
        row = next((r for r in window if free[r] >= len(tokens)), None)
        if row is None:
            begin += 1
            continue
        at = ROW - free[row]
        ids[row, at : at + len(tokens)] = tokens
        weights[row, at : at + len(tokens)] = loss
        owners[row, at : at + len(tokens)] = used[row]
        used[row] += 1
        free[row] -= len(tokens)
        if free[row] < 24:  # nothing is that short
            free[row] = 0
        while begin < rows and free[begin] == 0:
            begin += 1
    order = np.random.default_rng(int(ids[0, :8].sum())).permutation(rows)  # first-fit sorts by length; undo that
    return ids[order], weights[order], owners[order]


@functools.cache
def _worker_encoder(path: str) -> Encoder:
    return Encoder(Tokenizer.from_file(path))


def write_shard(job: tuple[int, int, bool, int, str, str]) -> str:
    """Generates, encodes, packs and stores one shard; returns its path. Runs in a worker process."""
    number, seed, short, rows, tokenizer_path, folder = job
    rng = random.Random(seed * 1_000_003 + number)
    encoder = _worker_encoder(tokenizer_path)

    def documents() -> Iterator[tuple[list[int], list[int]]]:
        while True:
            yield from encoder.encode([conversation(rng, MIX_SHORT if short else MIX) for _ in range(128)])

    path = f"{folder}/{number}.npy"
    np.save(path, np.stack([part.astype(np.uint16) for part in pack(documents(), rows)]))
    return path


def batches(args: argparse.Namespace, tokenizer_path: str) -> Iterator[torch.Tensor]:
    """The steps' data in order, [3, rows, ROW]: token numbers, weights, document numbers."""
    shards = math.ceil(args.steps / SHARD_STEPS)
    short_shards = 0 if args.init else SHORT_SHARE * shards
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with tempfile.TemporaryDirectory() as folder, context.Pool(args.workers) as pool:
        jobs = (
            (n, args.seed, n < short_shards, args.rows * SHARD_STEPS, tokenizer_path, folder) for n in range(shards)
        )
        pending: deque = deque()
        for _ in range(shards):
            while len(pending) < 4 * args.workers and (job := next(jobs, None)):
                pending.append(pool.apply_async(write_shard, (job,)))
            path = pending.popleft().get()
            shard = torch.from_numpy(np.load(path).astype(np.int64))
            Path(path).unlink()
            yield from shard.split(args.rows, dim=1)


# -------- model and optimizer
def build_model(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of the standard shape, randomly initialised."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden,
        intermediate_size=3 * args.hidden,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 32,
        num_key_value_heads=args.hidden // 32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=INIT_STD,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(args.seed)
    if args.init:
        return LlamaForCausalLM.from_pretrained(args.init, dtype=torch.float32)
    return LlamaForCausalLM(config)


def loss_of(model: LlamaForCausalLM, batch: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross-entropy of one batch [3, rows, ROW]; no conversation of a row sees another."""
    ids, weights, owners = batch
    same = owners[:, None, :, None] == owners[:, None, None, :]
    causal = torch.ones(ROW, ROW, dtype=torch.bool, device=ids.device).tril()
    hidden = model.model(input_ids=ids, attention_mask=same & causal, use_cache=False).last_hidden_state
    logits = functional.linear(hidden[:, :-1], model.lm_head.weight).float()
    losses = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten().float()
    return (losses * weight).sum() / weight.sum()


class Muon:
    """Muon (momentum, then orthogonalised updates) for the weight matrices, batched over equal shapes.

    `torch.optim.Muon` goes matrix by matrix, which on a GPU takes longer than the model itself at this size.
    The update's root mean square is scaled to 0.2, so that the learning rate means what it means for Adam.
    """

    MOMENTUM, DECAY, RMS = 0.95, 0.01, 0.2

    def __init__(self, matrices: list[torch.nn.Parameter]) -> None:
        self.groups: dict[tuple[int, ...], list[torch.nn.Parameter]] = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(matrix.shape), []).append(matrix)
        self.momenta = {
            shape: torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self.groups.items()
        }

    @staticmethod
    def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
        """Newton-Schulz iteration, [n, rows, columns]; the coefficients are the usual ones of Muon."""
        wide = matrices.size(-2) > matrices.size(-1)
        x = matrices.mT if wide else matrices
        x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
        for _ in range(5):
            gram = x @ x.mT
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return x.mT if wide else x

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update with the given learning rate."""
        for shape, group in self.groups.items():
            gradient = torch.stack([matrix.grad for matrix in group])
            momentum = self.momenta[shape].lerp_(gradient, 1 - self.MOMENTUM)
            update = self.orthogonalise(gradient.lerp(momentum, self.MOMENTUM))
            torch._foreach_mul_(group, 1 - rate * self.DECAY)
            torch._foreach_add_(group, list(update.unbind()), alpha=-rate * self.RMS * math.sqrt(max(shape)))


def schedule(step: int, steps: int) -> float:
    """Learning rate factor: short warm-up, constant, linear decay."""
    return min(1.0, (step + 1) / WARM_UP_STEPS, (steps - step) / (DECAY_SHARE * steps))


def train(model: LlamaForCausalLM, args: argparse.Namespace, tokenizer_path: str) -> dict[str, float]:
    """Runs all steps; returns what is worth reporting (times in seconds)."""
    device = torch.device(args.device)
    data = batches(args, tokenizer_path)
    first = next(data)  # forks the workers before anything touches the GPU
    torch.set_float32_matmul_precision("high")
    model.to(device).train()
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim == 1 or "embed" in name]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=device.type == "cuda")
    compute = torch.compile(loss_of, dynamic=False) if device.type == "cuda" else loss_of
    tokens, begin, waited = 0, time.time(), 0.0
    for step in range(args.steps):
        before = time.time()
        batch = first if step == 0 else next(data)
        waited += time.time() - before
        tokens += int((batch[2] != IGNORED).sum())
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = compute(model, batch.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        factor = schedule(step, args.steps) * (CONTINUED_RATE if args.init else 1.0)
        adam.param_groups[0]["lr"] = ADAM_RATE * factor
        muon.step(MUON_RATE * factor)
        adam.step()
        model.zero_grad(set_to_none=True)
        if step % max(1, args.steps // 20) == 0 or step == args.steps - 1:
            seconds = time.time() - begin
            print(f"{seconds:6.0f} s  step {step}  loss {loss.item():.4f}  waited {waited:.0f} s", flush=True)
    data.close()
    return {"steps": args.steps, "tokens": tokens, "seconds": round(time.time() - begin), "loss": loss.item()}


# -------- output
def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """The model folder: bf16 weights, greedy generation settings, tokenizer with its chat template."""
    model.to("cpu", torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=96, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(out)
    for loading_option in ("is_local", "local_files_only"):  # left by `--init`; no property of the tokenizer
        tokenizer.init_kwargs.pop(loading_option, None)
    tokenizer.save_pretrained(out)


def check_template(tokenizer: PreTrainedTokenizerFast, encoder: Encoder, seed: int) -> None:
    """The training text must be exactly what the chat template renders."""
    rng = random.Random(seed)
    for _ in range(200):
        turns = conversation(rng, MIX)
        chat = [{"role": turn.role, "content": turn.content} for turn in turns]
        rendered = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False).input_ids
        if rendered != encoder.encode([turns])[0][0]:
            raise SystemExit(f"The chat template renders another text than the encoder: {chat}")
        if found := next(leaks(turns), None):
            raise SystemExit(f"Leak: {found}")


def parse_arguments() -> argparse.Namespace:
    """The command line; a preset gives rows and steps unless they are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, help="model folder to write")
    parser.add_argument("--init", type=Path, help="continue from this base instead of from nothing")
    parser.add_argument("--preset", choices=PRESETS, default="gpu")
    parser.add_argument("--rows", type=int, help=f"rows of {ROW} tokens per step")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--check-leak", type=int, metavar="N", help="only count leaks in N conversations")
    args = parser.parse_args()
    for name, value in PRESETS[args.preset].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.out is None and args.check_leak is None:
        parser.error("name the folder to write, or --check-leak N")
    return args


def main() -> int:
    """Command line entry; exit code 1 if a leak was found."""
    args = parse_arguments()
    if args.check_leak is not None:
        found = count_leaks(args.check_leak, args.seed)
        print(f"{found} of {args.check_leak} conversations hold a reserved product or sum")
        return int(found > 0)
    tokenizer = AutoTokenizer.from_pretrained(args.init) if args.init else build_tokenizer(args.seed)
    check_template(tokenizer, Encoder(tokenizer.backend_tokenizer), args.seed)
    model = build_model(args, tokenizer)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(tokenizer)} tokens, on {args.device}")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/tokenizer.json"
        tokenizer.backend_tokenizer.save(path)
        report = train(model, args, path)
    save(model, tokenizer, args.out)
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())

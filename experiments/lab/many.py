"""Many adapters of the laboratory's base at once, trained side by side.

One adapter of so small a model leaves a card idle, and a curve of a dozen arms, six steps and five seeds wants
hundreds. Here all of them are one batch: each has its own rows, learning rate, length of schedule and rank, and none
sees another. What is computed for one is what PEFT and the product's loop compute (`test_many.py`): LoRA on the
seven matrices of every layer, AdamW without decay, warm-up and cosine, clipped gradients, the mean over the trained
tokens of a step.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from asking import Base, Ids, Merged, Name, names, rotated
from model import HEAD_WIDTH, HEADS, LAYERS, varlen_attention
from torch import Tensor
from torch.nn import functional

Document = tuple[Ids, Ids]
"""Token numbers, and 1 where a token carries loss."""
ROWS_A_STEP, WARM_UP, CLIP = 16, 0.05, 1.0
LONGEST_DOCUMENT = 512
BLOCK = 256
"""A step's tokens of a group are padded to a multiple of this."""
ALPHA = 32


# -------- adapters
@dataclass(slots=True)
class Adapters:
    """G adapters: `a` `(G, r, in)`, `b` `(G, out, r)` by matrix, float32; a smaller rank has rows of zeros.

    Attributes:
        scale: alpha over rank, `(G, 1, 1)`.
    """

    a: dict[Name, Tensor]
    b: dict[Name, Tensor]
    scale: Tensor

    @classmethod
    def fresh(cls, base: Base, seeds: Sequence[int], ranks: Sequence[int]) -> Adapters:
        """As PEFT begins: `a` uniform within one over the root of its inputs, `b` zero."""
        a: dict[Name, list[Tensor]] = {name: [] for name in names()}
        most = max(ranks)
        for seed, rank in zip(seeds, ranks, strict=True):
            generator = torch.Generator().manual_seed(seed)
            for name, made in a.items():
                inputs = base.matrix(name).shape[1]
                drawn = (torch.rand(rank, inputs, generator=generator) * 2 - 1) / math.sqrt(inputs)
                made.append(functional.pad(drawn, (0, 0, 0, most - rank)))
        scale = torch.tensor([ALPHA / rank for rank in ranks], device=base.device).view(-1, 1, 1)
        return cls(
            {name: torch.stack(made).to(base.device) for name, made in a.items()},
            {name: torch.zeros(len(seeds), base.matrix(name).shape[0], most, device=base.device) for name in a},
            scale,
        )

    def parameters(self) -> list[Tensor]:
        """All of them."""
        return [*self.a.values(), *self.b.values()]

    def merged(self, base: Base) -> Merged:
        """The base with each adapter added, for asking."""

        def matrix(name: Name) -> Tensor:
            added = self.scale * (self.b[name] @ self.a[name])
            return (base.matrix(name).float() + added).to(base.embedding.dtype)

        return Merged.of(base, matrix)


# -------- training
@dataclass(frozen=True, slots=True)
class Task:
    """One adapter's training: its documents, how fast, how often, from which seed."""

    documents: Sequence[Document]
    learning_rate: float
    steps: int
    seed: int = 0
    rank: int = 16

    @property
    def key(self) -> int:
        """The same for the same training."""
        documents = tuple((tuple(ids), tuple(marks)) for ids, marks in self.documents)
        return hash((documents, self.learning_rate, self.steps, self.seed, self.rank))

    def batches(self) -> Iterator[list[Document]]:
        """The rows of each step; an order of its own each epoch."""
        rng = random.Random(self.seed)
        left = self.steps
        while left:
            order = rng.sample(range(len(self.documents)), len(self.documents))
            for at in range(0, len(order), ROWS_A_STEP):
                if left:
                    left -= 1
                    yield [self.documents[number] for number in order[at : at + ROWS_A_STEP]]

    def rate(self, step: int) -> float:
        """Warm-up, then a cosine to zero; 0 behind the last step."""
        if step >= self.steps:
            return 0.0
        warm = max(1, round(WARM_UP * self.steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))


@dataclass(frozen=True, slots=True)
class Packed:
    """Documents of G groups side by side: ids, loss, positions `(G, N)`.

    Attributes:
        offsets: where each document begins in `(G * N)`, and the end; `bounds` is the same on the device.
    """

    ids: Tensor
    loss: Tensor
    positions: Tensor
    offsets: list[int]
    bounds: Tensor

    @classmethod
    def of(cls, groups: Sequence[Sequence[Document]], device: torch.device) -> Packed:
        """What is too short is filled with documents of padding, so that every group has as many tokens."""
        sums = [sum(len(ids) for ids, _ in documents) for documents in groups]
        room = -(-max(1, *sums) // BLOCK) * BLOCK
        ids, loss, positions, offsets = [], [], [], [0]
        for documents, used in zip(groups, sums, strict=True):
            fill = [min(LONGEST_DOCUMENT, room - at) for at in range(used, room, LONGEST_DOCUMENT)]
            whole = [*documents, *(([0] * length, [0] * length) for length in fill)]
            for tokens, marks in whole:
                ids += tokens
                loss += marks
                positions += range(len(tokens))
                offsets.append(offsets[-1] + len(tokens))
        shape = (len(groups), room)
        tensors = (torch.tensor(part, device=device).view(shape) for part in (ids, loss, positions))
        return cls(*tensors, offsets, torch.tensor(offsets, dtype=torch.int32, device=device))


Attend = Callable[[Tensor, Tensor, Tensor, Packed], Tensor]
Linear = Callable[[Tensor, Name], Tensor]


def by_document(q: Tensor, k: Tensor, v: Tensor, packed: Packed) -> Tensor:
    """Causal attention of each document by itself, `(T, H, D)`: on a processor that is the cheapest way."""
    sizes = [end - begin for begin, end in pairwise(packed.offsets)]
    parts = [
        functional.scaled_dot_product_attention(*(each.transpose(0, 1)[None] for each in document), is_causal=True)[0]
        for document in zip(q.split(sizes), k.split(sizes), v.split(sizes), strict=True)
    ]
    return torch.cat([part.transpose(0, 1) for part in parts])


def attention_for(device: torch.device) -> Attend:
    """Packed attention of this device."""
    if device.type != "cuda":
        return by_document
    fast = varlen_attention(LONGEST_DOCUMENT)

    return lambda q, k, v, packed: fast(q, k, v, packed.bounds)


def hidden(base: Base, packed: Packed, linear: Linear, attend: Attend) -> Tensor:
    """`(G, N, C)` behind the last norm."""
    x = functional.embedding(packed.ids, base.embedding)
    cosine, sine = (part.flatten(0, 1)[:, None] for part in base.rotation(packed.positions))
    shape = x.shape
    for layer in range(LAYERS):
        y = base.normed(x, f"model.layers.{layer}.input_layernorm.weight")
        q, k, v = (linear(y, (layer, f"{part}_proj")).reshape(-1, HEADS, HEAD_WIDTH) for part in "qkv")
        q, k = rotated(q, cosine, sine), rotated(k, cosine, sine)
        x = x + linear(attend(q, k, v, packed).reshape(shape), (layer, "o_proj"))
        y = base.normed(x, f"model.layers.{layer}.post_attention_layernorm.weight")
        gated = functional.silu(linear(y, (layer, "gate_proj"))) * linear(y, (layer, "up_proj"))
        x = x + linear(gated, (layer, "down_proj"))
    return base.normed(x, "model.norm.weight")


def with_adapters(base: Base, adapters: Adapters) -> Linear:
    """The adapted product of every group; the base's weights get no gradient."""

    def linear(x: Tensor, name: Name) -> Tensor:
        a, b = (part[name].to(x.dtype) for part in (adapters.a, adapters.b))
        low = x @ a.mT
        return x @ base.matrix(name).mT + (low * adapters.scale.to(x.dtype)) @ b.mT

    return linear


def losses(base: Base, packed: Packed, linear: Linear, attend: Attend) -> Tensor:
    """`(G,)`: the mean over each group's trained tokens; 0 where it has none."""
    states = hidden(base, packed, linear, attend)[:, :-1]
    marked = packed.loss[:, 1:].bool()
    logits = functional.linear(states[marked], base.embedding).float()
    each = functional.cross_entropy(logits, packed.ids[:, 1:][marked], reduction="none")
    group = marked.nonzero()[:, 0]
    total = torch.zeros(len(marked), device=each.device).index_add(0, group, each)
    return total / marked.sum(1).clamp(min=1)


def train(base: Base, tasks: Sequence[Task]) -> Adapters:
    """Train an adapter for each task, all at once."""
    adapters = Adapters.fresh(base, [task.seed for task in tasks], [task.rank for task in tasks])
    weights = adapters.parameters()
    for weight in weights:
        weight.requires_grad_()
    linear, attend = with_adapters(base, adapters), attention_for(base.device)
    first = [torch.zeros_like(weight) for weight in weights]
    second = [torch.zeros_like(weight) for weight in weights]
    batches = [task.batches() for task in tasks]
    for step in range(max(task.steps for task in tasks)):
        packed = Packed.of([next(batch, []) for batch in batches], base.device)
        gradients = torch.autograd.grad(losses(base, packed, linear, attend).sum(), weights)
        rates = torch.tensor([task.rate(step) for task in tasks], device=base.device).view(-1, 1, 1)
        with torch.no_grad():
            adam(weights, list(gradients), first, second, rates, step + 1)
    for weight in weights:
        weight.requires_grad_(False)
    return adapters


def adam(
    weights: list[Tensor], gradients: list[Tensor], first: list[Tensor], second: list[Tensor], rates: Tensor, step: int
) -> None:
    """One step of AdamW without decay for every group; each group's gradient is clipped by itself."""
    squares = torch.stack([gradient.square().sum((1, 2)) for gradient in gradients]).sum(0)
    clip = (CLIP / (squares.sqrt() + 1e-6)).clamp(max=1.0).view(-1, 1, 1)
    torch._foreach_mul_(gradients, [clip] * len(gradients))
    torch._foreach_lerp_(first, gradients, 0.1)
    torch._foreach_mul_(second, 0.999)
    torch._foreach_addcmul_(second, gradients, gradients, 0.001)
    roots = torch._foreach_sqrt(second)
    torch._foreach_div_(roots, math.sqrt(1 - 0.999**step))
    torch._foreach_add_(roots, 1e-8)
    moves = torch._foreach_div(first, roots)
    torch._foreach_mul_(moves, [rates / (1 - 0.9**step)] * len(moves))
    torch._foreach_sub_(weights, moves)


@torch.no_grad()
def log_probabilities(base: Base, documents: Sequence[Document], at_once: int = 64) -> list[list[float]]:
    """Of every marked token of each document, by the base."""
    attend = attention_for(base.device)
    found = []
    for at in range(0, len(documents), at_once):
        some = documents[at : at + at_once]
        packed = Packed.of([some], base.device)
        states = hidden(base, packed, lambda x, name: x @ base.matrix(name).mT, attend)[0, :-1]
        marked = packed.loss[0, 1:].bool()
        logits = functional.linear(states[marked], base.embedding).float().log_softmax(-1)
        each = logits.gather(1, packed.ids[0, 1:][marked][:, None])[:, 0].tolist()
        for _, marks in some:
            count = sum(marks)
            found.append(each[:count])
            each = each[count:]
    return found

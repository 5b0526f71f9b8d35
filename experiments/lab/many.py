"""Many adapters of the laboratory's base at once: trained side by side, and asked side by side.

One adapter of so small a model leaves a card idle, and a curve of eleven arms, six steps and five seeds wants
hundreds. Here all of them are one batch: each has its own rows, learning rate, length of schedule and rank, and none
sees another. What is computed for one is what PEFT and the product's loop compute (`tests/test_many.py`): LoRA on the
seven matrices of every layer, AdamW without decay, warm-up and cosine, clipped gradients, the mean over the trained
tokens of a step.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from model import EPSILON, HEAD_WIDTH, HEADS, LAYERS, LONGEST, ROPE_BASE, WIDTH, varlen_attention
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

Ids = list[int]
Document = tuple[Ids, Ids]
"""Token numbers, and 1 where a token carries loss."""
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ROWS_A_STEP, WARM_UP, CLIP = 16, 0.05, 1.0
LONGEST_DOCUMENT = 512
BLOCK = 256
"""A step's tokens of a group are padded to a multiple of this."""
LOOK_EVERY = 12
"""Decoded tokens between two looks at which answers have ended."""
ALIGNED = 16
"""Positions are looked at in multiples of this, as the kernels want them."""
ALPHA = 32

Name = tuple[int, str]
"""(layer, matrix)."""


@dataclass(frozen=True, slots=True)
class Base:
    """The frozen weights by transformers' names, in float32 on a processor and in bfloat16 on CUDA."""

    weights: dict[str, Tensor]
    device: torch.device

    @classmethod
    def load(cls, folder: Path, device: str) -> Base:
        """From a model folder."""
        where = torch.device(device)
        torch.backends.cuda.enable_cudnn_sdp(False)  # it plans every new shape anew, which takes longer than it saves
        dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
        loaded = load_file(folder / "model.safetensors")
        return cls({name: value.to(where, dtype) for name, value in loaded.items()}, where)

    def matrix(self, name: Name) -> Tensor:
        """`(out, in)`."""
        layer, matrix = name
        part = "self_attn" if matrix[0] in "qkvo" else "mlp"
        return self.weights[f"model.layers.{layer}.{part}.{matrix}.weight"]

    @property
    def embedding(self) -> Tensor:
        """`(V, C)`, also the output."""
        return self.weights["model.embed_tokens.weight"]

    def normed(self, x: Tensor, name: str) -> Tensor:
        """Root mean square norm."""
        return functional.rms_norm(x, x.shape[-1:], self.weights[name], EPSILON)

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each `(*positions.shape, D)`."""
        inverse = ROPE_BASE ** (-torch.arange(0, HEAD_WIDTH, 2, device=self.device).float() / HEAD_WIDTH)
        angles = (positions.float()[..., None] * inverse).repeat(*[1] * positions.ndim, 2)
        dtype = self.embedding.dtype
        return angles.cos().to(dtype), angles.sin().to(dtype)


def names() -> list[Name]:
    """All adapted matrices."""
    return [(layer, matrix) for layer in range(LAYERS) for matrix in MATRICES]


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding over the last axis."""
    left, right = x.chunk(2, -1)
    return x * cosine + torch.cat([-right, left], -1) * sine


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


# -------- asking
@dataclass(frozen=True, slots=True)
class Merged:
    """G models: the base with adapters added, `(G, out, in)` by layer and part; the bare base has G = 1.

    Matrices with one input are one: `qkv`, `o`, `gate_up`, `down`.
    """

    base: Base
    matrices: dict[Name, Tensor]

    @classmethod
    def of(cls, base: Base, matrix: Callable[[Name], Tensor]) -> Merged:
        """From each matrix of every group, `(G, out, in)`."""
        joined = {"qkv": MATRICES[:3], "o": MATRICES[3:4], "gate_up": MATRICES[4:6], "down": MATRICES[6:]}
        return cls(
            base,
            {
                (layer, name): torch.cat([matrix((layer, part)) for part in parts], 1)
                for layer in range(LAYERS)
                for name, parts in joined.items()
            },
        )

    @classmethod
    def bare(cls, base: Base) -> Merged:
        """The base alone."""
        return cls.of(base, lambda name: base.matrix(name)[None])

    @property
    def count(self) -> int:
        """G."""
        return len(next(iter(self.matrices.values())))

    def linear(self, x: Tensor, layer: int, part: str) -> Tensor:
        """`(G, N, in)` → `(G, N, out)`."""
        return x @ self.matrices[layer, part].mT

    def fed(self, x: Tensor, layer: int) -> Tensor:
        """What the feed-forward part adds."""
        y = self.base.normed(x, f"model.layers.{layer}.post_attention_layernorm.weight")
        gate, up = self.linear(y, layer, "gate_up").chunk(2, -1)
        return self.linear(functional.silu(gate) * up, layer, "down")

    def heads(self, x: Tensor, layer: int, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `(G, N, H, D)`; the rotation is `(G or 1, N, D)`."""
        y = self.base.normed(x, f"model.layers.{layer}.input_layernorm.weight")
        qkv = self.linear(y, layer, "qkv").view(*x.shape[:2], 3, HEADS, HEAD_WIDTH)
        turned = rotated(qkv[:, :, :2], *(part[:, :, None, None] for part in rotation))
        return turned[:, :, 0], turned[:, :, 1], qkv[:, :, 2]


@dataclass(frozen=True, slots=True)
class Manner:
    """How answers are drawn: temperature 0 takes the likeliest token."""

    temperature: float
    end: int
    seed: int = 0
    most: int = 200
    at_once: int = 256
    """Answers decoded at once, over all groups."""


@torch.no_grad()
def ask(models: Merged, prompts: Sequence[Ids], samples: int, manner: Manner) -> list[list[list[Ids]]]:
    """Every model's answers to every prompt: `[group][prompt][sample]` → token numbers without the end.

    An answer that is cut off has `most` of them.
    """
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    rows = max(1, manner.at_once // (models.count * samples))
    found: list[list[list[Ids]]] = [[[] for _ in prompts] for _ in range(models.count)]
    generator = torch.Generator(models.base.device).manual_seed(manner.seed)
    for begin in range(0, len(order), rows):
        some = order[begin : begin + rows]
        decoded = _decoded(models, [prompts[at] for at in some], samples, manner, generator)
        for group, answers in enumerate(decoded):
            for place, at in enumerate(some):
                found[group][at] = answers[place * samples : (place + 1) * samples]
    return found


@dataclass(slots=True)
class _State:
    """R rows of every group in flight: keys and values `(G, R, 2, H, T, D)` by layer; the others are `(G, R)`.

    Attributes:
        reach: no position is behind it.
        owner: which answer a row is.
    """

    cache: list[Tensor]
    reach: int
    positions: Tensor
    tokens: Tensor
    owner: Tensor
    done: Tensor

    def keep(self, chosen: Tensor) -> None:
        """Go on with these rows, `(G, R')`."""
        groups, rows = self.tokens.shape
        flat = (chosen + torch.arange(groups, device=chosen.device)[:, None] * rows).flatten()
        for layer, part in enumerate(self.cache):
            self.cache[layer] = part.flatten(0, 1).index_select(0, flat).view(groups, -1, *part.shape[2:])
        self.positions, self.tokens, self.owner, self.done = (
            part.gather(1, chosen) for part in (self.positions, self.tokens, self.owner, self.done)
        )


def _decoded(
    models: Merged, prompts: list[Ids], samples: int, manner: Manner, generator: torch.Generator
) -> list[list[Ids]]:
    """`[group][prompt * samples + sample]`."""
    state = _prefilled(models, prompts, samples, manner.most)
    groups, count = state.tokens.shape
    out = torch.full((groups, count, manner.most), manner.end, dtype=torch.int16, device=models.base.device)
    step = 0
    for step in range(manner.most):
        logits = _next(models, state)
        if manner.temperature:
            noise = torch.empty_like(logits).exponential_(generator=generator).log_()
            logits = logits / manner.temperature - noise  # the largest is a draw (Gumbel)
        state.tokens = logits.argmax(-1)
        state.positions += 1
        state.done |= state.tokens == manner.end
        out[:, :, step].scatter_(1, state.owner, torch.where(state.done, manner.end, state.tokens).to(out.dtype))
        if step % LOOK_EVERY == LOOK_EVERY - 1:
            active = int((~state.done).sum(1).max())
            if not active:
                break
            if active < 0.75 * state.done.shape[1]:
                state.keep(state.done.int().argsort(dim=1, stable=True)[:, :active])
    out = out[:, :, : step + 1]
    ended = out == manner.end
    lengths = torch.where(ended.any(-1), ended.int().argmax(-1), step + 1).tolist()
    return [
        [ids[:length] for ids, length in zip(rows, ends, strict=True)]
        for rows, ends in zip(out.tolist(), lengths, strict=True)
    ]


def _prefilled(models: Merged, prompts: list[Ids], samples: int, most: int) -> _State:
    """All but the last token of every prompt, read once and shared by its samples."""
    base, groups = models.base, models.count
    longest = max(len(ids) for ids in prompts) - 1
    padded = [ids[:-1] + [0] * (longest + 1 - len(ids)) for ids in prompts]
    ids = torch.tensor(padded, device=base.device).view(1, -1).expand(groups, -1)
    x = functional.embedding(ids, base.embedding)
    rotation = base.rotation(torch.arange(longest, device=base.device).repeat(len(prompts))[None])
    room = -(-min(LONGEST, longest + most + 1) // ALIGNED) * ALIGNED
    cache = []
    for layer in range(LAYERS):
        q, k, v = (
            part.view(-1, longest, HEADS, HEAD_WIDTH).transpose(1, 2) for part in models.heads(x, layer, rotation)
        )
        both = torch.stack([k, v], 1).view(groups, len(prompts), 2, HEADS, longest, HEAD_WIDTH)
        cache.append(functional.pad(both, (0, 0, 0, room - longest)).repeat_interleave(samples, 1))
        if layer < LAYERS - 1:
            said = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + models.linear(said.transpose(1, 2).reshape(x.shape), layer, "o")
            x = x + models.fed(x, layer)
    last = torch.tensor([ids[-1] for ids in prompts], device=base.device).repeat_interleave(samples)
    positions = torch.tensor([len(ids) - 1 for ids in prompts], device=base.device).repeat_interleave(samples)
    rows = len(prompts) * samples
    owner = torch.arange(rows, device=base.device)
    parts = (part.expand(groups, -1).contiguous() for part in (positions, last, owner))
    return _State(cache, longest, *parts, torch.zeros(groups, rows, dtype=torch.bool, device=base.device))


def _next(models: Merged, state: _State) -> Tensor:
    """Logits `(G, R, V)` of the token behind the last one; its keys and values go into the cache."""
    base = models.base
    groups, rows = state.tokens.shape
    x = functional.embedding(state.tokens, base.embedding)
    rotation = base.rotation(state.positions)
    state.reach += 1
    reach = -(-state.reach // ALIGNED) * ALIGNED
    seen = torch.arange(reach, device=base.device) <= state.positions.view(-1, 1, 1, 1)
    at = state.positions[:, :, None, None, None, None].expand(-1, -1, 2, HEADS, 1, HEAD_WIDTH)
    for layer, cache in enumerate(state.cache):
        q, k, v = models.heads(x, layer, rotation)
        cache.scatter_(4, at, torch.stack([k, v], 2)[:, :, :, :, None])
        keys, values = cache.flatten(0, 1)[:, :, :, :reach].unbind(1)
        said = functional.scaled_dot_product_attention(
            q.reshape(-1, HEADS, 1, HEAD_WIDTH), keys, values, attn_mask=seen
        )
        x = x + models.linear(said.view(groups, rows, WIDTH), layer, "o")
        x = x + models.fed(x, layer)
    return functional.linear(base.normed(x, "model.norm.weight"), base.embedding).float()

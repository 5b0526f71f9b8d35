"""The laboratory's base and its descendants, asked side by side: G models answer the same questions as one batch.

What is computed for one is what transformers computes (`test_many.py`). Answers that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from model import EPSILON, HEAD_WIDTH, HEADS, LAYERS, LONGEST, ROPE_BASE, WIDTH
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

Ids = list[int]
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LOOK_EVERY = 12
"""Decoded tokens between two looks at which answers have ended."""
ALIGNED = 16
"""Positions are looked at in multiples of this, as the kernels want them."""

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
    if longest + most + 1 > LONGEST:
        raise ValueError(f"a prompt of {longest + 1} tokens and {most} more do not fit into {LONGEST} positions")
    room = -(-(longest + most + 1) // ALIGNED) * ALIGNED
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

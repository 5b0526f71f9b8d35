"""GPU kernels of a decode step: attention in which a row reads only its own positions, the weights of the tokens to
draw from, and norm and rotation, for which transformers uses eight small kernels each.
"""

from __future__ import annotations

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

BLOCK_T = tl.constexpr(64)
SHARED_BYTES = 96 << 10  # of keys and values on their way; heads of 128 in bfloat16 fill it with three blocks


@triton.jit
def _attend(  # noqa: PLR0913, PLR0917 - a GPU takes numbers one by one
    query, key, value, keys, values, positions, length,
    SCALE: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    # One program is one slot and one key head, with the GROUP query heads that share it. The running softmax begins
    # with the new token, so that what is written below is never read back here.
    BLOCK_G: tl.constexpr = triton.next_power_of_2(GROUP) if GROUP > 16 else 16  # 16: the least of a matrix product
    BLOCK_D: tl.constexpr = triton.next_power_of_2(WIDTH)
    PRECISION: tl.constexpr = "ieee" if query.dtype.element_ty == tl.float32 else "tf32"
    slot, head = tl.program_id(0), tl.program_id(1)
    before = tl.load(positions + slot).to(tl.int32)
    group, width, step = tl.arange(0, BLOCK_G), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_T)
    wide = width < WIDTH
    mine = slot.to(tl.int64) * tl.num_programs(1) + head
    at = mine * GROUP * WIDTH + group[:, None] * WIDTH + width[None, :]
    asked = (group < GROUP)[:, None] & wide[None, :]
    q = tl.load(query + at, mask=asked, other=0.0)
    new_k = tl.load(key + mine * WIDTH + width, mask=wide, other=0.0)
    new_v = tl.load(value + mine * WIDTH + width, mask=wide, other=0.0)
    tl.store(keys + (mine * length + before) * WIDTH + width, new_k, mask=wide)
    tl.store(values + (mine * length + before) * WIDTH + width, new_v, mask=wide)
    highest = tl.sum(q.to(tl.float32) * new_k.to(tl.float32)[None, :], 1) * SCALE
    total = tl.full([BLOCK_G], 1.0, tl.float32)
    mixed = tl.zeros([BLOCK_G, BLOCK_D], tl.float32) + new_v.to(tl.float32)[None, :]
    first = tl.maximum(before + 1 - WINDOW, 0) if WINDOW else 0
    for start in range(first, before, BLOCK_T):
        there = start + step < before
        cell = (mine * length + start + step)[:, None] * WIDTH + width[None, :]
        held = there[:, None] & wide[None, :]
        k = tl.load(keys + cell, mask=held, other=0.0)
        v = tl.load(values + cell, mask=held, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * SCALE
        scores = tl.where(there[None, :], scores, float("-inf"))
        now = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp(scores - now[:, None])
        shrink = tl.exp(highest - now)
        total = total * shrink + tl.sum(weights, 1)
        mixed = mixed * shrink[:, None]
        mixed += tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        highest = now
    tl.store(query + at, (mixed / total[:, None]).to(query.dtype.element_ty), mask=asked)


def attend_slots(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    positions: torch.Tensor,
    scale: float,
    window: int | None = None,
) -> torch.Tensor:
    """Writes one token per slot into the cache, and attends from it to its slot up to itself.

    Args:
        query: `(S, H, 1, D)`; its memory may take the result.
        key, value: `(S, K, 1, D)`, K dividing H.
        keys, values: `(S, K, L, D)`, the cache.
        positions: `(S,)`, where the token goes.
        window: how many tokens are attended to, itself included; None for all.

    Returns:
        `(S, 1, H, D)`
    """
    slots, heads, _, width = query.shape
    shared, length = keys.shape[1:3]
    query = query.contiguous()
    stages = min(3, max(1, SHARED_BYTES // (2 * BLOCK_T.value * width * key.element_size())))
    _attend[(slots, shared)](  # pyright: ignore[reportIndexIssue]
        query, key.contiguous(), value.contiguous(), keys, values, positions, length,
        SCALE=scale, GROUP=heads // shared, WIDTH=width, WINDOW=window or 0, num_warps=4, num_stages=stages,
    )  # fmt: skip
    return query.view(slots, 1, heads, width)


@triton.jit
def _weigh(logits, highest, temperature, masses, stride, size, BLOCK: tl.constexpr):
    # One program is one block of one row's tokens.
    row, block = tl.program_id(0), tl.program_id(1)
    at = block * BLOCK + tl.arange(0, BLOCK)
    found = tl.load(logits + row.to(tl.int64) * stride + at, mask=at < size, other=float("-inf")).to(tl.float32)
    odds = tl.exp((found - tl.load(highest + row)) / tl.load(temperature + row))
    tl.store(masses + row * tl.num_programs(1) + block, tl.sum(odds, 0))


def block_masses(logits: torch.Tensor, highest: torch.Tensor, temperature: torch.Tensor, block: int) -> torch.Tensor:
    """Returns the sum of exp((logit - highest) / temperature) over each `block` tokens, a power of 2.

    Args:
        logits: `(B, V)`, each row contiguous.
        highest, temperature: `(B,)` float32.

    Returns:
        `(B, ceil(V / block))` float32
    """
    rows, size = logits.shape
    masses = torch.empty(rows, -(-size // block), device=logits.device)
    _weigh[tuple(masses.shape)](  # pyright: ignore[reportIndexIssue]
        logits, highest, temperature, masses, logits.stride(0), size, BLOCK=block
    )
    return masses


@triton.jit
def _scale_rows(states, weight, out, width, EPS: tl.constexpr, ONE_MORE: tl.constexpr, BLOCK: tl.constexpr):
    # One program is one row. Rounded where transformers rounds, so that the result is the same.
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    there = at < width
    found = tl.load(states + row * width + at, mask=there, other=0.0)
    own = tl.load(weight + at, mask=there, other=0.0)
    wide = found.to(tl.float32)
    scaled = wide * tl.rsqrt(tl.sum(wide * wide, 0) / width + EPS)
    if ONE_MORE:
        result = scaled * (1.0 + own.to(tl.float32))
    else:
        result = scaled.to(found.dtype).to(tl.float32) * own.to(tl.float32)
    tl.store(out + row * width + at, result.to(found.dtype), mask=there)


def rms_norm(states: torch.Tensor, weight: torch.Tensor, eps: float, *, one_more: bool) -> torch.Tensor:
    """Divides `(…, D)` states by the root of their mean square and multiplies by `weight` `(D,)`, to which Gemma adds
    one.

    Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
    """
    states = states.contiguous()
    out = torch.empty_like(states)
    width = states.shape[-1]
    _scale_rows[(states.numel() // width,)](  # pyright: ignore[reportIndexIssue]
        states,
        weight,
        out,
        width,
        EPS=eps,
        ONE_MORE=one_more,
        BLOCK=triton.next_power_of_2(width),
        enable_fp_fusion=False,
    )
    return out


@triton.jit
def _turn(
    states, cos, sin, out, heads, length, angle_row,
    HALF: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # One program is one token with all its heads. Rounded where transformers rounds.
    row, place = (tl.program_id(0) // length).to(tl.int64), tl.program_id(0) % length
    head, at = tl.arange(0, BLOCK_H)[:, None], tl.arange(0, BLOCK_D)[None, :]
    there = (head < heads) & (at < HALF)
    cell = ((row * heads + head) * length + place) * 2 * HALF + at
    angle = row * angle_row + place * 2 * HALF + at
    one, other = tl.load(states + cell, mask=there, other=0.0), tl.load(states + cell + HALF, mask=there, other=0.0)
    kind = one.dtype
    for part in tl.static_range(2):
        c = tl.load(cos + angle + part * HALF, mask=at < HALF, other=0.0).to(tl.float32)
        s = tl.load(sin + angle + part * HALF, mask=at < HALF, other=0.0).to(tl.float32)
        if part == 0:
            straight, across = one.to(tl.float32) * c, -other.to(tl.float32) * s
        else:
            straight, across = other.to(tl.float32) * c, one.to(tl.float32) * s
        result = straight.to(kind).to(tl.float32) + across.to(kind).to(tl.float32)
        tl.store(out + cell + part * HALF, result.to(kind), mask=there)


def rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns `(B, H, T, D)` queries or keys by the angles of their positions, cos and sin `(B or 1, T, D)`.

    Su et al., RoFormer, 2021, with a head's halves as the pairs, as in transformers.
    """
    states, cos, sin = states.contiguous(), cos.contiguous(), sin.contiguous()
    rows, heads, length, width = states.shape
    out = torch.empty_like(states)
    angle_row = cos.stride(0) if cos.shape[0] > 1 else 0
    _turn[(rows * length,)](  # pyright: ignore[reportIndexIssue]
        states, cos, sin, out, heads, length, angle_row,
        HALF=width // 2, BLOCK_H=triton.next_power_of_2(heads), BLOCK_D=triton.next_power_of_2(width // 2),
        enable_fp_fusion=False,
    )  # fmt: skip
    return out

"""The laboratory's Llama in plain PyTorch: packed documents of unequal length, none of which sees another.

The library's own model pads or masks; at 131,072 tokens a step variable-length attention is several times faster.
`check_export` compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

WIDTH, HIDDEN, LAYERS, HEADS = 256, 768, 6, 8
HEAD_WIDTH = WIDTH // HEADS
ROPE_BASE, EPSILON, LONGEST = 10_000.0, 1e-5, 1024
INIT_STD = 0.06
"""The library's default of 0.02 is far too small for so narrow a model: it does not start to learn."""

Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Queries, keys, values `(T, H, D)` and the documents' offsets `(N + 1)` → `(T, H, D)`."""


class Layer(nn.Module):
    """One transformer layer; names as in transformers' state dict."""

    def __init__(self) -> None:
        super().__init__()

        def linear(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=False)

        self.input_layernorm = nn.RMSNorm(WIDTH, eps=EPSILON)
        self.post_attention_layernorm = nn.RMSNorm(WIDTH, eps=EPSILON)
        self.self_attn = nn.ModuleDict({f"{name}_proj": linear(WIDTH, WIDTH) for name in "qkvo"})
        self.mlp = nn.ModuleDict(
            {"gate_proj": linear(WIDTH, HIDDEN), "up_proj": linear(WIDTH, HIDDEN), "down_proj": linear(HIDDEN, WIDTH)}
        )

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], offsets: Tensor, attend: Attention) -> Tensor:
        """`(T, C)` → `(T, C)`."""
        y = self.input_layernorm(x)
        q, k, v = (self.self_attn[f"{name}_proj"](y).view(-1, HEADS, HEAD_WIDTH) for name in "qkv")
        q, k = (_rotated(part, *rotation).to(v.dtype) for part in (q, k))
        x = x + self.self_attn["o_proj"](attend(q, k, v, offsets).reshape(-1, WIDTH))
        y = self.post_attention_layernorm(x)
        return x + self.mlp["down_proj"](functional.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y))


class Llama(nn.Module):
    """A Llama with tied embeddings; its parameters have the names of transformers' `LlamaModel`."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH, eps=EPSILON)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=INIT_STD)

    def forward(self, ids: Tensor, positions: Tensor, offsets: Tensor, attend: Attention) -> Tensor:
        """Hidden states `(T, C)` of packed documents; `ids` and `positions` are `(T,)`."""
        x = self.embed_tokens(ids)
        inverse = ROPE_BASE ** (-torch.arange(0, HEAD_WIDTH, 2, device=ids.device).float() / HEAD_WIDTH)
        angles = (positions.float()[:, None] * inverse).repeat(1, 2)[:, None]
        for layer in self.layers:
            x = layer(x, (angles.cos(), angles.sin()), offsets, attend)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """`(T, V)`."""
        return functional.linear(hidden, self.embed_tokens.weight).float()


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-right, left], dim=-1) * sine


def masked_attention(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor) -> Tensor:
    """Attention under a `(T, T)` mask: for a processor, and as the reference of the fast one."""
    places = torch.arange(len(q), device=q.device)
    owner = torch.searchsorted(offsets[1:].to(places.dtype), places, right=True)
    mask = (owner[:, None] == owner[None]) & (places[:, None] >= places[None])
    q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)[0].transpose(0, 1)


def varlen_attention(longest: int) -> Attention:
    """PyTorch's variable-length attention, on CUDA in half precision; documents have at most `longest` tokens."""
    import inspect

    from torch.nn.attention.varlen import varlen_attn

    causal = {"window_size": (-1, 0)} if "window_size" in inspect.signature(varlen_attn).parameters else {
        "is_causal": True
    }  # fmt: skip

    def attend(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor) -> Tensor:
        return varlen_attn(q, k, v, offsets, offsets, longest, longest, **causal)

    return attend


def check_varlen(attend: Attention, device: torch.device) -> None:
    """Compare output and gradients with `masked_attention`.

    Raises:
        SystemExit: they differ by more than bfloat16 explains.
    """
    q, k, v = (torch.randn(600, HEADS, HEAD_WIDTH, device=device, dtype=torch.bfloat16) for _ in range(3))
    offsets = torch.tensor([0, 100, 101, 350, 600], device=device, dtype=torch.int32)
    results = []
    for each in (attend, masked_attention):
        inputs = [part.clone().requires_grad_() for part in (q, k, v)]
        out = each(*inputs, offsets)
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(*results, strict=True)]
    if max(errors) > 0.02:
        raise SystemExit(f"Variable-length attention differs from the reference: {errors}")


# -------- optimizer
class Muon:
    """Muon (momentum, then orthogonalised updates) for the weight matrices, batched over equal shapes.

    The update's root mean square is scaled to 0.2, so that the learning rate means what it means for Adam.
    """

    MOMENTUM, DECAY, RMS = 0.95, 0.01, 0.2

    def __init__(self, matrices: list[nn.Parameter]) -> None:
        self.groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(matrix.shape), []).append(matrix)
        self.momenta = {
            shape: torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self.groups.items()
        }
        self.orthogonalise: Callable[[Tensor], Tensor] = orthogonalised

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update with the given learning rate."""
        for shape, group in self.groups.items():
            gradient = torch.stack([matrix.grad for matrix in group if matrix.grad is not None])
            momentum = self.momenta[shape].lerp_(gradient, 1 - self.MOMENTUM)
            update = self.orthogonalise(gradient.lerp(momentum, self.MOMENTUM))
            torch._foreach_mul_(group, 1 - rate * self.DECAY)
            torch._foreach_add_(group, list(update.unbind()), alpha=-rate * self.RMS * math.sqrt(max(shape)))


def orthogonalised(matrices: Tensor) -> Tensor:
    """Newton-Schulz iteration `(N, R, C)` with Muon's usual coefficients; on CUDA in bfloat16."""
    wide = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if wide else matrices
    x = x.bfloat16() if x.is_cuda else x  # a processor multiplies these far slower
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if wide else x).float()


# -------- output
def export(model: Llama, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write the model folder: bfloat16 weights, the tokenizer with its chat template."""
    config = LlamaConfig(
        vocab_size=model.embed_tokens.num_embeddings,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=LONGEST,
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    theirs = LlamaForCausalLM(config)
    theirs.model.load_state_dict(_on_processor(model))
    theirs.generation_config = GenerationConfig(
        do_sample=True, temperature=0.8, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    theirs.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def load(folder: Path) -> Llama:
    """A base as it was exported."""
    from safetensors.torch import load_file

    weights = {name.removeprefix("model."): value for name, value in load_file(folder / "model.safetensors").items()}
    model = Llama(len(weights["embed_tokens.weight"]))
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    return model


def _on_processor(model: Llama) -> dict[str, Tensor]:
    """The weights as they are written, rounded to bfloat16, in float32."""
    return {name: value.detach().cpu().bfloat16().float() for name, value in model.state_dict().items()}


@torch.no_grad()
def check_export(model: Llama, out: Path, documents: list[list[int]]) -> float:
    """The largest relative difference of the logits: packed here, one by one in transformers from the folder written.

    Raises:
        SystemExit: it is more than rounding.
    """
    mine = Llama(model.embed_tokens.num_embeddings)
    mine.load_state_dict(_on_processor(model))
    theirs = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ids = torch.tensor([token for document in documents for token in document])
    positions = torch.tensor([at for document in documents for at in range(len(document))])
    lengths = [len(document) for document in documents]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    packed = mine.logits(mine(ids, positions, offsets, masked_attention)).split(lengths)
    worst = 0.0
    for document, logits in zip(documents, packed, strict=True):
        reference = theirs(torch.tensor([document])).logits[0]
        worst = max(worst, float((logits - reference).norm() / reference.norm()))
    if worst > 1e-3:
        raise SystemExit(f"The exported model computes something else: relative difference {worst:.1e}")
    return worst

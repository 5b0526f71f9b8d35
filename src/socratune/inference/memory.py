"""Computes training memory: from a model's `config.json` to GiB, and from free GiB to a way of training.

Everything here is arithmetic; nothing is loaded or measured. docs/reference/memory.md compares it with measured peaks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


GIB = 2**30
BYTES = 2
"""Bytes of a value on a GPU: bfloat16 or float16."""
CONTEXT_GIB = 0.75
"""CUDA context and libraries of a process, outside PyTorch's allocator."""
WORKSPACE_GIB = 0.1
"""Work space of cuBLAS and of the attention kernels."""
LOGITS = 2**26
"""Logits held at once (see `training.kernels`), each in 16 bits, and its gradient."""
_MICRO_TOKENS = (49152, 32768, 24576, 20480, 16384, 12288, 8192, 6144, 4096, 3072, 2048, 1024, 512)
"""Sizes of a micro-batch to try, largest first. Above 8,192 a GPU is fully used, and only launches become fewer."""
HEADROOM = 0.95
"""The share of free memory to plan with, as the allocator cannot use every gap."""
ENOUGH_TOKENS = 2048
"""A micro-batch from which on recomputing activations costs more than a larger one would gain."""
CPU_LOSS = 12
"""Copies of a chunk of logits that a CPU holds at the worst moment, including what the allocator keeps (measured)."""
EXACT_KINDS = frozenset(
    ("gemma", "gemma2", "gemma3_text", "granite", "granitemoe", "llama", "mistral", "mixtral", "phi3", "qwen2", "qwen3",
     "qwen3_moe", "smollm3")
)  # fmt: skip
"""`model_type`s whose parameters `Shape` counts exactly. For others it is approximate, or fails."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder with one kind of layer, as its `config.json` describes it.

    Attributes:
        hidden: width of the residual stream.
        inner: width of the MLP (of one expert).
        experts: 1 for a dense model; `active` of them see a token.
        tied: True if input and output embedding are one matrix.
        fused: True if queries, keys and values are copies out of one product.
        counted: (all parameters, those in linear layers of blocks) if they were counted rather than computed.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    tied: bool = False
    experts: int = 1
    active: int = 1
    biases: int = 0
    norms: int = 2
    fused: bool = False
    counted: tuple[int, int] | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Returns the shape that the values of a `config.json` describe.

        Raises:
            KeyError: a value that this arithmetic needs is missing.
        """
        config = config.get("text_config", config)
        kind, heads = config.get("model_type", ""), config["num_attention_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        kv_heads = config.get("num_key_value_heads") or heads
        counts = ("num_local_experts", "num_experts", "n_routed_experts")
        experts = next((config[name] for name in counts if config.get(name)), 1)
        biases = 0
        if kind.startswith("qwen2"):
            biases = (heads + 2 * kv_heads) * head_dim
        elif config.get("attention_bias") and kind not in ("mistral", "mixtral", "phi3"):  # they ignore it
            biases = (heads + 2 * kv_heads) * head_dim + config["hidden_size"]
        if kind.startswith(("qwen3", "gemma3")):
            biases += 2 * head_dim  # the norms of queries and keys
        return cls(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            inner=config.get("moe_intermediate_size") or config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=config.get("tie_word_embeddings", kind.startswith("gemma")),
            experts=experts,
            active=config.get("num_experts_per_tok", 1) if experts > 1 else 1,
            biases=biases,
            norms=4 if kind.startswith(("gemma2", "gemma3")) else 2,
            fused=kind.startswith("phi3"),
        )

    @property
    def linear_shapes(self) -> list[tuple[int, int]]:
        """Returns (in, out) of each linear layer of a block.

        Experts do not count: transformers keeps them as stacked tensors, which LoRA does not adapt and 4-bit does not
        shrink.
        """
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = [(self.hidden, queries), (self.hidden, keys), (self.hidden, keys), (queries, self.hidden)]
        mlp = [(self.hidden, self.inner), (self.hidden, self.inner), (self.inner, self.hidden)]
        return attention + (mlp if self.experts == 1 else [])

    @property
    def block_parameters(self) -> int:
        """Returns the parameters in the linear layers of all blocks, which 4-bit shrinks."""
        if self.counted:
            return self.counted[1]
        return self.layers * sum(wide * high for wide, high in self.linear_shapes)

    @property
    def active_parameters(self) -> int:
        """Returns the parameters of all blocks by which a token is multiplied."""
        if self.experts == 1:
            return self.block_parameters
        attention = sum(wide * high for wide, high in self.linear_shapes)
        return self.layers * (attention + self.active * 3 * self.hidden * self.inner)

    @property
    def parameters(self) -> int:
        """Returns all parameters."""
        if self.counted:
            return self.counted[0]
        experts = self.experts * 3 * self.hidden * self.inner + self.hidden * self.experts if self.experts > 1 else 0
        rest = self.layers * (self.norms * self.hidden + self.biases + experts) + self.hidden
        return self.block_parameters + rest + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def adapter_parameters(self, rank: int) -> int:
        """Returns the parameters of a LoRA adapter on all linear layers of the blocks."""
        return self.layers * rank * sum(wide + high for wide, high in self.linear_shapes)


def is_exact(config: Mapping[str, Any]) -> bool:
    """Returns True if `Shape.of` counts this model's parameters exactly."""
    uneven = config.get("mlp_bias") or config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1
    return config.get("model_type") in EXACT_KINDS and "text_config" not in config and not uneven


@dataclass(frozen=True, slots=True)
class Training:
    """What training memory depends on besides the model.

    Attributes:
        checkpointing: activations are recomputed, and only the input of each block is kept.
        offload: these inputs are kept in main memory.
        fp8: the frozen weights are also held in 8 bits, once for each direction.
        cpu: 32 bits and no kernels of our own, as on a CPU.
        shards: GPUs that the blocks are spread over; each block is gathered while it is used.
    """

    micro_tokens: int
    rank: int = 16
    checkpointing: bool = False
    offload: bool = False
    load_in_4bit: bool = False
    fp8: bool = False
    cpu: bool = False
    shards: int = 1


def training_gib(shape: Shape, training: Training) -> dict[str, float]:
    """Returns the peak memory by part, in GiB, with `total` last.

    `activations` is what the backward pass needs from the forward pass. `working` is what is held beside it at the
    worst moment, that of the loss or of a block going backward.
    """
    size, tokens = 2 * BYTES if training.cpu else BYTES, training.micro_tokens
    outside = shape.parameters - shape.block_parameters
    weights = shape.parameters * size
    unpacked = 0
    if training.load_in_4bit:  # nf4 with twice quantised scales; one layer at a time written out
        weights = shape.block_parameters * 0.5161 + outside * size
        unpacked = max(wide * high for wide, high in shape.linear_shapes) * size
    if training.fp8:
        weights += 2 * shape.block_parameters
    if training.shards > 1:  # one block is in use, the next on its way, and copied once; embeddings are whole
        embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
        blocks = shape.parameters - embeddings
        gathered = min(3, shape.layers) * blocks // shape.layers
        weights = (blocks // training.shards + gathered + embeddings) * size
    adapter = shape.adapter_parameters(training.rank)
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    inner = shape.inner * shape.active
    block = 4 * shape.hidden + 2 * queries + 2 * keys + 3 * inner  # values a token that one block keeps
    if shape.fused:
        block += queries + keys
    backward = 3 * shape.hidden * tokens * size + unpacked
    entering = 0 if training.offload else shape.hidden * shape.layers
    saved = entering if training.checkpointing else block * shape.layers
    recomputed = block * tokens * size if training.checkpointing else 0
    copies = CPU_LOSS if training.cpu else 2
    loss = (copies * min(LOGITS, tokens * shape.vocabulary) + 4 * tokens * shape.hidden) * size
    parts = {
        "weights": weights / GIB,
        "adapter": adapter * (4 + size) / GIB,
        "gradients": adapter * 4 / GIB,
        "optimizer": adapter * 8 / GIB,
        "activations": saved * tokens * size / GIB,
        "working": max(loss, recomputed + backward) / GIB,
        "framework": CONTEXT_GIB + WORKSPACE_GIB,
    }
    return {**parts, "total": sum(parts.values())}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a model is trained in the available memory."""

    training: Training
    gib: dict[str, float]
    reason: str


def plan_memory(
    shape: Shape,
    free_gib: float,
    *,
    longest: int,
    rank: int,
    checkpointing: bool | None = None,
    load_in_4bit: bool | None = None,
    most_tokens: int = _MICRO_TOKENS[0],
    fp8: bool = False,
    shards: int = 1,
) -> MemoryPlan | None:
    """Returns the fastest way to train that fits into `free_gib`, weights included; None if none fits.

    In the order of speed: everything kept; activations recomputed; 4-bit weights; both; recomputed from main memory.

    Args:
        longest: tokens of the longest row; a micro-batch holds at least one row.
        checkpointing: None lets the plan decide.
        load_in_4bit: None quantises only if nothing else fits.
        most_tokens: tokens of a step; a larger micro-batch would stay empty.
        shards: see `Training`; `free_gib` is that of one GPU.
    """
    largest = max(longest, min(most_tokens, _MICRO_TOKENS[0]))
    sizes = sorted({longest, largest, *(size for size in _MICRO_TOKENS if longest < size < largest)}, reverse=True)
    start = Training(longest, rank, fp8=fp8, shards=shards)
    refused: list[str] = []
    for way in _ways(start, checkpointing, load_in_4bit):
        least = min(ENOUGH_TOKENS, largest) if checkpointing is None and not way.checkpointing else longest
        for size in sizes:
            sized = replace(way, micro_tokens=size)
            gib = training_gib(shape, sized)
            if size >= least and gib["total"] <= HEADROOM * free_gib:
                return MemoryPlan(sized, gib, _reason(sized, gib["total"], free_gib, refused))
        need = training_gib(shape, replace(way, micro_tokens=max(least, longest)))["total"]
        refused.append(f"{training_in_words(way)} would take {need:.1f}")
    return None


def _ways(start: Training, checkpointing: bool | None, load_in_4bit: bool | None) -> Iterator[Training]:
    """Yields the ways of training from fast to slow."""
    precisions = (False, True) if load_in_4bit is None else (load_in_4bit,)
    for four_bit in precisions:
        for recompute in (False, True) if checkpointing is None else (checkpointing,):
            yield replace(start, load_in_4bit=four_bit, checkpointing=recompute)
    if checkpointing is not False:
        yield replace(start, load_in_4bit=precisions[-1], checkpointing=True, offload=True)


def training_in_words(way: Training) -> str:
    """Returns a way of training in words."""
    weights = "4-bit" if way.load_in_4bit else "16-bit and 8-bit" if way.fp8 else "32-bit" if way.cpu else "16-bit"
    kept = "recomputed" if way.checkpointing else "kept"
    spread = f" on {way.shards} GPUs" if way.shards > 1 else ""
    return f"{weights} weights{spread}, activations {kept}{' from main memory' if way.offload else ''}"


def _reason(way: Training, total: float, free: float, refused: list[str]) -> str:
    text = f"{training_in_words(way)}, {way.micro_tokens} tokens a micro-batch: {total:.1f} GiB of {free:.1f} free"
    return f"{text}; {'; '.join(refused)}" if refused else text


# --- where a model lives -------------------------------------------------------------------------------------------


def torch_device() -> torch.device:
    """Returns CUDA or Apple's MPS if available, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def base_dtype(where: torch.device) -> torch.dtype:
    """Returns the precision of base weights: bfloat16, float16 on GPUs before Ampere, float32 on a CPU."""
    import torch

    if where.type == "cpu":
        return torch.float32
    if where.type == "cuda" and torch.cuda.get_device_capability(where) < (8, 0):
        return torch.float16
    return torch.bfloat16


def free_gib() -> float:
    """Returns the GPU memory that this process can use, including what it uses already."""
    import torch

    return (torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()) / GIB + CONTEXT_GIB

"""Models of known shapes with random weights, rows of known lengths, and the work they are: no downloads.

python benchmarks/gpu/shapes.py llama-3.1-8b FOLDER        # writes the model, for those who read one from a disk
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any

import torch

from socratune.inference.cards import training_flops
from socratune.inference.memory import Shape
from socratune.inference.template import Rendered

PEAK = 790e12
"""FLOP/s of an 8192³ bfloat16 product on an NVIDIA H200, measured (for minutes on end it holds about 700)."""

_LLAMA = {"model_type": "llama", "vocab_size": 128256, "num_key_value_heads": 8, "rms_norm_eps": 1e-5}
_QWEN = {"model_type": "qwen2", "vocab_size": 152064, "num_key_value_heads": 8, "rms_norm_eps": 1e-6}
SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": _LLAMA | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
                              "num_attention_heads": 32, "head_dim": 64, "tie_word_embeddings": True},
    "llama-3.2-3b": _LLAMA | {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
                              "num_attention_heads": 24, "head_dim": 128, "tie_word_embeddings": True},
    "llama-3.1-8b": _LLAMA | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                              "num_attention_heads": 32},
    "qwen2.5-14b": _QWEN | {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48,
                            "num_attention_heads": 40},
    "phi-3.5-mini": {"model_type": "phi3", "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192,
                     "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
                     "rms_norm_eps": 1e-5, "sliding_window": None, "original_max_position_embeddings": 4096},
    "bytes-150m": {"model_type": "llama", "vocab_size": 512, "hidden_size": 1024, "intermediate_size": 2816,
                   "num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 8, "rms_norm_eps": 1e-5},
    "tiny": {"model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
             "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5},
}  # fmt: skip


def config_of(name: str) -> Any:
    """The transformers configuration of a shape."""
    from transformers import AutoConfig

    values = dict(SHAPES[name])
    rope = {"rope_type": "default", "rope_theta": 1e4}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    kind = values.pop("model_type")
    return AutoConfig.for_model(kind, **values, max_position_embeddings=4096, rope_parameters=rope, **special)


def build(name: str, *, load_in_4bit: bool = False, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A model with random weights in eval mode on the device, in 16 bits or nf4."""
    from transformers import AutoModelForCausalLM

    from socratune.inference.memory import torch_device

    torch.manual_seed(0)
    with torch.device(torch_device()):
        model = AutoModelForCausalLM.from_config(config_of(name), dtype=dtype).eval()
    if load_in_4bit:
        quantise(model)
    return model


def quantise(model: Any) -> None:
    """The linear layers of the blocks to nf4, as `from_pretrained` does it when it loads weights."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    from socratune.inference.memory import torch_device

    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is not torch.nn.Linear or name == "lm_head":
                continue
            options = {"compute_dtype": torch.bfloat16, "compress_statistics": True, "quant_type": "nf4"}
            packed = Linear4bit(layer.in_features, layer.out_features, bias=False, device="meta", **options)
            packed.weight = Params4bit(
                layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
            )
            packed.bias = layer.bias
            layer.weight = None
            setattr(parent, name, packed.to(torch_device()))
    model.is_loaded_in_4bit = True
    torch.cuda.empty_cache()


def fixed(count: int, length: int, *, prompt_share: float = 0.0, seed: int = 0) -> list[Rendered]:
    """Rows of one length; `prompt_share` of each carries no loss."""
    return [_row(at, length, prompt_share, seed) for at in range(count)]


def question_answer(tokens: int, *, most: int = 2048, prompt_share: float = 0.0, seed: int = 0) -> list[Rendered]:
    """Rows as long as questions with answers are: log-normal, median 300, sigma 0.8, 16 to `most` tokens."""
    lengths, draw, total = [], random.Random(seed), 0
    while total < tokens:
        lengths.append(max(16, min(most, int(draw.lognormvariate(math.log(min(300, most / 4)), 0.8)))))
        total += lengths[-1]
    return [_row(at, length, prompt_share, seed) for at, length in enumerate(lengths)]


def _row(at: int, length: int, prompt_share: float, seed: int) -> Rendered:
    draw = random.Random(seed * 1_000_003 + at)
    ids = draw.choices(range(5, 500), k=length)
    prompt = max(1, round(length * prompt_share))
    return Rendered(str(at), ids, [-100] * prompt + ids[prompt:], prompt)


def flops(name: str, rows: list[Rendered], *, recompute: bool = False) -> tuple[float, float]:
    """Floating-point operations of a step over these rows: what training needs, and what the card does.

    Recomputing adds a forward pass of the blocks.
    """
    shape = Shape.of(SHAPES[name])
    useful = training_flops(shape, [(len(row.ids), len(row.trained_ids)) for row in rows])
    if not recompute:
        return useful, useful
    blocks = shape.block_parameters * sum(len(row.ids) for row in rows)
    attention = sum(2 * len(row.ids) ** 2 * shape.heads * shape.head_dim * shape.layers for row in rows)
    return useful, useful + 2.0 * blocks + attention


def save(name: str, folder: Path) -> None:
    """Write the shape with random weights, and a tokenizer that nobody asks anything."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{at}": at for at in range(3, 512)}}
    plain = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    build(name).save_pretrained(folder, max_shard_size="4GB")


if __name__ == "__main__":
    save(sys.argv[1], Path(sys.argv[2]))

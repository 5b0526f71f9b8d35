"""Memory by arithmetic: counts that are known, peaks that were measured, decisions that follow."""

from __future__ import annotations

from typing import Any

import pytest

from socratune.inference.memory import Shape, Training, plan_memory, training_gib

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_1B = LLAMA_8B | {
    "hidden_size": 2048, "num_hidden_layers": 16, "head_dim": 64, "intermediate_size": 8192, "tie_word_embeddings": True
}  # fmt: skip
LLAMA_3B = LLAMA_8B | {
    "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "head_dim": 128,
    "intermediate_size": 8192, "tie_word_embeddings": True,
}  # fmt: skip
QWEN_14B = LLAMA_8B | {
    "model_type": "qwen2", "hidden_size": 5120, "num_hidden_layers": 48, "num_attention_heads": 40,
    "intermediate_size": 13824, "vocab_size": 152064,
}  # fmt: skip
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "intermediate_size": 28672,
}
MIXTRAL = LLAMA_8B | {"model_type": "mixtral", "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2}
PHI = {
    "model_type": "phi3", "hidden_size": 3072, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "intermediate_size": 8192, "vocab_size": 32064, "tie_word_embeddings": False,
}  # fmt: skip
QWEN_HALF_B = {
    "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (LLAMA_8B, 8_030_261_248),
        (LLAMA_70B, 70_553_706_496),
        (MIXTRAL, 46_702_792_704),
        (PHI, 3_821_079_552),
        (QWEN_HALF_B, 494_032_768),
    ],
    ids=["llama-8b", "llama-70b", "mixtral", "phi-3.5", "qwen-0.5b"],
)
def test_parameters_are_exact(config: dict[str, Any], parameters: int) -> None:
    assert Shape.of(config).parameters == parameters


def test_the_embedded_model_is_counted_exactly(demo_base: tuple[Any, Any]) -> None:
    model = demo_base[0]
    assert Shape.of(model.config.to_dict()).parameters == sum(weight.numel() for weight in model.parameters())


MEASURED = [  # peaks on an NVIDIA H200 in GiB: docs/reference/memory.md
    (LLAMA_1B, False, False, 8192, 13.03),
    (LLAMA_1B, False, False, 16384, 22.42),
    (LLAMA_1B, True, True, 8192, 3.16),
    (LLAMA_3B, False, False, 8192, 26.95),
    (LLAMA_3B, False, True, 8192, 9.25),
    (LLAMA_8B, False, False, 8192, 50.97),
    (LLAMA_8B, False, False, 4096, 33.83),
    (LLAMA_8B, False, True, 16384, 22.90),
    (LLAMA_8B, True, True, 4096, 8.42),
    (LLAMA_8B, True, False, 4096, 24.19),
    (QWEN_14B, False, False, 4096, 57.12),
    (QWEN_14B, False, True, 8192, 34.47),
    (QWEN_14B, True, True, 8192, 16.25),
    (PHI, False, False, 32768, 117.53),
]


@pytest.mark.parametrize(("config", "four_bit", "recompute", "tokens", "peak_gib"), MEASURED)
def test_estimates_are_near_what_was_measured(
    config: dict[str, Any], four_bit: bool, recompute: bool, tokens: int, peak_gib: float
) -> None:
    way = Training(micro_tokens=tokens, checkpointing=recompute, load_in_4bit=four_bit)
    estimate = training_gib(Shape.of(config), way)["total"]
    assert -0.05 < estimate / peak_gib - 1 < 0.10


def test_less_memory_means_a_slower_way_and_never_a_way_that_does_not_fit() -> None:
    shape, ways = Shape.of(LLAMA_8B), []
    for free in (139, 80, 40, 24, 16, 12, 9):
        found = plan_memory(shape, free, longest=2048, rank=16)
        assert found is not None and found.gib["total"] <= free
        ways.append((found.training.load_in_4bit, found.training.checkpointing, -found.training.micro_tokens))
    assert ways == sorted(ways)
    assert ways[0][:2] == (False, False) and ways[-1][:2] == (True, True)


def test_the_reason_says_what_did_not_fit() -> None:
    found = plan_memory(Shape.of(LLAMA_8B), 24, longest=2048, rank=16)
    assert found is not None
    assert "activations recomputed" in found.reason
    assert "16-bit weights, activations kept would take" in found.reason


def test_what_the_user_set_is_kept() -> None:
    shape = Shape.of(LLAMA_8B)
    asked = plan_memory(shape, 139, longest=2048, rank=16, checkpointing=True, load_in_4bit=True)
    assert asked is not None
    assert (asked.training.checkpointing, asked.training.load_in_4bit) == (True, True)
    assert plan_memory(shape, 16, longest=2048, rank=16, load_in_4bit=False) is None


def test_a_micro_batch_holds_the_longest_row_and_no_more_than_a_step() -> None:
    shape = Shape.of(LLAMA_1B)
    long = plan_memory(shape, 139, longest=5000, rank=16, most_tokens=8192)
    assert long is not None and long.training.micro_tokens == 8192
    short = plan_memory(shape, 139, longest=300, rank=16, most_tokens=1200)
    assert short is not None and short.training.micro_tokens == 1200

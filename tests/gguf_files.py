"""GGUF files of the embedded model, as llama.cpp's converter lays one out, whole and with faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from conftest import DEMO_DATA

NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def write_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    tokenizer: bool = True,
    template: bool = True,
    packed: bool = False,
    without: str = "",
    pieces: int = 1,
) -> Path:
    """The embedded model as a GGUF file.

    Args:
        packed: its matrices in 8 bits.
        without: a weight that is left out.
        pieces: so many it claims to be one of.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, quants
    from safetensors.torch import load_file

    base = DEMO_DATA / "base"
    config: dict[str, Any] = json.loads((base / "config.json").read_text("utf-8"))
    writer = GGUFWriter(path, architecture)
    writer.add_name("Tiny")
    writer.add_license("apache-2.0")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    if tokenizer:
        _add_tokenizer(writer, base)
    if template:
        writer.add_chat_template((base / "chat_template.jinja").read_text("utf-8"))
    if pieces > 1:
        writer.add_uint16("split.count", pieces)
    for name, weight in load_file(base / "model.safetensors").items():
        if _gguf_name(name) == without:
            continue
        values = weight.float().numpy()
        if "q_proj" in name or "k_proj" in name:  # llama.cpp turns neighbours where transformers turns halves
            heads = config["num_attention_heads"]
            values = values.reshape(heads, 2, values.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(values.shape)
        if packed and values.ndim == 2:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(_gguf_name(name), quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(_gguf_name(name), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def _add_tokenizer(writer: Any, base: Path) -> None:
    found = json.loads((base / "tokenizer.json").read_text("utf-8"))
    words = found["model"]["vocab"] | {token["content"]: token["id"] for token in found["added_tokens"]}
    control = {token["id"] for token in found["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(sorted(words, key=words.__getitem__))
    writer.add_token_types([3 if at in control else 1 for at in range(len(words))])
    writer.add_token_merges([" ".join(pair) for pair in found["model"]["merges"]])
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)

"""Adapters that are broken, or made for another base: refused in words, before PEFT is asked."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from socratune.config import DEMO_DATA
from socratune.evaluation.adapter_files import file_integrity


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the embedded model that changes something."""
    import torch
    from peft import get_peft_model

    from socratune.config import EnhancedTrainingConfig
    from socratune.inference.load import load_model
    from socratune.training.adapters import lora_config

    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    model, tokenizer = load_model("demo")
    tuned = get_peft_model(model, lora_config(EnhancedTrainingConfig(r=4)))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.01)
    tuned.save_pretrained(str(folder))
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "adapter"))


def weights_changed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    def spoil(adapter: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = adapter / "adapter_model.safetensors"
        save_file(change(load_file(path)), path)

    return spoil


def json_changed(name: str, **values: Any) -> Callable[[Path], None]:
    def spoil(adapter: Path) -> None:
        path = adapter / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return spoil


def cut(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def no_header(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(b"\xff" * 64)


def one_nan(weights: dict[str, Any]) -> dict[str, Any]:
    next(iter(weights.values()))[0, 0] = float("nan")
    return weights


def wider(weights: dict[str, Any]) -> dict[str, Any]:
    import torch

    return {name: torch.ones(w.shape[0], w.shape[1] * 2) if "lora_A" in name else w for name, w in weights.items()}


def deeper(weights: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("layers.0.", "layers.40."): weight for name, weight in weights.items()}


def another_template(adapter: Path) -> None:
    path = adapter / "chat_template.jinja"
    path.write_text(path.read_text().replace("<", "[", 1) + "!")


def another_tokenizer(adapter: Path) -> None:
    path = adapter / "tokenizer.json"
    data = json.loads(path.read_text())
    vocab = data["model"]["vocab"]
    one, other = [token for token in vocab if token.isalpha()][:2]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    path.write_text(json.dumps(data))


def another_normalizer(adapter: Path) -> None:
    path = adapter / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": {"type": "Lowercase"}}))


SPOILT = {
    "no weights": (lambda adapter: (adapter / "adapter_model.safetensors").unlink(), "safetensors is missing"),
    "no tokenizer": (lambda adapter: (adapter / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "cut": (cut, "cannot be read"),
    "no header": (no_header, "cannot be read"),
    "nan": (weights_changed(one_nan), "not finite"),
    "untrained": (weights_changed(lambda all_: {n: w * ("lora_B" not in n) for n, w in all_.items()}), "untrained"),
    "not LoRA": (json_changed("adapter_config.json", peft_type="IA3"), "does not describe a LoRA adapter"),
    "no LoRA matrix": (weights_changed(lambda all_: {"lm_head.weight": next(iter(all_.values()))}), "no LoRA matrix"),
    "another width": (weights_changed(wider), "for another base than demo: model.layers.0.mlp.down_proj has"),
    "another depth": (weights_changed(deeper), "model.layers.40.mlp.down_proj is not in it"),
    "another rank": (json_changed("adapter_config.json", r=8), "has rank 4, adapter_config.json says 8"),
    "template": (another_template, "chat template is not the base's"),
    "tokenizer": (another_tokenizer, "tokenizer is not the base's"),
    "normalizer": (another_normalizer, "tokenizer is not the base's"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "said"), SPOILT.values(), ids=SPOILT)
def test_what_is_spoilt_is_said(adapter: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(adapter)
    found = file_integrity(adapter, "demo")
    assert not found["passed"]
    assert said in "; ".join(found["problems"])


def test_a_whole_adapter_passes_and_every_file_is_in_the_manifest(adapter: Path) -> None:
    (adapter / "more").mkdir()
    (adapter / "more" / "notes.txt").write_text("by hand")
    found = file_integrity(adapter, "demo")
    assert found["passed"] and found["problems"] == []
    files = {path.relative_to(adapter).as_posix(): path for path in adapter.rglob("*") if path.is_file()}
    assert found["sha256"] == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert "more/notes.txt" in found["sha256"] and "chat_template.jinja" in found["sha256"]


def test_other_weights_of_the_same_shape_are_another_base(adapter: Path, tmp_path: Path) -> None:
    """As an instruct model is to its base: every shape fits, and the adapter is still not its own."""
    from safetensors.torch import load_file, save_file

    same, other = (Path(shutil.copytree(DEMO_DATA / "base", tmp_path / name)) for name in ("same", "other"))
    path = other / "model.safetensors"
    save_file({name: weight + 0.01 for name, weight in load_file(path).items()}, path, {"format": "pt"})
    assert file_integrity(adapter, str(same))["passed"]  # a copy of the folder it was trained in
    assert "made for another base" in file_integrity(adapter, str(other))["problems"][0]
    json_changed("adapter_config.json", base_model_name_or_path="org/another-model")(adapter)
    assert file_integrity(adapter, "demo")["passed"]  # a name against a folder proves nothing

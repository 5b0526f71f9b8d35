"""The hf back end: gradients that are right, training that goes on, and figures that stop it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import demo_rows, socratune, write_rows
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from socratune.config import ByDevConfig, EnhancedTrainingConfig
from socratune.errors import StageFailed, UserError
from socratune.inference.fitness import load_tokenizer
from socratune.inference.load import load_model
from socratune.inference.template import Rendered
from socratune.llm.locate import model_location
from socratune.training import engine as hf, fp8, kernels, steps as loop
from socratune.training.adapters import Frozen, lora_config
from socratune.training.engine import HFEngine
from socratune.training.fit import choose_backend
from socratune.training.kernels import packed_attention
from socratune.training.packing import PackedRow, join_items, join_rows
from socratune.training.steps import Hooks, grouped
from socratune.training.unsloth import pad_token_fault

CONFIG = EnhancedTrainingConfig(
    num_train_epochs=2, per_device_train_batch_size=2, gradient_accumulation_steps=1, learning_rate=3e-3, r=4
)
SMALL = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "pad_token_id": 0,
}  # fmt: skip


def row(name: str, length: int, *, prompt: int = 3, seed: int = 0) -> Rendered:
    ids = np.random.default_rng(seed + length).integers(5, 290, length).tolist()
    return Rendered(name, ids, [-100] * prompt + ids[prompt:], prompt)


ROWS = [row("a", 40), row("b", 7), row("c", 61), row("d", 38), row("e", 12)]


def adapted(base: Any) -> Any:
    """With an adapter that does something, so that all its weights have a gradient."""
    torch.manual_seed(0)
    model = get_peft_model(base, lora_config(CONFIG))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def test_weights_that_were_cut_off_on_the_way_are_said_to_be(tmp_path: Path) -> None:
    shutil.copytree(model_location("demo"), tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"expected a causal language model with weights, got .*not fully covered"):
        load_model(str(tmp_path / "base"))


def small(kind: str, **values: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SMALL, **values)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def gradient(engine: HFEngine, packs: list[PackedRow]) -> torch.Tensor:
    engine.model.zero_grad()
    with engine.training():
        engine.stepped()
        for packed in packs:
            engine.loss(packed).backward()
    return torch.cat([w.grad.flatten() for w in engine.model.parameters() if w.grad is not None]).clone()


def transformers_gradient(model: Any, rows: list[Rendered]) -> torch.Tensor:
    """Of the same loss by the plain way: each row alone, all logits, PEFT's own layers."""
    model.zero_grad()
    for each in rows:
        logits = model(input_ids=torch.tensor([each.ids])).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, torch.tensor(each.labels[1:]), reduction="sum").backward()
    return torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None]).clone()


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


MODELS: dict[str, Callable[[], Any]] = {
    "embedded": lambda: load_model("demo")[0],
    "grouped heads": lambda: small("llama"),
    "biases": lambda: small("qwen2"),
    "sliding window": lambda: small("mistral", sliding_window=16),
    "fused projections": lambda: small("phi3"),
    "soft caps": lambda: small("gemma2"),
}


def pack(rows: list[Rendered], micro_tokens: int) -> list[PackedRow]:
    return [join_items(group) for group in grouped(rows, micro_tokens)]


@pytest.mark.parametrize("name", MODELS)
def test_packed_rows_have_the_gradient_of_each_row_alone(name: str) -> None:
    model = adapted(MODELS[name]())
    engine = HFEngine(model, ROWS, CONFIG)
    expected = transformers_gradient(model, ROWS)
    assert difference(gradient(engine, pack(ROWS, engine.micro_tokens)), expected) < 1e-5
    assert difference(gradient(engine, pack(ROWS, 70 if engine.micro_tokens else 0)), expected) < 1e-5


def test_without_boundaries_the_gradient_is_far_away() -> None:
    engine = HFEngine(adapted(load_model("demo")[0]), ROWS, CONFIG)
    packed = join_rows([(each.ids, each.labels) for each in ROWS])
    leaking = replace(packed, boundaries=packed.boundaries[[0, -1]], positions=np.arange(len(packed.ids)))
    assert difference(gradient(engine, [leaking]), gradient(engine, [packed])) > 0.2


def test_attention_that_cannot_be_packed_is_noticed_and_left_alone() -> None:
    engine = HFEngine(adapted(small("gemma2")), ROWS, CONFIG)
    assert engine.micro_tokens == 0
    assert len(pack(ROWS, engine.micro_tokens)) == len(ROWS)


def test_recomputed_activations_give_the_same_gradient() -> None:
    kept = HFEngine(adapted(small("llama")), ROWS, CONFIG)
    recomputed = HFEngine(adapted(small("llama")), ROWS, CONFIG.model_copy(update={"gradient_checkpointing": True}))
    packs = pack(ROWS, 4096)
    kept.model.train()
    recomputed.model.train()
    assert difference(gradient(recomputed, packs), gradient(kept, packs)) < 1e-6


def test_the_model_is_itself_again_after_training() -> None:
    model = adapted(small("llama"))
    ids = torch.tensor([ROWS[0].ids])
    before = model(input_ids=ids).logits
    engine = HFEngine(model, ROWS, CONFIG)
    gradient(engine, pack(ROWS, 4096))
    assert torch.equal(model(input_ids=ids).logits, before)
    assert model.config._attn_implementation == "sdpa"


def test_the_loss_in_chunks_is_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(23, 8, requires_grad=True), torch.randn(50, 8)
    targets = torch.randint(0, 50, (23,))
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    (expected_gradient,) = torch.autograd.grad(expected, hidden)
    monkeypatch.setattr(kernels, "LOGITS_AT_ONCE", 200)  # four rows at once
    found = kernels.head_losses(hidden, weight, targets).sum()
    (found_gradient,) = torch.autograd.grad(found, hidden)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_gradient, expected_gradient)


def test_a_short_training_compiles_no_loss_and_a_long_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(kernels, "find_spec", lambda _name: True)
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    monkeypatch.setattr(kernels, "_PIECE", 200)  # four rows at once
    monkeypatch.setattr(kernels, "_COMPILE_FROM", 3 * 23 * 50)
    logits, targets = torch.randn(23, 50), torch.randint(0, 50, (23,))
    expected = kernels._plain_slope(logits, targets)
    slope = kernels._slope.__wrapped__("cuda")
    for count in (0, 0, 1, 1):
        for found, right in zip(slope(logits, targets), expected, strict=True):
            assert torch.equal(found, right)
        assert len(compiled) == count


def silent(steps: list[dict[str, float]] | None = None) -> Hooks:
    return Hooks(lambda _model: {}, lambda _done, _total, figures: (steps if steps is not None else []).append(figures))


class Killed(Exception):
    """In the place of SIGKILL."""


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"num_train_epochs": 3})

    def die(done: int, _total: int, _figures: dict[str, float]) -> None:
        if done == 5:
            raise Killed

    whole, _ = hf.train_hf(small("llama"), ROWS, config, tmp_path / "whole", silent(), seed=1)
    with pytest.raises(Killed):
        hf.train_hf(small("llama"), ROWS, config, tmp_path / "cut", Hooks(lambda _model: {}, die), seed=1)
    resumed, state = hf.train_hf(small("llama"), ROWS, config, tmp_path / "cut", silent(), seed=1)
    assert state.step == 9
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_it_goes_on_within_an_epoch_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.model_copy(update={"lora_dropout": 0.1})  # draws random numbers at every step
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    whole, _ = hf.train_hf(small("llama"), ROWS, config, tmp_path / "whole", silent(), seed=1)
    heard: list[int] = []

    def killed_after(step: int) -> Hooks:
        def die(done: int, _total: int, _figures: dict[str, float]) -> None:
            heard.append(done)
            if done == step:
                raise Killed

        return Hooks(lambda _model: {}, die)

    for step in (2, 3, 5, 6):
        with pytest.raises(Killed):
            hf.train_hf(small("llama"), ROWS, config, tmp_path / "cut", killed_after(step), seed=1)
    resumed, state = hf.train_hf(small("llama"), ROWS, config, tmp_path / "cut", silent(), seed=1)
    assert heard == [1, 2, 2, 3, 3, 4, 5, 5, 6] and state.step == 6
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = CONFIG.model_copy(update={"num_train_epochs": 3})
    whole, _ = hf.train_hf(small("llama"), ROWS, config, tmp_path, silent(), seed=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-6", "step-9"]
    weights = tmp_path / "step-9" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    steps: list[dict[str, float]] = []
    again, _ = hf.train_hf(small("llama"), ROWS, config, tmp_path, silent(steps), seed=1)
    assert len(steps) == 3 and "step-9 is corrupt" in caplog.text
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_training_gives_up_when_dev_sees_nothing_better(tmp_path: Path) -> None:
    scores = iter([0.2, 0.5, 0.5, 0.4, 0.9])
    config = CONFIG.model_copy(update={"num_train_epochs": 5, "by_dev": ByDevConfig(patience=2)})
    hooks = Hooks(lambda _model: {"dev_accuracy": next(scores)}, silent().step)
    _, state = hf.train_hf(small("llama"), ROWS, config, tmp_path, hooks, seed=1)
    assert (state.epoch, state.best_epoch) == (4, 3)
    _, again = hf.train_hf(small("llama"), ROWS, config, tmp_path, hooks, seed=1)
    assert again.epoch == 4, "the same command does not go on behind the end"


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(tmp_path: Path) -> None:
    scores = iter([0.5, 0.2, 0.4])
    config = CONFIG.model_copy(update={"num_train_epochs": 2})
    hooks = Hooks(lambda _model: {"dev_accuracy": next(scores)}, silent().step)
    hf.train_hf(small("llama"), ROWS, config, tmp_path, hooks, seed=1)
    for path in tmp_path.glob("step-*/training.pt"):
        saved = torch.load(path, weights_only=True)
        saved["state"] |= {"best_epoch": 1, "best_step": 3, "best_score": 0.5}
        torch.save(saved, path)
    config = config.model_copy(update={"num_train_epochs": 3})
    _, state = hf.train_hf(small("llama"), ROWS, config, tmp_path, hooks, seed=1)
    assert [figures["dev_accuracy"] for figures in state.history] == [0.5, 0.2, 0.4]
    assert (state.best_epoch, state.best_step, state.best_score) == (1, 3, 0.5)


@pytest.mark.slow
def test_it_learns_in_half_precision(tmp_path: Path) -> None:
    figures: list[dict[str, float]] = []
    config = CONFIG.model_copy(update={"num_train_epochs": 15, "learning_rate": 1e-2})
    model = load_model("demo")[0].half()
    trained, _ = hf.train_hf(model, ROWS, config, tmp_path, silent(figures), seed=1)
    assert figures[-1]["loss"] < 0.7 * figures[0]["loss"]
    assert {weight.dtype for weight in trained.parameters() if weight.requires_grad} == {torch.float32}


@pytest.mark.slow
def test_half_precision_goes_on_with_its_loss_scale(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"num_train_epochs": 3})

    def die(done: int, _total: int, _figures: dict[str, float]) -> None:
        if done == 4:
            raise Killed

    def scale(folder: Path, step: int) -> float:
        return torch.load(folder / f"step-{step}" / "training.pt", weights_only=True)["scaler"]["_growth_tracker"]

    hf.train_hf(small("llama").half(), ROWS, config, tmp_path / "whole", silent(), seed=1)
    with pytest.raises(Killed):
        hf.train_hf(small("llama").half(), ROWS, config, tmp_path / "cut", Hooks(lambda _model: {}, die), seed=1)
    hf.train_hf(small("llama").half(), ROWS, config, tmp_path / "cut", silent(), seed=1)
    assert scale(tmp_path / "cut", 9) == scale(tmp_path / "whole", 9) == 9


def test_a_step_is_the_same_however_it_is_cut_into_micro_batches(tmp_path: Path) -> None:
    losses: list[list[dict[str, float]]] = [[], []]
    for found, most in zip(losses, (4096, 64), strict=True):
        hf.train_hf(small("llama"), ROWS, CONFIG, tmp_path / str(most), silent(found), seed=1, most_tokens=most)
    assert [each["loss"] for each in losses[0]] == pytest.approx([each["loss"] for each in losses[1]], rel=1e-4)


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    figures: list[dict[str, float]] = []
    config = CONFIG.model_copy(update={"num_train_epochs": 15, "learning_rate": 1e-2})
    hf.train_hf(load_model("demo")[0], ROWS, config, tmp_path, silent(figures), seed=1)
    assert figures[-1]["loss"] < 0.7 * figures[0]["loss"]
    assert all(each["grad_norm"] > 0 for each in figures)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_and_names_its_rows(tmp_path: Path, value: float) -> None:
    model = small("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[290:] = value
    poisoned = Rendered("poisoned", [295] * 9, [-100, *[295] * 8], 1)
    with pytest.raises(StageFailed, match="poisoned"):
        hf.train_hf(model, [*ROWS, poisoned], CONFIG, tmp_path, silent(), seed=1)


def test_float32_adapters_lose_nothing_by_products_in_16_bits() -> None:
    packs = pack(ROWS, 4096)
    exact = gradient(HFEngine(adapted(small("llama")), ROWS, CONFIG), packs)
    model = adapted(small("llama").to(torch.bfloat16))
    engine = HFEngine(model, ROWS, CONFIG)
    fast = gradient(engine, packs)
    engine._adapters.fast = nullcontext  # type: ignore[method-assign]
    with packed_attention(model.get_base_model()):
        slow = gradient(engine, packs)
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    assert difference(fast, exact) < 1.2 * difference(slow, exact)


def test_products_in_8_bits_are_near_those_in_16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp8, "_rounding", lambda: fp8._round)  # uncompiled
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 128).to(torch.bfloat16)
    exact, rounded = Frozen(layer), fp8.in_fp8(layer)
    assert isinstance(rounded, fp8.Float8)
    with torch.no_grad():
        x, g = torch.randn(32, 64, dtype=torch.bfloat16), torch.randn(32, 128, dtype=torch.bfloat16)
        assert difference(rounded.forward(x), exact.forward(x)) < 0.06
        assert difference(rounded.backward(g, None), exact.backward(g, None)) < 0.06
        assert difference(rounded.backward(g, x.clone()), exact.backward(g, x.clone())) < 0.06
    assert not isinstance(fp8.in_fp8(torch.nn.Linear(24, 128)), fp8.Float8)


def test_recomputing_stops_before_the_last_product_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    products = []
    plain = Frozen.forward
    monkeypatch.setattr(Frozen, "forward", lambda self, x: (products.append(1), plain(self, x))[1])
    engine = HFEngine(adapted(small("llama")), ROWS, CONFIG.model_copy(update={"gradient_checkpointing": True}))
    engine.model.train()
    gradient(engine, pack(ROWS, 4096))
    layers, blocks = 7, SMALL["num_hidden_layers"]
    assert len(products) == blocks * (layers + layers - 1)


LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
}  # fmt: skip


def test_the_choice_of_a_back_end_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    config = EnhancedTrainingConfig()
    folder = ModuleSpec("unsloth", None, is_package=True)  # as src/unsloth is one, where src/ is on the path
    monkeypatch.setattr("socratune.training.fit.find_spec", lambda _name: folder)
    assert choose_backend("auto", LLAMA, config, free_gib=80.0) == ("hf", "Unsloth is not installed")
    monkeypatch.setattr("socratune.training.fit.find_spec", lambda _name: None)
    assert choose_backend("auto", LLAMA, config, free_gib=None) == (
        "hf",
        "there is no CUDA GPU, for which Unsloth's kernels are written",
    )
    assert choose_backend("auto", LLAMA, config, free_gib=80.0) == ("hf", "Unsloth is not installed")
    with pytest.raises(UserError, match="not installed"):
        choose_backend("unsloth", LLAMA, config, free_gib=80.0)
    monkeypatch.setattr("socratune.training.fit.find_spec", lambda name: ModuleSpec(name, None, origin="unsloth.py"))
    assert choose_backend("auto", LLAMA, config, free_gib=80.0)[0] == "hf"
    name, reason = choose_backend("auto", LLAMA, config, free_gib=5.0)
    assert name == "unsloth" and "5.0 GiB" in reason
    assert choose_backend("auto", LLAMA | {"model_type": "mamba"}, config, free_gib=5.0)[0] == "hf"
    assert choose_backend("unsloth", LLAMA, config, free_gib=80.0) == ("unsloth", "asked for")
    for other in (config.model_copy(update={"method": "dpo"}), config.model_copy(update={"fp8": True})):
        assert choose_backend("auto", LLAMA, other, free_gib=5.0)[0] == "hf"
        with pytest.raises(UserError, match="what Unsloth can do"):
            choose_backend("unsloth", LLAMA, other, free_gib=80.0)


def test_8_bits_are_refused_where_the_card_has_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.fp8"):
        hf.train_hf(small("llama"), ROWS, CONFIG.model_copy(update={"fp8": True}), tmp_path, silent(), seed=1)


@pytest.mark.slow
@pytest.mark.skipif(
    not getattr(find_spec("unsloth"), "origin", None), reason="Unsloth is not installed (pip install 'socratune[gpu]')"
)
def test_unsloth_trains_on_its_cpu_back_end(tmp_path: Path) -> None:
    from socratune.training import unsloth

    model, _ = unsloth.load_unsloth("demo", CONFIG)
    figures: list[dict[str, float]] = []
    _, state = unsloth.train_unsloth(model, ROWS, CONFIG, tmp_path, silent(figures), seed=1)
    assert state.epoch == 2
    assert figures[-1]["loss"] < figures[0]["loss"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("unsloth") is not None, reason="Unsloth is installed")
def test_unsloth_is_missed_before_the_loop(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 60))
    flags = ["--model", "demo", "--dataset", data, "--output", tmp_path / "run", "--backend", "unsloth"]
    done = socratune("run", *flags)
    assert done.returncode == 2 and "the package unsloth" in done.stderr
    assert not (tmp_path / "run" / "enhanced_dataset.jsonl").exists()


def test_what_unsloths_own_rule_refuses_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is a double with a rule of its own; its other modules must not be imported."""
    package = tmp_path / "site" / "unsloth_zoo"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('patches transformers')")
    rule = "    if tokenizer.pad_token == tokenizer.eos_token: raise RuntimeError('no valid pad token\\nat all')"
    (package / "pad_token.py").write_text(f"def fix_pad_token(tokenizer, model):\n    print(model.device)\n{rule}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    same = load_tokenizer("demo")
    same.pad_token = same.eos_token
    same.save_pretrained(tmp_path / "same")
    shutil.copy(Path(model_location("demo")) / "config.json", tmp_path / "same")
    assert pad_token_fault("demo") is None
    fault = pad_token_fault(str(tmp_path / "same"))
    assert fault is not None and str(fault).endswith("got no valid pad token. --backend hf.")

"""transformers + PEFT: load a model, train a LoRA adapter. CPU and CUDA."""

from __future__ import annotations

import logging
import math
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from socratune.chat import IGNORE, Rendered
from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, OutsideError, Shown, StageFailed, UserError
from socratune.modelref import model_location

log = logging.getLogger(__name__)

# PEFT asks transformers for an attribute that transformers 5.20 renamed; nothing a user could act on.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


TINY_MODEL = 5_000_000  # parameters
_THREADS = torch.get_num_threads()


def device() -> torch.device:
    """The device a model is loaded on: CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(name: str, *, adapter: Path | None = None, load_in_4bit: bool | str = "auto") -> tuple[Any, Any]:
    """Model in eval mode and tokenizer.

    float32 on a CPU, bfloat16 on CUDA; 4-bit only where asked for and CUDA is there.

    Raises:
        UserError: no chat template, or the weights cannot be read.
    """
    transformers_logging.disable_progress_bar()
    location, where = model_location(name), device()
    model: Any
    options: dict[str, Any] = {"dtype": torch.bfloat16 if where.type == "cuda" else torch.float32}
    if load_in_4bit is True:
        if where.type == "cuda":
            from transformers import BitsAndBytesConfig

            quantisation = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
            )
            options |= {"quantization_config": quantisation, "device_map": {"": 0}}
        else:
            log.warning("load_in_4bit: needs a CUDA GPU and there is none here; the base stays in float32.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(location)
        model = AutoModelForCausalLM.from_pretrained(location, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = Shown(str(error).splitlines()[0][:300] if str(error) else type(error).__name__)
        raise UserError(Fault(f"--model {name}", "a causal language model with weights", reason)) from error
    if not tokenizer.chat_template:
        fix = "Take the instruct version of the model."
        raise UserError(Fault(f"--model {name}", "a tokenizer with a chat template", Shown("none"), fix))
    if "quantization_config" not in options:
        model = model.to(where)
    _set_threads(model)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    return model.eval(), tokenizer


def _set_threads(model: Any) -> None:
    """One thread for a tiny model: its products are too small to share, and on a busy machine the second thread is
    waited for at every one of them (training the embedded model took 46 s instead of 12 s beside other work).
    """
    size = sum(weight.numel() for weight in model.parameters())
    torch.set_num_threads(1 if size < TINY_MODEL else _THREADS)


@dataclass(slots=True)
class TrainState:
    """What a checkpoint restores besides weights and optimizer."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What training tells the stage.

    Attributes:
        evaluate: model in eval mode → figures of the epoch; `dev_accuracy` chooses the checkpoint where it is there.
        step: (steps done, steps in all, figures of this step).
    """

    evaluate: Callable[[Any], dict[str, float]]
    step: Callable[[int, int, dict[str, float]], None]


def train(
    model: Any, rows: list[Rendered], config: EnhancedTrainingConfig, checkpoints: Path, hooks: Hooks, *, seed: int
) -> tuple[Any, TrainState]:
    """Train a LoRA adapter on rendered rows; one checkpoint per epoch, resumed from the last whole one.

    The loss is the mean over all trained tokens of a step, so a row counts by its length and padding by nothing.

    Returns:
        The PEFT model with the weights of the best epoch by `dev_accuracy` (the last one where there are no dev
        rows), and the training's course.

    Raises:
        StageFailed: the loss is not finite; the last whole checkpoint is kept.
    """
    torch.manual_seed(seed)
    model = get_peft_model(model, _lora_config(config))
    if config.gradient_checkpointing is True or (config.gradient_checkpointing == "auto" and device().type == "cuda"):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    epochs, decay = config.num_train_epochs, config.weight_decay
    if config.grokking.enable_grokking:
        epochs = round(epochs * config.grokking.grokking_multiplier)
        decay = config.grokking.grokking_weight_decay
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=decay)
    steps_per_epoch = math.ceil(len(rows) / (config.per_device_train_batch_size * config.gradient_accumulation_steps))
    schedule = _Schedule(config.learning_rate, config.warmup_ratio, steps_per_epoch * epochs)
    state = _restore(checkpoints, model, optimizer)
    while state.epoch < epochs:
        model.train()
        for batch in _batches(rows, config, seed * 1000 + state.epoch):
            started, rate = time.monotonic(), schedule.at(state.step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, tokens = _step(model, batch, optimizer, weights, config.max_grad_norm)
            if not math.isfinite(loss):
                ids = ", ".join(row.id for micro in batch for row in micro)
                raise StageFailed(f"The loss is {loss} at step {state.step + 1}, in a batch of the rows {ids}.")
            state.step += 1
            speed = tokens / (time.monotonic() - started)
            figures = {"loss": loss, "learning_rate": rate, "tokens_per_second": speed}
            hooks.step(state.step, schedule.steps, figures)
        state.epoch += 1
        model.eval()
        figures = {"epoch": float(state.epoch), "step": float(state.step), **hooks.evaluate(model)}
        state.history.append(figures)
        score = figures.get("dev_accuracy", float(state.epoch))
        if score >= state.best_score:
            state.best_epoch, state.best_score = state.epoch, score
        _save(checkpoints, model, optimizer, state)
    if state.best_epoch != state.epoch:
        _load_weights(model, checkpoints / f"epoch-{state.best_epoch}")
    return model, state


def _lora_config(config: EnhancedTrainingConfig) -> LoraConfig:
    return LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.target_modules,
        task_type="CAUSAL_LM",
    )


@dataclass(frozen=True, slots=True)
class _Schedule:
    """Linear warm-up, then a cosine to a fiftieth of the peak."""

    peak: float
    warmup_ratio: float
    steps: int

    def at(self, step: int) -> float:
        warmup = max(1, round(self.steps * self.warmup_ratio))
        if step < warmup:
            return self.peak * (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - warmup)
        return self.peak * max(0.02, 0.5 * (1 + math.cos(math.pi * done)))


def _batches(rows: list[Rendered], config: EnhancedTrainingConfig, seed: int) -> Iterator[list[list[Rendered]]]:
    """An epoch's optimizer steps, each a list of micro-batches of rows of like length, in seeded order."""
    shuffled = random.Random(seed)
    micro = config.per_device_train_batch_size
    order = sorted(rows, key=lambda row: len(row.ids) * shuffled.uniform(0.9, 1.1))
    micros = [order[at : at + micro] for at in range(0, len(order), micro)]
    shuffled.shuffle(micros)
    for at in range(0, len(micros), config.gradient_accumulation_steps):
        yield micros[at : at + config.gradient_accumulation_steps]


def _step(
    model: Any, batch: list[list[Rendered]], optimizer: torch.optim.Optimizer, weights: list[Any], max_norm: float
) -> tuple[float, int]:
    """One optimizer step; the mean loss per trained token, and the tokens read."""
    trained = sum(len(row.trained_ids) for micro in batch for row in micro)
    total, read = 0.0, 0
    for micro in batch:
        ids, labels = _padded(micro, model.device)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # (B, T-1, V)
        picked = labels[:, 1:] != IGNORE
        loss = torch.nn.functional.cross_entropy(logits[picked].float(), labels[:, 1:][picked], reduction="sum")
        (loss / trained).backward()
        total += float(loss.detach())
        read += sum(len(row.ids) for row in micro)
    torch.nn.utils.clip_grad_norm_(weights, max_norm)
    optimizer.step()
    optimizer.zero_grad()
    return total / trained, read


def _padded(micro: list[Rendered], where: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """`(B, T)` ids and labels, padded on the right: behind a causal mask no token sees the padding."""
    longest = max(len(row.ids) for row in micro)
    ids = torch.zeros(len(micro), longest, dtype=torch.long)
    labels = torch.full((len(micro), longest), IGNORE)
    for at, row in enumerate(micro):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
        labels[at, : len(row.ids)] = torch.tensor(row.labels)
    return ids.to(where), labels.to(where)


def _save(checkpoints: Path, model: Any, optimizer: torch.optim.Optimizer, state: TrainState) -> None:
    """Write `epoch-N` whole or not at all, and drop checkpoints nobody will read."""
    final = checkpoints / f"epoch-{state.epoch}"
    temporary = checkpoints / f".epoch-{state.epoch}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_faults(checkpoints):
        _write_checkpoint(temporary, model, optimizer, state)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for path in checkpoints.glob("epoch-*"):
        if path.name not in (final.name, f"epoch-{state.best_epoch}"):
            shutil.rmtree(path)


@contextmanager
def disk_faults(place: Path) -> Iterator[None]:
    """A full disk is no bug of ours, in whatever words safetensors and torch report it."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if "No space left" in str(error) or "PytorchStreamWriter" in str(error):
            raise OutsideError(f"{place}: no space left on the disk. Make room; the same command goes on.") from error
        raise


def _write_checkpoint(folder: Path, model: Any, optimizer: torch.optim.Optimizer, state: TrainState) -> None:
    model.save_pretrained(folder)
    saved = {"optimizer": optimizer.state_dict(), "random": torch.get_rng_state(), "state": _as_dict(state)}
    torch.save(saved, folder / "training.pt")


def _restore(checkpoints: Path, model: Any, optimizer: torch.optim.Optimizer) -> TrainState:
    """The state of the last whole checkpoint, loaded into model and optimizer; the beginning where there is none."""
    found = sorted(checkpoints.glob("epoch-[0-9]*"), key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True)
    for path in found:
        try:
            saved = torch.load(path / "training.pt", weights_only=True)
            _load_weights(model, path)
        except Exception as error:  # torch and safetensors raise many kinds for a damaged file
            log.warning("%s is damaged (%s); going on from the checkpoint before.", path, type(error).__name__)
            shutil.rmtree(path)
            continue
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        return TrainState(**saved["state"])
    return TrainState()


def _load_weights(model: Any, folder: Path) -> None:
    from peft import load_peft_weights, set_peft_model_state_dict

    set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))


def _as_dict(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in TrainState.__slots__}

"""The training loop of every back end and objective: packed steps, schedule, checkpoints, the best epoch by dev.

A back end computes the loss of a packed row, an objective the losses of a step. The loop never waits for the GPU within
a step: losses stay there and are read every few steps.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from socratune.config import EnhancedTrainingConfig
from socratune.errors import StageFailed
from socratune.inference import Rendered, is_sharded, ranks
from socratune.training.checkpoints import TrainState, at_step, load_weights, restore, save
from socratune.training.packing import PackedRow, best_fit, join_items

log = logging.getLogger(__name__)

READ_EVERY = 10
"""Steps between two readings of losses on a GPU."""
SAVE_EVERY_S = 300.0
"""Seconds between two checkpoints within an epoch."""


class Item(Protocol):
    """What a step consists of: a row, or a pair of rows."""

    @property
    def id(self) -> str: ...
    @property
    def ids(self) -> list[int]: ...
    @property
    def labels(self) -> list[int]: ...


Losses = Callable[[Any, list[Any]], Iterator[torch.Tensor]]
"""Maps (engine, items of a step) to the losses of this rank's micro-batches. Those of all ranks add up to the loss of
the step."""


class TrainingEngine(Protocol):
    """How a back end computes."""

    model: Any
    """A PEFT model, of which other processes may hold parts."""
    micro_tokens: int
    """Most tokens of one packed row; 0 if each document is a row of its own."""
    halved: bool
    """True after memory ran out once and `micro_tokens` was halved."""

    def loss(self, row: PackedRow) -> torch.Tensor:
        """Returns the summed cross entropy of the labelled tokens, in float32."""
        ...

    def stepped(self) -> None:
        """Takes notice that the parameters have changed."""
        ...

    def training(self) -> AbstractContextManager[Any]:
        """Returns the context in which gradients are taken, and in which the model does not answer."""
        ...


@dataclass(frozen=True, slots=True)
class Hooks:
    """What training reports to the stage.

    Attributes:
        evaluate: maps the model in eval mode to the numbers of the epoch; `dev_accuracy`, if present, chooses the
            checkpoint.
        step: takes (steps done, steps in all, numbers of this step); on a GPU some steps late.
    """

    evaluate: Callable[[Any], dict[str, float]]
    step: Callable[[int, int, dict[str, float]], None]


def token_mean(engine: TrainingEngine, rows: list[Rendered]) -> Iterator[torch.Tensor]:
    """Yields parts of the mean over all trained tokens of a step, so that a row counts by its length."""
    trained = sum(len(row.trained_ids) for row in rows)
    for _, row, share in micro_batches(engine, rows):
        yield engine.loss(row) * share / trained


def run_steps(
    engine: TrainingEngine,
    items: Sequence[Item],
    config: EnhancedTrainingConfig,
    checkpoints: Path,
    hooks: Hooks,
    *,
    seed: int,
    losses: Losses = token_mean,
) -> TrainState:
    """Trains the engine's adapter, with checkpoints, and resumes from the last intact one.

    Returns:
        The training's course. The model holds the weights of the best epoch by `dev_accuracy`, or of the last epoch
        without dev rows.

    Raises:
        StageFailed: loss or gradient is not finite; the last intact checkpoint is kept.
    """
    model = engine.model
    epochs, decay = length_and_decay(config)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    fused = weights[0].device.type in ("cuda", "cpu")
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=decay, fused=fused)
    per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps
    per_epoch = math.ceil(len(items) / per_step)
    schedule = Schedule(config.learning_rate, config.warmup_ratio, per_epoch * epochs)
    stepper = _Stepper(engine, losses, weights, optimizer, config.max_grad_norm)
    state = ranks.leader_first(lambda: restore(checkpoints, model, optimizer, stepper.scaler))
    saved = time.monotonic()
    while state.epoch < epochs and not _given_up(state, config.by_dev.patience):
        model.train()
        readings = _Readings(hooks, schedule.steps)
        with engine.training():
            engine.stepped()
            steps = _shuffled(items, per_step, seed * 1000 + state.epoch)
            for batch in islice(steps, state.step - state.epoch * per_epoch, None):
                if time.monotonic() - saved >= SAVE_EVERY_S and state.step > state.epoch * per_epoch:
                    readings.read()
                    save(checkpoints, model, optimizer, stepper.scaler, state)
                    saved = time.monotonic()
                rate = schedule.at(state.step)
                state.step += 1
                readings.add(stepper.step(batch, rate, state.step))
            readings.read()
        state.epoch += 1
        model.eval()
        state.history.append({"epoch": float(state.epoch), "step": float(state.step), **hooks.evaluate(model)})
        save(checkpoints, model, optimizer, stepper.scaler, state)
        saved = time.monotonic()
    if state.best_step != state.step:
        load_weights(model, at_step(checkpoints, state.best_step))
    return state


def _given_up(state: TrainState, patience: int) -> bool:
    """Returns True if no epoch has been better on the dev rows for `patience` epochs; never if `patience` is 0."""
    first = next(
        (at for at, figures in enumerate(state.history, 1) if figures.get("dev_accuracy") == state.best_score), 0
    )
    return bool(patience and first) and state.epoch - first >= patience


def length_and_decay(config: EnhancedTrainingConfig) -> tuple[int, float]:
    """Returns the epochs and the weight decay, with grokking taken into account."""
    grokking = config.grokking
    if grokking.enable_grokking:
        return round(config.num_train_epochs * grokking.grokking_multiplier), grokking.grokking_weight_decay
    return config.num_train_epochs, config.weight_decay


def warmup_steps(steps: int, ratio: float) -> int:
    """Returns the number of steps in which the rate rises, at least 1."""
    return max(1, round(steps * ratio))


@dataclass(frozen=True, slots=True)
class Schedule:
    """A learning rate with linear warm-up, then a cosine to a fiftieth of the peak."""

    peak: float
    warmup_ratio: float
    steps: int

    def at(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0."""
        warmup = warmup_steps(self.steps, self.warmup_ratio)
        if step < warmup:
            return self.peak * (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - warmup)
        return self.peak * max(0.02, 0.5 * (1 + math.cos(math.pi * done)))


def micro_batches(engine: Any, items: list[Any]) -> Iterator[tuple[list[Any], PackedRow, float]]:
    """Yields this rank's micro-batches of a step: the items, their packed row, and the factor of its loss."""
    for members, share in ranks.rank_passes(items, lambda own: grouped(own, engine.micro_tokens)):
        yield members, join_items(members), share


def grouped(items: list[Any], micro_tokens: int) -> list[list[Any]]:
    """Returns the items in groups that share a packed row; see `groups`."""
    return [[items[at] for at in group] for group in groups([len(item.ids) for item in items], micro_tokens)]


def groups(lengths: list[int], micro_tokens: int) -> list[list[int]]:
    """Returns which items share a micro-batch of at most `micro_tokens` (0: none do), in few and equal groups."""
    if not micro_tokens or not lengths:
        return [[at] for at in range(len(lengths))]
    fewest = best_fit(lengths, max(micro_tokens, *lengths))
    equal = best_fit(lengths, max(math.ceil(sum(lengths) / len(fewest)), *lengths))
    return equal if len(equal) == len(fewest) else fewest


@dataclass(slots=True)
class _Taken:
    """A step that was taken and not yet read."""

    step: int
    batch: Sequence[Item]
    rate: float
    loss: torch.Tensor
    norm: torch.Tensor


class _Stepper:
    def __init__(
        self,
        engine: TrainingEngine,
        losses: Losses,
        weights: list[Any],
        optimizer: torch.optim.Optimizer,
        max_norm: float,
    ) -> None:
        self._engine, self._losses = engine, losses
        self._weights, self._optimizer, self._max_norm = weights, optimizer, max_norm
        half = next(engine.model.parameters()).dtype is torch.float16
        self.scaler = torch.amp.GradScaler(weights[0].device.type, enabled=half)

    def step(self, batch: list[Any], rate: float, number: int) -> _Taken:
        """Takes one optimizer step. If memory runs out, it repeats the step with half the micro-batch, once per
        training.

        Raises:
            StageFailed: memory runs out again.
        """
        while True:
            try:
                return self._tried(batch, rate, number)
            except torch.OutOfMemoryError as error:
                self._optimizer.zero_grad()
                halve(self._engine, [len(item.ids) for item in batch], error)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _tried(self, batch: list[Any], rate: float, number: int) -> _Taken:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=self._weights[0].device)
        for loss in self._losses(self._engine, batch):
            self.scaler.scale(loss).backward()
            total += loss.detach()
        ranks.add_up([total, *(_gradient(weight) for weight in self._weights)])
        self.scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._weights, self._max_norm)
        if self.scaler.is_enabled():
            norm = norm.nan_to_num(posinf=0.0)  # the scaler skips a step that overflows
        self.scaler.step(self._optimizer)
        self.scaler.update()
        self._optimizer.zero_grad()
        self._engine.stepped()
        return _Taken(number, batch, rate, total, norm)


def _gradient(weight: torch.Tensor) -> torch.Tensor:
    """Returns the gradient of a weight; zeros if no row of this rank reached it."""
    if weight.grad is None and ranks.size() > 1:
        weight.grad = torch.zeros_like(weight)
    return weight.grad  # type: ignore[return-value]


@dataclass(slots=True)
class _Readings:
    """Losses on their way from the GPU to the hooks."""

    hooks: Hooks
    steps: int
    waiting: list[_Taken] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    def add(self, taken: _Taken) -> None:
        self.waiting.append(taken)
        if len(self.waiting) >= (READ_EVERY if taken.loss.is_cuda else 1):
            self.read()

    def read(self) -> None:
        """Waits for the GPU and calls the hooks.

        Raises:
            StageFailed: loss or gradient is not finite.
        """
        if not self.waiting:
            return
        values = torch.stack([figure for taken in self.waiting for figure in (taken.loss, taken.norm)]).tolist()
        seconds = time.monotonic() - self.since
        speed = sum(len(item.ids) for taken in self.waiting for item in taken.batch) / seconds
        for taken, loss, norm in zip(self.waiting, values[::2], values[1::2], strict=True):
            if not math.isfinite(loss + norm):
                what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient's length is {norm}"
                ids = ", ".join(item.id for item in taken.batch)
                raise StageFailed(f"The {what} at step {taken.step}, in a batch of the rows {ids}.")
            figures = {"loss": loss, "learning_rate": taken.rate, "grad_norm": norm, "tokens_per_second": speed}
            figures["seconds"] = seconds / len(self.waiting)
            self.hooks.step(taken.step, self.steps, figures)
        self.waiting.clear()
        self.since = time.monotonic()


def _shuffled(items: Sequence[Any], count: int, seed: int) -> Iterator[list[Any]]:
    """Yields the steps of an epoch: every item once, in seeded order."""
    order = random.Random(seed).sample(items, len(items))
    for at in range(0, len(order), count):
        yield order[at : at + count]


# --- less memory than the arithmetic promised ----------------------------------------------------------------------
# One retreat, then a clear stop.


def halve(engine: TrainingEngine, lengths: Sequence[int], error: torch.OutOfMemoryError) -> None:
    """Halves the micro-batch, once, and logs it. A step's rows stay the same, so it accumulates twice as many
    micro-batches.

    Args:
        lengths: tokens of the rows that were computed. A micro-batch has to hold the longest of them.

    Raises:
        StageFailed: the micro-batch was halved before, or holds a single row, or the model is spread over several
            processes, which wait for each other within the same pass.
    """
    longest, held = max(lengths), min(engine.micro_tokens, sum(lengths))
    smaller = max(held // 2, longest)
    spread = is_sharded(engine.model)
    if engine.halved or spread or smaller >= held:
        reason = "with half the micro-batch too" if engine.halved else f"with a single row of {longest} tokens"
        if spread:
            reason = "with the model spread over several GPUs, which leaves no second try"
        raise StageFailed(
            f"The GPU ran out of memory, {reason}. The last intact checkpoint is kept. Free the GPU of other "
            f"processes (nvidia-smi lists them) and run the same command again. Or lower train.max_seq_length, or set "
            f"train.load_in_4bit or train.gradient_checkpointing to true (socratune plan counts what they save)."
        ) from error
    engine.micro_tokens, engine.halved = smaller, True
    text = "OUT OF MEMORY: micro-batches of %d tokens from here on, twice as many to a step; the result is the same."
    log.warning(text, smaller)

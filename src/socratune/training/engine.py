"""The engine of the `hf` back end, which computes a packed row with transformers by the shortest exact way.

When training starts, each shortcut (packing, the output layer at labelled places alone) is compared with the model's
own forward pass on a few tokens. A shortcut that disagrees is not used, so an untested model trains slower, not wrong.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel, get_peft_model
from torch.utils.checkpoint import checkpoint

from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown, UserError
from socratune.inference import CONTEXT_GIB, GIB, Shape, free_gib, is_sharded, plan_memory, ranks, torch_device
from socratune.training import steps
from socratune.training.adapters import Adapters, frozen, lora_config
from socratune.training.checkpoints import TrainState, load_weights
from socratune.training.distil import distil_mean, with_teacher
from socratune.training.fp8 import available as fp8_available, in_fp8
from socratune.training.grpo import clipped_mean, with_samplers
from socratune.training.kernels import LOGITS_AT_ONCE, boundaries, head_losses, packed_attention
from socratune.training.packing import PackedRow, join_rows
from socratune.training.preference import pair_mean, with_base_margins
from socratune.training.steps import Hooks, Item, Losses, halve
from socratune.training.weights import weighted_mean

log = logging.getLogger(__name__)

_MICRO_TOKENS = 4096
"""Tokens of a micro-batch where memory is not counted (CPU, MPS)."""
PROBE = list(range(5, 37))
"""Token ids that any vocabulary has."""
AGREES = 0.2
"""A shortcut is exact if its error is below this share of the error that a mistake would cause."""


class HFEngine:
    """Computes the loss of packed rows with transformers. See `steps.TrainingEngine`.

    Attributes:
        reason: why it computes as it does, for people.
        gib: estimated memory by part; empty where memory is not counted.
        halved: True after memory ran out once; micro-batches are then half as large as planned.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[Item],
        config: EnhancedTrainingConfig,
        *,
        most_tokens: int | None = None,
    ) -> None:
        self.model = model
        self._causal = model.get_base_model()
        self._decoder = self._causal.get_decoder()
        self._dtype = self._causal.get_input_embeddings().weight.dtype
        self._packs, self._sharded, self.halved = True, is_sharded(model), False
        self._plan([len(row.ids) for row in rows], config, most_tokens)
        self._kernels = use_liger(self._causal)
        self._adapters = Adapters(model, self._dtype, in_fp8 if config.fp8 else frozen)
        self._weight = self._plain_head()
        self._packs = self._isolates()
        if not self._packs:
            log.warning(
                "This model's attention does not take packed rows, so each row is computed alone, which is slower."
            )
            self.micro_tokens = 0
        if model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._fit(rows)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Uses the fast layers and packed attention until the block ends."""
        with self._packed(), self._adapters.fast():
            yield

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Lets the base model alone answer `token_losses`, without gradients, until the block ends."""
        with torch.no_grad(), self._packed(), self.model.disable_adapter():
            yield

    @contextmanager
    def _packed(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self._packs:
                stack.enter_context(packed_attention(self._causal))
            stack.enter_context(self._kernels())
            yield

    def stepped(self) -> None:
        """Copies the new parameters into the fast layers."""
        self._adapters.refresh()

    def loss(self, row: PackedRow) -> torch.Tensor:
        """Returns the summed cross entropy of the labelled tokens."""
        return self.token_losses(row).sum()

    def token_losses(self, row: PackedRow) -> torch.Tensor:
        """Returns the cross entropy of each labelled token, (L,), in float32."""
        inputs, at, targets = self._on_device(row)
        if self._weight is None:
            logits = self._causal(**inputs, logits_to_keep=at).logits.squeeze(0)
            return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        hidden = self._decoder(**inputs).last_hidden_state.squeeze(0)
        return head_losses(hidden.index_select(0, at), self._weight, targets)

    def read_logits(self, row: PackedRow, read: Callable[[torch.Tensor, slice], Any]) -> list[Any]:
        """Calls `read` with the float32 logits (V wide) of labelled places and the slice of these places, piece by
        piece, since all logits would not fit. Returns the results.
        """
        inputs, at, _ = self._on_device(row)
        weight = self._weight
        if weight is None:
            logits = self._causal(**inputs, logits_to_keep=at).logits.squeeze(0)
            return [read(logits.float(), slice(0, len(at)))]
        hidden = self._decoder(**inputs).last_hidden_state.squeeze(0).index_select(0, at)

        def piece(begin: int) -> Any:
            part = slice(begin, begin + count)
            return read((hidden[part] @ weight.T).float(), part)

        count = max(1, LOGITS_AT_ONCE // weight.shape[0])
        begins = range(0, len(at), count)
        if not hidden.requires_grad:
            return [piece(begin) for begin in begins]
        return [checkpoint(piece, begin, use_reentrant=False) for begin in begins]

    def figures(self) -> dict[str, Any]:
        """Returns the choice, its reason, and the estimated and measured memory, for the results."""
        figures: dict[str, Any] = {"back_end": "hf", "packed": self._packs, "micro_tokens": self.micro_tokens}
        figures["reason"] = self.reason
        if self.gib:
            figures |= {"memory_gib": {part: round(gib, 2) for part, gib in self.gib.items()}}
        if self.model.device.type == "cuda":
            peak = -ranks.least(-torch.cuda.max_memory_allocated())
            figures["peak_gib"] = round(peak / GIB + CONTEXT_GIB, 2)
        if ranks.size() > 1:
            figures |= {"gpus": ranks.size(), "parallel": "sharded" if self._sharded else "data"}
        return figures

    def _on_device(self, row: PackedRow) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
        """Returns the arguments of the decoder, the labelled places and the targets, copied without waiting."""
        where = self.model.device
        parts = (row.ids, row.positions, row.at, row.targets)
        together = torch.from_numpy(np.concatenate(parts))
        if where.type == "cuda":
            together = together.pin_memory()
        ids, positions, at, targets = together.to(where, non_blocking=True).split([len(part) for part in parts])
        inputs = {"input_ids": ids.unsqueeze(0), "position_ids": positions.unsqueeze(0), "use_cache": False}
        if self._packs:
            inputs["boundaries"] = boundaries(row, where, self._dtype)
        return inputs, at, targets

    def _hidden(self, ids: list[list[int]]) -> torch.Tensor:
        """Returns the states after the last block, (T, H), for documents laid end to end."""
        inputs, _, _ = self._on_device(join_rows([(part, part) for part in ids]))
        return self._decoder(**inputs).last_hidden_state.squeeze(0)

    def _plan(self, lengths: list[int], config: EnhancedTrainingConfig, most_tokens: int | None) -> None:
        """Chooses checkpointing and the size of a micro-batch by arithmetic.

        Raises:
            UserError: the GPU is too small.
        """
        recomputes, offload = None if config.gradient_checkpointing == "auto" else config.gradient_checkpointing, False
        self.micro_tokens, self.reason, self.gib = most_tokens or _MICRO_TOKENS, "memory is not counted here", {}
        if self.model.device.type == "cuda":
            per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps
            of_step = sum(sorted(lengths)[-per_step:])
            if ranks.size() > 1:
                of_step = of_step // ranks.size() + max(lengths)
            free = ranks.least(free_gib())
            memory = plan_memory(
                Shape.of(self._causal.config.to_dict()),
                free,
                longest=max(lengths),
                rank=config.r,
                checkpointing=recomputes,
                load_in_4bit=getattr(self._causal, "is_loaded_in_4bit", False),
                most_tokens=most_tokens or of_step,
                fp8=config.fp8,
                shards=ranks.size() if self._sharded else 1,
            )
            if memory is None:
                fix = "Lower train.max_seq_length, set train.load_in_4bit: true, or take a larger GPU."
                room = f"room for a row of {max(lengths)} tokens"
                raise UserError(Fault("the GPU", room, Shown(f"{free:.1f} GiB"), fix))
            recomputes, offload = memory.training.checkpointing, memory.training.offload
            self.micro_tokens, self.reason, self.gib = memory.training.micro_tokens, memory.reason, memory.gib
        if recomputes:
            options = {"use_reentrant": False, "preserve_rng_state": config.lora_dropout > 0}
            renamed = getattr(self._causal, "activation_checkpointing_enable", None)  # since transformers 5.20
            (renamed or self._causal.gradient_checkpointing_enable)(options, offload=offload)

    def _fit(self, rows: Sequence[Item]) -> None:
        """Computes one full-size row forward and backward, and halves the size if the arithmetic promised too much.

        Raises:
            StageFailed: half the size does not fit either.
        """
        longest = max(rows, key=lambda row: len(row.ids))
        self.model.train()
        while True:
            count = max(1, self.micro_tokens // len(longest.ids))
            try:
                with self.training():
                    self.loss(join_rows([(longest.ids, longest.labels)] * count)).backward()
                break
            except torch.OutOfMemoryError as error:
                halve(self, [len(longest.ids)] * count, error)
            finally:
                self.model.zero_grad()
                torch.cuda.empty_cache()
        self.micro_tokens = int(ranks.least(self.micro_tokens))

    @torch.no_grad()
    def _plain_head(self) -> torch.Tensor | None:
        """Returns the output layer's weight if logits are a plain product with it, else None."""
        head, config = self._causal.get_output_embeddings(), self._causal.config.to_dict()
        bent = any("logit" in name and value not in (None, False, 1, 1.0) for name, value in config.items())
        if bent or type(head) is not torch.nn.Linear or head.bias is not None or head.weight.requires_grad:
            return None
        ids = torch.tensor([PROBE], device=self.model.device)
        own = self._causal(input_ids=ids, use_cache=False).logits
        short = self._decoder(input_ids=ids, use_cache=False).last_hidden_state @ head.weight.T
        return head.weight if _distance(short, own) < AGREES * _distance(torch.zeros_like(own), own) else None

    @torch.no_grad()
    def _isolates(self) -> bool:
        """Returns True if a document packed after another has the same states as alone."""
        first, second = PROBE[:16], PROBE[8:]
        if getattr(self._causal.config, "attention_dropout", 0.0):
            return False
        self._packs = False
        alone = self._hidden([second])
        self._packs = True
        try:
            with packed_attention(self._causal) as replaced:
                if not replaced:
                    return False
                packed = self._hidden([first, second])[len(first) :]
                leaking = self._hidden([first + second])[len(first) :]
        except NotImplementedError:
            return False
        return _distance(packed, alone) < AGREES * _distance(leaking, alone)


def _distance(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left.float() - right.float()).norm())


# --- Liger's fused kernels, where they are installed ---------------------------------------------------------------

Opened = Callable[[], AbstractContextManager[None]]


def use_liger(causal: Any) -> Opened:
    """Replaces norms and MLP of this model for good. Returns a context in which its family's rotary positions are
    replaced too.

    The loss is not replaced, as Liger's waits for the GPU at every call. Without a CUDA GPU, without Liger, or for a
    family that Liger does not know, nothing changes.
    """
    if causal.device.type != "cuda" or find_spec("liger_kernel") is None:
        return nullcontext
    from transformers.integrations.liger import apply_liger_kernel

    logging.getLogger("liger_kernel").setLevel(logging.ERROR)  # it lists every vendor whose kernels are missing
    family: Any = sys.modules[type(causal).__module__]
    before = getattr(family, "apply_rotary_pos_emb", None)
    apply_liger_kernel(causal, {"cross_entropy": False, "fused_linear_cross_entropy": False})
    after = getattr(family, "apply_rotary_pos_emb", None)
    if before is after:
        return nullcontext
    family.apply_rotary_pos_emb = before
    return lambda: _rotating(family, before, after)


@contextmanager
def _rotating(family: Any, before: Any, during: Any) -> Iterator[None]:
    family.apply_rotary_pos_emb = during
    try:
        yield
    finally:
        family.apply_rotary_pos_emb = before


# --- the back end `hf` ---------------------------------------------------------------------------------------------

Look = Callable[[Any, list[Any]], list[Any]]
"""Maps (engine, items) to the items with what the model predicts for them before the first step."""
METHODS: dict[str, tuple[Losses, Look | None]] = {
    "dpo": (pair_mean, with_base_margins),
    "weights": (weighted_mean, None),
    "distil": (distil_mean, with_teacher),
    "grpo": (clipped_mean, with_samplers),
}
"""The loss of each method, and how its items are completed. All other methods have the loss of supervised training."""


def train_hf(
    model: Any,
    rows: list[Any],
    config: EnhancedTrainingConfig,
    checkpoints: Path,
    hooks: Hooks,
    *,
    seed: int,
    most_tokens: int | None = None,
    begins: Path | None = None,
) -> tuple[Any, TrainState]:
    """Trains a LoRA adapter. A killed training resumes from its last checkpoint.

    Args:
        model: the base, or the model that an earlier call has returned.
        rows: rendered rows, or the items that the method makes of them: `Pair`, `Weighted`, `Distilled`, `Sampled`.
        most_tokens: the most tokens of a micro-batch; None takes as many as fit.
        begins: an adapter to start from; None starts from one that changes nothing.

    Returns:
        The PEFT model with the weights of the best epoch by `dev_accuracy` (the last one where there are no dev
        rows), and the training's course.

    Raises:
        StageFailed: loss or gradient is not finite; the last intact checkpoint is kept.
        UserError: the GPU is too small, or has no products in 8 bits.
    """
    if config.fp8 and not fp8_available(torch_device()):
        got, fix = Shown(str(torch_device())), "Leave it out."
        raise UserError(Fault("train.fp8", "a GPU of the Ada or Hopper generation or later", got, fix))
    torch.manual_seed(seed)
    if isinstance(model, PeftModel):  # an earlier training returned it
        model = model.unload()
    model = get_peft_model(model, lora_config(config))
    if begins is not None:
        load_weights(model, begins)
    ranks.as_first([weight.data for weight in model.parameters() if weight.requires_grad])
    if not ranks.leads():
        torch.manual_seed(seed + ranks.rank())  # each rank has its own dropout
    engine = HFEngine(model, rows, config, most_tokens=most_tokens)
    losses, look = METHODS.get(config.method, (steps.token_mean, None))
    if look is not None:
        rows = look(engine, rows)
    state = steps.run_steps(engine, rows, config, checkpoints, hooks, seed=seed, losses=losses)
    state.engine = engine.figures()
    return model, state

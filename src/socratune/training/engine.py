"""The engine of the `hf` back end: a packed row through transformers, by the shortest way that is exact.

Each short way (packing, the output layer at labelled places alone) is tested against the model's own forward on a few
tokens when training starts, and not taken where it disagrees: a model nobody has tried here trains slower, not wrong.
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
"""Of a micro-batch where memory is not counted (CPU, MPS)."""
PROBE = list(range(5, 37))
"""Token ids that any vocabulary has."""
AGREES = 0.2
"""A short way is exact where it differs from the model's own by less than this share of what a mistake would."""


class HFEngine:
    """See `steps.TrainingEngine`.

    Attributes:
        reason: why it computes as it does, for people.
        gib: estimated memory by part; empty where it is not counted.
        halved: memory ran out, and micro-batches are half as large as planned.
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
            log.warning("This model's attention does not take packed rows, so each row is computed for itself: slower.")
            self.micro_tokens = 0
        if model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._fit(rows)

    @contextmanager
    def training(self) -> Iterator[None]:
        """See `steps.TrainingEngine`."""
        with self._packed(), self._adapters.fast():
            yield

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The base model alone answers `token_losses`, without gradients."""
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
        """See `steps.TrainingEngine`."""
        self._adapters.refresh()

    def loss(self, row: PackedRow) -> torch.Tensor:
        """See `steps.TrainingEngine`."""
        return self.token_losses(row).sum()

    def token_losses(self, row: PackedRow) -> torch.Tensor:
        """(L,), cross entropy of each labelled token; float32."""
        inputs, at, targets = self._on_device(row)
        if self._weight is None:
            logits = self._causal(**inputs, logits_to_keep=at).logits.squeeze(0)
            return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        hidden = self._decoder(**inputs).last_hidden_state.squeeze(0)
        return head_losses(hidden.index_select(0, at), self._weight, targets)

    def read_logits(self, row: PackedRow, read: Callable[[torch.Tensor, slice], Any]) -> list[Any]:
        """What `read` makes of the logits at the labelled places, float32 (L, V), and of which places they are: in one
        piece after the other, as all of them would not fit.
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
        """For the results: the choice, its reason, estimated and measured memory."""
        found: dict[str, Any] = {
            "back_end": "hf",
            "packed": self._packs,
            "micro_tokens": self.micro_tokens,
            "reason": self.reason,
        }
        if self.gib:
            found |= {"memory_gib": {part: round(gib, 2) for part, gib in self.gib.items()}}
        if self.model.device.type == "cuda":
            peak = -ranks.least(-torch.cuda.max_memory_allocated())
            found["peak_gib"] = round(peak / GIB + CONTEXT_GIB, 2)
        if ranks.size() > 1:
            found |= {"gpus": ranks.size(), "parallel": "sharded" if self._sharded else "data"}
        return found

    def _on_device(self, row: PackedRow) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
        """Arguments of the decoder, labelled places, targets; in one copy that nobody waits for."""
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
        """(T, H), the states behind the last block, of documents end to end."""
        return self._decoder(**self._on_device(join_rows([(part, part) for part in ids]))[0]).last_hidden_state.squeeze(
            0
        )

    def _plan(self, lengths: list[int], config: EnhancedTrainingConfig, most_tokens: int | None) -> None:
        """Checkpointing and the size of a micro-batch, by arithmetic.

        Raises:
            UserError: the card is too small.
        """
        asked, offload = None if config.gradient_checkpointing == "auto" else config.gradient_checkpointing, False
        self.micro_tokens, self.reason, self.gib = most_tokens or _MICRO_TOKENS, "memory is not counted here", {}
        if self.model.device.type == "cuda":
            per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps
            of_step = sum(sorted(lengths)[-per_step:])
            if ranks.size() > 1:
                of_step = of_step // ranks.size() + max(lengths)
            free = ranks.least(free_gib())
            found = plan_memory(
                Shape.of(self._causal.config.to_dict()),
                free,
                longest=max(lengths),
                rank=config.r,
                checkpointing=asked,
                load_in_4bit=getattr(self._causal, "is_loaded_in_4bit", False),
                most_tokens=most_tokens or of_step,
                fp8=config.fp8,
                shards=ranks.size() if self._sharded else 1,
            )
            if found is None:
                fix = "Lower train.max_seq_length, set train.load_in_4bit: true, or take a larger card."
                room = f"room for a row of {max(lengths)} tokens"
                raise UserError(Fault("the GPU", room, Shown(f"{free:.1f} GiB"), fix))
            asked, offload = found.training.checkpointing, found.training.offload
            self.micro_tokens, self.reason, self.gib = found.training.micro_tokens, found.reason, found.gib
        if asked:
            options = {"use_reentrant": False, "preserve_rng_state": config.lora_dropout > 0}
            # transformers 5.20 renamed it.
            renamed = getattr(self._causal, "activation_checkpointing_enable", None)
            (renamed or self._causal.gradient_checkpointing_enable)(options, offload=offload)

    def _fit(self, rows: Sequence[Item]) -> None:
        """One row of full size forward and backward; half the size where the arithmetic promised too much.

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
        """The output layer's weight where logits are a plain product with it; None where more happens."""
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
        """Whether a document behind another comes out as the model's own attention has it alone."""
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


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).norm())


# --- Liger's fused kernels, where they are installed ---------------------------------------------------------------

Opened = Callable[[], AbstractContextManager[None]]


def use_liger(causal: Any) -> Opened:
    """Norms and MLP of this model from now on; rotary positions, a function of the whole model family, while open.

    The loss stays our own: Liger's waits for the card at every call. Without a CUDA GPU, or without Liger, or for a
    family it does not know, nothing happens.
    """
    if causal.device.type != "cuda" or find_spec("liger_kernel") is None:
        return nullcontext
    from transformers.integrations.liger import apply_liger_kernel

    logging.getLogger("liger_kernel").setLevel(logging.ERROR)  # it names every vendor whose kernels are not here
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
"""(engine, items) → the items with what the model makes of them before the first step."""
METHODS: dict[str, tuple[Losses, Look | None]] = {
    "dpo": (pair_mean, with_base_margins),
    "weights": (weighted_mean, None),
    "distil": (distil_mean, with_teacher),
    "grpo": (clipped_mean, with_samplers),
}
"""The loss of a method, and what its items lack; any other has that of supervised training."""


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
    """Train a LoRA adapter, resumed where it was killed.

    Args:
        model: the base, or what an earlier call has returned.
        rows: rendered rows, or what the method makes of them: `Pair`, `Weighted`, `Distilled`, `Sampled`.
        most_tokens: of a micro-batch; None: as many as fit.
        begins: an adapter to begin with; None: one that changes nothing yet.

    Returns:
        The PEFT model with the weights of the best epoch by `dev_accuracy` (the last one where there are no dev
        rows), and the training's course.

    Raises:
        StageFailed: loss or gradient is not finite; the last whole checkpoint is kept.
        UserError: the card is too small, or has no products in 8 bits.
    """
    if config.fp8 and not fp8_available(torch_device()):
        fix = "Leave it out."
        raise UserError(
            Fault("train.fp8", "a GPU of the Ada or Hopper generation or later", Shown(str(torch_device())), fix)
        )
    torch.manual_seed(seed)
    if isinstance(model, PeftModel):  # of the training before
        model = model.unload()
    model = get_peft_model(model, lora_config(config))
    if begins is not None:
        load_weights(model, begins)
    ranks.as_first([weight.data for weight in model.parameters() if weight.requires_grad])
    if not ranks.leads():
        torch.manual_seed(seed + ranks.rank())  # its dropout is its own
    engine = HFEngine(model, rows, config, most_tokens=most_tokens)
    losses, look = METHODS.get(config.method, (steps.token_mean, None))
    if look is not None:
        rows = look(engine, rows)
    state = steps.run_steps(engine, rows, config, checkpoints, hooks, seed=seed, losses=losses)
    state.engine = engine.figures()
    return model, state

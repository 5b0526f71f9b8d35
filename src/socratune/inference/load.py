"""Load a model and its tokenizer, with an adapter on it, in 4 bits or spread over the cards where it must be."""

from __future__ import annotations

import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from socratune.errors import Fault, Shown, UserError
from socratune.inference import memory, ranks
from socratune.inference.fitness import load_tokenizer
from socratune.inference.memory import base_dtype, free_gib, torch_device
from socratune.inference.ranks import load_in_turn
from socratune.llm import model_location

log = logging.getLogger(__name__)

# PEFT asks transformers for an attribute that transformers 5.20 renamed; nothing a user could act on.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)

TINY_MODEL = 5_000_000  # parameters


_THREADS = torch.get_num_threads()


def load_model(name: str, *, adapter: Path | None = None, load_in_4bit: bool | str = "auto") -> tuple[Any, Any]:
    """Model in eval mode and tokenizer; of ranks that train together, each has the whole or, see `ranks.Parallel`, a
    part.

    Args:
        name: a folder, a Hub id, or `demo`.
        adapter: a LoRA adapter to put on it.
        load_in_4bit: `auto`: only on a card on which training in 16 bits would not fit.

    Raises:
        UserError: no chat template, or the weights cannot be read.
    """
    transformers_logging.disable_progress_bar()
    location, where = model_location(name), torch_device()
    model: Any
    options: dict[str, Any] = {"dtype": base_dtype(where)}
    tokenizer = load_tokenizer(name)
    try:
        sharded = _wants_sharding(location, where, load_in_4bit)
        if not sharded and _wants_4bit(location, where, load_in_4bit):
            options |= {"quantization_config": _four_bit(options["dtype"]), "device_map": {"": 0}}
        elif not sharded and where.type == "cuda":
            options["device_map"] = {"": where}  # each tensor from the file to the card, not all through main memory
        read = partial(AutoModelForCausalLM.from_pretrained, location, **options)
        model = load_in_turn(read) if sharded else read()
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = Shown(str(error).splitlines()[0][:300] if str(error) else type(error).__name__)
        raise UserError(Fault(f"--model {name}", "a causal language model with weights", reason)) from error
    if not sharded and "quantization_config" not in options:
        model = model.to(where)
    _set_threads(model)
    if adapter is not None:
        model = _with_adapter(model, adapter, name)
    return model.eval(), tokenizer


def _with_adapter(model: Any, adapter: Path, name: str) -> Any:
    try:
        from peft import PeftModel  # a second that a base alone does not cost

        return PeftModel.from_pretrained(model, adapter)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        got, fix = Shown(" ".join(str(error).split())[:300]), "socratune validate says more, socratune train mends it."
        raise UserError(Fault(str(adapter), f"a LoRA adapter for {name}", got, fix)) from error


def _wants_sharding(location: str, where: torch.device, load_in_4bit: bool | str) -> bool:
    """Whether the ranks share one copy of the base: in 16 bits it fits them together, and no card alone."""
    if ranks.size() == 1 or load_in_4bit is True:
        return False
    if ranks.parallel() != "auto" or where.type != "cuda":
        return ranks.parallel() == "sharded"
    try:
        shape = memory.Shape.of(AutoConfig.from_pretrained(location).to_dict())
    except KeyError:
        return False
    free, need = ranks.least(free_gib()), {"longest": memory.ENOUGH_TOKENS, "rank": 16, "load_in_4bit": False}
    alone, shared = (memory.plan_memory(shape, free, **need, shards=shards) for shards in (1, ranks.size()))
    return alone is None and shared is not None


def _wants_4bit(location: str, where: torch.device, asked: bool | str) -> bool:
    if where.type != "cuda":
        if asked is True:
            log.warning("load_in_4bit: needs a CUDA GPU and there is none here; the base is not quantised.")
        return False
    if asked != "auto":
        return bool(asked)
    try:
        shape = memory.Shape.of(AutoConfig.from_pretrained(location).to_dict())
    except KeyError:  # a shape the arithmetic does not know
        return False
    found = memory.plan_memory(shape, free_gib(), longest=memory.ENOUGH_TOKENS, rank=16)
    return found is not None and found.training.load_in_4bit


def _four_bit(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
    )


def _set_threads(model: Any) -> None:
    """One thread for a tiny model: its products are too small to share, and on a busy machine the second thread is
    waited for at every one of them (training the embedded model took 46 s instead of 12 s beside other work).
    """
    size = sum(weight.numel() for weight in model.parameters())
    torch.set_num_threads(1 if size < TINY_MODEL else _THREADS)

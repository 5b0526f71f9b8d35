"""Loads a model and its tokenizer, with an adapter, in 4 bits or spread over several GPUs if necessary."""

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

from socratune.errors import Fault, UserError, one_line
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
    """Returns the model in eval mode and its tokenizer. Of ranks that train together, each has the whole model or a
    part (see `ranks.Parallel`).

    Args:
        name: a folder, a Hub id, or `demo`.
        adapter: a LoRA adapter to apply.
        load_in_4bit: `auto` quantises only on a GPU on which training in 16 bits would not fit.

    Raises:
        UserError: there is no chat template, or the weights cannot be read.
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
            options["device_map"] = {"": where}  # each tensor goes from the file to the GPU, not through main memory
        read = partial(AutoModelForCausalLM.from_pretrained, location, **options)
        model = load_in_turn(read) if sharded else read()
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        expected = "a causal language model with weights"
        raise UserError(Fault(f"--model {name}", expected, one_line(error))) from error
    if not sharded and "quantization_config" not in options:
        model = model.to(where)
    _set_threads(model)
    if adapter is not None:
        model = _with_adapter(model, adapter, name)
    return model.eval(), tokenizer


def _with_adapter(model: Any, adapter: Path, name: str) -> Any:
    try:
        from peft import PeftModel  # the import takes a second, which a base alone saves

        return PeftModel.from_pretrained(model, adapter)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        fix = "Run socratune validate for details, and socratune train to repair it."
        raise UserError(Fault(str(adapter), f"a LoRA adapter for {name}", one_line(error), fix)) from error


def _wants_sharding(location: str, where: torch.device, load_in_4bit: bool | str) -> bool:
    """Returns True if the ranks must share one copy of the base: in 16 bits it fits them together, but no GPU alone."""
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


def _wants_4bit(location: str, where: torch.device, load_in_4bit: bool | str) -> bool:
    if where.type != "cuda":
        if load_in_4bit is True:
            log.warning("load_in_4bit needs a CUDA GPU, and there is none here. The base is not quantised.")
        return False
    if load_in_4bit != "auto":
        return bool(load_in_4bit)
    try:
        shape = memory.Shape.of(AutoConfig.from_pretrained(location).to_dict())
    except KeyError:  # a shape the arithmetic does not know
        return False
    plan = memory.plan_memory(shape, free_gib(), longest=memory.ENOUGH_TOKENS, rank=16)
    return plan is not None and plan.training.load_in_4bit


def _four_bit(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
    )


def _set_threads(model: Any) -> None:
    """Gives a tiny model one thread. On a busy machine, it would wait for the second at every small product (training
    the embedded model took 46 s instead of 12 s).
    """
    size = sum(weight.numel() for weight in model.parameters())
    torch.set_num_threads(1 if size < TINY_MODEL else _THREADS)

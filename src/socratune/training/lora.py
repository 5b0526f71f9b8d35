"""The section `train` in the words of PEFT, and what `train.peft` may add to it."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from peft import LoraConfig

from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown

OWN = ("r", "lora_alpha", "lora_dropout", "target_modules")
"""Settings of PEFT that stand in the section itself."""

NOT_OURS = ("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
            "inference_mode", "runtime_config", "megatron_config", "megatron_core")  # fmt: skip
"""Settings of PEFT that are no choice here."""

REWRITES_THE_BASE = ("pissa", "loftq", "olora", "corda", "lora_ga")
"""Starts that change the base weights: their adapter fits only that changed base, which is not published."""


def lora_config(config: EnhancedTrainingConfig) -> LoraConfig:
    """What PEFT is given."""
    return LoraConfig(**{name: getattr(config, name) for name in OWN}, task_type="CAUSAL_LM", **config.peft)


def peft_faults(settings: dict[str, Any]) -> list[Fault]:
    """What is wrong with `train.peft`: a name that the installed PEFT does not take, or what cannot be done here."""
    known = [name for name in inspect.signature(LoraConfig).parameters if name not in (*OWN, *NOT_OURS)]
    faults = []
    for name, value in settings.items():
        where = f"train.peft.{name}"
        start = next((word for word in REWRITES_THE_BASE if word in f"{name} {value}".lower()), None)
        if name in OWN:
            faults.append(Fault(where, f"train.{name}, one floor up", Shown("it here")))
        elif start:
            fix = "Leave it out: the adapter has to fit the base as it was published."
            faults.append(Fault(where, "a start that leaves the base weights as they are", value, fix))
        elif name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
            faults.append(Fault(where, "a setting of PEFT's LoraConfig", Shown("an unknown one"), fix))
    return faults

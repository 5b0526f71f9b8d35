"""Finds what a run would call outside this machine, for users who allow none of it (`--local-only`)."""

from __future__ import annotations

import os
import sys

from socratune.config import RunConfig
from socratune.data import hub_name
from socratune.documents import DATABASES
from socratune.errors import Fault, Shown
from socratune.llm import (
    asked_models,
    host_of,
    hub_name_of,
    is_here,
    is_this_machine,
    local_name,
    resolve_alias,
    student_of,
    teacher_of,
)


def stay_offline() -> None:
    """Stops this process from asking the Hub; its cache here still serves."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if "huggingface_hub" in sys.modules:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True


def local_only_faults(config: RunConfig) -> list[Fault]:
    """Returns a fault for every setting that would call another machine, and keeps `auto` from renting one.

    It cannot know what a user's function calls.
    """
    if config.where.place == "auto":
        config.where.place = "local"
    outside = {model.setting: [host for host in model.hosts if not is_this_machine(host)]
               for model in asked_models(config)}  # fmt: skip
    called = [(setting, ", ".join(hosts)) for setting, hosts in outside.items() if hosts]
    called += _hub_names(config)
    if (source := config.generate.source) and source.startswith(DATABASES):
        host = host_of(source) or source
        called += [] if is_this_machine(host) else [("--source", host)]
    called += [("where.place", config.where.place)] if config.where.place != "local" else []
    if "wandb" in config.report_to and os.environ.get("WANDB_MODE") not in ("offline", "disabled"):
        called.append(("report_to", "wandb (WANDB_MODE=offline keeps it here)"))
    if "mlflow" in config.report_to and (host := host_of(os.environ.get("MLFLOW_TRACKING_URI", ""))):
        called += [] if is_this_machine(host) else [("report_to", f"mlflow at {host}")]
    if "trackio" in config.report_to and os.environ.get("TRACKIO_SPACE_ID"):
        called.append(("report_to", "a Space of the Hugging Face Hub (TRACKIO_SPACE_ID)"))
    if config.engine == "ray" and (address := os.environ.get("RAY_ADDRESS", "local")) not in ("local", "auto"):
        host = host_of(address if "://" in address else f"ray://{address}") or address
        called += [] if is_this_machine(host) else [("engine", f"Ray at {host}")]
    fix = "Leave it out, name something on this machine, or leave --local-only out."
    return [Fault(setting, "nothing that calls another machine, with --local-only", Shown(got), fix)
            for setting, got in called]  # fmt: skip


def _hub_names(config: RunConfig) -> list[tuple[str, str]]:
    """Returns (setting, what) of everything that would be fetched from the Hub, or sent to it."""
    models = {"--model": config.model, "enhance.student_model": config.enhance.student_model}
    for role, ref in (("judge", config.enhance.judge_model), ("teacher", teacher_of(config.enhance))):
        models[f"enhance.{role}_model"] = local_name(resolve_alias(ref))
    if student_of(config.enhance, config.model)[0] == "http":
        models.pop("enhance.student_model")
    tests = {"--dataset": None if config.writes_rows else config.dataset, "--held-out": config.split.held_out}
    tests |= {f"--eval-file {name}": name for name in config.split.eval_file}
    tests["validate.forgetting"] = config.validate_.forgetting
    hub = "the Hugging Face Hub"
    away = [(setting, name) for setting, name in models.items() if name and not is_here(name)]
    called = [(setting, f"{name} of {'a package index' if hub_name_of(name) else hub}") for setting, name in away]
    called += [(setting, f"{name} of {hub}") for setting, name in tests.items() if name and hub_name(name)]
    called += [("--hub-id", hub)] if config.hub_id else []
    return called + ([("validate.lm_eval", hub)] if config.validate_.lm_eval else [])

"""Trains once with the back end that suits model and GPU, or several times and keeps the best on the dev rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown, UserError
from socratune.inference import ENOUGH_TOKENS, Shape, mean_kl, plan_memory, student_grade
from socratune.llm import model_json
from socratune.rows import Example
from socratune.runs import RunDir, Tick
from socratune.training.monitor import Exam, TrainingMonitor, trackers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """What to train on, and who observes.

    Attributes:
        items: rendered rows, or the items that the method makes of them.
        begins: an adapter to start from; None starts from a new one.
        report_to: trackers besides TensorBoard, by name.
    """

    run: RunDir
    model_name: str
    items: list[Any]
    exam: Exam
    tick: Tick
    seed: int
    report_to: Sequence[str]
    begins: Path | None = None


Fitted = tuple[Any, Any, dict[str, Any]]
"""The adapter on its base, the training's course (`TrainState`), and its speed."""


def fit_adapter(
    job: TrainingJob, model: Any, config: EnhancedTrainingConfig, arm: str = "", part: tuple[int, int] = (0, 1)
) -> Fitted:
    """Trains, or only loads what is finished already.

    Args:
        model: the base, or the adapter that was trained on it before.
        arm: names the checkpoints and curves of one of several trainings.
        part: (this training, number of trainings).
    """
    from socratune.inference import free_gib, ranks, torch_device
    from socratune.training import engine
    from socratune.training.monitor import flops_per_token
    from socratune.training.steps import Hooks

    shape = model_json(job.model_name, "config.json")
    flops = flops_per_token(shape, [(len(item.ids), len(item.trained_ids)) for item in job.items])
    name = "/".join(filter(None, (job.run.root.resolve().name, arm)))
    curves = trackers(job.report_to, job.run.tensorboard / arm, name) if ranks.leads() else []
    monitor = TrainingMonitor(curves, job.exam, job.tick, flops, part)
    hooks, checkpoints = Hooks(monitor.evaluate, monitor.step), job.run.checkpoints / arm
    free = free_gib() if torch_device().type == "cuda" else None
    if ranks.size() > 1:
        backend, reason = "hf", f"{ranks.size()} processes share each step, which Unsloth does not"
    else:
        backend, reason = choose_backend(config.backend, shape, config, free_gib=free)
    log.info("Training with %s: %s.", backend, reason)
    if backend == "hf":
        trained, state = engine.train_hf(model, job.items, config, checkpoints, hooks, seed=job.seed, begins=job.begins)
    else:
        from socratune.training import unsloth

        if not getattr(model, "is_loaded_in_4bit", False):  # bitsandbytes does not let its weights go
            model.to("meta")  # its memory is for the copy that Unsloth loads
        own, _ = unsloth.load_unsloth(job.model_name, config)
        trained, state = unsloth.train_unsloth(own, job.items, config, checkpoints, hooks, seed=job.seed)
    monitor.close()
    return trained, state, monitor.speed()


def sweep_rates(job: TrainingJob, model: Any, config: EnhancedTrainingConfig) -> Fitted:
    """Trains with each multiple of the learning rate and returns the training whose best epoch is best on the dev rows.

    Among equals the smallest rate wins, as it changes the base least. Larger rates are skipped once every dev row is
    right.

    Raises:
        UserError: there are no dev rows.
    """
    if not job.exam.questions.get("dev"):
        fix = "Raise split.dev_share (and --restart split), or leave it out where rules cannot judge the answers."
        raise UserError(Fault("train.by_dev.sweep_lr", "dev rows to choose by", Shown("none"), fix))
    rates = sorted(config.learning_rate * multiple for multiple in set(config.by_dev.sweep_lr))
    scores: dict[float, float] = {}
    figures: dict[str, Any] = {}
    for at, rate in enumerate(rates):
        arm = config.model_copy(update={"learning_rate": rate})
        model, state, speed = fit_adapter(job, model, arm, f"lr-{rate:g}", (at, len(rates)))
        scores[rate] = state.best_score
        figures = speed or figures
        if state.best_score == 1.0:  # none can be better, and of equals the smallest is kept
            break
    best = max(scores, key=lambda rate: (scores[rate], -rate))
    log.info(
        "Learning rates by dev accuracy: %s.", ", ".join(f"{rate:g}: {score:.1%}" for rate, score in scores.items())
    )
    arm = config.model_copy(update={"learning_rate": best})
    trained, state, _ = fit_adapter(job, model, arm, f"lr-{best:g}")
    table = [{"learning_rate": rate, "dev_accuracy": score} for rate, score in scores.items()]
    return trained, state, {**figures, "learning_rate": best, "sweep": table}


# --- how close the models that wrote the traces are to the trained one ----------------------------------------------

MEASURED_ROWS = 32


def graded_students(
    students: list[dict[str, Any]], base: dict[str, Any], model: Any, tokenizer: Any, examples: list[Example]
) -> dict[str, dict[str, Any]]:
    """Returns `grade` and `reason` for each model that wrote traces, by name. Warns about each that is not `same`.

    If only the quantisation differs, the student is loaded beside the base while `mean_kl_nats` (see
    `inference.mean_kl`) is measured on 32 of the rows. Another engine shows no distributions, and an adapter is meant
    to differ.

    Args:
        students: see `inference.trace_writers`.
        base: identity of the model that is trained.
        model: the base, loaded, in eval mode.
        tokenizer: its tokenizer.
        examples: training rows.
    """
    graded = {}
    for student in students:
        level, reason = student_grade(student, base)
        entry: dict[str, Any] = {"grade": level, "reason": reason}
        if level == "near" and student["engine"] == "local" and "adapter" not in student:
            four_bit = student["quantisation"] == "4bit"
            entry["mean_kl_nats"] = _divergence(student["name"], four_bit, model, tokenizer, examples[:MEASURED_ROWS])
            reason += f"; the next token differs by {entry['mean_kl_nats']:.4f} nats (mean KL)"
        if level != "same":
            log.warning("Student %s, graded %s: %s.", student["name"], level, reason)
        graded[student["name"]] = entry
    return graded


def _divergence(name: str, load_in_4bit: bool, model: Any, tokenizer: Any, examples: list[Example]) -> float:
    from socratune.inference import load_model

    other, _ = load_model(name, load_in_4bit=load_in_4bit)
    return round(mean_kl(other, model, tokenizer, examples), 6)


# --- which back end trains -----------------------------------------------------------------------------------------

UNSLOTH_FAMILIES = frozenset(
    ("cohere", "falcon_h1", "gemma", "gemma2", "gemma3", "gemma3_text", "granite", "llama", "mistral", "qwen2", "qwen3")
)
"""The `model_type`s for which Unsloth has fast code."""


def unsloth_faults(name: str, config: EnhancedTrainingConfig) -> list[Fault]:
    """Returns why Unsloth could not train the model on this machine, as far as settings, package and tokenizer show.

    Raises:
        OutsideError: the model is on the Hub, and the Hub could not be asked.
    """
    if fault := _unsloth_fault(config):
        return [fault]
    from socratune.training.unsloth import pad_token_fault  # imports torch

    fault = pad_token_fault(name)
    return [fault] if fault else []


def _unsloth_fault(config: EnhancedTrainingConfig) -> Fault | None:
    """Returns why Unsloth could not train on this machine with these settings, whatever the model; None if it could."""
    for name, needed in ((f"method: {config.method}", config.reads_traces), ("fp8: true", config.fp8)):
        if needed:
            return Fault("--backend unsloth", "what Unsloth can do", Shown(name), "--backend hf.")
    if find_spec("unsloth") is None:
        fix = "pip install 'socratune[gpu]', or --backend hf."
        return Fault("--backend unsloth", "the package unsloth", Shown("not installed"), fix)
    return None


def choose_backend(
    asked: Literal["auto", "hf", "unsloth"],
    model: Mapping[str, Any],
    config: EnhancedTrainingConfig,
    *,
    free_gib: float | None,
) -> tuple[str, str]:
    """Returns `hf` or `unsloth`, and the reason for people.

    `auto` takes `hf`, which is faster on packed rows and equal on others, if the model fits that way.

    Args:
        asked: the setting `train.backend`.
        model: the values of its `config.json`.
        free_gib: free memory of the GPU, weights included; None without a CUDA GPU.

    Raises:
        UserError: `unsloth` was chosen and is not installed, or does not support it.
    """
    spec = find_spec("unsloth")
    installed = spec is not None and spec.origin is not None  # a mere folder `unsloth` on the path has no origin
    if asked == "hf":
        return "hf", "asked for"
    if asked == "unsloth":
        if fault := _unsloth_fault(config):
            raise UserError(fault)
        return "unsloth", "asked for"
    family = model.get("text_config", model).get("model_type", "")
    if free_gib is None:
        return "hf", "there is no CUDA GPU, for which Unsloth's kernels are written"
    if not installed or config.reads_traces or config.fp8:
        return "hf", f"Unsloth has neither {config.method} nor fp8" if installed else "Unsloth is not installed"
    if family not in UNSLOTH_FAMILIES:
        return "hf", f"Unsloth has no fast code for models of the family {family!r}"
    try:
        shape = Shape.of(model)
    except KeyError as missing:
        return "hf", f"the model's memory cannot be counted ({missing} is not in its configuration)"
    four_bit = None if config.load_in_4bit == "auto" else config.load_in_4bit
    longest = ENOUGH_TOKENS if config.max_seq_length == "auto" else config.max_seq_length
    if plan_memory(shape, free_gib, longest=longest, rank=config.r, load_in_4bit=four_bit):
        return "hf", "the model fits, and packed rows are faster there than in Unsloth (1.3 to 1.6 times on one H200)"
    return "unsloth", f"the model does not fit {free_gib:.1f} GiB otherwise; Unsloth keeps activations in main memory"

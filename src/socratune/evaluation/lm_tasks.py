"""Runs public tasks through lm-eval (EleutherAI's harness) on base and adapter. An optional extra, loaded on demand."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from socratune.errors import Fault, OutsideError, Shown

BATCH = 8


def lm_eval_fault(tasks: list[str]) -> Fault | None:
    """Returns why these tasks cannot run here, or None."""
    if not tasks or find_spec("lm_eval") is not None:
        return None
    fix = "Install it: pip install 'socratune[lm-eval]'."
    return Fault("validate.lm_eval", "the package lm-eval", Shown("no such package"), fix)


def task_results(model: Any, tokenizer: Any, tasks: list[str]) -> dict[str, Any]:
    """Runs the tasks and returns task → `base` and `adapter`: metrics and standard errors as lm-eval names them.

    The prompts are the tasks' own, in the model's chat template, as in its training.

    Args:
        model: a PEFT model in eval mode, its adapter enabled.
        tokenizer: its tokenizer.
        tasks: names that lm-eval knows, or YAML files of tasks.

    Raises:
        OutsideError: lm-eval does not know a task, or cannot load its data.
    """
    with model.disable_adapter():
        base = _evaluated(model, tokenizer, tasks)
    adapter = _evaluated(model, tokenizer, tasks)
    return {task: {"base": figures, "adapter": adapter[task]} for task, figures in base.items()}


def _evaluated(model: Any, tokenizer: Any, tasks: list[str]) -> dict[str, dict[str, float]]:
    from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

    judged = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=BATCH)
    try:
        found = simple_evaluate(model=judged, tasks=tasks, apply_chat_template=True, log_samples=False)
    except Exception as error:  # unknown tasks, an unreachable Hub, broken data sets: they share no class
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise OutsideError(f"lm-eval could not run {', '.join(tasks)}: {reason}.") from error
    assert found is not None, "only a process of several GPUs gets nothing"
    return {task: _numbers(figures) for task, figures in found["results"].items()}


def _numbers(figures: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}

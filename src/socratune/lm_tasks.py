"""Public tasks through lm-eval (EleutherAI's harness), for base and adapter alike; an extra, loaded when asked for."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from socratune.errors import Fault, Shown


def lm_eval_fault(tasks: list[str]) -> Fault | None:
    """Why these tasks cannot be run here, or None."""
    if not tasks or find_spec("lm_eval") is not None:
        return None
    fix = "Install it: pip install 'socratune[lm-eval]'."
    return Fault("validate.lm_eval", "the package lm-eval", Shown("no such package"), fix)


def task_results(model: Any, tokenizer: Any, tasks: list[str]) -> dict[str, Any]:
    """Task → `base` and `adapter`: the task's own metrics, with their standard errors.

    Args:
        model: a PEFT model in eval mode, its adapter switched on.
        tokenizer: its tokenizer.
        tasks: names lm-eval knows, or paths of task files.

    Raises:
        OutsideError: lm-eval does not know a task or cannot get its data.
    """
    raise NotImplementedError

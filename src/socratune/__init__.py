"""Socratune: LoRA adapters that reason better than the model they started from, and the proof."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socratune.api import LogComparison, RunResult, compare, enhance, judge, run
    from socratune.config import EnhancedTrainingConfig, GrokkingConfig, StudentTeacherConfig
    from socratune.errors import OutsideError, SocratuneError, UserError
    from socratune.llm import model_location
    from socratune.rows import Judgement

__version__ = "0.1.0"

_HOMES = {
    "LogComparison": "socratune.api",
    "EnhancedTrainingConfig": "socratune.config",
    "GrokkingConfig": "socratune.config",
    "Judgement": "socratune.rows",
    "OutsideError": "socratune.errors",
    "RunResult": "socratune.api",
    "SocratuneError": "socratune.errors",
    "StudentTeacherConfig": "socratune.config",
    "UserError": "socratune.errors",
    "compare": "socratune.api",
    "enhance": "socratune.api",
    "judge": "socratune.api",
    "model_location": "socratune.llm.locate",
    "run": "socratune.api",
}

__all__ = [
    "EnhancedTrainingConfig",
    "GrokkingConfig",
    "Judgement",
    "LogComparison",
    "OutsideError",
    "RunResult",
    "SocratuneError",
    "StudentTeacherConfig",
    "UserError",
    "compare",
    "enhance",
    "judge",
    "model_location",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import socratune` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

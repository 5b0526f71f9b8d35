"""Every error that Socratune raises on purpose, and the exit code of each.

    SocratuneError
    ├── UserError        2    something that was given is wrong; holds every fault found, not the first
    │   └── BusyError    2    another process works on this run folder
    ├── CallError        3    one model call failed for good (refused, filtered); its row is kept with outcome `error`
    ├── StageFailed      1    a stage came to a negative result (no trainable row, not better than the base)
    └── OutsideError     3    something outside failed (Hub, provider, disk); the same command resumes

Anything else that escapes is a bug of ours: exit code 70, with its traceback in `run.log`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One error in what the user provided.

    Attributes:
        where: file and line, config key or flag.
        expected: what would have been right.
        got: what came, shown as `repr`; `None` where there is nothing to show.
        fix: what to do next, a sentence; may be empty.
    """

    where: str
    expected: str
    got: Any = None
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: expected {self.expected}"
        if self.got is not None:
            shown = self.got if isinstance(self.got, Shown) else repr(self.got)
            text += f", got {shown if len(shown) <= 120 else shown[:117] + '...'}"
        return f"{text}. {self.fix}" if self.fix else text


class Shown(str):
    """A `Fault.got` that is already a description ("nothing", "a directory") and is shown without quotes."""


class SocratuneError(Exception):
    """The root of the tree in the module docstring."""

    exit_code = 70
    stage_status = "error"
    """The status of the stage that this error ends, and of the run."""


class UserError(SocratuneError, ValueError):
    """Something that the user provided is wrong. `faults` holds every error that was found."""

    exit_code = 2

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        super().__init__("\n".join(str(fault) for fault in faults))

    def __reduce__(self) -> tuple[type, tuple[Fault, ...]]:
        return type(self), self.faults


def one_line(error: BaseException, most: int = 300) -> Shown:
    """Returns the text of an error in one line of at most `most` characters, or its kind if it has no text."""
    return Shown(" ".join(str(error).split())[:most] or type(error).__name__)


INSTALL_TRAIN = "pip install 'socratune[train]'"
_TRAIN_LIBRARIES = ("torch", "transformers", "peft", "tensorboard", "tokenizers", "jinja2", "accelerate")


def without_extra(error: BaseException) -> UserError | None:
    """Returns what to report if an import failed without the extra `train` or on Windows, and None for other errors."""
    if isinstance(error, ModuleNotFoundError) and error.name == "fcntl":
        expected = "Linux or macOS, which lock the files of a run"
        fix = "Run Socratune in WSL: https://learn.microsoft.com/windows/wsl/install"
        return UserError(Fault("this machine", expected, Shown(sys.platform), fix))
    if not isinstance(error, ModuleNotFoundError) or (error.name or "").partition(".")[0] not in _TRAIN_LIBRARIES:
        return None
    fix = f"Run: {INSTALL_TRAIN}"
    return UserError(Fault(str(error.name), "the libraries that run and train models", Shown("not installed"), fix))


def need_train_extra() -> None:
    """Checks that the libraries that every run requires are installed.

    Raises:
        UserError: the extra `train` is missing.
    """
    for name in _TRAIN_LIBRARIES[:3]:
        if find_spec(name) is None:
            raise without_extra(ModuleNotFoundError(name, name=name)) or AssertionError(name)


class BusyError(UserError):
    """Another process holds the lock of the run folder."""


class StageFailed(SocratuneError):
    """A stage ran to its end and the result is negative; more of the same will not change it."""

    exit_code = 1
    stage_status = "failed"


class CallError(SocratuneError):
    """One model call failed permanently: a retry would give the same result. It is no verdict on any answer."""

    exit_code = 3


class OutsideError(SocratuneError, OSError):
    """Something outside this program failed. Finished work is kept, and the same command resumes from there."""

    exit_code = 3


def is_interrupt(error: BaseException | None) -> bool:
    """Returns True for Ctrl-C, also if a library replaced it with an error of its own (such as an interrupted
    import).
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False

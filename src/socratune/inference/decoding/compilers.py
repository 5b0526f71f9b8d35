"""Keeps compilers quiet, and shortens their errors, pages of a stack, to one line for people."""

from __future__ import annotations

import logging
import os
import warnings

NAMES = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch._higher_order_ops", "torch.fx", "triton")


def hush_compilers() -> None:
    """Silences the stacks of compilers. What cannot be compiled is reported in our words, and runs uncompiled.

    If TORCH_LOGS is set, somebody wants to read them, and nothing changes.
    """
    if "TORCH_LOGS" in os.environ:
        return
    for name in NAMES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=name.replace(".", r"\."))


def error_line(error: BaseException) -> str:
    """Returns an error in one line: its kind and its first line. The whole error belongs into the run's log."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__

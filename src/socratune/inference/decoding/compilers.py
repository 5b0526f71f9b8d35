"""What compilers say of a model: pages of a stack, of which one line is for people."""

from __future__ import annotations

import logging
import os
import warnings

NAMES = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch._higher_order_ops", "torch.fx", "triton")


def hush_compilers() -> None:
    """Have compilers keep their stacks to themselves; what cannot be compiled is said in our words, and runs as it is.

    Where TORCH_LOGS is set somebody wants to read them.
    """
    if "TORCH_LOGS" in os.environ:
        return
    for name in NAMES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=name.replace(".", r"\."))


def error_line(error: BaseException) -> str:
    """An error in one line: its kind and what it begins with. The whole of it belongs into the run's log."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__

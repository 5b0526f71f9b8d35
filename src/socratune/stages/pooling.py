"""Pools the figures of shards into those of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from socratune.llm import Ledger


def pooled_figures(shards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the figures of the whole that its journal does not hold, from those of all shards.

    Money spent and measured hints add up. The models are the same in all.
    """
    first, ledger = shards[0], Ledger()
    for figures in shards:
        ledger.carry_over(figures["spent"])
    measured = [figures["leaks"] for figures in shards if figures.get("leaks")]
    hints = sum(leaks["measured"] for leaks in measured)
    leaking = sum(leaks["rate"] * leaks["measured"] for leaks in measured)
    return {
        **{name: value for name, value in first.items() if name.endswith("_model") or name == "student"},
        "spent": ledger.summary(),
        "leaks": {"measured": hints, "rate": leaking / hints} if hints else None,
    }

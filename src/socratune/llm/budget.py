"""Divides the money of a run among its parts.

A part may spend its share and what finished parts before it have left; what is promised to the others stays theirs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from socratune.config import RENT_USD, BudgetConfig
from socratune.errors import Fault, Shown

PARTS = {"generate": "writer and checker", "enhance": "judge and teacher", "where": "the rented machine"}
"""The parts of a run that cost money, in order: the setting of `budget`, and who spends it."""
_WEIGHTS = {"generate": 1, "enhance": 2, "where": 3}
"""The weights by which `max_usd` is divided among the parts of a run."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Holds the money of a run. `max_usd` caps the whole; a part's own amount caps that part within it.

    Attributes:
        max_usd: None: there is no cap on the whole.
        shares: of the parts that it pays for; None is no limit.
        own: the parts whose share is an amount of their own: what earlier parts leave does not come on top.
    """

    max_usd: float | None
    shares: Mapping[str, float | None]
    own: frozenset[str] = frozenset()

    def limit(self, part: str, spent: Mapping[str, float], *, over: Collection[str] = ()) -> float | None:
        """Returns what a part may spend in total. None is no limit.

        Args:
            spent: by part, so far.
            over: parts that will spend no more.
        """
        share = self.shares.get(part)
        if self.max_usd is None or share is None:
            return share
        promised = carried = left = 0.0
        for other in PARTS:
            paid, own = spent.get(other, 0.0), self.shares.get(other) or 0.0
            if other == part:
                carried = carried if part in self.own else 0.0
            elif other in over or other not in self.shares:
                promised, carried, left = promised + paid, carried + own - paid, left + own - paid
            elif other in self.own:  # what was left passes it by
                promised += max(paid, own)
            else:
                promised, carried = promised + max(paid, own + carried), 0.0
        return max(0.0, min(self.max_usd - promised, share if part in self.own else share + left))

    def raised_by(self, part: str) -> str:
        """Returns the setting that raises the limit of a part."""
        return "--max-usd USD" if self.max_usd is not None and part not in self.own else f"--set budget.{part}=USD"

    def enough_for(self, part: str, usd: float) -> str:
        """Returns the setting with which the share of a part reaches `usd`, in whole cents."""
        if self.max_usd is None:
            return f"--set budget.{part}={_cents(usd)}"
        fixed = sum(self.shares[name] or 0.0 for name in self.own)
        if part in self.own:
            wanted = fixed - (self.shares[part] or 0.0) + float(_cents(usd))
            total = f"--max-usd {_cents(wanted)} " if wanted > self.max_usd else ""
            return f"{total}--set budget.{part}={_cents(usd)}"
        weight = sum(_WEIGHTS[name] for name in self.shares if name not in self.own)
        return f"--max-usd {_cents(fixed + usd * weight / _WEIGHTS[part])}"

    def to_json(self, spent: Mapping[str, float]) -> dict[str, Any]:
        """Returns `share_usd` (None is no limit) and `spent_usd` of every part, for `pipeline_results.json`."""
        parts = {part: {"share_usd": share, "spent_usd": round(spent.get(part, 0.0), 6)}
                 for part, share in self.shares.items()}  # fmt: skip
        return {"max_usd": self.max_usd, "parts": parts}


def shared_out(max_usd: float | None, own: BudgetConfig, parts: Collection[str]) -> Budget:
    """Returns the budget of a run with these parts. Parts with their own amount get it; the others share the rest."""
    if max_usd is None:
        rent = {None: RENT_USD, "unlimited": None}.get(own.where, own.where)  # type: ignore[call-overload]
        return Budget(None, {part: rent if part == "where" else getattr(own, part) for part in PARTS if part in parts})
    fixed = {part: usd for part in PARTS if part in parts and isinstance(usd := getattr(own, part), float)}
    rest = max(0.0, max_usd - sum(fixed.values()))
    weight = sum(_WEIGHTS[part] for part in parts if part not in fixed)
    shares = {part: fixed.get(part, rest * _WEIGHTS[part] / (weight or 1)) for part in PARTS if part in parts}
    return Budget(max_usd, shares, frozenset(fixed))


def budget_faults(max_usd: float | None, own: BudgetConfig) -> list[Fault]:
    """Returns why the amounts of the parts contradict the cap on the whole."""
    if max_usd is None:
        return []
    faults, amounts = [], {name: usd for name, usd in own if isinstance(usd, float)}
    if own.where == "unlimited":
        fix = "Leave it out: the machine then has its share of max_usd, and what earlier parts leave."
        faults.append(Fault("budget.where", "an amount in USD beside max_usd, which caps everything", own.where, fix))
    if sum(amounts.values()) > max_usd:
        got = Shown(", ".join(f"{name} {usd:g}" for name, usd in amounts.items()))
        faults.append(Fault("budget", f"amounts of at most max_usd together, {max_usd:g} USD", got))
    return faults


def _cents(usd: float) -> str:
    """Returns USD rounded up to whole cents."""
    return f"{math.ceil(usd * 100 - 1e-6) / 100:.2f}"


def budget_text(budget: Mapping[str, Any]) -> str:
    """Returns `budget 12 USD: writer and checker 0 of 2 USD, judge and teacher 1.2 of 4 USD, …`."""
    shown = []
    for part, usd in budget["parts"].items():
        share = "no limit" if usd["share_usd"] is None else f"{usd['share_usd']:.4g}"
        shown.append(f"{PARTS[part]} {usd['spent_usd']:.4g} of {share}")
    text = ", ".join(shown)
    if budget["max_usd"] is None:
        return f"USD spent: {text}"
    flows = "; what a part leaves, later ones may spend" if len(shown) > 1 else ""
    return f"budget {budget['max_usd']:g} USD, spent: {text}{flows}"

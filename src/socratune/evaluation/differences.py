"""What of stored figures is not what was derived, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

_DRAWN = ("ci95", "p", "drop_upper95", "rows_needed")
"""Figures that are drawn: another version of numpy may draw otherwise."""
_ROUGHLY, _EXACTLY = 0.02, 1e-9
_IN_WORDS = ("examples", "reason", "strata", "test", "interval")
"""What other versions say otherwise, and nothing rests on."""


def differences(stored: Any, derived: Any, *, exact: bool, path: str = "") -> list[str]:
    """Where a stored figure is another than the derived one. What is stored besides is not looked at.

    Args:
        exact: both were made by the same programs.
    """
    return list(_found(stored, derived, exact, path, _EXACTLY))


def _found(stored: Any, derived: Any, exact: bool, path: str, near: float) -> Iterator[str]:
    if isinstance(derived, dict) and isinstance(stored, dict):
        for name, value in stored.items():
            if name in derived and (exact or name not in _IN_WORDS):
                loose = name in _DRAWN and not exact
                inner = f"{path}.{name}" if path else name
                if name == "rows_needed" and loose:
                    continue
                yield from _found(value, derived[name], exact, inner, _ROUGHLY if loose else near)
    elif isinstance(derived, list) and isinstance(stored, list) and len(derived) == len(stored):
        for one, other in zip(stored, derived, strict=True):
            yield from _found(one, other, exact, path, near)
    elif not _equal(stored, derived, near):
        yield f"The stored {path} is {_shown(stored)}, but the answers come to {_shown(derived)}."


def _equal(stored: Any, derived: Any, near: float) -> bool:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (stored, derived)]
    if all(numbers):
        return math.isclose(stored, derived, rel_tol=1e-9, abs_tol=near)
    return type(stored) is type(derived) and stored == derived


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

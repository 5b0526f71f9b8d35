"""Describes in sentences where stored numbers differ from derived numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

_DRAWN = ("ci95", "p", "drop_upper95", "rows_needed")
"""Numbers that are drawn at random. Another version of numpy may draw differently."""
_ROUGHLY, _EXACTLY = 0.02, 1e-9
_IN_WORDS = ("examples", "reason", "strata", "test", "interval")
"""Values that other versions word differently, and that nothing depends on."""


def differences(stored: Any, derived: Any, *, exact: bool, path: str = "") -> list[str]:
    """Returns where a stored number differs from the derived number. Values that are only stored are ignored.

    Args:
        exact: the same programs made both.
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

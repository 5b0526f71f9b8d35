"""The teachers of the controls. Their runs name this file, or a copy of it beside `hints.json`, as `python:FILE:F`."""

from __future__ import annotations

import json
from functools import cache
from hashlib import sha256
from pathlib import Path

HINTS = "hints.json"


def try_again(question: str, reference: str, responses: list[str]) -> str:
    """Returns a hint without information."""
    return "Try again."


def other_rows_hint(question: str, reference: str, responses: list[str]) -> str | None:
    """Returns a hint for another question, always the same one for the same question and round."""
    hints = [hint for asked, hint in _hints() if asked != question]
    digest = sha256(f"{question}/{len(responses)}".encode()).digest()
    return hints[int.from_bytes(digest[:8], "big") % len(hints)] if hints else None


@cache
def _hints() -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(Path(__file__).with_name(HINTS).read_text("utf-8"))]

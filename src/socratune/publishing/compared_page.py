"""A comparison as one page for a person, in the look of a run's report: flips first, the lost ones at their front."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from socratune.errors import OutsideError
from socratune.publishing.compared_text import compared_cells, compared_headline, compared_sentences, gain_of
from socratune.publishing.filling import filled_page, script_json, shortened

_SCRIPTS = ("text.js", "overview.js", "list.js", "compare.js")
PAGE_BYTES = 30_000_000
"""What the questions may take of the page."""
_CUT_TEXT = 2_000
"""Characters that stay of a text."""


def write_comparison(path: Path, result: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write the page.

    Raises:
        OutsideError: it cannot be written.
    """
    try:
        path.write_text("".join(comparison_page(result, rows)), "utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutsideError(f"{path}: cannot be written: {error.strerror}.") from error


def comparison_page(result: dict[str, Any], rows: list[dict[str, Any]], home: str = "") -> Iterator[str]:
    """The page in parts.

    Args:
        rows: of `compared_rows`; none where the questions are not to be shown.
        home: where the list of all runs is; empty where there is none.
    """
    told = {"headline": compared_headline(result), "sentences": compared_sentences(result)}
    data = {**result, **told, "cells": list(compared_cells(result)), "home": home}
    first = result["metrics"][0]
    held = _Held(sorted(rows, key=lambda row: _rank(gain_of(row, first))))

    def whole() -> Iterator[str]:
        yield script_json({**data, "left_out": held.left_out})

    parts = {"rows": held, "compared": whole()}
    return filled_page("compare.html", _SCRIPTS, parts)


def _rank(gain: float) -> tuple[int, float]:
    """Lost, then won, then level; the largest first."""
    return (0, gain) if gain < 0 else (1, -gain) if gain > 0 else (2, 0.0)


class _Held:
    """The rows that fit into the page, as JSON in parts."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows
        self.left_out = 0

    def __iter__(self) -> Iterator[str]:
        left = PAGE_BYTES
        yield "["
        for at, row in enumerate(self._rows):
            text = script_json(shortened(row, _CUT_TEXT))
            left -= len(text)
            if left < 0:
                self.left_out = len(self._rows) - at
                break
            yield f",\n{text}" if at else text
        yield "]"

"""Writes a comparison as one page in the style of a run's report: changed answers first, the lost ones at the top."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from socratune.publishing.compared_text import compared_cells, compared_headline, compared_sentences, gain_of
from socratune.publishing.filling import CUT_TEXT, Embedded, filled_page, script_json, shortened
from socratune.runs import write_lines

_SCRIPTS = ("text.js", "overview.js", "list.js", "compare.js")
PAGE_BYTES = 30_000_000
"""What the questions may take of the page."""


def write_comparison(path: Path, result: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Writes the page.

    Raises:
        OutsideError: it cannot be written.
    """
    write_lines(path, comparison_page(result, rows))


def comparison_page(result: dict[str, Any], rows: list[dict[str, Any]], home: str = "") -> Iterator[str]:
    """Yields the page in parts.

    Args:
        rows: of `compared_rows`; none where the questions are not to be shown.
        home: where the list of all runs is; empty where there is none.
    """
    told = {"headline": compared_headline(result), "sentences": compared_sentences(result)}
    data = {**result, **told, "cells": list(compared_cells(result)), "home": home}
    first = result["metrics"][0]
    ranked = sorted(rows, key=lambda row: _rank(gain_of(row, first)))
    held = Embedded((shortened(row, CUT_TEXT) for row in ranked), PAGE_BYTES)

    def whole() -> Iterator[str]:
        yield script_json({**data, "left_out": len(rows) - held.shown})

    return filled_page("compare.html", _SCRIPTS, {"rows": held, "compared": whole()})


def _rank(gain: float) -> tuple[int, float]:
    """Orders lost before won before equal, the largest change first."""
    return (0, gain) if gain < 0 else (1, -gain) if gain > 0 else (2, 0.0)

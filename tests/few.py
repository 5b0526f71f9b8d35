"""What the embedded model must not unlearn, in so few questions that asking them costs next to nothing."""

from __future__ import annotations

from pathlib import Path

from conftest import demo_rows, write_rows

COUNT = 24


def few_forgetting_questions(folder: Path) -> Path:
    """A data set for `validate.forgetting`: every eighteenth of the 432 questions that the embedded model is asked."""
    return write_rows(folder / "forgetting.jsonl", demo_rows("probe", 432)[:: 432 // COUNT])

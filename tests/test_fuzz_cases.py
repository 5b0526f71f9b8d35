"""What `make fuzz` has found, tried again: `tests/samples/fuzz/TARGET.jsonl`, one case per line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fuzz import folders
from fuzz.targets import TARGETS, try_case

CASES = Path(__file__).parent / "samples" / "fuzz"


def cases(target: str) -> list[dict[str, Any]]:
    path = CASES / f"{target}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_what_was_found_once_stays_mended(target: str) -> None:
    import peft.utils.transformers_weight_conversion  # noqa: F401  (seconds of its own, which are no case's)
    import transformers.models.llama.modeling_llama  # noqa: F401

    broken, still_open = [], []
    for one in cases(target):
        try:
            try_case(target, one["case"])
        except Exception as error:
            told = f"{json.dumps(one['case'])[:300]}\n    {type(error).__name__}: {error}"
            (still_open if "open" in one else broken).append(told)
    assert not broken, "\n".join(broken)
    if still_open:
        pytest.xfail(f"known and not mended yet: {len(still_open)}")


@pytest.mark.parametrize("case", [one["case"] for one in cases("runs")], ids=json.dumps)
def test_a_damaged_folder_ends_no_command_in_a_bug(case: dict[str, Any], finished_run: Path, tmp_path: Path) -> None:
    folders.try_damage(case, finished_run)

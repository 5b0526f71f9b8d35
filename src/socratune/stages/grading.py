"""How near the models that wrote the traces are to the one that is trained: said, and measured where it can be."""

from __future__ import annotations

import logging
from typing import Any

from socratune.identity import grade, mean_kl
from socratune.rows import Example

log = logging.getLogger(__name__)

MEASURED_ROWS = 32


def graded(
    students: list[dict[str, Any]], base: dict[str, Any], model: Any, tokenizer: Any, examples: list[Example]
) -> dict[str, dict[str, Any]]:
    """Name → `grade` and `reason`, of each model that wrote traces; whatever is not `same` is warned of.

    Where only the quantisation differs, the student is loaded beside the base for as long as it takes to measure
    `mean_kl_nats` (see `socratune.identity.mean_kl`) on 32 of the rows. Another engine shows no distributions, and an
    adapter is meant to differ.

    Args:
        students: see `socratune.identity.writers`.
        base: identity of the model that is trained.
        model: the base, loaded, in eval mode.
        tokenizer: its tokenizer.
        examples: training rows.
    """
    found = {}
    for student in students:
        level, reason = grade(student, base)
        entry: dict[str, Any] = {"grade": level, "reason": reason}
        if level == "near" and student["engine"] == "local" and "adapter" not in student:
            four_bit = student["quantisation"] == "4bit"
            entry["mean_kl_nats"] = _divergence(student["name"], four_bit, model, tokenizer, examples[:MEASURED_ROWS])
            reason += f"; the next token differs by {entry['mean_kl_nats']:.4f} nats (mean KL)"
        if level != "same":
            log.warning("Student %s, graded %s: %s.", student["name"], level, reason)
        found[student["name"]] = entry
    return found


def _divergence(name: str, load_in_4bit: bool, model: Any, tokenizer: Any, examples: list[Example]) -> float:
    from socratune.load import load

    other, _ = load(name, load_in_4bit=load_in_4bit)
    return round(mean_kl(other, model, tokenizer, examples), 6)

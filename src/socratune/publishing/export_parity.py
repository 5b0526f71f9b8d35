"""Checks whether an export answers like the adapter: greedy answers of both, compared token by token.

Where they part, the gap between the two tokens' logits tells rounding from a fault: two candidates that lie closer
than the precision of 16-bit logits may change places in any correct export.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from socratune.inference import prompt_ids
from socratune.llm import Completion, Sampling
from socratune.rows import QARow

NEAR_TIE_STEPS = 2.0
"""Logits this many steps of bfloat16 apart count as equal."""

Load = Callable[[], tuple[Any, Any]]
"""Gives a model in eval mode and its tokenizer."""


def parity(
    rows: list[QARow], adapter: Load, exported: Load, *, max_new_tokens: int, min_agreement: float
) -> dict[str, Any]:
    """Compares the greedy answers to `rows`. Only one model is in memory at a time.

    Returns:
        `prompts`, `equal` (answers alike to the last token), `near_ties` (answers that part where the export's two
        candidates are within `NEAR_TIE_STEPS`), `agreement` (the share of both), `passed`, and `divergences`: for each
        answer that parts the row's `id`, the first token `at` which it does, both tokens, and the `logit_gap`.
    """
    expected = _answers(*adapter(), rows, max_new_tokens)
    model, tokenizer = exported()
    found = _answers(model, tokenizer, rows, max_new_tokens)
    parted = [
        _divergence(model, tokenizer, row, before, after)
        for row, before, after in zip(rows, expected, found, strict=True)
        if before.token_ids != after.token_ids
    ]
    near = sum(parting["near_tie"] for parting in parted)
    agreement = (len(rows) - len(parted) + near) / len(rows)
    return {
        "passed": agreement >= min_agreement,
        "prompts": len(rows),
        "equal": len(rows) - len(parted),
        "near_ties": near,
        "agreement": round(agreement, 4),
        "min_agreement": min_agreement,
        "max_new_tokens": max_new_tokens,
        "divergences": sorted(parted, key=lambda parting: -parting["logit_gap"]),
    }


def _answers(model: Any, tokenizer: Any, rows: list[QARow], max_new_tokens: int) -> list[Completion]:
    from socratune.inference import LocalStudent, serving_student

    async def ask(student: LocalStudent) -> list[Completion]:
        greedy = Sampling(temperature=0.0, max_new_tokens=max_new_tokens)
        return await asyncio.gather(*(student.generate(row.prompt, greedy) for row in rows))

    with serving_student(LocalStudent(model, tokenizer, name="parity", fingerprint="parity")) as student:
        return asyncio.run(ask(student))


def _divergence(model: Any, tokenizer: Any, row: QARow, before: Completion, after: Completion) -> dict[str, Any]:
    """Returns where two answers to a row diverge and how far apart the export's logits of the two tokens are."""
    import torch

    expected, found = (answer.token_ids or () for answer in (before, after))
    at = next((n for n, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(expected), len(found)) if at is None else at
    ids = [*prompt_ids(tokenizer, row.prompt), *found[:at]]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1].float()
    own = logits.max()
    ends = model.generation_config.eos_token_id
    ended = logits[ends if isinstance(ends, list) else [ends]].max()
    other = logits[expected[at]] if at < len(expected) else ended
    gap = float(own - other)
    return {
        "id": row.id,
        "at": at,
        "adapter": tokenizer.decode(expected[at : at + 1]) or "(end)",
        "export": tokenizer.decode(found[at : at + 1]) or "(end)",
        "logit_gap": round(gap, 4),
        "near_tie": gap <= NEAR_TIE_STEPS * bfloat16_step(float(own)),
    }


def bfloat16_step(value: float) -> float:
    """Returns the distance of neighbouring bfloat16 numbers at `value`: 8 significant bits, so 2^(exponent − 7)."""
    return 2.0 ** (math.frexp(value)[1] - 1 - 7) if value else 0.0

"""Tests whether the adapter forgets what it was not trained on: non-inferiority on rule-checked rows, and two meters.

To see no loss proves little. To know that a loss of 3 points would have been seen proves much. So the upper end of the
one-sided 95 % interval of the drop decides, and only questions that the base can answer can show a drop.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from socratune.evaluation.comparison import Answers
from socratune.evaluation.forgetting_checks import passes_check
from socratune.evaluation.stats import most_lost, paired_difference
from socratune.inference import IGNORE, render
from socratune.judging import mechanical_judge
from socratune.rows import Example, Judgement, Piece, QARow

LONGEST_FORGETTING_ANSWER = 256
"""Limit in tokens for a model that does not think first: the questions ask for short answers."""
MARGIN = 0.03
"""Drop to rule out if the gate sets none."""
MOST_KL_NATS = 0.1
MOST_SHIFT = 0.3
MOST_PROMPTS = 220
"""Most prompts for the mean KL, with two forward passes each. Of more rows, every second, third … is used."""
KL_BATCH_TOKENS = 2048
"""Positions of a batch, padding included. Limits the memory of the logits."""
FEWEST_MARKERS = 20
"""Fewest markers of both together. With fewer, a shift of their rate is chance."""


async def check_judge(row: QARow, response: str) -> Judgement:
    """Judges by the row's own check if it has one, else by the rules of the mechanical judge."""
    if "check" in row.metadata:
        return Judgement("correct" if passes_check(row.metadata["check"], response) else "incorrect", "check")
    return await mechanical_judge(row, response)


async def no_judge(row: QARow, response: str) -> Judgement:
    """Returns "undecided", for prompts without a right answer."""
    return Judgement("undecided", "none")


# --- non-inferiority -----------------------------------------------------------------------------------------------


def non_inferiority(
    rows: list[QARow], base: Answers, adapter: Answers, *, margin: float | None, draws: int, seed: int
) -> dict[str, Any]:
    """Returns the drop of accuracy on questions outside the training, and whether more than `margin` is ruled out.

    Args:
        margin: `validate.gate.max_forgetting`. None tests against 3 points, and `passed` is always True.

    Returns:
        `proven` and its `reason`; `enough`: True if the base solves enough questions to show a loss; `drop`,
        `drop_upper95`; `solved`: how many questions the base solves, how many of them are lost, and the exact upper
        bound of that share; accuracy by stratum.
    """
    limit = MARGIN if margin is None else margin
    before, after = ([answer["verdict"] == "correct" for answer in answers] for answers in (base, adapter))
    clusters = [row.source or row.id for row in rows]
    paired = paired_difference(before, after, clusters, draws=draws, seed=seed, level=0.9)
    solved = sum(before)
    lost = sum(was and not now for was, now in zip(before, after, strict=True))
    nothing_seen = solved / len(rows) * most_lost(0, solved)  # the loss that remains possible if none was seen
    drop, upper = 0.0 - paired.difference, max(-paired.low, nothing_seen)
    enough = most_lost(0, solved) <= limit
    if not enough:
        reason = (
            f"the base solves only {solved} of {len(rows)} questions: even without any loss among them, "
            f"{most_lost(0, solved):.0%} of what it knew could be lost"
        )
    else:
        reason = (
            f"the drop is {drop:+.1%}, at most {upper:+.1%} (95 %), and {limit:.0%} are allowed; of {solved} questions "
            f"the base solves, {lost} are lost"
        )
    proven = enough and upper <= limit
    return {
        "passed": proven or margin is None,
        "proven": proven,
        "reason": reason,
        "enough": enough,
        "margin": limit,
        "n": len(rows),
        "base_accuracy": sum(before) / len(rows),
        "adapter_accuracy": sum(after) / len(rows),
        "drop": drop,
        "drop_upper95": upper,
        "solved": {"n": solved, "lost": lost, "lost_share_upper95": most_lost(lost, solved)},
        "strata": _strata(rows, before, after),
    }


def _strata(rows: list[QARow], before: list[bool], after: list[bool]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row, was, now in zip(rows, before, after, strict=True):
        name = str(row.metadata.get("stratum") or row.metadata.get("kind") or "all")
        counts = found.setdefault(name, {"n": 0, "base": 0, "adapter": 0})
        counts["n"] += 1
        counts["base"] += was
        counts["adapter"] += now
    return found


# --- meters --------------------------------------------------------------------------------------------------------

_THOUGHT = re.compile(r"<think>|</think>|<\|channel\|>analysis")
_UNCERTAIN = re.compile(
    r"\b(?:wait|hmm+|maybe|perhaps|possibly|probably|actually|alternatively|i think|i guess|i believe|not sure|unsure"
    r"|might be|could be|let me (?:re-?)?(?:check|think|see)|double-check|vielleicht|wahrscheinlich|möglicherweise"
    r"|peut-être|probablement|quizás?|tal vez|probablemente|forse|probabilmente|talvez|provavelmente|misschien"
    r"|waarschijnlijk|może|prawdopodobnie|возможно|вероятно|наверное|belki|muhtemelen)\b|也许|可能|大概|たぶん|かもしれ",
    re.IGNORECASE,
)
"""Words of doubt in the languages of the neutral prompts."""


def meters(
    model: Any, tokenizer: Any, rows: list[QARow], base: Answers, adapter: Answers, *, thinking: bool
) -> dict[str, Any]:
    """Measures how far the adapter moves the model on neutral prompts, with `warnings` if it is far.

    `mean_kl_nats` is KL(base ‖ adapter) of the next token along the base's own answers, which predicts forgetting
    (arXiv:2509.04259). The shifts of the mean length in tokens and of the words of doubt are relative. The shift of
    think blocks is the difference between the shares of answers that have one.

    Args:
        model: the PEFT model in eval mode, its adapter enabled.
        tokenizer: the tokenizer of both.
        rows: the neutral prompts.
        base: the base's answers to them.
        adapter: the adapter's answers to them.
        thinking: the model thinks first. A shift in its thinking then fails (`passed`) instead of only warning.
    """
    every = math.ceil(len(rows) / MOST_PROMPTS)
    examples = [
        Example(row.id, row.prompt, (Piece(answer["response"]),), "meter")
        for row, answer in list(zip(rows, base, strict=True))[::every]
        if answer["response"]
    ]
    kl = _mean_kl(model, tokenizer, examples)
    before, after = _style(base), _style(adapter)
    markers = before["uncertainty_markers"] + after["uncertainty_markers"]
    shift = {
        "length": _relative(before["tokens"], after["tokens"]),
        "think_blocks": after["think_blocks"] - before["think_blocks"],
        "uncertainty_markers": (
            _relative(before["uncertainty_markers"], after["uncertainty_markers"]) if markers >= FEWEST_MARKERS else 0.0
        ),
    }
    warnings = [f"{name.replace('_', ' ')} {by:+.0%}" for name, by in shift.items() if abs(by) > MOST_SHIFT]
    if kl > MOST_KL_NATS:
        warnings.append(f"the next token differs by {kl:.2f} nats (KL)")
    thinks_otherwise = abs(shift["think_blocks"]) > MOST_SHIFT or abs(shift["uncertainty_markers"]) > MOST_SHIFT
    return {
        "passed": not (thinking and thinks_otherwise),
        "prompts": len(rows),
        "mean_kl_nats": round(kl, 6),
        "base": before,
        "adapter": after,
        "shift": shift,
        "warnings": warnings,
    }


def _mean_kl(model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
    """Returns the mean KL(base ‖ adapter) of the next token in nats over the examples' trained tokens; 0 without any.

    Rows are padded on the right, because a causal model does not see later tokens.
    """
    import torch

    rows = sorted((render(tokenizer, example) for example in examples), key=lambda row: len(row.ids))
    total, count = 0.0, 0
    while rows:
        length = len(rows[-1].ids)
        batch = [rows.pop() for _ in range(min(len(rows), max(1, KL_BATCH_TOKENS // length)))]
        ids = torch.tensor([row.ids + [0] * (length - len(row.ids)) for row in batch], device=model.device)  # (B, T)
        labels = torch.tensor([row.labels + [IGNORE] * (length - len(row.ids)) for row in batch])  # (B, T)
        mask = torch.tensor([[1] * len(row.ids) + [0] * (length - len(row.ids)) for row in batch], device=model.device)
        before = (labels[:, 1:] != IGNORE).to(model.device)  # positions that predict a token of the answer
        inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        with torch.inference_mode():
            with model.disable_adapter():
                base = model(**inputs).logits[:, :-1][before].float().log_softmax(-1)  # (N, V)
            adapter = model(**inputs).logits[:, :-1][before].float().log_softmax(-1)
        total += float((base.exp() * (base - adapter)).sum())
        count += int(before.sum())
    return total / max(count, 1)


def _style(answers: Answers) -> dict[str, float]:
    """Returns the mean tokens of an answer, the share with a think block, and the count of words of doubt."""
    texts: Sequence[str] = [answer["response"] for answer in answers]
    return {
        "tokens": sum(answer["tokens"] for answer in answers) / len(answers),
        "think_blocks": sum(bool(_THOUGHT.search(text)) for text in texts) / len(texts),
        "uncertainty_markers": sum(len(_UNCERTAIN.findall(text)) for text in texts),
    }


def _relative(before: float, after: float) -> float:
    return (after - before) / max(before, 1.0)

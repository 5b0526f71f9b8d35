"""How probable is a text behind a prompt? Forward passes only, many rows at once.

Rows are padded on the right, whatever side the tokenizer pads: a causal model never sees what comes after a token, so
no position has to be shifted, and models that keep a state instead of positions are scored right as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

MAX_BATCH_TOKENS = 4096
"""Positions of a batch, padding included; bounds the memory that logits take."""

Ids = Sequence[int]


@torch.inference_mode()
def log_probabilities(model: Any, rows: Sequence[tuple[Ids, Ids]]) -> list[list[float]]:
    """For every row the log p of each token of its continuation, in nats.

    Args:
        model: a transformers causal language model in eval mode; may be a PEFT model.
        rows: (ids of the prompt, ids of the continuation); neither is empty.
    """
    found: list[list[float]] = [[] for _ in rows]
    for batch in _batches(rows):
        lines = [torch.tensor([*rows[at][0], *rows[at][1]], device=model.device) for at in batch]
        ids = torch.nn.utils.rnn.pad_sequence(lines, batch_first=True)  # (B, T)
        lengths = torch.tensor([len(line) for line in lines], device=model.device)
        mask = torch.arange(ids.shape[1], device=model.device) < lengths[:, None]
        first = min(len(rows[at][0]) for at in batch) - 1  # no logits are needed before it
        out = model(input_ids=ids, attention_mask=mask.long(), use_cache=False, logits_to_keep=ids.shape[1] - first)
        for line, at in enumerate(batch):
            prompt, continuation = rows[at]
            logits = out.logits[line, len(prompt) - 1 - first :][: len(continuation)].float()  # (T, V)
            targets = torch.tensor(continuation, device=logits.device)
            found[at] = (-torch.nn.functional.cross_entropy(logits, targets, reduction="none")).tolist()
    return found


def _batches(rows: Sequence[tuple[Ids, Ids]]) -> list[list[int]]:
    """The numbers of the rows; those of like length stand together."""
    batches: list[list[int]] = []
    for length, at in sorted((len(prompt) + len(continuation), at) for at, (prompt, continuation) in enumerate(rows)):
        if batches and (len(batches[-1]) + 1) * length <= MAX_BATCH_TOKENS:
            batches[-1].append(at)
        else:
            batches.append([at])
    return batches

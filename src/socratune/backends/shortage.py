"""A card that gives less memory than the arithmetic promised: one retreat, then a clear stop."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from socratune.backends.sharded import is_sharded
from socratune.errors import StageFailed

log = logging.getLogger(__name__)


class Halving(Protocol):
    """What packs rows into micro-batches.

    Attributes:
        model: of which other processes may hold parts.
        micro_tokens: most tokens of one; 0: each row for itself.
        halved: the size of a micro-batch was halved once.
    """

    model: Any
    micro_tokens: int
    halved: bool


def halve(engine: Halving, lengths: Sequence[int], error: torch.OutOfMemoryError) -> None:
    """Half the micro-batch, once, and said so; a step's rows stay the same, so it accumulates twice as many.

    Args:
        lengths: tokens of the rows that were computed. A micro-batch has to hold the longest of them.

    Raises:
        StageFailed: it was halved before, or holds a single row already; or other processes wait within the same pass
            through a model that is spread over them.
    """
    longest, held = max(lengths), min(engine.micro_tokens, sum(lengths))
    smaller = max(held // 2, longest)
    spread = is_sharded(engine.model)
    if engine.halved or spread or smaller >= held:
        reason = "with half the micro-batch too" if engine.halved else f"with a single row of {longest} tokens"
        if spread:
            reason = "with the model spread over several cards, which leaves no second try"
        raise StageFailed(
            f"The card ran out of memory, {reason}. The last whole checkpoint is kept. Free the card of other "
            f"processes (nvidia-smi lists them) and run the same command again; or lower train.max_seq_length, or set "
            f"train.load_in_4bit or train.gradient_checkpointing to true (socratune plan counts what they save)."
        ) from error
    engine.micro_tokens, engine.halved = smaller, True
    text = "OUT OF MEMORY: micro-batches of %d tokens from here on, twice as many to a step; the result is the same."
    log.warning(text, smaller)

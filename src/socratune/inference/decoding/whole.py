"""Decodes whole batches by the model's own `generate`, for models with a forward of their own, as Unsloth's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch

from socratune.inference.decoding.rows import DecodingRow, joining


class WholeDecoder:
    """A `Decoder` that completes a batch before it takes the next.

    Args:
        model: as for `GrowingDecoder`.
        pad_id: pads on the left, and is masked.
        end_ids: ids that end an answer.
        max_batch: rows decoded together.
    """

    def __init__(self, model: Any, *, pad_id: int, end_ids: Collection[int], max_batch: int) -> None:
        self._model, self._pad_id, self._end_ids, self._max_batch = model, pad_id, sorted(end_ids), max_batch

    @property
    def rows(self) -> list[DecodingRow]:
        return []

    @torch.no_grad()
    def step(self, waiting: list[DecodingRow]) -> list[tuple[DecodingRow, list[int]]]:
        fresh = joining(waiting, self._max_batch, 0)
        rows = [row for row in fresh if replace(row.sampling, seed=fresh[0].sampling.seed) == fresh[0].sampling]
        if not rows:
            return []
        longest = max(len(row.ids) for row in rows)
        ids = [[self._pad_id] * (longest - len(row.ids)) + row.ids for row in rows]
        mask = [[0] * (longest - len(row.ids)) + [1] * len(row.ids) for row in rows]
        device, sampling = self._model.device, rows[0].sampling
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        with torch.random.fork_rng():
            torch.manual_seed(sampling.seed)
            answers = self._model.generate(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                max_new_tokens=sampling.max_new_tokens,
                pad_token_id=self._pad_id,
                eos_token_id=self._end_ids,
                do_sample=sampling.temperature > 0,
                **(drawn if sampling.temperature > 0 else {}),
            )
        taken = {id(row) for row in rows}
        waiting[:] = [row for row in waiting if id(row) not in taken]
        return list(zip(rows, answers[:, longest:].tolist(), strict=True))

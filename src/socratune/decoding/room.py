"""A cache that is written in place; the library's own copies all keys and values at every step."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

AHEAD = 64  # positions


def keeps_all(config: Any) -> bool:
    """Whether every layer of a model of this config attends to all that came before."""
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer).__name__ == "DynamicLayer" for layer in layers)


def joined(parts: list[DynamicCache], config: Any) -> DynamicCache:
    """One cache of all rows of `parts`; shorter ones are padded on the left. For a config that `keeps_all`."""
    cache = DynamicCache(config=config)
    cache.layers[:] = [RoomLayer(list(layers)) for layers in zip(*(part.layers for part in parts), strict=True)]
    return cache


class RoomLayer(DynamicLayer):
    """Keys and values `(B, H, T, D)` as the part in use of room `(R, H, L, D)`, which has positions ahead."""

    def __init__(self, parts: list[Any]) -> None:
        super().__init__()
        self.lazy_initialization(parts[0].keys, parts[0].values)
        self._lay([part.keys for part in parts], [part.values for part in parts])

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Write the states of new positions, and give those of all."""
        if self._end + key_states.shape[2] > self._room[0].shape[2]:
            self._lay([self.keys], [self.values])
        begin, self._end = self._end, self._end + key_states.shape[2]
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[: self._rows, :, begin : self._end] = states
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Only keep these rows. One that stays where it is costs nothing."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero()[:, 0]
        for room in self._room:
            room[moved] = room[indices[moved]]
        self._rows = len(indices)
        self._show()

    def drop_first(self, positions: int) -> None:
        """Forget the first positions."""
        self._first += positions
        self._show()

    def _lay(self, keys: list[Any], values: list[Any]) -> None:
        """Move the rows of all parts, each `(B, H, T, D)`, into new room."""
        self._rows, self._first, self._end = sum(map(len, keys)), 0, max(part.shape[2] for part in keys)
        self._room = _room(keys, self._end), _room(values, self._end)
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (room[: self._rows, :, self._first : self._end] for room in self._room)


def _room(parts: list[torch.Tensor], length: int) -> torch.Tensor:
    """All rows of the parts, each with its last position at `length`, and room behind."""
    _, heads, _, size = parts[0].shape
    room = parts[0].new_zeros(sum(map(len, parts)), heads, length + max(AHEAD, length // 4), size)
    at = 0
    for part in parts:
        room[at : at + len(part), :, length - part.shape[2] : length] = part
        at += len(part)
    return room

"""A cache that is written in place; the library's own copies all keys and values at every step."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

AHEAD = 64  # positions; all is copied once in so many steps


def keeps_all(config: Any) -> bool:
    """Whether every layer of a model of this config attends to all that came before."""
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer).__name__ == "DynamicLayer" for layer in layers)


def joined(parts: list[DynamicCache], config: Any) -> DynamicCache:
    """One cache of all rows of `parts`; shorter ones are padded on the left. For a config that `keeps_all`.

    The first part is used up where it has room for the others.
    """
    layers = list(zip(*(part.layers for part in parts), strict=True))
    if all(isinstance(first, RoomLayer) and first.take(others) for first, *others in layers):
        return parts[0]
    cache = DynamicCache(config=config)
    cache.layers[:] = [RoomLayer(list(layer)) for layer in layers]
    return cache


class RoomLayer(DynamicLayer):
    """Keys and values `(B, H, T, D)` as the part in use of room `(R, H, L, D)`, which has positions ahead."""

    def __init__(self, parts: list[Any]) -> None:
        super().__init__()
        self.lazy_initialization(parts[0].keys, parts[0].values)
        self._lay(parts)

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Write the states of new positions, and give those of all."""
        if self._end + key_states.shape[2] > self._room[0].shape[2]:
            self._lay([self])
        begin, self._end = self._end, self._end + key_states.shape[2]
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[: self._rows, :, begin : self._end] = states
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Only keep these rows. One that stays where it is costs nothing."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero()[:, 0]
        for room in self._room:
            room[moved, :, : self._end] = room[indices[moved], :, : self._end]
        self._rows = len(indices)
        self._show()

    def take(self, parts: list[Any]) -> bool:
        """Append the rows of other layers, if there is room for them."""
        rows, longest = sum(len(part.keys) for part in parts), max(part.keys.shape[2] for part in parts)
        if self._rows + rows > len(self._room[0]) or longest > self._end:
            return False
        self._first = min(self._first, self._end - longest)
        for part in parts:
            at = slice(self._rows, self._rows + len(part.keys))
            for room, states in zip(self._room, (part.keys, part.values), strict=True):
                _write(room[at, :, : self._end], states)
            self._rows = at.stop
        self._show()
        return True

    def drop_first(self, positions: int) -> None:
        """Forget the first positions."""
        self._first += positions
        self._show()

    def _lay(self, parts: list[Any]) -> None:
        """Move the rows of all parts into new room."""
        keys = [part.keys for part in parts]
        self._rows, self._first, self._end = sum(map(len, keys)), 0, max(part.shape[2] for part in keys)
        self._room = _room(keys, self._end), _room([part.values for part in parts], self._end)
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (room[: self._rows, :, self._first : self._end] for room in self._room)


def _room(parts: list[torch.Tensor], length: int) -> torch.Tensor:
    """All rows of the parts, each with its last position at `length`, and room behind."""
    _, heads, _, size = parts[0].shape
    room = parts[0].new_empty(sum(map(len, parts)), heads, length + max(AHEAD, length // 4), size)
    at = 0
    for part in parts:
        _write(room[at : at + len(part), :, :length], part)
        at += len(part)
    return room


def _write(room: torch.Tensor, states: torch.Tensor) -> None:
    """`(B, H, T, D)` to the end of `(B, H, L, D)`; zeros before it, as even what is masked has to be a number."""
    missing = room.shape[2] - states.shape[2]
    room[:, :, :missing] = 0
    room[:, :, missing:] = states

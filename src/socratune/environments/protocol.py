"""Defines an environment: three functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

Entry = dict[str, Any]
"""A question, its answer, perhaps a worked `solution`, and anything else that the environment itself needs."""


class Environment(Protocol):
    """Makes questions and verifies their answers."""

    def questions(self, seed: int) -> Iterator[Entry]:
        """Yields the entries of a seed, in an order that does not depend on how many are taken."""
        ...

    def verify(self, entry: Entry, said: str) -> bool | None:
        """Returns whether a final answer is right, or None if the environment cannot tell."""
        ...

    def template(self, entry: Entry) -> str | None:
        """Returns the template of a question, or None if there is only one."""
        ...

"""What an environment is: three functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

Entry = dict[str, Any]
"""A question, its answer, perhaps a worked `solution`, and whatever else the environment reads of its own."""


class Environment(Protocol):
    """What stands behind a name."""

    def questions(self, seed: int) -> Iterator[Entry]:
        """The entries of a seed, in an order that does not depend on how many are taken."""
        ...

    def verify(self, entry: Entry, said: str) -> bool | None:
        """Whether a final answer is right."""
        ...

    def template(self, entry: Entry) -> str | None:
        """What the question was made from."""
        ...

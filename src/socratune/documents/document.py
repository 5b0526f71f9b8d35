"""What questions are written from: documents, the passages cut out of them, and the links between documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the user's.

    Attributes:
        id: stable between two reads of the same source: a path below the folder that was named, or `collection/key`.
        title: how people call it.
        text: as read, Unicode in NFC.
        metadata: what else the source said, as JSON.
    """

    id: str
    title: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """An edge of a graph: document —relation→ document, by their ids."""

    id: str
    relation: str
    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a document: `document.text[begin:end]`.

    Attributes:
        place: for people: heading, page or key.
    """

    id: str
    document: str
    text: str
    begin: int
    end: int
    place: str = ""

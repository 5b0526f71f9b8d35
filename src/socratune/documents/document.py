"""The data that questions are written from: documents, their passages, and the links between documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """A text of the user's.

    Attributes:
        id: the same in every read of a source: a path below the named folder, or `collection/key`.
        title: what people call it.
        text: the text as read, in Unicode's NFC.
        metadata: the other attributes of the source, as JSON.
    """

    id: str
    title: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """An edge of a graph, from one document's id to another's."""

    id: str
    relation: str
    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document: `document.text[begin:end]`.

    Attributes:
        place: the heading, page or key, for people to read.
    """

    id: str
    document: str
    text: str
    begin: int
    end: int
    place: str = ""

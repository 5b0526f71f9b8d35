"""What a row of the database is to Socratune: a document with a title and a text, or a link between two documents."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from typing import Any

from socratune.documents import Document, Link
from socratune.fastjson import encode

TEXTS = ("text", "content", "body", "description")
TITLES = ("title", "name", "label")
RELATIONS = ("relation", "label", "type", "name")

Row = dict[str, Any]


def is_edge(row: Row) -> bool:
    """True for an edge; one that a query returned without its key is told by its two ends."""
    return isinstance(row.get("_from"), str) and isinstance(row.get("_to"), str)


def document_of(row: Row) -> Document:
    """A document of the database.

    Its text is the first of `TEXTS` it has, else its plain attributes as `name: value`, one a line; empty if it has
    none of both (a link may still lead to it). Its other plain attributes are in `metadata` under their names, where
    `collection` and `key` are its own. A row that a query put together has no key; its id is made from its content.
    """
    collection, key = _collection_and_key(row)
    plain = {name: value for name, value in row.items() if not name.startswith("_") and _is_plain(value)}
    source = _first(plain, TEXTS)
    title = _first(plain, TITLES)
    if source is None:
        text = "\n".join(f"{name.replace('_', ' ')}: {_spoken(value)}" for name, value in plain.items())
        rest = {}
    else:
        text = plain[source]
        rest = {name: value for name, value in plain.items() if name != source}
    metadata = {**rest, "collection": collection, "key": key}
    return Document(f"{collection}/{key}", _clean(plain[title]) if title else key, _clean(text), metadata)


def link_of(row: Row) -> Link:
    """An edge of the database; its relation is the first of `RELATIONS` it has, else its collection's name."""
    collection, key = _collection_and_key(row)
    named = _first(row, RELATIONS)
    relation = _clean(row[named]) if named else collection
    return Link(f"{collection}/{key}", relation, row["_from"], row["_to"])


def records_in(value: Any) -> Iterator[Row]:
    """The documents and edges in what a query returned for one row: itself, or those inside of it (`{v, e}`, a path).

    A row with none inside is one that the query put together, and a text by itself is a document's text.
    """
    if isinstance(value, str) and value.strip():
        yield {"text": value}
    elif isinstance(value, list | dict):
        inner = list(_stored(value))
        if inner or isinstance(value, list):
            yield from inner
        elif value:
            yield value


def _stored(value: Any) -> Iterator[Row]:
    if isinstance(value, dict) and (isinstance(value.get("_id"), str) or is_edge(value)):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _stored(part)


def _collection_and_key(row: Row) -> tuple[str, str]:
    collection, _, key = str(row.get("_id", "")).partition("/")
    return (collection, key) if key else ("aql", hashlib.sha256(encode(row)).hexdigest()[:16])


def _first(row: Row, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if isinstance(row.get(name), str) and row[name].strip()), None)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _spoken(value: str | float) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _clean(text: str) -> str:
    """In Unicode's NFC, without NUL, which no row of ours may hold."""
    return unicodedata.normalize("NFC", text).replace("\x00", "")

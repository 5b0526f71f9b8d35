"""Reads documents and links out of an ArangoDB to local files, before anything else is done with them.

A cursor of the server would expire within half a minute while a model writes. Each page is kept before the next page is
requested, so the same command resumes where it was stopped and requests no page twice.
"""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratune.documents import aql as texts
from socratune.documents.arango_place import parse_place
from socratune.documents.document import Document, Link
from socratune.documents.page_log import Drained, PageLog
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.runs import fingerprint, json_decode, json_encode

if TYPE_CHECKING:
    from socratune.documents.arango_driver import Server

log = logging.getLogger(__name__)

FIRST_PAGE, LONGEST_PAGE = 25, 2000
PAGE_CHARACTERS = 4_000_000
"""Characters of a page. Documents may have a line or a megabyte, so each page's size follows from the previous page."""
IDS_A_QUESTION = 200
_RESTARTS = 3
"""How often a query of the user's starts again because the server has lost its cursor."""


def drain(
    place: str, *, into: Path, collections: Sequence[str] | None = None, graph: str | None = None,
    aql: str | None = None, hops: int = 1,
) -> Drained:  # fmt: skip
    """Reads the named documents and those up to `hops` links around them into `documents.jsonl` and `links.jsonl`.

    Both files are written when everything has come. If the folder holds the same request's files, nothing is read.

    Args:
        place: `arangodb://HOST:8529/DATABASE`, `arangodbs://` for TLS; user and password from `ARANGO_USER` and
            `ARANGO_PASSWORD`, or a token from `ARANGO_TOKEN`.
        into: a folder of its own.
        collections: names of document and edge collections. Without any of these three, the whole database is read.
        graph: the name of a graph whose collections are read.
        aql: a query whose rows are documents or edges, or contain some.
        hops: the distance in links of the documents to add, along the named edge collections, or along all if none is
            named.

    Raises:
        UserError: the driver is not installed, or an argument is invalid.
        OutsideError: the server cannot be reached. What has come is kept.
    """
    where = parse_place(place)
    if sum(bool(one) for one in (collections, graph, aql)) > 1:
        raise UserError(Fault("--source", "one of --collections, --graph and --aql", Shown("several")))
    with PageLog(into, fingerprint(where.url, where.database, collections, graph, aql, hops)) as pages:
        if finished := pages.finished():
            return finished
        with _connect(where) as server:
            there = server.collections()
            named = [] if aql else _named(server, there, collections, graph)
            if aql:
                _read_query(server, pages, aql)
            for collection in named:
                _read_collection(server, pages, collection)
            edges = [name for name in named if there[name]] or [name for name in _own(there) if there[name]]
            for hop in range(1, hops + 1):
                if not any(there[name] for name in named):
                    _read_links(server, pages, edges, hop)
                _read_neighbours(server, pages, _own(there), hop)
        return pages.finish()


def _connect(place: Any) -> Server:
    try:
        from socratune.documents.arango_driver import Server
    except ImportError:
        fix = "pip install 'socratune[arango]'"
        raise UserError(Fault(place.shown, "the library python-arango to read it", Shown("none"), fix)) from None
    return Server(place)


def _own(there: dict[str, bool]) -> list[str]:
    """Returns the collections that are not the server's own, document collections first."""
    return sorted((name for name in there if not name.startswith("_")), key=lambda name: (there[name], name))


def _named(server: Server, there: dict[str, bool], collections: Sequence[str] | None, graph: str | None) -> list[str]:
    """Returns the collections that are read as a whole, in the order in which they were named.

    Raises:
        UserError: a collection does not exist, or the database has none.
    """
    from socratune.documents.arango_driver import missing

    names = server.graph(graph) if graph else list(collections or _own(there))
    if not names:
        raise UserError(Fault("--source", "a database with documents", Shown("one without a collection")))
    if faults := [missing("--collections", "collection", name, there) for name in names if name not in there]:
        raise UserError(*faults)
    return list(dict.fromkeys(names))


def _read_collection(server: Server, pages: PageLog, collection: str) -> None:
    if pages.position(collection) is None:
        return
    _read_pages(server, pages, collection, texts.PAGE, {"@collection": collection})
    kept, count = pages.count(collection), server.count(collection)
    log.info("%s: %d of %d rows have been read.", collection, kept, count)
    if kept < count:
        log.warning(
            "%s: the server counts %d rows and %d came. Either rows were added meanwhile, or it sorts keys "
            'differently than it compares them. --aql "FOR d IN %s RETURN d" reads them in any order.',
            *(collection, count, kept, collection),
        )


def _read_links(server: Server, pages: PageLog, edges: Sequence[str], hop: int) -> None:
    """Reads the edges around the documents `hop - 1` links away from each edge collection."""
    for ids in pages.batches(hop - 1, IDS_A_QUESTION):
        for collection in edges:
            step = f"{collection}, step {hop} from {ids[0]}"
            _read_pages(server, pages, step, texts.EDGES_OF, {"@collection": collection, "ids": ids})


def _read_neighbours(server: Server, pages: PageLog, readable: Sequence[str], hop: int) -> None:
    """Reads the documents one link further, but not the server's own (its users, for example)."""
    ids = pages.other_ends(hop - 1)
    for collection, group in groupby(ids, key=lambda one: one.partition("/")[0]):
        wanted, size = list(group), FIRST_PAGE
        while wanted and collection in readable:
            part, wanted = wanted[:size], wanted[size:]
            keys = [one.partition("/")[2] for one in part]
            rows = server.rows(texts.BY_KEY, {"@collection": collection, "keys": keys}, len(keys))
            characters = pages.keep(f"{collection}, {part[0]}", "", _records(rows), done=True, hop=hop, asked=part)
            size = _next_size(size, len(rows), characters)


def _read_pages(server: Server, pages: PageLog, step: str, query: str, binds: dict[str, Any]) -> None:
    """Reads the keyset pages of a query from where the step stopped."""
    after, size = pages.position(step), FIRST_PAGE
    while after is not None:
        rows = server.rows(query, {**binds, "after": after, "n": size}, size)
        last = rows[-1]["_key"] if rows else after
        if rows and last == after:
            raise OutsideError(f"{step}: the server answers the same page twice (up to the key {last}).")
        characters = pages.keep(step, last, _records(rows), done=len(rows) < size)
        after, size = pages.position(step), _next_size(size, len(rows), characters)


def _next_size(size: int, rows: int, characters: int) -> int:
    """Returns the rows of the next page, for about `PAGE_CHARACTERS` and at most four times as many as now."""
    fitting = PAGE_CHARACTERS * max(rows, 1) // max(characters, 1)
    return max(1, min(fitting, 4 * size, LONGEST_PAGE))


def _read_query(server: Server, pages: PageLog, query: str) -> None:
    """Reads all rows of a query of the user's in batches.

    Raises:
        UserError: the server cannot run it, or it would change data.
        OutsideError: the server loses its cursor again and again.
    """
    from socratune.documents.arango_driver import CursorLost

    position, restarts = pages.position("query"), 0
    if position == "":
        server.check_query(query)
    while position is not None:
        try:
            rows, after = server.next_batch(*json_decode(position)) if position else server.first_batch(query)
        except CursorLost:
            restarts += 1
            if restarts > _RESTARTS:
                raise OutsideError(f"--aql: the server lost the query's cursor {restarts} times.") from None
            log.warning(
                "--aql: the server has lost the cursor. The query starts again, and what has been read is kept."
            )
            position = ""
            continue
        pages.keep("query", json_encode(after or ()).decode(), _records(_inside(rows)), done=after is None)
        position = pages.position("query")


def _inside(rows: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield from records_in(row)


def _records(rows: Any) -> list[Document | Link]:
    return [link_of(row) if is_edge(row) else document_of(row) for row in rows]


# --- rows of the database ------------------------------------------------------------------------------------------

_TEXTS = ("text", "content", "body", "description")
_TITLES = ("title", "name", "label")
RELATIONS = ("relation", "label", "type", "name")

_Row = dict[str, Any]


def is_edge(row: _Row) -> bool:
    """Returns True for an edge. An edge that a query returned without its key is known by its two ends."""
    return isinstance(row.get("_from"), str) and isinstance(row.get("_to"), str)


def document_of(row: _Row) -> Document:
    """Returns a row of the database as a document.

    Its text is the first of `_TEXTS` that it has, else its plain attributes as `name: value`, one per line. The text is
    empty if it has neither, as a link may still lead to it. `metadata` has its other plain attributes, and `collection`
    and `key`. A row that a query built has no key, so its id is made from its content.
    """
    collection, key = _collection_and_key(row)
    plain = {name: value for name, value in row.items() if not name.startswith("_") and _is_plain(value)}
    source = _first(plain, _TEXTS)
    title = _first(plain, _TITLES)
    if source is None:
        text = "\n".join(f"{name.replace('_', ' ')}: {_spoken(value)}" for name, value in plain.items())
        rest = {}
    else:
        text = plain[source]
        rest = {name: value for name, value in plain.items() if name != source}
    metadata = {**rest, "collection": collection, "key": key}
    return Document(f"{collection}/{key}", _clean(plain[title]) if title else key, _clean(text), metadata)


def link_of(row: _Row) -> Link:
    """Returns an edge of the database. Its relation is the first of `RELATIONS` that it has, else its collection."""
    collection, key = _collection_and_key(row)
    named = _first(row, RELATIONS)
    relation = _clean(row[named]) if named else collection
    return Link(f"{collection}/{key}", relation, row["_from"], row["_to"])


def records_in(value: Any) -> Iterator[_Row]:
    """Yields the documents and edges of a row of a query: the row itself, or those inside of it (`{v, e}`, a path).

    A row without any is a document that the query built, and a mere text is a document's text.
    """
    if isinstance(value, str) and value.strip():
        yield {"text": value}
    elif isinstance(value, list | dict):
        inner = list(_stored(value))
        if inner or isinstance(value, list):
            yield from inner
        elif value:
            yield value


def _stored(value: Any) -> Iterator[_Row]:
    if isinstance(value, dict) and (isinstance(value.get("_id"), str) or is_edge(value)):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _stored(part)


def _collection_and_key(row: _Row) -> tuple[str, str]:
    collection, _, key = str(row.get("_id", "")).partition("/")
    return (collection, key) if key else ("aql", hashlib.sha256(json_encode(row)).hexdigest()[:16])


def _first(row: _Row, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if isinstance(row.get(name), str) and row[name].strip()), None)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _spoken(value: str | float) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _clean(text: str) -> str:
    """Returns a text in Unicode's NFC, without NUL, which a row must not contain."""
    return unicodedata.normalize("NFC", text).replace("\x00", "")

"""Reads files, a database or the embedded handbook to the disk before any question is written.

A model takes long to write, and a database does not wait for it, so the source is read to its end first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from socratune.config import DEMO, DEMO_DATA, GenerateConfig
from socratune.documents.arango_place import parse_place
from socratune.documents.document import Document, Link, Passage
from socratune.documents.files import files_hash, files_of, read_files
from socratune.documents.passages import Count, passages
from socratune.errors import Fault, Shown, UserError
from socratune.rows import Rejected
from socratune.runs import iter_rows, write_jsonl

HANDBOOK, GRAPH = DEMO_DATA / "handbook", DEMO_DATA / "graph.json"
DATABASES = ("arangodb://", "arangodbs://")


class Gathered:
    """A source that was read to files below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unread: list[Rejected] = []
        self.titles: dict[str, str] = {}

    @property
    def passages(self) -> Path:
        return self.root / "passages.jsonl"

    def documents(self) -> Iterator[Document]:
        return iter_rows(self.root / "documents.jsonl", lambda data: Document(**data))

    def links(self) -> Iterator[Link]:
        path = self.root / "links.jsonl"
        return iter_rows(path, lambda data: Link(**data)) if path.exists() else iter(())


def gather_passages(config: GenerateConfig, into: Path) -> Gathered:
    """Reads the source to its end, into `documents.jsonl` and `links.jsonl` of the folder `into`.

    Raises:
        UserError: the source is missing, or none of its documents can be read.
        OutsideError: the database failed.
    """
    assert config.source, "preflight asks for a source"
    into.mkdir(parents=True, exist_ok=True)
    gathered = Gathered(into)
    if config.source.startswith(DATABASES):
        from socratune.documents.arango import drain

        graph = config.arangodb
        collections = graph.collections or None
        drain(config.source, into=into, collections=collections, graph=graph.graph, aql=graph.aql, hops=graph.hops)
        return gathered
    found = _demo() if config.source == DEMO else read_files(config.source, max_file_mb=config.max_file_mb)
    links: Iterable[Link] = _demo_links() if config.source == DEMO else ()
    count = write_jsonl(into / "documents.jsonl", (asdict(one) for one in _sorted_out(found, gathered.unread)))
    write_jsonl(into / "links.jsonl", map(asdict, links))
    if not count:
        why = "; ".join(f"{one.id}: {one.reason}, {one.detail}" for one in gathered.unread[:3])
        raise UserError(Fault(f"--source {config.source}", "a document that can be read", Shown(why or "none")))
    return gathered


def source_hash(source: str) -> str | None:
    """Returns a hash of the files of a source, or None for a database, the embedded source and missing files."""
    return None if source == DEMO or source.startswith(DATABASES) else files_hash(source)


def cut_passages(gathered: Gathered, config: GenerateConfig, count: Count) -> tuple[int, int, int]:
    """Writes `passages.jsonl` and returns the numbers of documents, passages and tokens."""
    totals = [0, 0, 0]

    def every() -> Iterator[dict[str, Any]]:
        for document in gathered.documents():
            gathered.titles[document.id] = document.title
            totals[0] += 1
            totals[2] += count(document.text)
            for one in passages(document, size=config.passage_tokens, overlap=config.overlap_tokens, count=count):
                totals[1] += 1
                yield asdict(one)

    write_jsonl(gathered.passages, every())
    return totals[0], totals[1], totals[2]


def read_passages(gathered: Gathered) -> Iterator[Passage]:
    """Yields the passages that `cut_passages` wrote."""
    return iter_rows(gathered.passages, lambda data: Passage(**data))


def linked_documents(gathered: Gathered) -> dict[str, Document]:
    """Returns the documents that a link names, by id."""
    named = {end for link in gathered.links() for end in (link.start, link.end)}
    return {one.id: one for one in gathered.documents() if one.id in named} if named else {}


def _sorted_out(found: Iterable[Document | Rejected], unread: list[Rejected]) -> Iterator[Document]:
    ids: dict[str, int] = {}
    for one in found:
        if isinstance(one, Rejected):
            unread.append(one)
            continue
        ids[one.id] = ids.get(one.id, 0) + 1
        if ids[one.id] > 1:
            unread.append(Rejected("same_id", f"the {ids[one.id]}. document with this id", id=one.id))
            continue
        yield one


def _demo() -> Iterator[Document | Rejected]:
    yield from read_files(str(HANDBOOK), max_file_mb=1)
    for one in json.loads(GRAPH.read_text("utf-8"))["entities"]:
        yield Document(f"graph/{one['key']}", one["title"], one["text"])


def _demo_links() -> Iterator[Link]:
    for number, one in enumerate(json.loads(GRAPH.read_text("utf-8"))["links"]):
        yield Link(f"graph/link-{number}", one["relation"], f"graph/{one['start']}", f"graph/{one['end']}")


def source_faults(source: str | None) -> list[Fault]:
    """Returns the errors of the address of documents, before any is read."""
    if not source:
        return [Fault("--source", "files, arangodb://HOST:8529/DB or demo", Shown("nothing"))]
    if source.startswith(DATABASES) and "@" in source.split("://", 1)[1]:
        fix = "It would be written into files. Run: export ARANGO_USER=… ARANGO_PASSWORD=…"
        return [Fault("--source", "an address without user and password", Shown("one with them"), fix)]
    try:
        if source.startswith(DATABASES):
            parse_place(source)
        elif source != DEMO:
            files_of(source)
    except UserError as error:
        return [*error.faults]
    return []

"""An ArangoDB on loopback: the documented HTTP calls that reading (and filling it for a test) needs, in memory.

    with ArangoServer() as server:                     # at server.url; user root, password "secret"

It knows `aql.py`'s texts and the examples of `docs/guides/arangodb.md`, each as a Python function, and answers every
other AQL text with error 1501, "unknown query". So it cannot prove that any of them is valid AQL, that ArangoDB sorts
and compares keys as Python does, that its answers have these fields in every version, nor anything of its speed, its
clusters, its permissions or its TLS. For that: `make test-arango`.

    python tests/arango_server.py DOCUMENTS EDGES      prints its address and serves until its standard input is closed
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from socratune.documents import aql
from socratune.runs.encoding import json_encode

USER, PASSWORD = "root", "secret"
DOCUMENT, EDGE = 2, 3
FORBIDDEN, DUPLICATE_KEY, NO_COLLECTION, DUPLICATE_NAME, NO_DATABASE = 11, 1210, 1203, 1207, 1228
BAD_QUERY, NO_BIND, NO_CURSOR, NO_GRAPH = 1501, 1551, 1600, 1924

Row = dict[str, Any]


class Refused(Exception):
    """An answer with an HTTP status, an error number and a message."""

    def __init__(self, status: int, number: int, message: str) -> None:
        self.status, self.number, self.message = status, number, message


@dataclass
class Collection:
    """Rows by key. `keys` is kept sorted by bytes, `touching` are the keys of the edges at a document."""

    name: str
    kind: int
    rows: dict[str, Row] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    touching: dict[str, list[str]] = field(default_factory=dict)

    def insert(self, row: Row) -> Row:
        key = str(row.get("_key") or len(self.rows) + 1000)
        if key in self.rows:
            number = {"error": True, "errorNum": DUPLICATE_KEY}
            return {
                **number,
                "errorMessage": "unique constraint violated - in index primary of type primary over '_key'",
            }
        own = {"_key": key, "_id": f"{self.name}/{key}", "_rev": f"_r{len(self.rows)}"}
        self.rows[key] = {**own, **{name: value for name, value in row.items() if name != "_key"}}
        self.keys = []
        for end in {str(row[side]) for side in ("_from", "_to") if side in row}:
            self.touching.setdefault(end, []).append(key)
        return own

    def behind(self, after: str, count: int) -> list[Row]:
        self.keys = self.keys or sorted(self.rows)
        start = bisect_right(self.keys, after)
        return [self.rows[key] for key in self.keys[start : start + count]]


@dataclass
class Database:
    """Collections and graphs by name."""

    collections: dict[str, Collection] = field(default_factory=dict)
    graphs: dict[str, Row] = field(default_factory=dict)

    def collection(self, name: str) -> Collection:
        if name not in self.collections:
            raise Refused(404, NO_COLLECTION, f"AQL: collection or view not found: {name}")
        return self.collections[name]


# --- queries ---------------------------------------------------------------------------------------------------------


def page(database: Database, binds: Row) -> list[Row]:
    return database.collection(binds["@collection"]).behind(binds["after"], binds["n"])


def edges_of(database: Database, binds: Row) -> list[Row]:
    collection = database.collection(binds["@collection"])
    keys = {key for one in binds["ids"] for key in collection.touching.get(one, ()) if key > binds["after"]}
    return [collection.rows[key] for key in sorted(keys)][: binds["n"]]


def by_key(database: Database, binds: Row) -> list[Row]:
    rows = database.collection(binds["@collection"]).rows
    return [rows[key] for key in binds["keys"] if key in rows]


def recent_articles(database: Database, binds: Row) -> list[Row]:
    return [row for row in database.collection("articles").rows.values() if row.get("year", 0) >= 2020]


def put_together(database: Database, binds: Row) -> list[Row]:
    rows = database.collection("articles").rows.values()
    return [{"title": row.get("title"), "text": f"{row.get('intro', '')} {row.get('body', '')}"} for row in rows]


def around_ada(database: Database, binds: Row) -> list[Row]:
    """Two steps outwards along `works_at` and `located_in`."""
    found, frontier = [], ["people/ada"]
    for _ in range(2):
        edges = [
            edge for name in ("works_at", "located_in") for edge in database.collection(name).rows.values()
            if edge["_from"] in frontier
        ]  # fmt: skip
        for edge in edges:
            name, key = edge["_to"].split("/")
            found.append({"v": database.collection(name).rows.get(key), "e": edge})
        frontier = [edge["_to"] for edge in edges]
    return found


GUIDE_FILTER = "FOR d IN articles FILTER d.year >= 2020 RETURN d"
GUIDE_PARTS = 'FOR d IN articles RETURN {title: d.title, text: CONCAT(d.intro, " ", d.body)}'
GUIDE_GRAPH = "FOR v, e IN 1..2 OUTBOUND 'people/ada' GRAPH 'company' RETURN {v, e}"
CHANGES_DATA = "FOR d IN articles REMOVE d IN articles"

QUERIES: dict[str, Callable[[Database, Row], list[Row]]] = {
    aql.PAGE: page,
    aql.EDGES_OF: edges_of,
    aql.BY_KEY: by_key,
    GUIDE_FILTER: recent_articles,
    GUIDE_PARTS: put_together,
    GUIDE_GRAPH: around_ada,
}


# --- server ----------------------------------------------------------------------------------------------------------


@dataclass
class OpenCursor:
    """The rows still to come, and the last answer given, for one that `allowRetry` lets ask for its batch again."""

    rows: list[Row]
    size: int
    until: float
    ttl_s: float
    allow_retry: bool
    number: int = 1
    latest: tuple[str, Row] = ("", {})


class ArangoServer:
    """A context manager; serves from threads on a free port.

    Attributes:
        url: `http://127.0.0.1:PORT`.
        databases: by name.
    """

    def __init__(self) -> None:
        self.databases = {"_system": Database()}
        self.cursors: dict[str, OpenCursor] = {}
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.lock = threading.Lock()

    def __enter__(self) -> ArangoServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def check_login(self, header: str) -> None:
        kind, _, value = header.partition(" ")
        if kind.lower() == "basic":
            allowed = base64.b64decode(value).decode() == f"{USER}:{PASSWORD}"
        else:
            signed = kind.lower() == "bearer" and value == _signed(value.rpartition(".")[0])
            allowed = signed and _payload(value)["exp"] > time.time()
        if not allowed:
            raise Refused(401, FORBIDDEN, "not authorized to execute this request")

    def answer(self, method: str, path: str, login: str, body: Any) -> tuple[int, Any]:
        """The status and the JSON of an answer.

        Raises:
            Refused: it is an error.
        """
        if path == "/_open/auth":
            if (body.get("username"), body.get("password")) != (USER, PASSWORD):
                raise Refused(401, 401, "Wrong credentials")
            return 200, {"jwt": token(time.time() + 3600)}
        self.check_login(login)
        parts = [unquote(part) for part in path.strip("/").split("/")]
        name = parts[1] if parts[0] == "_db" else "_system"
        if name not in self.databases:
            raise Refused(404, NO_DATABASE, "database not found")
        api = parts[2:] if parts[0] == "_db" else parts
        kind = "/".join(api[:2])
        routes = {
            "_api/version": self._version, "_api/database": self._database, "_api/collection": self._collection,
            "_api/document": self._document, "_api/gharial": self._graph, "_api/explain": self._explain,
            "_api/cursor": self._cursor,
        }  # fmt: skip
        if kind not in routes:
            raise Refused(404, 404, f"unknown path '{path}'")
        return routes[kind](self.databases[name], method, api[2:], body)

    def _version(self, database: Database, method: str, rest: list[str], body: Any) -> tuple[int, Any]:
        return 200, {"server": "arango", "license": "community", "version": "3.12.0"}

    def _database(self, database: Database, method: str, rest: list[str], body: Any) -> tuple[int, Any]:
        if method == "GET":
            return 200, {"error": False, "code": 200, "result": list(self.databases)}
        if method == "DELETE":
            self.databases.pop(rest[0])
            return 200, {"error": False, "code": 200, "result": True}
        self.databases[body["name"]] = Database()
        return 201, {"error": False, "code": 201, "result": True}

    def _collection(self, database: Database, method: str, rest: list[str], body: Any) -> tuple[int, Any]:
        if method == "POST":
            if body["name"] in database.collections:
                raise Refused(409, DUPLICATE_NAME, "duplicate name")
            database.collections[body["name"]] = Collection(body["name"], body.get("type", DOCUMENT))
            return 200, {"error": False, "code": 200, "name": body["name"], "type": body.get("type", DOCUMENT)}
        if rest[1:] == ["count"]:
            return 200, {"error": False, "code": 200, "count": len(database.collection(rest[0]).rows)}
        own = [("_graphs", DOCUMENT), *((one.name, one.kind) for one in database.collections.values())]
        shown = [
            {"id": str(number), "name": name, "status": 3, "type": kind, "isSystem": name.startswith("_")}
            for number, (name, kind) in enumerate(own)
        ]
        return 200, {"error": False, "code": 200, "result": shown}

    def _document(self, database: Database, method: str, rest: list[str], body: Any) -> tuple[int, Any]:
        collection = database.collection(rest[0])
        return 202, [collection.insert(row) for row in body]

    def _graph(self, database: Database, method: str, rest: list[str], body: Any) -> tuple[int, Any]:
        if method == "POST":
            named = {"_key": body["name"], "_id": f"_graphs/{body['name']}", "_rev": "_r", "name": body["name"]}
            shown = {**named, "edgeDefinitions": body["edgeDefinitions"], "orphanCollections": []}
            database.graphs[body["name"]] = shown
            return 202, {"error": False, "code": 202, "graph": shown}
        if not rest:
            return 200, {"error": False, "code": 200, "graphs": list(database.graphs.values())}
        if rest[0] not in database.graphs:
            raise Refused(404, NO_GRAPH, f"graph '{rest[0]}' not found")
        graph = database.graphs[rest[0]]
        if rest[1:] == ["vertex"]:
            names = {name for one in graph["edgeDefinitions"] for name in (*one["from"], *one["to"])}
            return 200, {"error": False, "code": 200, "collections": sorted(names)}
        return 200, {"error": False, "code": 200, "graph": graph}

    def _explain(self, database: Database, method: str, rest: list[str], body: Any) -> tuple[int, Any]:
        if body["query"] not in QUERIES and body["query"] != CHANGES_DATA:
            raise Refused(400, BAD_QUERY, f"AQL: unknown query near '{body['query'][:40]}' (while parsing)")
        plan = {"nodes": [], "collections": [], "isModificationQuery": body["query"] == CHANGES_DATA}
        return 200, {"error": False, "code": 200, "plan": plan, "warnings": [], "stats": {}, "cacheable": False}

    def _cursor(self, database: Database, method: str, rest: list[str], body: Any) -> tuple[int, Any]:
        if rest:
            return self._next_batch(method, rest)
        if body["query"] not in QUERIES:
            raise Refused(400, BAD_QUERY, f"AQL: unknown query near '{body['query'][:40]}' (while parsing)")
        try:
            rows = QUERIES[body["query"]](database, body.get("bindVars", {}))
        except KeyError as error:
            raise Refused(400, NO_BIND, f"AQL: no value specified for declared bind parameter {error}") from None
        size = body.get("batchSize", 1000)
        first = {
            "error": False,
            "code": 201,
            "result": rows[:size],
            "hasMore": len(rows) > size,
            "cached": False,
            "extra": {},
        }
        if len(rows) <= size:
            return 201, first
        ttl_s = body.get("ttl", 30)
        identity = str(len(self.cursors) + 100)
        again = body.get("options", {}).get("allowRetry", False)
        self.cursors[identity] = OpenCursor(rows[size:], size, time.monotonic() + ttl_s, ttl_s, again)
        return 201, {**first, "id": identity, "nextBatchId": "2"}

    def _next_batch(self, method: str, rest: list[str]) -> tuple[int, Any]:
        cursor = self.cursors.get(rest[0])
        if cursor is None or cursor.until < time.monotonic():
            raise Refused(404, NO_CURSOR, "cursor not found")
        if method == "DELETE":
            del self.cursors[rest[0]]
            return 202, {"id": rest[0], "error": False, "code": 202}
        cursor.until = time.monotonic() + cursor.ttl_s
        if rest[1:] and rest[1] == cursor.latest[0]:
            return 200, cursor.latest[1]
        cursor.number += 1
        if rest[1:] and rest[1] != str(cursor.number):
            raise Refused(404, NO_CURSOR, "batch not found")
        batch, cursor.rows = cursor.rows[: cursor.size], cursor.rows[cursor.size :]
        found = {"error": False, "code": 200, "id": rest[0], "result": batch, "hasMore": bool(cursor.rows), "extra": {}}
        if cursor.rows:
            found["nextBatchId"] = str(cursor.number + 1)
        if cursor.allow_retry:
            cursor.latest = (str(cursor.number), found)
        elif not cursor.rows:
            del self.cursors[rest[0]]
        return 200, found


class _Handler(BaseHTTPRequestHandler):
    server_state: ArangoServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0]
        try:
            with self.server_state.lock:
                login = self.headers.get("Authorization", "")
                status, value = self.server_state.answer(self.command, path, login, json.loads(text or b"{}"))
                body = json_encode(value)
        except Refused as error:
            status = error.status
            shown = {"error": True, "code": status, "errorNum": error.number, "errorMessage": error.message}
            body = json_encode(shown)
        self.send_response(status)
        self.send_header("Server", "ArangoDB")
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer


def token(expires_at: float) -> str:
    """A JWT as `/_open/auth` gives it."""
    header = {"alg": "HS256", "typ": "JWT"}
    payload = {"preferred_username": USER, "iss": "arangodb", "iat": int(expires_at) - 3600, "exp": int(expires_at)}
    return _signed(".".join(_base64(json.dumps(part).encode()) for part in (header, payload)))


def _signed(body: str) -> str:
    return f"{body}.{_base64(hmac.digest(b'for tests', body.encode(), hashlib.sha256))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _payload(token: str) -> Row:
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def main() -> None:
    documents, edges = int(sys.argv[1]), int(sys.argv[2])
    with ArangoServer() as server:
        database = server.databases["bench"] = Database()
        nodes = database.collections["articles"] = Collection("articles", DOCUMENT)
        links = database.collections["cites"] = Collection("cites", EDGE)
        for number in range(documents):
            text = f"Article {number} is about the matter {number % 97}. " + "It says what such articles say. " * 30
            nodes.insert(
                {"_key": f"a{number:07}", "title": f"Article {number}", "text": text, "year": 1990 + number % 35}
            )
        for number in range(edges):
            ends = (number % documents, (number * 7 + 1) % documents)
            links.insert({"_from": f"articles/a{ends[0]:07}", "_to": f"articles/a{ends[1]:07}"})
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

"""Documents and links out of an ArangoDB, by the real driver.

Against `arango_server.py`, or against the server in `ARANGO_URL` (`make test-arango`); faults are made by a front
before either of them. ARANGO_USER and ARANGO_PASSWORD may create and drop a database there.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from arango_server import (
    CHANGES_DATA,
    GUIDE_FILTER,
    GUIDE_GRAPH,
    GUIDE_PARTS,
    PASSWORD,
    QUERIES,
    USER,
    ArangoServer,
    token as signed_token,
)
from faulty_front import Call, Front, Spoil

from socratune.documents import aql
from socratune.documents.arango import drain
from socratune.documents.arango_place import parse_place, place_of, without_password
from socratune.documents.document import Document, Link
from socratune.documents.page_log import Drained
from socratune.errors import BusyError, OutsideError, SocratuneError, UserError

pytest.importorskip("arango", reason="python-arango is not installed (pip install 'socratune[arango]')")
import arango

from socratune.documents import arango_driver

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "arangodb.md"
EXAMPLES = (GUIDE_FILTER, GUIDE_PARTS, GUIDE_GRAPH)
ARTICLES = 1000


@dataclass(frozen=True)
class Upstream:
    """The server under test: its address, a filled database on it, and who may read it."""

    url: str
    database: str
    user: str
    password: str

    def front(self, behave: Callable[[Call], Spoil | None] = lambda call: None) -> Front:
        return Front(self.url, behave)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    if url := os.environ.get("ARANGO_URL"):
        user, password = os.environ.get("ARANGO_USER", "root"), os.environ.get("ARANGO_PASSWORD", "")
        found = Upstream(url, f"socratune_test_{os.getpid()}", user, password)
        fill(found)
        yield found
        system = arango.ArangoClient(url).db("_system", user, password)  # type: ignore[attr-defined]
        system.delete_database(found.database)
    else:
        with ArangoServer() as server:
            found = Upstream(server.url, "library", USER, PASSWORD)
            fill(found)
            yield found


@pytest.fixture(autouse=True)
def _environment(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARANGO_USER", upstream.user)
    monkeypatch.setenv("ARANGO_PASSWORD", upstream.password)
    monkeypatch.delenv("ARANGO_TOKEN", raising=False)
    monkeypatch.setattr(arango_driver, "BACKOFF_S", 0.01)


def fill(upstream: Upstream) -> None:
    client = arango.ArangoClient(upstream.url)  # type: ignore[attr-defined]
    client.db("_system", upstream.user, upstream.password).create_database(upstream.database)
    database: Any = client.db(upstream.database, upstream.user, upstream.password)
    rows: dict[str, list[dict[str, Any]]] = {
        "people": [
            {"_key": "ada", "name": "Ada", "born": 1815, "likes_tea": True, "vector": [0.1, 0.2], "nothing": None},
            {"_key": "bob", "name": "Bob", "text": "Bob paints.", "content": "not this one"},
            {"_key": "eve"},
        ],
        "companies": [{"_key": "acme", "title": "Acme", "body": "Acme makes kettles."}, {"_key": "beta"}],
        "cities": [{"_key": "paris", "label": "Paris", "description": "A cafe\u0301 town."}],
        "articles": [
            {"_key": f"a{number}", "title": f"Article {number}", "year": 2019 + number % 2}
            | {"intro": "Of", "body": str(number)}
            for number in range(ARTICLES)
        ],
        "long": [{"_key": str(number), "text": "x" * 100_000} for number in range(150)],
    }  # fmt: skip
    edges = {
        "works_at": [
            {"_key": "1", "_from": "people/ada", "_to": "companies/acme"},
            {"_key": "2", "_from": "people/ada", "_to": "companies/beta", "relation": "founded"},
            {"_key": "3", "_from": "people/bob", "_to": "companies/gone"},
            {"_key": "4", "_from": "people/eve", "_to": "_graphs/company"},
        ],
        "located_in": [
            {"_key": "1", "_from": "companies/acme", "_to": "cities/paris", "label": "has its seat in"},
            {"_key": "2", "_from": "companies/beta", "_to": "cities/paris"},
        ],
    }
    for name, documents in {**rows, **edges}.items():
        kept = database.create_collection(name, edge=name in edges).insert_many(documents)
        assert not [one for one in kept if isinstance(one, Exception)]
    definitions = [
        {"edge_collection": "works_at", "from_vertex_collections": ["people"], "to_vertex_collections": ["companies"]},
        {
            "edge_collection": "located_in",
            "from_vertex_collections": ["companies"],
            "to_vertex_collections": ["cities"],
        },
    ]
    database.create_graph("company", edge_definitions=definitions)


def place(front: Front, upstream: Upstream) -> str:
    return f"arangodb://{urlsplit(front.url).netloc}/{upstream.database}"


def documents(drained: Drained) -> dict[str, Document]:
    found = [Document(**json.loads(line)) for line in drained.documents.read_text("utf-8").splitlines()]
    assert len({one.id for one in found}) == len(found) == drained.document_count
    return {one.id: one for one in found}


def links(drained: Drained) -> list[Link]:
    found = [Link(**json.loads(line)) for line in drained.links.read_text("utf-8").splitlines()]
    assert len(found) == drained.link_count
    return found


def pages(front: Front) -> list[str]:
    """What was asked of the server's data, one text a question."""
    asked = [(call.path, call.body) for call in front.calls if "cursor" in call.path and call.method == "POST"]
    return [
        json.dumps([path.rpartition("/")[2], body and {**body.get("bindVars", {}), "n": 0}]) for path, body in asked
    ]


# --- what is read ----------------------------------------------------------------------------------------------------


def test_the_whole_database(upstream: Upstream, tmp_path: Path) -> None:
    with upstream.front() as front:
        drained = drain(place(front, upstream), into=tmp_path)
    found = documents(drained)
    assert len(found) == 3 + 2 + 1 + ARTICLES + 150
    ada = found["people/ada"]
    assert (ada.title, ada.text) == ("Ada", "name: Ada\nborn: 1815\nlikes tea: yes")
    assert ada.metadata == {"collection": "people", "key": "ada"}
    bob = found["people/bob"]
    assert (bob.text, bob.metadata["name"]) == ("Bob paints.", "Bob")
    assert found["cities/paris"].text == "A caf\u00e9 town." and found["cities/paris"].title == "Paris"
    assert found["companies/acme"].text == "Acme makes kettles."
    assert (found["people/eve"].title, found["people/eve"].text, drained.without_text) == ("eve", "", 2)
    assert links(drained) == [
        Link("located_in/1", "has its seat in", "companies/acme", "cities/paris"),
        Link("located_in/2", "located_in", "companies/beta", "cities/paris"),
        Link("works_at/1", "works_at", "people/ada", "companies/acme"),
        Link("works_at/2", "founded", "people/ada", "companies/beta"),
    ]
    assert drained.loose_links == 2  # to a company that is gone, and to what is the server's own


@pytest.mark.parametrize(
    ("named", "hops", "ids", "relations"),
    [
        (["people"], 0, "people", ""),
        (["people"], 1, "people companies", "works_at founded"),
        (["people"], 2, "people companies cities", "works_at founded located_in has its seat in"),
        (["people", "works_at"], 0, "people", ""),
        (["people", "works_at"], 1, "people companies", "works_at founded"),
        (["people", "works_at"], 2, "people companies", "works_at founded"),
        (["people", "companies", "works_at"], 0, "people companies", "works_at founded"),
        (["works_at", "works_at"], 1, "", ""),
    ],
)
def test_collections_and_what_lies_around_them(
    upstream: Upstream, tmp_path: Path, named: list[str], hops: int, ids: str, relations: str
) -> None:
    with upstream.front() as front:
        drained = drain(place(front, upstream), into=tmp_path, collections=named, hops=hops)
    assert {one.partition("/")[0] for one in documents(drained)} == set(ids.split())
    assert sorted(one.relation for one in links(drained)) == sorted(
        one for one in ("works_at", "founded", "located_in", "has its seat in") if one in relations
    )


def test_a_graph(upstream: Upstream, tmp_path: Path) -> None:
    with upstream.front() as front:
        drained = drain(place(front, upstream), into=tmp_path, graph="company")
    assert {one.partition("/")[0] for one in documents(drained)} == {"people", "companies", "cities"}
    assert drained.link_count == 4


def test_a_query_of_the_users(upstream: Upstream, tmp_path: Path) -> None:
    with upstream.front() as front:
        drained = drain(place(front, upstream), into=tmp_path, aql=GUIDE_FILTER, hops=0)
    found = documents(drained)
    assert len(found) == ARTICLES / 2 and found["articles/a1"].metadata["year"] == 2020
    assert front.calls[-1].method == "DELETE"  # the cursor is not left to the server


def test_paths_and_the_same_document_twice(upstream: Upstream, tmp_path: Path) -> None:
    with upstream.front() as front:
        drained = drain(place(front, upstream), into=tmp_path, aql=GUIDE_GRAPH, hops=1)
    assert set(documents(drained)) == {"companies/acme", "companies/beta", "cities/paris", "people/ada"}
    assert drained.link_count == 4


def test_rows_that_a_query_puts_together(upstream: Upstream, tmp_path: Path) -> None:
    with upstream.front() as front:
        first = documents(drain(place(front, upstream), into=tmp_path / "1", aql=GUIDE_PARTS))
        again = documents(drain(place(front, upstream), into=tmp_path / "2", aql=GUIDE_PARTS))
    assert len(first) == ARTICLES and first == again
    assert {(one.title, one.text) for one in first.values()} >= {("Article 7", "Of 7")}


def test_pages_fit_the_size_of_the_documents(upstream: Upstream, tmp_path: Path) -> None:
    with upstream.front() as front:
        drain(place(front, upstream), into=tmp_path / "long", collections=["long"], hops=0)
        drain(place(front, upstream), into=tmp_path / "articles", collections=["articles"], hops=0)
    asked = [call.body["bindVars"] for call in front.calls if call.body]
    sizes = {name: [one["n"] for one in asked if one["@collection"] == name] for name in ("long", "articles")}
    assert sizes["long"] == [25, 39, 39, 39, 39]
    assert sizes["articles"] == [25, 100, 400, 1600]


def test_the_examples_are_those_of_the_guide() -> None:
    shipped = {value for name, value in vars(aql).items() if name.isupper()}
    assert set(QUERIES) == shipped | set(EXAMPLES)
    assert all(one in GUIDE.read_text("utf-8") for one in EXAMPLES)


# --- what goes wrong and is survived ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize(
    "spoil",
    [
        Spoil(status=503),
        Spoil(status=500, error_number=1457),
        Spoil(fault="drop"),
        Spoil(fault="lose"),
        Spoil(fault="cut"),
        Spoil(fault="hang"),
    ],
    ids=lambda spoil: spoil.fault or str(spoil.status),
)
@pytest.mark.parametrize("query", [None, GUIDE_FILTER], ids=["pages", "query"])
def test_a_lost_answer_is_asked_for_again(
    upstream: Upstream, tmp_path: Path, spoil: Spoil, number: int, query: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spoil.fault == "hang":
        monkeypatch.setattr(arango_driver, "REQUEST_TIMEOUT_S", 0.2)
    named = None if query else ["articles"]
    with upstream.front(lambda call: spoil if call.number == number else None) as front:
        if number == 1 and spoil.fault:  # before any answer it is not known that there is an ArangoDB at all
            with pytest.raises(OutsideError, match="no ArangoDB answers there"):
                drain(place(front, upstream), into=tmp_path, collections=named, aql=query, hops=0)
            return
        found = documents(drain(place(front, upstream), into=tmp_path, collections=named, aql=query, hops=0))
    assert len(found) == (ARTICLES / 2 if query else ARTICLES)


@pytest.mark.parametrize("query", [None, GUIDE_FILTER], ids=["pages", "query"])
def test_a_server_that_stays_away(
    upstream: Upstream, tmp_path: Path, query: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    named = None if query else ["articles"]
    with upstream.front(lambda call: Spoil(status=503) if call.number >= 4 else None) as front:
        with pytest.raises(OutsideError, match=r"no answer after 7 tries .*503.* again to resume"):
            drain(place(front, upstream), into=tmp_path, collections=named, aql=query, hops=0)
        assert not (tmp_path / "documents.jsonl").exists()
        assert "The request is repeated in" in caplog.text
        before = front.calls[:3]
        front.calls.clear()
        front.behave = lambda call: None
        found = documents(drain(place(front, upstream), into=tmp_path, collections=named, aql=query, hops=0))
        assert len(found) == (ARTICLES / 2 if query else ARTICLES)
        kept, asked = [call.body for call in before if call.body], [call.body for call in front.calls if call.body]
        assert not [body for body in asked if body in kept]


def test_a_cursor_that_the_server_has_forgotten(upstream: Upstream, tmp_path: Path) -> None:
    def behave(call: Call) -> None:
        if call.method == "POST" and "/cursor/" in call.path and not forgotten:
            forgotten.append(call.path)
            status, _ = front.forward("DELETE", call.path.rpartition("/")[0], b"", login)
            assert status == 202

    forgotten: list[str] = []
    login = {"Authorization": "bearer " + token(upstream)}
    with upstream.front(behave) as front:
        found = documents(drain(place(front, upstream), into=tmp_path, aql=GUIDE_FILTER, hops=0))
    assert forgotten and len(found) == ARTICLES / 2


def test_a_cursor_that_is_always_forgotten(upstream: Upstream, tmp_path: Path) -> None:
    gone = Spoil(status=404, error_number=1600)
    with upstream.front(lambda call: gone if "/cursor/" in call.path else None) as front:  # noqa: SIM117
        with pytest.raises(OutsideError, match="lost the query's cursor 4 times"):
            drain(place(front, upstream), into=tmp_path, aql=GUIDE_FILTER)


@pytest.mark.parametrize("question", [{"collections": ["articles"]}, {"aql": GUIDE_FILTER}], ids=["pages", "query"])
@pytest.mark.parametrize("fault", ["drop", "lose"])
def test_sigkill_and_the_same_command(upstream: Upstream, tmp_path: Path, question: dict[str, Any], fault: Any) -> None:
    """`drop`: killed with the question on its way; `lose`: killed with the answer on its way."""
    script = "import sys, json; from pathlib import Path; from socratune.documents.arango import drain\n"
    script += "drain(sys.argv[1], into=Path(sys.argv[2]), hops=0, **json.loads(sys.argv[3]))"
    processes: list[subprocess.Popen[bytes]] = []

    def kill_at_the_third(call: Call) -> Spoil | None:
        if len(pages(front)) < 3:
            return None
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        return Spoil(fault=fault)

    with upstream.front() as front:
        front.behave = kill_at_the_third
        command = [sys.executable, "-c", script, place(front, upstream), str(tmp_path), json.dumps(question)]
        processes.append(subprocess.Popen(command, env=dict(os.environ)))
        assert processes[0].wait(60) == -signal.SIGKILL
        before = pages(front)
        assert len(before) == 3 and not (tmp_path / "documents.jsonl").exists()
        front.calls.clear()
        front.behave = lambda call: None
        found = documents(drain(place(front, upstream), into=tmp_path, hops=0, **question))
        after = pages(front)
    assert len(found) == (ARTICLES / 2 if "aql" in question else ARTICLES)
    # the page on its way when it was killed is asked again; none of those that had come
    assert after and not set(before[:2]) & set(after) and len(set(after)) == len(after)


def test_what_is_finished_is_not_asked_again(upstream: Upstream, tmp_path: Path) -> None:
    with upstream.front() as front:
        first = drain(place(front, upstream), into=tmp_path, graph="company")
        asked = len(front.calls)
        again = drain(place(front, upstream), into=tmp_path, graph="company")
        assert len(front.calls) == asked
        assert (again.document_count, again.link_count, again.pages) == (first.document_count, first.link_count, 0)
        other = drain(place(front, upstream), into=tmp_path, collections=["cities"], hops=0)
        assert list(documents(other)) == ["cities/paris"] and not links(other)
        other.links.unlink()
        assert drain(place(front, upstream), into=tmp_path, collections=["cities"], hops=0).pages > 0


def test_documents_beyond_the_sort_order_are_missed_aloud(
    upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short = {"result": [{"_key": "a1", "_id": "articles/a1", "text": "One."}], "hasMore": False, "code": 201}

    def behave(call: Call) -> Spoil | None:
        return Spoil(text=json.dumps(short)) if call.body and call.body["bindVars"]["after"] == "" else None

    with upstream.front(behave) as front:
        assert drain(place(front, upstream), into=tmp_path, collections=["articles"], hops=0).document_count == 1
    assert "articles: the server counts 1000 rows and 1 came" in caplog.text


# --- what goes wrong and is said -------------------------------------------------------------------------------------


def said(
    upstream: Upstream, folder: Path, behave: Callable[[Call], Spoil | None] = lambda call: None, **what: Any
) -> str:
    """The message of a drain that fails, in one line of a few words, and with no secret in it."""
    with upstream.front(behave) as front, pytest.raises(SocratuneError) as raised:
        drain(what.pop("at", None) or place(front, upstream), into=folder, **what)
    message = str(raised.value)
    assert len(message) < 400 and "\n" not in message
    assert not upstream.password or upstream.password not in message.replace(upstream.user, "")
    assert not (folder / "documents.jsonl").exists()
    return message


def test_a_wrong_password(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARANGO_PASSWORD", "wrong-password")
    message = said(upstream, tmp_path)
    assert f"a refusal for the user {upstream.user}" in message and "wrong-password" not in message


def test_a_missing_database(upstream: Upstream, tmp_path: Path) -> None:
    host = urlsplit(upstream.url).netloc
    name = upstream.database
    message = said(upstream, tmp_path, at=f"arangodb://{host}/{name[:-1]}")
    assert f"Did you mean {name}?" in message


def test_a_missing_collection(upstream: Upstream, tmp_path: Path) -> None:
    assert "artikles, which does not exist. Did you mean articles?" in said(
        upstream, tmp_path, collections=["artikles"]
    )
    assert "There are: articles, cities" in said(upstream, tmp_path, collections=["zzzz"])


def test_a_collection_that_is_dropped_meanwhile(upstream: Upstream, tmp_path: Path) -> None:
    def behave(call: Call) -> Spoil | None:
        behind_the_first = call.body and call.body["bindVars"]["after"]
        return Spoil(status=404, error_number=1203) if behind_the_first else None

    assert "articles, which does not exist" in said(upstream, tmp_path, behave, collections=["articles"])


def test_a_missing_graph(upstream: Upstream, tmp_path: Path) -> None:
    assert "companys, which does not exist. Did you mean company?" in said(upstream, tmp_path, graph="companys")


def test_an_illegal_query(upstream: Upstream, tmp_path: Path) -> None:
    assert "--aql: expected a query that the server can run" in said(upstream, tmp_path, aql="FOR x IN RETURN x")


def test_a_query_that_changes_data_is_not_run(upstream: Upstream, tmp_path: Path) -> None:
    assert "a query that only reads, got one that changes data" in said(upstream, tmp_path, aql=CHANGES_DATA)


def test_two_ways_to_name_what_is_read(upstream: Upstream, tmp_path: Path) -> None:
    assert "one of --collections, --graph and --aql" in said(
        upstream, tmp_path, collections=["people"], graph="company"
    )


def test_no_server_there(upstream: Upstream, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        at = f"arangodb://127.0.0.1:{free.getsockname()[1]}/library"
    began = time.monotonic()
    assert "no ArangoDB answers there (Connection refused)" in said(upstream, tmp_path, at=at)
    assert time.monotonic() - began < 5


def test_a_database_on_this_machine_is_not_asked_through_a_proxy(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert "companys, which does not exist" in said(upstream, tmp_path, graph="companys")


def test_an_answer_without_end_is_not_read_on(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arango_driver, "_LONGEST_ANSWER", 300)
    assert "an answer of more than 300 bytes" in said(upstream, tmp_path, collections=["cities"])


def test_something_else_there(upstream: Upstream, tmp_path: Path) -> None:
    page = Spoil(text="<html>Welcome</html>")
    assert "answers, but not as an ArangoDB does" in said(upstream, tmp_path, lambda call: page)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_refusal_that_nobody_expects(upstream: Upstream, tmp_path: Path, number: int) -> None:
    broken = Spoil(status=500, error_number=4)
    message = said(upstream, tmp_path, lambda call: broken if call.number == number else None, collections=["cities"])
    assert "the server refused: [HTTP 500][ERR 4] made to fail" in message


def token(upstream: Upstream) -> str:
    import requests

    login = {"username": upstream.user, "password": upstream.password}
    return requests.post(f"{upstream.url}/_open/auth", json=login, timeout=10).json()["jwt"]


def test_a_token_in_place_of_a_password(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARANGO_TOKEN", token(upstream))
    monkeypatch.setenv("ARANGO_PASSWORD", "wrong")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n", "utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with upstream.front() as front:
        assert documents(drain(place(front, upstream), into=tmp_path, collections=["cities"], hops=0))


def test_a_token_that_has_expired(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARANGO_TOKEN", signed_token(time.time() - 60))
    message = said(upstream, tmp_path)
    assert message.startswith("ARANGO_TOKEN: expected a token") and "one that expired at 20" in message


def test_a_token_that_expires_on_the_way(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARANGO_TOKEN", token(upstream))
    refusal = Spoil(status=401, error_number=11)
    question = {"collections": ["articles"], "hops": 0}
    with upstream.front(lambda call: refusal if call.number >= 4 else None) as front:
        with pytest.raises(UserError, match=r"ARANGO_TOKEN.* again to resume"):
            drain(place(front, upstream), into=tmp_path, **question)
        assert len(front.calls) == 4  # it is not asked again
        before = pages(front)[:2]
        monkeypatch.delenv("ARANGO_TOKEN")
        front.calls.clear()
        front.behave = lambda call: None
        assert len(documents(drain(place(front, upstream), into=tmp_path, **question))) == ARTICLES
        assert not set(before) & set(pages(front))


def test_a_user_who_may_not_read(upstream: Upstream, tmp_path: Path) -> None:
    spoil = Spoil(status=403, error_number=11)
    message = said(upstream, tmp_path, lambda call: spoil if call.body else None, collections=["cities"])
    assert f"Grant the user {upstream.user} read access" in message


def test_two_readers_of_one_folder(upstream: Upstream, tmp_path: Path) -> None:
    with upstream.front() as front:

        def behave(call: Call) -> None:
            if call.number == 2:
                with pytest.raises(BusyError, match="a folder that another process reads into"):
                    drain(place(front, upstream), into=tmp_path, collections=["cities"])
                refused.append(True)

        refused: list[bool] = []
        front.behave = behave
        drain(place(front, upstream), into=tmp_path, collections=["cities"], hops=0)
    assert refused


def test_pages_that_are_damaged(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "pages.sqlite").write_text("no database at all, but long enough to look like one" * 100, "utf-8")
    assert "pages.sqlite: cannot be used (file is not a database)" in said(upstream, tmp_path)


def test_a_password_in_the_address_is_kept_nowhere(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("ARANGO_USER")
    monkeypatch.delenv("ARANGO_PASSWORD")
    caplog.set_level(logging.DEBUG)
    secret = upstream.password or "no-password-is-set-here"
    with upstream.front(lambda call: Spoil(status=503) if call.number == 3 else None) as front:
        at = place(front, upstream).replace("://", f"://{upstream.user}:{upstream.password}@")
        drain(at, into=tmp_path, collections=["articles"], hops=0)
        with pytest.raises(SocratuneError) as raised:
            drain(at, into=tmp_path / "2", collections=["zzzz"])
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert secret not in caplog.text + str(raised.value) and secret.encode() not in kept


def test_the_driver_is_not_installed(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socratune.documents.arango_driver", None)
    monkeypatch.setitem(sys.modules, "arango", None)
    assert "pip install 'socratune[arango]'" in said(upstream, tmp_path)


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url", "database", "user", "password"),
    [
        ("arangodb://localhost:8529/shop", "http://localhost:8529", "shop", "u", "p"),
        ("arangodb://db.example/shop/", "http://db.example:8529", "shop", "u", "p"),
        ("arangodbs://db.example:443/shop", "https://db.example:443", "shop", "u", "p"),
        ("arangodb://ann:a%2Fb%40c@[::1]:1234/caf%C3%A9", "http://[::1]:1234", "café", "ann", "a/b@c"),
        ("arangodb://ann@host/shop", "http://host:8529", "shop", "ann", "p"),
    ],
)
def test_addresses(
    text: str, url: str, database: str, user: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARANGO_USER", "u")
    monkeypatch.setenv("ARANGO_PASSWORD", "p")
    found = parse_place(text)
    assert (found.url, found.database, found.user, found.password) == (url, database, user, password)
    assert "a/b" not in repr(found) and "a%2F" not in found.shown


@pytest.mark.parametrize(
    "text",
    [
        "arangodb://localhost:8529", "arangodb://localhost:8529/a/b", "arangodb:///shop", "mongodb://localhost/shop",
        "arangodb://root:geheim/x@host/shop", "arangodb://root:geheim?x@host/shop", "arangodb://root:ge#heim@host/shop",
        "arangodb://[::1/shop", "arangodb://root:geheim://x@host/shop", "arangodb://host:port/shop",
        "root:geheim@host/shop",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_place(text)
    assert "arangodb://localhost:8529/DATABASE" in str(raised.value) and "geheim" not in str(raised.value)


def test_the_database_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARANGO_URL", raising=False)
    assert place_of("shop") == "arangodb://127.0.0.1:8529/shop"
    monkeypatch.setenv("ARANGO_URL", "https://ann:pw@db.example")
    assert place_of("my shop") == "arangodbs://ann:pw@db.example:8529/my%20shop"
    assert without_password(place_of("shop")) == "arangodbs://db.example:8529/shop"
    monkeypatch.setenv("ARANGO_URL", "db.example")
    with pytest.raises(UserError, match="ARANGO_URL"):
        place_of("shop")


# --- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_25000_documents_in_10_s_and_300_mb() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "arango.py"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

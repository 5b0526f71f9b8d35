"""Connects to an ArangoDB through python-arango, with retries and with its refusals in plain words.

Every query is a POST, and the driver repeats no POST after an answer of 503 or a time-out. So its retries are off, and
ours with growing pauses are around each request. Basic authentication is the default because the driver never renews an
expired token. Importing this module needs the driver.
"""

from __future__ import annotations

import base64
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from arango.client import ArangoClient
from arango.cursor import Cursor
from arango.database import StandardDatabase
from arango.exceptions import ArangoServerError
from arango.http import DefaultHTTPClient
from arango.response import Response
from requests import Response as HttpResponse, Session
from requests.exceptions import ConnectionError as NoConnection

from socratune.documents.arango_place import ArangoPlace
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.llm import is_this_machine
from socratune.runs import json_decode

log = logging.getLogger(__name__)

RETRIES = 6
BACKOFF_S = 0.5
"""The first pause between two tries. Each further pause is twice as long, up to `_BACKOFF_CAP_S`."""
_BACKOFF_CAP_S = 8.0
REQUEST_TIMEOUT_S = 60
CURSOR_TTL_S = 600
"""How long a cursor waits for its next batch. A retry can take longer than the server's default of 30 s."""
_LONGEST_ANSWER = 1 << 29
"""The most unpacked bytes of an answer, enough for a batch of books."""
_BATCH_ROWS = 200
"""Rows of a batch of a user's query, few because their size is unknown."""

PASSING = {408, 429, 502, 503, 504}
"""HTTP statuses that do not depend on the request itself."""
NO_ARANGO = "answers, but not as an ArangoDB does. Is the address right?"
NO_COLLECTION, NO_DATABASE, CLUSTER_TIMEOUT, NO_CURSOR, NO_GRAPH = 1203, 1228, 1457, 1600, 1924


class NotNow(Exception):
    """The server, or a proxy before it, has not processed the request."""


class CursorLost(Exception):
    """The server has forgotten the cursor (404, error 1600): too long ago, or it was restarted."""


class Server:
    """A context manager for a database that is read as one user.

    Every method raises:
        UserError: the user, the password, the token or the database is wrong.
        OutsideError: the server cannot be reached or has not answered after all retries.
    """

    def __init__(self, place: ArangoPlace) -> None:
        self._place = place
        self._client = ArangoClient(place.url, http_client=_Transport(), resolver_max_tries=1, deserializer=json_decode)
        self._answered = False
        self._db = self._open(place.database)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def collections(self) -> dict[str, bool]:
        """Returns the collections by name, with True for edge collections."""
        return {one["name"]: one["type"] == "edge" for one in self._sure(self._db.collections)}

    def count(self, collection: str) -> int:
        """Returns the number of documents or edges that the server reports for a collection."""
        return self._sure(self._db.collection(collection).count)

    def graph(self, name: str) -> list[str]:
        """Returns the names of a graph's collections, document collections first.

        Raises:
            UserError: the graph does not exist.
        """
        graph = self._db.graph(name)
        try:
            vertices, edges = self._ask(graph.vertex_collections), self._ask(graph.edge_definitions)
        except ArangoServerError as error:
            if error.error_code != NO_GRAPH:
                raise self._unexpected(error) from None
            there = [one["name"] for one in self._sure(self._db.graphs)]
            raise UserError(missing("--graph", "graph", name, there)) from None
        return [*vertices, *(one["edge_collection"] for one in edges)]

    def rows(self, query: str, binds: dict[str, Any], most: int) -> list[dict[str, Any]]:
        """Returns what a query of `aql.py` returns, in one answer.

        Args:
            query: the text of the query.
            binds: the bind variables.
            most: the most rows that the query can return.

        Raises:
            UserError: the collection does not exist any more.
        """
        try:
            cursor = self._ask(lambda: self._db.aql.execute(query, bind_vars=binds, batch_size=most))
        except ArangoServerError as error:
            if error.error_code == NO_COLLECTION:
                name, there = binds["@collection"], self.collections()
                raise UserError(missing("--collections", "collection", name, there)) from None
            raise self._unexpected(error) from None
        return list(cursor.batch() or ())

    def check_query(self, query: str) -> None:
        """Has the server plan a query of the user's without running it.

        Raises:
            UserError: the server cannot run it, or it would change data.
        """
        try:
            plan = self._ask(lambda: self._db.aql.explain(query))
        except ArangoServerError as error:
            raise self._bad_query(error) from None
        if plan.get("isModificationQuery"):
            raise UserError(Fault("--aql", "a query that only reads", Shown("one that changes data")))

    def first_batch(self, query: str) -> tuple[list[Any], tuple[str, str] | None]:
        """Returns the first rows of a user's query, and where the next rows are, or None if there are no more.

        Raises:
            UserError: the server cannot run it.
        """
        options: dict[str, Any] = {"batch_size": _BATCH_ROWS, "ttl": CURSOR_TTL_S, "stream": True, "allow_retry": True}
        try:
            cursor = self._ask(lambda: self._db.aql.execute(query, **options))
        except ArangoServerError as error:
            raise self._bad_query(error) from None
        state = {"id": cursor.id, "has_more": cursor.has_more(), "next_batch_id": cursor._next_batch_id}
        return list(cursor.batch() or ()), self._next(state)

    def next_batch(self, cursor_id: str, batch_id: str) -> tuple[list[Any], tuple[str, str] | None]:
        """Returns a batch of a cursor, and where the next batch is. The latest batch may be requested again.

        Raises:
            CursorLost: the query has to start from its beginning.
        """
        state = {"id": cursor_id, "nextBatchId": batch_id, "hasMore": True, "result": []}
        cursor = Cursor(self._db.conn, state, allow_retry=True)
        try:
            found = self._ask(cursor.fetch)
        except ArangoServerError as error:
            if error.http_code == 404 and error.error_code == NO_CURSOR:
                raise CursorLost from None
            raise self._bad_query(error) from None
        after = self._next({"id": cursor_id, **found})
        if after is None:
            self._sure(
                lambda: cursor.close(ignore_missing=True)
            )  # a cursor that allows retries outlives its last batch
        return found["batch"], after

    def _next(self, state: dict[str, Any]) -> tuple[str, str] | None:
        if not state["has_more"]:
            return None
        if not state.get("next_batch_id"):
            raise OutsideError(
                f"{self._place.shown}: --aql needs ArangoDB 3.11 or newer; use --collections or --graph."
            )
        return state["id"], state["next_batch_id"]

    def _open(self, database: str) -> StandardDatabase:
        place = self._place
        if place.token:  # sent as it is, as the driver's errors for an expired or refused token are of no help
            return self._client.db(database, superuser_token=place.token)
        return self._client.db(database, username=place.user, password=place.password)

    def _sure(self, request: Callable[[], Any]) -> Any:
        """Sends a request that the server has no reason to refuse."""
        try:
            return self._ask(request)
        except ArangoServerError as error:
            raise self._unexpected(error) from None

    def _ask(self, request: Callable[[], Any]) -> Any:
        """Sends a request until the answer depends on the request itself.

        Raises:
            ArangoServerError: the server refuses it, for a reason that the caller puts into words.
        """
        reason = ""
        for retry in range(RETRIES + 1):
            try:
                answer = request()
            except NotNow as error:
                reason = str(error)
            except ArangoServerError as error:
                if error.error_code != CLUSTER_TIMEOUT:
                    self._check_access(error)
                    raise
                reason = error.message
            except OutsideError:
                raise
            except OSError as error:  # all errors of the transport are OSErrors
                reason = str(error)
                if not self._answered:
                    hint = f"no ArangoDB answers there ({reason}). Is it running, is the address right?"
                    raise OutsideError(f"{self._place.shown}: {hint}") from None
            except (LookupError, TypeError, AttributeError) as error:
                raise OutsideError(f"{self._place.shown}: {NO_ARANGO} ({error!r})") from None
            else:
                self._answered = True
                return answer
            self._answered = True
            if retry < RETRIES:
                wait_s = min(BACKOFF_S * 2**retry, _BACKOFF_CAP_S) * random.uniform(0.5, 1.0)
                log.warning("%s: %s. The request is repeated in %.1f s.", self._place.shown, reason, wait_s)
                time.sleep(wait_s)
        raise OutsideError(
            f"{self._place.shown}: no answer after {RETRIES + 1} tries ({reason}). Run the same command "
            "again to resume."
        )

    def _check_access(self, error: ArangoServerError) -> None:
        """Raises UserError for a refusal that is due to the user or the database."""
        place = self._place
        if error.http_code == 401 and place.token:
            ended = _expiry(place.token)
            past = ended is not None and ended <= datetime.now(UTC)
            got = f"one that expired at {ended:%Y-%m-%d %H:%M:%S} UTC" if past else "one that it refuses"
            fix = "Set a new one, or ARANGO_USER and ARANGO_PASSWORD instead, and run the same command again to resume."
            raise UserError(Fault("ARANGO_TOKEN", f"a token that {place.shown} takes", Shown(got), fix)) from None
        if error.http_code == 401:
            got = Shown(f"a refusal for the user {place.user}")
            fix = "Set ARANGO_USER and ARANGO_PASSWORD."
            raise UserError(Fault(place.shown, "a user with access to it, and the right password", got, fix)) from None
        if error.http_code == 403:
            who = "the token's user" if place.token else f"the user {place.user}"
            got, fix = Shown(error.message), f"Grant {who} read access to it."
            raise UserError(Fault(place.shown, f"a database and collections that {who} may read", got, fix)) from None
        if error.error_code == NO_DATABASE:
            raise UserError(missing(place.shown, "database", place.database, self._databases())) from None

    def _databases(self) -> list[str]:
        """Returns the databases that the user may see, or none if the server does not list them."""
        try:
            found: Any = self._open("_system").databases_accessible_to_user()
        except (ArangoServerError, NotNow, OSError):
            return []
        return found

    def _bad_query(self, error: ArangoServerError) -> UserError | OutsideError:
        if 400 <= error.http_code < 500:
            return UserError(Fault("--aql", "a query that the server can run", Shown(error.message)))
        return self._unexpected(error)

    def _unexpected(self, error: ArangoServerError) -> OutsideError:
        return OutsideError(f"{self._place.shown}: the server refused: {error.message}.")


def missing(where: str, kind: str, name: str, there: Any) -> Fault:
    """Returns the error for a name that does not exist, with the nearest name that does."""
    names = sorted(one for one in there if not one.startswith("_") and one != name)
    near = get_close_matches(name, names, n=1)
    listed = f"There are: {', '.join(names[:20])}." if names else ""
    fix = f"Did you mean {near[0]}?" if near else listed
    return Fault(where, f"a {kind} of the server", Shown(f"{name}, which does not exist"), fix)


class _Transport(DefaultHTTPClient):
    """The driver's transport, which also keeps the reason of a failed connection and accepts only JSON."""

    def __init__(self) -> None:
        super().__init__(request_timeout=REQUEST_TIMEOUT_S)

    def create_session(self, host: str) -> Session:
        session = Session()  # the driver's session repeats only GET, and the retries would multiply
        session.auth = lambda request: request  # otherwise a .netrc would replace a token
        if is_this_machine(urlsplit(host).hostname or ""):
            session.trust_env = False  # requests would ask a proxy for what is on this machine
        session.hooks["response"].append(_read_bounded)
        return session

    def send_request(self, *args: Any, **kwargs: Any) -> Response:
        try:
            response = super().send_request(*args, **kwargs)
        except NoConnection as error:  # the driver would catch this class and lose the reason
            raise ConnectionAbortedError(_reason(error)) from error
        if response.status_code in PASSING:
            raise NotNow(f"HTTP {response.status_code} {response.status_text}")
        if response.status_code < 300 and response.raw_body[:1] not in ("{", "["):
            raise OutsideError(f"{response.url}: {NO_ARANGO}")
        return response


def _read_bounded(response: HttpResponse, **_: Any) -> None:
    """Reads a body up to a limit, which requests does not have."""
    pieces, room = [], _LONGEST_ANSWER
    for piece in response.iter_content(1 << 20):
        room -= len(piece)
        if room < 0:
            response.close()
            raise OutsideError(f"{urlsplit(response.url).netloc}: an answer of more than {_LONGEST_ANSWER:,} bytes")
        pieces.append(piece)
    response._content = b"".join(pieces)


def _reason(error: BaseException) -> str:
    """Returns the text of the innermost of a chain of transport errors, which is the one that people know."""
    inner: Any = error
    while True:
        nested = getattr(inner, "reason", None) or inner.__cause__ or inner.__context__
        if not isinstance(nested, BaseException):
            break
        inner = nested
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__


def _expiry(token: str) -> datetime | None:
    """Returns when a JWT expires, or None if it does not say."""
    try:
        payload = token.split(".")[1]
        return datetime.fromtimestamp(
            json_decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"], UTC
        )
    except (LookupError, TypeError, ValueError, OverflowError, OSError):
        return None

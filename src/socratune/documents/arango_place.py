"""Addresses of databases, `arangodb://[USER[:PASSWORD]@]HOST[:8529]/DB`, with user and password from the environment.

A password in the address is never shown, logged or written: `ArangoPlace.shown` is the address without it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from socratune.errors import Fault, UserError

PORT = 8529
SCHEMES = {"arangodb": "http", "arangodbs": "https", "http": "http", "https": "https"}
ADDRESS = "an address like arangodb://localhost:8529/DATABASE"


@dataclass(frozen=True, slots=True)
class ArangoPlace:
    """A database and the user who reads it.

    Attributes:
        url: the address of the server, `http://HOST:PORT`.
        token: a JWT. If it is set, user and password are not used.
        shown: the address without user and password.
    """

    url: str
    database: str
    shown: str
    user: str = "root"
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


def place_of(database: str) -> str:
    """Returns the address of a database on the server in `ARANGO_URL` (default: `http://127.0.0.1:8529`).

    It contains user and password of `ARANGO_URL`. Call `without_password` before you show it.

    Raises:
        UserError: `ARANGO_URL` is not an address.
    """
    url = os.environ.get("ARANGO_URL") or f"http://127.0.0.1:{PORT}"
    scheme, server = _server(url, "ARANGO_URL", "an address like http://127.0.0.1:8529")
    return f"{'arangodbs' if scheme == 'https' else 'arangodb'}://{server}/{quote(database, safe='')}"


def without_password(place: str) -> str:
    """Returns the address without what is before the last @, so that it may be shown and written to files."""
    scheme, behind, _ = place.partition("://") if "://" in place else ("", "", "")
    return f"{scheme}{behind}{place.removeprefix(scheme + behind).rpartition('@')[2]}"


def parse_place(text: str) -> ArangoPlace:
    """Returns the database of an address.

    What is missing from it comes from `ARANGO_USER`, `ARANGO_PASSWORD` and `ARANGO_TOKEN`. A user in the address comes
    first.

    Raises:
        UserError: it is not the address of a database.
    """
    shown = without_password(text)
    if text.partition("://")[0] not in ("arangodb", "arangodbs"):
        raise UserError(Fault("--source", ADDRESS, shown))
    scheme, server = _server(text, "--source", ADDRESS)
    login, _, host = server.rpartition("@")
    database = unquote(urlsplit(text).path.strip("/"))
    if not database or "/" in database:
        raise UserError(Fault("--source", ADDRESS, shown, "Name exactly one database behind the server."))
    url = f"{scheme}://{host}"
    if login:
        user, _, password = login.partition(":")
        password = unquote(password) or os.environ.get("ARANGO_PASSWORD", "")
        return ArangoPlace(url, database, shown, user=unquote(user), password=password)
    user, password = os.environ.get("ARANGO_USER") or "root", os.environ.get("ARANGO_PASSWORD", "")
    return ArangoPlace(url, database, shown, user=user, password=password, token=os.environ.get("ARANGO_TOKEN", ""))


def _server(text: str, where: str, expected: str) -> tuple[str, str]:
    """Returns the scheme (`http` or `https`) and `[LOGIN@]HOST:PORT` of an address."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port or PORT
    except ValueError:  # a port that is not a number, or the rest of an unquoted password
        parts, host, port = urlsplit(""), "", 0
    if parts.scheme not in SCHEMES or not host or parts.query or parts.fragment:
        fix = "In a password / ? # are written as %2F %3F %23; better, set ARANGO_PASSWORD." if "@" in text else ""
        raise UserError(Fault(where, expected, without_password(text), fix))
    login = parts.netloc.rpartition("@")[0]
    host = f"[{host}]" if ":" in host else host
    return SCHEMES[parts.scheme], f"{login}@{host}:{port}" if login else f"{host}:{port}"

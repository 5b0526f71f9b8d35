"""HTTP/1.1 as bytes: what a POST begins with, and the answer read off what has come so far. Touches no socket."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Generator, Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

T = TypeVar("T")

Steps = Generator[None, bool, T]
"""A reader of bytes that grow between its steps. Each step is sent whether the connection has ended."""

LONGEST_HEAD = 65_536
"""Bytes before a body, or of the line before a chunk: more than any server sends, little enough to hold."""


class BadResponse(OSError):
    """What came is not HTTP/1, or less than was announced."""


class Response(NamedTuple):
    """An answer, whole. `headers` have lower-case names; of one that comes twice the last counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def post_head(url: str, headers: Mapping[str, str]) -> bytes:
    """A request to `http(s)://[USER:PASSWORD@]HOST[:PORT][/PATH]` up to the body's length, which the caller adds.

    User and password become the `Authorization`.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host if host.isascii() else host.encode("idna").decode()
    every = {"Host": f"{shown}:{parts.port}" if parts.port else shown, "Accept-Encoding": "identity", **headers}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        every["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items()), "Content-Length: "]
    return "\r\n".join(lines).encode()


def response(received: bytearray) -> Steps[tuple[Response, bool]]:
    """The next answer, taken off `received` (empty at first), and whether the connection can be used again.

    Raises:
        BadResponse, ValueError: it is not HTTP/1.
        BadResponse: the connection ended too soon.
    """
    version, status, headers = "", 100, {}
    while status < 200:  # interim answers
        version, status, headers = _head((yield from _until(received, b"\r\n\r\n")))
    keep = version == "HTTP/1.1" and "close" not in headers.get("connection", "").lower()
    if status in (204, 304):
        body = b""
    elif "chunked" in headers.get("transfer-encoding", "").lower():
        body = yield from _chunks(received)
    elif "content-length" in headers:
        body = yield from _exactly(received, _size(headers["content-length"], 10))
    else:
        keep = False
        while not (yield):
            pass
        body = yield from _exactly(received, len(received))
    return Response(status, headers, body), keep and not received


def _head(head: bytes) -> tuple[str, int, dict[str, str]]:
    """Version, status and headers."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise BadResponse("that is not HTTP/1")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return version, _size(rest[:3], 10), headers


def _chunks(received: bytearray) -> Steps[bytes]:
    pieces = []
    while size := _size((yield from _until(received, b"\r\n")).split(b";")[0], 16):
        pieces.append((yield from _exactly(received, size)))
        if (yield from _exactly(received, 2)) != b"\r\n":
            raise BadResponse("a chunk is longer than it says")
    while (yield from _until(received, b"\r\n")):  # trailers
        pass
    return b"".join(pieces)


def _size(text: str | bytes, base: int) -> int:
    size = int(text, base)
    if size < 0:
        raise BadResponse("a length below zero")
    return size


def _until(received: bytearray, end: bytes) -> Steps[bytes]:
    """What comes before the next `end`; both are taken off."""
    while (at := received.find(end)) < 0:
        if len(received) > LONGEST_HEAD:
            raise BadResponse("headers without end")
        yield from _more()
    piece = bytes(received[:at])
    del received[: at + len(end)]
    return piece


def _exactly(received: bytearray, size: int) -> Steps[bytes]:
    while len(received) < size:
        yield from _more()
    piece = bytes(received[:size])
    del received[:size]
    return piece


def _more() -> Steps[None]:
    if (yield):
        raise BadResponse("closed before the answer was whole")

"""HTTP/1.1 as bytes: what a POST begins with, and the answer read off what has come so far. Touches no socket."""

from __future__ import annotations

import asyncio
import ssl
import time
from base64 import b64encode
from collections.abc import Generator, Mapping
from functools import cache
from typing import NamedTuple, TypeVar, cast
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies_environment

_T = TypeVar("_T")

Steps = Generator[None, bool, _T]
"""A reader of bytes that grow between its steps. Each step is sent whether the connection has ended."""

LONGEST_HEAD = 65_536
"""Bytes before a body, or of the line before a chunk: more than any server sends, little enough to hold."""


LONGEST_ANSWER = 1 << 24
"""Bytes of a whole answer, framing included, where the caller does not say how many it can bear."""


class BadResponse(OSError):
    """What came is not HTTP/1, or less than was announced."""


class EndlessResponse(BadResponse):
    """More came than an answer to this request can take."""


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


# POST over HTTP/1.1 connections that are kept: the one thing models behind a server need, as cheap as asyncio can
# be.


NEXT_ADDRESS_S = 0.25
"""A host's next address (IPv4 behind a broken IPv6) is tried so much later, as RFC 8305 has it."""


class CannotConnect(OSError):
    """No connection came about: no such host, nobody listens, a certificate that is not trusted."""


class Pool:
    """Connections to one URL. The one used last is used first, so that those not needed grow old and are left.

    Args:
        url: `http(s)://[USER:PASSWORD@]HOST[:PORT][/PATH]`.
        headers: of every request.
        connect_timeout_s: name, connection and TLS together.
        keep_alive_s: an idle connection older than this is not used again.
    """

    def __init__(self, url: str, headers: Mapping[str, str], *, connect_timeout_s: float, keep_alive_s: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._head = post_head(url, headers)
        self._connect_timeout_s = connect_timeout_s
        self._keep_alive_s = keep_alive_s
        self._idle: list[_Connection] = []

    async def post(self, body: bytes, longest: int = LONGEST_ANSWER) -> Response:
        """The answer, whatever its status. Cancelled, it gives the connection up.

        Args:
            body: of the request.
            longest: bytes of an answer, framing included; what goes on beyond them is not read.

        Raises:
            CannotConnect: nothing was sent.
            EndlessResponse: the answer is longer.
            OSError: the connection broke, or what came is no HTTP (`BadResponse`).
        """
        connection = self._kept() or await self._connect()
        try:
            answer = await connection.ask(b"%b%d\r\n\r\n%b" % (self._head, len(body), body), longest)
        except BaseException:
            connection.drop()
            raise
        if connection.reusable:
            connection.used_at = time.monotonic()
            self._idle.append(connection)
        else:
            connection.drop()
        return answer

    async def close(self) -> None:
        """Close the idle connections, and wait until they are. A later call opens new ones."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.drop()
        await asyncio.gather(*(connection.closed for connection in idle))

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and time.monotonic() - connection.used_at < self._keep_alive_s:
                return connection
            connection.drop()
        return None

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    _Connection,
                    self._host,
                    self._port,
                    ssl=_trusted() if self._tls else None,
                    happy_eyeballs_delay=NEXT_ADDRESS_S,
                )
        except TimeoutError:
            raise CannotConnect(f"no connection within {self._connect_timeout_s:g} s") from None
        except (OSError, UnicodeError) as error:  # the latter: a host name that cannot be one
            scheme = "https" if self._tls else "http"
            unused = f"; {scheme.upper()}_PROXY is set, but no proxy is used" * (scheme in getproxies_environment())
            raise CannotConnect(f"{error}{unused}") from None
        return connection


@cache
def _trusted() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Connection(asyncio.Protocol):
    """One connection, one request at a time.

    Attributes:
        reusable: it stands, and nothing is left over from the last answer.
        used_at: end of the last answer, `time.monotonic` seconds.
        closed: done when the connection is gone.
    """

    def __init__(self) -> None:
        self.reusable = False
        self.used_at = 0.0
        self._loop = asyncio.get_running_loop()
        self.closed = self._loop.create_future()
        self._received = bytearray()
        self._answer: asyncio.Future[Response] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes, longest: int) -> asyncio.Future[Response]:
        """Send a request; the future gets its answer of at most `longest` bytes, or an OSError."""
        self.reusable = False
        self._longest = self._room = longest
        self._answer = self._loop.create_future()
        self._reader = response(self._received)
        next(self._reader)
        self._transport.write(request)
        return self._answer

    def drop(self) -> None:
        """Close at once, whatever is in flight."""
        self.reusable = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.drop()  # nobody asked: the next answer must not begin with it
            return
        self._room -= len(data)
        if self._room < 0:  # whatever the framing: a body, its trailers or interim answers without end
            self._answer.set_exception(EndlessResponse(f"an answer of more than {self._longest:,} bytes"))
            self.drop()
            return
        self._received += data
        self._read(self._answer, ended=False)

    def eof_received(self) -> None:
        self.reusable = False
        if self._answer is not None and not self._answer.done():
            self._read(self._answer, ended=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or BadResponse("closed before the answer was whole"))
        if not self.closed.done():
            self.closed.set_result(None)

    def _read(self, answer: asyncio.Future[Response], *, ended: bool) -> None:
        try:
            self._reader.send(ended)
        except StopIteration as found:
            whole, keep = found.value
            self.reusable = keep and not ended
            answer.set_result(whole)
        except (BadResponse, ValueError) as error:
            answer.set_exception(BadResponse(str(error)))

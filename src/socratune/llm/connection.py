"""Encodes HTTP/1.1 requests and decodes answers from the bytes received so far; then connects and pools."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Generator, Mapping
from functools import cache
from typing import NamedTuple, TypeVar, cast
from urllib.parse import quote, urlsplit
from urllib.request import getproxies_environment

from socratune.llm.proxies import Proxy, basic_authorization, proxy_of

_T = TypeVar("_T")

Steps = Generator[None, bool, _T]
"""A reader of bytes that grow between its steps. Each step is sent whether the connection has ended."""

LONGEST_HEAD = 65_536
"""Bytes before a body, or of the line before a chunk: more than any server sends, and little enough to store."""


LONGEST_ANSWER = 1 << 24
"""Bytes of a whole answer, framing included, if the caller sets no limit."""


class BadResponse(OSError):
    """Reports an answer that is not HTTP/1 or shorter than announced."""


class EndlessResponse(BadResponse):
    """Reports an answer that is longer than this request allows."""


class Response(NamedTuple):
    """Holds a complete answer. `headers` have lower-case names; the last of equal names counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def request_head(method: str, url: str, headers: Mapping[str, str], *, whole_url: bool = False) -> bytes:
    """Returns a request to `http(s)://[USER:PASSWORD@]HOST[:PORT][/PATH][?QUERY]` up to the body's length.

    User and password become the `Authorization`. `whole_url`: as a proxy has it, which passes it on.
    """
    parts = urlsplit(url)
    place = f"{_shown_host(parts.hostname or '')}:{parts.port}" if parts.port else _shown_host(parts.hostname or "")
    every = {"Host": place, "Accept-Encoding": "identity", **headers}
    if basic := basic_authorization(parts):
        every["Authorization"] = basic
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    path += f"?{parts.query}" if parts.query else ""
    path = f"{parts.scheme}://{place}{path}" if whole_url else path
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items()), "Content-Length: "]
    return "\r\n".join(lines).encode()


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host if host.isascii() else host.encode("idna").decode()


def tunnel_head(host: str, port: int, authorization: str) -> bytes:
    """Returns the request that asks a proxy for a tunnel."""
    place = f"{_shown_host(host)}:{port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}", "User-Agent: socratune"]
    lines += [f"Proxy-Authorization: {authorization}"] if authorization else []
    return "\r\n".join([*lines, "", ""]).encode()


def tunnel_answer(received: bytearray) -> Steps[tuple[Response, bool]]:
    """Reads a proxy's answer to that: a 2xx has no body, and otherwise only the status counts."""
    _, status, headers = _head((yield from _until(received, b"\r\n\r\n")))
    return Response(status, headers, b""), not received


def response(received: bytearray) -> Steps[tuple[Response, bool]]:
    """Reads the next answer from `received` (empty at first), and whether the connection can be used again.

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
    """Reads version, status and headers."""
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
    """Reads what comes before the next `end` and removes both."""
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
"""The delay before a host's next address (IPv4 behind a broken IPv6) is tried, as in RFC 8305."""


class CannotConnect(OSError):
    """Reports a failed connection: an unknown host, no listener, or an untrusted certificate."""


class Pool:
    """Keeps connections to one URL. The last used comes first, so that surplus connections age and are closed.

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
        self._proxy = proxy_of(url)
        self._head = self._head_of("POST", url, headers)
        self._connect_timeout_s = connect_timeout_s
        self._keep_alive_s = keep_alive_s
        self._idle: list[_Connection] = []

    async def post(self, body: bytes, longest: int = LONGEST_ANSWER) -> Response:
        """Posts a body and returns the answer, whatever its status. A cancelled call gives up its connection.

        Args:
            body: of the request.
            longest: bytes of an answer, framing included; what goes on beyond them is not read.

        Raises:
            CannotConnect: nothing was sent.
            EndlessResponse: the answer is longer.
            OSError: the connection broke, or what came is no HTTP (`BadResponse`).
        """
        return await self._asked(self._head, body, longest)

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes, longest: int) -> Response:
        """Sends a request to another path of the same host, with any method."""
        return await self._asked(self._head_of(method, url, headers), body, longest)

    def _head_of(self, method: str, url: str, headers: Mapping[str, str]) -> bytes:
        plain = self._proxy if not self._tls else None
        own = {"Proxy-Authorization": plain.authorization} if plain and plain.authorization else {}
        return request_head(method, url, {**headers, **own}, whole_url=plain is not None)

    async def _asked(self, head: bytes, body: bytes, longest: int) -> Response:
        connection = self._kept() or await self._connect()
        try:
            answer = await connection.ask(b"%b%d\r\n\r\n%b" % (head, len(body), body), longest)
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
        """Closes the idle connections and waits for them. A later call opens new ones."""
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
        proxy = self._proxy
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                if proxy is None:
                    return await _opened(self._host, self._port, tls=self._tls)
                connection = await _opened(proxy.host, proxy.port, tls=proxy.tls)
                return await self._tunnelled(connection, proxy) if self._tls else connection
        except TimeoutError:
            through = f" through the proxy {proxy.shown}" if proxy else ""
            raise CannotConnect(f"no connection within {self._connect_timeout_s:g} s{through}") from None
        except (OSError, UnicodeError) as error:  # the latter: a host name that cannot be one
            raise CannotConnect(f"{error}{self._proxy_note()}") from None

    async def _tunnelled(self, connection: _Connection, proxy: Proxy) -> _Connection:
        """Opens TLS to the server itself through a proxy's tunnel. The proxy sees host and port only."""
        try:
            asked = tunnel_head(self._host, self._port, proxy.authorization)
            reply = await connection.ask(asked, LONGEST_HEAD, tunnel_answer)
            if reply.status == 407:
                raise OSError("the proxy asks for user and password (407)")
            if reply.status // 100 != 2 or not connection.reusable:
                raise OSError(f"the proxy refuses a tunnel (status {reply.status})")
            await connection.secure(self._host)
        except BaseException:
            connection.drop()
            raise
        return connection

    def _proxy_note(self) -> str:
        if self._proxy is not None:
            return f"; by the proxy {self._proxy.shown}"
        name = f"{'https' if self._tls else 'http'}_proxy"
        unused = getproxies_environment().get("https" if self._tls else "http")
        return f"; {name.upper()} is set, and not used for this machine or what NO_PROXY names" if unused else ""


async def _opened(host: str, port: int, *, tls: bool) -> _Connection:
    loop, context = asyncio.get_running_loop(), _trusted() if tls else None
    if not isinstance(
        loop, asyncio.BaseEventLoop
    ):  # uvloop's, which Ray takes where it is installed, has no such delay
        return (await loop.create_connection(_Connection, host, port, ssl=context))[1]
    _, connection = await loop.create_connection(
        _Connection, host, port, ssl=context, happy_eyeballs_delay=NEXT_ADDRESS_S
    )
    return connection


@cache
def _trusted() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Connection(asyncio.Protocol):
    """Handles one connection, one request at a time.

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

    def ask(
        self,
        request: bytes,
        longest: int,
        reader: Callable[[bytearray], Steps[tuple[Response, bool]]] = response,
    ) -> asyncio.Future[Response]:
        """Sends a request. The future gets its answer of at most `longest` bytes, or an OSError."""
        self.reusable = False
        self._longest = self._room = longest
        self._answer = self._loop.create_future()
        self._reader = reader(self._received)
        next(self._reader)
        self._transport.write(request)
        return self._answer

    async def secure(self, host: str) -> None:
        """Continues over TLS with a certificate of `host`."""
        transport = await self._loop.start_tls(self._transport, self, _trusted(), server_hostname=host)
        assert transport is not None
        self._transport = transport

    def drop(self) -> None:
        """Closes the connection at once, whatever is in flight."""
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

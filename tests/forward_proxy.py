"""A forward proxy on loopback, as squid is one: tunnels by CONNECT, and requests with a whole URL.

    with ForwardProxy({"model.example": port}) as proxy:      # no name server knows that host, so none is asked
        HttpModel(api_bases=["http://model.example/v1"], ...)  # with HTTP_PROXY=proxy.url in the environment

It knows the hosts that it is given and answers 502 for others. It keeps connections as its clients do, caches nothing,
and cannot prove that a proxy which opens TLS itself (with a certificate of the company's) would be trusted.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from base64 import b64encode
from collections.abc import Mapping


class ForwardProxy:
    """A context manager; serves from a thread with a loop of its own.

    Attributes:
        port: on 127.0.0.1.
        seen: the first line of every request.

    Args:
        ports: host → port on 127.0.0.1 that takes its place.
        credentials: `USER:PASSWORD` to be given, or nothing.
        refuses: the status of every answer in place of the way through; 0 lets through.
        tls: the proxy is spoken to over TLS.
    """

    def __init__(
        self, ports: Mapping[str, int], *, credentials: str = "", refuses: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.port = 0
        self.seen: list[str] = []
        self._ports = ports
        self._wanted = f"Basic {b64encode(credentials.encode()).decode()}" if credentials else ""
        self._refuses = refuses
        self._tls = tls
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ForwardProxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Deal with the next request; whether another may follow."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        self.seen.append(first)
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        method, target, _ = first.split(" ")
        place = target if method == "CONNECT" else target.split("//", 1)[1].split("/", 1)[0]
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        status = self._refuses or (407 if headers.get("proxy-authorization", "") != self._wanted else 0)
        status = status or (0 if place.split(":")[0] in self._ports else 502)
        if status:
            writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 9\r\n\r\nnot today" % status)
            await writer.drain()
            return True
        port = self._ports[place.split(":")[0]]
        if method == "CONNECT":
            await _tunnel(reader, writer, port)
            return False
        path = "/" + target.split("//", 1)[1].partition("/")[2]
        kept = "\r\n".join(line for line in lines if not line.lower().startswith("proxy-"))
        await _pass_on(f"{method} {path} HTTP/1.1\r\n{kept}\r\n\r\n".encode("latin-1") + body, writer, port)
        return True


async def _pass_on(request: bytes, client: asyncio.StreamWriter, port: int) -> None:
    """One request to the server, and its answer of a known length back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        client.write(head + await reader.readexactly(length))
        await client.drain()
    finally:
        writer.transport.abort()


async def _tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
    pipes: list[asyncio.Future[None]] = []
    try:
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        pipes += [asyncio.ensure_future(_piped(*ends)) for ends in ((reader, server_writer), (server_reader, writer))]
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server_writer.transport.abort()  # first of all: the proxy's end cancels what is awaited below
        for pipe in pipes:
            pipe.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)


async def _piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()

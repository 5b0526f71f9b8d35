"""Our HTTP/1.1: every framing a server may choose, nothing of one answer in another, and TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from model_server import Answer, ModelServer

from socratune.llm import connection as transport
from socratune.llm.base import Sampling
from socratune.llm.connection import (
    LONGEST_HEAD,
    BadResponse,
    CannotConnect,
    EndlessResponse,
    Pool,
    Response,
    request_head,
    response,
)
from socratune.llm.http import HttpModel

T = TypeVar("T")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


def read(raw: bytes, step: int, *, ended: bool = False) -> tuple[Response, bool]:
    """What the reader makes of bytes that come `step` at a time, then, if `ended`, the connection's end."""
    received = bytearray()
    reader = response(received)
    next(reader)
    try:
        for start in range(0, len(raw), step):
            received += raw[start : start + step]
            reader.send(False)
        if ended:
            reader.send(True)
    except StopIteration as found:
        return found.value
    raise EOFError("it waits for more")


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
CHUNKS = b"2;x=y\r\nhi\r\n00A\r\n0123456789\r\n0\r\nX: y\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"
WHOLE = {
    "length": (OK + b"hi", 200, b"hi", True),
    "no reason, any case, no space": (b"HTTP/1.1 200\r\ncontent-LENGTH:2\r\n\r\nhi", 200, b"hi", True),
    "empty": (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", 500, b"", True),
    "chunks": (CHUNKED + b"\r\n" + CHUNKS, 200, b"hi0123456789", True),
    "chunks win over a length": (CHUNKED + b"Content-Length: 1\r\n\r\n" + CHUNKS, 200, b"hi0123456789", True),
    "interim answers": (INTERIM + OK + b"hi", 200, b"hi", True),
    "nothing follows 204": (b"HTTP/1.1 204 None\r\n\r\n", 204, b"", True),
    "close": (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", False),
}  # fmt: skip


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize(("raw", "status", "body", "keep"), WHOLE.values(), ids=WHOLE)
def test_an_answer_is_read_however_it_is_framed_and_cut(
    raw: bytes, status: int, body: bytes, keep: bool, step: int
) -> None:
    answer, kept = read(raw, step)
    assert (answer.status, answer.body, kept) == (status, body, keep)


def test_a_body_without_length_ends_with_the_connection() -> None:
    raw = b"HTTP/1.1 200 OK\r\n\r\nall of it"
    with pytest.raises(EOFError):
        read(raw, 3)
    answer, kept = read(raw, 3, ended=True)
    assert (answer.body, kept) == (b"all of it", False)


def test_headers_are_told_in_lower_case() -> None:
    answer, _ = read(b"HTTP/1.1 429 No\r\nRetry-After:  7 \r\nContent-Length: 0\r\n\r\n", 1)
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 fine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nhi",
        CHUNKED + b"\r\nzz\r\nhi\r\n0\r\n\r\n",
        CHUNKED + b"\r\n1\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * LONGEST_HEAD,
    ],
)
def test_what_is_not_http_is_refused(raw: bytes) -> None:
    with pytest.raises((BadResponse, ValueError)):
        read(raw, 1000)


@pytest.mark.parametrize(
    "raw", [b"", b"HTTP/1.1 200", OK, OK + b"h", WHOLE["chunks"][0][:-2], WHOLE["chunks"][0][:60]], ids=repr
)
def test_an_answer_that_ends_too_soon_is_none(raw: bytes) -> None:
    with pytest.raises(BadResponse, match="before the answer was whole"):
        read(raw, 1000, ended=True)


def test_what_a_request_begins_with() -> None:
    lines = request_head("POST", "https://us%40er:p%3Aw@[::1]:8443/v1/a b", {"X": "y"}).decode().split("\r\n")
    assert lines[0] == "POST /v1/a%20b HTTP/1.1"
    assert {"Host: [::1]:8443", "X: y", "Authorization: Basic dXNAZXI6cDp3"} <= set(lines)
    assert b"Host: xn--bcher-kva.example\r\n" in request_head("POST", "https://bücher.example/v1", {})


# --- over connections


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


def talk(
    script: Script,
    do: Callable[[Pool], Awaitable[T]],
    *,
    keep_alive_s: float = 60,
    tls: ssl.SSLContext | None = None,
) -> T:
    """What `do` brings with a pool on a server that does `script` on every connection."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def main() -> T:
        server = await asyncio.start_server(connection, "127.0.0.1", 0, ssl=tls)
        scheme = "https" if tls else "http"
        url = f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}/v1"
        pool = Pool(url, {}, connect_timeout_s=5, keep_alive_s=keep_alive_s)
        try:
            return await asyncio.wait_for(do(pool), 20)
        finally:
            await pool.close()
            server.close()

    return asyncio.run(main())


async def request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(int(head.rsplit(b"Content-Length: ", 1)[1]))


class Numbered:
    """A script: answers each request with the connection's number, then does `after`."""

    def __init__(self, after: Script | None = None, *, extra: bytes = b"") -> None:
        self.connections = 0
        self.ended = asyncio.Event()
        self._after = after
        self._extra = extra

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while True:
                await request(reader)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number + self._extra)
                if self._after:
                    await self._after(reader, writer)
        finally:
            self.ended.set()


async def twice(pool: Pool, between: Callable[[], Awaitable[object]] | None = None) -> bytes:
    first = await pool.post(b"{}")
    if between:
        await between()
    return first.body + (await pool.post(b"{}")).body


def test_a_connection_is_used_again() -> None:
    assert talk(Numbered(), twice) == b"11"


def test_an_old_connection_is_not() -> None:
    assert talk(Numbered(), twice, keep_alive_s=0) == b"12"


def test_one_that_the_server_closed_is_not() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        assert await reader.read() == b""  # by now the client knows

    script = Numbered(close)
    assert talk(script, lambda pool: twice(pool, script.ended.wait)) == b"12"


def test_bytes_beyond_an_answer_are_never_the_next_one() -> None:
    """Sent with the answer, and sent afterwards: a whole answer nobody asked for."""
    planted = OK + b"no"
    assert talk(Numbered(extra=planted), twice) == b"12"

    async def say_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        writer.write(planted)

    script = Numbered(say_more)
    assert talk(script, lambda pool: twice(pool, script.ended.wait)) == b"12"


def test_a_cancelled_call_ends_its_connection() -> None:
    script = Numbered()
    asked = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        asked.set()
        await reader.read()
        script.ended.set()

    async def do(pool: Pool) -> None:
        call = asyncio.create_task(pool.post(b"{}"))
        await asked.wait()
        call.cancel()
        await script.ended.wait()
        assert call.cancelled()

    talk(hang, do)


def test_large_bodies_go_both_ways() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    body = bytes(range(256)) * 20_000
    assert talk(echo, lambda pool: pool.post(body)).body == body


ENDLESS = {
    "chunks": (CHUNKED + b"\r\n", b"4000\r\n" + b"x" * 0x4000 + b"\r\n"),
    "a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 0x4000),
    "no length": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 0x4000),
    "chunks of nothing but their names": (CHUNKED + b"\r\n", b"1;" + b"n" * 0x4000 + b"\r\nx\r\n"),
    "trailers": (CHUNKED + b"\r\n0\r\n", b"X: y\r\n" * 1000),
    "interim answers": (b"", INTERIM * 200),
}


@pytest.mark.parametrize(("head", "piece"), ENDLESS.values(), ids=ENDLESS)
def test_what_has_no_end_is_given_up_at_the_callers_limit(head: bytes, piece: bytes) -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request(reader)
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    with pytest.raises(EndlessResponse, match="more than 300,000 bytes"):
        talk(pour, lambda pool: pool.post(b"{}", 300_000))
    assert sent < 20_000_000  # what lies in the buffers of two sockets


def test_a_refusal_before_the_request_is_read_is_an_answer() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await reader.read()

    assert talk(refuse, lambda pool: pool.post(b"x" * 100_000)).status == 413


def test_nobody_there() -> None:
    for url in ("http://localhost:9/v1", f"http://{'x' * 70}.invalid/v1"):
        with pytest.raises(CannotConnect):
            asyncio.run(Pool(url, {}, connect_timeout_s=5, keep_alive_s=1).post(b""))


def test_a_proxy_that_is_not_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    pool = Pool("https://localhost:9/v1", {}, connect_timeout_s=5, keep_alive_s=1)
    with pytest.raises(CannotConnect, match="HTTPS_PROXY is set"):
        asyncio.run(pool.post(b""))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_tls_trusts_what_the_machine_trusts_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *name]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    transport._trusted.cache_clear()
    with pytest.raises(CannotConnect, match="CERTIFICATE_VERIFY_FAILED"):
        talk(Numbered(), twice, tls=server)
    transport._trusted.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert talk(Numbered(), twice, tls=server) == b"11"
    transport._trusted.cache_clear()


def test_uvloops_loop_is_fine_too() -> None:
    """Ray's workers have it where it is installed."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    with ModelServer(lambda body, number: Answer("42")) as server:

        async def ask() -> str:
            model = HttpModel(kind="openai", model="m", api_bases=[server.openai_base], api_key=None, max_retries=0)
            try:
                return (await model.generate([{"role": "user", "content": "?"}], Sampling())).text
            finally:
                await model.close()

        assert uvloop.run(ask()) == "42"

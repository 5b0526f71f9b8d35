"""Encodes and decodes the batch APIs of OpenAI and Anthropic: requests, states and lines of results.

Both take many calls at once at half price and answer within 24 hours. Nothing here sends anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from socratune.llm.vendors import WireProtocol
from socratune.runs import json_decode, json_encode

BATCH_TIMES = "mostly back within an hour, at the latest after 24 hours"
"""Each vendor's statement on the time of a batch (2026)."""
PATHS: dict[WireProtocol, str] = {"openai": "/batches", "anthropic": "/messages/batches"}
FILES = "/files"
MOST_CALLS = 10_000
"""Calls of one batch. OpenAI takes 50,000 and Anthropic 100,000; this many fit into memory as one answer."""
MOST_BYTES = 90 << 20
"""Bytes of one batch. OpenAI takes 200 MB and Anthropic 256 MB."""
_ENDED = ("completed", "expired", "cancelled")
_CLOCKS_APART_S = 300.0
"""The largest clock difference between this machine and the server."""

State = Literal["out", "ended", "refused"]


@dataclass(frozen=True, slots=True)
class Status:
    """Holds what a server reports about a batch.

    Attributes:
        state: `out` until every call has its result; `refused`: nothing was done, by `why`.
        said: the server's own word for it.
        why: of a refused one.
        files: where its results lie, as paths.
        crowded: it was refused because too much is enqueued.
    """

    id: str
    state: State
    said: str
    why: str = ""
    files: tuple[str, ...] = ()
    crowded: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """Holds the result of one call of a batch.

    Attributes:
        name: its `custom_id`.
        body: as the same call would have been answered directly; None where it was not answered.
        why: why it was not.
        undone: nobody tried (expired, cancelled): it can go into another batch.
    """

    name: str
    body: Any = None
    why: str = ""
    undone: bool = False


def packed(kind: WireProtocol, calls: Sequence[tuple[str, dict[str, Any]]]) -> bytes:
    """Returns the calls of a batch, each (`custom_id`, body), as OpenAI's file or Anthropic's body."""
    if kind == "anthropic":
        return json_encode({"requests": [{"custom_id": name, "params": body} for name, body in calls]})
    url = "/v1/chat/completions"
    lines = ({"custom_id": name, "method": "POST", "url": url, "body": body} for name, body in calls)
    return b"\n".join(map(json_encode, lines))


def upload(token: str, lines: bytes) -> bytes:
    """Returns a multipart body with the token as its boundary."""
    disposition = "\r\nContent-Disposition: form-data; name="
    head = (
        f'--{token}{disposition}"purpose"\r\n\r\nbatch\r\n--{token}{disposition}"file"; filename="{token}.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    return head.encode() + lines + f"\r\n--{token}--\r\n".encode()


def creation(token: str, file_id: str) -> bytes:
    """Returns the request that makes an uploaded file a batch. Its token finds the batch again."""
    asked = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return json_encode({**asked, "metadata": {"socratune": token}})


def batch_status(kind: WireProtocol, data: bytes) -> Status:
    """Returns what a server reports about a batch.

    Raises:
        LookupError, TypeError, ValueError: that is no batch.
    """
    batch = json_decode(data)
    name = str(batch["id"])
    if kind == "anthropic":
        state_name = batch["processing_status"]
        files = (f"{PATHS[kind]}/{name}/results",)
        return Status(name, "ended" if state_name == "ended" else "out", state_name, files=files)
    state_name = batch["status"]
    if state_name == "failed":
        errors = (batch.get("errors") or {}).get("data") or [{}]
        why = "; ".join(f"{error.get('code')}: {error.get('message')}" for error in errors[:3])
        crowded = any(error.get("code") == "token_limit_exceeded" for error in errors)
        return Status(name, "refused", state_name, why, crowded=crowded)
    ids = [file for file in (batch.get("output_file_id"), batch.get("error_file_id")) if file]
    state: State = "ended" if state_name in _ENDED else "out"
    return Status(name, state, state_name, files=tuple(f"{FILES}/{file}/content" for file in ids))


def found(kind: WireProtocol, listed: bytes, *, token: str, calls: int, since: float, known: set[str]) -> str | None:
    """Returns the id of a batch whose answer was lost, searched among the newest, or None if it is missing.

    OpenAI's bears the token. Anthropic's bear nothing of ours: it is one of as many calls that began since, and that is
    no other batch of this run; its results tell whether it is ours.

    Args:
        listed: the server's list.
        token: of the batch.
        calls: how many it has.
        since: when it was about to be sent, seconds since 1970.
        known: ids of other batches of this run.
    """
    for batch in json_decode(listed)["data"]:
        if kind == "openai":
            if (batch.get("metadata") or {}).get("socratune") == token:
                return str(batch["id"])
        elif batch["id"] not in known and sum(batch["request_counts"].values()) == calls:
            began = datetime.fromisoformat(batch["created_at"].replace("Z", "+00:00")).timestamp()
            if began > since - _CLOCKS_APART_S:
                return str(batch["id"])
    return None


def results(kind: WireProtocol, lines: bytes) -> Iterator[Result]:
    """Yields the results in a file. Lines that are no result are skipped, so that their calls count as unanswered."""
    read = _openai_result if kind == "openai" else _anthropic_result
    for line in lines.splitlines():
        try:
            yield read(json_decode(line))
        except (LookupError, TypeError, AttributeError, ValueError):
            continue


def _openai_result(line: Any) -> Result:
    response, error = line.get("response"), line.get("error")
    name = line["custom_id"]
    if response and response["status_code"] == 200:
        return Result(name, response["body"])
    if error:
        return Result(name, why=f"{error['code']}: {error['message']}", undone=error["code"] in _UNDONE)
    body = response["body"]
    why = (body.get("error") or body).get("message") if isinstance(body, dict) else body
    return Result(name, why=f"status {response['status_code']}: {why}")


_UNDONE = ("batch_expired", "batch_cancelled")


def _anthropic_result(line: Any) -> Result:
    name, result = line["custom_id"], line["result"]
    if result["type"] == "succeeded":
        return Result(name, result["message"])
    if result["type"] == "errored":
        error = result["error"].get("error") or result["error"]
        return Result(name, why=f"{error.get('type')}: {error.get('message')}")
    return Result(name, why=str(result["type"]), undone=True)

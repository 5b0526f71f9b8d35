"""A model server on loopback: speaks OpenAI's and Anthropic's protocol and does as it is told, request by request.

    def behave(body: dict, number: int) -> Answer:      # number: 1 for the first request the server got
        return Answer(status=500) if number == 1 else Answer("42")

    with ModelServer(behave) as server:
        HttpModel(kind="openai", api_bases=[server.openai_base], ...)

It shows what a client does with what it gets over a real connection. It cannot prove that a vendor's server answers in
these words, that TLS and proxies work, or what a real model makes of a parameter: it looks at none. It shares the
process with the test, so its own work is in any CPU time measured there; for that, run it as a process of its own:

    python tests/model_server.py DELAY_S        prints its URL and serves until its standard input is closed
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request gets.

    Attributes:
        text: the model's words, or the error's where `status` is not 200.
        status: HTTP.
        delay_s: before anything is sent.
        headers: added ones.
        stop: in OpenAI's words ("stop", "length", "content_filter"); Anthropic's go out as they are.
        thought: reasoning beside the answer.
        refusal: OpenAI's field of this name.
        tokens: prompt and answer.
        raw: sent as the body instead of the protocol's.
        content_type: of the body.
        fault: "hang" until the client gives up, "close" without a word, "cut" the body in the middle, "endless": a body
            that goes on until the client gives up.
        pieces: the body goes out in so many chunks without a length, `pause_s` apart.
    """

    text: str = "ok"
    status: int = 200
    delay_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    stop: str = "stop"
    thought: str = ""
    refusal: str | None = None
    tokens: tuple[int, int] = (10, 5)
    raw: bytes | None = None
    content_type: str = "application/json"
    fault: Literal["", "hang", "close", "cut", "endless"] = ""
    pieces: int = 0
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came, `at` in `time.monotonic` seconds. `headers` are named as the client wrote them."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    at: float


class ModelServer:
    """A context manager; serves from a thread with a loop of its own on a free port.

    Attributes:
        url: `http://127.0.0.1:PORT`, Anthropic's base.
        openai_base: OpenAI's base, `url` with `/v1`.
        seen: every request, in order.
        in_flight, max_in_flight: requests not answered yet, and the most there were at once.
        connections: how many were opened.
    """

    def __init__(self, behave: Callable[[dict[str, Any], int], Answer] = lambda body, number: Answer()) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self.in_flight = self.max_in_flight = 0
        self.connections = 0
        self._behave = behave
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def openai_base(self) -> str:
        return self.url + "/v1"

    def __enter__(self) -> ModelServer:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the server did not start")
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=2**26, backlog=1024)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests one after the other until the client goes away, or a fault or `Connection: close` ends it."""
        self.connections += 1
        try:
            while True:
                path, headers, body = await _request(reader)
                self.seen.append(Seen(path, headers, body, time.monotonic()))
                answer = self._behave(body, len(self.seen))
                async with self._flying():
                    keep = await _send(reader, writer, path, body.get("model", ""), answer)
                if not keep:
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the server is stopped
        finally:
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def _flying(self) -> AsyncIterator[None]:
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1


async def _request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Path, headers and body of the next request."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    length = next((int(value) for name, value in headers.items() if name.lower() == "content-length"), 0)
    return first.split(" ")[1], headers, json.loads(await reader.readexactly(length) or "{}")


async def _send(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, model: str, answer: Answer
) -> bool:
    """Answer, or not; whether the connection can go on."""
    wait_s = 86_400 if answer.fault == "hang" else answer.delay_s
    if wait_s:
        with contextlib.suppress(TimeoutError):  # nothing more may come than the client's end
            await asyncio.wait_for(reader.read(1), wait_s)
            raise ConnectionError
    if answer.fault == "close":
        return False
    speak = _anthropic if path.endswith("/messages") else _openai
    data = answer.raw if answer.raw is not None else json.dumps(speak(answer, model)).encode()
    length = (
        {"Transfer-Encoding": "chunked"}
        if answer.pieces or answer.fault == "endless"
        else {"Content-Length": str(len(data))}
    )
    headers = {"Content-Type": answer.content_type, **length, **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} Said", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    while answer.fault == "endless":
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await writer.drain()
    if answer.pieces:
        size = -(-len(data) // answer.pieces)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(answer.pause_s)
        writer.write(b"0\r\n\r\n")
    else:
        writer.write(data[: len(data) // 2] if answer.fault == "cut" else data)
    await writer.drain()
    if answer.fault == "cut":
        writer.write_eof()
        await reader.read()
    return not answer.fault and "close" not in headers.get("Connection", "")


def _openai(answer: Answer, model: str) -> dict[str, Any]:
    if answer.status != 200:
        return {"error": {"message": answer.text, "type": "server_error", "param": None, "code": None}}
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": answer.refusal}
    if answer.thought:
        message["reasoning_content"] = answer.thought
    prompt, completion = answer.tokens
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": answer.stop}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }


def _anthropic(answer: Answer, model: str) -> dict[str, Any]:
    if answer.status != 200:
        return {"type": "error", "error": {"type": "api_error", "message": answer.text}}
    content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}]
    if answer.thought:
        content.insert(0, {"type": "thinking", "thinking": answer.thought, "signature": "c2ln"})
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": {"stop": "end_turn", "length": "max_tokens"}.get(answer.stop, answer.stop),
        "stop_sequence": None,
        "usage": {"input_tokens": answer.tokens[0], "output_tokens": answer.tokens[1]},
    }


if __name__ == "__main__":
    delay_s = float(sys.argv[1])
    with ModelServer(lambda body, number: Answer("word " * 120, delay_s=delay_s)) as main_server:
        print(main_server.url, flush=True)
        sys.stdin.read()

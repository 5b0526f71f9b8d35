"""Student, judge and teacher on loopback, with the latency each is told: the other side of `benchmarks/loop.py`.

    python benchmarks/loop_server.py PORT CONSTANT|LOGNORMAL SCALE

One asyncio thread and a hand-written HTTP/1.1 parser, so that the server needs little of the machine it shares with the
client. Rows whose number ends in 0-4 are right at once, 5-7 with a hint, 8-9 never.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import statistics
import sys
import zlib
from collections import Counter

LATENCY_S = {"student": 0.040, "judge": 0.060, "teacher": 0.120}
SIGMA = 1.0
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model": ?"(\w+)"')
_ROW = re.compile(rb"row (\d+):")
_SEED = re.compile(rb'"seed": ?(\d+)')
_NORMAL = statistics.NormalDist()


def latency_s(role: str, row: int, call: int, kind: str, scale: float) -> float:
    """Seconds until a role's answer to its `call`-th request for a row: constant, or log-normal with the same mean.

    Drawn by hash, so that client and bound meet the very same latencies.
    """
    mean = LATENCY_S[role] * scale
    if kind == "CONSTANT":
        return mean
    share = (zlib.crc32(f"{role}/{row}/{call}".encode()) + 0.5) / 2**32
    return math.exp(math.log(mean) - SIGMA**2 / 2 + SIGMA * _NORMAL.inv_cdf(share))


def reply(role: str, row: int, body: bytes) -> bytes:
    """The answer of a role to a request."""
    if role == "judge":
        text = json.dumps({"correct": body.count(b"RIGHT") > 1, "reason": "compared with the reference"})
    elif role == "teacher":
        text = "Look at the units once more, then go step by step."
    else:
        right = row % 10 < 5 or (row % 10 < 8 and b"Hint" in body)
        seed = _SEED.search(body)
        number = seed.group(1).decode() if seed else ""  # no two answers are the same, so no verdict is known already
        text = f"I take it step by step and {'RIGHT' if right else 'another number'} comes out, {number}. " * 2
    usage = {"prompt_tokens": len(body) // 4, "completion_tokens": len(text) // 4}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    data = json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data)
    return head + data


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests come one after the other."""

    def __init__(self, kind: str, scale: float, seen: Counter[tuple[str, int]]) -> None:
        self._settings = (kind, scale)
        self._seen = seen
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._buffer, 0, end)
            size = end + 4 + (int(found.group(1)) if found else 0)
            if len(self._buffer) < size:
                return
            body, self._buffer = self._buffer[end + 4 : size], self._buffer[size:]
            named = _MODEL.search(body)
            role = named.group(1).decode() if named else "student"
            row = int(numbered.group(1)) if (numbered := _ROW.search(body)) else 9
            self._seen[role, row] += 1
            wait = latency_s(role, row, self._seen[role, row], *self._settings)
            asyncio.get_running_loop().call_later(wait, self._answer, reply(role, row, body))

    def _answer(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)  # type: ignore[attr-defined]


async def main() -> None:
    """Serve until killed."""
    port, kind, scale = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    seen: Counter[tuple[str, int]] = Counter()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(kind, scale, seen), "127.0.0.1", port, backlog=2048
    )
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

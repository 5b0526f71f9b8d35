"""Student, judge and teacher on loopback, with the latency each is told: the other side of the benchmarks.

    python benchmarks/loop_server.py PORT CONSTANT|LOGNORMAL SCALE [STORM_SEED]

One asyncio thread and a hand-written HTTP/1.1 parser, so that the server needs little of the machine it shares with the
client. Rows whose number ends in 0-4 are right at once, 5-7 with a hint, 8-9 never. `GET /stats` counts.
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
from typing import Any

LATENCY_S = {"student": 0.040, "judge": 0.060, "teacher": 0.120, "writer": 1.0}
SIGMA = 1.0
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model": ?"(\w+)"')
_ROW = re.compile(rb"row (\d+):")
_SEED = re.compile(rb'"seed": ?(\d+)')
_NORMAL = statistics.NormalDist()

STORM = {"429": 0.05, "500": 0.02, "hang": 0.01, "cut": 0.01, "nonsense": 0.01}
"""The share of requests that meet each fault, where there is a storm."""


def latency_s(role: str, row: int, call: int, kind: str, scale: float) -> float:
    """Seconds until a role's answer to its `call`-th request for a row: constant, or log-normal with the same mean.

    Drawn by hash, so that client and bound meet the very same latencies.
    """
    mean = LATENCY_S[role] * scale
    if kind == "CONSTANT":
        return mean
    share = (zlib.crc32(f"{role}/{row}/{call}".encode()) + 0.5) / 2**32
    return math.exp(math.log(mean) - SIGMA**2 / 2 + SIGMA * _NORMAL.inv_cdf(share))


def fault_of(role: str, row: int, call: int, storm_seed: int) -> str | None:
    """What befalls a role's `call`-th request for a row."""
    share = zlib.crc32(f"{storm_seed}/{role}/{row}/{call}".encode()) / 2**32
    for fault, width in STORM.items():
        share -= width
        if share < 0:
            return fault
    return None


def reply(role: str, row: int, body: bytes) -> bytes:
    """The answer of a role to a request."""
    if role == "judge":
        return answer({"correct": body.count(b"RIGHT") > 1, "reason": "compared with the reference"}, body)
    if role == "writer":
        return answer({"questions": [question(row, number) for number in range(6)]}, body)
    if role == "teacher":
        return answer("Look at the units once more, then go step by step.", body)
    right = row % 10 < 5 or (row % 10 < 8 and b"Hint" in body)
    seed = _SEED.search(body)
    number = seed.group(1).decode() if seed else ""  # no two answers are the same, so no verdict is known already
    return answer(
        f"I take it step by step and {'RIGHT' if right else 'another number'} comes out, {number}. " * 2, body
    )


def sentence(row: int, number: int) -> str:
    """What the passage of a row says in its `number`-th sentence."""
    return f"The mast {number} of yard {row} is {17 + number} metres high because the ships of pier {row} are tall."


def question(row: int, number: int) -> dict[str, Any]:
    """A writer's question to that sentence, with a sibling."""
    told = {"evidence": sentence(row, number), "thinking": f"Mast {number} stands in yard {row}, and it is known."}
    high = f"{17 + number} metres."
    sibling = {"type": "factual", "question": f"What is the height of mast {number} in yard {row}?", "answer": high}
    asked = {"type": "factual", "question": f"How high is the mast {number} of yard {row}?", "answer": high}
    return {**asked, **told, "difficulty": "easy", "siblings": [{**sibling, **told}]}


def spoilt(fault: str, role: str, call: int, good: bytes, body: bytes) -> bytes:
    """What a faulty server sends instead of `good`; nothing where it hangs. A cut-off body has its full length said."""
    if fault == "429":
        return http(b'{"error": {"message": "slow down"}}', b"429 Too Many Requests", b"Retry-After: 0.2\r\n")
    if fault == "500":
        return http(b'{"error": {"message": "out of memory"}}', b"500 Internal Server Error")
    if fault == "cut":
        return good[: len(good) * 2 // 3]
    if fault == "nonsense" and role == "judge" and call % 2 and b'"seed":0' in body:
        return answer('{"correct": "most likely"} or so', body)
    if fault == "nonsense":
        return http(
            [b'{"choices": [{"mess', b"<html>Hello</html>", b'{"choices": [{"message": {"content": 1}}]}'][call % 3]
        )
    return b""


def answer(said: str | dict[str, Any], body: bytes) -> bytes:
    """A completion that says it."""
    text = said if isinstance(said, str) else json.dumps(said)
    usage = {"prompt_tokens": len(body) // 4, "completion_tokens": len(text) // 4}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return http(json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode())


def http(data: bytes, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    """An HTTP answer."""
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
    return head % (status, more, len(data)) + data


class Counts:
    """What the server has seen since it started."""

    def __init__(self) -> None:
        self.calls = 0
        self.by_row: Counter[tuple[str, int]] = Counter()
        self.faults: Counter[str] = Counter()
        self.bodies: set[int] = set()

    def stats(self) -> bytes:
        """As `GET /stats` tells it."""
        told = {"calls": self.calls, "repeated": self.calls - len(self.bodies), "faults": self.faults}
        return http(json.dumps(told).encode())


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests come one after the other."""

    def __init__(self, kind: str, scale: float, storm_seed: int | None, counts: Counts) -> None:
        self._latency = (kind, scale)
        self._storm_seed = storm_seed
        self._counts = counts
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
            head, body, self._buffer = self._buffer[:end], self._buffer[end + 4 : size], self._buffer[size:]
            if head.startswith(b"GET"):
                self._send(self._counts.stats(), True)
            else:
                self._called(body)

    def _called(self, body: bytes) -> None:
        named = _MODEL.search(body)
        role = named.group(1).decode() if named else "student"
        row = int(numbered.group(1)) if (numbered := _ROW.search(body)) else 9
        self._counts.calls += 1
        self._counts.bodies.add(hash(body))
        self._counts.by_row[role, row] += 1
        call = self._counts.by_row[role, row]
        said, last = reply(role, row, body), False
        if self._storm_seed is not None and (fault := fault_of(role, row, call, self._storm_seed)):
            self._counts.faults[fault] += 1
            said, last = spoilt(fault, role, call, said, body), fault == "cut"
        asyncio.get_running_loop().call_later(latency_s(role, row, call, *self._latency), self._send, said, last)

    def _send(self, data: bytes, last: bool) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)  # type: ignore[attr-defined]
            if last:
                self._transport.close()


async def main() -> None:
    """Serve until killed."""
    port, kind, scale = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    storm_seed = int(sys.argv[4]) if len(sys.argv) > 4 else None
    counts = Counts()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(kind, scale, storm_seed, counts), "127.0.0.1", port, backlog=2048
    )
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

"""A stub in vLLM's place: it takes the flags that are sent, speaks OpenAI's protocol, multiplies, and forks an engine.

The flags are those of vLLM 0.33's own parser. `STUB_MOOD` makes it misbehave: "crash" at the start, "deep" with the
cause far above the end of the log, "slow" without end, "stubborn" when asked to end, "dies" when asked anything. A
`Stub` may lie on the path of a rented machine's double too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STUB = """
import argparse, json, os, re, signal, subprocess, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
parser = argparse.ArgumentParser()
serve = parser.add_subparsers(required=True).add_parser("serve")
serve.add_argument("model_tag")
serve.add_argument("--served-model-name", nargs="+")
serve.add_argument("--host")
serve.add_argument("--port", type=int)
serve.add_argument("--generation-config", choices=["auto", "vllm"])
serve.add_argument("--max-model-len")
serve.add_argument("--tensor-parallel-size", type=int)
serve.add_argument("--enforce-eager", action="store_true")
serve.add_argument("--chat-template")
given = parser.parse_args()
mood = os.environ.get("STUB_MOOD", "")
# as vLLM does: an engine in a process of its own, which does not end when the server is killed
engine = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"],
    stdout=subprocess.PIPE)
engine.stdout.readline()
if mood == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
seen = {"pids": [os.getpid(), engine.pid], "argv": sys.argv[1:], "flags": vars(given),
        "stats": os.environ["VLLM_NO_USAGE_STATS"], "key": os.environ.get("VLLM_API_KEY")}
lock = threading.Lock()
def write():
    with lock:
        with open(os.environ["STUB_SEEN"] + ".tmp", "w") as stream:
            json.dump(seen, stream)
        os.replace(stream.name, os.environ["STUB_SEEN"])
write()
print("INFO loading weights", flush=True)
if mood == "crash":
    sys.exit("ValueError: the KV cache does not fit")
if mood == "deep":
    print("(EngineCore pid=7) \\x1b[31mERROR\\x1b[0m 01-01 [core.py:1] EngineCore failed to start.")
    print("(EngineCore pid=7) ERROR 01-01 [core.py:1] Traceback (most recent call last):")
    print("(EngineCore pid=7) ERROR 01-01 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB")
    for number in range(200):
        print("  frame", number)
    sys.exit("RuntimeError: Engine core initialization failed. See root cause above.")
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if mood == "slow" or self.path != "/health" else 200)
        self.end_headers()
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if mood == "dies":
            os._exit(9)
        a, b = [int(number) for number in re.findall(r"\\d+", body["messages"][-1]["content"])[:2]]
        message = {"role": "assistant", "content": f"{a} * {b} = {a * b}."}
        seen["asked"], seen["at"] = body, self.headers["Host"]
        write()
        data = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": {}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_): pass
ThreadingHTTPServer((given.host, given.port), Handler).serve_forever()
"""


class Stub:
    """A `vllm` on the path, and what it saw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "vllm.log"
        self._seen = folder / "seen" / "vllm.json"
        self._seen.parent.mkdir()
        self._seen.parent.chmod(0o777)  # a pod is a user of its own
        program = folder / "bin" / "vllm"
        program.parent.mkdir(exist_ok=True)
        by_default = f"import os\nos.environ.setdefault('STUB_SEEN', {str(self._seen)!r})\n"
        program.write_text(f"#!{sys.executable}\n{by_default}{STUB}")
        program.chmod(0o755)
        self.environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "STUB_SEEN": str(self._seen)}

    @property
    def seen(self) -> dict[str, Any]:
        return json.loads(self._seen.read_text())

    def gone(self, within_s: float = 10) -> bool:
        """Whether server and engine have ended; also where they never came so far as to say who they are."""
        deadline = time.monotonic() + within_s
        while self._seen.exists() and any(alive(pid) for pid in self.seen["pids"]):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def wait_until_started(self) -> None:
        deadline = time.monotonic() + 20
        while not self._seen.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return subprocess.check_output(["ps", "-o", "stat=", "-p", str(pid)], text=True).strip()[:1] != "Z"
    except subprocess.CalledProcessError:
        return False

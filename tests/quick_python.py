"""A `python` for scripts under test that run `python -m socratune …`: each such command is a `conftest.Fork`.

What a script does with its Python is tested so, and four seconds of a core are saved wherever it starts one.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from conftest import Fork

_PROGRAM = """#!{python} -S
import json, os, socket, sys

assert sys.argv[1:3] == ["-m", "socratune"], sys.argv
job = {{"words": sys.argv[3:], "env": dict(os.environ), "cwd": os.getcwd()}}
job["files"] = [f"/proc/{{os.getpid()}}/fd/{{number}}" for number in (1, 2)]
with socket.socket(socket.AF_UNIX) as asking:
    asking.connect({address!r})
    asking.sendall(json.dumps(job).encode() + b"\\n")
    sys.exit(int(asking.makefile().readline()))
"""


@contextmanager
def quick_python(path: Path) -> Iterator[None]:
    """The program at the path; it works until the block ends, in which no other fork may be begun."""
    with TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as listening:
        address = f"{folder}/asked"  # such a name must be short
        listening.bind(address)
        listening.listen()
        path.write_text(_PROGRAM.format(python=sys.executable, address=address), "utf-8")
        path.chmod(0o755)
        answering = threading.Thread(target=_answer, args=(listening,))
        answering.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)  # else it would wait for one more
            answering.join()


def _answer(listening: socket.socket) -> None:
    while True:
        with suppress(OSError):
            connection, _ = listening.accept()
            with connection, connection.makefile() as lines:
                job = json.loads(lines.readline())
                files = [Path(name) for name in job["files"]]
                code = Fork(*job["words"], env=job["env"], cwd=job["cwd"], files=files).wait()
                connection.sendall(f"{code}\n".encode())
            continue
        return

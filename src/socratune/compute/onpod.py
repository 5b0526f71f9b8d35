"""Runs on the rented machine beside the job, with whatever Python it has, so it imports nothing else of ours.

    BASE/jobs/NAME/   log, exit_code, pid, lock (held while the job runs)
    BASE/deadline     when this machine ends itself, in seconds since 1970
    BASE/python/      the environment with Socratune

It is sent as one file. Every command may be repeated: what runs already is left running.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

_POLL_S = 0.2
_STOP_S = 10.0
END_AGAIN_S = 60.0


def start(base: Path, name: str) -> None:
    """Starts the job `{"argv", "env"}` of standard input, detached, unless it runs already."""
    job: dict[str, Any] = json.load(sys.stdin)
    folder = base / "jobs" / name
    folder.mkdir(parents=True, exist_ok=True)
    lock = _owned(folder / "lock")
    if lock is None:
        return
    (folder / "log").touch()
    (folder / "exit_code").unlink(missing_ok=True)
    temporary = folder / "exit_code.tmp"
    temporary.write_text(" " * 8)  # reserves space on the disk, which may be full by then

    def work() -> None:
        with (folder / "log").open("ab") as log:
            environment = {**os.environ, **job["env"], "PYTHONUNBUFFERED": "1"}
            try:
                process = subprocess.Popen(
                    job["argv"],
                    cwd=base,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(lock.fileno(),),  # the lock is held while either of the two lives
                )
            except OSError as error:
                log.write(f"{job['argv'][0]}: {error.strerror}\n".encode())
                code = 127
            else:
                (folder / "pid").write_text(str(process.pid))
                code = _ended_whole(process)
        with temporary.open("r+") as stream:
            stream.write(f"{code:8}")
        temporary.replace(folder / "exit_code")

    _detached(work)


def _ended_whole(process: subprocess.Popen[bytes]) -> int:
    """Returns the exit code of a process once it and the rest of its group have ended: an engine of vLLM outlives its
    server, and would keep the GPU's memory.
    """
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # until then, no other group has its number
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def status(base: Path, name: str) -> None:
    """Prints `{"running", "exit_code"}`. Without an exit code the job never ran, or ended with the machine."""
    code = base / "jobs" / name / "exit_code"
    running = _is_held(base / "jobs" / name / "lock")
    print(json.dumps({"running": running, "exit_code": int(code.read_text()) if code.exists() else None}))


def follow(base: Path, name: str, offset: str) -> None:
    """Prints the job's log from a byte on, until the job has ended."""
    folder, at = base / "jobs" / name, int(offset)
    while True:
        running = _is_held(folder / "lock")  # before the log is read, so that its end is not missed
        with (folder / "log").open("rb") as log:
            log.seek(at)
            while block := log.read(1 << 16):
                sys.stdout.buffer.write(block)
                at += len(block)
            sys.stdout.buffer.flush()
        if not running:
            return
        time.sleep(_POLL_S)


def stop(base: Path, name: str) -> None:
    """Ends the job and what it has started."""
    folder = base / "jobs" / name
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if not _is_held(folder / "lock"):
            return
        with suppress(OSError, ValueError):
            os.killpg(int((folder / "pid").read_text()), kind)
        deadline = time.monotonic() + _STOP_S
        while _is_held(folder / "lock") and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def manifest(base: Path, *names: str) -> None:
    """Prints the sha256 of every finished file in these files and folders of BASE, by its path."""
    hashes = {}
    for name in names:
        top = base / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            unfinished = any(part.startswith(".") for part in path.relative_to(base).parts)
            try:
                if path.is_file() and not unfinished:
                    hashes[str(path.relative_to(base))] = _sha256(path)
            except FileNotFoundError:  # a checkpoint that was replaced
                continue
    print(json.dumps(hashes))


def setup(base: Path, wheel: str, constraints: str) -> None:
    """Creates an environment with Socratune that sees the image's libraries, and downloads only missing ones."""
    python = base / "python" / "bin" / "python"
    mark, key = base / "python" / "made_for", _sha256(Path(wheel))
    if mark.exists() and mark.read_text() == key:
        return
    image_python = _python()
    shutil.rmtree(base / "python", ignore_errors=True)
    _must([image_python, "-m", "venv", "--without-pip", str(base / "python")])
    listing = "import sys; print(*(p for p in sys.path if p.endswith('-packages')), sep='\\n')"
    packages = subprocess.run([image_python, "-c", listing], check=True, stdout=subprocess.PIPE).stdout
    site = next((base / "python" / "lib").glob("python3*")) / "site-packages"
    (site / "of_the_image.pth").write_bytes(packages)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    trial = [*pip, "--no-index", "--dry-run", f"socratune[train] @ file://{wheel}"]
    enough = subprocess.run(trial, check=False, capture_output=True)
    if enough.returncode:
        _must([*pip, "--constraint", constraints, f"socratune[gpu] @ file://{wheel}"])
    else:
        print("The image brings every library.")
    _must([*pip, "--no-index", "--no-deps", "--force-reinstall", wheel])
    mark.write_text(key)


def watch(base: Path, seconds: str, api_base: str) -> None:
    """Starts the dead man's timer: when it expires, it ends every job and this machine.

    If it is started again, the first deadline stays.
    """
    lock = _owned(base / "watch.lock")
    if lock is None:
        return
    path = base / "deadline"
    if not path.exists():
        path.write_text(str(time.time() + float(seconds)))
    deadline = float(path.read_text())

    def work() -> None:
        while (left := deadline - time.time()) > 0:
            time.sleep(min(left, 30))
        for job in sorted((base / "jobs").glob("*")):
            stop(base, job.name)
        while not _end_machine(api_base):
            time.sleep(END_AGAIN_S)

        lock.close()

    _detached(work)


def _end_machine(api_base: str) -> bool:
    """Asks the provider, by its own tool or else its API, to end this machine. Returns True if it agreed."""
    known = _container()
    pod, key = known.get("RUNPOD_POD_ID", ""), known.get("RUNPOD_API_KEY", "")
    tool = shutil.which("runpodctl")
    if tool and not subprocess.run([tool, "remove", "pod", pod], check=False, env={**os.environ, **known}).returncode:
        return True
    parts = urlsplit(api_base)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=60)
    try:
        path = f"{parts.path.rstrip('/')}/pods/{pod}"
        connection.request("DELETE", path, headers={"Authorization": f"Bearer {key}"})
        return connection.getresponse().status in (200, 204, 404)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _container() -> dict[str, str]:
    """Returns RunPod's variables of this machine, which its first process has, but no session by SSH."""
    try:
        first = Path("/proc/1/environ").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        first = []
    variables = dict(pair.split("=", 1) for pair in first if "=" in pair)
    return {key: value for key, value in {**variables, **os.environ}.items() if key.startswith("RUNPOD_")}


def _must(command: list[str]) -> None:
    """Runs a command, or exits with its exit code. The command has printed the reason."""
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)


def _python() -> str:
    """Returns the newest Python of the image on which Socratune runs."""
    for name in ("python3", "python", "python3.13", "python3.12", "python3.11"):
        path = shutil.which(name)
        check = "import sys; sys.exit(sys.version_info < (3, 11))"
        if path and subprocess.run([path, "-c", check], check=False).returncode == 0:
            return path
    sys.exit("The image has no Python of version 3.11 or newer: choose another with where.image.")


def _detached(work: Callable[[], None]) -> None:
    """Calls `work` in a process that outlives this one and its session, and keeps its open files."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # the session by SSH ends when no process holds them
            os.dup2(null, stream)
        work()
    finally:
        os._exit(0)


def _owned(lock: Path) -> IO[str] | None:
    """Returns the lock, owned until it is closed; None if another process owns it."""
    stream = lock.open("a")
    for _ in range(10):  # a process that checks the lock holds it for a moment
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return stream
    return None


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # no such job
        pass
    return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


COMMANDS = {function.__name__: function for function in (start, status, follow, stop, manifest, setup, watch)}

if __name__ == "__main__":
    COMMANDS[sys.argv[2]](Path(sys.argv[1]), *sys.argv[3:])

"""A rented machine's shell and files, by OpenSSH and rsync.

One file for `ssh -F` holds everything about the machine; the user's own configuration, keys and agent are not used. All
commands share one connection (ControlMaster). If it breaks, the next command opens another.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from socratune.errors import Fault, OutsideError, Shown
from socratune.llm import free_port

log = logging.getLogger(__name__)

_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 15.0)
"""Pauses between tries to reach a machine again: about a minute in all with their timeouts."""
_CONNECT_TIMEOUT_S = 10
COMMAND_TIMEOUT_S = 120.0
TUNNEL_PAUSE_S = 0.5

LOST = 255
"""The exit code of ssh if the connection failed."""
_RSYNC_LOST = (10, 12, 30, 35, LOST)
_RSYNC_VANISHED = 24
"""A file of the source was removed meanwhile, as a checkpoint was replaced."""

_CONFIG = """Host pod
  HostName {host}
  Port {port}
  User {user}
  IdentityFile {folder}/id
  IdentitiesOnly yes
  IdentityAgent none
  PreferredAuthentications publickey
  BatchMode yes
  StrictHostKeyChecking accept-new
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  ControlMaster auto
  ControlPath {folder}/c
  ControlPersist 120
  ConnectTimeout {timeout_s}
  ServerAliveInterval 5
  ServerAliveCountMax 4
  ForwardAgent no
  ForwardX11 no
  LogLevel ERROR
"""


class ConnectionLost(OutsideError):
    """The machine could not be reached, several times in a row."""


class RemoteFailed(OutsideError):
    """A command ran there and failed. `code` is its exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def tools_fault() -> Fault | None:
    """Returns the programs that are missing on this machine, or None."""
    missing = [name for name in ("ssh", "ssh-keygen", "rsync") if shutil.which(name) is None]
    if not missing:
        return None
    got, fix = Shown(f"no {', '.join(missing)}"), "apt install openssh-client rsync"
    return Fault("this machine", "OpenSSH and rsync", got, fix)


def make_key(path: Path, comment: str) -> str:
    """Returns the public key of the pair at `path`, which is created if missing, in a folder for its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    if not path.exists():
        making = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        subprocess.run(making, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return path.with_suffix(".pub").read_text("utf-8").strip()


@contextmanager
def connected(host: str, port: int, user: str, key: Path, known_hosts: Path) -> Iterator[Ssh]:
    """Yields the machine at this address. Nothing is sent before the first command.

    Args:
        known_hosts: keeps the machine's own key from the first contact; it must stay the same.
    """
    if not all(re.fullmatch(r"[\w.:][\w.:-]*", part) for part in (host, user)):  # they become lines of a file
        raise OutsideError(f"The provider gives an invalid address: {user!r} at {host!r}.")
    with tempfile.TemporaryDirectory(prefix="socratune-", dir="/tmp") as name:  # a short path: sockets allow 104 bytes
        folder = Path(name)
        (folder / "id").symlink_to(key.resolve())  # no run folder's path in ssh's file, which has a syntax for quotes
        (folder / "known_hosts").symlink_to(known_hosts.resolve())
        text = _CONFIG.format(host=host, port=port, user=user, folder=folder, timeout_s=_CONNECT_TIMEOUT_S)
        (folder / "config").write_text(text, "utf-8")
        ssh = Ssh(folder / "config")
        try:
            yield ssh
        finally:
            leaving = [*ssh.command, "-O", "exit", "pod"]
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(leaving, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)


@dataclass(frozen=True, slots=True)
class Ssh:
    """A machine by its file for `ssh -F`, where it is called `pod`."""

    config: Path

    @property
    def command(self) -> list[str]:
        """Returns OpenSSH with the machine's settings, before options and host."""
        return ["ssh", "-F", str(self.config)]

    def remote(self, argv: Sequence[str]) -> list[str]:
        """Returns the command that runs `argv` there. Only here, words are quoted for the remote shell."""
        return [*self.command, "pod", shlex.join(argv)]

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Runs a command, again if the connection is lost, and returns its output.

        Args:
            stdin: its standard input.

        Raises:
            RemoteFailed: it failed.
            ConnectionLost: the machine cannot be reached.
        """
        return self._tried(self.remote(argv), (LOST,), (), stdin=stdin, timeout_s=timeout_s)

    def push(self, sources: Sequence[Path], target: str) -> None:
        """Copies files and folders into the folder `target` there, without hidden ones. An interrupted copy resumes.

        Raises:
            As `run`; RemoteFailed also if the disk there is full.
        """
        if sources:
            paths = [str(source.absolute()) for source in sources]  # a colon in a relative one means another machine
            self._copy([*paths, f"pod:{target}/"], "--copy-links")  # a model of the Hub's cache is a folder of links

    def fetch(self, sources: Sequence[str], target: Path) -> None:
        """Copies files and folders from there into the folder `target`; files that vanish meanwhile are left out.

        Raises:
            As `run`; RemoteFailed also if the disk here is full.
        """
        if sources:
            target.mkdir(parents=True, exist_ok=True)
            self._copy([*(f"pod:{source}" for source in sources), f"{target.absolute()}/"])

    @contextmanager
    def tunnel(self, remote_port: int) -> Iterator[int]:
        """Yields a port of this machine that leads to one there, and reopens it if it breaks."""
        port = free_port()
        forward = ["-N", "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes"]
        command = [*self.command, *forward, "-L", f"127.0.0.1:{port}:127.0.0.1:{remote_port}", "pod"]
        closing, held = threading.Event(), [subprocess.Popen(command, stdin=subprocess.DEVNULL)]

        def keep() -> None:
            while not closing.wait(TUNNEL_PAUSE_S):
                if held[0].poll() is not None:
                    held[0] = subprocess.Popen(command, stdin=subprocess.DEVNULL)

        keeper = threading.Thread(target=keep, name="tunnel", daemon=True)
        keeper.start()
        try:
            yield port
        finally:
            closing.set()
            keeper.join()
            held[0].terminate()
            held[0].wait()

    def _copy(self, paths: list[str], *more: str) -> None:
        shell = shlex.join(self.command)
        options = ["-rlpt", *more, "--exclude=.*", "--partial", "--secluded-args", "--timeout=60", "-e", shell]
        self._tried(["rsync", *options, "--", *paths], _RSYNC_LOST, (_RSYNC_VANISHED,), timeout_s=None)

    def _tried(
        self, command: list[str], lost: Sequence[int], fine: Sequence[int], *, stdin: str = "", timeout_s: float | None
    ) -> str:
        for pause_s in (*_PAUSES_S, None):
            try:
                done = subprocess.run(
                    command, input=stdin.encode(), capture_output=True, timeout=timeout_s, check=False
                )
            except subprocess.TimeoutExpired:
                code, text = LOST, f"no answer within {timeout_s:g} s"
            else:
                code, text = done.returncode, done.stderr.decode("utf-8", "replace").strip()[-500:]
                if code in (0, *fine):
                    return done.stdout.decode("utf-8", "replace")
            if code not in lost or is_full(text):
                raise RemoteFailed(text or f"exit code {code}", code)
            if pause_s is None:
                raise ConnectionLost(f"The rented machine cannot be reached: {text}.")
            log.debug("Connection lost (%s). Trying again in %.1f s.", text, pause_s)
            time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")


def is_full(text: str) -> bool:
    """Returns True if a program's message reports a full disk."""
    return any(words in text.lower() for words in ("no space left", "file too large", "disk quota exceeded"))

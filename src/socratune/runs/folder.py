"""Manages the run folder: its files, its lock, atomic writes, and a results file that is true at every moment."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from socratune.errors import BusyError, Fault, OutsideError, Shown, UserError
from socratune.rows import Example, Rejected, shared_system
from socratune.runs.encoding import json_encode

RESULTS_INTERVAL_S = 2.0


class Tick(Protocol):
    """Receives a stage's progress: rows done, rows in all, and further values to show (`spent`)."""

    def __call__(self, done: int, total: int, /, **live: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class StageResult:
    """Holds the result of a stage: rows in and out, and its own figures."""

    rows_in: int
    rows_out: int
    figures: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    """Why the stage failed its check, or None. The run's verdict is then `failed`."""


class RunDir:
    """Names the files of one run. Every attribute is a path below `root`.

    Attributes:
        student: the adapter that the student of this run wears; missing if the base itself is the student.
        rounds: the run folders of the rounds by number, if there are several.
        hint_measures: what the student's probabilities show about a sample of the hints.
        exam_json: the purpose of `exam.jsonl`, and what was measured beside it.
        review: a person's decisions about single traces.
        report: the page for people.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = root = Path(root)
        self.config = root / "config.yaml"
        self.results = root / "pipeline_results.json"
        self.journal = root / "journal.sqlite"
        self.adapter = root / "adapter"
        self.student = root / "student"
        self.rounds = root / "rounds"
        self.checkpoints = root / "checkpoints"
        self.tensorboard = root / "tensorboard"
        self.enhanced = root / "enhanced_dataset.jsonl"
        self.hint_measures = root / "hint_measures.jsonl"
        self.exam_json = root / "exam.json"
        self.review = root / "review.jsonl"
        self.report = root / "report.html"

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def rows(self, name: str) -> Path:
        """Returns the JSONL file of `train_in`, `held_out`, `held_out_answers`, a view like `preference` and so on."""
        return self.root / f"{name}.jsonl"

    def rejected(self, name: str) -> Path:
        """Returns the file of the rows that were dropped on the way into `name`, with reasons."""
        return self.root / f"{name}.rejected.jsonl"

    def create(self) -> None:
        """Creates the folder.

        Raises:
            UserError: it cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            got = Shown(error.strerror or str(error))
            raise UserError(Fault(f"--output {self.root}", "a directory that can be made", got)) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder's lock. The lock of a dead owner is free at once.

        Raises:
            BusyError: another process owns it; names pid and host.
        """
        with locked_file(self.root / "run.lock", Fault(str(self.root), "a run folder nobody works on")):
            yield


@contextmanager
def locked_file(path: Path, fault: Fault) -> Iterator[None]:
    """Holds a lock file until the block ends. The lock of a dead owner is free at once.

    Args:
        fault: where, and what is expected, for the error.

    Raises:
        BusyError: another process owns it; names pid and host.
    """
    import fcntl

    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            owner = stream.read().strip() or "an unknown process"
            fix = "Wait for it, stop it, or use another --output."
            raise BusyError(Fault(fault.where, fault.expected, Shown(owner), fix)) from None
        stream.truncate(0)
        stream.write(f"pid {os.getpid()} on host {socket.gethostname()}\n")
        stream.flush()
        try:
            yield
        finally:
            stream.truncate(0)


def at_work(folder: Path) -> bool:
    """Returns True if a process may hold a run folder's lock. It does not take the lock."""
    import fcntl

    try:
        with (folder / "run.lock").open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # held, or another user's
        return True
    return False


def output_fault(path: str) -> Fault | None:
    """Returns why no run folder can be made or used at `path`, or None. It creates nothing.

    A folder that holds other files is refused: a run replaces files by name, and they might be the user's.
    """
    place = Path(path)
    if place.exists() and not place.is_dir():
        return Fault(f"--output {path}", "a directory", Shown("a file"))
    if place.is_dir() and not (place / "config.yaml").exists():
        ours = ("run.lock", "rounds.lock", "run.log")
        foreign = sorted(entry.name for entry in place.iterdir() if entry.name not in ours)
        if foreign:
            got = Shown(f"a folder with {', '.join(foreign[:3])}")
            return Fault(f"--output {path}", "a new or empty folder, or one of an earlier run", got)
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return Fault(f"--output {path}", "a directory that can be made", Shown(f"{place} is a file"))
    if not os.access(place, os.W_OK | os.X_OK) or os.statvfs(place).f_flag & os.ST_RDONLY:
        return Fault(f"--output {path}", "a writable place", Shown(f"{place} cannot be written"))
    return None


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """Yields a folder beside `place` that replaces it when the block is done and is removed when it fails.

    Raises:
        UserError: it cannot be made.
        OSError: at the end there is something at `place` other than an empty folder.
    """
    folder = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        got = Shown(error.strerror or str(error))
        raise UserError(Fault(str(place), "a place where a folder can be made", got)) from None
    try:
        yield folder
        folder.rename(place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def export_place(run: RunDir, to: str, out: str | None, sign: str) -> Path:
    """Returns the folder of an export: a new or empty one, or one with the file that marks an earlier export.

    Raises:
        UserError: something else is there.
    """
    place = (Path(out) if out else run.root / "export" / to).resolve()  # behind a link it is replaced, not the link
    earlier = (place / sign).is_file() or (place.is_dir() and not any(place.iterdir()))
    if place.exists() and not earlier:
        raise UserError(Fault(f"--out {place}", "a new folder, or an earlier export", Shown("something else")))
    return place


def write_text(path: Path, text: str) -> None:
    """Writes the whole file or nothing (a temporary file beside it, then a rename)."""
    write_lines(path, [text])


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON value for people to read, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Writes the lines unchanged, whole or not at all, and returns their number."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    count = 0
    try:
        # half a surrogate pair is no UTF-8: \ud800 stands for it, which is what JSON calls it too
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            for line in lines:
                stream.write(line)
                count += 1
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutsideError(f"{path}: cannot be written: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Writes one JSON object per line, whole or not at all, and returns their number."""
    return write_lines(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_rejected(path: Path, rejected: Iterable[Rejected], *, compact: bool = False) -> Counter[str]:
    """Writes the rejected rows with their reasons and returns the number of rows for each reason.

    Args:
        compact: write JSON without spaces, as `generate` writes its rows.
    """
    counts: Counter[str] = Counter()

    def counted() -> Iterator[dict[str, Any]]:
        for one in rejected:
            counts[one.reason] += 1
            yield one.to_json()

    if compact:
        write_lines(path, (f"{json_encode(row).decode()}\n" for row in counted()))
    else:
        write_jsonl(path, counted())
    return counts


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a file that one of our stages wrote.

    Raises:
        UserError: the file is missing or damaged; names the line, and who makes it again.
    """
    fix = "Run the run's own command again to rebuild it."
    if not path.is_file():
        got = Shown("a directory" if path.is_dir() else "no such file")
        raise UserError(Fault(str(path), "a file of an earlier stage", got, fix))
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                row, got = None, _in_short(error)
            else:
                got = f"the value {line[:60].decode('utf-8', 'replace').strip()}"
            if not isinstance(row, dict):
                where = f"{path}, line {number}"
                raise UserError(Fault(where, "one JSON object per line", Shown(got), f"Delete the file. {fix}"))
            yield row


def _in_short(error: Exception) -> str:
    """Describes the error in a text that is not JSON."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "bytes that are not UTF-8" if isinstance(error, UnicodeError) else "JSON nested too deeply"


def is_torn(path: Path, was_empty: bool) -> bool:
    """Returns True if a JSON Lines file is incomplete: cut off within a line, emptied, not text, or missing.

    A file that somebody has edited is not: other rows, or fewer of them, are trained on as they stand.

    Args:
        was_empty: the stage itself left it empty.
    """
    try:
        for _ in read_jsonl(path):
            pass
    except UserError:
        return True
    return not was_empty and not path.stat().st_size


_T = TypeVar("_T")


def read_rows(path: Path, parse: Callable[[dict[str, Any]], _T]) -> list[_T]:
    """Returns all rows of `iter_rows`."""
    return list(iter_rows(path, parse))


def iter_rows(path: Path, parse: Callable[[dict[str, Any]], _T]) -> Iterator[_T]:
    """Yields the typed rows of a file that one of our stages wrote.

    Raises:
        UserError: it is missing, or a row was damaged by hand.
    """
    for number, data in enumerate(read_jsonl(path), start=1):
        try:
            row = parse(data)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            got = Shown(f"{type(error).__name__}: {error}")
            raise UserError(Fault(f"{path}, line {number}", "a row as its stage wrote it", got)) from None
        yield row


def system_turn(run: RunDir) -> str | None:
    """Returns the system turn that the adapter was trained behind if all its rows share it, otherwise None."""
    path = run.rows("train")
    return shared_system(iter_rows(path, Example.from_json)) if path.is_file() else None


def file_hash(path: Path) -> str:
    """Returns the sha256 of a file in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def file_state(*paths: Path) -> tuple[int, ...] | None:
    """Returns numbers that change when one of the files is written or replaced, or None if a file is missing."""
    try:
        stats = [path.stat() for path in paths]
    except OSError:
        return None
    return tuple(
        number
        for stat in stats
        for number in (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    )


_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode


def fingerprint(*parts: Any) -> str:
    """Returns 16 hex digits that change with any of the JSON-able parts."""
    return hashlib.sha256(_canonical(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Results:
    """Keeps `pipeline_results.json`: read at the start, written after every stage and at most every 2 s within one."""

    def __init__(self, run: RunDir) -> None:
        self.path = run.results
        self.data: dict[str, Any] = {"status": "running", "stages": {}}
        if self.path.exists():
            try:
                self.data = json.loads(self.path.read_text("utf-8"))
                if not all(isinstance(entry, dict) for entry in self.data["stages"].values()):
                    raise TypeError
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                fix = "The file is corrupt. Move it away: the stages are repeated, and calls in the journal are not."
                raise UserError(Fault(str(self.path), "the results of a run", Shown("something else"), fix)) from None
        self._written_at = 0.0

    def stage(self, name: str) -> dict[str, Any]:
        """Returns the entry of a stage, empty if it has not begun."""
        return self.data["stages"].get(name, {})

    def write(self, *, now: bool = True, **top: Any) -> None:
        """Writes the file; with `now=False` only if the last write is 2 s ago."""
        self.data.update(top)
        if now or time.monotonic() - self._written_at >= RESULTS_INTERVAL_S:
            self.data["updated"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            write_json(self.path, self.data)
            self._written_at = time.monotonic()

    def set_stage(self, name: str, *, now: bool = True, **fields: Any) -> dict[str, Any]:
        """Updates a stage's entry, in the order in which stages began, and returns it."""
        entry = self.data["stages"].setdefault(name, {})
        entry.update(fields)
        self.write(now=now)
        return entry


def existing_run(path: str) -> RunDir:
    """Returns the run folder at `path`.

    Raises:
        UserError: there is none.
    """
    run = RunDir(path)
    if not run.config.is_file():
        got = Shown("a folder without config.yaml" if Path(path).is_dir() else "no such folder")
        raise UserError(Fault(path, "the folder of a run", got, "Make one with socratune run or socratune demo."))
    return run

"""Reads question-answer rows from whatever `--dataset` names: a file, a saved data set, or one of the Hub.

A command parses a data set once (`data_set`). The rows then wait on disk and are read back one at a time, so that a
large data set needs little memory.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from socratune.config import DEMO, DEMO_DATA
from socratune.data.annotated import LeftOut, annotated_records, kiln_folder
from socratune.data.choices import FROM_ONE
from socratune.data.records import SHOWN, SUFFIXES, Record, Unreadable, arrow_records, missing_library, read_records
from socratune.data.shapes import parse_row, shape_of
from socratune.data.tally import FaultTally
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.rows import QARow, Rejected, unique_ids
from socratune.runs import file_state


@dataclass(slots=True)
class _Reading:
    """Holds the result of reading: good rows by shape, and the faults of the bad rows."""

    shapes: Counter[str] = field(default_factory=Counter)
    """`question–answer` → rows that were recognised by these columns."""
    bad: FaultTally = field(default_factory=FaultTally)
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason → valid rows that are not used: `too_long` for the model, or rejected by people in another tool."""

    @property
    def rows(self) -> int:
        """The number of good rows."""
        return self.shapes.total()

    @property
    def bad_rows(self) -> int:
        """The number of bad rows."""
        return self.bad.rows

    @property
    def faults(self) -> list[Fault]:
        """Returns the faults of the bad rows, each kind once."""
        return self.bad.faults

    def screened(self, rejected: Rejected, where: str, place: str) -> None:
        """Counts a row that is readable but cannot be used."""
        if rejected.reason == "too_long":
            self.left_out[rejected.reason] += 1
            return
        fix = "Fix it, or leave such rows out: --on-bad-row skip."
        self.bad.add(place, [Fault(where, "a row that the model can be asked", Shown(rejected.detail), fix)])


def data_path(name: str, *, held_out: bool = False) -> Path:
    """Returns the path behind `--dataset NAME`. The name `demo` is the embedded data set."""
    if name == DEMO:
        return DEMO_DATA / ("held_out.jsonl" if held_out else "train.jsonl")
    return Path(name)


class Screen(Protocol):
    """Decides from its content whether a row that was read is used.

    Attributes:
        key: equal where another says the same.
    """

    key: tuple[str, str | None]

    def __call__(self, row: QARow) -> Rejected | None:
        """Returns None for a usable row. The reason `too_long` leaves a row out; any other reason makes it bad."""
        ...


def qa_rows(path: Path, reading: _Reading, screen: Screen | None = None) -> Iterator[QARow]:
    """Yields the good rows in order. `reading` describes all others once the last row has come.

    Raises:
        UserError: nothing can be read there, or it holds no row at all.
        OutsideError: it might be a data set of the Hub, which could not be asked.
    """
    return unique_ids(row for row in _parsed(path, reading, screen) if isinstance(row, QARow))


def _parsed(path: Path, reading: _Reading, screen: Screen | None) -> Iterator[QARow | Rejected]:
    """Yields every record as a row or with the reason why it is none."""
    reading.bad.source = str(path)
    for place, value in annotated_records(path, _records):
        where = f"{path}, {place}"
        if isinstance(value, LeftOut):
            reading.left_out[value.reason] += 1
            yield Rejected(value.reason, value.detail, id=place.replace(" ", "-"), row=value.record)
            continue
        row = _row(value, where)
        rejected = screen(row) if screen is not None and isinstance(row, QARow) else None
        if rejected is not None and isinstance(row, QARow):
            reading.screened(rejected, where, place)
            yield replace(rejected, id=place.replace(" ", "-"), row=row.to_json())
            continue
        if isinstance(row, QARow):
            reading.shapes["–".join(shape_of(value) or ())] += 1
            yield row
            continue
        reading.bad.add(place, row)
        text = value.text if isinstance(value, Unreadable) else json.dumps(value, ensure_ascii=False)[:SHOWN]
        detail = "; ".join(str(fault).removeprefix(where).lstrip(":, ") for fault in row)
        kind = place.split(" ", maxsplit=1)[0]
        yield Rejected("bad_row", detail, id=place.replace(" ", "-"), row={kind: text})
    if not reading.rows and not reading.bad_rows and not reading.left_out:
        raise UserError(Fault(str(path), "at least one row", Shown("none" if path.is_dir() else "an empty file")))


def _row(value: object, where: str) -> QARow | list[Fault]:
    return [value.fault] if isinstance(value, Unreadable) else parse_row(value, where)


class DataSet:
    """Holds a parsed data set, whose rows can be iterated as often as needed.

    The rows wait in an unnamed temporary file. If the disk has no room for it, every iteration parses the source again.

    Attributes:
        reading: the shapes that were recognised, and the faults of bad rows.
        damage: why the source could not be read to its end, or its good rows cannot be trusted either.
        state: see `_state`.
    """

    def __init__(self, path: Path, screen: Screen | None = None) -> None:
        """Parses the source to its end.

        Raises:
            OutsideError: the source may be on the Hub, which could not be asked; or it changed during parsing.
        """
        self.path, self.screen = path, screen
        self.reading = _Reading()
        self.damage: list[Fault] = []
        self.state = _state(path)
        self._rows, self._bad = _Spool(), _Spool()
        try:
            for row in unique_ids(self._good()):
                self._rows.put(row.to_json())
        except UserError as error:
            self.damage = [*error.faults]
        self.damage += [fault for fault in self.reading.faults if fault.fix == FROM_ONE]
        if self.state != _state(path):
            raise OutsideError(f"{path} has changed while it was read. Run it again.")

    def _good(self) -> Iterator[QARow]:
        for row in _parsed(self.path, self.reading, self.screen):
            if isinstance(row, QARow):
                yield row
            else:
                self._bad.put(row.to_json())

    def rows(self) -> Iterator[QARow]:
        """Yields the good rows in order.

        Raises:
            UserError: the source is damaged.
        """
        if self.damage:
            raise UserError(*self.damage)
        kept = self._rows.values()
        return qa_rows(self.path, _Reading(), self.screen) if kept is None else map(QARow.from_json, kept)

    def bad_rows(self) -> Iterator[Rejected]:
        """Yields the bad rows, each with its faults, and the rows that are too long."""
        kept = self._bad.values()
        if kept is None:
            return (row for row in _parsed(self.path, _Reading(), self.screen) if isinstance(row, Rejected))
        return map(Rejected.from_json, kept)


_kept: dict[Path, DataSet] = {}
"""The data sets that this command has parsed. Preflight, plan and split share them here, as nothing else joins them."""


def data_set(path: Path, screen: Screen | None = None) -> DataSet:
    """Returns the data set at `path`. It is parsed only once per command, unless it has changed.

    Args:
        screen: what its rows have to pass; None takes it as it was parsed before.

    Raises:
        OutsideError: as `DataSet`.
    """
    kept = _kept.get(path)
    other = screen is not None and (kept is None or kept.screen is None or kept.screen.key != screen.key)
    if kept is None or other or kept.state is None or kept.state != _state(path):
        _kept.pop(path, None)
        kept = _kept[path] = DataSet(path, screen)
    return kept


def forget_data_sets() -> None:
    """Releases the rows that wait on disk. No stage after the split needs them."""
    _kept.clear()


def _state(path: Path) -> tuple[int, ...] | None:
    """Returns numbers that differ if the data set was changed, or None if nothing can be compared."""
    text = str(path)
    if folder := kiln_folder(path):
        return file_state(*sorted(folder.rglob("*.kiln")))
    if saved := saved_folder(text):
        return file_state(*sorted(file for file in saved[0].rglob("*") if file.is_file()))
    return () if hub_name(text) else file_state(path)  # a process reads one commit of the Hub


class _Spool:
    """Stores JSON values in an unnamed temporary file, which several iterators can read at once."""

    def __init__(self) -> None:
        # /tmp may lie in memory, /var/tmp does not
        folder = "/var/tmp" if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK) else None
        self._file: IO[bytes] | None = None
        with suppress(OSError):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            weakref.finalize(self, self._file.close)

    def put(self, value: dict[str, Any]) -> None:
        if self._file is not None:
            try:
                self._file.write(json.dumps(value).encode() + b"\n")
            except OSError:
                self._give_up()

    def values(self) -> Iterator[dict[str, Any]] | None:
        """Returns the values, or None if the disk had no room for them."""
        if self._file is None:
            return None
        try:
            self._file.flush()
        except OSError:
            self._give_up()
            return None
        return map(json.loads, io.BufferedReader(_Reader(self._file.fileno(), self), 1 << 16))

    def _give_up(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # what it holds back cannot be written either
                self._file.close()
        self._file = None


class _Reader(io.RawIOBase):
    """Reads an open file from its beginning, independently of its other readers."""

    def __init__(self, descriptor: int, owner: object) -> None:
        self._descriptor, self._at = descriptor, 0
        self._owner = owner  # closes the file when it goes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._descriptor, len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def commit_of(path: Path) -> str | None:
    """Returns the commit of a Hub data set that `qa_rows` has read, or None for a local one."""
    name = hub_name(str(path))
    return dataset_revision(name, str(path)) if name else None


def _records(path: Path) -> Iterator[Record]:
    text = str(path)
    if saved := saved_folder(text):
        return read_saved(*saved, text)
    if path.is_dir():
        fix = "Name the file in it."
        raise UserError(Fault(text, "a file of question-answer rows", Shown("a directory"), fix))
    if path.exists() and not path.is_file():
        raise UserError(Fault(text, "a file of question-answer rows", Shown("no regular file")))
    if name := hub_name(text):
        return read_hub(name, text)
    return read_records(path)


@dataclass(slots=True)
class ReadRows:
    """Holds all rows of a data set and its faults."""

    rows: list[QARow] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_qa_rows(path: Path) -> ReadRows:
    """Returns every good row and the faults. It never raises for the content of a file."""
    reading, result = _Reading(), ReadRows()
    try:
        result.rows = list(qa_rows(path, reading))
    except UserError as error:
        result.faults = [*error.faults]
    result.faults = [*reading.faults, *result.faults]
    return result


# --- through the library `datasets` --------------------------------------------------------------------------------

_NAME = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:/(?P<config>[\w.-]+))?(?:#(?P<split>[\w.-]+))?")


class HubName(NamedTuple):
    """Names a data set of the Hub. `repo` is org/name. Without `config` it has only one or names its default."""

    repo: str
    config: str | None
    split: str


def hub_name(text: str) -> HubName | None:
    """Returns the Hub data set that a text names, or None if it names a file, existing or missing."""
    match = _NAME.fullmatch(text)
    if match is None or Path(text).exists() or Path(text).suffix.lower() in SUFFIXES:
        return None
    return HubName(match["repo"], match["config"], match["split"] or "train")


def saved_folder(text: str) -> tuple[Path, str] | None:
    """Returns the folder that `datasets` saved and the split that a text names, or None."""
    folder, _, split = text.partition("#")
    if (Path(folder) / "dataset_dict.json").is_file() or (Path(folder) / "state.json").is_file():
        return Path(folder), split
    return None


def read_hub(name: HubName, where: str) -> Iterator[Record]:
    """Yields the rows of a data set of the Hub.

    Raises:
        UserError: no such data set, configuration or split, or the library is missing.
        OutsideError: the Hub could not be asked.
    """
    yield from _arrow_files(_hub_files(name, where), where)


@lru_cache  # a run reads its data set several times; the Hub is asked once
def _hub_files(name: HubName, where: str) -> tuple[str, ...]:
    """Returns the Arrow files of a Hub data set, which are downloaded the first time."""
    try:
        import datasets
        import pyarrow as pa
        from datasets.exceptions import DatasetsError
    except ImportError:
        fix = "If it is a data set of the Hugging Face Hub: pip install 'socratune[data]'."
        raise UserError(Fault(where, "a file of question-answer rows", Shown("no such file"), fix)) from None
    commit = dataset_revision(name, where)
    # Arrow's own pool keeps what it has freed: 318 MB instead of 288 for the first loading of 100,000 rows
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        loaded = datasets.load_dataset(name.repo, name.config, split=name.split, revision=commit)
    except (ValueError, RuntimeError, FileNotFoundError, DatasetsError) as error:
        fix = f"A configuration is given as {name.repo}/config, a split as {name.repo}#split."
        reason = _short(error.__cause__ or error)
        raise UserError(Fault(where, "a data set that can be read", Shown(reason), fix)) from None
    except OSError as error:
        raise OutsideError(f"{where}: the Hugging Face Hub could not be read ({_short(error)}).") from error
    return tuple(file["filename"] for file in loaded.cache_files)


@lru_cache
def dataset_revision(name: HubName, where: str) -> str | None:
    """Returns the current commit on the Hub, or None if the Hub must not be asked (`HF_HUB_OFFLINE`).

    Raises:
        UserError: no such data set.
        OutsideError: the Hub could not be asked.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    expected = "a file here, or a data set of the Hugging Face Hub"
    try:
        return HfApi().dataset_info(name.repo, timeout=20).sha
    except OfflineModeIsEnabled:
        return None
    except GatedRepoError:
        fix = f"Ask for access on https://huggingface.co/datasets/{name.repo}, and set HF_TOKEN."
        raise UserError(Fault(where, expected, Shown("one that is gated"), fix)) from None
    except (RepositoryNotFoundError, HFValidationError):
        fix = "Check the spelling; for a private data set set HF_TOKEN."
        raise UserError(Fault(where, expected, Shown("neither"), fix)) from None
    except Exception as error:  # the client's transport errors have no common class across its versions
        raise OutsideError(
            f"{where}: no such file here, and the Hugging Face Hub could not be asked ({_short(error)}). Check the "
            "spelling and the network, or set HF_HUB_OFFLINE=1 to use what was downloaded before."
        ) from error


def read_saved(folder: Path, split: str, where: str) -> Iterator[Record]:
    """Yields the rows of a folder that `datasets` saved.

    Raises:
        UserError: it has several splits and the one meant is not among them, or the library is missing.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(missing_library("datasets", where)) from None
    loaded = datasets.load_from_disk(str(folder))
    if isinstance(loaded, datasets.DatasetDict):
        split = split or "train"
        if split not in loaded:
            names = [str(name) for name in loaded]
            fix = f"Name one: {folder}#{names[0]}."
            raise UserError(Fault(where, f"a split {split}", Shown(f"the splits {', '.join(names)}"), fix))
        loaded = loaded[split]
    elif split:
        raise UserError(Fault(where, f"a split {split}", Shown("a data set without splits"), f"Give {folder}."))
    yield from _arrow_files(tuple(file["filename"] for file in loaded.cache_files), where)


def _short(error: BaseException) -> str:
    """Returns the first two lines. The second lists the existing configurations or splits."""
    return " ".join(str(error).splitlines()[:2]).rstrip(".")[:200] or type(error).__name__


def _arrow_files(files: tuple[str, ...], where: str) -> Iterator[Record]:
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        for file in files:
            with pa.OSFile(file) as stream, pa.ipc.open_stream(stream) as reader:  # not mapped: that counts as memory
                yield from reader

    if files:
        with pa.OSFile(files[0]) as stream, pa.ipc.open_stream(stream) as reader:
            names = reader.schema.names
        yield from arrow_records(batches(), names, where)

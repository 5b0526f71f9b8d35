"""Data sets through the `datasets` library: of the Hugging Face Hub, and folders that `save_to_disk` wrote.

    org/name    org/name/config    org/name#split    org/name/config#split    folder#split        (split: train)

The library fetches and keeps them on disk; the rows are then read from its Arrow files, batch by batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from socratune.data.records import SUFFIXES, Record, arrow_records, missing_library
from socratune.errors import Fault, OutsideError, Shown, UserError

_NAME = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:/(?P<config>[\w.-]+))?(?:#(?P<split>[\w.-]+))?")


class HubName(NamedTuple):
    """A data set of the Hub: `repo` is org/name; without `config` it has only one, or names its default."""

    repo: str
    config: str | None
    split: str


def hub_name(text: str) -> HubName | None:
    """What a text means as a data set of the Hub, or None: it names a file, there or missing."""
    found = _NAME.fullmatch(text)
    if found is None or Path(text).exists() or Path(text).suffix.lower() in SUFFIXES:
        return None
    return HubName(found["repo"], found["config"], found["split"] or "train")


def saved_folder(text: str) -> tuple[Path, str] | None:
    """The folder that `datasets` saved and the split that a text means, or None."""
    folder, _, split = text.partition("#")
    if (Path(folder) / "dataset_dict.json").is_file() or (Path(folder) / "state.json").is_file():
        return Path(folder), split
    return None


def read_hub(name: HubName, where: str) -> Iterator[Record]:
    """The rows of a data set of the Hub.

    Raises:
        UserError: no such data set, configuration or split, or the library is missing.
        OutsideError: the Hub could not be asked.
    """
    yield from _arrow_files(_hub_files(name, where), where)


@lru_cache  # a run reads its data set several times; the Hub is asked once
def _hub_files(name: HubName, where: str) -> tuple[str, ...]:
    """The Arrow files of a data set of the Hub, downloaded the first time."""
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
        found = datasets.load_dataset(name.repo, name.config, split=name.split, revision=commit)
    except (ValueError, RuntimeError, FileNotFoundError, DatasetsError) as error:
        fix = f"A configuration is given as {name.repo}/config, a split as {name.repo}#split."
        reason = _short(error.__cause__ or error)
        raise UserError(Fault(where, "a data set that can be read", Shown(reason), fix)) from None
    except OSError as error:
        raise OutsideError(f"{where}: the Hugging Face Hub could not be read ({_short(error)}).") from error
    return tuple(file["filename"] for file in found.cache_files)


@lru_cache
def dataset_revision(name: HubName, where: str) -> str | None:
    """The commit that the Hub has now; None where it may not be asked (`HF_HUB_OFFLINE`).

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
    """The rows of a folder that `datasets` saved.

    Raises:
        UserError: it has several splits and the one meant is not among them, or the library is missing.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(missing_library("datasets", where)) from None
    found = datasets.load_from_disk(str(folder))
    if isinstance(found, datasets.DatasetDict):
        split = split or "train"
        if split not in found:
            names = [str(name) for name in found]
            fix = f"Name one: {folder}#{names[0]}."
            raise UserError(Fault(where, f"a split {split}", Shown(f"the splits {', '.join(names)}"), fix))
        found = found[split]
    elif split:
        raise UserError(Fault(where, f"a split {split}", Shown("a data set without splits"), f"Give {folder}."))
    yield from _arrow_files(tuple(file["filename"] for file in found.cache_files), where)


def _short(error: BaseException) -> str:
    """The first two lines: which configurations or splits there are stands in the second."""
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

"""Finds the model that a name means, its small files and its identity, without loading anything heavy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from socratune.config import DEMO, DEMO_DATA
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.llm.on_hub import file_of_repo, gguf_of_repo, repo_fault
from socratune.llm.pinned import PINNED, pinned_location
from socratune.llm.unpacked import GgufSource, gguf_source, local_gguf, unpacked
from socratune.llm.vendors import NO_REPOSITORIES, vendor_of
from socratune.resolve import given_template

LOCAL = "local/"

_BLOCKS, _BLOCK_BYTES = 64, 1 << 16
"""Blocks hashed of a weight file, spread evenly: 4 MiB of any file, which misses hardly a matrix."""


def local_name(ref: str) -> str | None:
    """Returns `NAME` of the reference `local/NAME`, a model in this process, and None for any other reference."""
    return ref.removeprefix(LOCAL) if ref.startswith(LOCAL) else None


@dataclass(frozen=True, slots=True)
class Base:
    """Holds the model to be trained, which is the student unless the configuration names another.

    Attributes:
        model_name: folder, Hub id or `demo`.
        load_in_4bit: as it will be trained.
        seed: of the run.
        adapter: what the student wears on it, the LoRA adapter of the round before; None: it answers as it is.
        template: the chat template that it is given; None: its own.
    """

    model_name: str
    load_in_4bit: bool | str
    seed: int
    adapter: Path | None = None
    template: str | None = None


def model_location(name: str, *, fetch: bool = True) -> str:
    """Returns what transformers' `from_pretrained` takes: a directory or a Hub id.

    The name `demo` is the embedded model. Of a GGUF file, a folder or a Hub repository that holds nothing else, and of
    `smollm2`, it is the folder in the cache that the weights are unpacked into, which is done where it was not before.

    Args:
        name: a folder, a GGUF file, a Hub id, `ORG/NAME:FILE.gguf`, `smollm2` or `demo`.
        fetch: get a GGUF file that is not on this machine; otherwise its name is returned as it is.

    Raises:
        UserError: it is no GGUF file that can be read, or several could be meant; the cache cannot be written.
        OutsideError: it is not on this machine, and could not be fetched.
    """
    if name == DEMO:
        return str(DEMO_DATA / "base")
    if name in PINNED:
        return str(pinned_location(name, fetch=fetch) or name)
    if name.strip() and (file := local_gguf(name) or (None if is_path(name) else gguf_of_repo(name, fetch=fetch))):
        return str(unpacked(file))
    return name


def source_of(name: str) -> GgufSource | None:
    """Returns the GGUF file behind a model's weights if the model is on this machine, otherwise None."""
    return gguf_source(Path(model_location(name, fetch=False)))


def hub_name_of(name: str) -> str | None:
    """Returns the Hub id of a model with one of our own names, and None for every other."""
    return PINNED[name].hub_id if name in PINNED else None


def model_fault(name: str, where: str = "--model") -> Fault | None:
    """Returns why `name` is no model, or None. A GGUF file is fetched and unpacked first.

    Raises:
        OutsideError: it is not on this machine, and the Hub or the package index could not be asked.
    """
    try:
        if fault := _hosted_fault(name, where):
            return fault
        location = Path(model_location(name))
        if location.is_dir():
            return _folder_fault(location, f"{where} {name}")
        if location.exists():
            return Fault(f"{where} {name}", "a model folder, a GGUF file or a Hub id", Shown("a file"))
        if is_path(name):
            got = Shown("no such file" if name.endswith(".gguf") else "no such folder")
            return Fault(f"{where} {name}", "a model folder, a GGUF file or a Hub id", got)
        if fault := repo_fault(name, where):
            return fault
        gguf = Path(model_location(name))  # of a repository that has nothing else
        return _folder_fault(gguf, f"{where} {name}") if gguf.is_dir() else None
    except UserError as error:
        (fault,) = error.faults
        return replace(fault, where=f"{where} {fault.where if name in fault.where else f'{name}: {fault.where}'}")


def _hosted_fault(name: str, where: str) -> Fault | None:
    """Returns the fault of a name that only an API's model can have. `openai/…` may be a repository of the Hub."""
    vendor = vendor_of(name)
    if vendor is None or (vendor[1] != name and vendor[0] not in NO_REPOSITORIES) or Path(name).exists():
        return None
    fix = "Name a model whose weights can be had; one of an API can teach and judge (--teacher-model, --judge-model)."
    if vendor[0] == "ollama":
        fix = f"Give its GGUF file. To find it, run: ollama show --modelfile {vendor[1]}"
    return Fault(f"{where} {name}", "a model folder, a GGUF file or a Hub id", Shown("a model behind an API"), fix)


def _folder_fault(folder: Path, what: str) -> Fault | None:
    if (folder / "adapter_config.json").is_file():
        fix = "Name its base model; an adapter is trained on a base."
        return Fault(what, "a base model", Shown("a LoRA adapter"), fix)
    if not (folder / "config.json").is_file():
        return Fault(what, "a model folder", Shown("a folder without config.json"))
    return None


def is_here(name: str) -> bool:
    """Returns True if a model is on this machine: a folder or file, or in a cache."""
    if name == DEMO or Path(name).exists() or is_path(name):  # a wrong path is somebody else's fault to find
        return True
    if name in PINNED:
        return pinned_location(name, fetch=False) is not None
    if gguf_of_repo(name, fetch=False) is not None:
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        return file_of_repo(name) is None


def is_path(name: str) -> bool:
    """Returns True if a name can only be a folder or file, never a Hub id."""
    if file_of_repo(name) is not None:
        return False
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or name.endswith(".gguf") or not name.strip()


def model_file(name: str, file: str) -> Path | None:
    """Returns a small file of a model, downloaded if necessary, or None if the model lacks it.

    Raises:
        OutsideError: it is on the Hub, and the Hub could not be asked.
    """
    location = model_location(name)
    if Path(location).is_dir():
        path = Path(location) / file
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(location, file))
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise OutsideError(f"{name}: {file} is not here, and the Hugging Face Hub did not give it.") from error


def model_json(name: str, file: str) -> dict[str, Any]:
    """Returns the content of one of a model's JSON files, empty if the file is missing.

    Raises:
        UserError: it is no JSON object.
    """
    path = model_file(name, file)
    try:
        content = {} if path is None else json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(Fault(f"{name}: {file}", "JSON", Shown(str(error)))) from None
    if not isinstance(content, dict):
        raise UserError(Fault(f"{name}: {file}", "a JSON object", Shown(type(content).__name__)))
    return content


def chat_template(name: str) -> str | None:
    """Returns the model's chat template, or the one assigned to it, or None."""
    if assigned := given_template(name):
        return assigned
    if path := model_file(name, "chat_template.jinja"):
        return path.read_text("utf-8")
    return default_template(model_json(name, "tokenizer_config.json").get("chat_template"))


def default_template(templates: Any) -> str | None:
    """Returns the default of a tokenizer's named templates, which models with tools used to have, or None.

    Args:
        found: as in `tokenizer_config.json`: a template, or a list of names and templates; or these as a mapping.
    """
    if isinstance(templates, list):
        pairs = (entry for entry in templates if isinstance(entry, dict))
        templates = {entry.get("name"): entry.get("template") for entry in pairs}
    if isinstance(templates, dict):
        templates = templates.get("default") or (next(iter(templates.values())) if len(templates) == 1 else None)
    return templates if isinstance(templates, str) and templates.strip() else None


def model_revision(name: str) -> str | None:
    """Returns the commit of a Hub model in the local cache, or None for a folder and without a download."""
    from huggingface_hub import try_to_load_from_cache

    if Path(model_location(name, fetch=False)).is_dir() or file_of_repo(name) is not None:
        return None
    cached = try_to_load_from_cache(name, "config.json")
    return Path(cached).parent.name if isinstance(cached, str) else None


def weights_hash(name: str) -> str | None:
    """Returns 16 hex digits of the weight files alone, or None if they are not on this machine."""
    folder = Path(model_location(name, fetch=False))
    if not folder.is_dir():
        if file_of_repo(name) is not None:
            return None
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "config.json")
        if not isinstance(cached, str):
            return None
        folder = Path(cached).parent
    weights = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    return _hashed(weights) if weights else None


def weights_fingerprint(location: str) -> str:
    """Returns 16 hex digits of a model folder's or Hub model's identity.

    A folder: blocks of every weight file, whole configuration and tokenizer files.
    A Hub id: the id and the revision in the local cache.
    """
    folder = Path(location)
    if not folder.is_dir():
        from huggingface_hub import HfApi

        known = (
            model_revision(location) or HfApi().model_info(location, timeout=20).sha
        )  # the one it will have when it is here
        return hashlib.sha256(f"{location}@{known}".encode()).hexdigest()[:16]
    kinds = (".json", ".jinja", ".safetensors", ".bin", ".model")
    return _hashed(sorted(path for path in folder.iterdir() if path.suffix in kinds))


def _hashed(files: Iterable[Path]) -> str:
    """Returns 16 hex digits of names, sizes and contents; of a large weight file, only evenly spread blocks count."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as stream:
            if path.suffix not in (".safetensors", ".bin") or size <= _BLOCKS * _BLOCK_BYTES:
                digest.update(stream.read())
                continue
            for block in range(_BLOCKS):
                stream.seek((size - _BLOCK_BYTES) * block // (_BLOCKS - 1))
                digest.update(stream.read(_BLOCK_BYTES))
    return digest.hexdigest()[:16]

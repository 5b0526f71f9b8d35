"""Unpacks a GGUF file into a plain model folder in a cache, with tokenizer and chat template, once."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from errno import EIO
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.runs import file_hash, write_json, write_text

log = logging.getLogger(__name__)

CACHE = "SOCRATUNE_CACHE"
"""The environment variable for the cache's location."""
_MAGIC = b"GGUF"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_WAY = "gguf-2"
"""A version of the unpacking. Each has its own folder, so that errors of an earlier one are corrected."""
_BYTES = 2
"""Bytes of an unpacked weight: bfloat16 keeps everything that 4 to 8 bits have left."""


@dataclass(frozen=True, slots=True)
class GgufSource:
    """Names the GGUF file behind a folder's weights, and its sha256."""

    file: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.file} (sha256 {self.sha256})"


def cache_folder() -> Path:
    """Returns the cache of fetched and unpacked models: `$SOCRATUNE_CACHE`, else `socratune` in `$XDG_CACHE_HOME`,
    which is `~/.cache` by default.
    """
    if own := os.environ.get(CACHE):
        return Path(own).expanduser().absolute()
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return (usual if usual.is_absolute() else Path("~/.cache").expanduser()) / "socratune"


def gguf_in(files: list[str]) -> list[str]:
    """Returns those of a model's files that are a GGUF language model, if there are no other weights."""
    if any(name.endswith(_WEIGHTS) for name in files):
        return []
    return sorted(name for name in files if name.endswith(".gguf") and not name.split("/")[-1].startswith("mmproj"))


def local_gguf(name: str) -> Path | None:
    """Returns the GGUF file that a path means: the file itself, or the only one of a folder without other weights.

    Raises:
        UserError: the folder has several.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path if name.endswith(".gguf") else None
    if not path.is_dir():
        return None
    files = gguf_in([file.name for file in path.iterdir()])
    if len(files) > 1:
        raise UserError(several_fault(name, files, f"{name.rstrip('/')}/{files[0]}"))
    return path / files[0] if files else None


def several_fault(name: str, files: list[str], example: str) -> Fault:
    """Returns the fault of a name that could mean several GGUF files."""
    shown = ", ".join(files[:8]) + (", …" if len(files) > 8 else "")
    return Fault(name, "one GGUF file", Shown(f"{len(files)} of them"), f"Name one, as in {example}. There: {shown}.")


def unpacked(file: Path, sha256: str | None = None) -> Path:
    """Returns the folder of a GGUF file's weights, unpacked into bfloat16 unless that was done before.

    Args:
        sha256: of the file, where it is known.

    Raises:
        UserError: it is no GGUF file, is cut short, or is none that transformers reads; the disk is full.
    """
    sha256 = sha256 or _hash_of(file)
    folder = unpacked_folder(sha256)
    if not folder.is_dir():
        with only_one(folder) as part:
            if not folder.is_dir():  # another process was faster
                _unpack(file, part, GgufSource(file.name, sha256))
                part.rename(folder)
    return folder


def unpacked_folder(sha256: str) -> Path:
    """Returns the folder for the unpacked weights of the file with that hash."""
    return cache_folder() / _WAY / sha256


def gguf_source(folder: Path) -> GgufSource | None:
    """Returns the GGUF file behind a folder's weights, and None for any other folder."""
    try:
        head = yaml.safe_load((folder / "README.md").read_text("utf-8").split("---\n")[1])
        return GgufSource(str(head["gguf_file"]), str(head["gguf_sha256"]))
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return None


@contextmanager
def only_one(place: Path) -> Iterator[Path]:
    """Yields a new folder beside `place` for preparation by one process at a time. It is removed afterwards.

    Raises:
        UserError: the cache cannot be written, or its disk is full.
    """
    import fcntl

    part = place.with_name(f"{place.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
                part.mkdir()
                yield part
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        if isinstance(error, OutsideError):
            raise
        raise UserError(_no_room("a cache that can be written", error.strerror or str(error))) from error


def remembered(book: str) -> dict[str, Any]:
    """Returns the content of a book in the cache, empty if it is missing or corrupt."""
    try:
        content = json.loads((cache_folder() / book).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def remember(book: str, key: str, value: Any) -> None:
    """Records what would otherwise have to be found out again."""
    with only_one(cache_folder() / book):
        write_json(cache_folder() / book, remembered(book) | {key: value})


def _no_room(expected: str, got: str) -> Fault:
    fix = f"Make room there, or name another folder: export {CACHE}=/a/larger/disk."
    return Fault(str(cache_folder()), expected, Shown(got), fix)


def _hash_of(file: Path) -> str:
    """Returns the sha256 of a file. An unchanged file is read once."""
    stat = file.stat()
    key, state = str(file.absolute()), [stat.st_size, stat.st_mtime_ns]
    known = remembered("hashes.json").get(key)
    if isinstance(known, list) and known[:2] == state:
        return str(known[2])
    sha256 = file_hash(file)
    remember("hashes.json", key, [*state, sha256])
    return sha256


def _unpack(file: Path, folder: Path, source: GgufSource) -> None:
    """Writes the folder's content.

    Raises:
        OSError: it cannot be written.
        UserError: it is no GGUF file that can be read; the disk has too little room.
    """
    licence, weights, pre = _looked_at(file)
    need, free = weights * _BYTES * 1.05, shutil.disk_usage(folder).free
    if free < need:
        expected = f"{need / 1e9:.2f} GB of room for the weights of {file.name}"
        raise UserError(_no_room(expected, f"{free / 1e9:.2f} GB"))
    log.info("Unpacking the weights of %s into %s, once: about %.0f MB.", file.name, cache_folder(), need / 1e6)
    try:
        with _bars_on_a_terminal_only(), _read_once(file):
            _write(file, folder, pre)
    except SafetensorError as error:
        raise OSError(EIO, str(error)) from error
    except Exception as error:  # of a file that they do not expect, gguf, tokenizers and transformers raise any
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = Shown(" ".join(str(error).split())[:300] or type(error).__name__)
        fix = "Take another file of the model, or its safetensors."
        raise UserError(Fault(str(file), "a GGUF file that transformers reads", reason, fix)) from error
    head = {**({"license": licence} if licence else {}), "gguf_file": source.file, "gguf_sha256": source.sha256}
    note = f"The weights of the GGUF file {source.file}, unpacked into bfloat16."
    write_text(folder / "README.md", f"---\n{yaml.safe_dump(head, allow_unicode=True, sort_keys=False)}---\n{note}\n")


def _looked_at(file: Path) -> tuple[str | None, int, str | None]:
    """Returns the licence, the number of weights and the pre-tokenizer of a GGUF file.

    Raises:
        UserError: it is none, or not whole.
    """
    with file.open("rb") as stream:
        magic = stream.read(len(_MAGIC))
    if magic != _MAGIC:
        got = "another file" if magic else "an empty file"
        if magic.startswith(b"vers"):
            got = "a pointer of Git LFS"
        raise UserError(Fault(str(file), "a GGUF file", Shown(got), "Download the file itself."))
    try:
        reader = _reader_of(file)
        licence, pre = (_text_in(reader, key) for key in ("general.license", "tokenizer.ggml.pre"))
        pieces, weights = reader.get_field("split.count"), sum(int(tensor.n_elements) for tensor in reader.tensors)
        split = pieces is not None and int(pieces.contents()) > 1
    except Exception as error:  # whatever bytes stand where it looks for a number
        reason = Shown(" ".join(str(error).split())[:200] or type(error).__name__)
        fix = "It may have been cut short: download it again."
        raise UserError(Fault(str(file), "a whole GGUF file", reason, fix)) from error
    if split:
        fix = "Join them, with llama.cpp's: llama-gguf-split --merge FIRST-PIECE WHOLE.gguf"
        raise UserError(Fault(str(file), "a GGUF file in one piece", Shown("one of several pieces"), fix))
    return licence, weights, pre


def _text_in(reader: Any, key: str) -> str | None:
    field = reader.get_field(key)
    text = None if field is None else field.contents()
    return text if isinstance(text, str) else None


def _reader_of(file: Path) -> Any:
    """Returns gguf's reader without numpy's costly type for mapped memory: a vocabulary is a million small views."""
    import numpy as np
    from gguf import GGUFReader

    class Reader(GGUFReader):
        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: Any) -> None:
            self._data = np.asarray(mapped)

    return Reader(file)


@contextmanager
def _read_once(file: Path) -> Iterator[None]:
    """Shares one reader of the file within this block; transformers makes five, and a map of names per module."""
    import gguf

    own, names, reader = gguf.GGUFReader, gguf.get_tensor_name_map, _reader_of(file)
    changed: Any = gguf
    changed.GGUFReader = lambda path, *more: reader if Path(path) == file.absolute() else own(path, *more)
    changed.get_tensor_name_map = cache(names)
    try:
        yield
    finally:
        changed.GGUFReader, changed.get_tensor_name_map = own, names


@contextmanager
def _bars_on_a_terminal_only() -> Iterator[None]:
    """Shows the libraries' progress bars on a terminal only, as a log would get a hundred lines of each."""
    import transformers as _  # noqa: F401 # its log keeps the stderr of its import, which must not be the one that is closed here

    if sys.stderr is not None and sys.stderr.isatty():
        yield
    else:
        with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
            yield


def _write(file: Path, folder: Path, pre: str | None) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place = {"pretrained_model_name_or_path": str(file.absolute().parent), "gguf_file": file.name}
    tokenizer: Any = AutoTokenizer.from_pretrained(**place)
    _name_special_tokens(tokenizer, file)
    if pre == "smollm":
        _split_digits(tokenizer)
    tokenizer.clean_up_tokenization_spaces = False  # it would harm a byte-level tokenizer; transformers warns of True
    dense: dict[str, Any] = {"dtype": torch.bfloat16, "quantization_config": GgufConfig(dequantize=True)}
    loaded: Any = AutoModelForCausalLM.from_pretrained(**place, **dense, output_loading_info=True)
    packed, report = loaded
    if missing := sorted(report["missing_keys"]):  # transformers would draw them at random
        raise ValueError(f"it has no weights for {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}")
    config = packed.config
    vars(config).pop("quantization_config", None)
    vars(config).pop("_model_name_or_path", None)
    with torch.device("meta"):
        plain: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(packed.state_dict(), assign=True)  # transformers does not save what it has read from GGUF
    plain.tie_weights()
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


_CONTROL, _OWN = 3, 4
"""Token types in a GGUF file: control tokens, and whole words that its makers added."""


def _name_special_tokens(tokenizer: Any, file: Path) -> None:
    """Adds the file's special tokens and end tokens to the tokenizer if its vocabulary has them by that name.

    Gemma's runs of spaces are other words there, and would be new ones beyond the embedding. Before 5.18
    transformers knew two or three special tokens, and took `<|endoftext|>` for the end of Qwen's turns.
    """
    from gguf import GGUFReader
    from transformers import AddedToken

    reader = GGUFReader(file.absolute())
    fields = {key: reader.get_field(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type")}
    if None in fields.values():
        return
    texts, types = (field.contents() for field in fields.values() if field is not None)
    known = tokenizer.added_tokens_decoder
    lacking = [
        AddedToken(text, special=kind == _CONTROL, normalized=False)
        for at, (text, kind) in enumerate(zip(texts, types, strict=False))
        if kind in (_CONTROL, _OWN) and at not in known and tokenizer.convert_tokens_to_ids(text) == at
    ]
    tokenizer.add_tokens(lacking)
    for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        field = reader.get_field(f"tokenizer.ggml.{key}_token_id")
        if field is not None and 0 <= (at := int(field.contents())) < len(texts):
            setattr(tokenizer, f"{role}_token", texts[at])


def _split_digits(tokenizer: Any) -> None:
    """Splits digits before anything else, as SmolLM's merges were learned. transformers leaves that out.

    Without it the line break before a numbered list is other tokens than the model was trained on.
    """
    from tokenizers import pre_tokenizers

    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)

"""Remembers what was learnt about a model's small files while they and the libraries that read them stay the same.

Reading them by transformers' automatic classes imports torch, which takes two seconds before a run prints anything.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from socratune import __version__
from socratune.errors import SocratuneError
from socratune.llm import cache_folder, model_file
from socratune.runs import file_state, fingerprint, write_json

_READERS = ("transformers", "tokenizers", "peft", "torch")
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")


def recall(name: str, about: str, *parts: Any) -> Any:
    """Returns what was noted; None if nothing was, or something has changed since.

    Args:
        name: a folder, a Hub id, or `demo`.
        about: the subject; one note is kept of each.
        parts: JSON that it depends on besides the model's files.
    """
    with suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(_note(name, about).read_text("utf-8"))
        if content["of"] == _state(name, *parts):
            return content["value"]
    return None


def note(name: str, about: str, *parts: Any, value: Any) -> None:
    """Keeps a value if the cache can be written. The arguments are those of `recall`."""
    with suppress(OSError, SocratuneError):
        path = _note(name, about)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"of": _state(name, *parts), "value": value})


def _folder(name: str) -> Path:
    path = model_file(name, "config.json")
    if path is None:
        raise FileNotFoundError(name)
    return path.absolute().parent


def _note(name: str, about: str) -> Path:
    return cache_folder() / "models" / f"{fingerprint(str(_folder(name)), about)}.json"


def _state(name: str, *parts: Any) -> str:
    """Returns a hash of every file of the model except its weights, of the libraries that read them, and of `parts`."""
    folder = _folder(name)
    files = (*folder.iterdir(), *folder.glob("additional_chat_templates/*"))  # transformers reads both places
    states = [(str(path), file_state(path)) for path in sorted(files) if path.suffix not in _WEIGHTS]
    return fingerprint(states, _readers(), parts)


@cache
def _readers() -> list[Any]:
    """Returns the versions of the libraries, and the state of the checks themselves."""
    own = [path for folder in ("inference", "training") for path in (Path(__file__).parents[1] / folder).glob("*.py")]
    return [__version__, *map(version, _READERS), file_state(*sorted(own))]

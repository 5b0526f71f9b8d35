"""Looks up models of the Hugging Face Hub: whether they exist, and their GGUF file if they have nothing else."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

from socratune.config import DEMO
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.llm.pinned import PINNED
from socratune.llm.unpacked import gguf_in, remember, remembered, several_fault

_FILE_OF = re.compile(r"([\w.-]+/[\w.-]+):(.+)")
_BOOK = "hub.json"
"""The cache's record of the GGUF file that a Hub name means."""


def file_of_repo(name: str) -> tuple[str, str] | None:
    """Returns Hub id and file part of `ORG/NAME:FILE.gguf`, and None for any other name."""
    match = _FILE_OF.fullmatch(name)
    return (match[1], match[2]) if match and not Path(name).exists() else None


def gguf_of_repo(name: str, *, fetch: bool) -> Path | None:
    """Returns the GGUF file of a Hub repository in the Hub's cache, or None for other names and missing files.

    Args:
        name: `ORG/NAME:FILE.gguf`, `ORG/NAME:` and a part of the name that only one of its GGUF files has, like
            `Q4_K_M`, or `ORG/NAME` that `repo_fault` has found to have one GGUF file and no other weights.
        fetch: get it where it is not here.

    Raises:
        UserError: there is no such repository, no such file, or several.
        OutsideError: the Hub could not be asked.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    asked = file_of_repo(name)
    repo, part = asked or (name, "")
    known = remembered(_BOOK).get(name) or (part if part.endswith(".gguf") else None)
    try:
        here = try_to_load_from_cache(repo, known) if isinstance(known, str) else None
    except HFValidationError:
        return None
    if isinstance(here, str):
        return Path(here)
    if not fetch or (asked is None and known is None):
        return None
    if known is None or asked:
        known = _meant(name, repo, part)
    try:
        return Path(hf_hub_download(repo, known))
    except Exception as error:  # the client's transport errors have no common class across its versions
        raise OutsideError(
            f"{name}: {known} could not be downloaded from the Hugging Face Hub ({_reason(error)})."
        ) from error


def repo_fault(name: str, where: str) -> Fault | None:
    """Returns why a Hub id is no model, or None. A repository with only a GGUF file is recorded as such.

    Raises:
        OutsideError: the Hub could not be asked.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return None
        files = gguf_in(_files_of(name, where))
    except HFValidationError:
        return Fault(f"{where} {name}", "a model folder or a Hub id like org/name", Shown("neither"))
    except UserError as error:
        return error.faults[0]
    if len(files) > 1:
        return several_fault(f"{where} {name}", files, f"{name}:{files[0]}")
    if files:
        remember(_BOOK, name, files[0])
    return None


def _meant(name: str, repo: str, part: str) -> str:
    """Returns the one GGUF file of a repository with this name or with this part in its name."""
    files = [file for file in _files_of(repo, name) if file.endswith(".gguf")]
    matches = [file for file in files if file == part] or [file for file in files if part.casefold() in file.casefold()]
    if len(matches) > 1:
        raise UserError(several_fault(name, matches, f"{repo}:{matches[0]}"))
    if not matches:
        got = Shown(", ".join(files[:8]) or "no GGUF file at all")
        raise UserError(Fault(name, f"a GGUF file of {repo} that is called so", got))
    remember(_BOOK, name, matches[0])
    return matches[0]


def _files_of(repo: str, where: str) -> list[str]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return [file.rfilename for file in HfApi().model_info(repo, timeout=20).siblings or []]
    except HFValidationError:
        raise
    except RepositoryNotFoundError:
        fix = "Check the spelling; for a private or gated model set HF_TOKEN."
        raise UserError(
            Fault(f"{where} {repo}", "a model on the Hugging Face Hub", Shown("none of that name"), fix)
        ) from None
    except Exception as error:  # the client's transport errors have no common class across its versions
        raise OutsideError(
            f"{where} {repo}: no such folder, and the Hugging Face Hub could not be asked ({_reason(error)}). "
            f"{_what_to_do(repo)}"
        ) from error


def _what_to_do(name: str) -> str:
    """Returns what to do about a name that is no folder here, where the Hub cannot be asked."""
    if near := get_close_matches(name.lower(), (DEMO, *PINNED), n=1):
        return f"Did you mean --model {near[0]}?"
    return f"Check the spelling and the network, or use --model {DEMO}, the embedded model."


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__

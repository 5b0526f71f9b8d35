"""Determines the base model as others know it: its public name, the trained commit, and its licence.

The licence is read from the model's own card. Nothing is assumed: what no card names is unknown, and is said to be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratune.config import DEMO
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.llm import GgufSource, hub_name_of, is_path, model_location, model_revision, source_of

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LINK = re.compile(r"https?://[^\s<>\"'`|]+")


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence as a Hub card names it.

    Attributes:
        id: one of the Hub's names, or `other`.
        name, link: of a licence that is `other`.
        doubt: why it is not known; empty where it is.
    """

    id: str
    name: str | None = None
    link: str | None = None
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class PublicBase:
    """The base model as others know it.

    Attributes:
        name: its Hub id, or the last part of a local folder's path.
        on_hub: others can load it by that name.
        revision: the commit that was trained on; None where it is not known.
        gguf: the file that the weights were unpacked from, where it was trained on such.
    """

    name: str
    on_hub: bool
    revision: str | None
    licence: Licence
    gguf: GgufSource | None = None


def public_base(model_name: str, hub_name: str | None, results: dict[str, Any], *, offline: bool) -> PublicBase:
    """Returns the base of a run as its card shows it.

    Args:
        hub_name: the Hub id of a base that is a folder here (`publish.base`).
        results: where the run recorded the base's revision.
        offline: ask nobody; what is not on this machine stays unknown.

    Raises:
        UserError: the base is a folder that is not there (any more), or a GGUF file of which nobody says what others
            load instead.
    """
    folder = Path(model_location(model_name, fetch=False))
    if not folder.is_dir():
        if is_path(model_name):
            fix = "Restore it, or set its new place in the run's config.yaml."
            raise UserError(Fault(model_name, "the folder of the base model", Shown("no such folder"), fix))
        student = results["stages"].get("enhance", {}).get("student") or {}
        commit = student.get("revision") if student.get("name") == model_name else model_revision(model_name)
        return PublicBase(model_name, True, commit, licence_of(model_name, offline=offline))
    if model_name == DEMO:
        return PublicBase("socratune/demo-base", False, None, Licence("apache-2.0"))
    if fault := gguf_base_fault(model_name, hub_name):
        raise UserError(fault)
    cached_name, commit = _in_cache(folder)
    licence, name = licence_of(folder, offline=offline), hub_name or hub_name_of(model_name) or cached_name
    if name is None:
        return PublicBase(folder.resolve().name, False, None, licence)
    if licence.doubt:
        licence = licence_of(name, offline=offline)
    return PublicBase(name, True, commit if name == cached_name else None, licence, source_of(model_name))


def gguf_base_fault(model_name: str, hub_name: str | None) -> Fault | None:
    """Returns why training on a GGUF file cannot be published: nobody could load the adapter on its weights."""
    source = source_of(model_name)
    if source is None or hub_name or hub_name_of(model_name):
        return None
    fix = f"Give --base ORG/NAME (publish.base), the model on the Hub that {source.file} was made from."
    return Fault("publish.base", "the Hub id of the model that others load the adapter on", Shown("nothing"), fix)


def _in_cache(folder: Path) -> tuple[str | None, str | None]:
    """Returns Hub id and commit of a folder in the Hub's local cache, `models--org--name/snapshots/COMMIT`."""
    repo, snapshots, commit = folder.absolute().parts[-3:] if len(folder.absolute().parts) > 3 else ("", "", "")
    if snapshots != "snapshots" or not repo.startswith("models--"):
        return None, None
    return repo.removeprefix("models--").replace("--", "/"), commit


def licence_of(what: str | Path, *, kind: str = "model", offline: bool = False) -> Licence:
    """Returns the licence that a repository's own card names.

    Args:
        what: a local folder, or a Hub id.
        kind: `model` or `dataset`.
        offline: read the local cache only.

    Raises:
        OutsideError: the Hub could not be asked. Nothing is published then with a licence that is only not read.
    """
    from huggingface_hub import ModelCard, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError

    source: str | Path | None = what
    if isinstance(what, Path):
        source = what / "README.md" if (what / "README.md").is_file() else None
    elif offline:
        cached = try_to_load_from_cache(what, "README.md", repo_type=kind)
        if not isinstance(cached, str):
            return Licence("other", "unknown", doubt="its card is not on this machine, and the Hub was not asked")
        source = cached
    if source is None:
        return Licence("other", "unknown", doubt="it has no card")
    try:
        data = ModelCard.load(source, repo_type=kind, ignore_metadata_errors=True).data
    except LocalEntryNotFoundError as error:
        raise OutsideError(
            f"The Hugging Face Hub could not be asked for the licence of {what}. Run the command again."
        ) from error
    except Exception as error:  # no card, no access, not YAML: they have no common class
        return Licence("other", "unknown", doubt=f"its card could not be read ({type(error).__name__})")
    return _named(data.get("license"), data.get("license_name"), data.get("license_link"), what)


def _named(found: Any, name: Any, link: Any, what: str | Path) -> Licence:
    """Returns the licence of a card's front matter. An invalid name counts as unknown."""
    if isinstance(found, list) and len(found) == 1:
        (found,) = found
    if not isinstance(found, str):
        doubt = "its card names no licence" if not found else "its card names several licences"
        return Licence("other", "unknown", doubt=doubt)
    if not _LICENCE.fullmatch(found):
        return Licence("other", "unknown", doubt="its card names a licence that the Hub does not know")
    if found != "other":
        return Licence(found)
    if isinstance(link, str) and isinstance(what, str) and not link.startswith("http"):  # a file of its repository
        link = f"https://huggingface.co/{what}/blob/main/{link}"
    link = link if isinstance(link, str) and _LINK.fullmatch(link) else None
    name = " ".join(name.split()) if isinstance(name, str) else ""
    return Licence("other", name or "unknown", link)

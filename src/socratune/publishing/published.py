"""Checks a published adapter for somebody else: files, hashes, verdict and card, by the files beside them.

Without the test's questions and answers, which stay at home unless somebody puts them there, nothing is counted again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from socratune.config import GateConfig, ValidateConfig
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.evaluation import Proof, answers_differ, proof_of, verdict_on
from socratune.publishing.card import measured_parts, same_metrics
from socratune.runs import PROVENANCE, Pin, file_hash, pins_faults, read_pins, write_json

_CARD, _RESULTS = "README.md", "pipeline_results.json"
_NOT_OURS = (".gitattributes", ".gitignore")
_MADE_PUBLIC = ("adapter_config.json", "tokenizer_config.json")
"""Of the adapter's files those that tell a path of the machine, which is taken out."""


def publish_provenance(folder: Path) -> None:
    """Adds the hashes of all published files to the folder's provenance, beside the pins of the run."""
    path = folder / PROVENANCE
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {"format": 1, "pins": []}
    write_json(path, {**known, "published": _hashes(folder)})


def _hashes(folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file by its path, except the provenance itself and what a Hub or git adds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        ours = name.name not in _NOT_OURS and not name.parts[0].startswith(".") and name.as_posix() != PROVENANCE
        if ours and path.is_file():
            found[name.as_posix()] = file_hash(path)
    return found


@dataclass(slots=True)
class Published:
    """What a publication claims, what disagrees with it, and what readers should know."""

    proof: Proof | None = None
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def verify_hub(name: str) -> Published:
    """Downloads an adapter and checks it.

    Args:
        name: of a repository on the Hub.

    Raises:
        UserError: there is none of that name, or its files cannot be read.
        OutsideError: the Hub could not be asked.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        folder = snapshot_download(name)
    except (RepositoryNotFoundError, HFValidationError, GatedRepoError):
        expected, got = (
            "the folder of a run, or ORG/NAME on the Hub",
            "neither: no such folder or repository exists",
        )
        fix = "Check the spelling; for a private repository run: export HF_TOKEN=…"
        raise UserError(Fault(f"verify {name}", expected, Shown(got), fix)) from None
    except Exception as error:  # the client's transport errors have no common class across its versions
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OutsideError(f"{name} could not be downloaded from the Hugging Face Hub: {reason[:200]}.") from error
    return verify_published(Path(folder))


def verify_published(folder: Path) -> Published:
    """Checks a published folder.

    Raises:
        UserError: its files cannot be read.
    """
    found = Published()
    if not (folder / PROVENANCE).is_file():
        found.faults.append(
            f"There is no {PROVENANCE}: an older version of Socratune, or another program, published it."
        )
        return found
    try:
        pins = read_pins(folder / PROVENANCE)
        told = json.loads((folder / PROVENANCE).read_text("utf-8")).get("published")
        results = json.loads((folder / _RESULTS).read_text("utf-8")) if (folder / _RESULTS).is_file() else {}
        found.faults += [*_files(folder, told), *pins_faults(pins), *_pinned(folder, pins)]
        found.proof = proof_of(results)
        if found.proof is None:
            found.faults.append(f"{_RESULTS} has no validation result.")
            return found
        found.faults += [*_verdict(found.proof, results, pins), *_card(folder, results, told)]
        found.remarks += [str(remark) for remark in results.get("verified", {}).get("remarks", [])]
        _test(folder, found, results, pins)
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, OSError) as error:
        got = Shown(f"{type(error).__name__}: {error}")
        raise UserError(Fault(str(folder), "the files that publish writes", got)) from None
    return found


def _files(folder: Path, told: Any) -> Iterator[str]:
    """Yields every file that differs from the published one. The card may have additions."""
    if not isinstance(told, dict):
        yield f"{PROVENANCE} does not say which files were published."
        return
    there = _hashes(folder)
    for name in sorted(told.keys() | there.keys()):
        if name not in there:
            yield f"{name} is missing."
        elif name not in told:
            yield f"{name} was not part of the publication."
        elif there[name] != told[name] and name != _CARD:
            yield f"{name} is not the file that was published."


def _pinned(folder: Path, pins: list[Pin]) -> Iterator[str]:
    """Yields every file of the adapter that is not the trained one."""
    files = next((one.content["files"] for one in pins if one.what == "adapter"), {})
    for name, wanted in files.items():
        if name not in _MADE_PUBLIC and (not (folder / name).is_file() or file_hash(folder / name) != wanted):
            yield f"{name} is not the file that was trained."


def _verdict(proof: Proof, results: dict[str, Any], pins: list[Pin]) -> Iterator[str]:
    """Yields where the verdict differs from its own numbers under the pinned conditions."""
    gate = GateConfig(**results["config"]["validate"]["gate"])
    taught = results["stages"].get("curate", {}).get("outcomes", {}).get("solved_with_evidence", 0)
    ours = verdict_on(proof.tests, gate, knowledge_rows=taught)
    if ours.status != proof.status or len(ours.reasons) != len(proof.reasons):
        yield f"It says {proof.status}, but its numbers mean {ours.status}. {ours.reason}".rstrip()
    if results.get("status") != proof.status:
        yield f"{_RESULTS} says {results.get('status')!r}, but its validation says {proof.status}."
    pinned = next((one.content for one in pins if one.what == "proof"), None)
    if pinned is not None and (pinned["status"] != proof.status or pinned["gate"] != gate.model_dump(mode="json")):
        yield f"The verdict or the conditions differ from those in {PROVENANCE}."


def _card(folder: Path, results: dict[str, Any], told: Any) -> Iterator[str]:
    """Yields where the card contradicts the results. Anybody may add to it otherwise."""
    path = folder / _CARD
    card = path.read_text("utf-8", "replace") if path.is_file() else ""
    if not isinstance(told, dict) or told.get(_CARD) == (file_hash(path) if card else None):
        return
    if any(part not in card for part in measured_parts(results)):
        yield f"{_CARD} does not state what was measured: its numbers or its warning were changed."
    elif not same_metrics(card, results):
        yield f"{_CARD} has metrics in its front matter that differ from the measured ones."


def _test(folder: Path, found: Published, results: dict[str, Any], pins: list[Pin]) -> None:
    """Counts the answers again if the test is published, too."""
    names = ("held_out.jsonl", "held_out_answers.jsonl")
    if found.proof is None or not all((folder / name).is_file() for name in names):
        found.remarks.append(
            "The test is not published: files and hashes were checked, but no answer was counted again."
        )
        return
    pinned = next((one.content["files"] for one in pins if one.what == "proof"), {})
    for name in names:
        if pinned.get(name) != file_hash(folder / name):
            found.faults.append(f"{name} is not the file that the verdict rests on.")
    config = ValidateConfig(**results["config"]["validate"])
    found.faults += answers_differ(folder, found.proof, config, results["config"].get("seed", 0))

"""Keeps `provenance.json`: hashes of what a proof rests on. Each is written when it is fixed, so that the test stands
before the training and the verdict at the end. The adapter's folder has a copy, which travels with the adapter.

It shows that files belong together, and in which order they came. It is no signature: who rewrites everything that it
speaks of, and it too, is not found out (docs/security.md).
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from socratune import __version__
from socratune.errors import Fault, Shown, UserError
from socratune.runs.folder import RunDir, fingerprint, write_json

log = logging.getLogger(__name__)

PROVENANCE = "provenance.json"
What = Literal["held_out", "train", "adapter", "proof"]
ORDER: tuple[What, ...] = ("held_out", "train", "adapter", "proof")
"""What is pinned, in the order in which it is fixed."""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Pin:
    """Holds what was fixed at a moment.

    Attributes:
        at: UTC, ISO 8601.
        socratune: the version that wrote it.
        content: hashes and figures, as JSON; no path of a machine, so that it can be published.
        after: of all pins before it: that none of them was changed since.
    """

    what: What
    at: str
    socratune: str
    content: dict[str, Any]
    after: str

    def to_json(self) -> dict[str, Any]:
        """Returns the pin as it stands in the file."""
        head = {"what": self.what, "at": self.at, "socratune": self.socratune, "after": self.after}
        return {**head, **self.content}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Pin:
        """Returns the pin of an entry of the file, the inverse of `to_json`."""
        content = dict(data)
        what, at, version, after = (content.pop(name) for name in ("what", "at", "socratune", "after"))
        if what not in ORDER or not all(isinstance(value, str) for value in (at, version, after)):
            raise ValueError(f"a pin of {what!r}")
        return cls(what, at, version, content, after)


def pin(run: RunDir, results: dict[str, Any], what: What, content: dict[str, Any]) -> None:
    """Records what is fixed now and drops every later pin. A pin that is already recorded stays unchanged.

    Args:
        results: of the run; they note which provenance is theirs, so that it cannot be left out.
        content: JSON.
    """
    known = _known_pins(run, results.get("provenance"))
    if not any(other.what == what and other.content == content for other in known):
        before = [other for other in known if ORDER.index(other.what) < ORDER.index(what)]
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        known = [*before, Pin(what, now, __version__, content, _chained(before))]
        write_json(run / PROVENANCE, _document(known))
    copy_provenance(run)
    results["provenance"] = fingerprint(_document(known))


def _known_pins(run: RunDir, noted: Any) -> list[Pin]:
    """Returns the pins so far: from the file, or if it is missing or corrupt, from the copy in the results."""
    for path in (run / PROVENANCE, run.adapter / PROVENANCE):
        try:
            known = read_pins(path) if path.exists() else []
        except UserError as error:
            log.warning("%s It is not used.", error)
            continue
        if known and not pins_faults(known):
            write_json(run / PROVENANCE, _document(known))
            return known
    if noted is not None:
        log.warning("%s: the provenance of this run is lost. It is recorded again from here on.", run / PROVENANCE)
    return []


def copy_provenance(run: RunDir) -> None:
    """Copies the provenance into the adapter's folder."""
    if run.adapter.is_dir():
        write_json(run.adapter / PROVENANCE, json.loads((run / PROVENANCE).read_text("utf-8")))


def _document(pins: Sequence[Pin]) -> dict[str, Any]:
    return {"format": _FORMAT, "pins": [entry.to_json() for entry in pins]}


def _chained(before: Sequence[Pin]) -> str:
    text = json.dumps([entry.to_json() for entry in before], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def read_pins(path: Path) -> list[Pin]:
    """Returns the pins of a file in order.

    Raises:
        UserError: it cannot be read, or is not what `pin` writes.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
        if data["format"] != _FORMAT:
            raise ValueError(f"format {data['format']!r}")
        return [Pin.from_json(entry) for entry in data["pins"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        got = Shown(f"{type(error).__name__}: {error}")
        raise UserError(Fault(str(path), "the provenance of a run", got)) from None


def pins_faults(pins: Sequence[Pin], noted: Any = None) -> list[str]:
    """Returns in sentences why pins differ from what was written.

    Args:
        noted: what the results note of them (`pin`); None where there are no results to ask.
    """
    places = [ORDER.index(entry.what) for entry in pins]
    if places != sorted(set(places)):
        return [f"{PROVENANCE} has its entries twice or in another order than they are written in."]
    for at, entry in enumerate(pins):
        if entry.after != _chained(pins[:at]):
            return [f"{PROVENANCE} was changed: an entry before {entry.what!r} is not the one that stood there."]
    if noted is not None and noted != fingerprint(_document(pins)):
        return [f"{PROVENANCE} is not the one that pipeline_results.json belongs to."]
    return []

"""Run folders that begin as copies of others, completely or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from socratune.rows import QARow
from socratune.runs import OUTPUTS, PROVENANCE, STAGES, RunDir, read_jsonl, write_json, write_jsonl

_Reading = Literal["rows", "tokens", "money"]
"""What equals the reference arm's: the questions, the trained tokens, or the cost of the calls."""
READINGS: tuple[_Reading, ...] = ("rows", "tokens", "money")


@dataclass(frozen=True, slots=True)
class AblationJob:
    """One training and its exam."""

    arm: str
    seed: int = 0
    reading: _Reading = "rows"

    def __str__(self) -> str:
        reading = "" if self.reading == "rows" else f", equal {self.reading}"
        return f"{self.arm}, seed {self.seed}{reading}"


def folder(output: Path, job: AblationJob) -> RunDir:
    """Returns the run folder of a job."""
    name = f"seed-{job.seed}" if job.reading == "rows" else f"seed-{job.seed}-{job.reading}"
    return RunDir(output / job.arm / name)


def begin(
    run: RunDir,
    source: RunDir,
    *,
    until: str,
    share: float = 1.0,
    rows: Mapping[str, Sequence[QARow]] | None = None,
    journal: Path | None = None,
) -> None:
    """Makes `run` a copy of `source` as it was after the stage `until`, unless it exists already.

    Args:
        share: the share of the training rows, chosen by the hash of their ids.
        rows: other rows than those of the source, by the name of their file.
        journal: a journal whose calls need not be repeated.
    """
    if run.config.exists():
        return
    stages = STAGES[: STAGES.index(until) + 1]
    begun = RunDir(run.root.with_name(f".{run.root.name}.tmp"))
    shutil.rmtree(begun.root, ignore_errors=True)
    begun.create()
    for name in [run.config.name, PROVENANCE, *(output for stage in stages for output in OUTPUTS[stage])]:
        if (source / name).is_file():
            shutil.copyfile(source / name, begun / name)
    if share < 1:
        write_jsonl(begun.rows("train"), _part(list(read_jsonl(source.rows("train"))), share))
    for name, others in (rows or {}).items():
        write_jsonl(begun.rows(name), (row.to_json() for row in others))
    results = json.loads(source.results.read_text("utf-8"))
    results["stages"] = {name: entry for name, entry in results["stages"].items() if name in stages}
    write_json(begun.results, results)
    if journal is not None:
        shutil.copyfile(journal, begun.journal)
    begun.root.rename(run.root)


def _part(rows: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """Returns the chosen share of the rows, at least one row."""
    order = sorted(range(len(rows)), key=lambda at: sha256(f"part/{rows[at]['id']}".encode()).digest())
    kept = set(order[: max(1, round(share * len(rows)))])
    return [row for at, row in enumerate(rows) if at in kept]

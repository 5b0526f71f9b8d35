"""split: what is trained on, what chooses, what proves. Before anything is paid, by source, and it does not move."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, replace

from socratune.answers import normalise
from socratune.config import SplitConfig
from socratune.errors import Fault, Shown, UserError
from socratune.rows import QARow, Rejected
from socratune.rundir import RunDir, StageResult, write_jsonl
from socratune.sources.qa_files import ReadRows, data_path, read_qa_rows

log = logging.getLogger(__name__)
FEW_SOURCES = 5
"""Fewer sources than this cannot be split by source; rows then go by their question."""


def run(run: RunDir, config: SplitConfig, *, dataset: str) -> StageResult:
    """Write `train_in.jsonl`, `dev.jsonl`, `held_out.jsonl`, and what was dropped with its reason.

    Raises:
        UserError: faulty rows (all of them) unless `on_bad_row` is `skip`; nothing left to train on.
    """
    read = checked(read_qa_rows(data_path(dataset)), config)
    rows = _clustered(read.rows)
    own_held_out = None
    if config.held_out is not None:
        own_held_out = checked(read_qa_rows(data_path(config.held_out, held_out=True)), config)
    if own_held_out is None:
        held_out = pick(rows, "held_out", config.held_out_share, config.max_held_out_rows)
        contaminated: list[Rejected] = []
    else:
        held_out = _clustered(own_held_out.rows)
        rows, contaminated = _decontaminated(rows, held_out)
    taken = {row.id for row in held_out}
    rest = [row for row in rows if own_held_out is not None or row.id not in taken]
    dev = pick(rest, "dev", config.dev_share, config.max_dev_rows)
    chosen = {row.id for row in dev}
    train_in = [row for row in rest if row.id not in chosen]
    if not train_in:
        fix = "Add rows, or lower split.held_out_share."
        raise UserError(Fault(f"--dataset {dataset}", "rows to train on", Shown("none after the split"), fix))
    for name, part in (("train_in", train_in), ("dev", dev), ("held_out", held_out)):
        write_jsonl(run.rows(name), (row.to_json() for row in part))
    write_jsonl(run.rejected("train_in"), (asdict(item) for item in contaminated))
    bad = read.rejected + (own_held_out.rejected if own_held_out else [])
    if bad:
        write_jsonl(run.rejected("input"), (asdict(item) for item in bad))
    figures = {
        "train_in": len(train_in),
        "dev": len(dev),
        "held_out": len(held_out),
        "held_out_clusters": len({row.cluster for row in held_out}),
        "contaminated": len(contaminated),
        "bad_rows": len(bad),
    }
    return StageResult(rows_in=len(read.rows) + len(read.rejected), rows_out=len(train_in), figures=figures)


def checked(read: ReadRows, config: SplitConfig) -> ReadRows:
    """The rows, or every fault of the file; with `on_bad_row: skip` bad rows do not count as faults."""
    if read.faults and not (config.on_bad_row == "skip" and read.rows):
        raise UserError(*read.faults)
    return read


def pick(rows: list[QARow], salt: str, share: float, most: int) -> list[QARow]:
    """About `share` of the rows, at most `most`, as whole clusters chosen by the hash of their name.

    A cluster's place does not depend on the other clusters, so added rows move nothing but the cut at `most`. Where
    the hash picks no cluster, the first by hash is taken, as long as another one is left.
    """
    clusters: dict[str, list[QARow]] = defaultdict(list)
    for row in rows:
        clusters[row.cluster or row.id].append(row)
    if share <= 0 or most <= 0 or len(clusters) < 2:
        return []
    order = sorted(clusters, key=lambda name: _place(salt, name))
    picked: list[QARow] = []
    for name in order:
        if not picked and len(clusters[name]) > most and name != order[-1]:
            continue
        if picked and (_place(salt, name) >= share or len(picked) + len(clusters[name]) > most):
            break
        picked += clusters[name]
    wanted = {row.id for row in picked}
    return [row for row in rows if row.id in wanted]


def _place(salt: str, cluster: str) -> float:
    """A fixed number in [0, 1) for a cluster."""
    return int.from_bytes(hashlib.sha256(f"{salt}/{cluster}".encode()).digest()[:8], "big") / 2**64


def _clustered(rows: Iterable[QARow]) -> list[QARow]:
    """The rows with their cluster: whatever shares a source or asks the same question is never parted."""
    rows = list(rows)
    sources = {row.source for row in rows if row.source is not None}
    by_source = len(sources) >= FEW_SOURCES
    if not by_source and sources:
        log.warning(
            "The rows come from %d source(s), too few to split by source; they are split by question.", len(sources)
        )
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent.get(above, above)
            name = above
        return name

    names = []
    for row in rows:
        question = f"q:{normalise(row.question)}"
        name = f"source:{row.source}" if by_source and row.source else question
        names.append(name)
        first, second = sorted((root(name), root(question)), key=lambda found: (found.startswith("q:"), found))
        parent[second] = first
    return [replace(row, cluster=root(name)) for row, name in zip(rows, names, strict=True)]


def _decontaminated(rows: list[QARow], held_out: list[QARow]) -> tuple[list[QARow], list[Rejected]]:
    questions = {normalise(row.question) for row in held_out}
    clean, dropped = [], []
    for row in rows:
        if normalise(row.question) in questions:
            dropped.append(Rejected(row.id, "in_held_out", "the same question is held out", row.to_json()))
        else:
            clean.append(row)
    return clean, dropped

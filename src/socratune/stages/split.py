"""split: what is trained on, what chooses, what proves. Before anything is paid, by source, and it does not move.

The data set is read twice and never held: first a few numbers per row decide where it goes, then it is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from socratune.config import SplitConfig
from socratune.errors import Fault, Shown, UserError
from socratune.rows import Rejected
from socratune.rundir import RunDir, StageResult, write_jsonl
from socratune.sources.qa_files import bad_rows, commit_of, data_path
from socratune.stages.clusters import Clusters


def run(run: RunDir, config: SplitConfig, *, dataset: str) -> StageResult:
    """Write `train_in.jsonl`, `dev.jsonl`, `held_out.jsonl`, and what was dropped with its reason.

    Raises:
        UserError: faulty rows (all of them) unless `on_bad_row` is `skip`; nothing left to train on.
    """
    own = None
    if config.held_out is not None:
        own = _read(data_path(config.held_out, held_out=True), config, most=0)
    most = config.max_dev_rows if own else config.max_held_out_rows
    rows = _read(data_path(dataset), config, most=most)
    parts = _parts(rows, own, config)
    if "train_in" not in parts:
        fix = "Add rows, or lower split.held_out_share."
        raise UserError(Fault(f"--dataset {dataset}", "rows to train on", Shown("none after the split"), fix))
    _write(run, rows, parts)
    held_out = [cluster for cluster, part in zip(rows.clusters, parts, strict=True) if part == "held_out"]
    if own:
        held_out = own.clusters
        write_jsonl(run.rows("held_out"), (row.to_json() for row in own.read()))
    read = [rows, own] if own else [rows]
    if bad := sum(one.reading.bad_rows for one in read):
        write_jsonl(run.rejected("input"), (asdict(item) for one in read for item in bad_rows(one.path)))
    figures = {
        "train_in": parts.count("train_in"),
        "dev": parts.count("dev"),
        "held_out": len(held_out),
        "held_out_clusters": len(set(held_out)),
        "contaminated": parts.count("contaminated"),
        "bad_rows": bad,
        "shapes": dict(rows.reading.shapes),
        "commit": commit_of(rows.path),
    }
    return StageResult(rows_in=len(parts) + rows.reading.bad_rows, rows_out=figures["train_in"], figures=figures)


def _read(path: Path, config: SplitConfig, *, most: int) -> Clusters:
    rows = Clusters(path)
    if rows.reading.bad_rows and not (config.on_bad_row == "skip" and rows.reading.rows):
        raise UserError(*rows.reading.faults)
    rows.join(most=most)
    return rows


def _parts(rows: Clusters, own: Clusters | None, config: SplitConfig) -> list[str]:
    """What becomes of every row: `train_in`, `dev`, `held_out`, or `contaminated` (asked in the held-out file too)."""
    told = rows.asked_in(own) if own else ()
    parts = ["contaminated" if at in told else "train_in" for at in range(len(rows.clusters))]

    def take(part: str, share: float, most: int) -> None:
        left = (cluster for cluster, now in zip(rows.clusters, parts, strict=True) if now == "train_in")
        picked = pick(left, lambda cluster: rows.place(part, cluster), share, most)
        for at, cluster in enumerate(rows.clusters):
            if cluster in picked and parts[at] == "train_in":
                parts[at] = part

    if own is None:
        take("held_out", config.held_out_share, config.max_held_out_rows)
    take("dev", config.dev_share, config.max_dev_rows)
    return parts


def pick(clusters: Iterator[int], place: Callable[[int], float], share: float, most: int) -> set[int]:
    """Clusters that hold about `share` of the rows, at most `most` rows, by their place in [0, 1).

    A cluster's place does not depend on the other clusters, so added rows move nothing but the cut at `most`. Where
    no place is below `share`, the first is taken, as long as another cluster is left.

    Args:
        clusters: the cluster of every row that may be taken.
        place: a cluster's fixed place.
        share: of the clusters.
        most: rows.
    """
    sizes = Counter(clusters)
    if share <= 0 or most <= 0 or len(sizes) < 2:
        return set()
    order = sorted(sizes, key=place)
    picked: set[int] = set()
    taken = 0
    for cluster in order:
        if not picked and sizes[cluster] > most and cluster != order[-1]:
            continue
        if picked and (place(cluster) >= share or taken + sizes[cluster] > most):
            break
        picked.add(cluster)
        taken += sizes[cluster]
    return picked


def _write(run: RunDir, rows: Clusters, parts: Sequence[str]) -> None:
    """Write every part. dev and held_out wait in memory meanwhile: the settings keep them small."""
    waiting: dict[str, list[dict[str, Any]]] = {"dev": [], "held_out": []}

    def train_in() -> Iterator[dict[str, Any]]:
        for row, part in zip(rows.read(), parts, strict=True):
            if part == "train_in":
                yield row.to_json()
            elif part in waiting:
                waiting[part].append(row.to_json())

    write_jsonl(run.rows("train_in"), train_in())
    for part, some in waiting.items():
        write_jsonl(run.rows(part), some)
    dropped = iter(())
    if "contaminated" in parts:
        told = (row for row, part in zip(rows.read(), parts, strict=True) if part == "contaminated")
        dropped = (Rejected(row.id, "in_held_out", "the same question is held out", row.to_json()) for row in told)
    write_jsonl(run.rejected("train_in"), (asdict(item) for item in dropped))

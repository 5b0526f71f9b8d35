"""split: decides by source what trains, what chooses and what proves, before anything is paid for.

The rows are read twice and never held: first a few numbers of each decide where it goes, then it is written.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from socratune.config import SplitConfig
from socratune.data import (
    Clusters,
    Marks,
    Recall,
    Screen,
    SplitPart,
    commit_of,
    contaminated_kin,
    data_path,
    drop_contaminated,
    forget_data_sets,
    settle_parts,
)
from socratune.errors import Fault, Shown, UserError
from socratune.evaluation import FEWEST_CLUSTERS, Detectable, detectable
from socratune.rows import QARow, Rejected
from socratune.runs import RunDir, StageResult, write_jsonl, write_rejected

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Read:
    """The data sets of a split, each read once, and the marks of all their rows."""

    rows: Clusters
    own: Clusters | None
    tests: list[Clusters]
    marks: Marks

    @property
    def every(self) -> list[Clusters]:
        return [self.rows, *([self.own] if self.own else []), *self.tests]


def split_rows(run: RunDir, config: SplitConfig, *, dataset: str, screen: Screen | None = None) -> StageResult:
    """Writes `train_in.jsonl`, `dev.jsonl`, `held_out.jsonl`, `recall.jsonl`, and the dropped rows with their reasons.

    Its figures tell what the held-out rows will be able to show (`detectable`).

    Args:
        screen: rejects rows that the model cannot be asked.

    Raises:
        UserError: there are faulty rows (all are listed) and `on_bad_row` is not `skip`; or nothing is left to train
            on.
    """
    read, groups = _read(config, dataset, screen)
    forget_data_sets()  # but for what is read here
    rows, own = read.rows, read.own
    parts, own_parts = _parts(read, groups, config)
    if "train_in" not in parts:
        raise UserError(_nothing_left(dataset, parts))
    dropped = _write(run, read, parts, own_parts)
    bad = sum(rows.data.reading.bad_rows for rows in read.every)
    left_out = sum((rows.data.reading.left_out for rows in read.every), Counter[str]())
    refused, too_long = bool(bad or left_out), left_out.pop("too_long", 0)
    if too_long:
        text = "%d rows are longer than the model's positions and left out; input.rejected.jsonl says which."
        log.warning(text, too_long)
    if refused:
        write_rejected(run.rejected("input"), (row for rows in read.every for row in rows.data.bad_rows()))
    proof, proof_parts = (own, own_parts) if own else (rows, parts)
    sizes = Counter(cluster for cluster, part in zip(proof.clusters, proof_parts, strict=True) if part == "held_out")
    shows = detectable(list(sizes.values()), fewest=FEWEST_CLUSTERS)
    _warn(shows, parts, dropped)
    figures = {
        "train_in": parts.count("train_in"),
        "dev": parts.count("dev"),
        "held_out": shows.rows,
        "held_out_clusters": shows.clusters,
        "recall": sum(isinstance(part, Recall) for part in (*parts, *own_parts)),
        "contaminated": sum(count for reason, count in dropped.items() if reason.startswith("in_")),
        "dropped": dict(dropped),
        "detectable": {**asdict(shows), "says": str(shows)},
        "bad_rows": bad,
        "too_long": too_long,
        "left_out": dict(left_out),
        "shapes": dict(rows.data.reading.shapes),
        "commit": commit_of(rows.path),
    }
    reading = rows.data.reading
    unused = reading.bad_rows + reading.left_out.total()
    return StageResult(rows_in=len(parts) + unused, rows_out=figures["train_in"], figures=figures)


def _read(config: SplitConfig, dataset: str, screen: Screen | None) -> tuple[_Read, Sequence[int]]:
    """Reads every data set of the split into clusters. Returns them, and the group of every row in the marks."""
    marks = Marks()

    def read(path: Path, screen: Screen | None = screen) -> Clusters:
        rows = Clusters(path, marks, screen)
        if rows.data.reading.bad_rows and not (config.on_bad_row == "skip" and rows.data.reading.rows):
            raise UserError(*rows.data.reading.faults)
        return rows

    rows = read(data_path(dataset))
    own = read(data_path(config.held_out, held_out=True)) if config.held_out is not None else None
    tests = [read(data_path(name), None) for name in config.eval_file]
    wordings, groups = marks.groups()
    rows.join(wordings, groups, most=config.max_dev_rows if own else config.max_held_out_rows)
    if own:
        own.join(wordings, groups)
    return _Read(rows, own, tests, marks), groups


def _parts(read: _Read, groups: Sequence[int], config: SplitConfig) -> tuple[list[SplitPart], list[SplitPart]]:
    """Returns the part of every row of the data set, and of the held-out file.

    Rows that a test asks about are removed before rows are picked, so that they take no place in dev or held-out.
    """
    rows, own, marks = read.rows, read.own, read.marks
    siblings = contaminated_kin(rows, rows, marks)
    parts: list[SplitPart] = ["sibling" if row in siblings else "train_in" for row in range(len(rows))]

    def take(part: str, share: float, most: int) -> None:
        left = (cluster for cluster, now in zip(rows.clusters, parts, strict=True) if now == "train_in")
        picked = pick(left, lambda cluster: rows.place(part, cluster), share, most)
        for at, cluster in enumerate(rows.clusters):
            if cluster in picked and parts[at] == "train_in":
                parts[at] = part
        asked = [at for at, now in enumerate(parts) if now == part]
        drop_contaminated(parts, rows, rows, asked, f"in_{part}", marks=marks, groups=groups)

    for tests in read.every[1:]:
        known, reason = contaminated_kin(tests, rows, marks), "in_held_out" if tests is own else "in_eval_file"
        asked = [row for row in range(len(tests)) if row not in known]
        drop_contaminated(parts, rows, tests, asked, reason, marks=marks, groups=groups)
    if own is None:
        take("held_out", config.held_out_share, config.max_held_out_rows)
    take("dev", config.dev_share, config.max_dev_rows)
    own_parts: list[SplitPart] = ["held_out"] * (len(own) if own else 0)
    left = config.max_recall_rows
    for asking, target in ((rows, parts), (own, own_parts)):
        if asking is not None:
            settled = settle_parts(parts, asking, contaminated_kin(asking, rows, marks), rows, marks=marks, most=left)
            left -= sum(isinstance(part, Recall) for part in settled.values())
            for row, part in settled.items():
                target[row] = part
    return parts, own_parts


def pick(clusters: Iterator[int], place: Callable[[int], float], share: float, most: int) -> set[int]:
    """Returns clusters that hold about `share` of the rows, at most `most` rows, by their place in [0, 1).

    A cluster's place does not depend on other clusters, so added rows only move the cut at `most`. If no place is below
    `share`, the first cluster is taken, provided that another is left. A cluster of more than `most` rows stays in
    training, unless it is all there is to take.

    Args:
        clusters: the cluster of every row that may be taken.
        place: a cluster's fixed place.
        share: the share of the clusters.
        most: the most rows.
    """
    sizes = Counter(clusters)
    if share <= 0 or most <= 0 or len(sizes) < 2:
        return set()
    order = sorted(sizes, key=place)
    picked: set[int] = set()
    taken = 0
    for cluster in order:
        if sizes[cluster] > most and (picked or cluster != order[-1]):
            continue
        if picked and (place(cluster) >= share or taken + sizes[cluster] > most):
            break
        picked.add(cluster)
        taken += sizes[cluster]
    return picked


def _nothing_left(dataset: str, parts: Sequence[SplitPart]) -> Fault:
    tested = sum(isinstance(part, Rejected) for part in parts)
    got = f"none after the split, {tested} of {len(parts)} rows are in a test" if tested else "none after the split"
    fix = "Are --held-out or --eval-file the data set itself?" if tested else "Add rows, or lower split.held_out_share."
    return Fault(f"--dataset {dataset}", "rows to train on", Shown(got), fix)


def _warn(shows: Detectable, parts: Sequence[SplitPart], dropped: Counter[str]) -> None:
    """Warns before anything is paid for about what the run will not be able to show."""
    if shows.difference is None:
        text = "%s: that takes %d sources (or questions). Add rows, raise split.held_out_share, or give --held-out."
        log.warning(text, str(shows), FEWEST_CLUSTERS)
    lost = sum(count for reason, count in dropped.items() if reason.startswith("in_"))
    if lost * 5 > len(parts):
        text = "%d of %d rows ask what a test asks and are not trained on; train_in.rejected.jsonl says which."
        log.warning(text, lost, len(parts))


def _write(run: RunDir, read: _Read, parts: Sequence[SplitPart], own_parts: Sequence[SplitPart]) -> Counter[str]:
    """Writes every part, and returns why rows are in none.

    Meanwhile dev, held_out and recall are held in memory; the settings keep them small.
    """
    waiting: dict[str, list[QARow]] = {"dev": [], "held_out": []}
    recall: list[tuple[QARow, int]] = []
    cluster_of: dict[int, str | None] = {part.of: None for part in (*parts, *own_parts) if isinstance(part, Recall)}

    def train_in() -> Iterator[dict[str, Any]]:
        for at, (row, part) in enumerate(zip(read.rows.read(), parts, strict=True)):
            if at in cluster_of:
                cluster_of[at] = row.cluster
            if part == "train_in":
                yield row.to_json()
            else:
                wait(row, part)

    def wait(row: QARow, part: SplitPart) -> None:
        if isinstance(part, Recall):
            recall.append((row, part.of))
        elif isinstance(part, str):
            waiting[part].append(row)

    write_jsonl(run.rows("train_in"), train_in())
    if read.own:
        for row, part in zip(read.own.read(), own_parts, strict=True):
            wait(row, part)
    for name, rows in waiting.items():
        write_jsonl(run.rows(name), (row.to_json() for row in rows))
    write_jsonl(run.rows("recall"), (replace(row, cluster=cluster_of[of]).to_json() for row, of in recall))
    dropped = (item for pair in ((read.rows, parts), (read.own, own_parts)) for item in _dropped(*pair))
    return write_rejected(run.rejected("train_in"), dropped)


def _dropped(rows: Clusters | None, parts: Sequence[SplitPart]) -> Iterator[Rejected]:
    if rows is not None and any(isinstance(part, Rejected) for part in parts):
        for row, part in zip(rows.read(), parts, strict=True):
            if isinstance(part, Rejected):
                yield replace(part, id=row.id, row=row.to_json())

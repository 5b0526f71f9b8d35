"""A run folder as one page for a person: `report.html`, self-contained, opens from disk, written after every stage.

    run folder → overview (verdict, funnel, curves, cost, configuration) + traces → page/*.html, *.css, *.js filled in

The traces are read one after the other and never held. Texts of models are data: they stand in the page as JSON that
no HTML parser can read as markup, and the scripts only ever set them as text.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from socratune.errors import INSTALL_TRAIN
from socratune.evaluation import FEWEST_CLUSTERS, verdict_headline, why_not_passed
from socratune.publishing.browsing import Filter, Index, answers_of, traces_of
from socratune.publishing.filling import filled_page, script_json, shortened
from socratune.resolve import flatten, read_config_file
from socratune.runs import Results, RunDir, json_encode, review_decisions, write_lines

log = logging.getLogger(__name__)

_MOST_ROWS = 10_000
"""Traces in the page; `socratune ui` shows all."""
TRACE_BYTES, ANSWER_BYTES = 40_000_000, 10_000_000
"""What traces and held-out answers may take of the page."""
SHARE_OF_ONE_ROW = 1 / 10
"""Of the bytes that are left; the texts of a larger row are cut."""
CUT_TEXT = 2_000
"""Characters that stay of a text that is cut."""
CURVE_POINTS = 500
FLIPS = {"lost": 12, "won": 6}
"""Questions at the head of the page whose verdict changed; the list below holds the others."""
FLIP_TEXT = 600
"""Characters of each of their texts."""

SCRIPTS = ("text.js", "overview.js", "proof.js", "list.js", "detail.js", "main.js")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def write_report(run: RunDir) -> None:
    """Write `report.html`, or log why not: a run never fails for want of its page."""
    try:
        make_report(run)
    except Exception as error:
        log.warning("%s could not be written: %s: %s", run.report, type(error).__name__, error)


def make_report(run: RunDir) -> Path:
    """Write `report.html`; where it is.

    Raises:
        UserError: results or decisions are damaged.
        OutsideError: it cannot be written.
    """
    write_lines(run.report, report_page(run))
    return run.report


def report_page(
    run: RunDir, *, rows: bool = True, shown: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> Iterator[str]:
    """The page in parts.

    Args:
        rows: with traces and answers; without them it says how many there are.
        shown: of the overview what the page may tell.

    Raises:
        UserError: results or decisions are damaged.
    """
    traces, answers = traces_of(run, review_decisions(run)), answers_of(run)
    room = (TRACE_BYTES, ANSWER_BYTES) if rows else (0, 0)
    lists = {"traces": Embedded(traces, room[0]), "answers": Embedded(answers, room[1])}
    return _page(shown(overview(run, traces, answers)), lists)


def overview(run: RunDir, traces: Index, answers: Index) -> dict[str, Any]:
    """Everything a page shows besides the single rows."""
    results = dict(Results(run).data)
    origins = results.pop("origins", {})
    gate = (results.pop("config", None) or {}).get("validate", {}).get("gate", {})
    values = flatten(read_config_file(run.config)) if run.config.exists() else {}
    values.pop("output", None)  # where the folder lies is nobody's business who gets the page
    return {
        "run": run.root.resolve().name,
        "results": results,
        "headline": verdict_headline(results),
        "why": why_not_passed(results),
        "curves": curves(_kept_curves(run.tensorboard, results["stages"].get("train", {}))),
        "config": [[key, _shown(value), origins.get(key, "")] for key, value in values.items()],
        "gate": gate,
        "fewest_sources": FEWEST_CLUSTERS,
        "kinds": traces.counts(),
        "answers": answers.counts(),
        "flips": {kind: _first_rows(answers, kind, most) for kind, most in FLIPS.items()},
        "leaked": traces.leaked(),
        "reviewed": len(traces.marks.reviews),
        "lists": {
            "traces": {"total": len(traces), "damaged": traces.damaged, "file": traces.source.name},
            "answers": {"total": len(answers), "damaged": answers.damaged, "file": answers.source.name},
        },
    }


def _first_rows(index: Index, kind: str, most: int) -> list[dict[str, Any]]:
    """The first rows of a kind, their texts cut."""
    return [shortened(row, FLIP_TEXT) for row in index.rows(index.matching(Filter(kind=kind))[:most])]


def _shown(value: Any) -> str:
    """A setting as text; what stands before an @ in an address stays at home."""
    text = value if isinstance(value, str) else json_encode(value).decode()
    return _CREDENTIALS.sub("…@", text)


def _kept_curves(folder: Path, train: dict[str, Any]) -> Path:
    """Where the curves of the training lie that was kept; of a sweep that still works, those of its latest one."""
    if "sweep" in train:
        return folder / f"lr-{train['learning_rate']:g}"
    return max(folder.glob("lr-*"), key=lambda arm: arm.stat().st_mtime, default=folder)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of `loss`, `dev` and `train` accuracy from the TensorBoard files, at most `CURVE_POINTS` each.

    What is not finite is left out. Empty without TensorBoard, of the extra `train`.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return {}
    try:
        from tensorboard.backend.event_processing.directory_watcher import DirectoryDeletedError
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ModuleNotFoundError:
        log.info("No curves: TensorBoard is not installed (%s).", INSTALL_TRAIN)
        return {}

    events = EventAccumulator(str(folder), size_guidance={"scalars": CURVE_POINTS})
    try:
        events.Reload()
    except DirectoryDeletedError:  # the training begins anew at this moment
        return {}
    tags = {"loss": "train/loss", "dev": "dev/accuracy", "train": "train/accuracy"}
    there = set(events.Tags()["scalars"])
    return {
        name: [(event.step, event.value) for event in events.Scalars(tag) if math.isfinite(event.value)]
        for name, tag in tags.items()
        if tag in there
    }


class Embedded:
    """The rows of an index that go into the page, as JSON parts; afterwards it knows how many there were."""

    def __init__(self, index: Index, most_bytes: int) -> None:
        self._index = index
        self._left = most_bytes
        self.shown: list[int] = []

    def __iter__(self) -> Iterator[str]:
        positions = list(islice(self._index.order(), _MOST_ROWS))
        yield "["
        for at, row in zip(positions, self._index.rows(positions), strict=True):
            data = script_json(row)
            if len(data.encode()) > self._left * SHARE_OF_ONE_ROW:
                data = script_json(shortened(row, CUT_TEXT))
            self._left -= len(data.encode())
            if self._left < 0:
                break
            yield f",\n{data}" if self.shown else data
            self.shown.append(at)
        yield "]"

    def left_out(self) -> dict[str, int]:
        """The rows that did not fit, by kind."""
        shown = self._index.counts(self.shown)
        return {kind: count - shown.get(kind, 0) for kind, count in self._index.counts().items()}


def live_page() -> str:
    """The page of `socratune ui`: it fetches what it shows."""
    return "".join(_page(None, {}))


def _page(data: dict[str, Any] | None, lists: dict[str, Embedded]) -> Iterator[str]:
    """The page in parts."""

    def left_out() -> Iterator[str]:  # known once the lists are drawn
        yield script_json({name: rows.left_out() for name, rows in lists.items()})

    data_parts = {"overview": [script_json(data)], "traces": ["null"], "answers": ["null"], "left_out": left_out()}
    return filled_page("page.html", SCRIPTS, {**data_parts, **lists}, live=not data)

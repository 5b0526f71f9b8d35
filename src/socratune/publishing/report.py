"""Writes a run folder as one page, `report.html`: self-contained, opens from disk, rewritten after every stage.

    run folder → overview (verdict, funnel, curves, cost, configuration) + traces → page/*.html, *.css, *.js filled in

The traces are read one after the other and never held. Texts of models are data: they stand in the page as JSON that
no HTML parser can read as markup, and the scripts only ever set them as text.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from socratune.errors import INSTALL_TRAIN
from socratune.evaluation import FEWEST_CLUSTERS, verdict_headline, why_not_passed
from socratune.publishing.browsing import Filter, Index, answers_of, traces_of
from socratune.publishing.filling import Embedded, filled_page, script_json, shortened
from socratune.resolve import flatten, read_config_file
from socratune.runs import Results, RunDir, json_encode, review_decisions, write_lines

log = logging.getLogger(__name__)

_MOST_ROWS = 10_000
"""Traces in the page; `socratune ui` shows all."""
TRACE_BYTES, ANSWER_BYTES = 40_000_000, 10_000_000
"""What traces and held-out answers may take of the page."""
CURVE_POINTS = 500
FLIPS = {"lost": 12, "won": 6}
"""Questions at the head of the page whose verdict changed; the list below holds the others."""
FLIP_TEXT = 600
"""Characters of each of their texts."""

SCRIPTS = ("text.js", "overview.js", "proof.js", "list.js", "detail.js", "main.js")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def write_report(run: RunDir) -> None:
    """Writes `report.html`, or logs why it could not: a run never fails because of its page."""
    try:
        make_report(run)
    except Exception as error:
        log.warning("%s could not be written: %s: %s", run.report, type(error).__name__, error)


def make_report(run: RunDir) -> Path:
    """Writes `report.html` and returns its path.

    Raises:
        UserError: results or decisions are damaged.
        OutsideError: it cannot be written.
    """
    write_lines(run.report, report_page(run))
    return run.report


def report_page(
    run: RunDir, *, rows: bool = True, shown: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> Iterator[str]:
    """Yields the page in parts.

    Args:
        rows: with traces and answers; without them it says how many there are.
        shown: of the overview what the page may tell.

    Raises:
        UserError: results or decisions are damaged.
    """
    traces, answers = traces_of(run, review_decisions(run)), answers_of(run)
    room = (TRACE_BYTES, ANSWER_BYTES) if rows else (0, 0)
    lists = {"traces": (traces, room[0]), "answers": (answers, room[1])}
    data = {"overview": [script_json(shown(overview(run, traces, answers)))]}
    return filled_page("page.html", SCRIPTS, {**data, **_embedded(lists)})


def _embedded(lists: dict[str, tuple[Index, int]]) -> dict[str, Iterable[str]]:
    """Returns the rows of each list that fit into its bytes, and as `left_out` how many do not, by kind."""
    first = {name: index.order()[:_MOST_ROWS] for name, (index, _) in lists.items()}
    held = {name: Embedded(index.rows(first[name]), most) for name, (index, most) in lists.items()}

    def left_out() -> Iterator[str]:  # known once the rows are drawn
        yield script_json(
            {name: _missing(index, first[name][: held[name].shown]) for name, (index, _) in lists.items()}
        )

    return {**held, "left_out": left_out()}


def _missing(index: Index, positions: Iterable[int]) -> dict[str, int]:
    shown = index.counts(positions)
    return {kind: count - shown.get(kind, 0) for kind, count in index.counts().items()}


def overview(run: RunDir, traces: Index, answers: Index) -> dict[str, Any]:
    """Returns everything that a page shows besides the single rows."""
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
        "flips": {
            kind: [shortened(row, FLIP_TEXT) for row in answers.rows(answers.matching(Filter(kind=kind))[:most])]
            for kind, most in FLIPS.items()
        },
        "leaked": traces.leaked(),
        "reviewed": len(traces.marks.reviews),
        "lists": {
            "traces": {"total": len(traces), "damaged": traces.damaged, "file": traces.source.name},
            "answers": {"total": len(answers), "damaged": answers.damaged, "file": answers.source.name},
        },
    }


def _shown(value: Any) -> str:
    """Returns a setting as text, without the credentials before an @ in an address."""
    text = value if isinstance(value, str) else json_encode(value).decode()
    return _CREDENTIALS.sub("…@", text)


def _kept_curves(folder: Path, train: dict[str, Any]) -> Path:
    """Returns the folder with the curves of the kept training, or of the latest one while a sweep runs."""
    if "sweep" in train:
        return folder / f"lr-{train['learning_rate']:g}"
    return max(folder.glob("lr-*"), key=lambda arm: arm.stat().st_mtime, default=folder)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns (step, value) of `loss`, `dev` and `train` accuracy from TensorBoard's files, at most `CURVE_POINTS`
    each.

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


def live_page() -> str:
    """Returns the page of `socratune ui`, which fetches what it shows."""
    nothing = {name: ["null"] for name in ("overview", "traces", "answers", "left_out")}
    return "".join(filled_page("page.html", SCRIPTS, nothing, live=True))

"""Lists several runs: the run folders below a folder, a summary of each, and the page that lists them.

folder → runs_below → listed (verdict, figures, what is wrong with it) → runs_page
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from socratune.errors import SocratuneError
from socratune.evaluation import (
    compare_logs,
    compared_rows,
    is_run_folder,
    open_log,
    proof_of,
    verdict_headline,
    why_not_passed,
)
from socratune.publishing.filling import filled_page, script_json
from socratune.resolve import read_config_file
from socratune.runs import Results, RunDir, at_work, file_state

MOST_LEVELS = 3
"""Folders within each other: `socratune ablate` puts its runs into `ARM/seed-N`."""
_SIGNS = ("config.yaml", "pipeline_results.json", "journal.sqlite")
"""Files that only a run folder has; one that lacks some is a run that broke."""
_SCRIPTS = ("text.js", "runs.js")


def is_run(folder: Path) -> bool:
    """Returns True for a run folder, a damaged one included."""
    return any((folder / name).is_file() for name in _SIGNS)


def runs_below(root: Path) -> list[str]:
    """Returns the run folders below a folder, by relative path. Folders inside a run belong to that run."""
    found: list[str] = []
    for place, folders, _ in os.walk(root):
        here = Path(place).relative_to(root)
        inner = {name: is_run(Path(place) / name) for name in sorted(folders) if not name.startswith(".")}
        found += [str(here / name) for name, run in inner.items() if run]
        folders[:] = [name for name, run in inner.items() if not run and len(here.parts) < MOST_LEVELS - 1]
    return found


def run_named(root: Path, name: str) -> RunDir | None:
    """Returns the run folder of a name from `runs_below`, or None for any other text."""
    parts = name.split("/")
    inside = len(parts) <= MOST_LEVELS and not any(part.startswith(".") or not part for part in parts)
    return RunDir(root / name) if inside and is_run(root / name) else None


def listed(run: RunDir) -> dict[str, Any]:
    """Returns the summary of a run, or what is wrong with a damaged one."""
    return _listed(run.root, (file_state(run.config), file_state(run.results)), at_work(run.root))


@lru_cache(4096)
def _listed(root: Path, _: Any, worked_on: bool) -> dict[str, Any]:
    run = RunDir(root)
    changed = [path.stat().st_mtime for path in (run.results, run.config, run.journal) if path.is_file()]
    when = datetime.fromtimestamp(changed[0], UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if changed else ""
    try:
        config = read_config_file(run.config)
        results = Results(run).data if run.results.is_file() else {"status": "incomplete", "stages": {}}
        return {"updated": when, "comparable": is_run_folder(str(root)), **_figures(config, results, worked_on)}
    except (SocratuneError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        known = isinstance(error, SocratuneError)
        why = str(error).replace(f"{root}/", "") if known else f"{run.results.name} contains no results of a run."
        broken = {"headline": ["Broken folder", "bad"], "status": "broken", "why": why.removeprefix("--config ")}
        return {"updated": when, "comparable": False, **broken}


def _figures(config: dict[str, Any], results: dict[str, Any], worked_on: bool) -> dict[str, Any]:
    status, stages, train = str(results.get("status", "unknown")), results["stages"], config.get("train") or {}
    headline, why = list(verdict_headline(results)), why_not_passed(results)
    if status == "running" and worked_on:
        name, entry = next(((n, one) for n, one in stages.items() if one.get("status") == "running"), ("begins", {}))
        why = f"{name}, {entry.get('done', 0):,} of {entry['total']:,}" if entry.get("total") else str(name)
    elif status == "running":
        status, headline = "interrupted", ["Interrupted", "open"]
        why = "No process is working on this run. Run the same command again to resume it."
    proof = proof_of(results)
    told = proof.comparison if proof and "ci95" in proof.comparison else None
    figures = told and {name: float(told[name]) for name in ("base_accuracy", "adapter_accuracy", "difference")}
    low_high = told and [float(end) for end in (told["ci95"][0], told["ci95"][1])]
    spent = [role["usd"] for entry in stages.values() for role in (entry.get("spent") or {}).values()]
    if "rented" in results:
        spent.append(results["rented"]["usd"])
    rounds = config.get("rounds") or 1
    rows = (stages.get("train", {}).get("rows_out"), stages.get("curate", {}).get("rows_out"),
            stages.get("split", {}).get("train_in"))  # fmt: skip
    return {
        "status": status,
        "headline": headline,
        "why": why,
        **({**figures, "ci95": low_high, "n": int(told["n"])} if told and figures else {}),
        "rows": next((int(count) for count in rows if count is not None), None),
        "model": str(config.get("model")),
        "dataset": str(config.get("dataset")),
        "method": f"{train.get('method', 'sft')}, r {train.get('r')}{f', {rounds} rounds' if rounds > 1 else ''}",
        "usd": None if None in spent else round(sum(spent), 6),
        **({"updated": str(results["updated"])} if "updated" in results else {}),
    }


def compared_runs(a: RunDir, b: RunDir, names: Sequence[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compares the adapters of two runs on their common questions. Returns the result and its rows.

    Args:
        names: what the runs are called on the page.

    Raises:
        UserError: they share no question, or their answers cannot be read.
    """
    first, second = (replace(open_log(str(run.root)), name=name) for run, name in zip((a, b), names, strict=True))
    compared = compare_logs(first, second)
    return compared.result, compared_rows(compared)


def runs_page(
    title: str,
    runs: Sequence[dict[str, Any]],
    *,
    pairs: Sequence[tuple[int, int, str]] | None = None,
    notice: str = "",
) -> Iterator[str]:
    """Yields the page that lists runs, in parts.

    Args:
        runs: of `listed`, each with its `name` and the address of its page, `href`.
        pairs: positions of two runs and the address of the page that compares them; None: a server compares any two.
        notice: what a person has to be told first.
    """
    data = {"title": title, "runs": runs, "pairs": pairs, "notice": notice}
    return filled_page("runs.html", _SCRIPTS, {"runs": [script_json(data)]})

"""Writes many runs as a folder of pages that needs no server: for a disk, any web space, or a static Space of the Hub.

index.html        the list           compare/A--B.html   two runs on the questions that both were asked
runs/NAME.html    each run's page    README.md           the front matter by which a Space is a static one
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from socratune.errors import Fault, Shown, SocratuneError, UserError
from socratune.publishing.card import public_hosts
from socratune.publishing.compared_page import comparison_page
from socratune.publishing.privacy import without_data, without_paths
from socratune.publishing.report import report_page
from socratune.publishing.run_list import compared_runs, is_run, listed, runs_below, runs_page
from socratune.runs import RunDir, existing_run, read_jsonl, whole_folder, write_lines, write_text

MOST_PAIRS = 20
"""Pages that compare two runs; those of the newest runs are made."""
_HOME = "../index.html"
_MARK = "written by socratune report --bundle"

_README = f"""\
Runs of [Socratune](https://github.com/socratune/socratune), {{holds}}; {_MARK}.
Open `index.html`; nothing is fetched and no server is needed. As a Space of the Hugging Face Hub, private until you
open it:

```bash
hf repos create me/runs --type space --sdk static --private
hf upload me/runs . --repo-type space
```
"""


class Bundle(NamedTuple):
    """What was written.

    Attributes:
        runs: that are listed; one so broken that it has no page is, too.
        pairs: pages that compare two.
        pairs_left: how many more share questions and were not looked at.
    """

    place: Path
    runs: int
    pairs: int
    pairs_left: int


class _Run(NamedTuple):
    name: str
    run: RunDir
    about: dict[str, Any]
    questions: frozenset[str]


def write_bundle(place: Path, named: Sequence[str], *, rows: bool = True) -> Bundle:
    """Writes the pages of many runs into a folder, completely or not at all.

    No page holds a path of this machine, or more of a host than a published card.

    Args:
        named: run folders, and folders that hold some.
        rows: with every question and answer, as in `report.html`; without them figures alone.

    Raises:
        UserError: no run is named, or something else than an earlier bundle is at `place`.
        OutsideError: it cannot be written.
    """
    place = place.resolve()  # behind a link the site is replaced, not the link
    if place.exists() and not _is_earlier(place):
        raise UserError(
            Fault(f"--bundle {place}", "a new folder or an earlier bundle", Shown("a folder with other files"))
        )
    runs = sorted(_gathered(named), key=lambda one: (one.about["updated"], one.name))
    with whole_folder(place) as folder:
        (folder / "runs").mkdir()
        (folder / "compare").mkdir()
        slugs = _slugs(one.name for one in runs)
        shown = [one.about | {"name": one.name} for one in runs]
        for one, slug, about in zip(runs, slugs, shown, strict=True):
            if _write_run(folder / "runs" / f"{slug}.html", one, rows=rows):
                about["href"] = f"runs/{slug}.html"
        pairs, left = _write_pairs(folder / "compare", runs, slugs, rows=rows)
        write_lines(folder / "index.html", runs_page("Runs", without_paths(shown), pairs=pairs))
        write_text(folder / "README.md", _readme(rows=rows))
        shutil.rmtree(place, ignore_errors=True)
    return Bundle(place, len(runs), len(pairs), left)


def _is_earlier(place: Path) -> bool:
    readme = place / "README.md"
    return place.is_dir() and (
        not any(place.iterdir()) or (readme.is_file() and _MARK in readme.read_text("utf-8", "replace"))
    )


def _gathered(named: Sequence[str]) -> Iterator[_Run]:
    taken: set[Path] = set()
    names: Counter[str] = Counter()
    for one in named:
        root = Path(one)
        below = [""] if is_run(root) else runs_below(root)
        if not below:
            existing_run(one)  # says what is there instead
        for name in below:
            folder = (root / name).resolve()
            if folder in taken:
                continue
            taken.add(folder)
            shown = name or folder.name
            names[shown] += 1
            number = f" ({names[shown]})" if names[shown] > 1 else ""
            yield _Run(shown + number, RunDir(folder), listed(RunDir(folder)), _questions(RunDir(folder)))


def _questions(run: RunDir) -> frozenset[str]:
    """Returns the answered held-out questions, or none if the answers cannot be read."""
    try:
        return frozenset(str(row["question"]) for row in read_jsonl(run.rows("held_out_answers")))
    except (SocratuneError, LookupError):
        return frozenset()


def _slugs(names: Iterable[str]) -> list[str]:
    """Returns a distinct file name for each name, in letters that every disk and address accepts."""
    found: list[str] = []
    for name in names:
        slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")[:80] or "run"
        more = (f"{slug}-{number}" for number in range(2, 10_000))
        found.append(slug if slug not in found else next(other for other in more if other not in found))
    return found


def _write_run(path: Path, one: _Run, *, rows: bool) -> bool:
    """Writes a run's page. Returns False if the folder is too damaged for a page."""

    def shown(overview: dict[str, Any]) -> dict[str, Any]:
        overview["results"]["sent_to"] = public_hosts(overview["results"].get("sent_to") or {})
        return without_paths(overview if rows else without_data(overview)) | {"run": one.name, "home": _HOME}

    try:
        write_lines(path, report_page(one.run, rows=rows, shown=shown))
    except (UserError, LookupError, TypeError, AttributeError, ValueError):
        path.unlink(missing_ok=True)
        return False
    return True


def _write_pairs(
    folder: Path, runs: Sequence[_Run], slugs: Sequence[str], *, rows: bool
) -> tuple[list[tuple[int, int, str]], int]:
    """Writes the pages of the newest pairs that share questions. Returns these, and how many pairs are left."""
    sharing = [
        (a, b) for a, b in combinations(range(len(runs)), 2)
        if runs[a].about["comparable"] and runs[b].about["comparable"] and runs[a].questions & runs[b].questions
    ]  # fmt: skip
    sharing.sort(key=lambda pair: (pair[1], pair[0]))
    found: list[tuple[int, int, str]] = []
    while sharing and len(found) < MOST_PAIRS:
        a, b = sharing.pop()
        path = folder / f"{slugs[a]}--{slugs[b]}.html"
        try:
            result, told = compared_runs(runs[a].run, runs[b].run, (runs[a].name, runs[b].name))
        except UserError:
            continue
        write_lines(path, comparison_page(without_paths(result), told if rows else [], home=_HOME))
        found.append((a, b, f"compare/{path.name}"))
    return found, len(sharing)


def _readme(*, rows: bool) -> str:
    front = {
        "title": "Socratune runs",
        "emoji": "🪶",
        "colorFrom": "gray",
        "colorTo": "blue",
        "sdk": "static",
        "app_file": "index.html",
        "pinned": False,
    }
    holds = "with their questions and answers" if rows else "without their questions and answers"
    front_matter = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return f"---\n{front_matter}---\n\n{_README.replace('{holds}', holds)}"

"""`socratune merge` combines the runs of all shards into one run folder, as if one machine had enhanced every row.

Its journal holds every call and every row under the keys of a run without shards, so the stages behind it, a repeated
enhance and `--restart` find all of it and ask nobody.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratune import __version__
from socratune.config import RunConfig, is_free
from socratune.errors import Fault, Shown, UserError
from socratune.llm import model_fault
from socratune.pipeline import Pipeline
from socratune.publishing import write_report, write_views
from socratune.resolve import Resolved, deep_merge, dump, flatten, read_config_file, resolve_settings
from socratune.runs import (
    NEEDED,
    OUTPUTS,
    Journal,
    Results,
    RunDir,
    StageResult,
    Tell,
    Tick,
    do_stage,
    existing_run,
    file_hash,
    interleaved,
    output_fault,
    parse_shard,
    pool_hint_measures,
    settle_config,
    take_over_journal,
    take_over_reviews,
    whole_folder,
    write_lines,
)
from socratune.stages import enhance_result, pooled_figures, rows_of_shard


@dataclass(frozen=True, slots=True)
class _Part:
    """The run of one shard. `config.output` is its present folder."""

    run: RunDir
    results: Results
    config: RunConfig
    shard: str

    @property
    def entry(self) -> dict[str, Any]:
        """Returns the entry of the stage `enhance`."""
        return self.results.stage("enhance")


def merge_shards(output: str, folders: Sequence[str], *, tell: Tell) -> dict[str, Any]:
    """Combines the runs of all shards in the new folder `output` and returns the content of its
    `pipeline_results.json`.

    The folder appears whole or not at all. Where it is the merge of these very shards already, it is left as it is.

    Args:
        folders: the run folders of shards 1/N … N/N, in any order, each enhanced to its end.
        tell: hears of the stage `enhance`, for progress on a screen.

    Raises:
        UserError: everything that keeps the folders from being one run.
        OutsideError: the disk failed, or the Hub could not be asked about the model.
    """
    parts = sorted(_read(folders), key=lambda part: parse_shard(part.shard))
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(part.run.locked())
        if faults := [*_difference_faults(parts), *(fault for part in parts for fault in _part_faults(part))]:
            raise UserError(*faults)
        merged = {part.shard: file_hash(part.run.enhanced) for part in parts}
        if known := _known(Path(output), merged):
            return known
        with whole_folder(Path(output).resolve()) as folder:
            run = RunDir(folder)
            results = Results(run)
            results.data["merged"] = merged
            _build(run, results, parts, output=output, tell=tell)
        return results.data


def _read(folders: Sequence[str]) -> list[_Part]:
    """Reads the runs of all N shards, each exactly once."""
    faults: list[Fault] = []
    parts: dict[str, _Part] = {}
    for folder in folders:
        try:
            part = _read_one(folder)
        except UserError as error:
            faults += error.faults
            continue
        if twice := parts.get(part.shard):
            faults.append(Fault(folder, f"each shard once, {twice.run.root} is {part.shard}", part.shard))
        parts.setdefault(part.shard, part)
    counts = {parse_shard(part.shard)[1] for part in parts.values()}
    if not faults and len(counts) != 1:
        got = Shown(", ".join(sorted(parts)) or "none")
        faults.append(Fault("shards", "the shards I/N of one N", got))
    if not faults:
        (count,) = counts
        missing = [name for name in (f"{index}/{count}" for index in range(1, count + 1)) if name not in parts]
        if missing:
            got = Shown(f"none of {', '.join(missing)}")
            faults.append(Fault("shards", f"the folders of all {count} shards", got, "Merge when all are enhanced."))
    if faults:
        raise UserError(*faults)
    return list(parts.values())


def _read_one(folder: str) -> _Part:
    run = existing_run(folder)
    results = Results(run)
    given = deep_merge(read_config_file(run.config), results.data.get("config", {}))
    config = resolve_settings({**given, "output": folder}, where=folder).config
    if config.shard is None:
        raise UserError(Fault(folder, "the run of a shard", Shown("one of all rows"), "Make it with --shard I/N."))
    parse_shard(config.shard)
    return _Part(run, results, config, config.shard)


def _difference_faults(parts: list[_Part]) -> Iterator[Fault]:
    """Returns the settings, rows and student in which a shard differs from the first one."""
    first, *others = parts
    expected, files = _settings(first), {name: _hash(first.run / name) for name in NEEDED["split"]}
    for part in others:
        for key, value in _settings(part).items():
            if value != expected.get(key):
                yield Fault(f"{part.run.root}: {key}", f"{expected.get(key)!r} as in {first.run.root}", value)
        if part.entry and first.entry and part.entry.get("student") != first.entry.get("student"):
            got = part.entry.get("student")
            yield Fault(str(part.run.root), f"the student of {first.run.root}, {first.entry.get('student')}", got)
        for name, content in files.items():
            if _hash(part.run / name) != content:
                got = Shown("another content" if (part.run / name).exists() else "no such file")
                yield Fault(str(part.run / name), f"the rows of {first.run / name}", got)


def _settings(part: _Part) -> dict[str, Any]:
    return {key: value for key, value in flatten(dump(part.config)).items() if key != "shard" and not is_free(key)}


def _hash(path: Path) -> str | None:
    return file_hash(path) if path.is_file() else None


def _part_faults(part: _Part) -> Iterator[Fault]:
    """Returns why a shard is not fully enhanced, judging by the present content of its folder."""
    run, status = part.run, part.entry.get("status", "not begun")
    if status not in ("done", "failed"):  # failed: not one row was solved, which the other shards may make up for
        fix = "Its own command goes on with it."
        yield Fault(str(run.root), "a shard that is enhanced to its end", Shown(f"enhance: {status}"), fix)
        return
    missing = [path for path in (run.rows("train_in"), run.enhanced, run.journal) if not path.is_file()]
    yield from (Fault(str(path), "a file of the enhanced shard", Shown("no such file")) for path in missing)
    if missing:
        return
    if fault := model_fault(part.config.model, f"{run.root}: model"):
        yield fault
        return
    expected = sum(1 for _ in rows_of_shard(run, part.shard))
    with closing(Journal(run.journal)) as journal:
        found = len(journal.done_positions(f"enhance.{part.entry['key']}"))
        now = Pipeline(part.config, journal, part.results).key("enhance")
    if now != part.entry["key"]:
        fix = "Merge where that model is, or redo the shard."
        yield Fault(str(run.root), "the model, rows and settings it was enhanced with", Shown("others"), fix)
    if found != expected:
        yield Fault(str(run.journal), f"the {expected} rows of shard {part.shard}", Shown(f"{found} rows"))
    with run.enhanced.open(encoding="utf-8") as stream:
        lines = sum(1 for _ in stream)
    if lines != expected:
        fix = "Take rows out after the merge."
        yield Fault(str(run.enhanced), f"the {expected} rows of shard {part.shard}", Shown(f"{lines} rows"), fix)


def _known(output: Path, merged: dict[str, str]) -> dict[str, Any] | None:
    """Returns the results in `output` if it is the merge of these very shards, and None if it does not exist yet.

    Raises:
        UserError: there is something else, or nothing can be made there.
    """
    if output.is_dir() and any(output.iterdir()):
        run = RunDir(output)
        known = Results(run).data if run.results.is_file() else {}
        if known.get("merged") == merged:
            return known
        got = Shown("a folder with something else")
        raise UserError(Fault(str(output), "a new or empty folder, or the merge of these very shards", got))
    if fault := output_fault(str(output)):
        raise UserError(fault)
    return None


def _build(run: RunDir, results: Results, parts: list[_Part], *, output: str, tell: Tell) -> None:
    """Fills `run` with the files that one machine would have left there after enhance."""
    first = parts[0]
    config = first.config.model_copy(update={"shard": None, "output": output})
    origins = {**dict.fromkeys(flatten(dump(config)), "given"), **first.results.data.get("origins", {})}
    for name in OUTPUTS["split"]:
        if (first.run / name).exists():
            shutil.copyfile(first.run / name, run / name)
    results.data["inputs"] = first.results.data.get("inputs", {})
    results.data["stages"]["split"] = first.results.stage("split")
    settle_config(run, Resolved(config=config, origins={**origins, "shard": "merged"}), results, None)
    with closing(Journal(run.journal)) as journal:
        key = Pipeline(config.model_copy(update={"output": str(run.root)}), journal, results).key("enhance")
        stage = f"enhance.{key}"
        for part in parts:
            take_over_journal(run.journal, part.run.journal, part.shard, rename=(f"enhance.{part.entry['key']}", stage))

        def work(_: Tick) -> StageResult:
            figures = pooled_figures([part.entry for part in parts])
            total = len(journal.done_positions(stage))
            result = enhance_result(run, total, journal=journal, key=stage, figures=figures)
            write_lines(run.enhanced, _lines(parts))  # an answer that was edited by hand stays as it stands
            return result

        solved = do_stage("enhance", key, work, results, tell, missing=False)
    pool_hint_measures(run, [part.run for part in parts])
    take_over_reviews(run, [part.run for part in parts])
    if config.views:
        write_views(run, config.views)
    results.set_stage("enhance", seconds=round(sum(part.entry["seconds"] for part in parts), 2))
    ended = results.stage("enhance")
    error = {} if solved else {"error": ended["reason"]}
    status = "incomplete" if solved else ended["status"]
    results.write(status=status, socratune=__version__, model=config.model, dataset=config.dataset, **error)
    write_report(run)


def _lines(parts: list[_Part]) -> Iterator[str]:
    with ExitStack() as stack:
        files = [stack.enter_context(part.run.enhanced.open(encoding="utf-8")) for part in parts]
        for line in interleaved(files):
            yield line.rstrip("\n") + "\n"  # an editor may have dropped the last one

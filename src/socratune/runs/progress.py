"""Knows what a run remembers: finished stages and their keys, settings that may still change, and how it ended."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from socratune.config import FORMER_DEFAULTS, is_free
from socratune.errors import Fault, Shown, SocratuneError, StageFailed, UserError, is_interrupt
from socratune.resolve import Resolved, defaults, dump, flatten, read_config_file, to_yaml, unflatten
from socratune.runs.folder import Results, RunDir, StageResult, Tick, file_hash, file_state, is_torn, write_text
from socratune.runs.journal import Journal

log = logging.getLogger(__name__)

STAGES = ("generate", "split", "enhance", "curate", "train", "validate", "publish")

OUTPUTS = {
    "generate": ("qa.jsonl", "qa_test.jsonl", "qa.rejected.jsonl", "source"),
    "split": (
        "train_in.jsonl", "train_in.rejected.jsonl", "dev.jsonl", "held_out.jsonl", "recall.jsonl",
        "input.rejected.jsonl",
    ),
    "enhance": ("enhanced_dataset.jsonl", "hint_measures.jsonl", "rounds"),
    "curate": ("train.jsonl", "train.rejected.jsonl"),
    "train": ("trained.rejected.jsonl", "replay.jsonl", "checkpoints", "adapter", "tensorboard", "gpus.log"),
    "validate": ("held_out_answers.jsonl", "recall_answers.jsonl", "forgetting_answers.jsonl"),
    "publish": (),
}  # fmt: skip


class Tell(Protocol):
    """Receives the events `begin`, `tick`, `done` and `kept` (done before), with the stage's entry in the results."""

    def __call__(self, event: str, stage: str, entry: dict[str, Any]) -> None: ...


NEEDED = {
    **OUTPUTS,
    "generate": ("qa.jsonl",),
    "split": ("train_in.jsonl", "dev.jsonl", "held_out.jsonl", "recall.jsonl"),
    "enhance": ("enhanced_dataset.jsonl",),
    "train": (),
    "validate": ("held_out_answers.jsonl",),
}
"""Outputs without which a finished stage is repeated. An adapter is not among them: validate reports its loss."""


def stage_faults(start: str | None, until: str | None, restart: str | None) -> list[Fault]:
    """Returns what is wrong with the stages that a command names."""
    named = {"--from": start, "--until": until, "--restart": restart}
    faults = [
        Fault(flag, f"a stage: {', '.join(STAGES)}", name)
        for flag, name in named.items()
        if name is not None and name not in STAGES
    ]
    if not faults:
        order = {flag: STAGES.index(name) for flag, name in named.items() if name is not None}
        first = order.get("--from", 0)
        if order.get("--until", len(STAGES)) < first:
            faults.append(Fault("--until", f"{start} or a stage behind it, as --from says", until))
        if order.get("--restart", len(STAGES)) < first:
            faults.append(Fault("--from", f"{restart} or a stage before it, as --restart says", start))
    return faults


def first_stage_of(key: str) -> str | None:
    """Returns the first stage whose result a setting changes, or None."""
    if is_free(key):
        return None
    if key == "curate.replay_share":
        return "train"
    if key in ("model", "chat_template", "seed", "shard", "rounds"):
        return "enhance"
    section = key.split(".", maxsplit=1)[0]
    return {"dataset": "split", "env": "generate", "hub_id": "publish"}.get(section, section)


def former_defaults(output: str, restart: str | None) -> dict[str, Any]:
    """Returns the former defaults, by dotted key, that a begun run keeps because nobody chose another value.

    Args:
        restart: the first stage that is redone; what counts from there on is as it is now.
    """
    run = RunDir(output)
    if not run.config.is_file():
        return {}
    data = Results(run).data
    recorded, origins = data.get("config"), data.get("origins", {})
    began_with = flatten(recorded or read_config_file(run.config))
    return {
        key: value
        for key, value in FORMER_DEFAULTS.items()
        if began_with.get(key) == value
        and origins.get(key, "default") == "default"
        and (restart is None or STAGES.index(restart) > STAGES.index(first_stage_of(key) or STAGES[-1]))
    }


def settle_config(run: RunDir, resolved: Resolved, results: Results, restart: str | None) -> None:
    """Writes `config.yaml`, or refuses settings that differ from those of a begun stage.

    Raises:
        UserError: every setting that changed, with both values and the way out.
    """
    new = flatten(dump(resolved.config))
    if run.config.exists() or "config" in results.data:
        # of a setting that the version did not know that began the run, the default is what it ran with
        old = defaults() | flatten(results.data.get("config") or read_config_file(run.config))
        faults = []
        changed = (key for key in sorted(new.keys() | old.keys()) if old.get(key) != new.get(key))
        for key in changed:
            stage = first_stage_of(key)
            if stage in (None, "publish") or results.stage(stage).get("status") in (None, "error"):
                continue  # nothing is made of it yet, or it ended in an error that another setting may fix
            if restart is None or STAGES.index(restart) > STAGES.index(stage):
                fix = f"Use the old value, --restart {stage} to redo from there, or another --output."
                now = Shown(repr(new.get(key)))
                faults.append(Fault(f"{run.root}: {key}", f"{old.get(key)!r} as this run began", now, fix))
        if faults:
            raise UserError(*faults)
        origins = results.data.get("origins", {})
        kept = {key: origins[key] for key in new if key in origins and old.get(key) == new[key]}
        resolved = resolved.model_copy(update={"origins": {**resolved.origins, **kept}})
    lasting = unflatten({key: value for key, value in new.items() if not is_free(key)})
    results.data.update(config=lasting, origins=resolved.origins)
    write_text(run.config, to_yaml(resolved))


def forget_from(stage: str, run: RunDir, results: Results, journal: Journal) -> None:
    """Undoes a stage and all later ones, for `--restart`."""
    for name in STAGES[STAGES.index(stage) :]:
        results.data["stages"].pop(name, None)
        journal.forget(name)
        for output in OUTPUTS[name]:
            path = run / output
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    if stage != "publish":
        results.data.pop("validation", None)
    results.write()


def refuse_other_data(split: dict[str, Any], key: str) -> None:
    """Refuses a data set other than the one that was split.

    Args:
        split: the entry of that stage.
        key: of that stage as it would be now.

    Raises:
        UserError: it has changed.
    """
    if split.get("status") == "done" and split.get("key") != key:
        fix = "Use --restart split to start again with it, or another --output."
        raise UserError(Fault("--dataset", "the file this run began with", Shown("a changed one"), fix))


def refuse_other_documents(source: str, known: str | None, found: str | None) -> None:
    """Refuses documents other than those the questions came from.

    Args:
        known, found: `documents.source_hash` of them then and now; None is not known.

    Raises:
        UserError: they have changed.
    """
    if None not in (known, found) and known != found:
        fix = "Use --restart generate to read them again, or another --output."
        raise UserError(Fault(f"--source {source}", "the documents this run began with", Shown("changed ones"), fix))


def after_split(run: RunDir) -> str | None:
    """Returns the stage after a finished `split`, which stays valid whatever became of the data set."""
    entry = Results(run).stage("split")
    there = entry.get("status") == "done" and all((run / name).exists() for name in NEEDED["split"])
    return "enhance" if there and not _torn_outputs(run, "split", entry) else None


def is_incomplete(run: RunDir, stage: str, entry: dict[str, Any]) -> bool:
    """Returns True if a finished stage must be repeated because a file is missing or incomplete.

    A torn file is not deleted: it is then called NAME.damaged.
    """
    for path in _torn_outputs(run, stage, entry):
        log.warning("%s is corrupt. It is kept as %s.damaged and rebuilt.", path, path.name)
        spoiled = path.with_name(f"{path.name}.damaged")
        if spoiled.is_dir():
            shutil.rmtree(spoiled)
        path.replace(spoiled)
    return not all((run / output).exists() for output in NEEDED[stage])


def _torn_outputs(run: RunDir, stage: str, entry: dict[str, Any]) -> list[Path]:
    """Returns the output files of a finished stage that exist but are incomplete."""
    if entry.get("status") not in ("done", "failed"):
        return []
    empty = entry.get("empty")  # an earlier version did not note it
    there = [run / name for name in NEEDED[stage] if (run / name).exists()]
    return [path for path in there if is_torn(path, empty is None or path.name in empty)]


def _empty_outputs(results: Results, stage: str) -> list[str]:
    """Returns the files that a stage left without a row."""
    paths = [results.path.with_name(name) for name in NEEDED[stage]]
    return [path.name for path in paths if path.is_file() and not path.stat().st_size]


def file_hashes(*paths: Path) -> list[str | None]:
    """Returns the sha256 of each file, None for a missing one. An unchanged file is hashed once per process."""
    return [_hash(path, file_state(path)) if path.is_file() else None for path in paths]


@lru_cache(maxsize=64)
def _hash(path: Path, state: tuple[int, ...] | None) -> str:
    return file_hash(path)


def status_after(error: BaseException) -> str:
    """Returns the status of a stage and of a run that `error` ended."""
    if is_interrupt(error):
        return "interrupted"
    return error.stage_status if isinstance(error, SocratuneError) else "error"


@contextmanager
def ending_noted(results: Results) -> Iterator[None]:
    """Records any end of the block that the results do not show yet. A failed stage is a verdict, not an error."""
    try:
        yield
    except BaseException as error:
        results.write(status=status_after(error), error=str(error) or type(error).__name__)
        if not isinstance(error, StageFailed):
            raise


def do_stage(
    name: str,
    key: str,
    work: Callable[[Tick], StageResult],
    results: Results,
    tell: Tell,
    *,
    missing: bool,
) -> bool:
    """Runs a stage unless it is done for this very key. Returns False if the stage failed its check.

    Its entry in the results is true at every moment: also when `work` raises.

    Args:
        missing: an output of the stage is not there (any more).
    """
    entry = results.stage(name)
    if not missing and entry.get("status") in ("done", "failed") and entry.get("key") == key:
        tell("kept", name, entry)
        return entry["status"] == "done"
    before = entry["seconds"] if entry and entry.get("key") == key else 0.0
    results.data["stages"].pop(name, None)
    started = time.monotonic()

    def seconds() -> float:
        return round(before + time.monotonic() - started, 2)

    def tick(done: int, total: int, **live: Any) -> None:
        tell("tick", name, results.set_stage(name, now=False, done=done, total=total, seconds=seconds(), **live))

    tell("begin", name, results.set_stage(name, status="running", seconds=before, done=0, total=0, key=key))
    try:
        result = work(tick)
    except BaseException as error:
        results.set_stage(name, status=status_after(error), seconds=seconds(), error=str(error) or type(error).__name__)
        raise
    figures = {key: value for key, value in result.figures.items() if key != "empty"}  # of another machine's folder
    if "validation" in figures:
        results.data["validation"] = figures.pop("validation")
    total = results.stage(name)["total"] or result.rows_in
    entry = results.set_stage(
        name,
        **({"status": "failed", "reason": result.failure} if result.failure else {"status": "done"}),
        seconds=seconds(),
        done=total,
        total=total,
        rows_in=result.rows_in,
        rows_out=result.rows_out,
        empty=_empty_outputs(results, name),
        **figures,
    )
    tell("done", name, entry)
    return result.failure is None

"""`socratune generate`: the first stage alone, into a file of one's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from socratune.bookkeeping import Tell
from socratune.config import GenerateConfig, is_free
from socratune.errors import Fault, Shown, UserError
from socratune.journal import Journal
from socratune.preflight import generate_faults
from socratune.resolve import dump, flatten, validated
from socratune.rundir import fingerprint, locked
from socratune.sections import Section
from socratune.stages import generate

GRAPH_FLAGS = ("collections", "graph", "aql", "hops")
Merge = Callable[[dict[str, Any], str | None, list[str]], tuple[dict[str, Any], list[Fault]]]


class _Settings(Section):
    """Of `config.yaml` the part that concerns questions."""

    generate: GenerateConfig = GenerateConfig()
    model: str | None = None
    seed: int = 0


def settings_of(flags: dict[str, Any], merge: Merge) -> tuple[GenerateConfig, Path, str | None, int]:
    """The settings, the output, the model whose tokenizer counts, and the seed.

    Args:
        flags: those that were given, by name.
        merge: puts flags over a config file; gives the faults it found.

    Raises:
        UserError: every fault of flags, file, source, models and output.
    """
    config_file, pairs, output = flags.pop("config", None), flags.pop("settings", []), flags.pop("output", None)
    if database := flags.pop("database", None):
        from socratune.sources.arango_place import place_of

        flags.setdefault("source", place_of(database))
    if "collections" in flags:
        flags["collections"] = [name.strip() for name in flags["collections"].split(",")]
    top = {name: flags.pop(name) for name in ("model", "seed") if name in flags}
    keys = {name: f"generate.arangodb.{name}" if name in GRAPH_FLAGS else f"generate.{name}" for name in flags}
    merged, faults = merge(top | {keys[name]: value for name, value in flags.items()}, config_file, pairs)
    known = {name: merged[name] for name in _Settings.model_fields if name in merged}  # a run's file does as well
    faults += [fault] if (fault := _output_fault(output)) else []
    try:
        settings = validated(_Settings, known, "socratune generate")
        faults += generate_faults(settings.generate)
    except UserError as error:
        raise UserError(*faults, *error.faults) from None
    if faults:
        raise UserError(*faults)
    return settings.generate, Path(str(output)), settings.model, settings.seed


def _journal(output: Path) -> Path:
    return output.with_suffix(".journal.sqlite")


def _output_fault(given: str | None) -> Fault | None:
    if given is None:
        return Fault("--output", "a file for the rows, like qa.jsonl", Shown("nothing"))
    output = Path(given)
    if output.suffix != ".jsonl" or output.name.endswith(".rejected.jsonl"):
        return Fault("--output", "a file named *.jsonl", str(output))
    if output.is_dir() or not output.parent.is_dir():
        got = Shown("a folder" if output.is_dir() else f"no folder {output.parent}")
        return Fault(f"--output {output}", "a file in a folder that is there", got)
    if output.exists() and not _journal(output).exists():
        fix = "Move it away, or name another file."
        return Fault(f"--output {output}", "a new file, or one of an earlier generate", Shown("a file of yours"), fix)
    return None


def write_questions(
    config: GenerateConfig, output: Path, *, model_name: str | None = None, seed: int = 0, tell: Tell
) -> dict[str, Any]:
    """Write `output`, `*.rejected.jsonl` and, beside them, the journal and what was read of the source.

    Killed at any moment, the same call goes on: a passage that is finished is not asked for again.

    Args:
        config: settings without faults.
        model_name: whose tokenizer sizes the passages; None: by an estimate.

    Returns:
        The figures of the stage, and `reason` where nothing came of it.

    Raises:
        UserError: nothing in the source can be read, or another process writes this file.
        OutsideError: the budget is spent, or something outside failed; call again to go on.
    """
    place = generate.Place(output, output.with_suffix(".rejected.jsonl"), output.with_suffix(".source"))
    settings = {name: value for name, value in flatten(dump(config)).items() if not is_free(f"generate.{name}")}
    started = time.monotonic()
    entry: dict[str, Any] = {"done": 0, "total": 0}

    def tick(done: int, total: int, **live: Any) -> None:
        entry.update(done=done, total=total, seconds=time.monotonic() - started, **live)
        tell("tick", "generate", entry)

    with locked(output.with_suffix(".lock"), Fault(str(output), "a file nobody writes")):
        journal = Journal(_journal(output))
        tell("begin", "generate", entry)
        try:
            work = generate.run(
                place,
                config,
                model_name=model_name,
                seed=seed,
                journal=journal,
                key=f"generate.{fingerprint(settings, model_name, seed)}",
                tick=tick,
            )
            result = asyncio.run(work)
        finally:
            journal.close()
    entry |= {**result.figures, "seconds": time.monotonic() - started, "reason": result.failure}
    tell("done", "generate", entry)
    return entry

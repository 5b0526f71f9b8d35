"""What the commands do: call one public function and print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from socratune.bookkeeping import STAGES, stage_faults
from socratune.cli.console import Progress, guarded, start_logging
from socratune.config import Resolved, deep_merge, read_config_file, unflatten
from socratune.errors import Fault, Shown, UserError
from socratune.pipeline import run_pipeline
from socratune.preflight import existing_run, preflight
from socratune.rundir import RunDir


def run(
    given: dict[str, Any],
    config_file: str | None,
    settings: list[str] | None,
    *,
    start: str | None,
    until: str | None,
    restart: str | None,
) -> int:
    """`socratune run` and its short forms. `given` holds the flags by dotted key."""
    run_log: list[Path] = []

    def work() -> int:
        start_logging()
        resolved = _resolved(given, config_file, settings or [], (start, until, restart))
        output = Path(resolved.config.output)
        RunDir(output).create()
        run_log.append(output / "run.log")
        start_logging(run_log[0])
        progress = Progress()
        try:
            results = run_pipeline(
                resolved, start=start or STAGES[0], until=until or STAGES[-1], restart=restart, tell=progress
            )
        finally:
            progress.stop()
        return _verdict(results, RunDir(output), progress)

    return guarded(work, lambda: run_log[0] if run_log else None)


def go_on(folder: str, *, until: str, restart: str | None = None, hub_id: str | None = None) -> int:
    """`socratune train|validate|publish RUN`: the run's own configuration, up to one stage."""

    def settings() -> dict[str, Any]:
        given = read_config_file(existing_run(folder).config)
        given["output"] = folder
        if hub_id:
            given["hub_id"] = hub_id
        if until == "publish" and not given.get("hub_id"):
            raise UserError(Fault("--hub-id", "a Hub name like myusername/my-adapter", Shown("nothing")))
        return given

    found: dict[str, Any] = {}

    def read() -> int:
        found.update(settings())
        return 0

    code = guarded(read)
    return code or run(found, None, None, start=None, until=until, restart=restart)


def _resolved(
    given: dict[str, Any],
    config_file: str | None,
    settings: list[str],
    stages: tuple[str | None, str | None, str | None],
) -> Resolved:
    """The configuration of a command that can begin; every fault of flags, file, data, model and output at once."""
    faults = stage_faults(*stages)
    merged: dict[str, Any] = {}
    if config_file:
        try:
            merged = read_config_file(config_file)
        except UserError as error:
            faults += error.faults
    for pair in settings:
        key, equals, text = pair.partition("=")
        try:
            if not equals or not key.strip():
                raise ValueError
            merged = deep_merge(merged, unflatten({key.strip(): yaml.safe_load(text)}))
        except (ValueError, yaml.YAMLError):
            faults.append(Fault("--set", "KEY=VALUE like train.r=32", pair))
    merged = deep_merge(merged, unflatten(given))
    try:
        where = f"--config {config_file}" if config_file else "socratune run"
        resolved = preflight(merged, where=where, restart=stages[2])
    except UserError as error:
        raise UserError(*faults, *error.faults) from None
    if faults:
        raise UserError(*faults)
    return resolved


def _verdict(results: dict[str, Any], run: RunDir, progress: Progress) -> int:
    """Print the outcome; 0 when passed or when what was asked is done, 1 when failed."""
    comparison = results.get("validation", {}).get("tests", {}).get("base_comparison", {})
    if "base_accuracy" in comparison and results["status"] in ("passed", "failed"):
        from rich.table import Table

        low, high = comparison["ci95"]
        table = Table(title=f"{comparison['n']} held-out questions", title_justify="left")
        for column in ("base", "adapter", "difference", "95 % interval", "verdict"):
            table.add_column(column, justify="right")
        table.add_row(
            f"{comparison['base_accuracy']:.1%}",
            f"{comparison['adapter_accuracy']:.1%}",
            f"{comparison['difference']:+.1%}",
            f"{low:+.1%} … {high:+.1%}",
            comparison["verdict"].replace("_", " "),
        )
        progress.console.print(table)
    status = results["status"]
    text = f"{status}: {run.root}"
    if status == "failed":
        text += f"\n{results.get('error') or results.get('validation', {}).get('reason') or ''}"
    progress.say(text, "bold green" if status == "passed" else "bold red" if status == "failed" else "")
    return 1 if status == "failed" else 0


def inspect(what: str, model_name: str | None, count: int, row_id: str | None) -> int:
    """`socratune inspect`: rows as token stretches, the trained ones coloured, then the label doctor's verdict."""

    def work() -> int:
        from rich.console import Console

        from socratune.inspection import load_examples, load_tokenizer, show

        examples, default_model, max_length = load_examples(what)
        if row_id is not None:
            examples = [example for example in examples if example.id == row_id]
            if not examples:
                raise UserError(Fault("--id", f"a row of {what}", row_id))
        name = model_name or default_model
        if name is None:
            raise UserError(Fault("--model", "the model whose template renders the rows", Shown("nothing")))
        faults = show(examples, load_tokenizer(name), max_length, count, Console(highlight=False))
        return 1 if faults else 0

    return guarded(work)


def chat(folder: str, question: str, compare: bool) -> int:
    """`socratune chat`: one question to the adapter, with `compare` to its base as well."""

    def work() -> int:
        from rich.console import Console

        from socratune.inspection import ask

        console = Console(highlight=False)
        for who, answer in ask(existing_run(folder), question, compare=compare):
            if compare:
                console.print(f"{who}:", style="bold", end=" ")
            console.print(answer, markup=False)
        return 0

    return guarded(work)

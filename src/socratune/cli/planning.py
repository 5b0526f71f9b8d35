"""`socratune plan` and `run --dry-run`: what a run takes and where it trains, before anything is loaded or written."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from socratune.cli.console import duration, guarded, print_json, short, start_logging
from socratune.cli.flags import ConfigFile, Json, Settings

if TYPE_CHECKING:
    from socratune.compute import Plan
    from socratune.config import RunConfig
    from socratune.errors import Fault

log = logging.getLogger(__name__)
NOWHERE = "-"
"""The run folder and the data set of a plan that names none."""


def plan(
    given: dict[str, Any],
    gpu: Annotated[
        str | None, typer.Option(metavar="CARD", help='Plan for "H100:80", "2xA100:40" or none, not for this machine.')
    ] = None,
    config: ConfigFile = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Estimate what a run takes and where it would train: parameters, memory, time, cost, and why there."""

    def work() -> int:
        from socratune.cli.given import merged_settings
        from socratune.compute import local_only_faults, loop_outlook, make_plan, stay_offline
        from socratune.errors import UserError
        from socratune.resolve import flatten, resolve_settings, unflatten

        start_logging()
        merged, faults = merged_settings(given, config, settings or [])
        flat = flatten(merged)
        known = bool(flat.get("dataset") or flat.get("generate.source") or flat.get("env.tasks"))
        flat = {"output": NOWHERE, **({} if known else {"dataset": NOWHERE}), **flat}
        try:
            resolved = resolve_settings(unflatten(flat), where=f"--config {config}" if config else "socratune plan")
        except UserError as error:
            raise UserError(*faults, *error.faults) from None
        if resolved.config.local_only:
            stay_offline()
            if faults := [*faults, *local_only_faults(resolved.config)]:
                raise UserError(*faults)
        if faults := [*faults, *_faults_of(resolved.config)]:
            raise UserError(*faults)
        plan = make_plan(resolved.config, dataset=known, gpu=gpu)
        if known:
            outlook = loop_outlook(resolved)
            plan = replace(plan, cautions=(*plan.cautions, *map(str, outlook.faults), *outlook.notices))
        _print(plan, resolved.config.model, as_json=as_json)
        return 0

    raise typer.Exit(guarded(work))


def init(
    given: dict[str, Any],
    settings: Settings = None,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="File to write; - prints it.")] = "run.yaml",
) -> None:
    """Write a commented run.yaml for a model and a data set, with notes on both."""

    def work() -> int:
        from socratune.cli.given import given_by
        from socratune.compute import starting_config
        from socratune.errors import Fault, Shown, UserError
        from socratune.resolve import resolve_settings, unflatten
        from socratune.runs import write_text

        start_logging()
        faults = [] if out == "-" or not Path(out).exists() else [Fault("--out", "a new file", out, "Name another.")]
        asked = {"output": "outputs/first", **given_by(given, settings)}
        if not {"dataset", "generate.source", "env.tasks"} & asked.keys():
            faults.append(Fault("--dataset", "the rows to begin with (or --env)", Shown("nothing")))
        if faults:
            raise UserError(*faults)
        resolved = resolve_settings(unflatten(asked), where="socratune init")
        if faults := _faults_of(resolved.config):
            raise UserError(*faults)
        text = starting_config(resolved)
        if out == "-":
            print(text, end="")
        else:
            write_text(Path(out), text)
            print(f"{out}. Look at it, then: socratune run --config {out}")
        return 0

    raise typer.Exit(guarded(work))


def _faults_of(config: RunConfig) -> list[Fault]:
    """Returns the faults of the model's files. If the Hub cannot be asked, the plan relies on the name alone."""
    from socratune.errors import OutsideError, without_extra
    from socratune.preflight import plan_faults

    try:
        return plan_faults(config)
    except (OutsideError, ModuleNotFoundError) as error:
        if not isinstance(error, OutsideError) and without_extra(error) is None:
            raise
        log.warning("The tokenizer and the chat template could not be looked at: %s", without_extra(error) or error)
        return []


def dry_run(
    given: dict[str, Any],
    config_file: str | None,
    settings: list[str] | None,
    stages: tuple[str | None, str | None, str | None],
    *,
    as_json: bool,
) -> int:
    """Prints the plan of a run that passed every check, and writes nothing (`socratune run --dry-run`)."""

    def work() -> int:
        from socratune.cli.given import resolved_by
        from socratune.compute import make_plan

        start_logging()
        resolved = resolved_by(given, config_file, settings or [], stages, [])
        plan = make_plan(resolved.config)
        _print(plan, resolved.config.model, as_json=as_json)
        if plan.decision.where == "sky" and not as_json:
            _print_task(resolved.config)
        return 0

    return guarded(work)


def _print_task(config: RunConfig) -> None:
    """Prints SkyPilot's task as `sky launch` would take it."""
    import yaml

    from socratune.compute import budget_of, sky_task, sky_task_name
    from socratune.runs import RunDir

    run = RunDir(config.output)
    limit_usd = budget_of(config, rented=True).limit("where", {})
    task = sky_task(sky_task_name(run, config), config, run / "remote" / "in", limit_usd)
    if "secrets" in task:
        task["secrets"] = dict.fromkeys(task["secrets"])  # of no use to who looks over a shoulder
    print(f"\nSkyPilot's task:\n\n{yaml.safe_dump(task, sort_keys=False)}")


def _print(plan: Plan, model_name: str, *, as_json: bool) -> None:
    if as_json:
        print_json(plan.to_json())
    else:
        show_plan(plan, model_name)


def show_plan(plan: Plan, model_name: str) -> None:
    """Prints the table of memory, the choice and its reason, what would make it fit, time, cost and assumptions."""
    from rich.console import Console
    from rich.table import Table

    from socratune.llm import budget_text

    console = Console(highlight=False)

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, soft_wrap=not console.is_terminal)

    found, fit = plan.to_json(), plan.decision.fit
    say(f"{model_name}: {found['parameters']:,} parameters, by {found['parameters_by']}")
    where = f"{fit.cards} cards, each" if fit.cards > 1 else "one card" if fit.cards else "main memory"
    table = Table()
    table.add_column(f"memory, {where}")
    table.add_column("GB", justify="right")
    for part, gb in found["memory_gb"].items():
        table.add_row(part, f"{gb:.2f}", style="bold" if part == "total" else "", end_section=part == "framework")
    table.add_row("free", f"{found['free_gb']:.2f}")
    console.print(table)
    say(f"where: {found['where']}", "bold")
    say(f"reason: {found['reason']}")
    for remedy in found["remedies"]:
        say(f"would fit with: {remedy}")
    if found["problem"]:
        say(f"cannot begin so: {found['problem']}", "bold red")
    say(f"time: {_time(plan)}")
    say(f"money: {_money(plan)}")
    if plan.budget.shares:
        say(budget_text(found["budget"]))
    for text in found["cautions"]:
        say(f"caution: {text}", "bold yellow")
    for text in found["assumed"]:
        say(f"assumed: {text}")


def _time(plan: Plan) -> str:
    training, loop = plan.decision.fit.seconds, plan.loop_s
    trained = "not known for this card" if training is None else f"about {duration(training)}"
    answered = "not known here" if loop is None else f"about {duration(loop)}"
    rows = f"{plan.load.rows} rows, {short(plan.tokens)} tokens trained"
    return f"training {trained}, the student's answers {answered} ({rows})"


def _money(plan: Plan) -> str:
    money, card = plan.money, plan.decision.card
    parts = []
    if card and money.gpu_per_hour is not None:
        gpu = "?" if money.gpu is None else f"{money.gpu:.2f} USD"
        parts.append(f"{card.name} {gpu} ({money.gpu_per_hour:.2f} USD an hour, list of {card.priced})")
    calls = "price not known" if money.enhancement is None else f"{money.enhancement:.2f} USD"
    parts.append(f"calls of the loop {calls}")
    return ", ".join(parts)

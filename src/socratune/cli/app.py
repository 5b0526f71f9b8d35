"""The commands and their flags. Each command parses, calls one function of `commands`, and ends with its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from socratune import __version__
from socratune.cli import planning
from socratune.cli.chatting import chat
from socratune.cli.comparing import compare_command
from socratune.cli.console import guarded
from socratune.cli.finished import export, export_data, publish, report, verify
from socratune.cli.flags import (
    Command,
    Commands,
    ConfigFile,
    DryRun,
    Estimate,
    Json,
    Restart,
    Run,
    Settings,
    Start,
    Until,
    takes,
)
from socratune.cli.pods import pods
from socratune.cli.retired import retired
from socratune.cli.servers import serve, ui
from socratune.errors import UserError

app = typer.Typer(
    name="socratune",
    help="Train LoRA adapters that reason better than their base model, and prove it.",
    no_args_is_help=True,
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        print(f"socratune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


GivenSettings = dict[str, Any]
"""Settings that were given as flags, by dotted key."""


def command(*keys: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a command that takes the settings `keys` as flags (`flags.takes`)."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        return app.command(cls=Command)(takes(*keys)(function))

    return register


@command(
    "", "env", "generate.source", "generate.writer_model", "generate.writer_api_base", "split", "enhance", "train",
    "where.place", "where.gpus",
)  # fmt: skip
def run(
    given: GivenSettings,
    config: ConfigFile = None,
    settings: Settings = None,
    estimate: Estimate = False,
    dry_run: DryRun = False,
    start: Start = None,
    until: Until = None,
    restart: Restart = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --estimate or --dry-run: print everything as JSON.")
    ] = False,
) -> None:
    """Run the whole pipeline: split, enhance, curate, train, validate. --source generates first, --hub-id publishes."""
    from socratune.cli import commands

    if dry_run:
        raise typer.Exit(planning.dry_run(given, config, settings, (start, until, restart), as_json=as_json))
    if estimate:
        raise typer.Exit(commands.estimate(given, config, settings, (start, until, restart), as_json=as_json))
    if as_json:
        raise typer.BadParameter(
            "works only with --estimate or --dry-run; the figures of a run are in pipeline_results.json"
        )
    raise typer.Exit(commands.run_command(given, config, settings, start=start, until=until, restart=restart))


command(
    "model", "chat_template", "dataset", "env", "output", "local_only", "max_usd", "where.place", "where.gpus",
)(planning.plan)  # fmt: skip


command("model", "chat_template", "dataset", "env", "output", "enhance.teacher_model", "enhance.judge_model")(
    planning.init
)


@command("generate", "chat_template", "local_only", "max_usd", "seed")
def generate(
    given: GivenSettings,
    output: Annotated[
        str | None,
        typer.Option(metavar="FILE.jsonl", help="File for the rows; rejected ones go into a file beside it."),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Database on the server in ARANGO_URL, instead of --source.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model whose tokenizer measures the passages.")] = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Write question-answer rows from documents or a database, each with the words its answer rests on."""
    from socratune.cli import commands

    given |= {} if model is None else {"model": model}
    raise typer.Exit(commands.generate_command(given, config, settings, output=output, database=database))


@command("output", "enhance.thinking_format", "max_usd", "seed")
def demo(
    given: GivenSettings,
    settings: Settings = None,
    until: Until = None,
    restart: Restart = None,
) -> None:
    """Run the whole pipeline on the embedded model and data: no key, no network, no GPU."""
    from socratune.cli import commands

    given = {"output": "outputs/demo"} | given | {"model": "demo", "dataset": "demo"}
    raise typer.Exit(commands.run_command(given, None, settings, start=None, until=until, restart=restart))


@command(
    "model", "chat_template", "dataset", "env", "output", "local_only", "views", "shard", "engine", "workers",
    "max_usd", "seed", "split", "enhance",
)  # fmt: skip
def enhance(
    given: GivenSettings,
    config: ConfigFile = None,
    settings: Settings = None,
    estimate: Estimate = False,
    restart: Restart = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --estimate: print everything as JSON.")] = False,
) -> None:
    """Run split and the student-teacher loop, and stop before the training."""
    from socratune.cli import commands

    if estimate:
        raise typer.Exit(commands.estimate(given, config, settings, (None, None, restart), as_json=as_json))
    if as_json:
        raise typer.BadParameter("works only with --estimate; the figures of a run are in pipeline_results.json")
    raise typer.Exit(commands.run_command(given, config, settings, start=None, until="enhance", restart=restart))


@command("train", "report_to", "max_usd", "where.gpus")
def train(
    given: GivenSettings,
    run: Run,
    settings: Settings = None,
    restart: Annotated[bool, typer.Option(help="Train again from the beginning.")] = False,
) -> None:
    """Train the adapter of a run folder, after any earlier stage that is missing."""
    from socratune.cli import commands

    raise typer.Exit(commands.go_on(run, settings, until="train", restart=restart, given=given))


@command("validate", "max_usd")
def validate(
    given: GivenSettings,
    run: Run,
    settings: Settings = None,
    restart: Annotated[bool, typer.Option(help="Ask and judge again.")] = False,
    answers_only: Annotated[
        bool, typer.Option("--answers-only", help="Only collect the answers; judge them later.")
    ] = False,
    crossfit: Annotated[
        int | None,
        typer.Option(metavar="K", help="For few rows: test all rows, each by one of K adapters that did not see it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --crossfit: print everything as JSON.")] = False,
) -> None:
    """Prove the adapter of a run folder on its held-out questions."""
    from socratune.cli import commands

    if crossfit is not None:
        from socratune.cli.several import crossfit_command

        raise typer.Exit(crossfit_command(run, crossfit, as_json=as_json))
    if as_json:
        raise typer.BadParameter("works only with --crossfit; the figures of a run are in pipeline_results.json")
    if answers_only:
        raise typer.Exit(commands.answers_only(run, given, settings, restart=restart))
    raise typer.Exit(commands.go_on(run, settings, until="validate", restart=restart, given=given, anew=True))


command("hub_id", "publish")(publish)
app.command(cls=Command)(export)
app.command(cls=Command)(export_data)
app.command(cls=Command)(verify)
app.command("compare", cls=Command)(compare_command)


@command(
    "model", "chat_template", "dataset", "env", "enhance.teacher_model", "enhance.judge_model", "split.held_out",
)  # fmt: skip
def ablate(
    given: GivenSettings,
    output: Annotated[str, typer.Option(help="Folder for all runs; an existing one is resumed.")] = (
        "outputs/ablation"
    ),
    arms: Annotated[str | None, typer.Option(metavar="A,B,…", help="Ways to compare.  [default: all]")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of trainings of each way.")] = 2,
    minutes: Annotated[float, typer.Option(min=0, help="Time limit; nothing begins that would end later.")] = 60,
    budget_usd: Annotated[float, typer.Option(min=0, help="Limit for all paid calls together; 0: none.")] = 2,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Find out which way pays off on your data: prompts, references, samples, hints or a teacher's solutions."""
    from socratune.cli.several import ablate_command

    raise typer.Exit(ablate_command(given, config, settings, output, arms, (seeds, minutes, budget_usd or None)))


@command("chat_template")
def inspect(
    given: GivenSettings,
    what: Annotated[str, typer.Argument(metavar="RUN|DATASET", help="A run folder or a JSONL data set.")],
    model: Annotated[str | None, typer.Option(help="Model whose chat template renders the rows.")] = None,
    rows: Annotated[int, typer.Option(help="Number of rows to show.")] = 3,
    row_id: Annotated[str | None, typer.Option("--id", help="Show only the row with this id.")] = None,
    as_json: Json = False,
) -> None:
    """Show training rows as the model sees them, with trained tokens coloured, and check their labels."""
    from socratune.cli import commands

    raise typer.Exit(commands.inspect_command(what, model, rows, row_id, given.get("chat_template"), as_json=as_json))


@app.command(cls=Command)
def merge(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The run folder to create.")],
    shards: Annotated[list[str], typer.Argument(metavar="SHARD...", help="The run folders of all N shards.")],
) -> None:
    """Merge the runs of `--shard 1/N` … `N/N` into one folder: rows in input order, no call repeated."""
    from socratune.cli import commands

    raise typer.Exit(commands.merge_command(output, shards))


@command("enhance.judge_model", "enhance.judge_mode", "enhance.judge_api_base")
def audit_judge(
    given: GivenSettings,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run that has been validated.")] = None,
    sheet: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a sample of the answers of RUN to label.")
    ] = None,
    rows: Annotated[
        int, typer.Option(min=2, help="Number of answers, half from the base, half from the adapter.")
    ] = 200,
    labels: Annotated[str | None, typer.Option(metavar="FILE", help="File with the labelled answers.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure how well a judge judges, and whether it favours the adapter: first --sheet, then label, then --labels."""
    from socratune.cli import commands

    if sheet is not None:
        raise typer.Exit(commands.audit_sheet(run, sheet, rows, seed))
    judge = {key.removeprefix("enhance."): value for key, value in given.items()}
    raise typer.Exit(commands.audit(run, labels, judge, as_json=as_json))


command("where.pod_name", "where.api_base")(pods)
command("chat_template")(chat)
command("chat_template")(serve)
for plain in (report, ui):
    app.command(cls=Command)(plain)


@app.command(cls=Command)
def doctor(as_json: Json = False) -> None:
    """Check this machine: Python, libraries, GPU, keys, disk. Each problem comes with the command that fixes it."""
    from socratune.cli.doctor import doctor_report

    raise typer.Exit(guarded(lambda: doctor_report(as_json)))


@app.command(cls=Command)
def explain(codes: Annotated[list[str], typer.Argument(metavar="CODE", help="Error codes, like S203.")]) -> None:
    """Explain an error code: what it means and what to do."""
    from socratune.cli.explain import explained

    def work() -> int:
        print(explained(codes))
        return 0

    raise typer.Exit(guarded(work))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    if said := retired(sys.argv[1:] if argv is None else argv):
        print(said, file=sys.stderr)
        return UserError.exit_code
    try:
        app(args=argv, prog_name="socratune")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0

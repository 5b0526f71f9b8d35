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
    help="LoRA adapters that reason better than the model they started from, and the proof.",
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
    """A command that takes the settings `keys` as flags (`flags.takes`)."""

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
    as_json: Annotated[bool, typer.Option("--json", help="With --estimate or --dry-run: all of it as JSON.")] = False,
) -> None:
    """The whole pipeline: split, enhance, curate, train, validate; --source generates first, --hub-id publishes."""
    from socratune.cli import commands

    if dry_run:
        raise typer.Exit(planning.dry_run(given, config, settings, (start, until, restart), as_json=as_json))
    if estimate:
        raise typer.Exit(commands.estimate(given, config, settings, (start, until, restart), as_json=as_json))
    if as_json:
        raise typer.BadParameter("goes with --estimate or --dry-run; a run's own figures are in pipeline_results.json")
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
        str | None, typer.Option(metavar="FILE.jsonl", help="The rows; what was rejected beside it.")
    ] = None,
    database: Annotated[str | None, typer.Option(help="A database at ARANGO_URL, instead of --source.")] = None,
    model: Annotated[str | None, typer.Option(help="The model whose tokenizer sizes the passages.")] = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Question-answer rows out of documents or a database, each with the words its answer comes from."""
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
    """`run` on the embedded model and data: no key, no network, no GPU."""
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
    as_json: Annotated[bool, typer.Option("--json", help="With --estimate: all of it as JSON.")] = False,
) -> None:
    """`run` up to the enhanced data set: split, then the student-teacher loop."""
    from socratune.cli import commands

    if estimate:
        raise typer.Exit(commands.estimate(given, config, settings, (None, None, restart), as_json=as_json))
    if as_json:
        raise typer.BadParameter("goes with --estimate; a run's own figures are in pipeline_results.json")
    raise typer.Exit(commands.run_command(given, config, settings, start=None, until="enhance", restart=restart))


@command("train", "report_to", "max_usd", "where.gpus")
def train(
    given: GivenSettings,
    run: Run,
    settings: Settings = None,
    restart: Annotated[bool, typer.Option(help="Train anew.")] = False,
) -> None:
    """Train the adapter of a run folder (and what is missing before it)."""
    from socratune.cli import commands

    raise typer.Exit(commands.go_on(run, settings, until="train", restart=restart, given=given))


@command("validate", "max_usd")
def validate(
    given: GivenSettings,
    run: Run,
    settings: Settings = None,
    restart: Annotated[bool, typer.Option(help="Ask and judge anew.")] = False,
    answers_only: Annotated[
        bool, typer.Option("--answers-only", help="Ask, and leave the judging to another.")
    ] = False,
) -> None:
    """Prove the adapter of a run folder on its held-out questions."""
    from socratune.cli import commands

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
    output: Annotated[str, typer.Option(help="Folder of all its runs; an existing one is gone on with.")] = (
        "outputs/ablation"
    ),
    arms: Annotated[str | None, typer.Option(metavar="A,B,…", help="Which ways; all without it.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every way.")] = 2,
    minutes: Annotated[float, typer.Option(min=0, help="Begin nothing that would end later.")] = 60,
    budget_usd: Annotated[float, typer.Option(min=0, help="Of all paid calls together. 0: no limit.")] = 2,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Which way is worth it on your data: prompts, references, samples, hints, a teacher's words, side by side."""
    from socratune.cli import commands

    raise typer.Exit(
        commands.ablate_command(given, config, settings, output, arms, (seeds, minutes, budget_usd or None))
    )


@command("chat_template")
def inspect(
    given: GivenSettings,
    what: Annotated[str, typer.Argument(metavar="RUN|DATASET", help="A run folder, or a JSONL data set.")],
    model: Annotated[str | None, typer.Option(help="Whose template renders the rows.")] = None,
    rows: Annotated[int, typer.Option(help="How many rows to show.")] = 3,
    row_id: Annotated[str | None, typer.Option("--id", help="Only the row with this id.")] = None,
    as_json: Json = False,
) -> None:
    """Show training rows as the model sees them, the trained tokens coloured, and check their labels."""
    from socratune.cli import commands

    raise typer.Exit(commands.inspect_command(what, model, rows, row_id, given.get("chat_template"), as_json=as_json))


@app.command(cls=Command)
def merge(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The run folder to make.")],
    shards: Annotated[list[str], typer.Argument(metavar="SHARD...", help="The run folders of all N shards.")],
) -> None:
    """Put the runs of `--shard 1/N` … `N/N` together: one run folder, rows in input order, no call repeated."""
    from socratune.cli import commands

    raise typer.Exit(commands.merge_command(output, shards))


@command("enhance.judge_model", "enhance.judge_mode", "enhance.judge_api_base")
def audit_judge(
    given: GivenSettings,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run whose proof is finished.")] = None,
    sheet: Annotated[str | None, typer.Option(metavar="FILE", help="Draw answers of RUN to label.")] = None,
    rows: Annotated[int, typer.Option(min=2, help="How many, half of base and adapter each.")] = 200,
    labels: Annotated[str | None, typer.Option(metavar="FILE", help="The labelled answers.")] = None,
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 0,
    as_json: Json = False,
) -> None:
    """How well does a judge judge, and is it kinder to the adapter? First --sheet, then label, then --labels."""
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
    """Check this machine: Python, libraries, GPU, keys, disk. Each fault with the command that mends it."""
    from socratune.cli.doctor import doctor_report

    raise typer.Exit(guarded(lambda: doctor_report(as_json)))


@app.command(cls=Command)
def explain(codes: Annotated[list[str], typer.Argument(metavar="CODE", help="Codes of errors, like S203.")]) -> None:
    """Explain an error by its code: what it means, and what to do."""
    from socratune.cli.explain import explained

    def work() -> int:
        print(explained(codes))
        return 0

    raise typer.Exit(guarded(work))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    if said := retired(sys.argv[1:] if argv is None else argv):
        print(said, file=sys.stderr)
        return UserError.exit_code
    try:
        app(args=argv, prog_name="socratune")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0

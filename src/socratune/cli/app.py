"""The commands and their flags. Each command parses, calls one function of `commands`, and ends with its exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from socratune import __version__
from socratune.cli import planning
from socratune.cli.console import guarded
from socratune.cli.finished import export, publish, report
from socratune.cli.flags import (
    NOT_SETTINGS,
    Attempts,
    Backend,
    CallTimeout,
    Concurrency,
    ConfigFile,
    Dataset,
    DryRun,
    Engine,
    Estimate,
    EvalFile,
    Format,
    Gpus,
    HeldOut,
    HintAttempts,
    HubId,
    Iterations,
    Judge,
    JudgeBase,
    JudgeMode,
    MaxTokens,
    MaxUsd,
    Method,
    Model,
    OnBadRow,
    Output,
    Place,
    ReportTo,
    Restart,
    Rounds,
    Run,
    Seed,
    Settings,
    Shard,
    Source,
    Start,
    Student,
    StudentBase,
    StudentEngine,
    SweepLr,
    Teacher,
    TeacherBase,
    Unsolved,
    Until,
    Views,
    Workers,
    Writer,
    WriterBase,
    given_by,
)
from socratune.cli.pods import pods
from socratune.cli.retired import retired
from socratune.cli.servers import serve, ui
from socratune.errors import UserError

app = typer.Typer(
    name="socratune",
    help="LoRA adapters that reason better than the model they started from, and the proof.",
    no_args_is_help=True,
    add_completion=False,
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


@app.command()
def run(
    model: Model = None,
    dataset: Dataset = None,
    source: Source = None,
    writer_model: Writer = None,
    writer_api_base: WriterBase = None,
    output: Output = None,
    hub_id: HubId = None,
    config: ConfigFile = None,
    settings: Settings = None,
    held_out: HeldOut = None,
    eval_file: EvalFile = None,
    on_bad_row: OnBadRow = None,
    thinking_format: Format = None,
    attempts: Attempts = None,
    hint_attempts: HintAttempts = None,
    max_iterations: Iterations = None,
    student_model: Student = None,
    teacher_model: Teacher = None,
    judge_model: Judge = None,
    judge_mode: JudgeMode = None,
    student_api_base: StudentBase = None,
    teacher_api_base: TeacherBase = None,
    judge_api_base: JudgeBase = None,
    concurrency: Concurrency = None,
    call_timeout_s: CallTimeout = None,
    max_usd: MaxUsd = None,
    max_total_tokens: MaxTokens = None,
    unsolved: Unsolved = None,
    student_engine: StudentEngine = None,
    views: Views = None,
    rounds: Rounds = None,
    shard: Shard = None,
    engine: Engine = None,
    workers: Workers = None,
    place: Place = None,
    estimate: Estimate = False,
    dry_run: DryRun = False,
    backend: Backend = None,
    gpus: Gpus = None,
    method: Method = None,
    sweep_lr: SweepLr = None,
    report_to: ReportTo = None,
    seed: Seed = None,
    start: Start = None,
    until: Until = None,
    restart: Restart = None,
) -> None:
    """The whole pipeline: split, enhance, curate, train, validate; --source generates first, --hub-id publishes."""
    flags = {name: value for name, value in locals().items() if name not in NOT_SETTINGS}
    from socratune.cli import commands

    if dry_run:
        raise typer.Exit(planning.dry_run(given_by(flags), config, settings, (start, until, restart)))
    if estimate:
        raise typer.Exit(commands.estimate(given_by(flags), config, settings, (start, until, restart)))
    raise typer.Exit(commands.run(given_by(flags), config, settings, start=start, until=until, restart=restart))


app.command()(planning.plan)


@app.command()
def generate(
    source: Source = None,
    output: Annotated[
        str | None, typer.Option(metavar="FILE.jsonl", help="The rows; what was rejected beside it.")
    ] = None,
    database: Annotated[str | None, typer.Option(help="A database at ARANGO_URL, instead of --source.")] = None,
    collections: Annotated[str | None, typer.Option(metavar="A,B,…", help="Of the database; all by default.")] = None,
    graph: Annotated[str | None, typer.Option(help="A named graph of the database.")] = None,
    aql: Annotated[str | None, typer.Option(metavar="QUERY", help="A query that returns documents.")] = None,
    hops: Annotated[int | None, typer.Option(help="How far neighbours are read along.")] = None,
    writer_model: Writer = None,
    writer_api_base: WriterBase = None,
    checker_model: Annotated[
        str | None, typer.Option("--checker-model", help="Asked whether the text bears it.")
    ] = None,
    checker_api_base: Annotated[list[str] | None, typer.Option("--checker-api-base", metavar="URL")] = None,
    questions_per_passage: Annotated[int | None, typer.Option(help="Asked of the writer.")] = None,
    passage_tokens: Annotated[int | None, typer.Option(help="The most a passage has.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Passages in flight.")] = None,
    max_usd: MaxUsd = None,
    max_total_tokens: MaxTokens = None,
    model: Annotated[str | None, typer.Option(help="The model whose tokenizer sizes the passages.")] = None,
    config: ConfigFile = None,
    settings: Settings = None,
    seed: Seed = None,
) -> None:
    """Question-answer rows out of documents or a database, each with the words its answer comes from."""
    flags = {name: value for name, value in locals().items() if value is not None and value != []}
    from socratune.cli import commands

    raise typer.Exit(commands.generate(flags))


@app.command()
def demo(
    output: Output = None,
    settings: Settings = None,
    thinking_format: Format = None,
    seed: Seed = None,
    until: Until = None,
    restart: Restart = None,
) -> None:
    """`run` on the embedded model and data: no key, no network, no GPU."""
    from socratune.cli import commands

    given = given_by({"seed": seed, "thinking_format": thinking_format})
    given |= {"model": "demo", "dataset": "demo", "output": output or "outputs/demo"}
    raise typer.Exit(commands.run(given, None, settings, start=None, until=until, restart=restart))


@app.command()
def enhance(
    model: Model = None,
    dataset: Dataset = None,
    output: Output = None,
    config: ConfigFile = None,
    settings: Settings = None,
    held_out: HeldOut = None,
    eval_file: EvalFile = None,
    on_bad_row: OnBadRow = None,
    thinking_format: Format = None,
    attempts: Attempts = None,
    hint_attempts: HintAttempts = None,
    max_iterations: Iterations = None,
    student_model: Student = None,
    teacher_model: Teacher = None,
    judge_model: Judge = None,
    judge_mode: JudgeMode = None,
    student_api_base: StudentBase = None,
    teacher_api_base: TeacherBase = None,
    judge_api_base: JudgeBase = None,
    concurrency: Concurrency = None,
    call_timeout_s: CallTimeout = None,
    max_usd: MaxUsd = None,
    max_total_tokens: MaxTokens = None,
    unsolved: Unsolved = None,
    student_engine: StudentEngine = None,
    views: Views = None,
    shard: Shard = None,
    engine: Engine = None,
    workers: Workers = None,
    estimate: Estimate = False,
    seed: Seed = None,
    restart: Restart = None,
) -> None:
    """`run` up to the enhanced data set: split, then the student-teacher loop."""
    flags = {name: value for name, value in locals().items() if name not in NOT_SETTINGS}
    from socratune.cli import commands

    if estimate:
        raise typer.Exit(commands.estimate(given_by(flags), config, settings, (None, None, restart)))
    raise typer.Exit(commands.run(given_by(flags), config, settings, start=None, until="enhance", restart=restart))


@app.command()
def train(
    run: Run,
    method: Method = None,
    sweep_lr: SweepLr = None,
    report_to: ReportTo = None,
    backend: Backend = None,
    gpus: Gpus = None,
    restart: Annotated[bool, typer.Option(help="Train anew.")] = False,
) -> None:
    """Train the adapter of a run folder (and what is missing before it)."""
    from socratune.cli import commands

    flags = {"method": method, "sweep_lr": sweep_lr, "report_to": report_to, "backend": backend, "gpus": gpus}
    raise typer.Exit(commands.go_on(run, until="train", restart=restart, given=given_by(flags)))


@app.command()
def validate(
    run: Run,
    restart: Annotated[bool, typer.Option(help="Ask and judge anew.")] = False,
    prompts: Annotated[
        str | None, typer.Option(metavar="FILE", help="Test prompts: a line each, or JSONL with prompt and expected.")
    ] = None,
    lm_eval: Annotated[str | None, typer.Option(metavar="TASKS", help="Tasks of lm-eval too, with commas.")] = None,
    answers_only: Annotated[
        bool, typer.Option("--answers-only", help="Ask, and leave the judging to another.")
    ] = False,
) -> None:
    """Prove the adapter of a run folder on its held-out questions."""
    from socratune.cli import commands

    settings = {
        "validate.prompts_file": prompts,
        "validate.lm_eval": [task.strip() for task in lm_eval.split(",")] if lm_eval else None,
    }
    given = {key: value for key, value in settings.items() if value}
    if answers_only:
        raise typer.Exit(commands.answers_only(run, given, restart=restart))
    raise typer.Exit(commands.go_on(run, until="validate", restart=restart, given=given, anew=True))


for command in (publish, export):
    app.command()(command)


@app.command()
def ablate(
    model: Model = None,
    dataset: Dataset = None,
    output: Annotated[str, typer.Option(help="Folder of all its runs; an existing one is gone on with.")] = (
        "outputs/ablation"
    ),
    arms: Annotated[str | None, typer.Option(metavar="A,B,…", help="Which ways; all without it.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every way.")] = 2,
    minutes: Annotated[float, typer.Option(min=0, help="Begin nothing that would end later.")] = 60,
    budget_usd: Annotated[float, typer.Option(min=0, help="Of all paid calls together. 0: no limit.")] = 2,
    teacher_model: Teacher = None,
    judge_model: Judge = None,
    held_out: HeldOut = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Which way is worth it on your data: prompts, references, samples, hints, a teacher's words, side by side."""
    from socratune.cli import commands

    flags = {"model": model, "dataset": dataset, "teacher_model": teacher_model, "judge_model": judge_model}
    given = given_by({**flags, "held_out": held_out})
    raise typer.Exit(commands.ablate(given, config, settings, output, arms, (seeds, minutes, budget_usd or None)))


@app.command()
def inspect(
    what: Annotated[str, typer.Argument(metavar="RUN|DATASET", help="A run folder, or a JSONL data set.")],
    model: Model = None,
    rows: Annotated[int, typer.Option(help="How many rows to show.")] = 3,
    row_id: Annotated[str | None, typer.Option("--id", help="Only the row with this id.")] = None,
) -> None:
    """Show training rows as the model sees them, the trained tokens coloured, and check their labels."""
    from socratune.cli import commands

    raise typer.Exit(commands.inspect(what, model, rows, row_id))


@app.command()
def chat(
    run: Run,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    compare: Annotated[bool, typer.Option(help="Show the base model's answer too.")] = False,
) -> None:
    """Ask the adapter of a run folder."""
    from socratune.cli import commands

    raise typer.Exit(commands.chat(run, question, compare))


@app.command()
def merge(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The run folder to make.")],
    shards: Annotated[list[str], typer.Argument(metavar="SHARD...", help="The run folders of all N shards.")],
) -> None:
    """Put the runs of `--shard 1/N` … `N/N` together: one run folder, rows in input order, no call repeated."""
    from socratune.cli import commands

    raise typer.Exit(commands.merge(output, shards))


@app.command()
def audit_judge(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run whose proof is finished.")] = None,
    sheet: Annotated[str | None, typer.Option(metavar="FILE", help="Draw answers of RUN to label.")] = None,
    rows: Annotated[int, typer.Option(min=2, help="How many, half of base and adapter each.")] = 200,
    labels: Annotated[str | None, typer.Option(metavar="FILE", help="The labelled answers.")] = None,
    judge_model: Judge = None,
    judge_mode: JudgeMode = None,
    judge_api_base: JudgeBase = None,
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="All figures as JSON.")] = False,
) -> None:
    """How well does a judge judge, and is it kinder to the adapter? First --sheet, then label, then --labels."""
    from socratune.cli import commands

    if sheet is not None:
        raise typer.Exit(commands.audit_sheet(run, sheet, rows, seed))
    judge = {"judge_model": judge_model, "judge_mode": judge_mode, "judge_api_base": judge_api_base}
    raise typer.Exit(commands.audit(run, labels, {k: v for k, v in judge.items() if v}, as_json=as_json))


for command in (report, ui, serve, pods):
    app.command()(command)


@app.command()
def doctor() -> None:
    """Check this machine: Python, libraries, GPU, keys, disk. Each fault with the command that mends it."""
    from socratune.doctor import report

    raise typer.Exit(guarded(report))


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

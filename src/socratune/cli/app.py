"""The commands and their flags. Each command parses, calls one function of `commands`, and ends with its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from socratune import __version__
from socratune.cli.console import guarded

app = typer.Typer(
    name="socratune",
    help="LoRA adapters that reason better than the model they started from, and the proof.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Model = Annotated[str | None, typer.Option(help="Base model: a folder, a Hub id, or 'demo' (embedded).")]
Source = Annotated[
    str | None, typer.Option(help="Have the rows written out of files, arangodb://HOST:8529/DB, or 'demo'.")
]
Writer = Annotated[str | None, typer.Option("--writer-model", help="Who writes: rules/extract (default), openai/…, …")]
WriterBase = Annotated[list[str] | None, typer.Option("--writer-api-base", metavar="URL", help="Repeatable.")]
Dataset = Annotated[str | None, typer.Option(help="JSONL, JSON, CSV, Parquet, a Hub data set (org/name), or 'demo'.")]
Output = Annotated[str | None, typer.Option(help="Run folder; an existing one is gone on with.")]
HubId = Annotated[str | None, typer.Option(help="Publish to this Hub repository when the adapter passed.")]
ConfigFile = Annotated[str | None, typer.Option("--config", help="YAML file with everything else.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. train.r=32. Repeatable.")
]
HeldOut = Annotated[str | None, typer.Option(help="Your own held-out rows, in a file or on the Hub.")]
EvalFile = Annotated[
    list[str] | None, typer.Option("--eval-file", metavar="FILE", help="A test not to train on. Repeatable.")
]
OnBadRow = Annotated[str | None, typer.Option(help="stop (default) or skip.")]
Format = Annotated[str | None, typer.Option("--thinking-format", help="direct, clean or iterative.")]
Iterations = Annotated[int | None, typer.Option("--max-iterations", help="Attempts per row, the first included.")]
Attempts = Annotated[int | None, typer.Option(help="Samples per row before any hint.")]
HintAttempts = Annotated[int | None, typer.Option(help="Samples per hint.")]
Student = Annotated[
    str | None,
    typer.Option("--student-model", help="Another student: its name at --student-api-base, local/…, openai/…"),
]
Teacher = Annotated[str | None, typer.Option("--teacher-model", help="rules/…, openai/…, anthropic/…, python:FILE:F.")]
Judge = Annotated[str | None, typer.Option("--judge-model", help="As for the teacher.")]
JudgeMode = Annotated[str | None, typer.Option(help="cascade (default), mechanical or llm.")]
StudentBase = Annotated[list[str] | None, typer.Option("--student-api-base", metavar="URL", help="Repeatable.")]
TeacherBase = Annotated[list[str] | None, typer.Option("--teacher-api-base", metavar="URL", help="Repeatable.")]
JudgeBase = Annotated[list[str] | None, typer.Option("--judge-api-base", metavar="URL", help="Repeatable.")]
Concurrency = Annotated[int | None, typer.Option(help="Rows in flight.")]
CallTimeout = Annotated[float | None, typer.Option("--call-timeout-s", help="Of one try of a call.")]
MaxUsd = Annotated[float | None, typer.Option(help="Stop before so much is spent.")]
MaxTokens = Annotated[int | None, typer.Option("--max-total-tokens", help="Stop before so many tokens.")]
Unsolved = Annotated[str | None, typer.Option(help="drop (default), reference or rewrite.")]
StudentEngine = Annotated[str | None, typer.Option("--student-engine", help="local (default) or vllm.")]
Views = Annotated[str | None, typer.Option(help="preference,sdft: files for other trainers.")]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="Only every N-th row; socratune merge joins the parts.")]
Engine = Annotated[str | None, typer.Option(help="here (default) or ray.")]
Workers = Annotated[int | None, typer.Option(help="Ray actors.")]
Estimate = Annotated[bool, typer.Option("--estimate", help="Try 20 rows and say what all would take; no more.")]
Backend = Annotated[str | None, typer.Option(help="Who trains: auto (default), hf or unsloth.")]
Method = Annotated[str | None, typer.Option(help="sft (default) or dpo, on preference pairs.")]
SweepLr = Annotated[str | None, typer.Option(metavar="X,Y,…", help="Multiples of the learning rate; dev chooses.")]
Seed = Annotated[int | None, typer.Option(help="Of sampling, training and resampling.")]
Start = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="First stage to run.")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="Last stage to run.")]
Restart = Annotated[str | None, typer.Option(metavar="STAGE", help="Redo this stage and all behind it.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")]


_TOP = ("model", "dataset", "output", "hub_id", "seed", "views", "shard", "engine", "workers")
_SPLIT = ("held_out", "eval_file", "on_bad_row")


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags that were given, by their dotted key; what belongs nowhere else is a setting of the loop."""
    section = {**dict.fromkeys(_TOP, ""), **dict.fromkeys(_SPLIT, "split."), "backend": "train."}
    section |= {"method": "train.", "sweep_lr": "train.by_dev."}
    section |= dict.fromkeys(("source", "writer_model", "writer_api_base"), "generate.")
    keys = {name: section.get(name, "enhance.") + name for name in flags}
    given = {keys[name]: value for name, value in flags.items() if value is not None and value != []}
    for name in ("views", "train.by_dev.sweep_lr"):
        if name in given:
            given[name] = [part.strip() for part in given[name].split(",")]
    return given


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
    shard: Shard = None,
    engine: Engine = None,
    workers: Workers = None,
    estimate: Estimate = False,
    backend: Backend = None,
    method: Method = None,
    sweep_lr: SweepLr = None,
    seed: Seed = None,
    start: Start = None,
    until: Until = None,
    restart: Restart = None,
) -> None:
    """The whole pipeline: split, enhance, curate, train, validate; --source generates first, --hub-id publishes."""
    flags = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
    from socratune.cli import commands

    if estimate:
        raise typer.Exit(commands.estimate(_given(flags), config, settings, (start, until, restart)))
    raise typer.Exit(commands.run(_given(flags), config, settings, start=start, until=until, restart=restart))


_NOT_SETTINGS = ("config", "settings", "start", "until", "restart", "estimate")


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

    flags = {"model": "demo", "dataset": "demo", "output": output or "outputs/demo", "seed": seed}
    given = _given({**flags, "thinking_format": thinking_format})
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
    flags = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
    from socratune.cli import commands

    if estimate:
        raise typer.Exit(commands.estimate(_given(flags), config, settings, (None, None, restart)))
    raise typer.Exit(commands.run(_given(flags), config, settings, start=None, until="enhance", restart=restart))


@app.command()
def train(
    run: Run,
    method: Method = None,
    sweep_lr: SweepLr = None,
    backend: Backend = None,
    restart: Annotated[bool, typer.Option(help="Train anew.")] = False,
) -> None:
    """Train the adapter of a run folder (and what is missing before it)."""
    from socratune.cli import commands

    given = _given({"method": method, "sweep_lr": sweep_lr, "backend": backend})
    raise typer.Exit(commands.go_on(run, until="train", restart="train" if restart else None, given=given))


@app.command()
def validate(run: Run, restart: Annotated[bool, typer.Option(help="Ask and judge anew.")] = False) -> None:
    """Prove the adapter of a run folder on its held-out questions."""
    from socratune.cli import commands

    raise typer.Exit(commands.go_on(run, until="validate", restart="validate" if restart else None))


@app.command()
def publish(run: Run, hub_id: HubId = None) -> None:
    """Upload the adapter of a run folder that passed."""
    from socratune.cli import commands

    raise typer.Exit(commands.go_on(run, until="publish", hub_id=hub_id))


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


@app.command()
def grok_demo(
    weight_decay: Annotated[float, typer.Option(min=0, help="1 generalises late, 0 never.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the table's split and of the weights.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The phases as JSON.")] = False,
) -> None:
    """Late generalisation in seconds: a small net learns addition modulo 41. No GPU."""
    from socratune.cli import commands

    raise typer.Exit(commands.grok_demo(weight_decay, seed, as_json))


@app.command()
def report(run: Run) -> None:
    """Write the page of a run folder, report.html, anew. Every run writes it after each of its stages."""
    from socratune.cli import commands

    raise typer.Exit(commands.report(run))


@app.command()
def ui(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run folder; else the newest in outputs/.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
) -> None:
    """The report live while a run works, and the review of single traces. On this machine only."""
    from socratune.cli import commands

    raise typer.Exit(commands.ui(run, port))


@app.command()
def doctor() -> None:
    """Check this machine: Python, libraries, GPU, keys, disk. Each fault with the command that mends it."""
    from socratune.doctor import report

    raise typer.Exit(guarded(report))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    try:
        app(args=argv, prog_name="socratune")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0

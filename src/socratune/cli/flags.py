"""Flags that several commands take, each with its help, and the settings they stand for."""

from __future__ import annotations

from typing import Annotated, Any

import typer

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
ReportTo = Annotated[str | None, typer.Option(help="wandb,mlflow,trackio: curves go there too.")]
Rounds = Annotated[int | None, typer.Option(help="Loop and training so often, each with the student of the last.")]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="Only every N-th row; socratune merge joins the parts.")]
Engine = Annotated[str | None, typer.Option(help="here (default) or ray.")]
Workers = Annotated[int | None, typer.Option(help="Ray actors.")]
Place = Annotated[str | None, typer.Option("--where", help="auto (default), local, runpod or sky.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan: memory, time, money, where. Write nothing.")]
Estimate = Annotated[bool, typer.Option("--estimate", help="Try 20 rows and say what all would take; no more.")]
Backend = Annotated[str | None, typer.Option(help="Who trains: auto (default), hf or unsloth.")]
Gpus = Annotated[str | None, typer.Option(metavar="N|all", help="Cards of this machine that train together.")]
Method = Annotated[str | None, typer.Option(help="sft (default) or dpo, on preference pairs.")]
SweepLr = Annotated[str | None, typer.Option(metavar="X,Y,…", help="Multiples of the learning rate; dev chooses.")]
Seed = Annotated[int | None, typer.Option(help="Of sampling, training and resampling.")]
Start = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="First stage to run.")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="Last stage to run.")]
Restart = Annotated[str | None, typer.Option(metavar="STAGE", help="Redo this stage and all behind it.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")]

NOT_SETTINGS = ("config", "settings", "start", "until", "restart", "estimate", "dry_run")
"""Flags of a command that are no setting of the run."""
_TOP = ("model", "dataset", "output", "hub_id", "seed", "views", "report_to", "rounds", "shard", "engine", "workers")
_SPLIT = ("held_out", "eval_file", "on_bad_row")


def given_by(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags that were given, by their dotted key; what belongs nowhere else is a setting of the loop."""
    section = {**dict.fromkeys(_TOP, ""), **dict.fromkeys(_SPLIT, "split."), "backend": "train."}
    section |= {"place": "where.", "gpus": "where."}
    section |= {"method": "train.", "sweep_lr": "train.by_dev."}
    section |= dict.fromkeys(("source", "writer_model", "writer_api_base"), "generate.")
    keys = {name: section.get(name, "enhance.") + name for name in flags}
    given = {keys[name]: value for name, value in flags.items() if value is not None and value != []}
    for name in ("views", "report_to", "train.by_dev.sweep_lr"):
        if name in given:
            given[name] = [part.strip() for part in given[name].split(",")]
    return given

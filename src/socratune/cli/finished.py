"""The commands about a run that is finished: its page, its proof, its publication, its adapter in other forms."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from socratune.cli.flags import Json, Run, Settings


def publish(
    given: dict[str, Any],
    run: Run,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files and cards without using the network.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Publish an adapter that did not pass, with a warning in its card.")
    ] = False,
) -> None:
    """Upload the adapter of a run that passed, in one commit with its card and results."""
    from socratune.cli import publishing

    raise typer.Exit(publishing.publish_command(run, given, dry_run=dry_run, force=force))


def verify(
    what: Annotated[str, typer.Argument(metavar="RUN|HUB-ID", help="A run folder, or an adapter on the Hub.")],
    as_json: Json = False,
) -> None:
    """Derive a run's verdict again from its answers and check all files against their hashes. Writes nothing."""
    from socratune.cli import publishing

    raise typer.Exit(publishing.verify_command(what, as_json=as_json))


def export(
    run: Run,
    to: Annotated[str, typer.Option("--to", help="merged, gguf, ollama or vllm.")],
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Output folder.  [default: RUN/export/FORMAT]")] = None,
    llama_cpp: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of llama.cpp.  [default: LLAMA_CPP]")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Number of held-out questions in the parity check.")] = 32,
    min_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="The export fails below this share of equal answers.")
    ] = 0.9,
) -> None:
    """Export the adapter to another format and prove that it answers like the adapter."""
    from socratune.cli import publishing

    raise typer.Exit(publishing.export_command(run, to, out, llama_cpp, prompts=prompts, min_agreement=min_agreement))


def export_data(
    run: Run,
    trainer: Annotated[
        str, typer.Option("--for", help="trl, axolotl, llamafactory, ms-swift, unsloth; argilla, kiln.")
    ],
    settings: Settings = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Output folder.  [default: RUN/export/TRAINER]")
    ] = None,
) -> None:
    """Export the curated rows and settings for another trainer, with the same masks; or answers for people to judge."""
    from socratune.cli import publishing

    raise typer.Exit(publishing.export_data_command(run, trainer, settings, out))


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Run folders; with --bundle also folders of runs.")],
    bundle: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write a site of many runs: a list, their pages, comparisons.")
    ] = None,
    without_rows: Annotated[
        bool, typer.Option("--without-rows", help="With --bundle: only figures, no questions or answers.")
    ] = False,
) -> None:
    """Write report.html of a run folder again, or a static site of many runs."""
    from socratune.cli import publishing

    raise typer.Exit(publishing.report_command(runs, bundle, without_rows=without_rows))

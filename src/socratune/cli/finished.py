"""The commands about a run that is finished: its page, its proof, its publication, its adapter in other forms."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from socratune.cli.flags import Json, Run, Settings


def publish(
    given: dict[str, Any],
    run: Run,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files and cards; touch no network.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also what did not pass, with a warning in the card.")] = False,
) -> None:
    """Upload the adapter of a run folder that passed, in one commit with its card and results."""
    from socratune.cli import publishing

    raise typer.Exit(publishing.publish_command(run, given, dry_run=dry_run, force=force))


def verify(
    what: Annotated[str, typer.Argument(metavar="RUN|HUB-ID", help="The folder of a run, or an adapter on the Hub.")],
    as_json: Json = False,
) -> None:
    """Derive a verdict anew from its answers, and hold all files against their hashes. Writes nothing."""
    from socratune.cli import publishing

    raise typer.Exit(publishing.verify_command(what, as_json=as_json))


def export(
    run: Run,
    to: Annotated[str, typer.Option("--to", help="merged, gguf, ollama or vllm.")],
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Where; without it, RUN/export/FORMAT.")] = None,
    llama_cpp: Annotated[str | None, typer.Option(metavar="DIR", help="llama.cpp's folder, else LLAMA_CPP.")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Held-out questions of the parity check.")] = 32,
    min_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Share of equal answers below which it fails.")
    ] = 0.9,
) -> None:
    """The adapter in another form, proven to answer as the adapter does."""
    from socratune.cli import publishing

    raise typer.Exit(publishing.export_command(run, to, out, llama_cpp, prompts=prompts, min_agreement=min_agreement))


def export_data(
    run: Run,
    trainer: Annotated[
        str, typer.Option("--for", help="trl, axolotl, llamafactory, ms-swift, unsloth; argilla, kiln.")
    ],
    settings: Settings = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Where; without it, RUN/export/TRAINER.")] = None,
) -> None:
    """The curated rows and settings for another trainer, with the same masks; or the answers for people to judge."""
    from socratune.cli import publishing

    raise typer.Exit(publishing.export_data_command(run, trainer, settings, out))


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Run folders; for a bundle also folders of them.")],
    bundle: Annotated[
        str | None, typer.Option(metavar="DIR", help="A site of many runs: their list, their pages, comparisons.")
    ] = None,
    without_rows: Annotated[
        bool, typer.Option("--without-rows", help="Of a bundle: figures alone, no question and no answer.")
    ] = False,
) -> None:
    """Write the page of a run folder, report.html, anew, or a site of many runs that needs no server."""
    from socratune.cli import publishing

    raise typer.Exit(publishing.report_command(runs, bundle, without_rows=without_rows))

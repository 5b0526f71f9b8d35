"""The commands about a run that is finished: its page, its publication, its adapter in other forms."""

from __future__ import annotations

from typing import Annotated

import typer

from socratune.cli.flags import Run


def publish(
    run: Run,
    hub_id: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="The Hub repository.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Open to all; without it, private.")] = False,
    with_dataset: Annotated[bool, typer.Option("--with-dataset", help="The enhanced data set too.")] = False,
    base: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Hub name of a base that is a folder here.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files and cards; touch no network.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also what did not pass, with a warning in the card.")] = False,
) -> None:
    """Upload the adapter of a run folder that passed, in one commit with its card and results."""
    from socratune.cli import publishing

    given = {"hub_id": hub_id, "publish.base": base}
    given |= {"publish.private": False} if public else {}
    given |= {"publish.with_dataset": True} if with_dataset else {}
    given = {key: value for key, value in given.items() if value is not None}
    raise typer.Exit(publishing.publish(run, given, dry_run=dry_run, force=force))


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

    raise typer.Exit(publishing.export(run, to, out, llama_cpp, prompts=prompts, min_agreement=min_agreement))


def report(run: Run) -> None:
    """Write the page of a run folder, report.html, anew. Every run writes it after each of its stages."""
    from socratune.cli import commands

    raise typer.Exit(commands.report(run))

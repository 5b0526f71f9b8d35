"""The commands that answer until Ctrl-C, which is how they are meant to end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

import typer

from socratune.cli.console import guarded


def ui(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN|DIR]", help="A run folder, or a folder of runs; else the newest in outputs/."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
) -> None:
    """The report live while a run works, and the review of single traces. On this machine only."""
    from socratune.publishing import serve_report

    _until_stopped(lambda: serve_report(run, port, _say))


def serve(
    given: dict[str, Any],
    what: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="A model, or the folder of a run.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is every one there is.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A host name by which it may be reached, as behind a proxy. Repeatable."),
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VAR", help="Environment variable with the key that requests have to bring.")
    ] = None,
) -> None:
    """OpenAI's chat completions from a model, or from a run's base and adapter, until Ctrl-C."""
    from socratune.publishing import serve_models

    place: dict[str, Any] = {"host": host, "port": port, "key_env": api_key_env, "names": allow_host or []}
    _until_stopped(partial(serve_models, what, _say, template=given.get("chat_template"), **place))


def _until_stopped(work: Callable[[], None]) -> None:
    def run() -> int:
        with suppress(KeyboardInterrupt):
            work()
        return 0

    raise typer.Exit(guarded(run))


def _say(text: str) -> None:
    print(text, flush=True)

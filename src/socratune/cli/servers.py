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
        typer.Argument(
            metavar="[RUN|DIR]", help="A run folder or a folder of runs.  [default: the newest in outputs/]"
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8765,
) -> None:
    """Follow a run live and review single traces, on this machine only."""
    from socratune.publishing import serve_report

    _until_stopped(lambda: serve_report(run, port, _say))


def serve(
    given: dict[str, Any],
    what: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="A model or a run folder.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 means all.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A host name that requests may use, as behind a proxy. Repeatable."),
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VAR", help="Environment variable that holds the key requests must carry.")
    ] = None,
) -> None:
    """Serve a model, or a run's base and adapter, through OpenAI's chat completions API until Ctrl-C."""
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

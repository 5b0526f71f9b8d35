"""`socratune pods`: which machines are rented, and giving back those that nobody uses."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from socratune.cli.console import guarded, print_json, start_logging
from socratune.errors import Fault, Shown, UserError


def pods(
    given: dict[str, Any],
    action: Annotated[str, typer.Argument(metavar="list|adopt|reap", help="What to do.")],
    pod: Annotated[str | None, typer.Argument(metavar="[POD]", help="With adopt: the id of the pod.")] = None,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="With adopt: the run that rented it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With reap: do not ask for confirmation.")] = False,
    everywhere: Annotated[
        bool, typer.Option("--all", help="With reap: include pods rented from other computers.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With list: print everything as JSON.")] = False,
) -> None:
    """Manage rented machines: list them, give back those that nobody uses, or take one over."""
    settings = {key.removeprefix("where."): value for key, value in given.items()}

    def work() -> int:
        start_logging()
        if action == "list":
            return _list(settings, as_json=as_json)
        if action == "reap":
            return _reap(settings, everywhere=everywhere, yes=yes)
        if action == "adopt" and pod and run:
            return _adopt(settings, pod, run)
        expected = "list, reap, or adopt with the id of a pod and a run folder"
        raise UserError(Fault("pods", expected, Shown(" ".join(filter(None, (action, pod, run))))))

    raise typer.Exit(guarded(work))


def _list(settings: dict[str, str], *, as_json: bool) -> int:
    from socratune.compute import owned_pods, pod_service

    provider, where = pod_service(settings)
    found = owned_pods(provider, where)
    if as_json:
        print_json([one.to_json() for one in found])
        return 0
    for one in found:
        print(one)
    if not found:
        print(f"No machine is rented whose name begins with {where.pod_name}-.")
    return 0


def _reap(settings: dict[str, str], *, everywhere: bool, yes: bool) -> int:
    from socratune.compute import owned_pods, pod_service, reap_pods

    provider, where = pod_service(settings)
    found = owned_pods(provider, where)
    for one in found:
        print(one)
    doomed = [one for one in found if one.used == "idle" or (everywhere and one.used == "elsewhere")]
    if doomed and not yes and not _agreed(len(doomed)):
        return 1
    reap_pods(provider, doomed)
    print(f"{len(doomed)} given back.")
    return 0


def _adopt(settings: dict[str, str], pod: str, folder: str) -> int:
    from socratune.compute import adopt_pod, pod_service

    provider, _ = pod_service(settings)
    adopt_pod(provider, pod, folder)
    print(f"{pod} is {folder}'s. Go on: socratune train {folder}")
    return 0


def _agreed(count: int) -> bool:
    print(f"Give {count} of them back? What they have not handed over is lost. [y/N] ", end="", flush=True)
    try:
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        raise UserError(Fault("pods reap", "--yes, or an answer", Shown("no terminal"))) from None

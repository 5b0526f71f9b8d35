"""`socratune pods`: which machines are rented, and giving back those that nobody uses."""

from __future__ import annotations

from socratune.cli.console import guarded, start_logging
from socratune.config import WhereConfig
from socratune.errors import Fault, Shown, UserError
from socratune.resolve import validated


def pods(
    action: str, pod: str | None, folder: str | None, settings: dict[str, str], *, everywhere: bool, yes: bool
) -> int:
    """List, adopt or reap; the exit code. `settings`: of the section `where`."""

    def work() -> int:
        from socratune.remote import pods as rented
        from socratune.remote.runpod import RunPod

        start_logging()
        if action not in ("list", "adopt", "reap"):
            raise UserError(Fault("pods", "list, adopt or reap", action))
        where = validated(WhereConfig, settings, "pods")
        provider = RunPod(where.api_base)
        if action == "adopt":
            if not pod or not folder:
                raise UserError(Fault("pods adopt", "the id of a pod and a run folder", Shown("not both")))
            rented.adopt(provider, pod, folder)
            print(f"{pod} is {folder}'s. Go on: socratune train {folder}")
            return 0
        found = rented.owned(provider, where)
        for one in found:
            print(one)
        if action == "reap":
            doomed = [one for one in found if one.used == "idle" or (everywhere and one.used == "elsewhere")]
            if doomed and not yes and not _agreed(len(doomed)):
                return 1
            rented.reap(provider, doomed)
            print(f"{len(doomed)} given back.")
        elif not found:
            print(f"No machine is rented whose name begins with {where.pod_name}-.")
        return 0

    return guarded(work)


def _agreed(count: int) -> bool:
    print(f"Give back the {count} that nobody uses? What they have not handed over is lost. [y/N] ", end="", flush=True)
    try:
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        raise UserError(Fault("pods reap", "--yes, or an answer", Shown("no terminal"))) from None

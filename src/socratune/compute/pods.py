"""The rented machines of the account, seen from here: which runs they belong to, and which of them nobody uses."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratune.compute.provider import ComputeProvider, Pod
from socratune.compute.renting import FOLDER, GONE_LIMIT_S, HOST, POD_POLL_S
from socratune.compute.runpod import RunPod
from socratune.config import WhereConfig
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.resolve import validated
from socratune.runs import Journal, RunDir, at_work


@dataclass(frozen=True, slots=True)
class Owned:
    """A rented machine and who uses it: `here` (a run at work), `idle` (a run of this computer that is not at work, or
    none), `elsewhere` (a run of another computer, of which nothing is known here).
    """

    pod: Pod
    used: str
    folder: str

    def __str__(self) -> str:
        pod = self.pod
        words = {"here": "in use", "idle": "nobody uses it", "elsewhere": f"of {pod.env.get(HOST, 'another computer')}"}
        return f"{pod.id}  {pod.name}  {pod.status}  {pod.usd_per_hour:.2f} USD/h  {words[self.used]}  {self.folder}"

    def to_json(self) -> dict[str, Any]:
        """What is shown of it; not its environment, in which keys may stand."""
        pod = self.pod
        machine = {"id": pod.id, "name": pod.name, "status": pod.status, "usd_per_hour": pod.usd_per_hour}
        return {**machine, "used": self.used, "run": self.folder}


def pod_service(settings: dict[str, str]) -> tuple[ComputeProvider, WhereConfig]:
    """Who is asked, by settings of the section `where`.

    Raises:
        UserError: they are wrong, or there is no key.
    """
    where = validated(WhereConfig, settings, "pods")
    return RunPod(where.api_base), where


def owned_pods(provider: ComputeProvider, where: WhereConfig) -> list[Owned]:
    """The machines whose names begin with `where.pod_name`."""
    found = []
    for pod in provider.list():
        if pod.name.startswith(f"{where.pod_name}-"):
            folder = pod.env.get(FOLDER, "")
            used = "elsewhere"  # also of whom nothing is known: it was not rented by Socratune
            if folder and pod.env.get(HOST) == socket.gethostname():
                used = "here" if at_work(Path(folder)) else "idle"
            found.append(Owned(pod, used, folder))
    return found


def reap_pods(provider: ComputeProvider, pods: list[Owned]) -> None:
    """Give machines back, and see that they are gone.

    Raises:
        OutsideError: one is still there.
    """
    for one in pods:
        provider.terminate(one.pod.id)
    deadline = time.monotonic() + GONE_LIMIT_S
    for one in pods:
        while provider.get(one.pod.id) is not None:
            if time.monotonic() > deadline:
                raise OutsideError(f"{one.pod.id} was ended, but is still there after {GONE_LIMIT_S:g} s.")
            time.sleep(POD_POLL_S)


def adopt_pod(provider: ComputeProvider, pod_id: str, folder: str) -> Pod:
    """Have the run in `folder` go on with this machine when it is started again; for a journal that was lost.

    Raises:
        UserError: no such machine; no run there; no key to it there.
        BusyError: the run is at work.
    """
    pod, run = provider.get(pod_id), RunDir(folder)
    if pod is None:
        raise UserError(Fault("pods adopt", "the id of a pod", pod_id, "socratune pods list shows them."))
    key = run / "remote" / "id"
    if not run.config.is_file() or not key.is_file():
        got = Shown("no run folder" if not run.config.is_file() else "one without remote/id, the key to its machine")
        raise UserError(Fault(folder, "the folder of the run that rented it", got))
    with run.locked(), closing(Journal(run.journal)) as journal:
        journal.put_pod(pod.name, pod.id, "adopted", pod.usd_per_hour)
    return pod

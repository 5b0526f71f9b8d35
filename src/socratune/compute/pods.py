"""Lists the account's rented machines: which runs they belong to, and which are unused."""

from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratune.compute.provider import ComputeProvider, Pod
from socratune.compute.renting import FOLDER, HOST, await_gone
from socratune.compute.runpod import RunPod
from socratune.config import WhereConfig
from socratune.errors import Fault, Shown, UserError
from socratune.resolve import validated
from socratune.runs import Journal, RunDir, at_work


@dataclass(frozen=True, slots=True)
class Owned:
    """A rented machine and its user: `here` (a run at work), `idle` (a run of this computer that is not at work, or
    none), `elsewhere` (a run of another computer, of which nothing is known here).
    """

    pod: Pod
    used: str
    folder: str

    def __str__(self) -> str:
        pod = self.pod
        words = {"here": "in use", "idle": "unused", "elsewhere": f"of {pod.env.get(HOST, 'another computer')}"}
        return f"{pod.id}  {pod.name}  {pod.status}  {pod.usd_per_hour:.2f} USD/h  {words[self.used]}  {self.folder}"

    def to_json(self) -> dict[str, Any]:
        """Returns what is shown of it, without its environment, which may hold keys."""
        pod = self.pod
        machine = {"id": pod.id, "name": pod.name, "status": pod.status, "usd_per_hour": pod.usd_per_hour}
        return {**machine, "used": self.used, "run": self.folder}


def pod_service(settings: dict[str, str]) -> tuple[ComputeProvider, WhereConfig]:
    """Returns the provider, by settings of the section `where`.

    Raises:
        UserError: they are wrong, or there is no key.
    """
    where = validated(WhereConfig, settings, "pods")
    return RunPod(where.api_base), where


def owned_pods(provider: ComputeProvider, where: WhereConfig) -> list[Owned]:
    """Returns the machines whose names begin with `where.pod_name`."""
    owned = []
    for pod in provider.list():
        if pod.name.startswith(f"{where.pod_name}-"):
            folder = pod.env.get(FOLDER, "")
            used = "elsewhere"  # also a machine that Socratune did not rent
            if folder and pod.env.get(HOST) == socket.gethostname():
                used = "here" if at_work(Path(folder)) else "idle"
            owned.append(Owned(pod, used, folder))
    return owned


def reap_pods(provider: ComputeProvider, pods: list[Owned]) -> None:
    """Ends machines, and waits until they are gone.

    Raises:
        OutsideError: one still exists.
    """
    for owned in pods:
        provider.terminate(owned.pod.id)
    for owned in pods:
        await_gone(provider, owned.pod.id)


def adopt_pod(provider: ComputeProvider, pod_id: str, folder: str) -> Pod:
    """Makes the run in `folder` continue with this machine at its next start; for a lost journal.

    Raises:
        UserError: there is no such machine, no run in the folder, or no key to the machine.
        BusyError: the run is at work.
    """
    pod, run = provider.get(pod_id), RunDir(folder)
    if pod is None:
        raise UserError(Fault("pods adopt", "the id of a pod", pod_id, "socratune pods list shows them."))
    key = run / "remote" / "id"
    if not run.config.is_file() or not key.is_file():
        got = Shown("no run folder" if not run.config.is_file() else "one without remote/id, the key to its machine")
        raise UserError(Fault(folder, "the folder of the run that rented the machine", got))
    with run.locked(), closing(Journal(run.journal)) as journal:
        journal.put_pod(pod.name, pod.id, "adopted", pod.usd_per_hour)
    return pod

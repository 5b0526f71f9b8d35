"""Rents a machine so that it is never billed longer than needed, whatever becomes of this process.

The run's journal knows the machine's name before it is ordered and its id afterwards. A run that starts again takes
over the machine of that name. The machine ends itself after `where.max_hours`, or earlier, when its budget is spent.
When the block ends, the machine is ended, and the provider is asked until it reports it gone.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratune.compute.job import JobPlace
from socratune.compute.plan import SET_UP_HOURS
from socratune.compute.provider import ComputeProvider, NoCapacity, Offer, Order, Pod
from socratune.compute.runpod import RunPod
from socratune.compute.ssh import ConnectionLost, RemoteFailed, connected, make_key, tools_fault
from socratune.config import WhereConfig
from socratune.errors import Fault, OutsideError, Shown, SocratuneError, UserError
from socratune.llm import UNLIMITED, BudgetSpent, Limits
from socratune.runs import Journal, RunDir, at_work

log = logging.getLogger(__name__)

POD_READY_LIMIT_S = 900.0
"""Time limit for reaching a machine; its image, of some 10 GB, is downloaded first."""
GONE_LIMIT_S = 180.0
POD_POLL_S = 3.0
RENEWALS = 3
"""Most machines that may die under one run."""

FOLDER, HOST = "SOCRATUNE_FOLDER", "SOCRATUNE_HOST"
"""Variables in a machine's environment that tell `socratune pods` where its run is."""
HELPER = Path(__file__).parent / "onpod.py"


@contextmanager
def rented(
    run: RunDir,
    where: WhereConfig,
    journal: Journal,
    *,
    memory_gb: float,
    disk_gb: int,
    least_hours: float,
    limits: Limits,
    provider: ComputeProvider | None = None,
) -> Iterator[RentedMachine]:
    """Yields a reachable machine, this run's own if it has one, and ends it with the block.

    Args:
        memory_gb: memory that the GPUs of the machine need together.
        disk_gb: used unless `where.disk_gb` is set.
        least_hours: a machine that cannot be paid for so long is useless.
        limits: what this run's machines may cost in all.
        provider: RunPod by default.

    Raises:
        UserError: there is no key; a type of GPU does not exist; none is large or cheap enough.
        OutsideError: nothing is free now; the provider cannot be asked; the machine could not be ended.
    """
    if fault := tools_fault():
        raise UserError(fault)
    provider = provider or RunPod(where.api_base)
    needed = Needed(memory_gb, where.disk_gb or disk_gb, least_hours)
    machine = RentedMachine(run, where, journal, provider, needed, limits)
    unhandled = [kind for kind in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(kind) == signal.SIG_DFL]
    with _on_signal(signal.default_int_handler, *unhandled):
        try:
            machine.begin()
            yield machine
        finally:
            # A second Ctrl-C changes nothing, as the first is being handled.
            with _on_signal(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                machine.end()


def give_back(run: RunDir, where: WhereConfig, journal: Journal, provider: ComputeProvider | None = None) -> None:
    """Ends what an earlier process of this run has left running, by its journal.

    Raises:
        UserError: there is no key.
        OutsideError: the provider does not report that it is gone.
    """
    notes = journal.pods()
    if notes and notes[-1][3] != "ended":
        RentedMachine(run, where, journal, provider or RunPod(where.api_base), Needed(0, 0)).end()


@dataclass(frozen=True, slots=True)
class Needed:
    """What a machine must have: GB of its GPUs together, GB of disk, hours that can be paid."""

    memory_gb: float
    disk_gb: int
    least_hours: float = 0.0


class RentedMachine:
    """The rented machine of a run; `place` is our folder on it.

    When it dies, `renew` replaces it by another, which is empty.
    """

    place: JobPlace
    pod: Pod

    def __init__(
        self,
        run: RunDir,
        where: WhereConfig,
        journal: Journal,
        provider: ComputeProvider,
        needed: Needed,
        limits: Limits = UNLIMITED,
    ) -> None:
        self.folder = run / "remote"
        self._run = run
        self._where = where
        self._journal = journal
        self._provider = provider
        self._needed = needed
        self._limits = limits
        self._connection = ExitStack()
        self._renewals = 0
        notes = journal.pods()  # of a folder that was copied, they may be another run's
        left = notes and notes[-1][3] != "ended"
        self._name = notes[-1][1] if left else f"{where.pod_name}-{secrets.token_hex(4)}"
        self._has_key = (self.folder / "id").exists()
        self._public_key = make_key(self.folder / "id", self._name)

    def begin(self) -> None:
        """Takes over this run's machine, or rents one."""
        self.pod = self._adopted() or self._rented()

    def renew(self, reason: OutsideError) -> None:
        """Connects again, or rents another machine if this one is gone or out of reach.

        Args:
            reason: why it seems lost; raised after `RENEWALS` machines.

        Raises:
            BudgetSpent: it has ended itself, since its budget is spent.
        """
        now = self._provider.get(self.pod.id)
        if now is not None and now.status == "running" and now.host is not None:
            with suppress(ConnectionLost):
                self._reach(now)
                return
        self._renewals += 1
        until = self._until(self.pod)
        over = time.time() >= until
        if over and until < self._began(self.pod) + self._where.max_hours * 3600:
            text = f"The rented machine has ended itself before the limit of {self._limits.usd:.6g} USD for it."
            raise BudgetSpent(f"{text} Raise the limit to continue: {self._limits.raised_by}.") from reason
        if over or self._renewals > RENEWALS:
            raise reason
        log.warning("The rented machine %s is lost (%s). Renting another.", self.pod.id, reason)
        self._end(self.pod)
        self.pod = self._rented()

    def _began(self, pod: Pod) -> float:
        """Returns when the journal first recorded the machine, in seconds since 1970."""
        return next((at for at, _, pod_id, _, _ in self._journal.pods() if pod_id == pod.id), time.time())

    def _until(self, pod: Pod) -> float:
        """Returns when a machine ends itself, in seconds since 1970; recorded at the first call."""
        notes = self._journal.pods()
        if noted := [at for at, _, pod_id, state, _ in notes if (pod_id, state) == (pod.id, "until")]:
            return noted[0]
        others = spent_usd([note for note in notes if note[2] != pod.id], self._where.max_hours)
        until = self._began(pod) + 3600 * paid_hours(pod.usd_per_hour, self._where, others, self._limits.usd)
        self._journal.put_pod(self._name, pod.id, "until", pod.usd_per_hour, at=until)
        return until

    def end(self) -> None:
        """Ends every machine of this run.

        Raises:
            OutsideError: the provider does not report that they are gone.
        """
        failed: SocratuneError | None = None
        with suppress(OSError):
            self._connection.close()
        try:
            notes = self._journal.pods()
            own = self._own() if notes else []
            for pod_id in unended(notes) - {pod.id for pod in own}:  # it ended itself
                self._journal.put_pod(self._name, pod_id, "ended", 0)
            for pod in own:
                try:
                    self._end(pod)
                except SocratuneError as error:
                    failed = failed or error
            if failed:
                raise failed
        except SocratuneError as error:
            fix = f"Look at https://console.runpod.io/pods, or run: socratune pods reap ({self._name})"
            raise OutsideError(f"The rented machine may still run, and cost money: {error} {fix}") from error
        shutil.rmtree(self.folder, ignore_errors=True)

    def _own(self) -> list[Pod]:
        """Returns the machines of this run's name, without those on which another folder's run is at work."""
        here = str(self._run.root.resolve())
        return [
            pod
            for pod in self._provider.list()
            if pod.name == self._name and (pod.env.get(FOLDER, here) == here or not at_work(Path(pod.env[FOLDER])))
        ]

    def _adopted(self) -> Pod | None:
        """Returns the machine that an earlier process of this run has left; others of its name are ended."""
        notes, adopted = self._journal.pods(), None
        pods = self._own() if notes else []
        for pod_id in unended(notes) - {pod.id for pod in pods}:  # it ended itself, or was ended
            self._journal.put_pod(self._name, pod_id, "ended", 0)
        for pod in pods:
            usable = adopted is None and pod.status != "ended" and self._has_key
            if usable and (ready := self._when_ready(pod)):
                log.info("Continuing with the rented machine %s.", pod.id)
                self._note(pod, "adopted")
                adopted = ready
            else:
                self._end(pod)
        return adopted

    def _rented(self) -> Pod:
        where, refusals = self._where, []
        offers = self._provider.offers(where.gpu_count, where.cloud)
        spent = spent_usd(self._journal.pods(), where.max_hours)
        # It is unknown how much of the training remains after earlier machines.
        least = SET_UP_HOURS if spent else self._needed.least_hours
        for offer in affordable(offers, where, self._needed.memory_gb, least, spent, self._limits):
            hours = paid_hours(offer.usd_per_hour, where, spent, self._limits.usd)
            text = "Renting %d x %s for %.2f USD an hour; it ends itself after %.3g hours."
            log.info(text, where.gpu_count, offer.name, offer.usd_per_hour, hours)
            self._journal.put_pod(self._name, None, "wanted", offer.usd_per_hour)
            try:
                pod = self._provider.create(self._order(offer))
            except NoCapacity as error:
                refusals.append(f"{offer.name}: {error}")
                continue
            self._note(pod, "rented")
            for twin in self._own():  # an order whose answer was lost was repeated
                if twin.id != pod.id:
                    self._end(twin)
            if ready := self._when_ready(pod):
                return ready
            refusals.append(f"{offer.name}: {pod.id} could not be reached within {POD_READY_LIMIT_S:g} s.")
            self._end(pod)
        text = "No machine could be rented. Try later, or name more types of GPU in where.preferred_gpus."
        raise OutsideError("\n".join([text, *refusals]))

    def _order(self, offer: Offer) -> Order:
        where = self._where
        env = {"PUBLIC_KEY": self._public_key, FOLDER: str(self._run.root.resolve()), HOST: socket.gethostname()}
        disk_gb = self._needed.disk_gb
        return Order(self._name, offer.gpu, where.gpu_count, where.image, disk_gb, where.cloud, env)

    def _when_ready(self, pod: Pod) -> Pod | None:
        """Returns the pod once it can be reached; None if it ended, or took too long."""
        deadline = time.monotonic() + POD_READY_LIMIT_S
        while time.monotonic() < deadline:
            now = self._provider.get(pod.id)
            if now is None or now.status == "ended":
                return None
            if now.host is not None:
                try:
                    self._reach(now)
                    return now
                except ConnectionLost as error:
                    log.info("%s Its SSH server may be starting.", error)
                except RemoteFailed as error:
                    log.warning("The machine %s is unusable: %s", pod.id, error)
                    return None
            time.sleep(POD_POLL_S)
        return None

    def _reach(self, pod: Pod) -> None:
        """Connects, sends our helper, and starts the dead man's timer."""
        assert pod.host is not None
        self._connection.close()
        known = self.folder / f"{pod.id}.known_hosts"
        ssh = self._connection.enter_context(connected(pod.host, pod.port, pod.user, self.folder / "id", known))
        base = f"{ssh.run(['printenv', 'HOME']).strip().rstrip('/')}/socratune"
        ssh.run(["mkdir", "-p", base])
        ssh.run(["sh", "-c", "command -v rsync || (apt-get update && apt-get install --yes rsync)"], timeout_s=300)
        ssh.push([HELPER], base)
        self.place = JobPlace(ssh, base)
        self.place.helper("watch", f"{max(self._until(pod) - time.time(), 0):.0f}", self._where.api_base)

    def _end(self, pod: Pod) -> None:
        """Ends a machine, and waits until it is gone."""
        self._provider.terminate(pod.id)
        await_gone(self._provider, pod.id)
        self._note(pod, "ended")
        log.info("The rented machine %s is given back.", pod.id)

    def _note(self, pod: Pod, state: str) -> None:
        self._journal.put_pod(self._name, pod.id, state, pod.usd_per_hour)


def await_gone(provider: ComputeProvider, pod_id: str) -> None:
    """Waits until a machine that was ended is gone.

    Raises:
        OutsideError: it still exists after `GONE_LIMIT_S`.
    """
    deadline = time.monotonic() + GONE_LIMIT_S
    while provider.get(pod_id) is not None:
        if time.monotonic() > deadline:
            raise OutsideError(f"{pod_id} was ended, but still exists after {GONE_LIMIT_S:g} s.")
        time.sleep(POD_POLL_S)


def paid_hours(usd_per_hour: float, where: WhereConfig, spent_usd: float, limit_usd: float | None) -> float:
    """Returns the hours for which a machine can be paid, at most `where.max_hours`."""
    if limit_usd is None or not usd_per_hour:
        return where.max_hours
    return min(where.max_hours, max(limit_usd - spent_usd, 0.0) / usd_per_hour)


def affordable(
    offers: list[Offer], where: WhereConfig, memory_gb: float, least_hours: float, spent_usd: float, limits: Limits
) -> list[Offer]:
    """Returns the offers to try, in the order of `where.preferred_gpus`.

    Raises:
        UserError: a type does not exist; none is large enough, or none can be paid for `least_hours`.
        OutsideError: none is in stock.
    """
    usable, dear, small, sold_out, unknown = [], [], [], [], []
    for name in where.preferred_gpus:
        offer = next((o for o in offers if name.lower() in (o.name.lower(), o.gpu.lower())), None)
        if offer is None:
            unknown.append(name)
            continue
        least = min(least_hours, where.max_hours)
        if offer.memory_gb * where.gpu_count < memory_gb:
            small.append(f"{name} {offer.memory_gb:g} GB")
        elif paid_hours(offer.usd_per_hour, where, spent_usd, limits.usd) < least:
            least_usd = offer.usd_per_hour * least
            dear.append(f"{name} {least_usd:.2f} USD" + (f" beside {spent_usd:.2f} spent" if spent_usd else ""))
        elif offer.stock == "NONE":
            sold_out.append(name)
        else:
            usable.append(offer)
    if usable:
        return usable
    if sold_out:
        fix = "Try later, or name more types in where.preferred_gpus."
        raise OutsideError(f"No machine is free with {where.gpu_count} x {' or '.join(sold_out)}. {fix}")
    faults = []
    if dear:
        expected = f"at most {limits.usd:.6g} USD for the {least_hours:.2g} hours or more that are needed"
        fix = f"Raise the limit to continue: {limits.raised_by}."
        faults.append(Fault("budget.where", expected, Shown(", ".join(dear)), fix))
    if small:
        expected = f"GPUs with {memory_gb:.0f} GB together"
        fix = "Name larger ones, or raise where.gpu_count."
        faults.append(Fault("where.preferred_gpus", expected, Shown(", ".join(small)), fix))
    if unknown:
        expected = f"types of GPU in the {where.cloud} cloud, {where.gpu_count} per machine"
        known = "Available types: " + ", ".join(sorted(offer.name for offer in offers)) + "."
        faults.append(Fault("where.preferred_gpus", expected, Shown(", ".join(unknown)), known))
    raise UserError(*faults)


Note = tuple[float, str, str | None, str, float]
"""The journal's record of a machine."""


def spent_usd(notes: list[Note], max_hours: float) -> float:
    """Returns what the machines of a run have cost so far, by their price and the journal's clock. None runs longer
    than its recorded end, or else than `max_hours`. A machine whose order was not recorded, because the process was
    killed, counts from when it was taken over.
    """
    began = {pod_id: (at, usd) for at, _, pod_id, state, usd in reversed(notes) if state in ("rented", "adopted")}
    ended, until = (
        {pod_id: at for at, _, pod_id, state, _ in notes if state == wanted} for wanted in ("ended", "until")
    )
    paid = 0.0
    for pod_id, (at, usd) in began.items():
        last = min(ended.get(pod_id, time.time()), until.get(pod_id, at + max_hours * 3600))
        paid += max(last - at, 0.0) / 3600 * usd
    return paid


def unended(notes: list[Note]) -> set[str]:
    """Returns the ids of the machines that may still run."""
    of = {state: {pod_id for _, _, pod_id, noted, _ in notes if noted == state} for state in ("rented", "ended")}
    return {pod_id for pod_id in of["rented"] - of["ended"] if pod_id}


@contextmanager
def _on_signal(handler: Any, *kinds: signal.Signals) -> Iterator[None]:
    """Handles these signals until the block ends. Only a process's main thread can do so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {kind: signal.signal(kind, handler) for kind in kinds}
    try:
        yield
    finally:
        for kind, old in before.items():
            signal.signal(kind, old)

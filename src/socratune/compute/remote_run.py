"""Runs the parts of a run that need its model on a machine that is rented for them.

    enhance     the student answers there, behind a tunnel; loop, judge, teacher and their keys stay here
    train       the same command runs there; checkpoints and adapter are fetched as they are made
    validate    base and adapter answer there; the answers are judged here

The machine is rented when the first of them begins and ended with the run, however it ends.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from socratune.compute import job
from socratune.compute.decision import Placement
from socratune.compute.plan import SET_UP_HOURS, training_hours
from socratune.compute.renting import RentedMachine, give_back, rented, spent_usd
from socratune.compute.shipping import base_folder, fetch_checked, outfit, replace
from socratune.compute.ssh import ConnectionLost
from socratune.compute.train_there import LAST_LINES, keys_for, train_remotely
from socratune.config import RunConfig
from socratune.errors import OutsideError
from socratune.evaluation import answering_manner, exam_files, exam_papers, no_judge, recorded_answers
from socratune.llm import VLLM_ENVIRONMENT, Base, Limits, is_well, told_by_log, vllm_arguments
from socratune.runs import Journal, RunDir, StageResult, Tick
from socratune.teaching import ServedStudent, served_student

log = logging.getLogger(__name__)

READY_LIMIT_S = 3600.0
"""Time limit for a student to answer there; its weights are downloaded first."""
_POLL_S = 1.0
SPARE_DISK_GB, DISK_A_WEIGHT = 40, 4.5
"""Disk for libraries and checkpoints; and a multiple of the weights' memory, which may be in 4 bits while the files are
in 16."""
LOCATION = """import sys
from socratune import model_location
print(model_location(sys.argv[1]))"""
WHO = """import json, os, sys
os.environ.update(json.load(sys.stdin))
from socratune.inference import identity
print(json.dumps(identity(sys.argv[1], engine="vllm")))"""

Done = TypeVar("Done")


@dataclass(slots=True)
class RemoteRun:
    """A rented machine for one run. A context manager, whose end ends the machine.

    Attributes:
        results: the content of `pipeline_results.json`, as the earlier stages have left it.
        decision: determines what the machine has to hold.
        limits: called when the machine is rented; returns what it may cost.
    """

    run: RunDir
    config: RunConfig
    journal: Journal
    results: dict[str, Any]
    decision: Placement
    limits: Callable[[], Limits]
    _stack: ExitStack = field(default_factory=ExitStack)
    _rented: RentedMachine | None = None

    def __enter__(self) -> RemoteRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends the machine, if one was rented.

        Raises:
            As `rented`.
        """
        self._rented = None
        try:
            self._stack.close()
            give_back(self.run, self.config.where, self.journal)  # an earlier process may have left one
        finally:
            if notes := self.journal.pods():
                usd = round(spent_usd(notes, self.config.where.max_hours), 4)
                self.results["rented"] = {"machine": notes[-1][1], "usd": usd}

    @property
    def machine(self) -> RentedMachine:
        """Returns the machine, rented at the first call.

        Raises:
            As `rented`.
        """
        if self._rented is None:
            fit = self.decision.fit
            disk_gb = round(SPARE_DISK_GB + DISK_A_WEIGHT * fit.gib["weights"])
            trained = self.results["stages"].get("train", {}).get("status") == "done"
            hours = SET_UP_HOURS if trained else training_hours(fit)
            needed = {"memory_gb": fit.cards_gb, "disk_gb": disk_gb, "least_hours": hours, "limits": self.limits()}
            self._rented = self._stack.enter_context(rented(self.run, self.config.where, self.journal, **needed))
        return self._rented

    def with_student(self, work: Callable[[ServedStudent], Done]) -> Done:
        """Returns the result of `work` with the student there. If the machine dies, repeats it from the journal.

        Raises:
            OutsideError: the student did not start, or ended by itself; or as `work`.
        """
        machine = self.machine
        while True:
            try:
                with self._student() as served:
                    return work(served)
            except OutsideError as error:
                if self._answers():
                    raise
                machine.renew(error)

    def train(self, tick: Tick) -> StageResult:
        """Trains there, otherwise as `stages.train_adapter`.

        Raises:
            As `train_remotely`.
        """
        return train_remotely(self.run, self.config, self.machine, results=self.results, tick=tick)

    def take_exam(self) -> None:
        """Makes base and adapter answer there, unless `exam.jsonl` and `exam.json` hold the answers already.

        Raises:
            OutsideError: it did not end well there.
        """
        taken = self._is_taken() or not self.run.rows("held_out").stat().st_size  # which validate refuses
        while not taken:
            try:
                self._take_exam()
                taken = True
            except ConnectionLost as error:
                self.machine.renew(error)
        self.end()  # judging may take long, and needs no machine

    def _is_taken(self) -> bool:
        config, proof = self.config, self.config.validate_
        base = Base(config.model, config.train.load_in_4bit, config.seed)
        papers = {paper.name: paper for paper in exam_papers(self.run, proof, no_judge)}
        manner = answering_manner(base, proof, config.enhance)
        return recorded_answers(self.run, papers, manner, base, proof) is not None

    def _take_exam(self) -> None:
        machine = self._outfitted()
        own = exam_files(self.run, self.config.validate_)
        outgoing = machine.folder / "outgoing"
        missing = [name for name in own if not (self.run.root / name).exists()]  # the user's own files
        questions = [outgoing / name for name in missing]
        for path in questions:
            shutil.copyfile(own[path.name], path)
        machine.place.ssh.push([self.run.adapter, *questions], f"{machine.place.base}/run")
        self._attended("exam", ["validate", "run", "--answers-only"])
        fetched = machine.folder / "fetched"
        for path in fetch_checked(machine.place, ["exam.jsonl", "exam.json"], fetched):
            replace(fetched / "run" / path, self.run.root / path)

    def _attended(self, name: str, command: list[str]) -> None:
        """Starts a job there, or follows a running one, until it has ended well."""
        machine, lines = self.machine, []

        def hear(line: str) -> None:
            lines.append(line)
            log.info("%s: %s", machine.pod.name, line)

        job.start_job(machine.place, name, self._socratune(*command), keys_for(self.config.where))
        copy = machine.folder / f"{machine.pod.id}.{name}.log"
        code = job.attend_job(machine.place, name, copy, hear=hear, meanwhile=lambda: None)
        if code != 0:
            job.raise_as_there(name, code, "\n".join(lines[-LAST_LINES:]))

    def _outfitted(self) -> RentedMachine:
        """Returns the machine with Socratune and what a stage there needs of the run folder."""
        machine = self.machine
        outfit(machine.place, self.run, self.config, self.results, machine.folder)
        return machine

    def _socratune(self, *command: str) -> list[str]:
        return [f"{self.machine.place.base}/python/bin/python", "-m", "socratune", *command]

    def _python(self, program: str, *args: str, stdin: str = "") -> str:
        """Runs a program there that imports Socratune's modules, and returns its output."""
        place = self.machine.place
        return place.ssh.run([f"{place.base}/python/bin/python", "-c", program, *args], stdin=stdin)

    # --- the student -----------------------------------------------------------------------------------------------

    @contextmanager
    def _student(self) -> Iterator[ServedStudent]:
        machine = self._outfitted()
        port = 20_000 + secrets.randbelow(12_000)  # below the ports that systems choose themselves
        by_vllm = self._has_vllm(machine)
        model = f"{machine.place.base}/model" if base_folder(self.config) else self.config.model
        if by_vllm:
            settings = ["-u", "VLLM_API_KEY", *(f"{name}={value}" for name, value in VLLM_ENVIRONMENT.items())]
            location = self._python(LOCATION, model).strip()  # of the embedded model, where it is there
            more = self.config.enhance.vllm_args
            command = ["env", *settings, "vllm", *vllm_arguments(location, model, port, more)]
        else:
            command = self._socratune("serve", "run", "--port", str(port))
        job.stop_job(machine.place, "student")
        job.start_job(machine.place, "student", command, keys_for(self.config.where))
        try:
            with machine.place.ssh.tunnel(port) as here:
                self._await(machine, here)
                base = f"http://127.0.0.1:{here}/v1"
                if not by_vllm:
                    yield served_student(base)
                else:
                    keys = json.dumps(keys_for(self.config.where))
                    yield ServedStudent(base, model, json.loads(self._python(WHO, model, stdin=keys)))
        finally:
            with suppress(OutsideError):  # the machine may be gone, and the block's own error matters more
                job.stop_job(machine.place, "student")

    def _has_vllm(self, machine: RentedMachine) -> bool:
        chosen = self.config.where.student_server
        if chosen != "auto":
            return chosen == "vllm"
        return bool(machine.place.ssh.run(["sh", "-c", "command -v vllm || :"]).strip())

    def _await(self, machine: RentedMachine, port: int) -> None:
        """Waits until the student answers through the tunnel."""
        deadline = time.monotonic() + READY_LIMIT_S
        while not is_well(port):
            if not json.loads(machine.place.helper("status", "student"))["running"]:
                text = "The student's server on the rented machine ended by itself."
                raise OutsideError(f"{text}\n{self._last(machine)}")
            if time.monotonic() > deadline:
                raise OutsideError(f"The student did not answer within {READY_LIMIT_S:g} s.\n{self._last(machine)}")
            time.sleep(_POLL_S)

    def _last(self, machine: RentedMachine) -> str:
        log = machine.place.ssh.run(["tail", "-c", "400000", f"{machine.place.base}/jobs/student/log"])
        return f"Its log {told_by_log(log)}"

    def _answers(self) -> bool:
        """Returns True if the machine can be reached, so that the fault is another."""
        try:
            self.machine.place.ssh.run(["true"])
        except ConnectionLost:
            return False
        return True

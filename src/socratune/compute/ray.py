"""Runs the loop in N Ray actors: each works on one shard in a folder of its own, with its part of the limits.

Ray starts the actors where there is room, and restarts one that was killed. Finished rows are in its journal, so it
resumes. In the end the run's journal takes over all journals, and later stages see no difference. All need the same run
folder: on one machine, or on a shared file system.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from socratune.config import StudentTeacherConfig
from socratune.errors import Fault, OutsideError, Shown, SocratuneError, UserError, one_line
from socratune.llm import UNLIMITED, Ledger, Limits, local_name, resolve_alias, student_of, teacher_of
from socratune.runs import (
    Journal,
    RunDir,
    StageResult,
    Tick,
    divided_limits,
    gather_shards,
    hand_out_shard,
    pool_hint_measures,
    read_jsonl,
    shard_rows,
)
from socratune.stages import pooled_figures

_RESTARTS = 3
"""How often a killed worker is restarted. One that dies four times dies of its rows or its machine."""

_POLL_S = 0.5
_STOP_S = 20.0
"""Seconds in which workers may close their journals when the run is stopped. Then they are killed, which loses only the
calls in flight."""

Work = Callable[..., Awaitable[StageResult]]
"""`work(run, config, journal=…, tick=…, limits=…)`: the loop over the rows of one folder."""

_Progress = tuple[int, dict[str, Any]]
"""Rows that a worker has finished, and what it spent by role."""


def ray_fault() -> Fault | None:
    """Returns why the engine `ray` cannot be used here, or None. Imports nothing."""
    if importlib.util.find_spec("ray") is not None:
        return None
    return Fault("engine", "the package ray, for the engine ray", Shown("none"), "Run: pip install 'socratune[ray]'")


def enhance_on_ray(
    run: RunDir,
    config: StudentTeacherConfig,
    work: Work,
    *,
    model_name: str,
    shard: str | None,
    workers: int,
    stage: str,
    tick: Tick,
    limits: Limits = UNLIMITED,
) -> dict[str, Any]:
    """Finishes every row of the run in `workers` Ray actors. Afterwards the run's journal holds all of them.

    If it fails, finished rows stay in the folders of the workers, from which `runs.gather_shards` takes them. Uses the
    Ray cluster that this process or the environment (`RAY_ADDRESS`, `ray start`) names, or else starts one on this
    machine and stops it in the end.

    Args:
        work: the loop of one shard; it travels to the actors, so it and what it is bound to must pickle.
        model_name: the model to train.
        shard: `I/N`, the part of the rows of this run; None for all.
        stage: name and fingerprint of the stage in the journal.

    Returns:
        The figures that the journal does not hold (`stages.pooled_figures`).

    Raises:
        UserError: Ray is not installed, or the cluster has fewer GPUs than workers.
        BudgetSpent: a worker reached its part of the limit; all are stopped, finished rows are kept.
        OutsideError: a worker died more than `_RESTARTS` times, or its loop raised it.
    """
    if fault := ray_fault():
        raise UserError(fault)
    shards = [f"{index}/{workers}" for index in range(1, workers + 1)]
    folders = [hand_out_shard(run, name, of=shard, stage=stage) for name in shards]
    total = sum(1 for _ in shard_rows(read_jsonl(run.rows("train_in")), shard))

    def tell(progress: list[_Progress]) -> None:
        spent = Ledger()
        for _, summary in progress:
            spent.carry_over(summary)
        tick(sum(done for done, _ in progress), total, spent=spent.summary())

    with _cluster() as ray:
        actors = _started(ray, folders, _gpus_each(ray, workers) if _runs_a_model(config, model_name) else 0)
        part = divided_limits(config, workers), limits.among(workers)
        tasks = [worker.enhance.remote(work, *part) for worker in actors]
        try:
            results = _watch(ray, actors, tasks, tell)
        finally:
            _stop(ray, actors, tasks)
    pool_hint_measures(run, folders)
    gather_shards(run)
    return pooled_figures([result.figures for result in results])


class _Worker:
    """One shard's loop, in a process of its own."""

    def __init__(self, directory: str, folder: str) -> None:
        self._directory = directory
        self._folder = folder
        self._progress: _Progress = (0, {})

    async def enhance(self, work: Work, config: StudentTeacherConfig, limits: Limits) -> StageResult | SocratuneError:
        """Returns the result of `work`. An error of ours is returned as a value, since Ray would wrap it."""
        if not Path(self._folder).is_dir():
            where = f"{self._folder} is not on {socket.gethostname()}"
            return OutsideError(f"{where}: all Ray workers need the run folder, on a shared file system.")
        os.chdir(self._directory)  # relative paths mean what they mean where the run was started
        run = RunDir(self._folder)
        try:
            with run.locked(), closing(Journal(run.journal)) as journal:
                return await work(run, config, journal=journal, tick=self._tick, limits=limits)
        except SocratuneError as error:
            return error

    async def progress(self) -> _Progress:
        return self._progress

    def _tick(self, done: int, total: int, /, **live: Any) -> None:
        self._progress = (done, live.get("spent", {}))


def _started(ray: Any, folders: list[RunDir], gpus_each: int) -> list[Any]:
    """Starts an actor for each folder, spread over the machines."""
    actor = ray.remote(_Worker).options(
        num_cpus=0,  # a worker that waits for servers needs no core of its own
        num_gpus=gpus_each,
        scheduling_strategy="SPREAD",
        max_restarts=_RESTARTS,
        max_task_retries=_RESTARTS,
    )
    return [actor.remote(str(Path.cwd()), str(folder.root.resolve())) for folder in folders]


def _watch(ray: Any, actors: list[Any], tasks: list[Any], tell: Callable[[list[_Progress]], None]) -> list[StageResult]:
    """Reports progress until each worker has its result.

    Raises:
        The error of the first worker that failed.
    """
    from ray.exceptions import RayActorError  # pyright: ignore[reportMissingImports]

    results: dict[int, StageResult] = {}
    progress: list[_Progress] = [(0, {})] * len(actors)
    at_work = {task: number for number, task in enumerate(tasks)}
    requests = {_request(actor): number for number, actor in enumerate(actors)}
    while at_work:
        for task in ray.wait(list(at_work), timeout=_POLL_S)[0]:
            try:
                result = ray.get(task)
            except RayActorError as error:
                text = f"A Ray worker ended {_RESTARTS + 1} times, the last time with: {one_line(error)}"
                raise OutsideError(text) from error
            if isinstance(result, SocratuneError):
                raise result
            number = at_work.pop(task)
            results[number], progress[number] = result, (result.rows_in, result.figures["spent"])
            ray.kill(actors[number])  # another worker may wait for its GPU
        for answer in ray.wait(list(requests), num_returns=len(requests), timeout=0)[0]:
            number = requests.pop(answer)
            if number not in results:
                with suppress(RayActorError):  # it is being restarted
                    progress[number] = ray.get(answer)
                requests[_request(actors[number])] = number
        tell(progress)
    return [results[number] for number in range(len(tasks))]


def _request(actor: Any) -> Any:
    """Requests a worker's progress."""
    return actor.progress.options(max_task_retries=0).remote()


def _stop(ray: Any, actors: list[Any], tasks: list[Any]) -> None:
    """Ends all workers. Those at work abandon their rows in flight and close their journals."""
    for task in tasks:
        ray.cancel(task)
    ray.wait(tasks, num_returns=len(tasks), timeout=_STOP_S)
    for actor in actors:
        ray.kill(actor)


@contextmanager
def _cluster() -> Iterator[Any]:
    """Yields Ray, connected to the existing cluster, or else to one of our own that ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage is reported without consent
    ray: Any = importlib.import_module("ray")
    if ray.is_initialized():
        yield ray
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # ConnectionError, RuntimeError, ValueError and others
        raise OutsideError(f"Ray does not start: {error}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts a handler of its own there
    try:
        yield ray
    finally:
        ray.shutdown()


def _runs_a_model(config: StudentTeacherConfig, model_name: str) -> bool:
    """Returns True if a worker holds a model itself, rather than asking servers only."""
    engine, _ = student_of(config, model_name)
    return engine != "http" or any(map(local_name, (resolve_alias(config.judge_model), teacher_of(config))))


def _gpus_each(ray: Any, workers: int) -> int:
    """Returns 1 if the cluster has a GPU for each worker, or 0 if it has none.

    Raises:
        UserError: there are fewer GPUs than workers.
    """
    count = int(ray.cluster_resources().get("GPU", 0))
    if 0 < count < workers:
        got = Shown(f"{workers} workers, {count} GPUs in the Ray cluster")
        raise UserError(Fault("workers", "a GPU for each worker", got, f"Use --set workers={count}."))
    return min(count, 1)

"""Trains on several GPUs of this machine: one process per GPU, started by torchrun, watched from here.

    this process ──pipe──> keeper ──> torchrun ──> rank 0, rank 1, …
          └──────── a folder: the job; ticks and log lines; the result, or each rank's error ────────┘

Every rank runs the stage `train`, and `inference.ranks` divides each step among them. The first half of this file is
the waiting process, the second the ranks.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import pickle
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from socratune.config import EnhancedTrainingConfig, RunConfig
from socratune.errors import Fault, OutsideError
from socratune.llm import child_process, end_of_log
from socratune.resolve import give_template, given_template
from socratune.runs import RunDir, StageResult, Tick, write_text

log = logging.getLogger(__name__)

_POLL_S = 0.1
_STOP_TIMEOUT_S = 15.0
KILLED = re.compile(r"Signal \d+ \(\w+\) received")
"""How torchrun reports a rank that left no error of its own."""


def gpus_fault(config: RunConfig) -> Fault | None:
    """Returns why the training cannot be shared as configured, or None."""
    if rank_count(config.where.gpus) == 1:
        return None
    import torch

    count = torch.cuda.device_count()
    if isinstance(config.where.gpus, int) and config.where.gpus > count > 0:
        return Fault("where.gpus", f"at most {count}, the GPUs of this machine", config.where.gpus, "--gpus all.")
    if config.train.backend == "unsloth":
        fix = "Take --backend hf, or one GPU."
        return Fault("where.gpus", "1 beside --backend unsloth, which trains on one GPU", config.where.gpus, fix)
    return None


def rank_count(gpus: int | str) -> int:
    """Returns the number of processes, one per GPU. Without a GPU the given number shares the CPU, to try it."""
    if gpus != "all":
        return int(gpus)
    import torch

    return max(1, torch.cuda.device_count())


def train_on_ranks(
    run: RunDir,
    config: EnhancedTrainingConfig,
    *,
    ranks: int,
    tick: Tick,
    join: Mapping[str, Any] = MappingProxyType({}),
    **arguments: Any,
) -> StageResult:
    """Runs `stages.train_adapter` in so many processes, of which none is left when this returns or raises.

    Args:
        join: arguments of `ranks.join_ranks`.
        arguments: the other arguments, all of which JSON can hold.

    Raises:
        OutsideError: a process was killed, or waited in vain for another. The same command resumes.
        Exception: the error of the first rank that failed.
    """
    _release_gpu_memory()
    log.info("%d processes train together. Their further output goes to %s.", ranks, run / "gpus.log")
    log_path = run / "gpus.log"
    with TemporaryDirectory(prefix="socratune-gpus-") as name:
        place = Path(name)
        job = {
            "run": str(run.root.resolve()),
            "config": config.model_dump(mode="json"),
            "join": dict(join),
            **arguments,
        }
        job["chat_template"] = given_template(arguments["model_name"])
        write_text(place / "job.json", json.dumps(job))
        messages = _heard(place / "told.jsonl", tick)
        with child_process(_torchrun(ranks, place), _environment(), log_path, _STOP_TIMEOUT_S) as keeper:
            while keeper.poll() is None:
                next(messages)
                time.sleep(_POLL_S)
        next(messages)
        for path in sorted(place.glob("error-*")):  # by time: the first error is the cause
            raise pickle.loads(path.read_bytes())
        if not (place / "result.json").exists():
            killed = KILLED.search(log_path.read_text("utf-8", "replace"))
            what = f"ended by itself ({killed.group()})" if killed else "ended by itself"
            text = f"One of the {ranks} training processes {what}, so the others were ended. {end_of_log(log_path)}"
            raise OutsideError(f"{text}\nRun the same command again to resume from the last checkpoint.")
        return StageResult(**json.loads((place / "result.json").read_text("utf-8")))


def _release_gpu_memory() -> None:
    """Returns the GPU memory of the loop's student, which this process would otherwise hold."""
    import torch

    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def _torchrun(ranks: int, place: Path) -> list[str]:
    here = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(ranks)]
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run"]
    return [*torchrun, *here, "--module", "socratune.stages.train_on_cards", str(place)]


def _environment() -> dict[str, str]:
    usual = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return {"OMP_NUM_THREADS": "1", **usual, **os.environ, "PYTHONSAFEPATH": "1"}


def _heard(path: Path, tick: Tick) -> Iterator[None]:
    """Passes on, at each step, the progress and log lines that rank 0 has written since the last."""
    while not path.exists():
        yield
    rest = ""
    with path.open(encoding="utf-8") as stream:
        while True:
            *lines, rest = (rest + stream.read()).split("\n")
            for line in lines:
                message = json.loads(line)
                if "log" in message:
                    logging.getLogger(message["log"]).log(message["level"], "%s", message["text"])
                else:
                    tick(message["done"], message["total"], **message["live"])
            yield


class _Telling(logging.Handler):
    """Writes rank 0's ticks and log lines for `_heard`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._stream = path.open("a", encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        self._tell({"log": record.name, "level": record.levelno, "text": record.getMessage()})

    def tick(self, done: int, total: int, /, **live: Any) -> None:
        self._tell({"done": done, "total": total, "live": live})

    def _tell(self, what: dict[str, Any]) -> None:
        self._stream.write(json.dumps(what) + "\n")
        self._stream.flush()


def _work(place: Path) -> None:
    """Runs the stage in step with the other ranks. Leaves an error in `place`, for `train_on_ranks`."""
    _end_with_parent()
    from socratune.inference import ranks
    from socratune.stages import train

    job = json.loads((place / "job.json").read_text("utf-8"))
    folder, config = RunDir(job.pop("run")), EnhancedTrainingConfig.model_validate(job.pop("config"))
    give_template(job["model_name"], job.pop("chat_template"))
    with _errors_left_in(place):
        ranks.join_ranks(**job.pop("join"))
        tick: Tick = _silent
        if ranks.leads():
            telling = _Telling(place / "told.jsonl")
            logging.basicConfig(handlers=[telling], level=logging.WARNING)
            logging.getLogger("socratune").setLevel(logging.INFO)
            tick = telling.tick
        result = train.train_adapter(folder, config, tick=tick, **job)
        if ranks.leads():
            write_text(place / "result.json", json.dumps(asdict(result)))
        ranks.leave()


@contextmanager
def _errors_left_in(place: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        traceback.print_exc()
        if not _is_about_another_rank(error):
            error.add_note("".join(traceback.format_exception(error)))
            try:
                left = pickle.dumps(error)
                pickle.loads(left)
            except Exception:  # a library's error that cannot be unpickled
                left = pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))
            temporary = place / f".{os.getpid()}.tmp"
            temporary.write_bytes(left)
            temporary.rename(place / f"error-{time.time_ns()}")
        sys.stderr.flush()
        os._exit(1)  # an orderly end would wait for the others


def _is_about_another_rank(error: BaseException) -> bool:
    """Returns True if an exchange failed because another rank is gone, or late beyond patience."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def _silent(done: int, total: int, /, **live: Any) -> None:
    pass


def _end_with_parent() -> None:
    """Ends this rank with torchrun, which put it into a session of its own and would leave it behind when killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _work(Path(sys.argv[1]))

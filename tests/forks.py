"""Runs the command in forks of a process that has imported the large libraries, which takes ten seconds of a core.

A line of standard input begins a command: its entry, words, environment, folder, and the files for its output; the
answer is its pid. Or the line is such a pid, and the answer its exit code once it has ended.
"""

import atexit
import gc
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import loguru  # noqa: F401
import peft.utils.transformers_weight_conversion  # noqa: F401
import rich.console  # noqa: F401
import torch
import torch.distributed.fsdp
import torch.utils.tensorboard
import transformers.models.llama.modeling_llama  # noqa: F401

import socratune.cli.commands
import socratune.cli.inspection
import socratune.inference.decoding.growing
import socratune.inference.decoding.slots
import socratune.inference.decoding.whole
import socratune.pipeline
import socratune.publishing.report
import socratune.stages.curate
import socratune.stages.train
import socratune.stages.train_on_cards
import socratune.stages.validate
import socratune.training.engine
from socratune.cli.app import main


def rank() -> int:
    """One of the processes that train together, as torchrun starts them; see `stages.train_on_cards`."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # which torch has read when it was imported
    socratune.stages.train_on_cards._work(Path(sys.argv[1]))
    return 0


ENTRIES = {"socratune": main, "rank": rank}


def work(job: dict[str, Any]) -> None:
    """Be the process of the command; never returns."""
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, name in enumerate((os.devnull, job["stdout"], job["stderr"])):
            os.dup2(os.open(name, os.O_RDWR), number)
        os.environ.clear()
        os.environ.update(job["environment"])
        os.chdir(job["folder"])
        sys.argv = [job["entry"], *job["words"]]
        code = ENTRIES[job["entry"]]()
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # to take the libraries apart would copy their pages


signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; pytest ends this process
gc.collect()
gc.freeze()  # no fork looks through the libraries' objects again, which would copy their pages too
for line in sys.stdin:
    if isinstance(job := json.loads(line), int):
        ended, status = os.waitpid(job, os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if ended else None), flush=True)
    elif child := os.fork():
        print(child, flush=True)
    else:
        work(job)

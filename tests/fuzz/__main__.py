"""Random input for every door through which other people's bytes come in: `make fuzz`, or

    python tests/fuzz [TARGET …] [--minutes 10] [--seed N] [--keep]

The targets and what must hold of them stand in `targets.py`; `runs` damages files of a finished run folder and then
gives commands (`folders.py`). The minutes are shared out among the targets, a third of them to `runs`. Prints how many
examples each had, the slowest one, and the smallest input of every kind of fault; `--keep` appends those to
`tests/samples/fuzz/TARGET.jsonl`, which `tests/test_fuzz_cases.py` tries again. Exits with 1 where a fault was found.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import sys
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))

from fuzz import folders  # noqa: E402
from fuzz.strategies import STRATEGIES  # noqa: E402
from fuzz.targets import TARGETS, Broken, try_case  # noqa: E402
from hypothesis import HealthCheck, Phase, errors, given, seed, settings  # noqa: E402

SHRINKING_S = 20.0
"""For making one fault's input smaller."""
SHARE_OF_RUNS = 1 / 3


@dataclass
class Found:
    """What came of a target."""

    examples: int = 0
    slowest_s: float = 0.0
    slowest: Any = None
    faults: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """Kind → smallest case, and what went wrong."""


def main() -> int:
    """Fuzz, and say what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"{', '.join([*TARGETS, 'runs'])}; all without one"
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None  # an alarm that rings inside of a garbage collection rings again
    chosen = options.targets or [*TARGETS, "runs"]
    several = [name for name in chosen if name != "runs"]
    runs_s = options.minutes * 60 * ((SHARE_OF_RUNS if several else 1) if "runs" in chosen else 0)
    each_s = (options.minutes * 60 - runs_s) / max(1, len(several))
    TARGETS["settings"]({"yaml": ""})  # so that no case pays for what the libraries take to load
    print(f"{options.minutes:g} minutes, seed {options.seed}", flush=True)
    bad = 0
    for name in chosen:
        found = fuzz_runs(runs_s, options.seed) if name == "runs" else fuzz(name, each_s, options.seed)
        bad += len(found.faults)
        report(name, found)
        if options.keep:
            keep(name, found)
    return 1 if bad else 0


def fuzz(name: str, seconds: float, first_seed: int) -> Found:
    """One target for so long."""
    found, until = Found(), time.monotonic() + seconds
    turn = first_seed
    while time.monotonic() < until:
        turn += 1
        round_of(name, found, until, turn)
    return found


def round_of(name: str, found: Found, until: float, turn: int) -> None:
    """Examples until one shows a fault of a kind that is not known yet, whose input is then made smaller."""
    shrinking: dict[str, float] = {}
    known = set(found.faults)

    def once(case: Any) -> None:
        if time.monotonic() > (until if not shrinking else min(shrinking.values()) + SHRINKING_S):
            return
        found.examples += 1
        try:
            took = try_case(name, case)
        except Exception as error:
            kind = kind_of(error)
            if kind in known:
                return
            shrinking.setdefault(kind, time.monotonic())
            smallest = found.faults.get(kind)
            if smallest is None or size_of(case) < size_of(smallest[0]):
                found.faults[kind] = (case, told(error))
            raise
        if took > found.slowest_s:
            found.slowest_s, found.slowest = took, case

    rules = settings(
        max_examples=2000,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        print_blob=False,
        report_multiple_bugs=False,
    )
    try:
        seed(turn)(rules(given(STRATEGIES[name])(once)))()
    except (errors.Flaky, errors.HypothesisException):  # the time for shrinking was over
        pass
    except Exception:
        if not shrinking:
            raise


def size_of(case: Any) -> int:
    return len(json.dumps(case))


def kind_of(error: BaseException) -> str:
    """Faults of one kind come out of the same place in the same way."""
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    ours = [frame for frame in frames if "/socratune/" in frame.filename] or frames
    where = f"{Path(ours[-1].filename).name}:{ours[-1].name}"
    said = re.sub(r"-?\d+", "N", str(error).split(":")[0][:40]) if isinstance(error, Broken) else ""
    last = (
        str(error).strip().splitlines()[-1].split(":")[0] if isinstance(error, Broken) and "exit code" in said else ""
    )
    return f"{type(error).__name__} {said or 'in'} {where} {last}".strip()


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[-600:]


def fuzz_runs(seconds: float, first_seed: int) -> Found:
    """Damaged run folders for so long."""
    found, until, draw = Found(), time.monotonic() + seconds, random.Random(first_seed)
    with folders.finished_folder() as run:
        until = max(until, time.monotonic() + seconds / 2)  # making the run takes its time too
        while time.monotonic() < until:
            case = folders.drawn(draw, run)
            found.examples += 1
            began = time.monotonic()
            try:
                folders.try_damage(case, run)
            except Broken as error:
                last = str(error).strip().splitlines()[-1]
                kind = f"{case['command']} with {case['file']}: {last.split(':')[0][:40]}"
                if kind not in found.faults:
                    found.faults[kind] = (case, told(error))
            if (took := time.monotonic() - began) > found.slowest_s:
                found.slowest_s, found.slowest = took, case
    return found


def report(name: str, found: Found) -> None:
    """Print what came of a target."""
    took = f"the slowest {found.slowest_s * 1000:.0f} ms"
    print(f"{name:<9} {found.examples:>7} examples, {took}; {len(found.faults)} kinds of fault")
    if found.slowest is not None:
        print(f"          slowest: {json.dumps(found.slowest)[:160]}")
    for kind, (case, text) in found.faults.items():
        print(f"  ! {kind}\n      {json.dumps(case)[:700]}\n      {text.strip()[-400:]}")
    sys.stdout.flush()


def keep(name: str, found: Found) -> None:
    """Append the smallest inputs to the corpus."""
    path = TESTS / "samples" / "fuzz" / f"{name}.jsonl"
    there = path.read_text("utf-8").splitlines() if path.exists() else []
    new = [json.dumps({"case": case, "was": kind}) for kind, (case, _) in found.faults.items()]
    path.write_text("".join(line + "\n" for line in dict.fromkeys([*there, *new])), "utf-8")


if __name__ == "__main__":
    sys.exit(main())

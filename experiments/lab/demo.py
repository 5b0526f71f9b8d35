"""The pipeline on the laboratory's base, and on a data set that nobody can learn: five minutes on two cores.

    python experiments/lab/demo.py                                # `make lab`; the runs are in outputs/lab
    python experiments/lab/demo.py --seed 1 --set train.r=8       # other flags go to `socratune run`, for both runs

The first run has to pass, and the gate has to refuse the second one for want of a gain; else the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lab
from hopeless import plant_hopeless, refused_for_no_gain

from socratune.cli.app import main as socratune
from socratune.errors import UserError

HOPELESS_ROWS = (120, 120)
"""Trained on, held out."""


def run(settings: dict[str, Any], flags: Sequence[str]) -> int:
    """`socratune run` with these settings by dotted key, and with more flags; its exit code."""
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    return socratune(["run", *words, *flags])


def demo(base: Path, output: Path, seed: int, flags: Sequence[str], *, until: str | None = None) -> int:
    """Both runs; 0 where the first one passes and the gate refuses the second one for what it is.

    Args:
        base: the folder of the laboratory's base.
        output: the folder of the first run; the second one lies in it.
        flags: more of `socratune run`, for both runs.
        until: the last stage of the first run; the second one is then not begun.
    """
    last = ["--until", until] if until else []
    code = run({**lab.settings(base, output), "seed": seed}, [*flags, *last])
    if code or until:
        return code
    print("\nThe same with the answers dealt anew among the questions, which the gate must refuse:", flush=True)
    data, planted = output / "hopeless" / "data", output / "hopeless" / "run"
    plant_hopeless(data, train=HOPELESS_ROWS[0], held_out=HOPELESS_ROWS[1], seed=seed)
    code = run({**lab.settings(base, planted, data=data), "seed": seed}, flags)
    if code not in (0, 1):
        return code
    refused = refused_for_no_gain(json.loads((planted / "pipeline_results.json").read_text("utf-8")))
    print("Refused, as it has to be." if refused else "It was NOT refused for want of a gain.")
    return 0 if refused else 1


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--base", help="the folder of the laboratory's base, if it is not experiments/lab/base")
    parser.add_argument("--output", type=Path, default=Path("outputs/lab"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", metavar="STAGE", help="the last stage of the first run; no second one")
    args, flags = parser.parse_known_args()
    try:
        base = lab.base_folder(args.base)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return demo(base, args.output, args.seed, flags, until=args.until)


if __name__ == "__main__":
    sys.exit(main())

"""Twenty seeded curves of the small task, half of which should grok, for `tests/training/test_grokking.py`.

    python experiments/grokking_monitor.py OUT.jsonl        about ten minutes on one core

The expectation is set by the settings, before the run: weight decay 1 or 2 on 60 % of the table groks; no decay, decay
too weak for the run's length, or too little of the table does not. The thresholds of the monitor were chosen on modulus
41 and seed 0 alone, which is not among them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from grok_demo import measured_curve

from socratune.training.grokking import grokking_phases

GROKS = [
    (modulus, decay, seed)
    for seed, (modulus, decay) in enumerate([(31, 2.0), (37, 2.0), (41, 2.0), (43, 1.0), (47, 1.0)] * 2, 1)
]
DOES_NOT = [
    (modulus, decay, seed)
    for seed, (modulus, decay) in enumerate([(31, 0.0), (37, 0.1), (41, 0.0), (43, 0.03), (47, 0.3)] * 2, 11)
]


def main() -> None:
    """Write one JSON line per curve and print what the monitor says."""
    right = 0
    with Path(sys.argv[1]).open("w") as stream:
        for groks, settings in ((True, GROKS), (False, DOES_NOT)):
            for modulus, decay, seed in settings:
                curve = measured_curve(weight_decay=decay, seed=seed, steps=5000 if groks else 3000, modulus=modulus)
                found = grokking_phases(curve)
                right += found.delayed_generalisation == groks
                print(modulus, decay, seed, groks, asdict(found), f"{curve[-1].dev:.3f}", flush=True)
                points = [[point.step, round(point.train, 3), round(point.dev, 3)] for point in curve]
                line = {"modulus": modulus, "weight_decay": decay, "seed": seed, "groks": groks, "curve": points}
                stream.write(json.dumps(line) + "\n")
                stream.flush()
    print(f"{right} of {len(GROKS) + len(DOES_NOT)} right")


if __name__ == "__main__":
    main()

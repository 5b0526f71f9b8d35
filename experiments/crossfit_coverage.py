"""How often the interval of `validate --crossfit 5` holds the true gain, by simulation.

    python experiments/crossfit_coverage.py      # a minute on one core

A row has a difficulty, and rows of one source share a part of it. Each fold has an adapter of its own, which is better
or worse than the average of all adapters trained on as many rows of the same data. That is the gain to be held. The
spread between adapters is given in points of accuracy.

Three intervals are compared: rows alone (clustered by source, blind to folds); the five folds alone (their means, with
four degrees of freedom); and the wider of the two, which is what Socratune reports. No estimator of the variance of
k-fold cross-validation is unbiased (Bengio and Grandvalet, JMLR 5, 2004): what the folds share is in none of them.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from socratune.ways.crossfit import FOLDS, fold_interval, folds_of

ROWS, SPREADS, SIZES = (50, 100, 200, 300), (0.0, 0.03, 0.08), (1, 4)
TRIALS = 1500
BASE, GAIN = -0.6, 0.8
"""Mean log odds of the base, and what an average adapter adds to them."""


def simulated(generator: np.random.Generator, rows: int, size: int, spread: float) -> tuple[np.ndarray, ...]:
    """Returns the differences (N,), sources (N,) and folds (N,) of one data set, and the expected gain of its rows."""
    sources = np.arange(rows) // size
    folds = folds_of([str(source) for source in sources], seed=int(generator.integers(1 << 30)))
    hard = generator.normal(0, 1.0, rows) + generator.normal(0, 0.7, sources[-1] + 1)[sources]
    quality = generator.normal(0, spread * 5, FOLDS)  # a point of accuracy is about 0.05 in log odds here
    base = _share(BASE + hard)
    right = generator.random(rows) < _share(BASE + GAIN + hard + quality[folds])
    return right.astype(float) - (generator.random(rows) < base), sources, folds


def _share(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


def true_gain(spread: float) -> float:
    """Returns the gain of the average adapter over all rows there could be."""
    generator = np.random.default_rng(1)
    hard = generator.normal(0, np.hypot(1.0, 0.7), 2_000_000)
    return float((_share(BASE + GAIN + hard + generator.normal(0, spread * 5, len(hard))) - _share(BASE + hard)).mean())


def main() -> None:
    """Prints the table."""
    print(
        "| rows | rows a source | spread of adapters, points | rows alone | folds alone | the wider | its half width |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for spread, rows, size in product(SPREADS, ROWS, SIZES):
        truth, generator = true_gain(spread), np.random.default_rng(rows + size)
        held, half = np.zeros(3), 0.0
        for _ in range(TRIALS):
            change, sources, folds = simulated(generator, rows, size, spread)
            found = fold_interval(change, [str(source) for source in sources], folds)
            for at, (low, high) in enumerate((found.by_rows, found.by_folds, found.interval)):
                held[at] += low <= truth <= high
            half += (found.interval[1] - found.interval[0]) / 2
        cells = [f"{100 * share:.1f} %" for share in held / TRIALS]
        print(f"| {rows} | {size} | {100 * spread:g} | {' | '.join(cells)} | {100 * half / TRIALS:.1f} |", flush=True)


if __name__ == "__main__":
    main()

"""Is the adapter better? Paired differences, resampled by cluster, because rows of one source are correlated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

FEW_CLUSTERS = 30
"""Below this the bootstrap is too narrow, and a t-interval on cluster means is taken instead."""

FEWEST_CLUSTERS = 6
"""With fewer, no result can have p < 0.05: 2 / 2**5 is more."""

_T_975 = (
    12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
    2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05,
)  # fmt: skip
"""Student's t, 97.5 %, from 1 degree of freedom on."""
_T_975_LARGE = 2.04  # 30 degrees of freedom; more need a little less

Comparison = Literal["better", "not_worse", "worse", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Paired:
    """The difference adapter − base on the same rows, with its 95 % interval and two-sided p."""

    difference: float
    low: float
    high: float
    p: float
    rows: int
    clusters: int


def paired_difference(
    base: Sequence[bool], adapter: Sequence[bool], clusters: Sequence[str], *, draws: int, seed: int
) -> Paired:
    """Compare two models on the same rows.

    The interval is a cluster bootstrap (percentiles of `draws` resamples of whole clusters), or below 30 clusters a
    t-interval with cluster-robust variance. p is a sign-flip permutation test over clusters.
    """
    change = np.asarray(adapter, dtype=float) - np.asarray(base, dtype=float)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=change)  # (C,)
    sizes = np.bincount(index).astype(float)  # (C,)
    difference = float(change.mean())
    generator = np.random.default_rng(seed)
    if len(names) < FEW_CLUSTERS:
        low, high = _t_interval(sums, sizes)
    else:
        weights = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)  # (draws, C)
        drawn = (weights @ sums) / (weights @ sizes)
        low, high = (float(bound) for bound in np.percentile(drawn, (2.5, 97.5)))
    signs = generator.integers(0, 2, size=(draws, len(names)), dtype=np.int8) * 2 - 1
    flipped = np.abs(signs @ sums)
    p = (1 + int((flipped >= abs(sums.sum()) - 1e-9).sum())) / (1 + draws)
    return Paired(difference, low, high, p, len(change), len(names))


def _t_interval(sums: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Ratio estimator with cluster-robust variance; the whole range where there is one cluster."""
    count, rows = len(sums), float(sizes.sum())
    if count < 2:
        return -1.0, 1.0
    ratio = float(sums.sum()) / rows
    variance = count / (count - 1) * float(((sums - ratio * sizes) ** 2).sum()) / rows**2
    t = _T_975[count - 2] if count - 2 < len(_T_975) else _T_975_LARGE
    half = t * math.sqrt(variance)
    return max(-1.0, ratio - half), min(1.0, ratio + half)


def total_interval(sample: Sequence[float], population: int) -> tuple[float, float, float]:
    """The sum over a population, from a random sample of it: (expected, low, high), 95 %, never below the sample's.

    Students's t on the rows that were not sampled; their own spread counts besides that of the mean.
    """
    n, seen = len(sample), float(sum(sample))
    rest = population - n
    if rest <= 0 or n == 0:
        return seen, seen, seen
    mean = seen / n
    if n == 1:
        return seen + rest * mean, seen, math.inf
    variance = sum((value - mean) ** 2 for value in sample) / (n - 1)
    t = _T_975[n - 2] if n - 2 < len(_T_975) else _T_975_LARGE
    half = t * math.sqrt(variance * (rest * rest / n + rest))
    return seen + rest * mean, max(seen, seen + rest * mean - half), seen + rest * mean + half


def compare(paired: Paired, margin: float) -> Comparison:
    """`better`: the interval lies above 0 and p < 0.05; `worse`: the same below.

    `not_worse`: at most `margin` is lost; else `inconclusive`. p guards the interval where all clusters agree: a
    handful of them has no variance and proves nothing. A difference of exactly nothing is `not_worse`, never `better`.
    """
    if paired.clusters < FEWEST_CLUSTERS:
        return "inconclusive"
    if paired.low > 0 and paired.p < 0.05:
        return "better"
    if paired.high < 0 and paired.p < 0.05:
        return "worse"
    return "not_worse" if paired.low >= -margin else "inconclusive"


def rows_needed(paired: Paired) -> int | None:
    """About how many rows would show a difference of this size; None where there is no gain to show.

    The interval's half width shrinks with the square root of the rows.
    """
    if paired.difference <= 0:
        return None
    half = max((paired.high - paired.low) / 2, paired.difference)
    return max(paired.rows + 1, math.ceil(paired.rows * (half / paired.difference) ** 2))

"""Computes paired differences, resampled by cluster because rows of one source are correlated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np

FEW_CLUSTERS = 30
"""Number of clusters below which the bootstrap is too narrow. A t-interval on cluster means replaces it."""

FEWEST_CLUSTERS = 6
"""Fewest clusters for a result. With fewer, p < 0.05 is impossible: 2 / 2**5 is more."""

Comparison = Literal["better", "not_worse", "worse", "inconclusive"]


Test = Literal["mcnemar", "sign_flip"]


@dataclass(frozen=True, slots=True)
class Paired:
    """Holds the difference adapter − base on the same rows, with interval, two-sided p, and the methods behind them."""

    difference: float
    low: float
    high: float
    p: float
    rows: int
    clusters: int
    test: Test = "sign_flip"
    interval: Literal["bootstrap", "t"] = "bootstrap"


def paired_difference(
    base: Sequence[float] | np.ndarray,
    adapter: Sequence[float] | np.ndarray,
    clusters: Sequence[str],
    *,
    draws: int,
    seed: int,
    level: float = 0.95,
) -> Paired:
    """Compares two models on the same rows. Without rows, nothing is known: −1 … 1.

    The interval is a cluster bootstrap: percentiles of `draws` resamples of whole clusters, widened as in Hesterberg
    (arXiv:1411.5279, section 4.3), because plain percentiles are too narrow by about sqrt((C-1)/C)·z/t. Below 30
    clusters it is a t-interval with cluster-robust variance. p is McNemar's exact test if every row is a cluster of its
    own and is either right or wrong, else a sign-flip permutation test over clusters.

    Args:
        base: the base's score of each row, 0 to 1: right or wrong, or the share of right samples.
        adapter: the adapter's scores.
        clusters: the name of each row's cluster.
        draws: the number of draws of the bootstrap, and of the permutation test.
        seed: the seed of both.
        level: the level of the two-sided interval.
    """
    if not len(base):
        return Paired(0.0, -1.0, 1.0, 1.0, 0, 0, interval="t")
    change = np.asarray(adapter, dtype=float) - np.asarray(base, dtype=float)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=change)  # (C,)
    sizes = np.bincount(index).astype(float)  # (C,)
    count, difference = len(names), float(change.mean())
    generator = np.random.default_rng(seed)
    few = count < FEW_CLUSTERS
    low, high = t_interval(sums, sizes, level) if few else _bootstrap(sums, sizes, level, draws, generator)
    alone = count == len(change) and bool(np.isin(np.concatenate([base, adapter]), (0, 1)).all())
    p = _mcnemar(change) if alone else _sign_flip(sums, draws, generator)
    test: Test = "mcnemar" if alone else "sign_flip"
    return Paired(difference, low, high, p, len(change), count, test, "t" if few else "bootstrap")


def _bootstrap(
    sums: np.ndarray, sizes: np.ndarray, level: float, draws: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Returns widened percentiles of the ratio of sums. Clusters of equal sum and size are drawn as one kind."""
    kinds, counts = np.unique(np.stack([sums, sizes], 1), axis=0, return_counts=True)  # (K, 2), (K,)
    clusters = len(sums)
    if len(kinds) > _MANY_KINDS:
        drawn = np.concatenate(
            [sums[at].sum(1) / sizes[at].sum(1) for at in _drawn(clusters, draws, clusters, generator)]
        )
    else:
        weights = generator.multinomial(clusters, counts / clusters, size=draws)  # (draws, K)
        drawn = (weights @ kinds[:, 0]) / (weights @ kinds[:, 1])
    stretched = math.sqrt(clusters / (clusters - 1)) * t_quantile((1 + level) / 2, clusters - 1)
    tail = NormalDist().cdf(-stretched)
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return float(low), float(high)


def t_interval(sums: np.ndarray, sizes: np.ndarray, level: float) -> tuple[float, float]:
    """Returns a ratio estimator's interval with cluster-robust variance; the whole range for a single cluster."""
    count, rows = len(sums), float(sizes.sum())
    if count < 2:
        return -1.0, 1.0
    ratio = float(sums.sum()) / rows
    variance = count / (count - 1) * float(((sums - ratio * sizes) ** 2).sum()) / rows**2
    half = t_quantile((1 + level) / 2, count - 1) * math.sqrt(variance)
    return max(-1.0, ratio - half), min(1.0, ratio + half)


def _sign_flip(sums: np.ndarray, draws: int, generator: np.random.Generator) -> float:
    """Returns the share of sign flips of whole clusters whose difference is at least as large."""
    kinds, counts = np.unique(np.abs(sums), return_counts=True)  # (K,) each
    if len(kinds) > _MANY_KINDS:
        flipped = np.abs(np.concatenate([(2.0 * at - 1) @ sums for at in _drawn(2, draws, len(sums), generator)]))
    else:
        positive = generator.binomial(counts, 0.5, size=(draws, len(kinds)))
        flipped = np.abs((2 * positive - counts) @ kinds)
    return (1 + int((flipped >= abs(float(sums.sum())) - 1e-9).sum())) / (1 + len(flipped))


_MANY_KINDS = 1000
_MOST_DRAWN, _FEWEST_DRAWS, _AT_ONCE = 20_000_000, 1000, 1_000_000


def _drawn(below: int, draws: int, clusters: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields integers for every cluster, in blocks of draws. Scores with thousands of values have no kinds to count.

    With so many clusters, fewer draws suffice, and memory stays small.
    """
    left = min(draws, max(_FEWEST_DRAWS, _MOST_DRAWN // clusters))
    block = max(1, _AT_ONCE // clusters)
    while left > 0:
        yield generator.integers(0, below, size=(min(block, left), clusters), dtype=np.int32)
        left -= block


def _mcnemar(change: np.ndarray) -> float:
    """Returns p of McNemar's exact two-sided test (1947): wins among the changed rows, as tosses of a fair coin."""
    wins, losses = int((change > 0).sum()), int((change < 0).sum())
    return min(1.0, 2 * _binomial(min(wins, losses), wins + losses, 0.5))


def most_lost(lost: int, of: int, level: float = 0.95) -> float:
    """Returns the upper end of a share's one-sided exact interval (Clopper and Pearson 1934); 1 if `of` is 0."""
    if lost >= of:
        return 1.0
    low, high = lost / of, 1.0
    for _ in range(40):
        share = (low + high) / 2
        low, high = (share, high) if _binomial(lost, of, share) > 1 - level else (low, share)
    return high


def _binomial(most: int, tosses: int, share: float) -> float:
    """Returns the probability of at most `most` hits. Logarithms avoid the overflow of the numbers of ways."""
    hit, missed = math.log(share), math.log1p(-share)
    whole = math.lgamma(tosses + 1)
    ways = (whole - math.lgamma(at + 1) - math.lgamma(tosses - at + 1) for at in range(most + 1))
    return sum(math.exp(way + at * hit + (tosses - at) * missed) for at, way in enumerate(ways))


@lru_cache
def t_quantile(probability: float, freedom: int) -> float:
    """Returns Student's t for a whole number of degrees of freedom, by bisection of its distribution.

    The distribution's closed form is Abramowitz and Stegun 26.7.3 and 26.7.4. `probability` is above 0.5.
    """
    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, freedom) < 2 * probability - 1 else (low, middle)
    return high


def _t_within(t: float, freedom: int) -> float:
    """Returns the probability that |T| < t."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for at in range(2 + odd, freedom + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (at - 1) / at
    return (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total


def total_interval(sample: Sequence[float], population: int) -> tuple[float, float, float]:
    """Returns (expected, low, high) at 95 % for a population's sum from a random sample, never below the sample's sum.

    Uses Student's t for the rows outside the sample, with their own spread added to that of the mean.
    """
    n, seen = len(sample), float(sum(sample))
    rest = population - n
    if rest <= 0 or n == 0:
        return seen, seen, seen
    mean = seen / n
    if n == 1:
        return seen + rest * mean, seen, math.inf
    variance = sum((value - mean) ** 2 for value in sample) / (n - 1)
    half = t_quantile(0.975, n - 1) * math.sqrt(variance * (rest * rest / n + rest))
    return seen + rest * mean, max(seen, seen + rest * mean - half), seen + rest * mean + half


def compare_paired(paired: Paired, margin: float) -> Comparison:
    """Returns `better` if the interval lies above 0 and p < 0.05, and `worse` if it lies below 0 likewise.

    `not_worse` means that at most `margin` is lost. Otherwise the result is `inconclusive`. p guards the interval if
    all clusters agree: a handful has no variance and proves nothing. A difference of 0 is `not_worse`, never `better`.
    """
    if paired.clusters < FEWEST_CLUSTERS:
        return "inconclusive"
    if paired.low > 0 and paired.p < 0.05:
        return "better"
    if paired.high < 0 and paired.p < 0.05:
        return "worse"
    return "not_worse" if paired.low >= -margin else "inconclusive"


def cautious(decided: Comparison, worst_case: Comparison) -> Comparison:
    """Returns the verdict that both ways of counting allow."""
    if decided == worst_case:
        return decided
    if {decided, worst_case} == {"better", "not_worse"}:
        return "not_worse"
    return "inconclusive"


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusts each p for several tests at once (Holm 1979): with 95 % certainty, none of them is wrongly below 5 %."""
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[at]))
        adjusted[at] = largest
    return adjusted


def shown_by(paired: Paired) -> float | None:
    """Returns the smallest difference that as many rows show with 80 % power, given the observed spread.

    Returns None if no result can be significant, or no row changed.
    """
    half = (paired.high - paired.low) / 2
    if paired.clusters < FEWEST_CLUSTERS or half <= 0:
        return None
    freedom = paired.clusters - 1
    return half * (1 + quantile(POWER, freedom) / t_quantile(1 - LEVEL / 2, freedom))


def rows_needed(paired: Paired) -> int | None:
    """Estimates how many rows would show a difference of this size. Returns None if there is no gain to show.

    The interval's half width shrinks with the square root of the rows.
    """
    if paired.difference <= 0:
        return None
    half = max((paired.high - paired.low) / 2, paired.difference)
    return max(paired.rows + 1, math.ceil(paired.rows * (half / paired.difference) ** 2))


# --- what a test can show, before it runs --------------------------------------------------------------------------

DISCORDANCE = 0.25
"""Share of questions that only base or only adapter answers; usually 20 to 30 %. A larger difference has more."""
CORRELATION = 0.1
"""Correlation of the differences within a cluster (intra-class). An assumption: only the test shows its real value."""
POWER, LEVEL = 0.8, 0.05
WISHED = 0.05
"""Difference for which `Detectable` states the number of rows."""


@dataclass(frozen=True, slots=True)
class Detectable:
    """Holds what a held-out set can show.

    Attributes:
        difference: the smallest detectable difference with 80 % power, or None if no result can be significant.
        rows_for_5_points: about how many rows would show 5 points, in clusters of this size.
        design_effect: how many correlated rows are worth one independent one.
    """

    rows: int
    clusters: int
    difference: float | None
    rows_for_5_points: int
    design_effect: float
    discordance: float = DISCORDANCE
    correlation: float = CORRELATION

    def __str__(self) -> str:
        rows = f"{self.rows} held-out rows"
        if self.clusters < self.rows:
            rows += f" in {self.clusters} cluster{'s' if self.clusters > 1 else ''}"
        if self.difference is None:
            return f"{rows} cannot prove anything"
        text = f"{rows} will show differences of {self.difference * 100:.2g} points or more"
        return text if self.difference <= WISHED else f"{text}; 5 points need about {self.rows_for_5_points}"


def detectable(sizes: Sequence[int], *, fewest: int) -> Detectable:
    """Computes the smallest difference that a paired test on these clusters detects with 80 % power at the 5 % level.

    Connor, "Sample size for testing differences in proportions for the paired-sample design" (Biometrics 43, 1987):
    n = (t_a √d + t_b √(d − δ²))² / δ² independent pairs show δ if a share d of them is discordant. Correlated rows
    count for less, by the design effect 1 + (Σm²/Σm − 1) ρ of Eldridge, Ashby and Kerry (Int. J. Epidemiology 35, 2006)
    for clusters of m rows. The proof uses two tests, so the stricter counts: a permutation, whose spread t_a √d is that
    without a difference, and an interval, t_a √(d − δ²), whose t is Student's with one degree of freedom less than
    clusters. Half a row is added because the permutation counts in whole rows. Simulations set the amount: the proofs
    of `stats` find the difference in 77 to 84 % of cases, for 30 to 420 rows and 1 to 20 rows per cluster.

    Args:
        sizes: the number of rows in every cluster.
        fewest: fewest clusters for a significant result.
    """
    rows, clusters = sum(sizes), len(sizes)
    effect = 1 + (sum(size * size for size in sizes) / rows - 1) * CORRELATION if rows else 1.0
    difference = None
    if clusters >= fewest:
        difference = min(1.0, _difference(rows / effect, clusters - 1) + 0.5 / rows)
    per_cluster = rows / clusters if clusters else 1.0
    needed = _rows_needed(effect, per_cluster)
    return Detectable(rows, clusters, difference, needed, round(effect, 2))


def _difference(independent: float, freedom: float) -> float:
    """Returns the δ that so many independent pairs show, by bisection: the pairs needed decrease with δ."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _pairs(middle, freedom) > independent else (low, middle)
    return high


def _pairs(difference: float, freedom: float) -> float:
    discordant = max(DISCORDANCE, difference)
    spread, null_spread = math.sqrt(discordant - difference**2), math.sqrt(discordant)
    interval = quantile(1 - LEVEL / 2, freedom) * spread
    permutation = NormalDist().inv_cdf(1 - LEVEL / 2) * null_spread
    return ((max(interval, permutation) + quantile(POWER, freedom) * spread) / difference) ** 2


def _rows_needed(effect: float, per_cluster: float) -> int:
    """Returns the rows for `WISHED`, to two digits. They set the number of clusters, and so the quantiles."""
    rows = 1000.0
    for _ in range(20):
        rows = _pairs(WISHED, max(5.0, rows / per_cluster - 1)) * effect
    digits = 10 ** max(0, math.floor(math.log10(rows)) - 1)
    return math.ceil(rows / digits) * digits


def quantile(share: float, freedom: float) -> float:
    """Returns Student's t quantile by Abramowitz and Stegun 26.7.5, within 0.01 from 5 degrees of freedom."""
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))

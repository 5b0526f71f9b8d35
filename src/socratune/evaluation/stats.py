"""Is the adapter better? Paired differences, resampled by cluster, because rows of one source are correlated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np

FEW_CLUSTERS = 30
"""Below this the bootstrap is too narrow, and a t-interval on cluster means is taken instead."""

FEWEST_CLUSTERS = 6
"""With fewer, no result can have p < 0.05: 2 / 2**5 is more."""

Comparison = Literal["better", "not_worse", "worse", "inconclusive"]


Test = Literal["mcnemar", "sign_flip"]


@dataclass(frozen=True, slots=True)
class Paired:
    """The difference adapter − base on the same rows, with its interval and two-sided p, and how these were found."""

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
    """Compare two models on the same rows; without rows, nothing is known: −1 … 1.

    The interval is a cluster bootstrap: percentiles of `draws` resamples of whole clusters, widened as Hesterberg
    (arXiv:1411.5279, section 4.3) has it, because plain percentiles are too narrow by about sqrt((C-1)/C)·z/t. Below 30
    clusters it is a t-interval with cluster-robust variance. p is McNemar's exact test where every row is a cluster of
    its own and is either right or wrong, else a sign-flip permutation test over clusters.

    Args:
        base: score of each row, 0 to 1: right or wrong, or the share of right samples.
        adapter: the same of the adapter.
        clusters: name of each row's cluster.
        draws: of the bootstrap, and of the permutation test.
        seed: of both.
        level: of the two-sided interval.
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
    low, high = _t_interval(sums, sizes, level) if few else _bootstrap(sums, sizes, level, draws, generator)
    alone = count == len(change) and bool(np.isin(np.concatenate([base, adapter]), (0, 1)).all())
    p = _mcnemar(change) if alone else _sign_flip(sums, draws, generator)
    test: Test = "mcnemar" if alone else "sign_flip"
    return Paired(difference, low, high, p, len(change), count, test, "t" if few else "bootstrap")


def _bootstrap(
    sums: np.ndarray, sizes: np.ndarray, level: float, draws: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Widened percentiles of the ratio of sums; clusters of like sum and size are drawn as one kind."""
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


def _t_interval(sums: np.ndarray, sizes: np.ndarray, level: float) -> tuple[float, float]:
    """Ratio estimator with cluster-robust variance; the whole range where there is one cluster."""
    count, rows = len(sums), float(sizes.sum())
    if count < 2:
        return -1.0, 1.0
    ratio = float(sums.sum()) / rows
    variance = count / (count - 1) * float(((sums - ratio * sizes) ** 2).sum()) / rows**2
    half = t_quantile((1 + level) / 2, count - 1) * math.sqrt(variance)
    return max(-1.0, ratio - half), min(1.0, ratio + half)


def _sign_flip(sums: np.ndarray, draws: int, generator: np.random.Generator) -> float:
    """The share of sign flips of whole clusters that come to as large a difference."""
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
    """Whole numbers for every cluster, in blocks of draws: scores with thousands of values have no kinds to count.

    So many clusters need fewer draws, and memory stays small.
    """
    left = min(draws, max(_FEWEST_DRAWS, _MOST_DRAWN // clusters))
    block = max(1, _AT_ONCE // clusters)
    while left > 0:
        yield generator.integers(0, below, size=(min(block, left), clusters), dtype=np.int32)
        left -= block


def _mcnemar(change: np.ndarray) -> float:
    """The exact two-sided test (McNemar 1947): wins among the rows that changed, as tosses of a fair coin."""
    wins, losses = int((change > 0).sum()), int((change < 0).sum())
    return min(1.0, 2 * _binomial(min(wins, losses), wins + losses, 0.5))


def most_lost(lost: int, of: int, level: float = 0.95) -> float:
    """The upper end of the one-sided exact interval of a share (Clopper and Pearson 1934); 1 where `of` is 0."""
    if lost >= of:
        return 1.0
    low, high = lost / of, 1.0
    for _ in range(40):
        share = (low + high) / 2
        low, high = (share, high) if _binomial(lost, of, share) > 1 - level else (low, share)
    return high


def _binomial(most: int, tosses: int, share: float) -> float:
    """The probability of at most so many of the tosses; by logarithms, as the numbers of ways overflow."""
    hit, missed = math.log(share), math.log1p(-share)
    whole = math.lgamma(tosses + 1)
    ways = (whole - math.lgamma(at + 1) - math.lgamma(tosses - at + 1) for at in range(most + 1))
    return sum(math.exp(way + at * hit + (tosses - at) * missed) for at, way in enumerate(ways))


@lru_cache
def t_quantile(probability: float, freedom: int) -> float:
    """Student's t for a whole number of degrees of freedom, by bisection of its distribution.

    Closed form of the distribution: Abramowitz and Stegun 26.7.3 and 26.7.4. `probability` is above 0.5.
    """
    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, freedom) < 2 * probability - 1 else (low, middle)
    return high


def _t_within(t: float, freedom: int) -> float:
    """The probability that |T| < t."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for at in range(2 + odd, freedom + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (at - 1) / at
    return (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total


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
    half = t_quantile(0.975, n - 1) * math.sqrt(variance * (rest * rest / n + rest))
    return seen + rest * mean, max(seen, seen + rest * mean - half), seen + rest * mean + half


def compare_paired(paired: Paired, margin: float) -> Comparison:
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


def cautious(decided: Comparison, worst_case: Comparison) -> Comparison:
    """The verdict both ways of counting allow."""
    if decided == worst_case:
        return decided
    if {decided, worst_case} == {"better", "not_worse"}:
        return "not_worse"
    return "inconclusive"


def holm(ps: Sequence[float]) -> list[float]:
    """Each p as large as several tests at once make it (Holm 1979): none of them is wrongly below 5 %, with 95 %."""
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[at]))
        adjusted[at] = largest
    return adjusted


def shown_by(paired: Paired) -> float | None:
    """The smallest difference that as many rows as these show with 80 % power, by the spread that was seen.

    None where no result can be significant, or no row changed.
    """
    half = (paired.high - paired.low) / 2
    if paired.clusters < FEWEST_CLUSTERS or half <= 0:
        return None
    freedom = paired.clusters - 1
    return half * (1 + quantile(POWER, freedom) / t_quantile(1 - LEVEL / 2, freedom))


def rows_needed(paired: Paired) -> int | None:
    """About how many rows would show a difference of this size; None where there is no gain to show.

    The interval's half width shrinks with the square root of the rows.
    """
    if paired.difference <= 0:
        return None
    half = max((paired.high - paired.low) / 2, paired.difference)
    return max(paired.rows + 1, math.ceil(paired.rows * (half / paired.difference) ** 2))


# --- what a test can show before it is made ------------------------------------------------------------------------

DISCORDANCE = 0.25
"""Share of the questions that one of base and adapter answers; 20 to 30 % is usual. A large difference has more."""
CORRELATION = 0.1
"""Of the differences within a cluster (intra-class). An assumption: it is known only after the test."""
POWER, LEVEL = 0.8, 0.05
WISHED = 0.05
"""The difference for which the rows that are needed are said."""


@dataclass(frozen=True, slots=True)
class Detectable:
    """What a held-out set can show.

    Attributes:
        difference: the smallest one that is found with 80 % power, or None where no result can be significant.
        rows_for_5_points: about how many rows would show 5 points, in clusters as large as these.
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
    """The smallest difference that a paired test on clusters of these sizes finds with 80 % power at the 5 % level.

    Connor, "Sample size for testing differences in proportions for the paired-sample design" (Biometrics 43, 1987):
    n = (t_a √d + t_b √(d − δ²))² / δ² independent pairs show δ where a share d of them is discordant. Correlated rows
    count for less by the design effect 1 + (Σm²/Σm − 1) ρ of Eldridge, Ashby and Kerry (Int. J. Epidemiology 35, 2006)
    for clusters of m rows. As the proof asks two tests, the stricter counts: a permutation, whose spread t_a √d is that
    without a difference, and an interval, t_a √(d − δ²), whose t is Student's with a degree of freedom less than there
    are clusters. Half a row is added, since the permutation counts in whole rows (how much, by simulation: the proofs
    of `stats` find the difference in 77 to 84 % of cases, 30 rows to 420, one cluster per row to 20 rows per cluster).

    Args:
        sizes: rows of every cluster.
        fewest: with fewer clusters no result is significant.
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
    """The δ that so many independent pairs show, by bisection: the pairs that are needed fall with δ."""
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
    """Rows for `WISHED`, to two figures; their number decides the clusters, and these the quantiles."""
    rows = 1000.0
    for _ in range(20):
        rows = _pairs(WISHED, max(5.0, rows / per_cluster - 1)) * effect
    digits = 10 ** max(0, math.floor(math.log10(rows)) - 1)
    return math.ceil(rows / digits) * digits


def quantile(share: float, freedom: float) -> float:
    """Student's t quantile by the expansion 26.7.5 of Abramowitz and Stegun; within 0.01 from 5 degrees of freedom."""
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))

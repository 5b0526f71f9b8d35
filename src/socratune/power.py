"""What a test can show before it is made: the smallest true difference it finds in four cases of five."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

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

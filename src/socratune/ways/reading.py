"""Reads the verdicts of all arms: differences with a two-level bootstrap, and one sentence of advice.

Seeds are drawn first, then clusters of questions, since the accuracy of a way depends on its trainings and on its
questions, and both would differ another time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from socratune.evaluation import FEW_CLUSTERS, FEWEST_CLUSTERS
from socratune.ways.arms import by_need

DRAWS = 5_000

Verdicts = Sequence[Sequence[bool]]
"""(S, Q): for each seed, whether the answer to each question is right."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two ways on the same questions, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Returns True if the difference is positive beyond chance."""
        return self.low > 0


def mean_accuracy(verdicts: Verdicts) -> float:
    """Returns the share of right answers over seeds and questions."""
    return float(np.asarray(verdicts, dtype=float).mean())


def arm_difference(more: Verdicts, less: Verdicts, clusters: Sequence[str], *, seed: int = 0) -> Difference:
    """Returns `more` − `less` by a two-level bootstrap: seeds of either side, then clusters of questions.

    The interval holds percentiles of `DRAWS` resamples. Two seeds hardly show how trainings vary. With fewer than 30
    clusters the interval is too narrow, and with fewer than 6 it is the whole range.
    """
    index, weights, rows = _resamples(tuple(clusters), seed)
    value = mean_accuracy(more) - mean_accuracy(less)
    if weights.shape[1] < FEWEST_CLUSTERS:
        return Difference(value, -1.0, 1.0)
    generator = np.random.default_rng(seed + 1)
    drawn = _drawn(more, index, weights, generator) - _drawn(less, index, weights, generator)  # (draws,)
    low, high = np.percentile(drawn / rows, (2.5, 97.5))
    return Difference(value, float(low), float(high))


@lru_cache(maxsize=8)
def _resamples(clusters: tuple[str, ...], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (Q,) the cluster of each question, (draws, C) how often each resample has each cluster, and (draws,) its
    rows.

    Several are kept, since readers of families of questions alternate between them.
    """
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    equal = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), equal, size=DRAWS)
    return index, drawn.astype(np.float32), drawn @ np.bincount(index)


def _drawn(verdicts: Verdicts, index: np.ndarray, weights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns the right answers in each resample of clusters, averaged over a resample of the seeds, (draws,)."""
    by_seed = [np.bincount(index, weights=np.asarray(right, dtype=float)) for right in verdicts]
    sums = np.stack(by_seed, dtype=np.float32)  # (S, C)
    seeds = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=len(weights)) / len(sums)
    return ((weights @ sums.T) * seeds).sum(axis=1)


@dataclass(frozen=True, slots=True)
class Advice:
    """The recommended way.

    Attributes:
        arm: None if no way is recommended.
        sentence: for a person.
        cautions: what the numbers do not show.
    """

    arm: str | None
    sentence: str
    cautions: tuple[str, ...] = ()


def advice(base: Verdicts, arms: Mapping[str, Verdicts], clusters: Sequence[str]) -> Advice:
    """Recommends the least demanding arm that clearly beats the base and that no other arm clearly beats.

    Args:
        base: verdicts of the untrained model, (1, Q).
        arms: maps a name to its verdicts at equal rows, controls included.
    """
    gains = {name: arm_difference(verdicts, base, clusters) for name, verdicts in arms.items()}
    worth = [name for name in by_need(list(arms)) if gains[name].clear]
    cautions = _cautions(arms, clusters)
    if not worth:
        best = max(by_need(list(arms)), key=lambda name: gains[name].value, default=None)
        text = "Do not fine-tune on this: no way is clearly better than the model as it is"
        text += f"; the best, {best}, changes {_points(gains[best])}." if best else "."
        return Advice(None, text, cautions)
    beaten = {arm for arm in worth for other in worth if arm_difference(arms[other], arms[arm], clusters).clear}
    arm = next((name for name in worth if name not in beaten), max(worth, key=lambda name: gains[name].value))
    how = "A prompt does it, do not fine-tune" if arm == "prompt" else f"`{arm}` is worth it on your data"
    text = f"{how}: {mean_accuracy(base):.1%} → {mean_accuracy(arms[arm]):.1%} of {len(base[0])} held-out questions"
    return Advice(arm, f"{text} ({_points(gains[arm])}){_against(arm, arms, clusters)}.", cautions)


def _against(arm: str, arms: Mapping[str, Verdicts], clusters: Sequence[str]) -> str:
    """Returns in words which arms are at least as good, and which comes next."""
    others = [name for name in by_need(list(arms)) if name != arm]
    at_least = [name for name in others if mean_accuracy(arms[name]) >= mean_accuracy(arms[arm])]
    worse = (name for name in others if name not in at_least)
    less = max(worse, key=lambda name: mean_accuracy(arms[name]), default=None)
    text = ""
    if at_least:
        verb = "ask more of you and are" if len(at_least) > 1 else "asks more of you and is"
        text += f"; {' and '.join(at_least)} {verb} not clearly better"
    if less:
        lead = arm_difference(arms[arm], arms[less], clusters)
        text += f"; {'clearly' if lead.clear else 'not clearly'} better than {less} ({_points(lead)})"
    return text


def _cautions(arms: Mapping[str, Verdicts], clusters: Sequence[str]) -> tuple[str, ...]:
    cautions = []
    if (seeds := max((len(verdicts) for verdicts in arms.values()), default=0)) < 3:
        cautions.append(f"{seeds} seed{'s' * (seeds > 1)}: how much trainings vary is hardly in the intervals.")
    if (count := len(set(clusters))) < FEW_CLUSTERS:
        cautions.append(f"{count} independent held-out questions or sources: the intervals are too narrow.")
    compared = {"direct", "wrong-hints"} <= arms.keys()
    if compared and not arm_difference(arms["direct"], arms["wrong-hints"], clusters).clear:
        cautions.append("Hints of other rows did as well: what the hints say is not what helps.")
    return tuple(cautions)


def other_readings(arm: str | None, reading: str, arms: Mapping[str, Verdicts], clusters: Sequence[str]) -> list[str]:
    """Returns sentences on the ways that clearly beat the recommended one at equal tokens or money."""
    if arm is None or not arms.get(arm):
        return []
    others = [name for name in by_need(list(arms)) if arms[name] and name != arm]
    better = [name for name in others if arm_difference(arms[name], arms[arm], clusters).clear]
    return [f"At equal {reading} {', '.join(better)} did clearly better than {arm}."] if better else []


def _points(gain: Difference) -> str:
    return f"{gain.value * 100:+.1f} points, {gain.low * 100:+.1f} … {gain.high * 100:+.1f}"

"""Does the interval of `socratune compare` hold what it says? The table in docs/guides/comparing.md, by simulated logs.

    python experiments/compare_coverage.py [--logs 1000]

Two models answer the same questions. What a model can do with a question is a normal variable; the two models share a
part of it, and of the rest the questions of one cluster share `correlation`. A score is made of it: right or wrong, the
share of k right samples, a mark from 1 to 5, or a number with a long tail. B's variable is shifted by `gain`, so the
true difference is known. `covered`: how often the 95 % interval holds it. `rows as clusters`: the same, had the rows of
a cluster been taken for independent. `better or worse`: how often the verdict is one of these; on a line without a gain
that is the rate of false alarms.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from socratune.evaluation import compared
from socratune.evaluation.compared import compare_logs
from socratune.evaluation.logs import Log, LoggedQuestion

DRAWS = 2000
NORMAL = NormalDist()
SHARED = 0.6
"""Of a question's variable, what both models have in common."""


def binary(latent: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Right or wrong: (rows, 1)."""
    return (latent > 0).astype(float)[:, None]


def four_samples(latent: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Four samples, each right with a probability that the variable sets: (rows, 4)."""
    right = np.vectorize(NORMAL.cdf)(latent)
    return (generator.random((len(latent), 4)) < right[:, None]).astype(float)


def marks(latent: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A judge's mark from 1 to 5: (rows, 1)."""
    return np.clip(np.round(3 + latent), 1, 5)[:, None]


def long_tail(latent: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A number with a long tail, as a length or a time has: (rows, 1)."""
    return np.exp(0.7 * latent)[:, None]


Scores = Callable[[np.ndarray, np.random.Generator], np.ndarray]
LINES: tuple[tuple[Scores, int, int, float, float], ...] = (  # scores, clusters, rows of each, correlation, gain
    (binary, 300, 1, 0.0, 0.0), (binary, 300, 1, 0.0, 0.2), (binary, 40, 10, 0.3, 0.0), (binary, 40, 10, 0.3, 0.2),
    (binary, 12, 10, 0.3, 0.0),
    (four_samples, 100, 1, 0.0, 0.0), (four_samples, 100, 1, 0.0, 0.2), (four_samples, 40, 5, 0.3, 0.0),
    (four_samples, 40, 5, 0.3, 0.2),
    (marks, 200, 1, 0.0, 0.0), (marks, 40, 5, 0.3, 0.0), (marks, 40, 5, 0.3, 0.2),
    (long_tail, 200, 1, 0.0, 0.0), (long_tail, 40, 5, 0.3, 0.0), (long_tail, 40, 5, 0.3, 0.2),
)  # fmt: skip


def abilities(clusters: int, rows: int, correlation: float, generator: np.random.Generator) -> np.ndarray:
    """Of A and B: (2, clusters * rows), each of variance 1."""
    common = generator.normal(size=clusters * rows)
    by_cluster = np.repeat(generator.normal(size=(2, clusters)), rows, axis=1)
    alone = generator.normal(size=(2, clusters * rows))
    own = np.sqrt(correlation) * by_cluster + np.sqrt(1 - correlation) * alone
    return np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * own


def true_difference(scores: Scores, gain: float) -> float:
    """Of the population, by four million draws."""
    generator = np.random.default_rng(0)
    latent = generator.normal(size=200_000 if scores is four_samples else 4_000_000)
    return float(scores(latent + gain, generator).mean() - scores(latent, generator).mean()) if gain else 0.0


def log_of(name: str, scores: np.ndarray, clusters: list[str]) -> Log:
    """A log with these scores: (rows, samples)."""
    rows = zip(scores.tolist(), clusters, strict=True)
    return Log(
        name,
        "simulated",
        [LoggedQuestion(str(at), "", "", "", one, {"score": row}, []) for at, (row, one) in enumerate(rows)],
    )


def line(scores: Scores, clusters: int, rows: int, correlation: float, gain: float, logs: int) -> str:
    """A row of the table."""
    generator = np.random.default_rng(clusters * rows)
    truth, names = true_difference(scores, gain), [str(at // rows) for at in range(clusters * rows)]
    alone = [str(at) for at in range(clusters * rows)]
    held = np.zeros(3)
    for _ in range(logs):
        latent = abilities(clusters, rows, correlation, generator)
        sides = [scores(latent[0], generator), scores(latent[1] + gain, generator)]
        for place, by in enumerate((names, alone) if rows > 1 else (names,)):
            found = compare_logs(*(log_of(name, side, by) for name, side in zip("ab", sides, strict=True))).result
            low, high = found["metrics"][0]["ci95"]
            held[place] += low <= truth <= high
            if not place:
                held[2] += found["verdict"] in ("better", "worse")
    covered, as_rows, decided = held / logs
    by_rows = f"{as_rows:.1%}" if rows > 1 else f"{covered:.1%}"
    kind = scores.__name__.replace("_", " ")
    return (
        f"| {kind} | {clusters} × {rows} | {correlation} | {truth:+.3f} | {covered:.1%} | {by_rows} | {decided:.1%} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", type=int, default=1000)
    given = parser.parse_args()
    compared._DRAWS = DRAWS
    print("| scores | clusters × rows | correlation | true difference | covered | rows as clusters | better or worse |")
    print("|---|---|---|---|---|---|---|")
    for one in LINES:
        print(line(*one, logs=given.logs), flush=True)


if __name__ == "__main__":
    main()

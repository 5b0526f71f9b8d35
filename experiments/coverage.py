"""Does the interval of the proof hold what it says? The table in docs/guides/validation.md, by simulated splits.

    python experiments/coverage.py [--splits 1000] [--pool RUN]

Base and adapter answer the same questions; a question is right where a normal variable exceeds a threshold, and the
rows of one source share a part of that variable (its share is the intra-class correlation). So the true difference is
known. `covered`: how often the interval holds it. `rows as sources`: the same, had the rows of a source been taken for
independent. `passed`: how often the verdict is `better`; on a line without a gain it is the rate of false proofs.

With `--pool RUN`, a finished demo run, base and adapter answer every pair that neither has seen in every wording, and
100 held-out sets are drawn from these answers by pair.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np

from socratune.evaluation.forgetting import non_inferiority
from socratune.evaluation.stats import compare_paired, paired_difference
from socratune.rows import QARow

SOURCES, ROWS, BASE = 40, 10, 0.5
LINES = (  # sources, rows of each, intra-class correlation, true gain
    (400, 1, 0.0, 0.0), (400, 1, 0.0, 0.05),
    (40, 10, 0.3, 0.0), (40, 10, 0.3, 0.1),
    (40, 10, 0.7, 0.0), (40, 10, 0.7, 0.1),
    (12, 10, 0.3, 0.0),
)  # fmt: skip


def split(
    generator: np.random.Generator, sources: int, rows: int, correlation: float, gain: float
) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong of each row, of base and adapter: (sources * rows,) each, the rows of a source in a block."""
    answers = []
    for accuracy in (BASE, BASE + gain):
        shared = np.repeat(generator.standard_normal(sources), rows)
        own = generator.standard_normal(sources * rows)
        latent = correlation**0.5 * shared + (1 - correlation) ** 0.5 * own
        answers.append(latent < NormalDist().inv_cdf(accuracy))
    return answers[0], answers[1]


def simulated(splits: int) -> None:
    """Print the table of simulated splits."""
    print("| sources × rows | correlation | gain | covered | rows as sources | passed |\n|---|---|---|---|---|---|")
    for sources, rows, correlation, gain in LINES:
        generator = np.random.default_rng(0)
        names = [str(at // rows) for at in range(sources * rows)]
        covered = naive = passed = 0
        for _ in range(splits):
            base, adapter = split(generator, sources, rows, correlation, gain)
            found = paired_difference(base, adapter, names, draws=2000, seed=0)
            covered += found.low <= gain <= found.high
            passed += compare_paired(found, 0.02) == "better"
            alone = paired_difference(base, adapter, [str(at) for at in range(len(names))], draws=2000, seed=0)
            naive += alone.low <= gain <= alone.high
        shares = " | ".join(f"{count / splits:.1%}" for count in (covered, naive, passed))
        print(f"| {sources} × {rows} | {correlation} | {gain:+.0%} | {shares} |", flush=True)


def forgetting(splits: int) -> None:
    """Print how often the forgetting test passes an adapter that changes a share of the answers and loses some."""
    print("\n| base solves | answers that change | true drop | passed |\n|---|---|---|---|")
    for solved, changed, drop in ((0.8, 0.02, 0.0), (0.8, 0.06, 0.0), (0.8, 0.1, 0.0), (0.8, 0.06, 0.05)):
        generator = np.random.default_rng(0)
        passed = 0
        for _ in range(splits):
            base = generator.random(450) < solved
            lost, won = (changed + drop) / 2 / solved, (changed - drop) / 2 / (1 - solved)
            flipped = generator.random(450) < np.where(base, lost, won)
            said = [
                [{"verdict": "correct" if right else "incorrect"} for right in side] for side in (base, base ^ flipped)
            ]
            rows = [QARow(str(at), [], {}) for at in range(450)]
            passed += non_inferiority(rows, *said, margin=0.03, draws=1000, seed=0)["proven"]
        print(f"| {solved:.0%} | {changed:.0%} | {drop:.0%} | {passed / splits:.1%} |", flush=True)


def from_pool(run: Path, sets: int = 100, pairs: int = 200) -> None:
    """Print how often the interval of a drawn held-out set holds the difference of all unseen questions."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
    from demo_task import PAIRS, direct
    from demo_wordings import DEFAULT_SYSTEM, WORDINGS

    rows = [
        QARow(
            f"{a}x{b}-{at}",
            [
                {"role": "system", "content": DEFAULT_SYSTEM},
                {"role": "user", "content": wording.format(a=a, b=b)},
                {"role": "assistant", "content": direct(a, b)},
            ],
            {},
            f"{min(a, b)}x{max(a, b)}",
        )
        for a, b in PAIRS["held_out"]
        for at, wording in enumerate(WORDINGS)
    ]
    scores = {who: _scores(rows, run / "adapter" if who == "adapter" else None) for who in ("base", "adapter")}
    truth = float(scores["adapter"].mean() - scores["base"].mean())
    names = sorted({str(row.cluster) for row in rows})
    index = {name: [at for at, row in enumerate(rows) if row.cluster == name] for name in names}
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(sets):
        drawn = generator.choice(names, size=pairs, replace=True)
        at = [place for name in drawn for place in index[name]]
        clusters = [str(number) for number, name in enumerate(drawn) for _ in index[name]]
        found = paired_difference(scores["base"][at], scores["adapter"][at], clusters, draws=10_000, seed=0)
        covered += found.low <= truth <= found.high
    print(f"{len(rows)} questions on {len(names)} unseen pairs: base {scores['base'].mean():.2%}, adapter "
          f"{scores['adapter'].mean():.2%}, difference {truth:+.2%}")  # fmt: skip
    print(f"covered by the interval of {pairs} pairs drawn: {covered} of {sets}")


def _scores(rows: list, adapter: Path | None) -> np.ndarray:
    """1 for each right answer, (rows,)."""
    import asyncio
    from contextlib import closing
    from tempfile import TemporaryDirectory

    from socratune.inference.load import load_model
    from socratune.inference.student import LocalStudent, serving_student
    from socratune.judging.rules import mechanical_judge
    from socratune.llm.base import Sampling
    from socratune.runs.journal import Journal
    from socratune.teaching.student import answer_and_judge

    model, tokenizer = load_model("demo", adapter=adapter)
    with (
        TemporaryDirectory() as folder,
        closing(Journal(Path(folder) / "journal.sqlite")) as journal,
        serving_student(LocalStudent(model, tokenizer, name="demo", fingerprint="pool")) as student,
    ):
        work = answer_and_judge(
            rows, student, mechanical_judge, Sampling(max_new_tokens=96),
            journal=journal, key="pool", concurrency=512, tick=lambda done, total: None,
        )  # fmt: skip
        return np.array([answer["verdict"] == "correct" for answer in asyncio.run(work)], dtype=float)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--pool", type=Path, metavar="RUN")
    options = parser.parse_args()
    if options.pool:
        from_pool(options.pool)
    else:
        simulated(options.splits)
        forgetting(options.splits)


if __name__ == "__main__":
    main()

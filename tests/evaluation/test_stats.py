from __future__ import annotations

import importlib.util
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from socratune.evaluation.stats import Paired, compare_paired, most_lost, paired_difference, rows_needed, t_quantile


def simulate(generator: np.random.Generator, clusters: int, size: int) -> tuple[list[bool], list[bool], list[str]]:
    """An adapter that helps on some sources and harms as much on others: no gain, but correlated rows."""
    base, adapter, names = [], [], []
    for cluster in range(clusters):
        effect = generator.uniform(-0.45, 0.45)
        base += list(generator.random(size) < 0.5)
        adapter += list(generator.random(size) < 0.5 + effect)
        names += [str(cluster)] * size
    return base, adapter, names


def share_passed(clusters: int, size: int, *, by_row: bool = False) -> float:
    generator = np.random.default_rng(1)
    passed = 0
    for _ in range(200):
        base, adapter, names = simulate(generator, clusters, size)
        labels = [str(n) for n in range(len(base))] if by_row else names
        passed += compare_paired(paired_difference(base, adapter, labels, draws=400, seed=0), 0.02) == "better"
    return passed / 200


def test_a_worthless_adapter_rarely_passes_although_rows_are_correlated() -> None:
    assert share_passed(40, 10) <= 0.05
    assert share_passed(12, 10) <= 0.05  # few clusters: the t-interval
    assert share_passed(40, 10, by_row=True) >= 0.06  # what resampling rows would do


def test_an_adapter_that_does_nothing_is_never_better() -> None:
    same = [True, False] * 50
    paired = paired_difference(same, same, [str(n) for n in range(100)], draws=1000, seed=0)
    assert (paired.difference, paired.low, paired.high, paired.p) == (0, 0, 0, 1)
    assert compare_paired(paired, 0.02) == "not_worse"


def test_a_clear_gain_is_better_and_its_mirror_worse() -> None:
    base, adapter = [n % 4 == 0 for n in range(200)], [n % 10 != 0 for n in range(200)]
    names = [str(n) for n in range(200)]
    gain = paired_difference(base, adapter, names, draws=2000, seed=0)
    assert gain.low < gain.difference < gain.high
    assert gain.difference == pytest.approx(0.65)
    assert gain.p < 0.01
    assert compare_paired(gain, 0.02) == "better"
    assert compare_paired(paired_difference(adapter, base, names, draws=2000, seed=0), 0.02) == "worse"


def test_too_few_rows_are_inconclusive_and_say_how_many_are_needed() -> None:
    paired = paired_difference([False] * 6, [True, False, True, False, False, False], list("abcdef"), draws=500, seed=0)
    assert compare_paired(paired, 0.02) == "inconclusive"
    assert (rows_needed(paired) or 0) > 6
    assert rows_needed(Paired(-0.1, -0.3, 0.1, 0.5, 10, 10)) is None


def test_unequal_clusters_do_not_turn_a_loss_into_a_gain() -> None:
    base, adapter = [False] * 10 + [True] * 40 + [False] * 60, [True] * 10 + [False] * 100
    paired = paired_difference(base, adapter, [*map(str, range(10)), *["big"] * 100], draws=2000, seed=0)
    assert paired.low <= paired.difference <= paired.high and paired.difference < 0
    assert compare_paired(paired, 0.02) == "inconclusive"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_handful_of_wins_proves_nothing(count: int) -> None:
    names = [str(n) for n in range(count)]
    paired = paired_difference([False] * count, [True] * count, names, draws=500, seed=0)
    assert compare_paired(paired, 0.02) == "inconclusive" and (rows_needed(paired) or 0) > count


def test_one_cluster_proves_nothing() -> None:
    paired = paired_difference([False] * 9, [True] * 9, ["one"] * 9, draws=500, seed=0)
    assert compare_paired(paired, 0.02) == "inconclusive"


# --- the interval --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.3, 0.7])
def test_the_interval_of_correlated_rows_holds_what_it_says(correlation: float) -> None:
    """40 sources of 10 rows, a true gain of 10 points; `experiments/coverage.py` does it 1,000 times."""
    generator = np.random.default_rng(0)
    names = [str(at // 10) for at in range(400)]
    covered = naive = 0
    for _ in range(300):
        base, adapter = coverage().split(generator, 40, 10, correlation, 0.1)
        found = paired_difference(base, adapter, names, draws=1000, seed=0)
        by_row = paired_difference(base, adapter, [str(at) for at in range(400)], draws=1000, seed=0)
        covered += found.low <= 0.1 <= found.high
        naive += by_row.low <= 0.1 <= by_row.high
    assert 0.92 <= covered / 300 <= 0.98
    assert naive / 300 <= 0.85


def coverage() -> Any:
    path = Path(__file__).parents[2] / "experiments" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_experiment", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mcnemar_is_exact_and_only_for_rows_that_stand_alone() -> None:
    base, adapter = [False] * 8 + [True] * 12, [True] * 8 + [True] * 10 + [False] * 2
    alone = paired_difference(base, adapter, [str(n) for n in range(20)], draws=500, seed=0)
    assert alone.test == "mcnemar" and alone.p == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    together = paired_difference(base, adapter, [str(n // 2) for n in range(20)], draws=500, seed=0)
    means = paired_difference([0.25] * 20, [0.5] * 20, [str(n) for n in range(20)], draws=500, seed=0)
    assert together.test == means.test == "sign_flip"


def test_the_sign_flips_agree_with_the_exact_test() -> None:
    generator = np.random.default_rng(3)
    base, adapter = generator.random(100) < 0.5, generator.random(100) < 0.62
    names = [str(n) for n in range(100)]
    exact = paired_difference(base, adapter, names, draws=20_000, seed=0).p
    flipped = paired_difference(base * 0.999, adapter * 0.999, names, draws=20_000, seed=0)  # not 0 or 1: no McNemar
    assert flipped.test == "sign_flip" and flipped.p == pytest.approx(exact, abs=0.01)


def test_few_clusters_get_students_t() -> None:
    names = [str(n // 10) for n in range(120)]
    base, adapter = [n % 2 == 0 for n in range(120)], [n % 3 != 0 for n in range(120)]
    assert paired_difference(base, adapter, names, draws=500, seed=0).interval == "t"
    assert paired_difference(base, adapter, [str(n) for n in range(120)], draws=500, seed=0).interval == "bootstrap"
    assert t_quantile(0.975, 11) == pytest.approx(2.201, abs=1e-3)
    assert t_quantile(0.95, 5) == pytest.approx(2.015, abs=1e-3)
    assert t_quantile(0.975, 1) == pytest.approx(12.706, abs=1e-3)


def test_a_narrower_level_is_narrower() -> None:
    names = [str(n) for n in range(200)]
    base, adapter = [n % 4 == 0 for n in range(200)], [n % 3 == 0 for n in range(200)]
    wide = paired_difference(base, adapter, names, draws=4000, seed=0)
    narrow = paired_difference(base, adapter, names, draws=4000, seed=0, level=0.9)
    assert wide.low < narrow.low < narrow.difference < narrow.high < wide.high


def test_no_loss_at_all_still_leaves_some_possible() -> None:
    assert most_lost(0, 100) == pytest.approx(1 - 0.05**0.01)
    assert most_lost(3, 450) == pytest.approx(0.0171, abs=1e-4)  # Clopper and Pearson
    assert most_lost(400, 4000) == pytest.approx(0.108, abs=1e-3)
    assert most_lost(0, 0) == most_lost(7, 7) == 1


@pytest.mark.slow
def test_many_rows_take_little_memory() -> None:
    generator = np.random.default_rng(0)
    base, adapter = generator.random(20_000) < 0.5, generator.random(20_000) < 0.51
    tracemalloc.start()
    paired = paired_difference(base, adapter, [str(n) for n in range(20_000)], draws=10_000, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert paired.high - paired.low < 0.03
    assert peak < 60e6


def test_without_rows_nothing_is_known() -> None:
    paired = paired_difference([], [], [], draws=500, seed=0)
    assert (paired.low, paired.high, paired.rows) == (-1, 1, 0)
    assert compare_paired(paired, 0.02) == "inconclusive"

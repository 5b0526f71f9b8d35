from __future__ import annotations

import numpy as np
import pytest

from socratune.stats import Paired, compare, paired_difference, rows_needed


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
        passed += compare(paired_difference(base, adapter, labels, draws=400, seed=0), 0.02) == "better"
    return passed / 200


def test_a_worthless_adapter_rarely_passes_although_rows_are_correlated() -> None:
    assert share_passed(40, 10) <= 0.05
    assert share_passed(12, 10) <= 0.05  # few clusters: the t-interval
    assert share_passed(40, 10, by_row=True) >= 0.06  # what resampling rows would do


def test_an_adapter_that_does_nothing_is_never_better() -> None:
    same = [True, False] * 50
    paired = paired_difference(same, same, [str(n) for n in range(100)], draws=1000, seed=0)
    assert (paired.difference, paired.low, paired.high, paired.p) == (0, 0, 0, 1)
    assert compare(paired, 0.02) == "not_worse"


def test_a_clear_gain_is_better_and_its_mirror_worse() -> None:
    base, adapter = [n % 4 == 0 for n in range(200)], [n % 10 != 0 for n in range(200)]
    names = [str(n) for n in range(200)]
    gain = paired_difference(base, adapter, names, draws=2000, seed=0)
    assert gain.low < gain.difference < gain.high
    assert gain.difference == pytest.approx(0.65)
    assert gain.p < 0.01
    assert compare(gain, 0.02) == "better"
    assert compare(paired_difference(adapter, base, names, draws=2000, seed=0), 0.02) == "worse"


def test_too_few_rows_are_inconclusive_and_say_how_many_are_needed() -> None:
    paired = paired_difference([False] * 6, [True, False, True, False, False, False], list("abcdef"), draws=500, seed=0)
    assert compare(paired, 0.02) == "inconclusive"
    assert (rows_needed(paired) or 0) > 6
    assert rows_needed(Paired(-0.1, -0.3, 0.1, 0.5, 10, 10)) is None


def test_unequal_clusters_do_not_turn_a_loss_into_a_gain() -> None:
    base, adapter = [False] * 10 + [True] * 40 + [False] * 60, [True] * 10 + [False] * 100
    paired = paired_difference(base, adapter, [*map(str, range(10)), *["big"] * 100], draws=2000, seed=0)
    assert paired.low <= paired.difference <= paired.high and paired.difference < 0
    assert compare(paired, 0.02) == "inconclusive"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_handful_of_wins_proves_nothing(count: int) -> None:
    names = [str(n) for n in range(count)]
    paired = paired_difference([False] * count, [True] * count, names, draws=500, seed=0)
    assert compare(paired, 0.02) == "inconclusive" and (rows_needed(paired) or 0) > count


def test_one_cluster_proves_nothing() -> None:
    paired = paired_difference([False] * 9, [True] * 9, ["one"] * 9, draws=500, seed=0)
    assert compare(paired, 0.02) == "inconclusive"

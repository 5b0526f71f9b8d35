"""What a held-out set can show, against the test that has to show it: simulated proofs by `stats`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_rows

from socratune.cli.console import summary
from socratune.config import SplitConfig
from socratune.evaluation.stats import (
    CORRELATION,
    DISCORDANCE,
    FEWEST_CLUSTERS,
    compare_paired,
    detectable,
    paired_difference,
    quantile,
)
from socratune.runs.folder import RunDir
from socratune.stages import split

DRAWS = 400


def proofs_that_find_it(sizes: Sequence[int], difference: float, repeats: int) -> float:
    """The share of simulated proofs that end in `better`, for a true difference.

    Two rows of a cluster share its common outcome with probability CORRELATION: the intra-class correlation.
    """
    generator = np.random.default_rng(0)
    gain, loss = (DISCORDANCE + difference) / 2, (DISCORDANCE - difference) / 2
    cluster = np.repeat(np.arange(len(sizes)), sizes)

    def outcomes(count: int) -> np.ndarray:
        drawn = generator.random(count)
        return np.where(drawn < gain, 1, np.where(drawn < gain + loss, -1, 0))

    found = 0
    for seed in range(repeats):
        own, common = outcomes(len(cluster)), outcomes(len(sizes))[cluster]
        change = np.where(generator.random(len(cluster)) < np.sqrt(CORRELATION), common, own)
        base, adapter = (change < 0).tolist(), (change > 0).tolist()
        paired = paired_difference(base, adapter, [str(name) for name in cluster], draws=DRAWS, seed=seed)
        found += compare_paired(paired, 0.02) == "better"
    return found / repeats


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes",
    [[1] * 120, [10] * 40, [6] * 20, [12] * 10, [1, 2, 3, 5, 8, 13, 21, 34] * 5],
    ids=["120 single rows", "40 of 10", "20 of 6", "10 of 12", "uneven"],
)
def test_four_of_five_proofs_find_the_difference_that_is_stated(sizes: list[int]) -> None:
    difference = detectable(sizes, fewest=FEWEST_CLUSTERS).difference
    assert difference is not None
    power = proofs_that_find_it(sizes, difference, 1000)
    assert 0.75 <= power <= 0.85, power
    assert proofs_that_find_it(sizes, 0.0, 300) <= 0.05


def test_more_rows_show_less_and_clusters_count_for_less_than_rows() -> None:
    single, larger = detectable([1] * 100, fewest=6), detectable([1] * 400, fewest=6)
    clustered = detectable([10] * 40, fewest=6)
    assert single.difference and larger.difference and clustered.difference
    assert 0.06 < larger.difference < 0.08 < clustered.difference < single.difference
    assert clustered.design_effect == pytest.approx(1.9)
    for shows in (larger, clustered):  # so many rows do show 5 points
        size = shows.rows // shows.clusters
        enough = detectable([size] * (shows.rows_for_5_points // size), fewest=6).difference
        assert enough == pytest.approx(0.05, abs=0.002)
    assert 700 < larger.rows_for_5_points < 850


@pytest.mark.parametrize(("freedom", "expected"), [(5, 2.571), (10, 2.228), (29, 2.045), (1000, 1.962)])
def test_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert quantile(0.975, freedom) == pytest.approx(expected, abs=0.002)


def do(tmp_path: Path, rows: int, sources: int) -> dict[str, Any]:
    run = RunDir(tmp_path)
    run.create()
    data = [{"question": f"Question {n}?", "answer": f"it is {n}", "source": f"doc {n % sources}"} for n in range(rows)]
    return split.split_rows(run, SplitConfig(), dataset=str(write_rows(tmp_path / "in.jsonl", data))).figures


def test_the_split_says_what_its_held_out_rows_will_show(tmp_path: Path) -> None:
    figures = do(tmp_path, 2000, 200)
    shows = figures["detectable"]
    assert (shows["rows"], shows["clusters"]) == (figures["held_out"], figures["held_out_clusters"])
    line = summary("split", figures)
    assert f"{shows['rows']} held-out rows in {shows['clusters']} clusters will show differences of 11 points" in line
    assert f"5 points need about {shows['rows_for_5_points']}" in line


def test_too_few_clusters_are_said_before_any_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    figures = do(tmp_path, 60, 12)
    assert figures["detectable"]["difference"] is None
    assert f"{figures['held_out']} held-out rows in {figures['held_out_clusters']} clusters cannot prove" in caplog.text
    assert "6 sources" in caplog.text
    caplog.clear()
    do(tmp_path, 2000, 200)
    assert not caplog.text
    do(tmp_path, 1, 1)
    assert "0 held-out rows cannot prove anything" in caplog.text

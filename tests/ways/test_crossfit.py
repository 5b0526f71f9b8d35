"""Every row of a small data set is tested, each by an adapter that saw neither it nor its source."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import demo_rows, socratune, write_rows

from socratune.ways.crossfit import fold_interval, folds_of


def test_sources_are_never_parted_and_folds_are_of_one_size() -> None:
    clusters = [f"source-{at // 3}" for at in range(90)] + [f"row-{at}" for at in range(11)]
    folds = folds_of(clusters, count=5)
    assert all(len({fold for fold, name in zip(folds, clusters, strict=True) if name == one}) == 1 for one in clusters)
    sizes = np.bincount(folds)
    assert len(sizes) == 5 and sizes.max() - sizes.min() <= 1
    assert folds.tolist() == folds_of(clusters, count=5).tolist() != folds_of(clusters, count=5, seed=1).tolist()


def test_the_luck_of_an_adapter_widens_the_interval() -> None:
    names = [str(at) for at in range(100)]
    folds = np.arange(100) % 5
    steady = np.tile([1.0, 1, 0, 0, 0], 20)[np.argsort(folds, kind="stable")]
    lucky = (folds < 2).astype(float)  # two adapters are right in everything, three in nothing
    assert steady.mean() == lucky.mean()
    found, moved = fold_interval(steady, names, folds), fold_interval(lucky, names, folds)
    assert found.by_rows == pytest.approx(moved.by_rows) and found.interval == found.by_rows
    assert moved.interval == moved.by_folds and moved.interval[0] < 0 < moved.by_rows[0]


def calls(run: Path) -> int:
    with closing(sqlite3.connect(run / "journal.sqlite")) as journal:
        return journal.execute("SELECT COUNT(*) FROM calls WHERE role LIKE 'enhance%'").fetchone()[0]


def ids(path: Path) -> set[str]:
    return {json.loads(line)["id"] for line in path.read_text("utf-8").splitlines()}


@pytest.mark.slow
def test_each_row_is_asked_once_by_an_adapter_that_did_not_see_it(tmp_path: Path) -> None:
    data, run = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 48)), tmp_path / "run"
    done = socratune("run", "--model", "demo", "--dataset", data, "--output", run, "--until", "train",
                     "--set", "train.num_train_epochs=1", "--set", "curate.replay_share=0")  # fmt: skip
    assert done.returncode == 0, done.stderr
    early = socratune("validate", run, "--crossfit", "1")
    assert early.returncode == 2 and "at least two folds" in early.stderr
    done = socratune("validate", run, "--crossfit", "3", "--json")
    assert done.returncode in (0, 1), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result == json.loads((run / "crossfit.json").read_text())
    assert result["rows"] == 48 == sum(fold["rows"] for fold in result["folds"])
    low, high = result["ci95"]
    assert low <= result["by_rows"][0] and high >= result["by_rows"][1] and low <= result["by_folds"][0]
    (folds,) = (run / "crossfit").iterdir()
    asked: list[str] = []
    for fold in range(3):
        place = folds / f"fold-{fold}"
        trained, held = ids(place / "train_in.jsonl"), ids(place / "held_out.jsonl")
        assert not trained & held and len(trained | held) == 48
        asked += held
    assert len(asked) == len(set(asked)) == 48
    made = [calls(folds / f"fold-{fold}") for fold in range(3)]
    assert calls(run) < made[0] <= made[1] == made[2], "the second fold has seen all rows, the third asks nothing again"
    assert socratune("validate", run, "--crossfit", "3", "--json").stdout == done.stdout
    shown = socratune("validate", run, "--crossfit", "3").stdout
    assert "48 rows, each asked of an adapter" in " ".join(shown.split())
    other = json.loads(socratune("validate", run, "--crossfit", "2", "--json").stdout)
    assert [fold["rows"] for fold in other["folds"]] == [24, 24], "another division is another folder"


@pytest.mark.slow
def test_what_cannot_be_divided_is_refused(tmp_path: Path, copied_run: Path) -> None:
    assert "a run folder" in socratune("validate", tmp_path, "--crossfit", "5").stderr.replace(
        "the folder of a run", "a run folder"
    )
    many = socratune("validate", copied_run, "--crossfit", "100000")
    assert many.returncode == 2 and "as many as there are sources" in many.stderr
    unknown = socratune("validate", copied_run, "--json")
    assert unknown.returncode == 2 and "only with --crossfit" in unknown.stderr

"""`--estimate`: a pilot of a few rows, and what it says of all."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import demo_rows, socratune, write_rows
from model_server import ModelServer
from test_served import behave

from socratune.config import EndpointConfig, EndpointsConfig, StudentTeacherConfig
from socratune.evaluation.stats import total_interval
from socratune.stages.estimate import _seconds, extrapolate


def test_the_interval_of_a_total_covers_it_in_about_19_of_20_cases() -> None:
    generator, covered = random.Random(0), 0
    for _ in range(400):
        population = [generator.expovariate(1 / 100) for _ in range(300)]
        expected, low, high = total_interval(generator.sample(population, 20), 300)
        assert low <= expected <= high
        covered += low <= sum(population) <= high
    assert 0.90 <= covered / 400 <= 0.99, covered


def test_the_whole_population_leaves_nothing_to_guess() -> None:
    assert total_interval([1, 2, 3], 3) == (6, 6, 6)


def test_an_unknown_price_is_unknown_and_not_nothing() -> None:
    pilot = [{"tokens": {"judge": 10, "teacher": 5}, "usd": {"teacher": 0.5}} for _ in range(4)]
    found = extrapolate(pilot, 8, unpriced={"judge"})
    assert found["usd"] == {"judge": None, "teacher": (4.0, 4.0, 4.0), "all": None}
    assert found["tokens"]["judge"] == (80.0, 80.0, 80.0)


def test_a_limit_by_the_minute_bounds_the_time_from_below() -> None:
    pilot = [{"calls": {"enhance.judge": 2}, "tokens": {"enhance.judge": 300}, "usd": {}, "seconds": 0.1}] * 20
    found = extrapolate(pilot, 200, unpriced=set())
    limits = EndpointsConfig(judge=EndpointConfig(requests_per_minute=100))
    spans = [
        _seconds(pilot, found, StudentTeacherConfig(endpoints=endpoints, concurrency=20), wall_s=0.5, served=True)
        for endpoints in (EndpointsConfig(), limits)
    ]
    assert spans[0] is not None and spans[0][0] == pytest.approx(1.0)
    assert spans[1] == (240.0, 240.0, 240.0)  # 400 calls, 100 a minute
    assert _seconds(pilot, found, StudentTeacherConfig(), wall_s=None, served=False) is None  # rows came from a journal


@pytest.mark.slow
def test_a_pilot_foretells_the_run_and_is_not_paid_twice(tmp_path: Path, results_of: Callable[[Path], Any]) -> None:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 120))
    with ModelServer(behave) as server:
        command = [
            "enhance", "--model", "demo", "--dataset", data, "--output", tmp_path / "run",
            "--teacher-model", "teacher", "--teacher-api-base", server.openai_base,
            "--judge-model", "judge", "--judge-api-base", server.openai_base, "--judge-mode", "llm",
        ]  # fmt: skip
        pilot = socratune(*command, "--estimate")
        assert pilot.returncode == 0, pilot.stderr
        assert "rows, by a pilot of 20" in pilot.stdout and "judge" in pilot.stdout
        asked = {json.dumps(request.body["messages"]) for request in server.seen}
        found = results_of(tmp_path / "run")["estimate"]
        assert socratune(*command).returncode == 0
        later = [json.dumps(request.body["messages"]) for request in server.seen[len(asked) :]]
    run = results_of(tmp_path / "run")["stages"]["enhance"]
    for role in ("enhance.judge", "enhance.teacher"):
        expected, low, high = found["tokens"][role]
        assert low <= run["spent"][role]["tokens"] <= high and low < expected < high
    assert run["rows_in"] == found["rows"] > found["pilot_rows"] == 20
    answered = [text for text in later if text not in asked]
    assert len(set(answered)) >= run["rows_in"] - 20

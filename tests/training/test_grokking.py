"""Late generalisation: the monitor on measured curves, and the arithmetic of the time constant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from socratune.training.grokking import Point, grokking_outlook, grokking_phases, run_length_taus, time_constant_steps

CURVES = Path(__file__).parents[1] / "samples" / "grokking_curves.jsonl"


def test_the_monitor_is_right_on_curves_it_was_not_tuned_on() -> None:
    """Twenty trainings of `experiments/grokking_monitor.py`, half of them set up to grok."""
    lines = [json.loads(line) for line in CURVES.read_text().splitlines()]
    found = [grokking_phases([Point(*point) for point in line["curve"]]) for line in lines]
    right = sum(f.delayed_generalisation == line["groks"] for f, line in zip(found, lines, strict=True))
    assert len(lines) == 20 and sum(line["groks"] for line in lines) == 10 and right >= 19
    assert all(f.memorised_step is not None and f.memorised_step <= 200 for f in found)


def curve(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(step, *pair) for step, pair in enumerate(pairs, 1)]


def test_learning_both_at_once_is_no_delayed_generalisation() -> None:
    found = grokking_phases(curve((0.3, 0.3), (0.7, 0.65), (0.99, 0.95), (1.0, 0.97)))
    assert (found.memorised_step, found.delayed_generalisation) == (3, False)
    assert found.generalised_step is not None


def test_one_lucky_measurement_is_no_phase() -> None:
    found = grokking_phases(curve((1.0, 0.1), (1.0, 0.1), (1.0, 0.97), (1.0, 0.1), (1.0, 0.1)))
    assert (found.memorised_step, found.generalised_step) == (1, None)


def test_nothing_learnt_is_no_phase() -> None:
    assert grokking_phases(curve((0.5, 0.1), (0.6, 0.1))).memorised_step is None
    assert grokking_phases([]).memorised_step is None


def test_the_guides_own_settings_are_a_tenth_of_a_time_constant() -> None:
    steps = 3 * 30 * 63  # 3 epochs times 30, 1,000 rows in batches of 16
    assert time_constant_steps(2e-4, 0.1) == pytest.approx(50_000)
    assert run_length_taus([2e-4] * steps, 0.1) == pytest.approx(0.113, abs=0.001)
    said = grokking_outlook([2e-4] * steps, 0.1)
    assert "50,000 steps" in said and "0.11 τ" in said and "weight_decay 3.1" in said
    assert "there is time" in grokking_outlook([1e-3] * 5000, 1.0)
    assert "Without weight decay" in grokking_outlook([1e-3] * 5000, 0.0)

"""The page that is made of result files: does it say what they say, whichever way they came out?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import evidence
import evidence_claims
import evidence_data
import evidence_figures
import evidence_main
import numpy as np
import pytest

from socratune.ways import reading

SHARES = {
    "mix": 0.68, "direct": 0.66, "clean": 0.65, "iterative": 0.5, "teacher-in-student-format": 0.64, "teacher": 0.35,
    "rft": 0.6, "bare-retry": 0.59, "wrong-hints": 0.58, "sft": 0.2, "prompt": 0.31,
}  # fmt: skip
"""Accuracy of each arm at the largest budget, of the questions that sampling reaches."""
QUESTIONS, SEEDS, STEPS = 120, (0, 1, 2), (0.5, 1)
FEW = {name: SHARES[name] for name in ("mix", "direct", "clean", "rft", "sft")}
FAMILIES = ("word", "unit", "hop", "table")
PRICES = {"student": 0.1, "teacher_in": 0.15, "teacher_out": 0.6}


def drawn(generator: np.random.Generator, share: np.ndarray, most: int) -> str:
    return "".join(map(str, generator.binomial(most, np.clip(share, 0, 1))))


def point(
    generator: np.random.Generator, share: np.ndarray, step: float | None, seed: int, price: float
) -> dict[str, Any]:
    """Of one arm, seed and budget."""
    spent = step or 0.0
    return {
        "step": step, "seed": seed, "usd": 0.02 * spent * price, "student_tokens": round(100_000 * spent),
        "teacher_tokens": round(20_000 * spent), "rows": 300, "hinted": 90, "trained_tokens": 9_000,
        "sampled": drawn(generator, share, 4), "greedy": drawn(generator, share + 0.05, 1), "pool": 0.99,
    }  # fmt: skip


def curve(
    shares: dict[str, float] = SHARES, *, lost: float = 0.0, seeds: tuple[int, ...] = SEEDS, seed: int = 0
) -> dict[str, Any]:
    """A curve whose arms are this good; `lost`: by how much `mix` is better where pass@8 = 0, rft being 0.3 there."""
    generator = np.random.default_rng(seed)
    hits = generator.binomial(8, 0.3, QUESTIONS) * (generator.random(QUESTIONS) < 0.6)

    def arm(name: str, price: float) -> dict[str, Any]:
        right = np.where(hits > 0, shares[name], 0.3 + lost * (name == "mix"))
        steps = [None] if name in ("sft", "prompt") else STEPS
        points = [
            point(generator, right * (0.9 + 0.1 * (step or 1)), step, at, price) for step in steps for at in seeds
        ]
        return {"learning_rate": None if name == "prompt" else 0.002, "by_rate": {"0.002": 0.4}, "points": points}

    return {
        "device": "a made-up device", "seconds": 3600.0, "seeds": list(seeds), "rows": 600, "steps": list(STEPS),
        "questions": [{"family": FAMILIES[at % 4], "level": at % 5, "kind": "made up"} for at in range(QUESTIONS)],
        "hits8": "".join(map(str, hits)),
        "base": {"sampled": drawn(generator, hits / 8, 4), "greedy": drawn(generator, hits / 8, 1), "pool": 1.0},
        "prices": {"small": PRICES, "large": {**PRICES, "teacher_in": 5.0, "teacher_out": 25.0}},
        "curves": {
            "small": {name: arm(name, 1.0) for name in shares},
            "large": {name: arm(name, 8.0) for name in shares if name not in ("clean", "iterative")},
        },
    }  # fmt: skip


def small_prices(raw: dict[str, Any]) -> Any:
    return evidence_claims.Reading(evidence_data.Curve(raw, "curve"), "small")


def save(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name.replace('_', '-')}.json").write_text(json.dumps(content))
    return folder


def addition(seeds: int = 2) -> dict[str, Any]:
    def course(slower: float) -> list[dict[str, Any]]:
        return [
            {"round": at, "accuracy": {str(n): min(1.0, at / (1 + slower * n)) for n in range(1, 6)}, "hinted": 3}
            for at in range(1, 8)
        ]

    return {
        "seeds": {str(at): {"base": {}, "arms": {"without": course(1), "with": course(0.2)}} for at in range(seeds)}
    }


def side() -> dict[str, Any]:
    raw, generator = curve(), np.random.default_rng(5)

    def row(setting: str, share: float, seed: int, pool: float) -> dict[str, Any]:
        return {"setting": setting, "seed": seed, "rows": 500, "pool": pool, "also": {"kept": 12.0},
                "sampled": drawn(generator, np.full(QUESTIONS, share), 4),
                "greedy": drawn(generator, np.full(QUESTIONS, share), 1)}  # fmt: skip

    same = [row(name, 0.6, seed, 0.99) for name in ("16", "64") for seed in SEEDS]
    apart = [row("0 %", 0.6, 0, 0.9), row("10 %", 0.6, 0, 0.99), row("20 %", 0.3, 0, 0.99)]
    studies = {"rank": {"about": "Three ranks.", "rows": same}, "replay": {"about": "Replay.", "rows": apart}}
    return {"questions": raw["questions"], "hits8": raw["hits8"], "base": raw["base"], "studies": studies}


ACCEPTANCE = {
    "rows": {"pass@1": {"all": 31.2, "word": 20.0, "level 0": 70.0}, "wrong hint, corrupted": {"all": 44.0}},
    "missed": ["wrong hint, corrupted"], "per_family": 400, "seconds": 30.0,
    "bounds": {"pass@1": [20, 40], "wrong hint, corrupted": [0, 36]},
}  # fmt: skip
HOPELESS = [
    {
        "seed": 0,
        "trained_rows": 61,
        "base": 0.02,
        "adapter": 0.03,
        "ci95": [-0.01, 0.02],
        "refused": True,
        "reason": "none",
    },
    {"seed": 1, "trained_rows": None, "base": None, "adapter": None, "ci95": None, "refused": False, "reason": None},
]


# -------- intervals
def test_arms_that_differ_are_told_apart_and_equal_ones_are_not() -> None:
    generator = np.random.default_rng(1)
    same = [generator.random((3, 300)) < 0.5 for _ in range(2)]
    better = generator.random((3, 300)) < 0.65
    assert evidence_data.apart(better.astype(float), same[0].astype(float)).low > 0
    alike = evidence_data.apart(same[1].astype(float), same[0].astype(float))
    assert alike.low < 0 < alike.high
    exact = evidence_data.apart(better.astype(float), better.astype(float))
    assert exact.value == 0 and exact.low <= 0 <= exact.high


def test_digits_that_do_not_fit_the_questions_are_named() -> None:
    raw = curve()
    raw["curves"]["small"]["mix"]["points"][0]["sampled"] = "01"
    with pytest.raises(ValueError, match="small, mix, sampled: 120 digits expected, 2 found"):
        evidence_data.Curve(raw, "curve")


# -------- what was registered
@pytest.mark.usefixtures("few_draws")
def test_the_registered_claims_follow_the_data() -> None:
    wins = small_prices(curve({**SHARES, "mix": 0.6}, lost=0.4))
    assert [claim.status for claim in (wins.lost(), wins.only())] == ["holds", "holds"]
    everywhere = small_prices(curve({**SHARES, "mix": 0.95}, lost=0.4))
    assert everywhere.only().status == "does not hold"
    assert everywhere.families().status == everywhere.dominates().status == "holds"
    loses = small_prices(curve({**SHARES, "mix": 0.2}, lost=-0.2))
    statuses = {claim.status for claim in (loses.lost(), loses.families(), loses.dominates(), loses.worth())}
    assert statuses == {"does not hold"}
    assert small_prices(curve(dict.fromkeys(SHARES, 0.5))).lost().status != "holds"


def test_what_mix_forgets_counts_by_the_upper_end() -> None:
    raw = curve()
    assert small_prices(raw).keeps("mix").status == "holds"
    for at, one in enumerate(raw["curves"]["small"]["mix"]["points"]):
        one["pool"] = (1.0, 0.99, 0.94)[at % 3]
    assert small_prices(raw).keeps("mix").status == "does not hold"


def test_the_price_at_which_sampling_wins_is_where_its_tokens_cost_as_much() -> None:
    assert evidence_claims.reaches([100, 400], [0.5, 0.7], 0.6) == pytest.approx(200)
    assert evidence_claims.reaches([100, 400], [0.5, 0.7], 0.8) is None
    found = evidence_claims.BreakEven(3e5, 4e5, 1e5, 2e4, 100, 0.1)
    assert found.price(3e5) == pytest.approx(1.0) and found.row(3e5) == pytest.approx(2000)


# -------- the order of the arms
@pytest.mark.usefixtures("few_draws")
def test_a_pair_that_turned_round_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {name: SHARES[name] for name in ("mix", "rft", "sft")}
    full, alike = curve(few, lost=0.3), curve(few, lost=0.3, seed=3, seeds=(0,))
    same = evidence.arms_order(full, alike)
    assert same.agreed == same.compared == 3
    turned = curve({**few, "rft": 0.1}, lost=0.3, seed=3)
    found = evidence.arms_order(full, turned)
    assert (found.agreed, found.compared) == (2, 3) and "`rft` − `sft`" in found.turned[0]
    near = evidence.arms_order(full, curve({**few, "rft": few["sft"] - 0.06}, lost=0.3, seed=3, seeds=(0,)))
    assert near.agreed == 2 and "`rft` − `sft`" in near.open[0] and not near.turned
    folder = save(tmp_path, curve=full, turned=turned, alike=alike)
    assert evidence.main(["--results", str(folder), "--order", str(folder / "turned.json")]) == 1
    assert "2 of 3 pairs" in capsys.readouterr().out
    assert evidence.main(["--results", str(folder), "--order", str(folder / "alike.json")]) == 0
    capsys.readouterr()
    (folder / "other.json").write_text("{}")
    for name in ("other.json", "nowhere.json"):
        assert evidence.main(["--results", str(folder), "--order", str(folder / name)]) == 1
        assert f"{name} is no result of curve.py" in capsys.readouterr().out


# -------- the page
@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Intervals from 300 resamples: what the page is made of is tested, not how exact they are."""
    monkeypatch.setattr(reading, "DRAWS", 300)
    reading._resamples.cache_clear()
    yield
    reading._resamples.cache_clear()


def written(tmp_path: Path, **files: Any) -> str:
    arguments = ["--results", str(save(tmp_path / "results", **files)), "--docs", str(tmp_path / "docs")]
    assert evidence.main(arguments) == 0
    assert evidence.main([*arguments, "--check"]) == 0
    return (tmp_path / "docs" / "evidence-laboratory.md").read_text()


def test_without_results_the_page_says_so(tmp_path: Path) -> None:
    text = written(tmp_path)
    assert text.count("Not measured: there is no result file") == 9 and evidence.PREDICTION in text


@pytest.mark.usefixtures("few_draws")
def test_the_whole_page_and_a_stale_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = curve(FEW, lost=0.3, seeds=(0,), seed=4)
    del small["curves"]["large"]
    text = written(tmp_path, curve=curve(FEW, lost=0.3), side=side(), acceptance=ACCEPTANCE, hopeless=HOPELESS,
                   addition=addition(), small=small)  # fmt: skip
    assert "`iterative`, " in text
    assert "Refused for want of a gain: **1 of 2**" in text and "Out of bounds: wrong hint, corrupted" in text
    assert "Against 16, no difference that 3 seeds can show." in text
    assert "Against 10 %, worse: 20 % (-" in text and "no difference that 1 seed can show: 0 %." in text
    figure = tmp_path / "docs" / "figures" / "evidence-curve-small.svg"
    assert figure.read_text().count("<svg") == 1
    figure.write_text(figure.read_text().replace("mix 6", "mix 9"))
    (tmp_path / "docs" / "figures" / "evidence-of-old.svg").write_text("<svg/>")
    arguments = ["--results", str(tmp_path / "results"), "--docs", str(tmp_path / "docs"), "--check"]
    assert evidence.main(arguments) == 1
    said = capsys.readouterr().out
    assert "evidence-curve-small.svg is stale" in said and "evidence-of-old.svg is stale" in said


@pytest.mark.usefixtures("few_draws")
def test_equal_arms_and_a_second_base(tmp_path: Path) -> None:
    equal = curve(dict.fromkeys(("mix", "rft", "sft"), 0.5))
    text = written(tmp_path, curve=equal, curve_2=curve({"mix": 0.9, "rft": 0.5}, lost=0.4))
    assert "**The same on a second base** (`curve-2.json`)" in text and "on a second base" in text.split("## ")[1]


def test_the_first_page_puts_real_models_first_and_takes_their_figures_from_the_files(tmp_path: Path) -> None:
    kept = Path(evidence.__file__).parent / "results" / "real"
    real, ways = (json.loads((kept / f"{name}.json").read_text()) for name in ("figures", "ways"))
    half, quarter = [1, 0] * 25, [1, 0, 0, 0] * 12 + [0, 0]
    ways["verdicts"] = {"direct": half, "wrong-hints": half, "rft": quarter, "sft": [1] * 50}
    for row in ways["arms"]:
        row["calls_tokens"] = {"direct": 1000, "rft": 1050, "mix": 1300, "sft": 0}.get(row["arm"])
    save(tmp_path / "results" / "real", figures=real, ways=ways)
    written(tmp_path)
    page = (tmp_path / "docs" / "evidence.md").read_text()
    words = " ".join(page.split())
    assert "hints were ahead by +26.0 (" in words and "the difference is +0.0 (" in words
    assert "the 135 M model from 20.0 to 100.0 %" in words
    assert (
        "| `letter_counting` | refused: one answer to everything | 400 | 31.2 → 74.0 | +42.8 (+36.8 … +48.9) |" in page
    )
    assert "`rft` paid for about as many tokens as `direct`" in words
    assert "`mix` paid for 30 % more and `sft` for none." in words
    assert "equal money |" not in page, "only `direct` has that reading"
    assert page.index("## Real models") < page.index("## The laboratory") and len(page.splitlines()) <= 250
    save(tmp_path / "results" / "real", figures=None, ways=None)
    written(tmp_path)
    page = (tmp_path / "docs" / "evidence.md").read_text()
    assert "hints were ahead by (not measured) points" in " ".join(page.split()) and "{" not in page


def test_the_first_page_says_of_each_run_what_the_gate_says_today(tmp_path: Path) -> None:
    def cell(
        gained: float, *, verdict: str = "better", most: float = 0.05, low: float = 0.02, status: str = "passed"
    ) -> dict[str, Any]:
        test = {"base_accuracy": 0.5, "adapter_accuracy": 0.5 + gained, "difference": gained, "n": 100,
                "ci95": [low, gained + 0.1], "verdict": verdict, "majority": {"accuracy": most}}  # fmt: skip
        return {"part": "table", "model": "smollm2-135m-instruct", "cell": "made_up", "status": status, "hints": 3,
                "held_out": test, "new_numbers": None}  # fmt: skip

    assert evidence_main.gate(cell(0.2)) == "passed"
    assert evidence_main.gate(cell(0.2, status="failed")) == "refused"
    assert evidence_main.gate(cell(0.1, verdict="inconclusive", low=-0.1)) == "gain not proven"
    assert evidence_main.gate(cell(0.2, verdict="inconclusive")) == "undecided answers"
    often = cell(0.2, most=0.75)
    assert evidence_main.gate(often) == "one answer to everything", "not more accurate than one answer to all"
    beaten = cell(0.2, most=0.6)
    assert evidence_main.gate(beaten) == "passed"
    beaten["held_out"]["majority"]["ci95"] = [-0.01, 0.2]
    assert evidence_main.gate(beaten) == "one answer to everything"
    save(tmp_path / "results" / "real", figures={"cells": [cell(0.2), often]})
    written(tmp_path)
    page = " ".join((tmp_path / "docs" / "evidence.md").read_text().split())
    assert "Of two runs with two models, the gate passed one." in page
    assert "SmolLM2-135M-Instruct on `made_up` was recorded as passed." in page


def test_labels_keep_their_distance_within_the_axes() -> None:
    places = evidence_figures.spread([50.0, 51.0, 52.0, 300.0, 299.0], 34.0, 300.0)
    order = sorted(places)
    assert all(after - before >= 12.9 for before, after in pairwise(order))
    assert order[0] >= 34 and order[-1] <= 300 and places[0] < places[1] < places[2] < places[4] < places[3]


def test_labels_can_be_read_on_white_and_no_two_ways_share_a_colour() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    assert {*evidence_data.ORDER} < {*evidence_figures.COLOURS}
    colours = [*evidence_figures.COLOURS.values(), *evidence_figures.SHADES]
    assert len({*colours}) == len(colours)
    assert {colour: 1.05 / (light(colour) + 0.05) for colour in colours if 1.05 / (light(colour) + 0.05) < 4.5} == {}

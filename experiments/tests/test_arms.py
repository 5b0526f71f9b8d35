"""What the arms of the hint-value curve buy, on draws made by hand: a penny never buys twice, and all see the same."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import arms
import curve
import draws as lab_draws
import pytest

BASE = Path(__file__).parent.parent / "lab" / "base"
PRICES = arms.PRICES["small"]
Draw = lab_draws.Draw


@pytest.fixture(scope="module")
def draws() -> Any:
    """Forty problems: some solved at once, some now and then, some never; hints help in six of ten cases."""
    from transformers import AutoTokenizer

    writer, rng = lab_draws.Writer(AutoTokenizer.from_pretrained(BASE)), random.Random(0)
    problems = curve.evenly("train", 10, rng)
    prompts = [writer.prompt(lab_draws.asked(problem)) for problem in problems]

    def some(count: int, share: float) -> list[Any]:
        return [
            Draw([rng.randrange(9, 200) for _ in range(rng.randrange(5, 60))], rng.random() < share)
            for _ in range(count)
        ]

    def by_round() -> list[list[list[Any]]]:
        return [[lab_draws.until_right(some(2, 0.6)) for _ in range(3)] for _ in problems]

    samples = []
    for _ in problems:
        share = rng.choice([0.0, 0.1, 0.5])
        samples.append(some(64, share))
    hints = [["Read once more."] * 3 for _ in problems]
    retried = [some(64, 0.1) for _ in problems]
    neutral = list(zip(prompts, some(40, 1.0), strict=True))
    one, two, three = (by_round() for _ in range(3))
    return lab_draws.Draws(problems, writer, prompts, samples, hints, hints, one, two, three, retried, neutral)


def bought(draws: Any, arm: str, share: float) -> tuple[Any, Any]:
    """With this part of what the loop costs on all rows."""
    purse = arms.Purse(PRICES, share * arms.protocol_usd(draws, PRICES, 0))
    return arms.buy(arms.ARMS[arm], draws, purse, 0), purse


def answer_of(document: Any) -> list[int]:
    """The trained tokens, but for the end of the turn."""
    return [token for token, mark in zip(*document, strict=True) if mark][:-1]


@pytest.mark.parametrize("arm", list(arms.ARMS))
def test_no_arm_spends_more_than_it_has_and_more_money_never_buys_fewer_rows(draws: Any, arm: str) -> None:
    rows = []
    for share in (0.125, 0.25, 0.5, 1.0, 2.0, 4.0):
        found, purse = bought(draws, arm, share)
        assert purse.spent <= purse.usd
        tokens = PRICES.student * purse.student_tokens / 1e6
        assert purse.spent > 0.999999 * tokens and (purse.spent > 1.000001 * tokens) == bool(purse.teacher_tokens)
        rows.append(set(found.by_row))
    assert all(before <= after for before, after in pairwise(rows))


def test_what_is_left_goes_into_samples_until_four_are_right_and_the_longest_is_kept(draws: Any) -> None:
    one, _ = bought(draws, "rft", 1e6)
    every, _ = bought(draws, "rft-all", 1e6)
    for at, samples in enumerate(draws.samples):
        right = [draw.ids for draw in samples if draw.right][: lab_draws.ENOUGH]
        assert [answer_of(each) for each in every.by_row.get(at, [])] == right
        kept = [max(right, key=len)] if right else []
        assert [answer_of(each) for each in one.by_row.get(at, [])] == kept


def test_a_row_is_hinted_only_where_its_samples_were_wrong(draws: Any) -> None:
    for arm, tries in (("mix", lab_draws.FIRST), ("direct", 1)):
        found, _ = bought(draws, arm, 1e6)
        failed = {at for at, some in enumerate(draws.samples) if not any(draw.right for draw in some[:tries])}
        helped = {at for at in failed if any(draw.right for some in draws.noted[at] for draw in some)}
        assert found.hinted == helped and helped
        for at in helped:
            hinted = next(draw for some in draws.noted[at] for draw in some if draw.right)
            assert [answer_of(each) for each in found.by_row[at]] == [hinted.ids]


def test_replay_is_paid_and_has_its_share_of_the_tokens(draws: Any) -> None:
    bare, cheap = bought(draws, "mix", 1e6)
    found, purse = bought(draws, "mix-and-replay", 1e6)
    rows, own = bare.documents, found.documents[len(bare.documents) :]
    assert found.documents[: len(rows)] == rows and own
    share = arms.trained(own) / arms.trained(found.documents)
    assert arms.REPLAY_SHARE <= share < arms.REPLAY_SHARE + 0.05
    assert purse.student_tokens - cheap.student_tokens == sum(
        len(prompt) + len(draw.ids) + 1 for prompt, draw in draws.neutral
    )


def test_equal_trainings_are_made_once_and_every_place_hears_of_it() -> None:
    made: list[int] = []

    class Fake(curve.Laboratory):
        def __init__(self) -> None:
            self.size, self.until, self.began, self.base = curve.Size(groups=2), float("inf"), 0.0, None

    def train(_: Any, tasks: Any) -> Any:
        made.extend(len(task.documents) for task in tasks)
        return type("Adapters", (), {"merged": lambda self, base: [len(task.documents) for task in tasks]})()

    rows = [([1, 2, 3], [0, 1, 1])]
    tasks = [curve.task(rows * count, 2e-3, 0) for count in (1, 2, 1, 3, 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curve, "train", train)
        found = dict(pair for chunk in Fake().after(tasks, lambda models: cast(Any, models)) for pair in chunk)
    assert made == [1, 2, 3] and found == {0: 1, 2: 1, 1: 2, 4: 2, 3: 3}

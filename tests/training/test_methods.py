"""The methods besides SFT and preference pairs: each loss by the plain way, and what a run makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import demo_rows, socratune, write_rows
from peft import get_peft_model
from test_engine import SMALL, row, small
from test_preference import shortened

from socratune.config import PLAIN_TEMPLATE, EnhancedTrainingConfig
from socratune.inference.template import Rendered
from socratune.training.adapters import lora_config
from socratune.training.distil import Distilled, distil_mean, divergence, with_teacher
from socratune.training.engine import HFEngine
from socratune.training.grpo import Sampled, advantages, clipped_mean, with_samplers
from socratune.training.weights import Weighted, answer_weight, weighted_mean

CONFIG = EnhancedTrainingConfig(r=4, per_device_train_batch_size=4, gradient_accumulation_steps=1)
ROWS = [row(str(at), length, seed=at) for at, length in enumerate((12, 30, 21))]
MICRO = pytest.mark.parametrize("micro_tokens", [4096, 40, 0])


def engine_of(items: list[Any], micro_tokens: int, *, moved: bool = True) -> HFEngine:
    torch.manual_seed(0)
    engine = HFEngine(get_peft_model(small("llama"), lora_config(CONFIG)), items, CONFIG)
    engine.micro_tokens = micro_tokens
    if moved:
        move(engine)
    return engine


def move(engine: HFEngine) -> None:
    """The adapter away from the base."""
    with torch.no_grad():
        for name, weight in engine.model.named_parameters():
            if "lora_B" in name:
                weight.add_(torch.randn_like(weight), alpha=0.3)
    engine.stepped()


def likelihoods(model: Any, answer: Rendered) -> torch.Tensor:
    """(L, V), log p at each labelled token by the plain way."""
    logits = model(input_ids=torch.tensor([answer.ids])).logits[0, :-1].log_softmax(-1)
    return logits[[at for at, label in enumerate(answer.labels[1:]) if label != -100]]


def said(model: Any, answer: Rendered) -> torch.Tensor:
    """(L,), log p of the labelled tokens."""
    return likelihoods(model, answer).gather(-1, torch.tensor(answer.trained_ids)[:, None]).squeeze(-1)


def agree(engine: HFEngine, losses: Callable[[], Any], expected: torch.Tensor) -> None:
    """Loss and gradient are those of the plain way."""
    weights = [weight for weight in engine.model.parameters() if weight.requires_grad]
    by_hand = torch.autograd.grad(expected, weights)
    with engine.training():
        engine.stepped()
        found = torch.stack(list(losses())).sum()
        gradient = torch.autograd.grad(found, weights)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    for one, other in zip(gradient, by_hand, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@MICRO
def test_an_answer_counts_by_its_weight(micro_tokens: int) -> None:
    items = [Weighted(each, weight) for each, weight in zip(ROWS, (1.0, 0.25, 0.5), strict=True)]
    engine = engine_of(items, micro_tokens)
    total = sum(len(each.trained_ids) for each in ROWS)
    expected = -sum((said(engine.model, item.row).sum() * item.weight for item in items), torch.zeros(())) / total
    agree(engine, lambda: weighted_mean(engine, items), expected)


def test_what_is_found_every_second_time_alone_teaches_most() -> None:
    alone = [answer_weight(rate / 4, alone=True) for rate in range(5)]
    assert alone == pytest.approx([0, 0.866, 1, 0.866, 0], abs=1e-3)
    assert answer_weight(0.0, alone=False) == 1.0 > answer_weight(0.25, alone=False)


def test_a_group_that_is_all_right_or_all_wrong_says_nothing() -> None:
    assert advantages([1, 1]) is advantages([0, 0, 0]) is advantages([]) is None
    assert advantages([1, 0, 0, 0]) == [0.75, -0.25, -0.25, -0.25]


@MICRO
def test_tokens_that_have_moved_far_are_clipped_and_hinted_ones_are_not(micro_tokens: int) -> None:
    items = [Sampled(ROWS[0], 0.75), Sampled(ROWS[1], -0.25), Sampled(ROWS[2], 0.5, off_policy=True)]
    engine = engine_of(items, micro_tokens)
    with torch.no_grad():
        before = [said(engine.model, item.row) for item in items]
    items = with_samplers(engine, items)
    for item, expected in zip(items, before, strict=True):
        torch.testing.assert_close(item.before, expected, rtol=1e-4, atol=1e-4)
    move(engine)
    total, loss, clipped = sum(len(each.trained_ids) for each in ROWS), torch.zeros(()), 0
    for item, old in zip(items, before, strict=True):
        new = said(engine.model, item.row)
        ratio = (new - (new.detach() if item.off_policy else old)).exp()
        limited = ratio.clamp(0.8, 1.28)
        clipped += int((ratio != limited).sum())
        loss = loss - torch.minimum(ratio * item.weight, limited * item.weight).sum() / total
    assert clipped > 2
    agree(engine, lambda: clipped_mean(engine, items), loss)


SEEN = [row(str(at), len(each.ids) + 9, seed=at) for at, each in enumerate(ROWS)]


def attempts() -> list[Distilled]:
    """The same trained ids behind another, longer prompt."""
    found = []
    for short, long in zip(ROWS, SEEN, strict=True):
        ids = [*long.ids[: long.prompt_length], *short.trained_ids]
        labels = [-100] * long.prompt_length + short.trained_ids
        short_ids = [*short.ids[: short.prompt_length], *short.trained_ids]
        short_labels = [-100] * short.prompt_length + short.trained_ids
        plain = Rendered(short.id, short_ids, short_labels, short.prompt_length)
        found.append(Distilled(plain, Rendered(short.id, ids, labels, long.prompt_length)))
    return found


@MICRO
@pytest.mark.parametrize("clip", [torch.inf, 1e-3])
def test_the_student_is_drawn_to_the_base_that_sees_more(micro_tokens: int, clip: float) -> None:
    items: list[Any] = [*attempts(), ROWS[1]]
    engine = engine_of(items, micro_tokens)
    model = engine.model
    with torch.no_grad(), model.disable_adapter():
        told = [likelihoods(model, item.seen) for item in items[:3]]
    items = with_teacher(engine, items, top=SMALL["vocab_size"])
    loss = -said(model, ROWS[1]).mean() / 4
    for item, teacher in zip(items[:3], told, strict=True):
        tokens = (teacher.exp() * (teacher - likelihoods(model, item.row))).sum(-1)
        assert tokens.max() > 1e-3
        loss = loss + (tokens * (clip / tokens.detach()).clamp(max=1)).mean() / 4
    agree(engine, lambda: distil_mean(engine, items, clip), loss)


def test_the_rest_of_the_vocabulary_counts_as_one_token() -> None:
    told = torch.tensor([[0.6, 0.2, 0.1, 0.1]]).log()
    student = torch.tensor([[0.3, 0.3, 0.2, 0.2]]).log()
    expected = 0.6 * torch.tensor(2.0).log() + 0.2 * torch.tensor(2 / 3).log() + 0.2 * torch.tensor(0.5).log()
    assert divergence(student[:, :2], told[:, :2], torch.inf).item() == pytest.approx(expected.item(), abs=1e-6)


# --- as runs -------------------------------------------------------------------------------------------------------

Results = Callable[[Path], dict[str, Any]]


@pytest.mark.parametrize(("method", "made"), [("weights", "weighted"), ("distil", "attempts"), ("grpo", "answers")])
def test_a_run_is_trained_so(method: str, made: str, copied_run: Path, results_of: Results) -> None:
    """Out of the traces it has; the base has 28 % of the dev rows."""
    more = ["--set", "train.learning_rate=1e-3"] if method == "grpo" else []
    done = socratune("train", shortened(copied_run), "--method", method, "--restart", *more)
    assert done.returncode == 0, done.stderr
    training = results_of(copied_run)["stages"]["train"]
    assert training[made] > 50
    assert training["epochs"][-1]["dev_accuracy"] > 0.8


def enhanced(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Every trace of the run changed."""
    file = run / "enhanced_dataset.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for each in rows:
        change(each["metadata"]["enhancement"])
    file.write_text("".join(json.dumps(each) + "\n" for each in rows), "utf-8")


def test_a_method_without_material_says_what_it_lacks(copied_run: Path) -> None:
    def unhinted(trace: dict[str, Any]) -> None:
        for attempt in trace["trace"]:
            attempt["hint"] = None

    enhanced(copied_run, unhinted)
    refused = socratune("train", copied_run, "--method", "distil", "--restart")
    assert refused.returncode == 2 and "train.distil.context=solution" in " ".join(refused.stderr.split())


def test_the_solution_may_be_what_the_teacher_sees(copied_run: Path, results_of: Results) -> None:
    seen = ["--set", "train.distil.context=solution", "--set", "train.distil.attempts=all"]
    done = socratune("train", shortened(copied_run), "--method", "distil", *seen, "--restart")
    assert done.returncode == 0, done.stderr
    training = results_of(copied_run)["stages"]["train"]
    assert training["attempts"] == training["rows_out"] - training["attempts"], "an attempt for each of all rows"


@pytest.mark.slow
def test_star_asks_no_teacher_and_a_group_is_drawn_whole(tmp_path: Path, results_of: Results) -> None:
    for method in ("star", "grpo"):
        run = tmp_path / method
        few = ["--set", "split.max_held_out_rows=40", "--set", "enhance.max_new_tokens=48", "--until", "curate"]
        data = tmp_path / "rows.jsonl"
        if not data.exists():
            write_rows(data, demo_rows("train", 40))
        done = socratune("run", "--model", "demo", "--dataset", data, "--output", run, "--method", method, *few)
        assert done.returncode == 0, done.stderr
        loop = results_of(run)["stages"]["enhance"]
        lines = [json.loads(line) for line in (run / "enhanced_dataset.jsonl").read_text("utf-8").splitlines()]
        traces = [line["metadata"]["enhancement"]["trace"] for line in lines]
        if method == "star":
            assert loop["hints"] == 0
            assert any(attempt["given"] == "reference" for trace in traces for attempt in trace)
        else:
            plain = [sum(attempt["given"] == "question" for attempt in trace) for trace in traces]
            assert set(plain) == {8}


@pytest.mark.slow
def test_rounds_of_distillation_go_on_from_the_adapter_of_the_round_before(tmp_path: Path, results_of: Results) -> None:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 120))
    run = tmp_path / "run"
    done = socratune(
        "run", "--model", "demo", "--dataset", data, "--output", run, "--method", "distil", "--rounds", "2",
        "--set", "split.max_held_out_rows=40", "--set", "train.learning_rate=6e-4", "--until", "train",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = results_of(run)["rounds"]
    assert second["solved"] > first["solved"], "the attempts are those of the adapter"
    assert second["dev_accuracy"] > first["dev_accuracy"] + 0.2, "as many steps from the base bring what round 1 has"


def test_a_model_that_thinks_is_distilled_by_force_alone(tmp_path: Path) -> None:
    template = tmp_path / "thinks.jinja"
    template.write_text(PLAIN_TEMPLATE + "{% if add_generation_prompt %}<think>{% endif %}", "utf-8")
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 20))
    asked: list[Any] = ["run", "--model", "demo", "--dataset", data, "--output", tmp_path / "run", "--until", "split"]
    asked += ["--chat-template", template, "--method", "distil"]
    refused = socratune(*asked)
    assert refused.returncode == 2 and "--force" in refused.stderr, refused.stderr
    assert socratune(*asked, "--force").returncode == 0

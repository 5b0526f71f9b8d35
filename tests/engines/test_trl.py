"""TRL's SFTTrainer beside ours: the same rows, the same adapter, the same losses."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from programs import needs

from socratune.config import EnhancedTrainingConfig
from socratune.inference.load import load_model
from socratune.inference.template import Rendered, render
from socratune.llm.prompts import with_private_hint
from socratune.publishing.trainers import TRAINERS
from socratune.resolve import resolve_settings
from socratune.rows import Example, Piece
from socratune.runs.folder import RunDir, write_json, write_jsonl
from socratune.stages.export_rows import export_training
from socratune.training.adapters import lora_config
from socratune.training.distil import Distilled, distil_mean, divergence, with_teacher
from socratune.training.engine import HFEngine, train_hf
from socratune.training.grpo import CLIP_HIGH, CLIP_LOW, Sampled, clipped_mean, with_samplers
from socratune.training.steps import Hooks, Schedule

pytestmark = [needs("trl"), pytest.mark.slow, pytest.mark.filterwarnings("default")]

ROWS, EPOCHS = 32, 8
CONFIG = EnhancedTrainingConfig(
    r=8, learning_rate=3e-3, num_train_epochs=EPOCHS, per_device_train_batch_size=ROWS, gradient_accumulation_steps=1
)


@pytest.fixture(scope="module")
def examples(finished_run: Path) -> list[Example]:
    """Rows as a run has exported them."""
    lines = (finished_run / "train.jsonl").read_text("utf-8").splitlines()[:ROWS]
    return [Example.from_json(json.loads(line)) for line in lines]


def trainer_of(model: Any, tokenizer: Any, rows: list[dict[str, Any]], folder: Path, **more: Any) -> Any:
    from datasets import Dataset
    from transformers import Trainer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    args = SFTConfig(
        output_dir=str(folder), num_train_epochs=EPOCHS, per_device_train_batch_size=ROWS, max_length=None,
        max_grad_norm=CONFIG.max_grad_norm, use_cpu=True, bf16=False, gradient_checkpointing=False, packing=False,
        logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip

    class OnProcessor(SFTTrainer):
        """With the loss of the Trainer it is made of: TRL's own kernel for it runs on GPUs alone."""

        compute_loss = Trainer.compute_loss

    return OnProcessor(
        model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **more
    )


def ours(rows: list[Rendered], folder: Path) -> list[float]:
    """Losses of the steps of our own back end; a step is all rows."""
    found: list[float] = []

    def note(_done: int, _total: int, figures: dict[str, float]) -> None:
        found.append(figures["loss"])

    train_hf(load_model("demo")[0], rows, CONFIG, folder, Hooks(lambda _model: {}, note), seed=1)
    return found


def theirs(rows: list[Rendered], folder: Path) -> list[float]:
    """Losses of the steps of TRL's trainer, with our rate at each step."""
    model, tokenizer = load_model("demo")
    torch.manual_seed(1)
    model = get_peft_model(model, lora_config(CONFIG))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=CONFIG.learning_rate, weight_decay=CONFIG.weight_decay)
    rates = Schedule(CONFIG.learning_rate, CONFIG.warmup_ratio, EPOCHS)
    follow = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates.at(step) / CONFIG.learning_rate)
    given = [{"input_ids": row.ids, "labels": row.labels} for row in rows]
    trainer = trainer_of(model, tokenizer, given, folder, optimizers=(optimizer, follow))
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_trl_reaches_the_same_loss_on_the_same_rows(examples: list[Example], tokenizer: Any, tmp_path: Path) -> None:
    rows = [render(tokenizer, example) for example in examples]
    one, other = ours(rows, tmp_path / "ours"), theirs(rows, tmp_path / "theirs")
    print("ours", one, "TRL", other)
    assert len(one) == EPOCHS and one[-1] < 0.9 * one[0]
    assert one == pytest.approx(other, abs=5e-5)


def test_trl_trains_on_the_tokens_that_we_train_on(examples: list[Example], tokenizer: Any, tmp_path: Path) -> None:
    """Given the conversations, it makes the same ids, and the same labels but for the line break behind each turn."""
    conversations = [
        {
            "prompt": list(example.prompt),
            "completion": [{"role": "assistant", "content": "".join(piece.text for piece in example.pieces)}],
        }
        for example in examples
    ]
    trainer = trainer_of(load_model("demo")[0], tokenizer, conversations, tmp_path)
    for example, row in zip(examples, trainer.train_dataset, strict=True):
        mine = render(tokenizer, example)
        assert row["input_ids"][: len(mine.ids)] == mine.ids
        assert tokenizer.decode(row["input_ids"][len(mine.ids) :]) == "\n"
        assert row["labels"][: len(mine.labels)] == mine.labels


@pytest.fixture
def exported(examples: list[Example], tmp_path: Path) -> Path:
    """What `socratune export-data --for trl` writes; every second answer begins with one that carries no loss."""
    wrong = Piece("I would say 7.\nAha! ", trained=False)
    rows = [
        Example(row.id, row.prompt, (wrong, *row.pieces) if at % 2 else row.pieces, row.outcome)
        for at, row in enumerate(examples)
    ]
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    write_jsonl(run.rows("train"), (row.to_json() for row in rows))
    write_jsonl(run.enhanced, [])
    write_json(run.root / "pipeline_results.json", {"status": "incomplete", "stages": {}})
    given = CONFIG.model_dump(exclude_unset=True)
    config = resolve_settings({"model": "demo", "dataset": "demo", "output": str(run.root), "train": given}).config
    export_training(run, config, "trl")
    return run.root / "export" / "trl"


def test_trl_started_with_the_exported_files_reaches_the_same_loss(
    exported: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `trl sft --config trl.yaml` reads them: its own parser, its own data set, its own trainer."""
    from transformers import Trainer
    from trl.scripts.sft import make_parser
    from trl.scripts.utils import get_dataset
    from trl.trainer.sft_trainer import SFTTrainer
    from trl.trainer.utils import get_peft_config

    monkeypatch.chdir(exported)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    assert TRAINERS["trl"].command == "trl sft --config trl.yaml"
    here = ["--use_cpu", "true", "--bf16", "false", "--dtype", "float32", "--gradient_checkpointing", "false"]
    read = make_parser().parse_args_and_config(["--config", "trl.yaml", *here, "--disable_tqdm", "true"])
    script, args, model_args, dataset_args = read
    args.model_init_kwargs = {"dtype": model_args.dtype}
    rows = get_dataset(dataset_args)[script.dataset_train_split]

    class OnProcessor(SFTTrainer):
        compute_loss = Trainer.compute_loss

    trainer = OnProcessor(
        model=model_args.model_name_or_path, args=args, train_dataset=rows, peft_config=get_peft_config(model_args)
    )
    torch.manual_seed(1)
    drawn = get_peft_model(load_model("demo")[0], lora_config(CONFIG)).state_dict()  # as ours begins
    model: Any = trainer.model
    assert drawn.keys() == model.state_dict().keys()
    model.load_state_dict(drawn)
    rates = Schedule(CONFIG.learning_rate, CONFIG.warmup_ratio, EPOCHS)
    optimizer = trainer.create_optimizer()
    follow = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates.at(step) / CONFIG.learning_rate)
    trainer.lr_scheduler = follow
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    lines = (exported.parents[1] / "train.jsonl").read_text("utf-8").splitlines()
    mine = ours([render(tokenizer, Example.from_json(json.loads(line))) for line in lines], tmp_path / "ours")
    print("ours", mine, "TRL, started with the exported files", losses)
    assert len(losses) == EPOCHS and losses[-1] < 0.9 * losses[0]
    assert losses == pytest.approx(mine, abs=5e-5)


# --- the losses of other methods: the very functions that TRL's trainers take their steps with ---------------------


@pytest.fixture
def answers(examples: list[Example], tokenizer: Any) -> list[Rendered]:
    """Eight of the rows, of several lengths."""
    return [render(tokenizer, example) for example in examples[:8]]


def moved_model() -> Any:
    """The embedded model with an adapter that does something."""
    torch.manual_seed(1)
    model = get_peft_model(load_model("demo")[0], lora_config(CONFIG))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.add_(torch.randn_like(weight), alpha=0.05)
    return model


def padded(parts: list[list[int]], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of one length, and where they are no padding, as TRL's trainers hold them."""
    longest = max(map(len, parts))
    ids = [[0] * (longest - len(part)) + part if left else part + [0] * (longest - len(part)) for part in parts]
    masks = [sorted([0] * (longest - len(part)) + [1] * len(part), reverse=not left) for part in parts]
    return torch.tensor(ids), torch.tensor(masks)


def inputs_of(rows: list[Rendered]) -> dict[str, torch.Tensor]:
    prompts, prompt_mask = padded([row.ids[: row.prompt_length] for row in rows], left=True)
    completions, completion_mask = padded([row.trained_ids for row in rows], left=False)
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    return dict(zip(names, (prompts, prompt_mask, completions, completion_mask), strict=True))


def gradients(model: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [weight for weight in model.parameters() if weight.requires_grad]))


def same(one: tuple[Any, torch.Tensor], other: tuple[Any, torch.Tensor]) -> None:
    """Loss and gradient."""
    print("ours", one[1].item(), "TRL", other[1].item())
    assert one[1].item() == pytest.approx(other[1].item(), abs=1e-5)
    for mine, theirs in zip(gradients(*one), gradients(*other), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


ON_CPU: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none",
    "per_device_train_batch_size": 8,
}  # fmt: skip


def a_question() -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"prompt": "What is 2 * 3?", "privileged_context": "6"}] * 8)


def test_grpo_has_the_loss_of_trls_trainer_on_the_same_samples(
    answers: list[Rendered], tokenizer: Any, tmp_path: Path
) -> None:
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.utils import entropy_from_logits, selective_log_softmax

    class OnProcessor(GRPOTrainer):
        """With log p by PyTorch: TRL's own kernel for it runs on GPUs alone."""

        def _get_per_token_logps_and_entropies(self, model: Any, ids: Any, mask: Any, count: int, **_: Any) -> Any:
            logits = model(input_ids=ids, attention_mask=mask).logits[:, -count - 1 : -1]
            return selective_log_softmax(logits, ids[:, -count:]), entropy_from_logits(logits), None

    advantages = [0.75, -0.25, -0.25, -0.25, 0.5, -0.5, 0.5, -0.5]
    ours_there = {"loss_type": "bnpo", "scale_rewards": "none", "epsilon": CLIP_LOW, "epsilon_high": CLIP_HIGH}
    args = GRPOConfig(str(tmp_path), beta=0.0, **ours_there, **ON_CPU)
    trainer = OnProcessor(
        moved_model(), lambda completions, **_: [0.0] * len(completions), args, a_question(), processing_class=tokenizer
    )
    model = moved_model()
    engine = HFEngine(model, answers, CONFIG)
    items = with_samplers(engine, [Sampled(row, gain) for row, gain in zip(answers, advantages, strict=True)])
    inputs = inputs_of(answers)
    olds = [item.before for item in items if item.before is not None]
    before = torch.nn.utils.rnn.pad_sequence(olds, batch_first=True)
    theirs: Any = trainer.model
    for changed in (model, theirs):
        torch.manual_seed(2)
        with torch.no_grad():
            for name, weight in changed.named_parameters():
                if "lora_B" in name:
                    weight.add_(torch.randn_like(weight), alpha=0.02)
    trainer.current_gradient_accumulation_steps = 1
    with engine.training():
        engine.stepped()
        ours = torch.stack(list(clipped_mean(engine, items))).sum()
        gain = {"advantages": torch.tensor(advantages), "old_per_token_logps": before}
        same((model, ours), (theirs, trainer._compute_loss(theirs, {**inputs, **gain})))
    assert trainer._metrics["train"]["clip_ratio/region_mean"][0] > 0.005, "the clip is at work"


@pytest.mark.parametrize("name", ["sdft", "sdpo"])
def test_distillation_has_the_loss_of_trls_trainers_on_the_same_attempts(
    name: str, answers: list[Rendered], examples: list[Example], tokenizer: Any, tmp_path: Path
) -> None:
    """KL from the teacher over all tokens, the adapter off and the hint in view; attempts of several lengths."""
    trainers = {
        "sdft": ("trl.experimental.sdft", "SDFT", {}),
        "sdpo": ("trl.experimental.sdpo", "SDPO", {"reward_funcs": lambda completions, **_: [0.0] * len(completions)}),
    }
    module, kind, more = trainers[name]
    package = import_module(module)
    args = getattr(package, f"{kind}Config")(
        str(tmp_path), distillation_mode="full_logits", distillation_alpha=0.0, teacher_model_kind="base", **ON_CPU
    )
    trainer = getattr(package, f"{kind}Trainer")(
        model=moved_model(), args=args, train_dataset=a_question(), processing_class=tokenizer, **more
    )
    told = [with_private_hint(example.prompt, "Split the second number into tens and ones.") for example in examples]
    seen = [render(tokenizer, replace(example, prompt=prompt)) for example, prompt in zip(examples, told, strict=True)]
    model = moved_model()
    items: list[Any] = [Distilled(row, other) for row, other in zip(answers, seen, strict=False)]
    engine = HFEngine(model, items, CONFIG)
    items = with_teacher(engine, items, top=len(tokenizer))
    prompts, prompt_mask = padded([row.ids[: row.prompt_length] for row in seen[:8]], left=True)
    inputs = inputs_of(answers)
    inputs["teacher_input_ids"] = torch.cat([prompts, inputs["completion_ids"]], dim=1)
    inputs["teacher_attention_mask"] = torch.cat([prompt_mask, inputs["completion_mask"]], dim=1)
    trainer.current_gradient_accumulation_steps = 1
    with engine.training():
        engine.stepped()
        ours = torch.stack(list(distil_mean(engine, items, clip=torch.inf))).sum()
        same((model, ours), (trainer.model, trainer.compute_loss(trainer.model, inputs)))


def test_the_bucket_of_the_other_tokens_is_that_of_trl() -> None:
    from trl.experimental.sdpo.loss_utils import add_tail_bucket, compute_divergence

    torch.manual_seed(0)
    student, teacher = (torch.randn(50, 300).mul(3).log_softmax(-1) for _ in range(2))
    told, likely = teacher.topk(20)
    said = student.gather(-1, likely)
    theirs = compute_divergence(add_tail_bucket(said), add_tail_bucket(told), alpha=0.0)
    torch.testing.assert_close(divergence(said, told, torch.inf), theirs)

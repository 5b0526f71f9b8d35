"""TRL's SFTTrainer beside ours: the same rows, the same adapter, the same losses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from programs import needs

from socratune.config import EnhancedTrainingConfig
from socratune.inference.load import load_model
from socratune.inference.template import Rendered, render
from socratune.publishing.trainers import TRAINERS
from socratune.resolve import resolve_settings
from socratune.rows import Example, Piece
from socratune.runs.folder import RunDir, write_json, write_jsonl
from socratune.stages.export_rows import export_training
from socratune.training.adapters import lora_config
from socratune.training.engine import train_hf
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

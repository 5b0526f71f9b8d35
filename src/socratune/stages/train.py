"""train: a LoRA adapter on the curated traces, after the labels have been proven right."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from socratune.answering import accuracy
from socratune.chat import Rendered, label_faults, render
from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown, UserError
from socratune.judge import mechanical_judge
from socratune.llm.base import Sampling
from socratune.rows import Example, QARow
from socratune.rundir import RunDir, StageResult, read_rows, write_text

FAULTS_SHOWN = 20


def run(
    run: RunDir,
    config: EnhancedTrainingConfig,
    *,
    model_name: str,
    seed: int,
    key: str,
    max_new_tokens: int,
    tick: Callable[[int, int], None],
) -> StageResult:
    """Write `adapter/`, `checkpoints/` and `tensorboard/` from `train.jsonl`; `dev.jsonl` chooses the epoch.

    Args:
        key: fingerprint of settings and inputs; checkpoints of another key are thrown away.
        max_new_tokens: for the answers to the dev questions.

    Raises:
        UserError: the labels of a row are wrong (see `check_labels`).
    """
    from torch.utils.tensorboard import SummaryWriter

    from socratune.backends import hf

    examples = read_rows(run.rows("train"), Example.from_json)
    dev = read_rows(run.rows("dev"), QARow.from_json)
    model, tokenizer = hf.load(model_name, load_in_4bit=config.load_in_4bit)
    rows = check_labels(tokenizer, examples, config.max_seq_length)
    _own_checkpoints(run, key)
    writer = SummaryWriter(str(run.tensorboard))
    started, read_tokens, steps_done = time.monotonic(), 0, 0

    def step(done: int, total: int, figures: dict[str, float]) -> None:
        nonlocal steps_done
        steps_done = done
        for name, value in figures.items():
            writer.add_scalar(f"train/{name}", value, done)
        tick(done, total)

    def evaluate(trained: Any) -> dict[str, float]:
        nonlocal read_tokens
        read_tokens += sum(len(row.ids) for row in rows)
        if not dev:
            return {}
        figures = {"dev_accuracy": _dev_accuracy(trained, tokenizer, dev, max_new_tokens)}
        writer.add_scalar("dev/accuracy", figures["dev_accuracy"], steps_done)
        return figures

    trained, state = hf.train(model, rows, config, run.checkpoints, hf.Hooks(evaluate, step), seed=seed)
    writer.close()
    _save_adapter(run.adapter, trained, tokenizer)
    figures = {
        "steps": state.step,
        "trained_tokens": sum(len(row.trained_ids) for row in rows) * state.epoch,
        "tokens_per_second": round(read_tokens / (time.monotonic() - started)),
        "best_epoch": state.best_epoch,
        "epochs": state.history,
    }
    return StageResult(rows_in=len(examples), rows_out=len(rows), figures=figures)


def check_labels(tokenizer: Any, examples: list[Example], max_seq_length: int) -> list[Rendered]:
    """The label doctor: every row rendered as it will be trained, and checked, before anything is trained.

    Raises:
        UserError: the faults, each with its row.
    """
    rows, faults = [], []
    for example in examples:
        row = render(tokenizer, example)
        rows.append(row)
        for text in label_faults(tokenizer, example, row, max_seq_length):
            fix = "Raise train.max_seq_length." if "truncation" in text else f"Look at it: socratune inspect … {row.id}"
            faults.append(Fault(f"train.jsonl, row {example.id}", "labels that are right", Shown(text), fix))
    if faults:
        more = len(faults) - FAULTS_SHOWN
        shown = faults[:FAULTS_SHOWN]
        if more > 0:
            shown.append(Fault("train.jsonl", "labels that are right", Shown(f"{more} more faulty rows")))
        raise UserError(*shown)
    return rows


def _dev_accuracy(trained: Any, tokenizer: Any, dev: list[QARow], max_new_tokens: int) -> float:
    from socratune.student import LocalStudent, serving

    sampling = Sampling(temperature=0.0, max_new_tokens=max_new_tokens)
    with serving(LocalStudent(trained, tokenizer, name="adapter in training", fingerprint="dev")) as student:
        return accuracy(dev, student, mechanical_judge, sampling, concurrency=len(dev))


def _own_checkpoints(run: RunDir, key: str) -> None:
    """Keep checkpoints made under `key`, throw others away."""
    mark = run.checkpoints / "made_for.json"
    if not mark.exists() or mark.read_text("utf-8") != json.dumps(key):
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        shutil.rmtree(run.tensorboard, ignore_errors=True)
        run.checkpoints.mkdir(parents=True)
        write_text(mark, json.dumps(key))


def _save_adapter(folder: Path, model: Any, tokenizer: Any) -> None:
    """Plain PEFT files and the tokenizer, whole or not at all."""
    from socratune.backends.hf import disk_faults

    temporary = folder.with_name(".adapter.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_faults(folder):
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    (temporary / "README.md").unlink(missing_ok=True)  # PEFT's template card; publish writes a true one
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)

"""train: a LoRA adapter on the curated traces, after the labels have been proven right."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from socratune.answering import accuracy
from socratune.chat import Rendered, render
from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown, UserError
from socratune.grokking import Point, outlook, phases
from socratune.identity import foreign_fault, identity
from socratune.judge import mechanical_judge
from socratune.labels import label_faults
from socratune.modelref import model_json
from socratune.replay import FEWEST_ROWS, own_answers
from socratune.rows import Example, QARow
from socratune.rundir import RunDir, StageResult, Tick, iter_rows, read_rows, write_jsonl, write_text
from socratune.stages.grading import graded

log = logging.getLogger(__name__)

FAULTS_SHOWN = 20


def run(
    run: RunDir,
    config: EnhancedTrainingConfig,
    *,
    model_name: str,
    seed: int,
    key: str,
    max_new_tokens: int,
    replay_share: float,
    students: list[dict[str, Any]],
    tick: Tick,
) -> StageResult:
    """Write `adapter/`, `checkpoints/` and `tensorboard/` from `train.jsonl`; `dev.jsonl` chooses the epoch.

    Args:
        key: fingerprint of settings and inputs; checkpoints and replay of another key are thrown away.
        max_new_tokens: for the answers to the dev questions.
        students: who wrote the traces, as `identity.writers` has them.

    Raises:
        UserError: a model that is not allowed wrote the traces; the labels of a row are wrong (see `check_labels`).
    """
    from socratune.backends import hf

    base = identity(model_name, load_in_4bit=config.load_in_4bit)
    if fault := foreign_fault(students, base, allowed=config.allow_foreign_student):
        raise UserError(fault)
    examples = read_rows(run.rows("train"), Example.from_json)
    dev = read_rows(run.rows("dev"), QARow.from_json)
    model, tokenizer = hf.load(model_name, load_in_4bit=config.load_in_4bit)
    base = identity(model_name, load_in_4bit=getattr(model, "is_loaded_in_4bit", False))
    rows = check_labels(tokenizer, examples)
    rows, longest = short_enough(rows, config.max_seq_length)
    grades = graded(students, base, model, tokenizer, examples)
    _own_checkpoints(run, key)
    questions = {"dev": dev, "train": _grokking_rows(run, config, examples, dev)}
    replay = _replay(run, model, tokenizer, examples, rows, replay_share, max_new_tokens, seed)
    kept = len(rows)
    rows += [row for row in replay if len(row.ids) <= longest]
    course = _Course(run, tokenizer, questions, max_new_tokens, tick)
    started = time.monotonic()
    trained, state = _trained(model, rows, config, run, course, model_name=model_name, seed=seed)
    course.close()
    _save_adapter(run.adapter, trained, tokenizer)
    figures = {
        "students": grades,
        "replay_rows": len(rows) - kept,
        "max_seq_length": longest,
        "too_long": len(examples) - kept,
        "tokens_per_second": round(_tokens(rows) * course.epochs / (time.monotonic() - started)),
        **_history(state, rows),
    }
    return StageResult(rows_in=len(examples), rows_out=kept, figures=figures)


def _tokens(rows: list[Rendered]) -> int:
    return sum(len(row.ids) for row in rows)


def _history(state: Any, rows: list[Rendered]) -> dict[str, Any]:
    """What a finished training tells of itself."""
    found = {
        "engine": state.engine,
        "steps": state.step,
        "trained_tokens": sum(len(row.trained_ids) for row in rows) * state.epoch,
        "best_epoch": state.best_epoch,
        "epochs": state.history,
    }
    if state.history and "train_accuracy" in state.history[0]:
        curve = [Point(int(e["step"]), e["train_accuracy"], e["dev_accuracy"]) for e in state.history]
        found["grokking"] = asdict(phases(curve))
    return found


def _trained(
    model: Any,
    rows: list[Rendered],
    config: EnhancedTrainingConfig,
    run: RunDir,
    course: _Course,
    *,
    model_name: str,
    seed: int,
) -> tuple[Any, Any]:
    """The trained adapter on its base, and the training's course, from the back end that suits model and card."""
    from socratune.backends import hf
    from socratune.backends.choice import choose_backend
    from socratune.backends.place import device, free_gib

    shape = model_json(model_name, "config.json")
    free = free_gib() if device().type == "cuda" else None
    backend, reason = choose_backend(config.backend, shape, config, free_gib=free)
    log.info("Trained by %s: %s.", backend, reason)
    hooks = hf.Hooks(course.evaluate, course.step)
    if backend == "hf":
        return hf.train(model, rows, config, run.checkpoints, hooks, seed=seed)
    from socratune.backends import unsloth

    if not getattr(model, "is_loaded_in_4bit", False):  # bitsandbytes does not let its weights go
        model.to("meta")  # its memory is for the copy that Unsloth loads
    own, _ = unsloth.load(model_name, config)
    return unsloth.train(own, rows, config, run.checkpoints, hooks, seed=seed)


class _Course:
    """Follows a training: its curves go to TensorBoard, its answers to a few questions are judged after every epoch.

    Attributes:
        epochs: seen in this process.
    """

    def __init__(
        self, run: RunDir, tokenizer: Any, questions: dict[str, list[QARow]], max_new_tokens: int, tick: Tick
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.epochs = 0
        self._writer = SummaryWriter(str(run.tensorboard))
        self._tokenizer = tokenizer
        self._questions = questions
        self._max_new_tokens = max_new_tokens
        self._tick = tick
        self._steps_done = 0

    def step(self, done: int, total: int, figures: dict[str, float]) -> None:
        """After every step."""
        self._steps_done = done
        for name, value in figures.items():
            self._writer.add_scalar(f"train/{name}", value, done)
        self._tick(done, total)

    def evaluate(self, trained: Any) -> dict[str, float]:
        """After every epoch: `dev_accuracy`, and `train_accuracy` at the same step where it is watched."""
        self.epochs += 1
        figures = {}
        for name, rows in self._questions.items():
            if rows:
                figures[f"{name}_accuracy"] = _accuracy(trained, self._tokenizer, rows, self._max_new_tokens)
                self._writer.add_scalar(f"{name}/accuracy", figures[f"{name}_accuracy"], self._steps_done)
        return figures

    def close(self) -> None:
        """Write what waits."""
        self._writer.close()


def _replay(
    run: RunDir,
    model: Any,
    tokenizer: Any,
    examples: list[Example],
    rows: list[Rendered],
    share: float,
    max_new_tokens: int,
    seed: int,
) -> list[Rendered]:
    """The base's own answers to neutral prompts, `share` of all trained tokens; kept in `replay.jsonl`, as a training
    that goes on needs the very same.
    """
    if not share or len(examples) < FEWEST_ROWS:
        return []
    path = run.rows("replay")
    if not path.exists():
        from socratune.student import LocalStudent, serving

        trained = sum(len(row.trained_ids) for row in rows)
        with serving(LocalStudent(model, tokenizer, name="base", fingerprint="replay")) as student:
            sampling = student.sampling(temperature=None, top_p=None, max_new_tokens=max_new_tokens)
            tokens = round(trained * share / (1 - share))
            found = asyncio.run(own_answers(student, examples, sampling, tokens=tokens, seed=seed))
        write_jsonl(path, (example.to_json() for example in found))
    return [render(tokenizer, example) for example in read_rows(path, Example.from_json)]


def check_labels(tokenizer: Any, examples: list[Example]) -> list[Rendered]:
    """The label doctor: every row rendered as it will be trained, and checked, before anything is trained.

    Raises:
        UserError: the faults, each with its row.
    """
    rows, faults = [], []
    for example in examples:
        row = render(tokenizer, example)
        rows.append(row)
        for text in label_faults(tokenizer, example, row, len(row.ids)):
            fix = f"Look at it: socratune inspect … --id {row.id}"
            faults.append(Fault(f"train.jsonl, row {example.id}", "labels that are right", Shown(text), fix))
    if faults:
        more = len(faults) - FAULTS_SHOWN
        shown = faults[:FAULTS_SHOWN]
        if more > 0:
            shown.append(Fault("train.jsonl", "labels that are right", Shown(f"{more} more faulty rows")))
        raise UserError(*shown)
    return rows


def short_enough(rows: list[Rendered], max_seq_length: int | Literal["auto"]) -> tuple[list[Rendered], int]:
    """The rows of at most `max_seq_length` tokens, and that length; `auto` takes the 99th percentile of the rows.

    A longer row is left out whole and said: cut, it would teach an answer without its end.

    Raises:
        UserError: more than half of the rows are longer.
    """
    lengths = sorted(len(row.ids) for row in rows)
    longest = lengths[math.ceil(0.99 * len(lengths)) - 1] if max_seq_length == "auto" else max_seq_length
    kept = [row for row in rows if len(row.ids) <= longest]
    if len(kept) < len(rows) / 2:
        got = Shown(f"{len(rows) - len(kept)} of {len(rows)} rows that are longer")
        fix = f"Raise it; the longest row has {lengths[-1]} tokens, the median {lengths[len(lengths) // 2]}."
        raise UserError(Fault("train.max_seq_length", f"rows of at most {longest} tokens", got, fix))
    if len(kept) < len(rows):
        names = ", ".join(row.id for row in rows if len(row.ids) > longest)
        text = "%d rows of more than %d tokens (train.max_seq_length) are left out, not cut: %s"
        log.warning(text, len(rows) - len(kept), longest, names if len(names) < 200 else names[:200] + " …")
    return kept, longest


def _grokking_rows(
    run: RunDir, config: EnhancedTrainingConfig, examples: list[Example], dev: list[QARow]
) -> list[QARow]:
    """The questions trained on whose accuracy is watched beside that of `dev`; none where nobody asked for grokking.

    Says before anything is computed what the settings can bring.

    Raises:
        UserError: no dev rows: late generalisation could neither be seen nor kept.
    """
    if not config.grokking.enable_grokking:
        return []
    if not dev:
        fix = "Raise split.dev_share (and --restart split)."
        raise UserError(Fault("train.grokking.enable_grokking", "dev rows to watch", Shown("none"), fix))
    step_rows = config.per_device_train_batch_size * config.gradient_accumulation_steps
    epochs = config.num_train_epochs * config.grokking.grokking_multiplier
    steps = round(epochs * math.ceil(len(examples) / step_rows))
    rates = [config.learning_rate * 0.5 * (1 + math.cos(math.pi * at / steps)) for at in range(steps)]
    log.warning("Grokking: %s", outlook(rates, config.grokking.grokking_weight_decay))
    trained = {example.id for example in examples}
    seen = [row for row in iter_rows(run.rows("train_in"), QARow.from_json) if row.id in trained]
    return random.Random(0).sample(seen, min(len(seen), len(dev)))


def _accuracy(trained: Any, tokenizer: Any, rows: list[QARow], max_new_tokens: int) -> float:
    from socratune.student import LocalStudent, serving

    with serving(LocalStudent(trained, tokenizer, name="adapter in training", fingerprint="dev")) as student:
        sampling = student.exam_sampling(max_new_tokens)
        return accuracy(rows, student, mechanical_judge, sampling, concurrency=len(rows))


def _own_checkpoints(run: RunDir, key: str) -> None:
    """Keep checkpoints made under `key`, throw others away."""
    mark = run.checkpoints / "made_for.json"
    if not mark.exists() or mark.read_text("utf-8") != json.dumps(key):
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        shutil.rmtree(run.tensorboard, ignore_errors=True)
        run.rows("replay").unlink(missing_ok=True)
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

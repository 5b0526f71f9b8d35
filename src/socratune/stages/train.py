"""train: trains a LoRA adapter on the curated traces, after their labels have been checked."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from socratune.config import ON_POLICY, EnhancedTrainingConfig
from socratune.environments import environment, environment_judge, environment_of
from socratune.errors import Fault, Shown, UserError
from socratune.inference import Rendered, foreign_fault, identity, render
from socratune.judging import judge_by_rules, strip_thinking
from socratune.rows import Example, QARow, Rejected
from socratune.runs import RunDir, StageResult, Tick, iter_rows, read_rows, write_jsonl, write_rejected, write_text
from socratune.stages.items import as_items, training_items
from socratune.training import (
    FEWEST_ROWS,
    Exam,
    Point,
    TrainingJob,
    control_faults,
    fit_adapter,
    graded_students,
    grokking_outlook,
    grokking_phases,
    label_faults,
    own_answers,
    sweep_rates,
)

log = logging.getLogger(__name__)

FAULTS_SHOWN = 20
_SHORT_ANSWER = 6  # words


def train_adapter(
    run: RunDir,
    config: EnhancedTrainingConfig,
    *,
    model_name: str,
    seed: int,
    key: str,
    max_new_tokens: int,
    replay_share: float,
    students: list[dict[str, Any]],
    report_to: Sequence[str],
    tick: Tick,
) -> StageResult:
    """Writes `adapter/`, `checkpoints/` and `tensorboard/` from `train.jsonl`; `dev.jsonl` chooses the epoch.

    Args:
        key: fingerprint of settings and inputs; checkpoints and replay of another key are deleted.
        max_new_tokens: length limit of answers to the dev questions.
        students: who wrote the traces, from `inference.trace_writers`.
        report_to: trackers besides TensorBoard, by name.

    Raises:
        UserError: a model that is not allowed wrote the traces, or the labels of a row are wrong (see `check_labels`).
    """
    from socratune.inference import load_model, ranks, refuse_sharded

    base = identity(model_name, load_in_4bit=config.load_in_4bit)
    if fault := foreign_fault(students, base, allowed=config.allow_foreign_student):
        raise UserError(fault)
    curated = read_rows(run.rows("train"), Example.from_json)
    dev = judged_by_rules(read_rows(run.rows("dev"), QARow.from_json))
    model, tokenizer = load_model(model_name, load_in_4bit=config.load_in_4bit)
    refuse_sharded(model, config)
    base = identity(model_name, load_in_4bit=getattr(model, "is_loaded_in_4bit", False))
    examples, held = without_controls(tokenizer, curated)
    rows, longest = short_enough(check_labels(tokenizer, examples), config.max_seq_length)
    out = write_rejected(run.rejected("trained"), [*held, *_too_long(examples, rows, longest)])
    grades = graded_students(students, base, model, tokenizer, examples)
    ranks.leader_first(lambda: _own_checkpoints(run, key))
    items, made_of = training_items(run, config, tokenizer, rows, longest)
    if config.method != "dpo":
        replay = _replay(run, model, tokenizer, examples, rows, replay_share, max_new_tokens, seed)
        replay = [row for row in replay if len(row.ids) <= longest]
        items = items + as_items(config.method, replay)
        made_of["replay_rows"] = len(replay)
    questions = {"dev": dev, "train": _grokking_rows(run, config, examples, dev, len(items))}
    exam = Exam(tokenizer, questions, max_new_tokens)
    begins = run.student if config.method in ON_POLICY and run.student.exists() else None
    job = TrainingJob(run, model_name, items, exam, tick, seed, report_to, begins)
    fit = sweep_rates if config.by_dev.sweep_lr else fit_adapter
    trained, state, figures = fit(job, model, config)
    if ranks.leads():
        _save_adapter(run.adapter, trained, tokenizer)
    figures |= {"students": grades, **made_of, "max_seq_length": longest, "too_long": out["too_long"]}
    figures |= _history(state, items)
    trained_on = len(items) - made_of.get("replay_rows", 0)
    return StageResult(rows_in=len(curated), rows_out=trained_on, figures=figures)


def judged_by_rules(dev: list[QARow]) -> list[QARow]:
    """Returns the dev rows; none, with a warning, if rules recognise the right answer to less than half of them.

    Rules judge the answers of every epoch, so that nothing is paid for. They recognise numbers, choices and short
    answers, but not sentences in other words, and zeros would choose the wrong epoch. Rows of an environment are judged
    by its verifier, which is free, too.
    """
    dev = [_as_judged_here(row) for row in dev]
    known = asyncio.run(_recognised(dev))
    if dev and known < len(dev) / 2:
        text = (
            "Rules recognise the right answer to %d of %d dev rows only, so the last epoch is kept instead of the best."
        )
        log.warning(text, known, len(dev))
        return []
    return dev


def _as_judged_here(row: QARow) -> QARow:
    """Returns the row, without its environment if that is missing here, as on a rented machine: rules judge it then."""
    try:
        if own := environment_of(row):
            environment(own["name"])
    except UserError:
        return replace(row, metadata={key: value for key, value in row.metadata.items() if key != "environment"})
    return row


async def _recognised(rows: list[QARow]) -> int:
    return sum([await _is_recognised(row) for row in rows])


async def _is_recognised(row: QARow) -> bool:
    if environment_of(row):
        return (await environment_judge(row, row.reference)).verdict == "correct"
    wrong = judge_by_rules(row.question, row.reference, "1234567.25").verdict == "incorrect"
    return wrong or len(strip_thinking(row.reference).split()) <= _SHORT_ANSWER


def without_controls(tokenizer: Any, examples: list[Example]) -> tuple[list[Example], list[Rejected]]:
    """Returns the rows without control tokens in their texts, and the rejected others, with a warning. An edit, or a
    student behind a server, may have introduced the tokens.

    Raises:
        UserError: no row is left.
    """
    kept, held = [], []
    for example in examples:
        reason = next(control_faults(tokenizer, example), None)
        if reason is None:
            kept.append(example)
        else:
            held.append(Rejected("control_token", reason, id=example.id, row=example.to_json()))
    if held:
        text = "%d rows with control tokens in their texts are left out; trained.rejected.jsonl lists them."
        log.warning(text, len(held))
    if held and not kept:
        raise UserError(Fault("train.jsonl", "rows without control tokens", Shown(held[0].detail)))
    return kept, held


def _too_long(examples: list[Example], kept: list[Rendered], longest: int) -> Iterator[Rejected]:
    """Yields the rows that were not kept."""
    short, detail = {row.id for row in kept}, f"more than {longest} tokens (train.max_seq_length)"
    for example in examples:
        if example.id not in short:
            yield Rejected("too_long", detail, id=example.id, row=example.to_json())


def _history(state: Any, items: list[Any]) -> dict[str, Any]:
    """Returns the figures of a finished training."""
    figures = {
        "engine": state.engine,
        "steps": state.step,
        "trained_tokens": sum(len(item.trained_ids) for item in items) * state.epoch,
        "best_epoch": state.best_epoch,
        "epochs": state.history,
    }
    if state.history and "train_accuracy" in state.history[0]:
        curve = [Point(int(e["step"]), e["train_accuracy"], e["dev_accuracy"]) for e in state.history]
        figures["grokking"] = asdict(grokking_phases(curve))
    return figures


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
    """Returns the base's own answers to neutral prompts, `share` of all trained tokens. Keeps them in `replay.jsonl`,
    as a resumed training needs the same ones.
    """
    if not share or len(examples) < FEWEST_ROWS:
        return []
    from socratune.inference import ranks, whole_on_each_rank

    path = run.rows("replay")
    with whole_on_each_rank(model):
        if ranks.leads() and not path.exists():
            from socratune.inference import LocalStudent, serving_student

            trained = sum(len(row.trained_ids) for row in rows)
            with serving_student(LocalStudent(model, tokenizer, name="base", fingerprint="replay")) as student:
                sampling = student.sampling(temperature=None, top_p=None, max_new_tokens=max_new_tokens)
                tokens = round(trained * share / (1 - share))
                answers = asyncio.run(own_answers(student, examples, sampling, tokens=tokens, seed=seed))
            write_jsonl(path, (example.to_json() for example in answers))
    return [render(tokenizer, example) for example in read_rows(path, Example.from_json)]


def check_labels(tokenizer: Any, examples: list[Example]) -> list[Rendered]:
    """Renders every row as it will be trained and checks its labels, before anything is trained.

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
            shown.append(Fault("train.jsonl", "labels that are right", Shown(f"{more} more rows with errors")))
        raise UserError(*shown)
    return rows


def short_enough(rows: list[Rendered], max_seq_length: int | Literal["auto"]) -> tuple[list[Rendered], int]:
    """Returns the rows of at most `max_seq_length` tokens, and that length; `auto` takes the rows' 99th percentile.

    A longer row is left out, with a warning: truncated, it would teach an answer without its end.

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
    run: RunDir, config: EnhancedTrainingConfig, examples: list[Example], dev: list[QARow], items: int
) -> list[QARow]:
    """Returns trained questions whose accuracy is watched beside that of `dev`; none without grokking.

    Logs what the settings can achieve before anything is computed.

    Raises:
        UserError: there are no dev rows, so late generalisation could not be observed.
    """
    if not config.grokking.enable_grokking:
        return []
    if not dev:
        fix = "Raise split.dev_share (and --restart split)."
        raise UserError(Fault("train.grokking.enable_grokking", "dev rows to watch", Shown("none"), fix))
    step_rows = config.per_device_train_batch_size * config.gradient_accumulation_steps
    epochs = config.num_train_epochs * config.grokking.grokking_multiplier
    steps = round(epochs * math.ceil(items / step_rows))
    rates = [config.learning_rate * 0.5 * (1 + math.cos(math.pi * at / steps)) for at in range(steps)]
    log.warning("Grokking: %s", grokking_outlook(rates, config.grokking.grokking_weight_decay))
    trained = {example.id for example in examples}
    seen = [row for row in iter_rows(run.rows("train_in"), QARow.from_json) if row.id in trained]
    return random.Random(0).sample(seen, min(len(seen), len(dev)))


def _own_checkpoints(run: RunDir, key: str) -> None:
    """Deletes checkpoints that were not made under `key`."""
    mark = run.checkpoints / "made_for.json"
    if not mark.exists() or mark.read_text("utf-8") != json.dumps(key):
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        shutil.rmtree(run.tensorboard, ignore_errors=True)
        run.rows("replay").unlink(missing_ok=True)
        run.checkpoints.mkdir(parents=True)
        write_text(mark, json.dumps(key))


def _save_adapter(folder: Path, model: Any, tokenizer: Any) -> None:
    """Writes plain PEFT files and the tokenizer, completely or not at all."""
    from socratune.training import disk_faults

    temporary = folder.with_name(".adapter.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_faults(folder):
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    (temporary / "README.md").unlink(missing_ok=True)  # PEFT's template card; publish writes a true one
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)

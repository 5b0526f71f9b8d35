"""export-data: writes what a run would train on for another trainer: the curated rows, their masks, and its files.

train.jsonl        what the trainer reads: ids and labels, or messages (`tokens/` for LLaMA-Factory)
messages.jsonl     the same rows in words, for people and for everything else
preference.jsonl   the right answer against the last wrong one, as that trainer reads pairs
sdft.jsonl         questions with the hint that worked (TRL's self-distillation)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from socratune.config import RunConfig
from socratune.errors import Fault, Shown, UserError
from socratune.inference import Rendered, load_tokenizer, render
from socratune.llm import model_fault, model_location
from socratune.publishing import TRAINERS, Recipe, trainer_faults, view_rows
from socratune.rows import Example
from socratune.runs import Results, RunDir, export_place, read_rows, whole_folder, write_jsonl, write_text
from socratune.stages.train import check_labels, short_enough, without_controls


def export_training(run: RunDir, config: RunConfig, to: str, *, out: str | None = None) -> str:
    """Writes the rows and settings of a run's training for another trainer. Returns what was written and how to use it.

    Args:
        to: one of `publishing.TRAINERS`.
        out: the folder, which is replaced; without it, `RUN/export/TO`.

    Raises:
        UserError: there is no such trainer, or it does not support these settings; nothing is curated yet; something
            else is at `out`; the model's tokenizer is missing, or the labels of a row are wrong.
    """
    faults = trainer_faults(to, config.train)
    if not run.rows("train").is_file():
        fix = f"First: socratune run … --output {run.root} --until curate"
        faults.append(Fault(str(run.rows("train")), "curated rows", Shown("none"), fix))
    if to in TRAINERS and TRAINERS[to].rows_as == "arrow" and find_spec("datasets") is None:
        faults.append(Fault(f"--for {to}", "the package datasets", Shown("not installed"), "pip install datasets"))
    if fault := model_fault(config.model, "model"):
        faults.append(fault)
    if faults:
        raise UserError(*faults)
    place, trainer = export_place(run, to, out, "messages.jsonl"), TRAINERS[to]
    tokenizer = load_tokenizer(config.model)
    examples, _ = without_controls(tokenizer, read_rows(run.rows("train"), Example.from_json))
    rows, longest = short_enough(check_labels(tokenizer, examples), config.train.max_seq_length)
    replay = read_rows(run.rows("replay"), Example.from_json) if run.rows("replay").is_file() else []
    rows += [row for row in (render(tokenizer, example) for example in replay) if len(row.ids) <= longest]
    ids = {row.id for row in rows}
    examples = [example for example in (*examples, *replay) if example.id in ids]
    kept = Results(run).data["stages"].get("train", {}).get("best_epoch")
    recipe = Recipe(str(model_location(config.model)), config.train, len(rows), longest, config.seed, kept)
    with whole_folder(place) as folder:
        _write_rows(folder, trainer.rows_as, rows, examples)
        pairs = [trainer.preference(pair) for pair in view_rows(run, "preference")]
        more = {"preference.jsonl": pairs, "sdft.jsonl": list(view_rows(run, "sdft")) if to == "trl" else []}
        for name, lines in more.items():
            if lines:
                write_jsonl(folder / name, lines)
        for name, text in trainer.files(recipe).items():
            write_text(folder / name, text)
        shutil.rmtree(place, ignore_errors=True)
    return _report(place, to, rows, examples, more)


def _write_rows(folder: Path, rows_as: str, rows: Sequence[Rendered], examples: Sequence[Example]) -> None:
    answers = ({"role": "assistant", "content": "".join(piece.text for piece in row.pieces)} for row in examples)
    messages = (
        {"id": row.id, "messages": [*row.prompt, answer]} for row, answer in zip(examples, answers, strict=True)
    )
    write_jsonl(folder / "messages.jsonl", messages)
    if rows_as == "tokens":
        write_jsonl(folder / "train.jsonl", map(_tokens, rows))
    elif rows_as == "messages":
        write_jsonl(folder / "train.jsonl", ({"messages": _with_loss(row)} for row in examples))
    else:
        from datasets import Dataset, disable_progress_bars

        disable_progress_bars()
        Dataset.from_list([_tokens(row) for row in rows]).save_to_disk(str(folder / "tokens"))


def _tokens(row: Rendered) -> dict[str, Any]:
    return {"input_ids": row.ids, "attention_mask": [1] * len(row.ids), "labels": row.labels}


def _with_loss(example: Example) -> list[dict[str, Any]]:
    """Returns the turns, each of the assistant's with its loss. An answer of several pieces becomes several turns."""
    before = [{**turn, "loss": False} if turn["role"] == "assistant" else dict(turn) for turn in example.prompt]
    answer = [{"role": "assistant", "content": piece.text, "loss": piece.trained} for piece in example.pieces]
    return [*before, *answer]


def _report(
    place: Path, to: str, rows: Sequence[Rendered], examples: Sequence[Example], more: dict[str, list[Any]]
) -> str:
    def lines() -> Iterator[str]:
        trained, every = sum(len(row.trained_ids) for row in rows), sum(len(row.ids) for row in rows)
        yield f"{len(rows)} rows, {trained} of {every} tokens carry loss: {place}"
        masked = sum(not all(piece.trained for piece in example.pieces) for example in examples)
        if masked and TRAINERS[to].rows_as == "messages":
            yield f"{masked} answers hold passages without loss, which are separate messages with `loss: false`."
        elif masked:
            yield f"{masked} answers hold passages without loss, which the tokens mark and messages.jsonl cannot."
        for name, written in more.items():
            if written:
                yield f"{len(written)} rows in {name}"
        yield f"Train: cd {place} && {TRAINERS[to].command}"

    return "\n".join(lines())

"""Looking at a run: training rows token by token, and single questions to the adapter."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

from socratune.config import EnhancedTrainingConfig, read_template
from socratune.data import data_path, read_qa_rows
from socratune.errors import Fault, Shown, UserError
from socratune.inference import IGNORE, load_tokenizer, render
from socratune.llm import model_fault
from socratune.preflight import chat_faults
from socratune.resolve import give_template, read_config_file, resolve_settings
from socratune.rows import Example, Piece, QARow
from socratune.runs import RunDir, read_rows, system_turn
from socratune.training import label_faults


def load_examples(what: str) -> tuple[list[Example], str | None, int]:
    """The training rows of a run folder, or a data set's rows as plain question → answer training rows.

    Returns:
        The rows, the run's model (None for a data set), and the longest row allowed in tokens.
    """
    run = RunDir(what)
    if run.config.is_file():
        config = resolve_settings(read_config_file(run.config), where=str(run.config)).config
        return read_rows(run.rows("train"), Example.from_json), config.model, _longest(config.train)
    read = read_qa_rows(data_path(what))
    if read.faults:
        raise UserError(*read.faults)
    rows = [_plain_example(row) for row in read.rows]
    return rows, None, _longest(EnhancedTrainingConfig())


def _longest(config: EnhancedTrainingConfig) -> int:
    return sys.maxsize if config.max_seq_length == "auto" else config.max_seq_length


def _plain_example(row: QARow) -> Example:
    return Example(row.id, row.prompt, (Piece(row.reference),), "as_given")


def opened_tokenizer(name: str, template: str | None) -> Any:
    """The tokenizer of a model that can be asked and trained.

    Args:
        template: a chat template in place of its own, as the setting of that name means it.

    Raises:
        UserError: no such model or template, or they do not go together.
    """
    if template is not None:
        try:
            give_template(name, read_template(template))
        except ValueError as error:
            raise UserError(Fault("--chat-template", str(error), template)) from None
    missing = model_fault(name)
    if faults := [missing] if missing else chat_faults(name):
        raise UserError(*faults)
    return load_tokenizer(name)


def show(examples: list[Example], tokenizer: Any, max_seq_length: int, count: int, console: Any) -> int:
    """Print the first `count` rows and the doctor's verdict on all; returns how many rows are faulty."""
    from rich.text import Text

    faulty = 0
    for number, example in enumerate(examples):
        row = render(tokenizer, example)
        faults = list(label_faults(tokenizer, example, row, max_seq_length))
        faulty += bool(faults)
        if number < count or (faults and faulty <= count):
            trained = len(row.trained_ids)
            console.print(f"\n{example.id}  {len(row.ids)} tokens, {trained} trained", style="bold", markup=False)
            text = Text()
            for stretch, is_trained in _stretches(tokenizer, row.ids, row.labels):
                text.append(stretch, style="black on green" if is_trained else "dim")
            console.print(text)
            for fault in faults:
                console.print(f"✗ {fault}", style="bold red", markup=False)
    verdict = (
        f"{faulty} of {len(examples)} rows have wrong labels." if faulty else f"{len(examples)} rows, labels right."
    )
    console.print(f"\n{verdict} Trained tokens are on green.", style="bold")
    return faulty


def _stretches(tokenizer: Any, ids: list[int], labels: list[int]) -> Iterator[tuple[str, bool]]:
    """The row's text in stretches of trained and untrained tokens."""
    start = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or (labels[at] == IGNORE) != (labels[start] == IGNORE):
            yield tokenizer.decode(ids[start:at], skip_special_tokens=False), labels[start] != IGNORE
            start = at


def ask(run: RunDir, question: str, *, compare: bool) -> Iterator[tuple[str, str]]:
    """(`adapter`, its answer); with `compare` first (`base`, the base model's answer). Greedy.

    Raises:
        UserError: the run has no adapter yet.
    """
    if not (run.adapter / "adapter_config.json").is_file():
        fix = f"Train it first: socratune train {run.root}."
        raise UserError(Fault(str(run.adapter), "a LoRA adapter", Shown("none"), fix))
    from socratune.inference import LocalStudent, load_model, serving_student

    config = resolve_settings(read_config_file(run.config), where=str(run.config)).config
    system = system_turn(run)
    behind = [] if system is None else [{"role": "system", "content": system}]
    messages = [*behind, {"role": "user", "content": question}]
    for who, adapter in (("base", None), ("adapter", run.adapter)) if compare else (("adapter", run.adapter),):
        model, tokenizer = load_model(config.model, adapter=adapter, load_in_4bit=config.train.load_in_4bit)
        with serving_student(LocalStudent(model, tokenizer, name=who, fingerprint=who, ends_loops=False)) as student:
            sampling = student.exam_sampling(config.enhance.max_new_tokens)
            yield who, asyncio.run(student.generate(messages, sampling)).text

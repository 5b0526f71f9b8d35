"""Looking at a run: training rows token by token."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from socratune.config import EnhancedTrainingConfig
from socratune.data import data_path, read_qa_rows
from socratune.errors import UserError
from socratune.inference import IGNORE, Rendered, load_tokenizer, render
from socratune.llm import model_fault
from socratune.preflight import chat_faults
from socratune.resolve import read_config_file, resolve_settings, take_template
from socratune.rows import Example, Piece, QARow
from socratune.runs import RunDir, read_rows
from socratune.training import label_faults


def load_examples(what: str) -> tuple[list[Example], str | None, int]:
    """Returns the training rows of a run folder, or a data set's rows as plain question → answer training rows.

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
    """Returns the tokenizer of a model that can be asked and trained.

    Args:
        template: a chat template in place of its own, as the setting of that name means it.

    Raises:
        UserError: no such model or template, or they do not go together.
    """
    if template is not None:
        take_template(name, template)
    missing = model_fault(name)
    if faults := [missing] if missing else chat_faults(name):
        raise UserError(*faults)
    return load_tokenizer(name)


def show(examples: list[Example], tokenizer: Any, max_seq_length: int, count: int, console: Any) -> int:
    """Prints the first `count` rows and the verdict on all labels; returns the number of faulty rows."""
    from rich.text import Text

    faulty = 0
    for number, (example, row, faults) in enumerate(_checked(examples, tokenizer, max_seq_length)):
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


def looked_at(examples: list[Example], tokenizer: Any, max_seq_length: int, count: int) -> dict[str, Any]:
    """Returns the same as data: `rows`, how many are `faulty`, and as `shown` the first `count` and the faulty ones."""
    shown, faulty = [], 0
    for number, (example, row, faults) in enumerate(_checked(examples, tokenizer, max_seq_length)):
        faulty += bool(faults)
        if number < count or (faults and faulty <= count):
            parts = _stretches(tokenizer, row.ids, row.labels)
            text = [{"text": stretch, "trained": is_trained} for stretch, is_trained in parts]
            known = {"id": example.id, "tokens": len(row.ids), "trained_tokens": len(row.trained_ids)}
            shown.append({**known, "faults": list(map(str, faults)), "text": text})
    return {"rows": len(examples), "faulty": faulty, "shown": shown}


def _checked(
    examples: list[Example], tokenizer: Any, max_seq_length: int
) -> Iterator[tuple[Example, Rendered, list[Any]]]:
    """Yields each row as the model sees it, with the faults of its labels."""
    for example in examples:
        row = render(tokenizer, example)
        yield example, row, list(label_faults(tokenizer, example, row, max_seq_length))


def _stretches(tokenizer: Any, ids: list[int], labels: list[int]) -> Iterator[tuple[str, bool]]:
    """Yields the row's text in stretches of trained and untrained tokens."""
    start = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or (labels[at] == IGNORE) != (labels[start] == IGNORE):
            yield tokenizer.decode(ids[start:at], skip_special_tokens=False), labels[start] != IGNORE
            start = at

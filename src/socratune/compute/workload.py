"""Finds before anything is loaded how much a run has to train on: rows, and the length of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from socratune.config import RunConfig
from socratune.data import data_path, data_set
from socratune.documents import estimated_tokens
from socratune.rows import Example, QARow
from socratune.runs import RunDir, iter_rows

ASSUMED_ROWS, LONG_ROWS = 1000, 20
"""Without a data set: the assumed rows, and how many of them have the full length."""
ANSWER_TOKENS, TEMPLATE_TOKENS = 256, 20
"""The assumed tokens of a student's answer, and of a chat template."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The amount of a data set.

    Attributes:
        rows: all rows, including the held-out ones.
        held_out: the held-out rows.
        lengths: tokens of each row as it will be trained.
        assumed: the assumptions, in words.
    """

    rows: int
    held_out: int
    lengths: tuple[int, ...]
    assumed: tuple[str, ...]


def load_of(config: RunConfig, *, known: bool) -> Workload:
    """Returns the workload by the training rows of the run folder, or else by the data set, or else assumed.

    Args:
        known: False if no data set was named.

    Raises:
        UserError: there is no such data set.
        OutsideError: it is on the Hub, which could not be asked.
    """
    run = RunDir(config.output)
    answer = min(ANSWER_TOKENS, config.enhance.max_new_tokens)
    if known and run.rows("train").exists():
        lengths = tuple(_example_length(example) for example in iter_rows(run.rows("train"), Example.from_json))
        rows, held_out = (_count(run.rows(name)) for name in ("train_in", "held_out"))
        return Workload(rows + held_out, held_out, lengths or (1,), ())
    if not known or (config.writes_rows and not run.rows("qa").exists()):
        longest = 2048 if config.train.max_seq_length == "auto" else config.train.max_seq_length
        usual = max(1, longest // 5)
        text = f"{ASSUMED_ROWS} rows, as there is no data set yet: of {usual} tokens, some of {longest}"
        lengths = (longest,) * LONG_ROWS + (usual,) * (ASSUMED_ROWS - LONG_ROWS)
        return Workload(ASSUMED_ROWS, 0, lengths, (text,))
    text = f"every row is trained, with {answer} tokens of the student's own or its reference, whichever is longer"
    if run.rows("train_in").exists():  # whatever became of the data set since
        lengths = tuple(_row_length(row, answer) for row in iter_rows(run.rows("train_in"), QARow.from_json))
        held_out = _count(run.rows("held_out"))
        return Workload(len(lengths) + held_out, held_out, lengths or (1,), (text,))
    path = run.rows("qa") if config.writes_rows else data_path(config.dataset)
    lengths = [_row_length(row, answer) for row in data_set(path).rows()]
    split = config.split
    held_out = 0 if split.held_out else _capped(len(lengths), split.held_out_share, split.max_held_out_rows)
    dev = _capped(len(lengths) - held_out, split.dev_share, split.max_dev_rows)
    return Workload(len(lengths), held_out, tuple(lengths[held_out + dev :]) or (1,), (text,))


def _capped(rows: int, share: float, most: int) -> int:
    return min(round(rows * share), most)


def _row_length(row: QARow, answer: int) -> int:
    return TEMPLATE_TOKENS + estimated_tokens(row.question) + max(answer, estimated_tokens(row.reference))


def _example_length(example: Example) -> int:
    prompt = sum(estimated_tokens(str(turn["content"])) for turn in example.prompt)
    pieces = example.pieces
    answer = sum(estimated_tokens(piece.text) if piece.token_ids is None else len(piece.token_ids) for piece in pieces)
    return TEMPLATE_TOKENS + prompt + answer


def _count(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as stream:
        return sum(1 for _ in stream)

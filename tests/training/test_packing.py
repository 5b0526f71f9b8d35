"""Packing: every document whole, in its place, and few rows."""

from __future__ import annotations

import math
import random

import pytest

from socratune.inference.template import IGNORE
from socratune.training.packing import best_fit, join_rows


def test_every_document_is_in_one_row_and_no_row_overflows() -> None:
    draw = random.Random(1)
    for _ in range(50):
        lengths = [draw.randrange(1, 100) for _ in range(draw.randrange(1, 60))]
        rows = best_fit(lengths, 100)
        assert sorted(document for row in rows for document in row) == list(range(len(lengths)))
        assert all(sum(lengths[document] for document in row) <= 100 for row in rows)


def test_it_needs_few_rows() -> None:
    draw = random.Random(2)
    lengths = [max(16, min(2048, int(draw.lognormvariate(math.log(300), 0.8)))) for _ in range(2000)]
    rows = best_fit(lengths, 8192)
    assert sum(lengths) / (len(rows) * 8192) > 0.99


def test_the_best_fit_is_taken() -> None:
    assert best_fit([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]
    assert best_fit([7, 5, 3, 5], 10) == [[0, 2], [1, 3]]


def test_a_document_is_never_cut() -> None:
    with pytest.raises(ValueError, match="101 tokens"):
        best_fit([3, 101], 100)


def test_a_row_knows_where_its_documents_begin() -> None:
    row = join_rows([([10, 11, 12], [IGNORE, 11, 12]), ([20], [20]), ([30, 31], [IGNORE, IGNORE])])
    assert row.ids.tolist() == [10, 11, 12, 20, 30, 31]
    assert row.positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert row.boundaries.tolist() == [0, 3, 4, 6]


def test_only_labelled_tokens_are_predicted_and_none_across_a_boundary() -> None:
    row = join_rows([([10, 11, 12], [10, IGNORE, 12]), ([20, 21], [20, 21])])
    assert list(zip(row.at.tolist(), row.targets.tolist(), strict=True)) == [(1, 12), (3, 21)]

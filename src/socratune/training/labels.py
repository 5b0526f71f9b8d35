"""Checks that a row, as it will be trained, is what it should be, before a GPU is paid for.

It judges ids and labels by the row's texts and by the template, not by how they were made.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import takewhile

from socratune.inference import IGNORE, Rendered, Tokenizer, answer_place, controls_of, end_of_turn_id, prompt_text
from socratune.llm import EVIDENCE_NOTE, HINT_NOTE, REFERENCE_NOTE
from socratune.rows import Example, Piece

_PRIVATE = tuple(note.split("{")[0].strip() for note in (HINT_NOTE, EVIDENCE_NOTE, REFERENCE_NOTE))
"""The beginnings of notes that only the student may see, and never in training."""


def label_faults(tokenizer: Tokenizer, example: Example, row: Rendered, max_seq_length: int) -> Iterator[str]:
    """Yields every fault of a rendered row, in words."""
    if len(row.labels) != len(row.ids):
        yield f"{len(row.ids)} tokens have {len(row.labels)} labels"
        return
    if not row.trained_ids:
        yield "no token carries loss"
        return
    if any(label not in (IGNORE, token) for token, label in zip(row.ids, row.labels, strict=True)):
        yield "a label is not the token at its place"
    if len(row.ids) > max_seq_length:
        yield f"truncation would cut the answer ({len(row.ids)} tokens, train.max_seq_length is {max_seq_length})"
    yield from control_faults(tokenizer, example)
    placed = answer_place(tokenizer, example)
    yield from _prompt_faults(tokenizer, example, row, placed.before)
    yield from _answer_faults(tokenizer, (placed.first, *example.pieces[1:]), row)


def control_faults(tokenizer: Tokenizer, example: Example) -> Iterator[str]:
    """Yields where the texts of a row hold control tokens of the model. What the student sampled itself is no text."""
    texts = [(turn["role"], turn["content"]) for turn in example.prompt]
    texts += [("trained", piece.text) for piece in example.pieces if not piece.token_ids]
    for role, text in texts:
        if held := controls_of(tokenizer).found(text):
            yield f"the {role} turn holds {held[0]!r}, a control token of the model"


def _prompt_faults(tokenizer: Tokenizer, example: Example, row: Rendered, expected: list[int]) -> Iterator[str]:
    """Yields faults of what precedes the answer: it is the conversation by the template, without loss or secrets."""
    untrained = len(list(takewhile(lambda label: label == IGNORE, row.labels)))
    if row.ids[: len(expected)] != expected:
        yield "what stands before the answer is not the conversation by the chat template"
    elif untrained < len(expected):
        yield "tokens before the answer would carry loss (user or system turn, or what the template itself supplies)"
    elif untrained > len(expected) and example.pieces[0].trained:
        yield "tokens without loss stand between the conversation and what is trained"
    before = prompt_text(tokenizer, example.prompt)
    for message in example.prompt:
        content, role = message["content"], message["role"]
        if role != "assistant" and content.strip() not in before:
            yield f"the chat template drops the {role} turn {content[:60]!r}"
        if any(lead_in in content for lead_in in _PRIVATE):
            yield f"the {role} turn holds what was for the student alone (a hint, a passage, the reference)"


def _answer_faults(tokenizer: Tokenizer, pieces: tuple[Piece, ...], row: Rendered) -> Iterator[str]:
    """Yields faults of what carries loss: it must be the whole answer, once, and the end of turn."""
    end, trained = end_of_turn_id(tokenizer), row.trained_ids
    if trained[-1] != end or row.ids[-1] != end:
        yield f"the end of turn {tokenizer.decode([end])!r} is not trained, so the model would never stop"
    elif trained.count(end) > 1:
        yield f"the end of turn {tokenizer.decode([end])!r} is trained {trained.count(end)} times"
    expected = "".join(piece.text for piece in pieces if piece.trained)
    text = tokenizer.decode([token for token in trained if token != end], skip_special_tokens=False)
    if "</think>" in expected and "</think>" not in text:
        yield "the thinking block is dropped"
    elif _squeezed(text) != _squeezed(expected):
        yield f"the trained text is not the answer: {text[:60]!r} instead of {expected[:60]!r}"
    elif all(piece.token_ids for piece in pieces if piece.trained):
        sampled = [token for piece in pieces if piece.trained for token in piece.token_ids or () if token != end]
        if sampled != [token for token in trained if token != end]:
            yield "the answer is not trained as the tokens that the student sampled"


def _squeezed(text: str) -> str:
    """Removes white space and differences of Unicode form, which some tokenizers do not keep."""
    return "".join(unicodedata.normalize("NFKC", text).split())

"""Tokens and loss masks, with the embedded model's real tokenizer."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from socratune.inference.template import IGNORE, end_of_turn_id, prompt_ids, render
from socratune.rows import Attempt, Example, Piece, QARow, Trace
from socratune.teaching.loop import answer_pieces, training_text

PROMPT = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is 15 * 13?"},
]
WORK = "15 * 10 = 150, and 15 * 3 = 45, so 150 + 45 = 195."
ROW = QARow("r", [*PROMPT, {"role": "assistant", "content": "195"}], {})


def example(*pieces: Piece) -> Example:
    return Example("r", PROMPT, pieces or (Piece(WORK),), "solved_with_hint")


def trace(thinking_format: str) -> Trace:
    attempts = (
        Attempt(1, "15 * 13 = 180.", "incorrect", "numeric", hint="Split 13."),
        Attempt(2, WORK, "correct", "numeric", given="hint"),
    )
    return Trace(ROW, "solved_with_hint", attempts, thinking_format, {}, chosen=2, gap="skill")


def test_the_loss_sees_the_reasoning_and_the_end_of_turn_and_nothing_else(tokenizer: Any) -> None:
    rendered = render(tokenizer, example())
    assert tokenizer.decode(rendered.trained_ids) == WORK + "<|im_end|>"
    untrained = [token for token, label in zip(rendered.ids, rendered.labels, strict=True) if label == IGNORE]
    assert untrained == prompt_ids(tokenizer, PROMPT)
    assert rendered.trained_ids[-1] == end_of_turn_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_the_rendered_row_is_what_the_template_writes(tokenizer: Any) -> None:
    whole = tokenizer.apply_chat_template([*PROMPT, {"role": "assistant", "content": WORK}], tokenize=False)
    assert whole.startswith(tokenizer.decode(render(tokenizer, example()).ids))


def test_sampled_ids_are_trained_as_sampled(tokenizer: Any) -> None:
    odd = tuple(token for letter in "195." for token in tokenizer(letter, add_special_tokens=False)["input_ids"])
    sampled = (*odd, end_of_turn_id(tokenizer))
    rendered = render(tokenizer, example(Piece("195.", token_ids=sampled)))
    assert tuple(rendered.trained_ids) == sampled


def test_direct_keeps_only_the_right_attempt() -> None:
    assert training_text(trace("direct")) == WORK
    assert training_text(replace(trace("direct"), outcome="unsolved", chosen=None)) is None


def test_iterative_shows_attempt_hint_and_correction(tokenizer: Any) -> None:
    assert training_text(trace("iterative")) == f"15 * 13 = 180.\nAha! Split 13.\n{WORK}"
    pieces = answer_pieces(trace("iterative"), mask_wrong_attempts=True)
    assert pieces is not None
    rendered = render(tokenizer, example(*pieces))
    assert tokenizer.decode(rendered.trained_ids) == f"\nAha! Split 13.\n{WORK}<|im_end|>"
    assert "180" in tokenizer.decode(rendered.ids)


def test_the_end_of_turn_is_the_templates_also_where_eos_is_another(tokenizer: Any) -> None:
    other = copy.deepcopy(tokenizer)
    other.eos_token = "<|endoftext|>"
    assert end_of_turn_id(other) == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("text", ["Zoë says 3 × 4 — “twelve” 🙂", "tabs\tand\nlines", "  spaces  kept  "])
def test_any_text_is_trained_whole(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(render(tokenizer, example(Piece(text))).trained_ids[:-1]) == text

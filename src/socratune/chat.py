"""Trace → messages → (ids, labels). The only writer of training text and of loss masks.

The prompt is rendered by the tokenizer's own chat template, once, here; student and trainer call the same function,
so the model is trained behind the very ids it saw. The assistant's part does not go through the template: it is the
sampled ids where the student sampled them in this process, else the encoded text, and then the end of turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from socratune.rows import Example, Piece, Trace

IGNORE = -100
"""The label of a token without loss, as PyTorch's cross entropy has it."""
AHA = "\nAha! {hint}\n"
"""How the `iterative` format turns the teacher's hint into a thought of the model's own."""

Tokenizer = Any
"""A transformers tokenizer with a chat template."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One training row as the model sees it: `ids` and `labels` of the same length, `IGNORE` where there is no loss."""

    id: str
    ids: list[int]
    labels: list[int]
    prompt_length: int

    @property
    def trained_ids(self) -> list[int]:
        """The ids that carry loss."""
        return [label for label in self.labels if label != IGNORE]


def answer_pieces(trace: Trace, *, mask_wrong_attempts: bool = False) -> tuple[Piece, ...] | None:
    """The assistant's message to train on, or None for a row that was not solved.

    `direct` and `clean`: the chosen right attempt alone (STaR's rationalisation, Zelikman et al. 2022,
    arXiv:2203.14465). `iterative`: each attempt that was hinted at, the hint as the model's own "Aha!", and the right
    one.
    """
    if trace.chosen is None:
        return None
    chosen = trace.attempts[trace.chosen - 1]
    final = Piece(chosen.response, token_ids=chosen.token_ids)
    if trace.format != "iterative" or chosen.given != "hint":
        return (final,)
    pieces = []
    for attempt in trace.attempts[: trace.chosen - 1]:
        if attempt.hint is not None:
            pieces.append(Piece(attempt.response, trained=not mask_wrong_attempts))
            pieces.append(Piece(AHA.format(hint=attempt.hint)))
    return (*pieces, final)


def training_text(trace: Trace) -> str | None:
    """The assistant's message to train on as text, or None for a row that was not solved."""
    pieces = answer_pieces(trace)
    return None if pieces is None else "".join(piece.text for piece in pieces)


def prompt_text(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str:
    """The conversation up to the point where the assistant begins to speak."""
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def prompt_ids(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> list[int]:
    """`prompt_text` as ids; the template itself writes the special tokens."""
    return tokenizer(prompt_text(tokenizer, messages), add_special_tokens=False)["input_ids"]


def end_of_turn_id(tokenizer: Tokenizer) -> int:
    """The special token the template writes behind an assistant message (it need not be `eos_token`)."""
    mark = "Xq7end"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    behind = tokenizer(text.rsplit(mark, 1)[1], add_special_tokens=False)["input_ids"]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return next((token for token in behind if token in special), tokenizer.eos_token_id)


def render(tokenizer: Tokenizer, example: Example) -> Rendered:
    """The row as ids and labels: loss on the trained pieces and the end of turn, nowhere else."""
    end = end_of_turn_id(tokenizer)
    ids = prompt_ids(tokenizer, example.prompt)
    prompt_length = len(ids)
    labels = [IGNORE] * prompt_length
    for piece in example.pieces:
        found = list(piece.token_ids or tokenizer(piece.text, add_special_tokens=False)["input_ids"])
        if found and found[-1] == end:
            found.pop()
        ids += found
        labels += found if piece.trained else [IGNORE] * len(found)
    return Rendered(example.id, [*ids, end], [*labels, end], prompt_length)


def label_faults(tokenizer: Tokenizer, example: Example, rendered: Rendered, max_seq_length: int) -> Iterator[str]:
    """What is wrong with the labels of a rendered row, judged from its text, not from how it was made."""
    trained = rendered.trained_ids
    if not trained:
        yield "no token carries loss"
        return
    if any(label != IGNORE for label in rendered.labels[: rendered.prompt_length]):
        yield "tokens of the user or system turn would carry loss"
    if any(label not in (IGNORE, token) for token, label in zip(rendered.ids, rendered.labels, strict=True)):
        yield "a label is not the token at its place"
    end = end_of_turn_id(tokenizer)
    if trained[-1] != end or rendered.ids[-1] != end:
        yield f"the end of turn {tokenizer.decode([end])!r} is not trained, so the model would never stop"
    expected = "".join(piece.text for piece in example.pieces if piece.trained)
    text = tokenizer.decode([token for token in trained if token != end], skip_special_tokens=False)
    if "<think>" in expected and "<think>" not in text:
        yield "the thinking block is dropped"
    elif _squeezed(text) != _squeezed(expected):
        yield f"the trained text is not the answer: {text[:60]!r} instead of {expected[:60]!r}"
    shown = prompt_text(tokenizer, example.prompt)
    for message in example.prompt:
        if message["role"] != "assistant" and message["content"].strip() not in shown:
            yield f"the chat template drops the {message['role']} turn {message['content'][:60]!r}"
    if len(rendered.ids) > max_seq_length:
        over = f"{len(rendered.ids)} tokens, train.max_seq_length is {max_seq_length}"
        yield f"truncation would cut the answer ({over})"


def _squeezed(text: str) -> str:
    return "".join(text.split())

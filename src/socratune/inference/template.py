"""Trace → messages → (ids, labels). The only writer of training text and of loss masks.

The prompt is rendered by the tokenizer's own chat template, once, here; student and trainer call the same function,
so the model is trained behind the very ids it saw. Where it is known which ids the student sampled, the answer does not
go through the template: it is trained as those ids, and then the end of turn. An answer that is only known as text
stands where the template puts it; what the template supplies before it (an empty think block, a channel) carries no
loss.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from socratune.rows import Example, Piece

IGNORE = -100
"""The label of a token without loss, as PyTorch's cross entropy has it."""

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


def prompt_text(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str:
    """The conversation up to the point where the assistant begins to speak."""
    return _templated(tokenizer, messages, add_generation_prompt=True)


def prompt_ids(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> list[int]:
    """`prompt_text` as ids; the template itself writes the special tokens."""
    return encoded_ids(tokenizer, prompt_text(tokenizer, messages))


def _templated(tokenizer: Tokenizer, messages: list[dict[str, str]], **options: Any) -> str:
    """The conversation by the tokenizer's template; where that refuses a system turn (Gemma), the first user turn
    begins with its words.
    """
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except TemplateError:
        if messages[0]["role"] != "system":
            raise
        system, user, *rest = messages
        user = {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
        return tokenizer.apply_chat_template([user, *rest], tokenize=False, **options)


def encoded_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text, nothing added."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


_MARK = "Xq7end"
"""Stands for an answer, to see what a template writes around it."""


def end_of_turn_id(tokenizer: Tokenizer) -> int:
    """The special token the template writes behind an assistant message (it need not be `eos_token`)."""
    return _end_of_turn_id(tokenizer, tokenizer.chat_template)


@lru_cache(maxsize=16)
def _end_of_turn_id(tokenizer: Tokenizer, template: str) -> int:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    behind = encoded_ids(tokenizer, text.rsplit(_MARK, 1)[1])
    return next((token for token in behind if token in special), tokenizer.eos_token_id)


def answer_prompt(tokenizer: Tokenizer, example: Example) -> tuple[str, Piece]:
    """(what stands before the answer, the answer's first piece as it follows there).

    A sampled answer follows the generation prompt, as it did. One that is only known as text follows it too where it
    brings a think block (which the prompt may have opened already); without one it stands where the template puts an
    answer, behind whatever the template supplies.
    """
    first = example.pieces[0]
    if first.token_ids:
        return prompt_text(tokenizer, example.prompt), first
    if "</think>" in first.text:
        before = prompt_text(tokenizer, example.prompt)
        opened = before.rstrip().endswith("<think>")
        return before, replace(first, text=first.text.removeprefix("<think>").lstrip("\n")) if opened else first
    whole = _templated(tokenizer, [*example.prompt, {"role": "assistant", "content": _MARK}])
    return whole.rsplit(_MARK, 1)[0], first


def render(tokenizer: Tokenizer, example: Example) -> Rendered:
    """The row as ids and labels: loss on the trained pieces and the end of turn, nowhere else."""
    end = end_of_turn_id(tokenizer)
    before, first = answer_prompt(tokenizer, example)
    ids = encoded_ids(tokenizer, before)
    prompt_length = len(ids)
    labels = [IGNORE] * prompt_length
    for piece in (first, *example.pieces[1:]):
        found = list(piece.token_ids or encoded_ids(tokenizer, piece.text))
        if found and found[-1] == end:
            found.pop()
        ids += found
        labels += found if piece.trained else [IGNORE] * len(found)
    return Rendered(example.id, [*ids, end], [*labels, end], prompt_length)

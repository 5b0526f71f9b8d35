"""Trace → messages → (ids, labels). The only writer of training text and of loss masks.

The tokenizer's own chat template renders the prompt, once, here. Student and trainer call the same function, so the
model is trained after the very ids it saw. If the student's sampled ids are known, the answer does not pass through the
template: it is trained as those ids, followed by the end of turn. An answer known only as text follows the same prompt.
What the template supplies between the two (an empty think block, a channel) carries no loss.

Only the template writes control tokens; the texts of a conversation contain none (`controls`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from socratune.errors import Fault, Shown, UserError
from socratune.inference.controls import Tokenizer, controls_of, encoded_ids
from socratune.rows import Example, Piece

IGNORE = -100
"""The label of a token without loss, as in PyTorch's cross entropy."""

Turns = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """One training row as the model sees it: `ids` and `labels` of the same length, `IGNORE` where there is no loss."""

    id: str
    ids: list[int]
    labels: list[int]
    prompt_length: int

    @property
    def trained_ids(self) -> list[int]:
        """Returns the ids that carry loss."""
        return [label for label in self.labels if label != IGNORE]


def prompt_text(tokenizer: Tokenizer, messages: Turns) -> str:
    """Returns the conversation up to the point where the assistant begins to speak.

    Raises:
        UserError: the template does not take these turns.
    """
    return _templated(tokenizer, messages, add_generation_prompt=True)


def prompt_ids(tokenizer: Tokenizer, messages: Turns) -> list[int]:
    """Returns `prompt_text` as ids. Only the template itself writes special tokens.

    Raises:
        UserError: the template does not take these turns.
    """
    controls = controls_of(tokenizer)
    veiled = [controls.veiled(turn["content"]) for turn in messages]
    if all(text is turn["content"] for text, turn in zip(veiled, messages, strict=True)):
        return encoded_ids(tokenizer, prompt_text(tokenizer, messages))
    hidden = [{**turn, "content": text} for turn, text in zip(messages, veiled, strict=True)]
    return controls.veiled_ids(prompt_text(tokenizer, hidden))


def _templated(tokenizer: Tokenizer, messages: Turns, **options: Any) -> str:
    """Renders the conversation. If the template has no place for a system turn (Gemma refuses it, others drop it), the
    first user turn begins with its words.
    """
    if messages[0]["role"] == "system" and system_place(tokenizer) == "user":
        messages = _merged(messages)
    try:
        return _raw(tokenizer, messages, **options)
    except Exception as error:  # a template is foreign code and may raise anything
        raise UserError(_template_fault(tokenizer, messages, error)) from error


def _raw(tokenizer: Tokenizer, messages: Turns, **options: Any) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def _template_fault(tokenizer: Tokenizer, messages: Turns, error: Exception) -> Fault:
    turns = ", ".join(turn["role"] for turn in messages[:8]) + (", …" if len(messages) > 8 else "")
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    fix = "Give rows of other turns, or another template: --chat-template FILE."
    return Fault(_called(tokenizer), f"one that takes these turns ({turns})", Shown(reason), fix)


def _called(tokenizer: Tokenizer) -> str:
    return f"the chat template of {getattr(tokenizer, 'name_or_path', None) or 'the model'}"


def _merged(messages: Turns) -> Turns:
    """Returns the messages with the words of the system turn in the first user turn, if that follows."""
    if len(messages) < 2 or messages[1]["role"] != "user":
        return messages
    system, user, *rest = messages
    return [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *rest]


_MARK = "Xq7end"
"""Stands for an answer, to see what a template writes around it."""
_PROBES = ("Xq7system", "Xq7user")


def system_place(tokenizer: Tokenizer) -> str:
    """Returns where the words of a system turn go: `system`, if the template has a place for them; `user`, before the
    words of the first user turn, if it refuses or drops them; `nowhere`, if even that loses words.
    """
    return _system_place(tokenizer, tokenizer.chat_template)


@lru_cache(maxsize=16)
def _system_place(tokenizer: Tokenizer, template: str) -> str:
    turns = [{"role": role, "content": text} for role, text in zip(("system", "user"), _PROBES, strict=True)]
    for place, messages in (("system", turns), ("user", _merged(turns))):
        try:
            text = _raw(tokenizer, messages, add_generation_prompt=True)
        except Exception:  # a template is foreign code and may raise anything
            continue
        if all(words in text for words in _PROBES):
            return place
    return "nowhere"


def end_of_turn_id(tokenizer: Tokenizer) -> int:
    """Returns the special token that the template writes after an assistant message (not always `eos_token`).

    Raises:
        UserError: the template does not show an answer, or neither it nor the tokenizer has an end.
    """
    end = _end_of_turn(tokenizer, tokenizer.chat_template)
    end = tokenizer.eos_token_id if end is None else end
    if end is None:
        fix = "Set eos_token in its tokenizer_config.json, or give another template: --chat-template FILE."
        got = Shown("none, nor has the tokenizer an eos_token")
        expected = "a token at the end of an answer, at which the model stops"
        raise UserError(Fault(_called(tokenizer), expected, got, fix))
    return end


def ends_turns(tokenizer: Tokenizer) -> bool:
    """Returns True if the template itself writes a special token after an answer."""
    return _end_of_turn(tokenizer, tokenizer.chat_template) is not None


@lru_cache(maxsize=16)
def _end_of_turn(tokenizer: Tokenizer, template: str) -> int | None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    _, mark, after = _templated(tokenizer, messages).rpartition(_MARK)
    if not mark:
        fix, got = "Give another: --chat-template FILE.", Shown("one that leaves them out")
        raise UserError(Fault(_called(tokenizer), "one that shows the assistant's words", got, fix))
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return next((token for token in encoded_ids(tokenizer, after) if token in special), None)


def next_turn(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Returns what the next user turn looks like where the template marks turns in words alone, else None.

    A model that was trained on no template does not end its turn, but writes the user's next one as well. Its answer
    ends before that, as in few-shot evaluations of base models.
    """
    return _next_turn(tokenizer, tokenizer.chat_template)


@lru_cache(maxsize=16)
def _next_turn(tokenizer: Tokenizer, template: str) -> re.Pattern[str] | None:
    roles = zip(("user", "assistant", "user"), ("a", _MARK, _PROBES[1]), strict=True)
    try:
        text = _raw(tokenizer, [{"role": role, "content": words} for role, words in roles])
    except Exception:  # a template is foreign code and may raise anything
        return None
    between = text.rpartition(_MARK)[2].partition(_PROBES[1])[0]
    words = between.removeprefix(tokenizer.eos_token or "")
    marker = words.strip()
    if not any(map(str.isalpha, marker)) or controls_of(tokenizer).found(words):
        return None
    return re.compile((r"\s*\n\s*" if "\n" in words else r"\s*") + re.escape(marker))


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an answer begins: what precedes it without loss, and its first piece with its ids there.

    Attributes:
        prompt: how many ids of `before` are the prompt itself; the template supplies the rest.
    """

    before: list[int]
    prompt: int
    first: Piece


def answer_place(tokenizer: Tokenizer, example: Example) -> Placed:
    """Returns where the answer of a row begins: after the ids that the student is prompted with, by any template.

    A sampled answer follows them as it did, and so does one that brings a think block (which the prompt may have opened
    already). An answer that is known only as text follows what the template supplies there. White space that the
    template puts before an answer (a blank in those of Llama 2 and Mistral) is trained with the answer, as a model that
    is prompted without it samples it with its first word.
    """
    ids, first = prompt_ids(tokenizer, example.prompt), example.pieces[0]
    if first.token_ids:
        return Placed(ids, len(ids), first)
    prompt, supplied, text = prompt_text(tokenizer, example.prompt), "", first.text
    if "</think>" in text:
        text = text.removeprefix("<think>").lstrip("\n") if _opens_thought(prompt) else text
    else:
        supplied = _supplied(tokenizer, example.prompt, prompt)
        if not supplied.strip():
            supplied, text = "", supplied + text
    known = [turn["content"] for turn in example.prompt]
    before = ids + _following(tokenizer, (prompt,), ids, supplied, known)
    answer = _following(tokenizer, (prompt, supplied), before, text, [*known, text])
    return Placed(before, len(ids), replace(first, text=text, token_ids=tuple(answer)))


def _opens_thought(prompt: str) -> bool:
    return prompt.rstrip().endswith("<think>")


def _supplied(tokenizer: Tokenizer, messages: Turns, prompt: str) -> str:
    """Returns what the template writes before an answer without thoughts, or the end of an opened think block."""
    whole = _templated(tokenizer, [*messages, {"role": "assistant", "content": _MARK}])
    before = whole.rpartition(_MARK)[0]
    if before.startswith(prompt):
        return before[len(prompt) :]
    return "\n</think>\n\n" if _opens_thought(prompt) else ""


def _following(
    tokenizer: Tokenizer, parts: tuple[str, ...], before: list[int], text: str, texts: list[str]
) -> list[int]:
    """Returns the ids of a text where it follows others, as a model writes it there; alone if it would change theirs.

    Args:
        parts: the texts before it, whose ids are `before`.
        texts: all texts in them that are not the template's.
    """
    if not text:
        return []
    controls = controls_of(tokenizer)
    if all(controls.veiled(part) is part for part in texts):
        whole = encoded_ids(tokenizer, "".join((*parts, text)))
        if whole[: len(before)] == before:
            return whole[len(before) :]
    return controls.text_ids(text) if text in texts else encoded_ids(tokenizer, text)


def render(tokenizer: Tokenizer, example: Example) -> Rendered:
    """Returns the row as ids and labels: loss on the trained pieces and the end of turn, nowhere else.

    Raises:
        UserError: the template does not take its turns.
    """
    end, controls = end_of_turn_id(tokenizer), controls_of(tokenizer)
    placed = answer_place(tokenizer, example)
    ids = [*placed.before]
    labels = [IGNORE] * len(ids)
    for piece in (placed.first, *example.pieces[1:]):
        tokens = list(piece.token_ids or controls.text_ids(piece.text))
        if tokens and tokens[-1] == end:
            tokens.pop()
        ids += tokens
        labels += tokens if piece.trained else [IGNORE] * len(tokens)
    return Rendered(example.id, [*ids, end], [*labels, end], len(placed.before))

"""Control tokens: the ids by which a model tells its turns apart. Only a chat template may write them.

A tokenizer reads `<|im_end|>` in a question, a document or a student's answer as the end of a turn, so that whoever
wrote it speaks as somebody else. Here a text is looked through by the tokenizer itself, and what it would read so is
spelt out in ordinary tokens.
"""

from __future__ import annotations

import copy
import re
import threading
import unicodedata
from functools import lru_cache
from typing import Any

Tokenizer = Any
"""A transformers tokenizer with a chat template."""

_WORDS = re.compile(r"</?[a-z_]*(?:think|thinking|thought|tool_call|tool_response|tools)>")
"""What a model writes into its own answers. They are tokens of their own in many vocabularies and end no turn."""
_PLACE = "\ue5f1{}\ue5f2"
"""Stands for a control token in a text while the template is filled in: of private use, so in no one's text."""
_BEGINNING = 3  # letters


def encoded_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text, nothing added. Control tokens in it count as such: for what a template has written."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def controls_of(tokenizer: Tokenizer) -> Controls:
    """The control tokens of a tokenizer."""
    return _controls(tokenizer, tokenizer.chat_template, len(tokenizer))


@lru_cache(maxsize=16)
def _controls(tokenizer: Tokenizer, template: str, size: int) -> Controls:
    return Controls(tokenizer)


def _control_ids(tokenizer: Tokenizer) -> set[int]:
    """The special tokens, and those that are called ordinary although the template writes turns with them."""
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids) | {token for token, word in added.items() if word.special}
    template = tokenizer.chat_template or ""
    written = {
        token
        for token, word in added.items()
        if str(word) in template and not str(word).isspace() and not str(word).isalnum()
    }
    ordinary = {token for token, word in added.items() if not word.special and _WORDS.fullmatch(str(word))}
    return (special | written) - ordinary - {tokenizer.unk_token_id}


class Controls:
    """What of a text a tokenizer would read as control tokens, and how the text is encoded so that it does not.

    Attributes:
        ids: of the control tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.ids = frozenset(_control_ids(tokenizer))
        self._tokenizer = tokenizer
        words = sorted(filter(None, map(self._word, self.ids)), key=len, reverse=True)
        self._words = _any_of(words)
        # a vocabulary may have thousands; the tokenizer itself says of a text that holds a beginning whether it is one
        self._beginnings = _any_of(sorted({word[:_BEGINNING] for word in words}))
        self._lock = threading.Lock()
        self._clone: Tokenizer = None  # knows the places
        self._places: dict[str, tuple[str, int, list[int]]] = {}  # control word → place, its id, the word spelt out

    def _word(self, token: int) -> str:
        found = self._tokenizer.added_tokens_decoder.get(token)
        return str(found) if found is not None else str(self._tokenizer.convert_ids_to_tokens(token))

    def found(self, text: str) -> list[str]:
        """The control tokens that the tokenizer reads in a text, as they are written there."""
        return [text[start:stop] for start, stop in self._spans(text)]

    def veiled(self, text: str) -> str:
        """The text with places for its control tokens; the very same object where it has none."""
        spans = self._spans(text)
        if not spans:
            return text
        parts, end = [], 0
        for start, stop in spans:
            parts += [text[end:start], self._place(text[start:stop])]
            end = stop
        return "".join([*parts, text[end:]])

    def veiled_ids(self, text: str) -> list[int]:
        """The ids of a text that a template has written around veiled ones: its own control tokens, none of theirs."""
        with self._lock:
            if self._clone is None:
                return encoded_ids(self._tokenizer, text)
            spelt = {token: ids for _, token, ids in self._places.values()}
            found = encoded_ids(self._clone, text)
        return [one for token in found for one in spelt.get(token, (token,))]

    def text_ids(self, text: str) -> list[int]:
        """The ids of a text of data, users or models: none of them a control token."""
        veiled = self.veiled(text)
        return encoded_ids(self._tokenizer, text) if veiled is text else self.veiled_ids(veiled)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where the control tokens of a text begin and end, without the white space they may take in."""
        if not self._suspected(text):
            return []
        if not self._tokenizer.is_fast:
            return [found.span() for found in self._words.finditer(text)]
        read = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = (span for token, span in zip(read["input_ids"], read["offset_mapping"], strict=True)
                 if token in self.ids)  # fmt: skip
        return [found for start, stop in spans if (found := _trimmed(text, start, stop))]

    def _suspected(self, text: str) -> bool:
        if self._beginnings.search(text):
            return True
        return not text.isascii() and self._beginnings.search(unicodedata.normalize("NFKC", text)) is not None

    def _place(self, word: str) -> str:
        """The place of a control word, which is a token of its own to a copy of the tokenizer."""
        from tokenizers import AddedToken

        with self._lock:
            if self._clone is None:
                self._clone = copy.deepcopy(self._tokenizer)
            if word not in self._places:
                spelt, place = self._spelt(word), _PLACE.format(len(self._places))
                self._clone.add_tokens([AddedToken(place, normalized=False, special=True)], special_tokens=True)
                self._places[word] = (place, self._clone.convert_tokens_to_ids(place), spelt)
            return self._places[word][0]

    def _spelt(self, word: str) -> list[int]:
        """A control word in ordinary tokens; letter by letter where a tokenizer knows no other way."""
        ids = self._clone(word, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if self.ids.isdisjoint(ids):
            return ids
        return [token for letter in word for token in encoded_ids(self._clone, letter) if token not in self.ids]


def _any_of(words: list[str]) -> re.Pattern[str]:
    """Finds these words, however they are capitalised and whatever stands for a blank; nothing where there is none."""
    return re.compile("|".join(re.escape(word).replace("▁", "[▁ ]") for word in words) or "(?!)", re.IGNORECASE)


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int] | None:
    """A stretch without the white space around it; None where nothing is left."""
    word = text[start:stop].strip()
    start = text.index(word, start)
    return (start, start + len(word)) if word else None

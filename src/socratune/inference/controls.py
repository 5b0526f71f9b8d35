"""Control tokens: the ids by which a model separates its turns. Only a chat template may write them.

A tokenizer reads `<|im_end|>` in a question, a document or a student's answer as the end of a turn, so that its author
could speak as somebody else. Here the tokenizer itself searches a text, and what it would read so is spelt in ordinary
tokens.
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
"""Words that a model writes into its own answers. Many vocabularies have tokens for them, which end no turn."""
_PLACE = "\ue5f1{}\ue5f2"
"""Replaces a control token in a text while the template is filled in. Its characters are of private use,
so in no text."""
_BEGINNING = 3  # letters


def encoded_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Returns the ids of a text that a template has written, in which control tokens count as such."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def controls_of(tokenizer: Tokenizer) -> Controls:
    """Returns the control tokens of a tokenizer."""
    return _controls(tokenizer, tokenizer.chat_template, len(tokenizer))


@lru_cache(maxsize=16)
def _controls(tokenizer: Tokenizer, template: str, size: int) -> Controls:
    return Controls(tokenizer)


def _control_ids(tokenizer: Tokenizer) -> set[int]:
    """Returns the special tokens, and ordinary ones by which the template separates turns."""
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
    """Finds what a tokenizer would read as control tokens in a text, and encodes the text without them.

    Attributes:
        ids: the ids of the control tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.ids = frozenset(_control_ids(tokenizer))
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder  # made anew at every access: seconds where there are thousands
        words = sorted(
            filter(None, (str(added.get(token) or tokenizer.convert_ids_to_tokens(token)) for token in self.ids)),
            key=len,
            reverse=True,
        )
        self._words = _any_of(words)
        # A vocabulary may have thousands, so a text with a beginning is read by the tokenizer itself.
        self._beginnings = _any_of(sorted({word[:_BEGINNING] for word in words}))
        self._lock = threading.Lock()
        self._clone: Tokenizer = None  # has a token for each replacement
        self._places: dict[
            str, tuple[str, int, list[int]]
        ] = {}  # control word → replacement, its id, the word spelt out

    def found(self, text: str) -> list[str]:
        """Returns the control tokens that the tokenizer reads in a text, as they are written there."""
        return [text[start:stop] for start, stop in self._spans(text)]

    def veiled(self, text: str) -> str:
        """Returns the text with its control tokens replaced; the same object if it has none."""
        spans = self._spans(text)
        if not spans:
            return text
        parts, end = [], 0
        for start, stop in spans:
            parts += [text[end:start], self._place(text[start:stop])]
            end = stop
        return "".join([*parts, text[end:]])

    def veiled_ids(self, text: str) -> list[int]:
        """Returns the ids of a template's text around veiled texts, with the template's control tokens alone."""
        with self._lock:
            if self._clone is None:
                return encoded_ids(self._tokenizer, text)
            spelt = {token: ids for _, token, ids in self._places.values()}
            ids = encoded_ids(self._clone, text)
        return [part for token in ids for part in spelt.get(token, (token,))]

    def text_ids(self, text: str) -> list[int]:
        """Returns the ids of a text by users, data or models, none of which is a control token."""
        veiled = self.veiled(text)
        return encoded_ids(self._tokenizer, text) if veiled is text else self.veiled_ids(veiled)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Returns where the control tokens of a text begin and end, without surrounding white space."""
        if not self._suspected(text):
            return []
        if not self._tokenizer.is_fast:
            return [match.span() for match in self._words.finditer(text)]
        read = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = (span for token, span in zip(read["input_ids"], read["offset_mapping"], strict=True)
                 if token in self.ids)  # fmt: skip
        return [word for start, stop in spans if (word := _trimmed(text, start, stop))]

    def _suspected(self, text: str) -> bool:
        if self._beginnings.search(text):
            return True
        return not text.isascii() and self._beginnings.search(unicodedata.normalize("NFKC", text)) is not None

    def _place(self, word: str) -> str:
        """Returns the replacement of a control word, which is a token of its own in a copy of the tokenizer."""
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
        """Returns a control word in ordinary tokens, letter by letter if the tokenizer knows no other way."""
        ids = self._clone(word, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if self.ids.isdisjoint(ids):
            return ids
        return [token for letter in word for token in encoded_ids(self._clone, letter) if token not in self.ids]


def _any_of(words: list[str]) -> re.Pattern[str]:
    """Returns a pattern of these words in any case, and with a blank or its substitute."""
    return re.compile("|".join(re.escape(word).replace("▁", "[▁ ]") for word in words) or "(?!)", re.IGNORECASE)


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int] | None:
    """Returns a stretch without surrounding white space; None if nothing is left."""
    word = text[start:stop].strip()
    start = text.index(word, start)
    return (start, start + len(word)) if word else None

"""In which language a text is, as far as a few forms need it."""

from __future__ import annotations

import re

_COMMON = {
    "en": "the of and is was are in to a an that by from it at for with on has have not or",
    "de": "der die das und ist wird werden war in den dem von zu mit ein eine auf für aus im um",
    "fr": "le la les des et est une du dans par pour un sur avec au",
    "es": "el la los las y es una del en por para un con se al",
}
_COMMON_WORDS = {name: frozenset(words.split()) for name, words in _COMMON.items()}
SHORT = 25
"""Words of a note that is too short to tell."""
_WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """`en`, `de`, `fr` or `es` by its commonest words; empty for any other. A note too short to tell is English."""
    words = [word.casefold() for word in _WORD.findall(text[:4000])]
    counts = {name: sum(map(common.__contains__, words)) for name, common in _COMMON_WORDS.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] * 12 >= len(words) > 0:
        return best
    return "en" if text.isascii() and len(words) < SHORT else ""

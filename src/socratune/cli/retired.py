"""Commands and flags that the package no longer has: a sentence each, with what to run instead."""

from __future__ import annotations

from collections.abc import Sequence

_CLONE = "In a clone of https://github.com/socratune/socratune run:"
_LABORATORY = f"the laboratory is in the repository now, not in the package. {_CLONE} make lab"

RETIRED = {
    ("demo", "--lab"): _LABORATORY,
    ("grok-demo", ""): f"late generalisation is shown by a script now. {_CLONE} python experiments/grok_demo.py",
    ("demo", "--base"): f"{_LABORATORY}, or python experiments/lab/demo.py --base FOLDER",
}
"""What a command line begins with and holds (nothing: whatever it holds), and what became of it."""


def retired(words: Sequence[str]) -> str | None:
    """Returns what to say about a retired command or flag, or None."""
    named = {word.partition("=")[0] for word in words}
    for (command, flag), said in RETIRED.items():
        if words and words[0] == command and flag in {"", *named}:
            return f"socratune {command} {flag}".rstrip() + f": {said}"
    return None

"""Reads the options that a question lists and the letter that an answer chooses."""

from __future__ import annotations

import re

from socratune.judging.text import final_answer

_CHOICE = re.compile(r"^\W*(?:(?:option|answer|choice)[\s:(\[]*)?([A-Z])\s*(?:[)\].:]|$)", re.IGNORECASE)
_FEW, _ALL = "ABCDEFGH", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OPTION_LINES, _OPTIONS_INLINE = (
    [re.compile(pattern.replace("LETTER", f"[{letters}]"), flag) for letters in (_FEW, _ALL)]
    for pattern, flag in (
        (r"^[ \t]*(?:[-*][ \t]*)?\**\(?(LETTER)[).:]\**\s+(\S.*)$", re.MULTILINE),
        (r"(?<![\w(])\(?(LETTER)[).:]\s+(\S.*?)(?=[\s,;]+\(?LETTER[).:]\s|\s*$)", re.DOTALL),
    )
)
"""One pattern for few letters and one for all: `I.` and `V.` are numbers as well, and `J.` and `K.` begin names."""
_GAP = re.compile(r"([\s,;])[\s,;]{9,}")


def choice_of(text: str) -> str | None:
    """Returns the letter of a multiple-choice answer (`B`, `(B) Paris`, `The answer is B.`) in upper case, or None."""
    match = _CHOICE.match(final_answer(text))
    return match.group(1).upper() if match else None


def options_in(question: str) -> dict[str, str]:
    """Returns the options of a question, letter → text: each on its own line, or all in a row (`A) … B) …`).

    Letters that do not run from A without a gap are initials or headings, and no options. Those behind H count where
    all up to H are options.
    """
    if ")" not in question and "." not in question and ":" not in question:
        return {}
    if len(question) > 500:
        question = _GAP.sub(r"\1", question)  # a long gap is read again from each of its characters
    if options := _options_listed(question):
        return options
    *passage, last = question.rpartition("\n\n")  # a passage above the question may have lettered lines of its own
    return _options_listed(last) if passage[1] else {}


def _options_listed(question: str) -> dict[str, str]:
    for few, every in (_OPTION_LINES, _OPTIONS_INLINE):
        options = {letter: text.strip() for letter, text in few.findall(question)}
        if len(options) < 2 or "".join(options) != _FEW[: len(options)]:
            continue
        return max(options, _run_of(every.findall(question)), key=len) if len(options) == len(_FEW) else options
    return {}


def _run_of(lettered: list[tuple[str, str]]) -> dict[str, str]:
    """Returns the options among lettered texts: each letter must follow the previous one."""
    options: dict[str, str] = {}
    for letter, text in lettered:
        if len(options) < len(_ALL) and letter == _ALL[len(options)]:
            options[letter] = text.strip()
    return options

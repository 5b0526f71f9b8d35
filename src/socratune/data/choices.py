"""Finds the option that an answer means, and questions whose options are missing."""

from __future__ import annotations

import re
from typing import Any

from socratune.data.columns import decoded
from socratune.data.options import (
    ANY_COLUMN,
    LETTERED,
    NAMED,
    WRITE,
    Options,
    is_for_options,
    label_of,
    letter,
    suffixed,
    whole_number,
)
from socratune.errors import Fault, Shown
from socratune.judging import final_answer, options_in

FROM_ONE = "Numbers count from 0: if yours count from 1, write letters (A, B, …) in all rows."
"""The fix for a number behind the last option: all other numbers of the file may then mean another option."""
_POINTS = re.compile(
    r"\W*(?:option |answer |choice )?\(?(?:[A-J]|(?-i:[K-Z]))\W*|\(?[A-Z][).:]\s+\S.*", re.I | re.DOTALL
)
_ASKS_TO_CHOOSE = re.compile(
    r"\bof (?:the|these) (?:following|options|choices|answers|statements)\b|\bwhich of these\b"
    r"|\b(?:choose|select|pick|mark) (?:the|one|an?|all)\b|\bbest answers?\b|\bder folgenden\b",
    re.IGNORECASE,
)
_FIRST, _SECOND = (re.compile(rf"(?<![A-Za-z0-9])\(?{name}\s?[).:\]\-–,]", re.IGNORECASE) for name in "AB")
_NUMBERED_FIRST, _NUMBERED_SECOND = (re.compile(rf"(?<![\d.]){name}\s?[).:](?!\d)") for name in "12")
_OPTIONS_FOLLOW = re.compile(r"\b(?:options|choices)\s*(?:are)?\s*:", re.IGNORECASE)
_OTHER_LISTS = frozenset(
    """tags keywords topics subjects labels categories sources references hints metadata context evidence passage
    article""".split()  # noqa: SIM905
)


def _same(text: Any) -> str:
    """Returns a key that spellings of one option share: case, spaces and a full stop aside, numbers by value."""
    plain = " ".join(str(text).split()).casefold().rstrip(".").strip()
    try:
        return f"{float(plain):g}" if len(plain) < 20 else plain
    except ValueError:
        return plain


def meanings(answered: Any, options: Options) -> set[int]:
    """Returns the options, counted from 0, that an answer can mean: exactly one if the answer is clear.

    A label that the row itself gives an option goes before everything else. A number counts from 0, unless it is the
    text of an option, or the options are numbered themselves.
    """
    text_of_answer = str(answered).strip()
    label = label_of(answered)
    worded = label.isdigit() and any(sign.isalpha() for sign in text_of_answer)
    by_label = {at for at, name in enumerate(options.labels) if name == label}
    if by_label and options.kind == "labelled":
        return by_label
    same = {at for at, text in enumerate(options.texts) if _same(text) == _same(text_of_answer)}
    if lettered := LETTERED.fullmatch(text_of_answer):
        same |= {
            at
            for at, (name, text) in enumerate(zip(options.labels, options.texts, strict=True))
            if name == lettered[1].upper() and _same(text) == _same(lettered[2])
        }
    number = whole_number(answered)
    if number is None or worded or (options.labels[0] == "1" and options.kind == "labelled"):
        by_number = set()
    else:
        by_number = {number} & set(range(len(options.texts)))
    texts_are_numbers = any(not isinstance(text, str) for text in options.raw)
    if by_number and not isinstance(answered, str) and not texts_are_numbers:  # a text would have been a text
        same = set()
    return by_label | same | by_number


def right_option(answered: Any, options: Options, place: str, faults: list[Fault]) -> int | None:
    """Returns the option that the answer names, counted from 0, or None and a fault if it is missing or ambiguous."""
    meant = set() if isinstance(answered, bool | list | dict) else meanings(answered, options)
    if len(meant) == 1:
        return meant.pop()
    shown = [f"{letter(at)}) {options.texts[at]}" for at in sorted(meant)]
    if meant:
        got = Shown(f"{answered!r}, which may mean {' or '.join(shown)}")
        fix = "Write the letter where it is a number, else the text."
        faults.append(Fault(place, "an answer that means one option", got, fix))
        return None
    number, fix = whole_number(answered), "Write its letter or its text."
    if number == len(options.texts):
        fix = FROM_ONE
    elif isinstance(answered, list):
        fix = "A question with several right options cannot be judged."
    faults.append(
        Fault(place, f"one of the options {', '.join(options.labels)}, its text or its number from 0", answered, fix)
    )
    return None


def with_options(asked: str, answered: Any, options: Options, place: str, faults: list[Fault]) -> tuple[str, str]:
    """Returns the question with its options below it (unless it lists them), and the right option as `B) text`.

    A worked answer that ends with an option stays as it is.

    Args:
        place: file, line and column of the answer.
    """
    own = options_in(asked)
    if own:
        relabelled = _as_listed(own, options)
        if relabelled is None:
            got = Shown("others in the column with the options")
            fix = "Leave one: the question with its options in it, or the column."
            faults.append(Fault(place, f"the options that the question lists ({', '.join(own)})", got, fix))
            return asked, str(answered)
        options = relabelled
    elif whole_number(answered) is not None and _in_order(_NUMBERED_FIRST, _NUMBERED_SECOND, asked):
        fix = "The question numbers its options: write the text of the right one."
        faults.append(Fault(place, "an answer that means one option", answered, fix))
        return asked, str(answered)
    if isinstance(answered, str) and not meanings(answered, options) and _is_worked(answered, options):
        right, reference = None, str(answered)
    else:
        right = right_option(answered, options, place, faults)
        if right is None:
            return asked, str(answered)
        reference = f"{options.labels[right] if own else letter(right)}) {options.texts[right]}"
    if not own:
        asked = "\n".join([asked, *(f"{letter(at)}) {text}" for at, text in enumerate(options.texts))])
    return asked, reference


def _is_worked(answered: str, options: Options) -> bool:
    """Returns True if a longer answer ends in one option or names only one."""
    if len(answered) < 100_000 and len(meanings(final_answer(answered), options)) == 1:
        return True
    words = " ".join(answered.split()).casefold()
    named = [text for text in options.texts if len(text) > 2 and text.casefold() in words]
    return len(named) == 1 and len(words.split()) > 2


def _as_listed(own: dict[str, str], options: Options) -> Options | None:
    """Returns a column's options under the letters of the question, or None if the question lists other options."""
    texts = [_same(text) for text in options.texts]
    if all(text in {name.casefold() for name in own} for text in texts):  # the column has the letters alone
        return Options(list(own), list(own.values()), "labelled")
    by_text = {_same(text.rstrip(" ,;.")): name for name, text in own.items()}
    if all(text in by_text for text in texts) and len(by_text) == len(own) == len(texts):
        labels = [by_text[text] for text in texts]
        return (
            options._replace(labels=labels, kind="labelled")
            if options.kind == "list" or labels == options.labels
            else None
        )
    if len(own) >= min(len(texts), 8) and all(
        text in _same(own.get(letter(at), text)) for at, text in enumerate(texts)
    ):
        return options._replace(labels=[letter(at) for at in range(len(texts))], kind="labelled")
    return None


def lists_options(text: str) -> bool:
    """Returns True if a question seems to list its options itself, in any form."""
    return bool(options_in(text) or _in_order(_FIRST, _SECOND, text) or _OPTIONS_FOLLOW.search(text))


def _in_order(first: re.Pattern[str], second: re.Pattern[str], text: str) -> bool:
    match = first.search(text)
    return match is not None and second.search(text, match.end()) is not None


def missing_options(prompt: str, reference: str, others: dict[str, Any], names: list[str], where: str) -> Fault | None:
    """Returns the fault of a row whose answer is a bare letter while its options are missing or elsewhere, or None.

    A letter alone can be an answer ("the symbol of boron?"), so something has to speak for options: other columns that
    may be them, an empty one for them, or the words of the question.

    Args:
        prompt: all that is asked.
        others: the values of the columns that are neither question nor answer.
        names: all columns, also the empty ones.
        where: file and line.
    """
    if len(reference) > 300 or not _POINTS.fullmatch(reference.strip()) or lists_options(prompt):
        return None
    expected = f"the options that the answer {reference.strip()[:20]!r} is one of"
    held = [name for name, value in others.items() if name not in _OTHER_LISTS and _may_hold_options(decoded(value))]
    texts = [name for name, value in others.items() if isinstance(value, str)]
    held += [name for name in texts if NAMED.search(name) or (name not in _OTHER_LISTS and lists_options(others[name]))]
    held += [name for _, group in suffixed(texts, ANY_COLUMN) for _, name in group if name not in held]
    if held:
        return Fault(where, expected, Shown(f"columns whose form is not known ({', '.join(held)})"), WRITE)
    empty = [name for name in names if name not in others and is_for_options(name)]
    if empty or _ASKS_TO_CHOOSE.search(prompt):
        got = Shown(f"nothing in {' and '.join(empty)}" if empty else "none")
        return Fault(where, expected, got, WRITE)
    return None


def _may_hold_options(value: Any) -> bool:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return len(inner) > 1 and any(isinstance(item, str | dict | list) for item in inner)

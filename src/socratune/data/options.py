"""Reads questions with options in any form, and finds the option that the answer means.

A question is never asked without its options. What is there and cannot be read makes the row a fault.

    one column    a list of texts, texts with their letters (`A) apple`), objects (`{"label": "A", "text": "apple"}`),
                  letter → text, ARC's `{"text": […], "label": […]}`, the JSON or the Python notation of these, or lines
    one each      A, B, C, D; option_a; choice1; opa; ending0; distractor1 … beside correct_answer
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from socratune.data.columns import decoded, is_blank
from socratune.errors import Fault, Shown

OPTIONS = (
    "choices", "options", "answer_choices", "answer_options", "multiple_choice", "mc_options", "possible_answers",
    "choice_list", "option_list", "choice", "option", "candidates", "alternatives", "endings", "answers",
)  # fmt: skip
"""Columns with all options of a question, by plain name."""
PERHAPS = ("choice", "option", "candidates", "alternatives", "endings", "answers")
"""Columns that may mean something else: they count only as a list into which the answer points."""
NAMED = re.compile(r"(?:^|_)(?:opts?|options?|choices?)(?:_|$)")
"""Names of other columns that hold options if they hold a list."""
DISTRACTORS = ("distractors", "incorrect_answers", "wrong_answers")
CHOSEN = (
    "label", "correct", "correct_option", "correct_choice", "correct_index", "correct_idx", "correct_label",
    "correct_letter", "correct_answer_id", "answer_index", "answer_idx", "answer_id", "answer_letter", "answer_label",
    "answer_num", "cop", "gold", "gold_index",
)  # fmt: skip
"""Columns that name the right option. They count only beside options."""
_COLUMN = re.compile(
    r"(?:(options?|opt?|choices?|answer|ans|alternative|alt|candidate|ending|sol)_?)?"
    r"([a-ru-z]|(?<![a-z])[st]|\d{1,2})"  # `options` is no option S, `opt` no option T
)
ANY_COLUMN = re.compile(r"(.+?)_?([a-j]|\d{1,2})")
_DISTRACTOR = re.compile(r"(?:distractor|incorrect_answer|wrong_answer)_?\d")
_LETTERS = [chr(ord("A") + at) for at in range(26)]
_NUMBERS = [str(at) for at in range(len(_LETTERS) + 1)]
_LABEL = re.compile(
    r"\W*(?:(?:the )?(?:correct )?(?:option|answer|choice|opt|op|ending|sol)(?: is)?[\s_:]*)?\W*([A-Za-z]|\d{1,2})\W*",
    re.I,
)
_LONGEST_LABEL = 40
LETTERED = re.compile(r"\(?([A-Za-z])\s?[).:\]]\s*(\S.*)", re.DOTALL)
_NUMBERED = re.compile(r"\(?(\d{1,2})[).:\]]\s+(\S.*)", re.DOTALL)
_MARK = re.compile(r"(?:(?<=[\s,;|\]'\"])|^)\[?\(?([A-Za-z])\s?[).:]\s*")
WRITE = 'Write them as "choices": ["…", "…"], and the answer as a letter (A, B, …) or as the text of one.'

LabelKind = Literal["list", "labelled", "columns"]
"""Options without labels, with labels of their own, or in columns whose names end with them."""


class Options(NamedTuple):
    """Holds the options of a question.

    Attributes:
        labels: how the answer may call them, one each; letters from A where they have none.
        texts: the options.
        kind: where the labels come from.
        columns: the plain names of the columns that held them.
        raw: the options as they were written, numbers as numbers.
    """

    labels: list[str]
    texts: list[str]
    kind: LabelKind
    columns: frozenset[str] = frozenset()
    raw: tuple[Any, ...] = ()

    def names(self, answered: Any) -> str | None:
        """Returns the label if the answer is nothing else (`B`, `(b)`, `Option B`), otherwise None."""
        label = label_of(answered)
        return label if label in self.labels else None


def letter(number: int) -> str:
    """Returns the letter of an option, counted from 0."""
    return _LETTERS[number]


# --- which options there are ---------------------------------------------------------------------------------------


def is_for_options(name: str) -> bool:
    """Returns True if a column can only be meant for options, whatever it holds."""
    return bool(
        (name in OPTIONS and name not in PERHAPS)
        or re.fullmatch(r"(?:option|choice|op|opt)_?(?:[a-ru-z]|\d{1,2})", name)
    )


def has_options(names: Iterable[str]) -> bool:
    """Returns True if columns, by plain name, may hold options."""
    names = set(names)
    return bool(names & {*OPTIONS, *DISTRACTORS}) or any(suffixed(names)) or any(map(_DISTRACTOR.fullmatch, names))


def find_options(
    columns: dict[str, Any], answered: Any, where: str, faults: list[Fault], *, points: bool
) -> Options | None:
    """Returns the options of a row, or None without options. Unreadable options are a fault.

    Args:
        columns: the row's values by plain name, without question and answer.
        answered: the answer, which tells options from other columns in a few cases.
        where: file and line.
        faults: gets what is wrong.
        points: the answer stands in a column for the right option.
    """
    for name in [*OPTIONS, *(name for name in columns if NAMED.search(name) and name not in OPTIONS)]:
        value = columns.get(name)
        if is_blank(value) or is_blank(decoded(value)):
            continue
        if name in PERHAPS and not points and not _is_behind(name, value, answered):
            continue
        if name not in OPTIONS and not (isinstance(decoded(value), dict | list) and len(decoded(value)) > 1):
            continue  # a number of options, the text of one
        options = read_options(decoded(value))
        if options is None:
            faults.append(Fault(f"{where}, {name}", "two or more options in a known form", value, WRITE))
            return None
        return options._replace(columns=frozenset({name}))
    return _in_columns(columns, answered, where, faults) or _distractors(columns, answered, where, faults)


def _is_behind(name: str, value: Any, answered: Any) -> bool:
    """Returns True if an ambiguous column holds options: a list with a member that the answer names."""
    value = decoded(value)
    if not isinstance(value, dict | list) or len(value) < 2 or isinstance(answered, bool | list | dict):
        return False
    among = isinstance(value, list) and answered in value
    return (
        among
        if among and name != "answers"
        else not among and bool(whole_number(answered) is not None or label_of(answered))
    )


def label_of(value: Any) -> str:
    """Returns the letter or number of the option that a text names (`B`, `(b)`, `Option B`, `option_b`), or ""."""
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    text = str(value).strip() if isinstance(value, str | int) else ""
    match = _LABEL.fullmatch(text) if len(text) <= _LONGEST_LABEL and text[:1] != "-" else None
    return match[1].upper() if match else ""


def read_options(value: Any) -> Options | None:
    """Returns the options in one value, or None if its form is unknown."""
    if isinstance(value, str):
        return _in_text(value)
    pairs: list[tuple[Any, Any]] | None = None
    kind: LabelKind = "labelled"
    if isinstance(value, dict):
        pairs = _from_object(value)
    elif isinstance(value, list):
        while value and value[-1] is None:
            value = value[:-1]
        if all(isinstance(item, dict) for item in value):
            pairs = _from_objects(value)
            if pairs and all(label is None for label, _ in pairs):
                kind = "list"
        elif all(isinstance(item, list) and len(item) == 2 for item in value):
            pairs = [(item[0], item[1]) for item in value]
        elif all(isinstance(item, str | int | float) for item in value):
            return _from_texts(value)
    return _options(pairs, kind)


def _options(pairs: list[tuple[Any, Any]] | None, kind: LabelKind) -> Options | None:
    if pairs is None or not 2 <= len(pairs) <= len(_LETTERS):
        return None
    if any(is_blank(text) or not isinstance(text, str | int | float) for _, text in pairs):
        return None
    if kind == "list":
        pairs = [(letter(at), text) for at, (_, text) in enumerate(pairs)]
    by_label = {label_of(label): text for label, text in pairs}
    if "" in by_label or len(by_label) < len(pairs):
        return None
    labels = sorted(by_label, key=lambda label: (len(label), label))
    raw = tuple(by_label[label] for label in labels)
    return Options(labels, [str(text).strip() for text in raw], kind, raw=raw)


def _from_object(value: dict[Any, Any]) -> list[tuple[Any, Any]] | None:
    """Returns the pairs of ARC's two lists, of letter → text, or of text → letter."""
    lists = {str(name).lower(): column for name, column in value.items() if isinstance(column, list)}
    texts = next((lists[name] for name in ("text", "texts", "choices", "options", "value") if name in lists), None)
    if texts is not None:
        labels = next((lists[name] for name in ("label", "labels", "key", "letter", "id") if name in lists), None)
        readable = None if labels is None else _options(list(zip(labels, texts, strict=False)), "labelled")
        return list(zip(labels, texts, strict=True)) if readable and labels and len(labels) == len(texts) else None
    pairs = [(label, text) for label, text in value.items() if text is not None]
    values = [str(text).strip().upper() for _, text in pairs]
    if sorted(values) == _LETTERS[: len(values)] and not all(label_of(label) for label, _ in pairs):
        return [(text, label) for label, text in pairs]
    return pairs


def _from_objects(items: list[dict[Any, Any]]) -> list[tuple[Any, Any]] | None:
    """Returns the pairs of `{"label": "A", "text": "apple"}` or `{"A": "apple"}`. A text alone gets the label None."""
    pairs: list[tuple[Any, Any]] = []
    for item in items:
        fields = {str(name).lower(): value for name, value in item.items() if value is not None}
        text = next(
            (name for name in ("text", "value", "content", "option", "choice", "answer") if name in fields), None
        )
        label = next(
            (name for name in ("label", "key", "letter", "id", "index", "option", "name") if name in fields), None
        )
        if text is None and len(fields) == 1:
            pairs.append(next(iter(fields.items())))
        elif text is None:
            return None
        else:
            pairs.append((None if label in (None, text) else fields[label], fields[text]))
    return pairs if len({label is None for label, _ in pairs}) == 1 else None


def _from_texts(items: list[Any]) -> Options | None:
    """Returns options from texts. Their own letters or numbers (`A) apple`, `1. apple`) are their labels."""
    for pattern in (LETTERED, _NUMBERED):
        own = [pattern.fullmatch(item.strip()) if isinstance(item, str) else None for item in items]
        pairs = [(match[1].upper(), match[2]) for match in own if match]
        options = _options(pairs, "labelled") if len(pairs) == len(items) else None
        runs = [_LETTERS[: len(pairs)], *([str(at + first) for at in range(len(pairs))] for first in (0, 1))]
        if options and options.labels in runs:
            return options
    return _options([(None, item) for item in items], "list")


def _in_text(text: str) -> Options | None:
    """Returns the options in a text, each behind its letter or on its own line."""
    marks = list(_MARK.finditer(text))
    run: list[re.Match[str]] = []
    for mark in marks:
        if mark[1].upper() == letter(min(len(run), 25)):
            run.append(mark)
    if len(run) > 1 and not text[: run[0].start()].strip(" [{(\"'"):
        ends = [*(mark.start() for mark in run[1:]), len(text)]
        pieces = [text[mark.end() : end].strip(" ,;|\n\t'\"[]") for mark, end in zip(run, ends, strict=True)]
        return _options([(mark[1], piece) for mark, piece in zip(run, pieces, strict=True)], "labelled")
    for split in ("\n", "|"):
        lines = [line.strip(" -*•\t\r") for line in text.split(split)]
        if len(lines) > 1 and text.strip()[:1] not in "[{":
            return _from_texts([line for line in lines if line])
    return None


# --- options in columns --------------------------------------------------------------------------------------------


def suffixed(names: Iterable[str], pattern: re.Pattern[str] = _COLUMN) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yields columns that differ only in their last letter or number: the common part, (label, column) of each."""
    groups: dict[str, dict[str, str]] = {}
    for name in names:
        if match := pattern.fullmatch(name):
            groups.setdefault(match[1] or "", {})[match[2].upper()] = name
    for alike, group in groups.items():
        for run in (_LETTERS, _NUMBERS):
            labels = [label for label in run if label in group]
            if pattern is not _COLUMN or not alike:  # nothing in the name speaks for options: from A or 0 or 1 on
                start = run.index(labels[0]) if labels else 0
                ends = (at for at, label in enumerate(labels) if label != run[start + at])
                labels = labels[: next(ends, None)] if start == 0 or labels[0] == "1" else []
            if len(labels) > 1 and (alike or run is _LETTERS):
                yield alike, [(label, group[label]) for label in labels]
                break


def _in_columns(columns: dict[str, Any], answered: Any, where: str, faults: list[Fault]) -> Options | None:
    names = [name for name, value in columns.items() if not is_blank(value)]
    for alike, group in suffixed(names):
        texts = [columns[name] for _, name in group]
        named = label_of(answered).isalpha() and label_of(answered) in dict(group)
        if (
            not alike
            and not named
            and all(_is_number(text) for text in texts)
            and len(texts) < (3 + (answered not in texts))
        ):
            continue  # the numbers a, b, c of a problem
        options = _options([(label, columns[name]) for label, name in group], "columns")
        if options is None:
            got = Shown(", ".join(name for _, name in group))
            faults.append(Fault(where, "options that are texts", got, WRITE))
            return None
        return options._replace(columns=frozenset(name for _, name in group))
    return None


def _distractors(columns: dict[str, Any], answered: Any, where: str, faults: list[Fault]) -> Options | None:
    """Returns the right answer among the wrong ones in alphabetical order, so that its place reveals nothing."""
    names = [name for name, value in columns.items() if not is_blank(value)]
    taken = [name for name in names if name in DISTRACTORS or _DISTRACTOR.fullmatch(name)]
    wrong: list[Any] = []
    for name in taken:
        value = decoded(columns[name])
        wrong += value if isinstance(value, list) else [value]
    if not wrong:
        return None
    texts = sorted({str(text).strip() for text in [answered, *wrong]}, key=lambda text: (text.casefold(), text))
    if not all(isinstance(text, str | int | float) for text in [answered, *wrong]) or len(texts) <= len(wrong):
        faults.append(Fault(where, "wrong answers that are texts", Shown(", ".join(taken)), WRITE))
        return None
    options = _options([(None, text) for text in texts], "list")
    return options and options._replace(columns=frozenset(taken))


def _is_number(value: Any) -> bool:
    try:
        return len(str(value)) < 40 and float(str(value)) is not None
    except ValueError:
        return False


def whole_number(answered: Any) -> int | None:
    """Returns an answer as a whole number, or None."""
    try:
        number = float(str(answered)) if len(str(answered)) < 20 else 0.5
        return int(number) if number == int(number) else None
    except (ValueError, OverflowError):
        return None

"""What counts as the same answer: numbers, choices, short texts. Judge and leak check share it."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

NUMBER = re.compile(
    r"""(?<![\w.,])[-+−]?(?:
        \d{1,3}(?:[,\u202f\u00a0' ]\d{3})+(?:\.\d+)?   # 1,234.5 and 1 234
      | \d+/\d+                                      # 3/4
      | \d+(?:\.\d+)?                                # 195 and 0.5
      | \.\d+                                        # .5
    )(?![\w]|[.,]\d)""",
    re.VERBOSE,
)
_LOOSE_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_CHOICE = re.compile(r"^\W*(?:option|answer|choice)?\s*[:(\[]*\s*([A-H])\s*(?:[)\].:]|$)", re.IGNORECASE)
_OPTION_LINE = re.compile(r"(?m)^\s*\(?([A-H])[).:]\s+\S")
_FINAL = re.compile(r"(?:final answer|the answer|answer|result)\s*(?:is|:|=)\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_HASHES = re.compile(r"####\s*(.+)$", re.MULTILINE)


def normalise(text: str) -> str:
    """Lower case, no accents of form, no surrounding punctuation, articles or markup; single spaces."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"[*_`$\"“”]", "", text)
    text = re.sub(r"\s+", " ", text).strip(" .,;:!?()[]")
    return re.sub(r"^(?:the|a|an)\s+", "", text)


def parse_number(text: str) -> Fraction | None:
    """The value of a text that is one number (`1,234`, `3/4`, `-0.5`, `−7`), else None."""
    text = text.strip().replace("−", "-")
    text = re.sub(r"(?<=\d)[,\u202f\u00a0' ](?=\d{3})", "", text)
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def numbers_in(text: str) -> list[Fraction]:
    """The numbers a text states, in order; digits inside words or codes (`B12`) are none."""
    found = (parse_number(match.group().strip()) for match in NUMBER.finditer(text))
    return [number for number in found if number is not None]


def loose_numbers_in(text: str) -> set[Fraction]:
    """Every run of digits in a text, also inside words: what a leak check must see."""
    plain = re.sub(r"(?<=\d)[,\u202f\u00a0' ](?=\d{3})", "", text)
    return {Fraction(match) for match in _LOOSE_NUMBER.findall(plain)} | set(numbers_in(text))


def final_answer(text: str) -> str:
    r"""The part of an answer that states the result: `\boxed{…}`, `#### …`, `The answer is …`, else the last line."""
    text = strip_thinking(text)
    for pattern in (_BOXED, _HASHES, _FINAL):
        if found := pattern.findall(text):
            return found[-1].strip()
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def final_number(text: str) -> Fraction | None:
    """The number that a text gives as its result: the last one of its final statement, behind the last `=`."""
    statement = final_answer(text)
    if "=" in statement:
        statement = statement.rsplit("=", 1)[1]
    found = numbers_in(statement)
    return found[-1] if found else None


def is_numeric_answer(text: str) -> bool:
    """True where a reference *is* a number or a statement that ends in one (`15 * 13 = 195.`, `195 pens`).

    A sentence that only happens to hold a number (`It was signed in 1648 in Münster by ten envoys.`) is not.
    """
    statement = final_answer(text)
    if "=" in statement:
        statement = statement.rsplit("=", 1)[1]
    found = list(NUMBER.finditer(statement))
    if len(found) != 1:
        return False
    around = statement[: found[0].start()] + statement[found[0].end() :]
    return len(re.findall(r"\w+", around)) <= 2


def choice_of(text: str) -> str | None:
    """The letter of a multiple-choice answer (`B`, `(B) Paris`, `The answer is B.`), upper case, or None."""
    found = _CHOICE.match(final_answer(text))
    return found.group(1).upper() if found else None


def options_in(question: str) -> set[str]:
    """The letters of the options a question lists, each on a line of its own."""
    return {letter.upper() for letter in _OPTION_LINE.findall(question)}


def strip_thinking(text: str) -> str:
    """The text behind the last closed think block; what stands in it is no answer."""
    return text.rsplit("</think>", 1)[-1]

"""Asks teachers for hints and checks whether a hint gives the answer away.

`leak` compares words and numbers, before a hint is used. What it cannot see (a paraphrase, the decisive step) the
student's own probabilities tell afterwards: `leaks.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from socratune.judging import (
    Quantity,
    choice_of,
    final_answer,
    final_number,
    joined_quantities_in,
    loose_numbers_in,
    normalise,
    options_in,
    plain_text,
    quantities_in,
    with_digits,
)
from socratune.rows import Attempt, QARow
from socratune.teaching.echoes import shared_run


@dataclass(frozen=True, slots=True)
class HintRequest:
    """Holds what the teacher sees: the row with its reference, and the failed attempts with their hints.

    `seed` differs where the same request is made again, so that another hint can come.
    """

    row: QARow
    attempts: tuple[Attempt, ...]
    seed: int = 0


Teacher = Callable[[HintRequest], Coroutine[Any, Any, str | None]]
"""`await teacher(request)` returns a hint, or None if the teacher has nothing to say."""


async def arithmetic_teacher(request: HintRequest) -> str | None:
    """Teaches as `rules/arithmetic`: takes a product apart, and more concretely from the second hint on."""
    factors = parse_product(request.row.question)
    if factors is None or final_number(request.row.reference) != factors[0] * factors[1]:
        return None
    hints_given = sum(attempt.hint is not None for attempt in request.attempts)
    return breakdown_hint(*factors, level=min(hints_given + 1, 2))


async def solution_teacher(request: HintRequest) -> str | None:
    """Teaches as `rules/solution`: quotes the first half of the worked solution (`metadata.thinking`) by sentences.

    The second hint goes one sentence further. What states the result is left out, and so is the last sentence.
    """
    lines = [line.strip() for line in str(request.row.metadata.get("thinking") or "").splitlines() if line.strip()]
    steps = lines if len(lines) > 1 else re.split(r"(?<=[.!?])\s+(?=[A-Z])", "".join(lines))
    hints_given = sum(attempt.hint is not None for attempt in request.attempts)
    kept = [
        step for step in steps[: min(len(steps) // 2 + hints_given, len(steps) - 1)] if leak(step, request.row) is None
    ]
    return f"Start like this: {' '.join(kept)}" if kept else None


def leak(hint: str, row: QARow) -> str | None:
    """Returns how the hint gives away the answer or a part of it, or None.

    Numbers are compared by value, also in words (English), as percent, as fractions and in other units; a choice by its
    letter and by its text; yes and no by flat statements. What the question itself says is no secret, unless the hint
    calls it the answer.
    """
    answer = _without_article(final_answer(row.reference))
    options = options_in(row.question)
    if options and (letter := _right_option(answer, options)):
        return _names_option(hint, letter, options, row.question)
    stated, asked = with_digits(plain_text(hint)), with_digits(plain_text(row.question))
    if (polarity := _polarity(answer)) is not None and _says_polarity(hint, polarity, row.question):
        return "says yes or no"
    if polarity is None and _calls_it_the_answer(stated, answer):
        return "states the answer"
    if _says_number(stated, with_digits(plain_text(answer)), asked):
        return "states the resulting number"
    return None if polarity is not None else _says_words(hint, answer, row.question)


_ANSWER_IS = (
    r"(?i:(?:answer|result|solution|antwort|ergebnis|lösung|réponse|résultat|respuesta|resultado|risposta|risultato"
    r"|resposta|antwoord|odpowiedź|wynik|ответ|cevap|yanıt)\b"
    r"\W*(?:(?:is|was|would be|should be|ist|lautet|est|es|è|é|to|это)\b|:|=)"
    r"|(?:答案|结果|答え)(?:是|为|は)?|you (?:should |will |must )?(?:get|find|obtain)\b(?: that)?)\W*"
)
_CALLED_ANSWER = re.compile(rf"{_ANSWER_IS}(?:(?i:the|an?) )?")


def _calls_it_the_answer(hint: str, answer: str) -> bool:
    """Returns True for `The answer is X`, even if the question names X as well."""
    short, hint = normalise(with_digits(plain_text(answer)).rsplit("=", 1)[-1]), hint.casefold()
    for called in _CALLED_ANSWER.finditer(hint) if short else ():
        behind = hint[called.end() + len(short) :][:2]
        if hint.startswith(short, called.end()) and not re.match(r"\w|[.,]\d", behind):
            return True
    return False


# --- numbers -------------------------------------------------------------------------------------------------------

COUNTING = 12
"""Whole numbers up to this one stand in many hints by chance (`two operations`, `Step 3`). They count only if the hint
calls them the result, or if they count what the question asks for.
"""
_CLOCK = re.compile(r"\b\d{1,2}:\d\d\b")
_ASSIGNED = re.compile(r"\b[^\W\d]\s*=\s*([^=,;]+?)(?=\s*(?:[,;]|\bor\b|\band\b|$))")  # x = 2 or x = 3


def _says_number(hint: str, answer: str, question: str) -> bool:
    """Returns True if the hint states a number of the answer that the question lacks."""
    answer = _CLOCK.sub("", result_in(answer))
    wanted = joined_quantities_in(answer)
    if not wanted or not (stated := _values_in(hint)):
        return False
    known = _values_in(question)
    secret = [quantity for quantity in wanted if ("", quantity.value) not in known]
    large = [quantity for quantity in secret if not _is_counting(quantity.value)]
    for quantity in large:
        if stated & _forms([quantity]) - known - _ones_in(question) or _rounds_to(quantity, stated - known):
            return True
    if len(wanted) > 1:
        return bool(secret) and all(("", quantity.value) in stated for quantity in wanted)
    return bool(secret) and secret[0] not in large and _says_small(hint, secret[0], f"{answer} {question}")


def _values_in(text: str) -> set[tuple[str, Fraction]]:
    loose = {("", value) for value in loose_numbers_in(text)}
    return loose | _forms(quantities_in(text)) if loose else loose


def _ones_in(question: str) -> set[tuple[str, Fraction]]:
    """Returns the sizes of `a day` and `an hour`: in `How many minutes are in a day?` they are no secret."""
    return {form for form in _forms(quantities_in(re.sub(r"\ban? ", "1 ", question))) if form[0]}


def result_in(answer: str) -> str:
    """Returns the part of an answer behind its last `=`; both values of `x = 2 or x = 3`."""
    assigned = _ASSIGNED.findall(answer)
    return ", ".join(assigned) if len(assigned) > 1 else answer.rsplit("=", 1)[-1]


def _is_counting(value: Fraction) -> bool:
    return value.denominator == 1 and 0 <= value <= COUNTING


def _forms(quantities: Sequence[Quantity]) -> set[tuple[str, Fraction]]:
    """Returns the values of quantities in each form: as written, in the other reading, in the base unit."""
    forms = set()
    for quantity in quantities:
        dimension, size = quantity.size
        readings = {quantity.value, quantity.value if quantity.other is None else quantity.other}
        forms |= {("", value) for value in readings} | {("" if dimension == "parts" else dimension, size)}
    return forms


def _rounds_to(answer: Quantity, stated: set[tuple[str, Fraction]]) -> bool:
    """Returns True if a number of the hint, rounded to the answer's decimals, is the answer."""
    half = Fraction(1, 2 * 10**answer.decimals)
    return answer.decimals > 0 and any(not unit and abs(value - answer.value) <= half for unit, value in stated)


_COUNT = re.compile(r"(?<!\d)(?<!\d[.,])(\d{1,2})(?![.,:]?\d)(?! of\b)(?:[ -]([^\W\d_]+))?")
_STATES = re.compile(
    r"(?:\b(?:is|be|equals?|makes?|gives?|gets?|has|have|only)(?: exactly| just| about)? |[=是为は]|等于)\s*$",
    re.IGNORECASE,
)


def _says_small(hint: str, answer: Quantity, asked: str) -> bool:
    for match in _COUNT.finditer(hint):
        if int(match[1]) == answer.value:
            counts = match[2] is not None and match[2].casefold() in map(str.casefold, _long_words(asked))
            if counts or _STATES.search(hint[max(0, match.start() - 20) : match.start()]):
                return True
    return False


# --- multiple choice -----------------------------------------------------------------------------------------------


def _right_option(answer: str, options: dict[str, str]) -> str | None:
    letter = choice_of(answer)
    if letter in options:
        return letter
    return next((name for name, text in options.items() if normalise(text) == normalise(answer)), None)


_NAMES = (
    rf"(?:{_ANSWER_IS}|(?i:\b(?:option|choice|choose|pick|select|take|go with|it is|that is|it['’]s|that['’]s)\b\W*))"
)
_EXCLUDES = re.compile(r"\b(?:not|neither|nor|rule|exclude|eliminate|wrong|incorrect|false)\b|n['’]t\b", re.IGNORECASE)


def _names_option(hint: str, letter: str, options: dict[str, str], question: str) -> str | None:
    stated, _ = _letter_patterns(letter)
    if any(stated.search(sentence) and not _EXCLUDES.search(sentence) for sentence in _sentences(hint)):
        return "names the right option"
    letters = {name for name in options if _letter_patterns(name)[1].search(hint)}
    if letters == set(options) - {letter} and _EXCLUDES.search(hint):
        return "rules out every other option"
    stem = question.split(next(iter(options.values())), 1)[0]
    named = {name for name, text in options.items() if _says_option(hint, text, stem)}
    return "names the right option" if named == {letter} else None


@lru_cache(8)
def _letter_patterns(letter: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Returns patterns for an option's letter: stated as the answer, and anywhere (`B`, `(B)`, `b)`; not `A verb`)."""
    named = rf"(?:[(\[]?{letter}(?![\w'’])(?! (?!is\b|are\b|and\b|or\b|nor\b)[a-z])|\(?{letter.lower()}\))"
    return re.compile(rf"{_NAMES}{named}|\b{named}\W*is (?:right|correct)"), re.compile(rf"\b{named}")


def _says_option(hint: str, option: str, stem: str) -> bool:
    if loose_numbers_in(option):
        return _says_number(with_digits(plain_text(hint)), plain_text(option), stem)
    return all(_has(word, _words(hint)) for word in _long_words(option) or _words(option))


# --- yes or no -----------------------------------------------------------------------------------------------------

_YES = "yes|true|correct|ja|oui|sí|sì|sim|tak|да|evet|是|はい|对"
_NO = "no|false|incorrect|untrue|nein|non|não|nee|nie|нет|hayır|不是|否|いいえ"
_POLAR = re.compile(rf"\W*(?:(?P<yes>{_YES})|(?P<no>{_NO}))(?=\s*[-.,;:!–—。，、'\"”]|\s*$)", re.IGNORECASE)
_FLAT = re.compile(
    r"\b(?:it|this|that|statement|claim) is (?P<negation>not )?(?:indeed |in fact |actually |really |clearly |simply )?"
    r"(?:(?P<yes>true|correct|so|the case)|(?P<no>false|wrong|incorrect|untrue))\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"\b(?:not|never|no|neither|cannot)\b|n['’]t\b", re.IGNORECASE)
_OPEN = re.compile(r"\b(?:if|whether|why|how|what|check|test|ask|suppose|assume|imagine|think|consider)\b", re.I)
_ASKS = re.compile(r"\W*(?:true or false|is|are|was|were|do|does|did|can|could|will|would|has|have|had|should)\b", re.I)


def _polarity(answer: str) -> bool | None:
    match = _POLAR.match(plain_text(answer))
    return None if match is None else match["yes"] is not None


def _says_polarity(hint: str, polarity: bool, question: str) -> bool:
    """Returns True if the hint says yes or no, literally or by stating what the question asks."""
    for sentence in _sentences(hint):
        if sentence.endswith(("?", "？")):
            continue
        start = re.search(_ANSWER_IS, sentence, re.IGNORECASE)
        if (stated := _polarity(sentence[start.end() if start else 0 :])) is not None and stated == polarity:
            return True
        if (flat := _FLAT.search(sentence)) and ((flat["yes"] is None) == (flat["negation"] is None)) != polarity:
            return True
        flatly = not _OPEN.search(sentence) and (_NEGATION.search(sentence) is None) == polarity
        if flatly and _restates(sentence, question):
            return True
    return False


def _restates(sentence: str, question: str) -> bool:
    """Returns True if the sentence has the question's longer words and numbers in their order."""
    asked = [word for word in _words(_ASKS.sub("", question, count=1), numbers=True) if _is_long(word, than=2)]
    words = iter(_words(sentence, numbers=True))
    return len(asked) > 1 and all(any(_same(word, other) for other in words) for word in asked)


# --- words ---------------------------------------------------------------------------------------------------------

FEW_WORDS = 4
"""An answer with at most this many words that are not in the question is a name, a term or a short list."""
_CARRIES_NOTHING = frozenset(
    """the that this there they them then these those with from into have been will would because which also
    about""".split()  # noqa: SIM905
)


def _says_words(hint: str, answer: str, question: str) -> str | None:
    """Returns how the hint says an answer in words: all the new words, a name or a list member, or a long run."""
    if re.search(r"[\u3040-\u30ff\u3400-\u9fff]", answer):
        return "states the answer" if normalise(answer) in normalise(hint) and answer not in question else None
    words, fresh = _words(hint), secret_words(answer, question)
    if not fresh or (len(fresh) == 1 and loose_numbers_in(_CLOCK.sub("", answer))):  # a unit
        return None
    if len(fresh) > FEW_WORDS:
        return "states a stretch of the answer" if shared_run(answer, hint, question) else None
    if all(_has(word, words) for word in fresh):
        return "states the answer"
    members = [_words(member) for member in re.split(r"\s*(?:[,;]|\band\b|\bor\b|\bund\b|\bet\b|\by\b)\s*", answer)]
    lists = [[word for word in member if word in fresh] for member in members] if len(members) > 1 else []
    names = [word for word in fresh if word in _names(answer) and word in words]
    if names or any(member and all(_has(word, words) for word in member) for member in lists):
        return "names a part of the answer"
    return None


def secret_words(answer: str, question: str) -> list[str]:
    """Returns the words that give an answer away: the long words that the question lacks."""
    words = _words(answer)
    return [word for word in (_long_words(answer) if len(words) > 1 else words) if not _has(word, _words(question))]


def _names(answer: str) -> set[str]:
    """Returns the capitalised words, except a first word that may be capitalised by position."""
    words = _words(answer)
    capital = [word[0].isupper() for word in words]
    return {word for at, word in enumerate(words) if capital[at] and (at > 0 or (len(words) > 1 and capital[1]))}


def _words(text: str, numbers: bool = False) -> list[str]:
    return re.findall(rf"\d{{1,2}}:\d\d|[^\W\d_]+(?:['’-][^\W\d_]+)*{'|[0-9]+' if numbers else ''}", text)


def _long_words(text: str) -> list[str]:
    return [word for word in _words(text) if _is_long(word)]


def _is_long(word: str, than: int = 3) -> bool:
    return word.casefold() not in _CARRIES_NOTHING and (len(word) > than or word[0].isupper() or word[0].isdigit())


def _has(word: str, words: Sequence[str]) -> bool:
    return any(_same(word, other) for other in words)


def _same(left: str, right: str) -> bool:
    """Returns True for the same word or two forms of it (`expand`, `expands`)."""
    shorter, longer = sorted((left.casefold(), right.casefold()), key=len)
    return shorter == longer or (len(shorter) > 3 and longer.startswith(shorter) and len(longer) - len(shorter) < 3)


def _sentences(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"(?<=[.!?。！？])\s*(?=\D|$)|\n", text) if part.strip()]


def _without_article(text: str) -> str:
    return re.sub(r"^(?:the|an?)\s+(?=\S)", "", text.strip(), flags=re.IGNORECASE)


# The mechanical teacher's knowledge: how to take a product apart without giving it away.

_INTEGER = re.compile(r"\d+")


def parse_product(question: str) -> tuple[int, int] | None:
    """Returns the two factors of a multiplication question in their order, or None."""
    numbers = [int(text) for text in _INTEGER.findall(question)]
    if len(numbers) != 2 or min(numbers) < 2:
        return None
    return numbers[0], numbers[1]


def split_tens(number: int) -> tuple[int, int]:
    """Splits off the leading digit: `83 -> (80, 3)`. The rest of a round number is 0."""
    place = 10 ** (len(str(number)) - 1)
    return number // place * place, number % place


def breakdown_hint(a: int, b: int, level: int = 1) -> str | None:
    """Returns the guide's hint for `a * b`, which holds no partial or final result. Level 2 is more concrete.

    Returns None where there is nothing to take apart (both factors have a single non-zero digit).
    """
    tens, ones = split_tens(b)
    if ones == 0:
        a, b = b, a
        tens, ones = split_tens(b)
    if ones == 0:
        return None
    if level == 1:
        return f"Try breaking it down: {a} * {b} = {a} * ({tens} + {ones})."
    return f"First do {a} * {tens} and {a} * {ones}, then add the two."

"""Is the answer right? By rules where rules can tell, else undecided: undecided is never taken for wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from socratune.answers import (
    SENTENCE_END,
    Statement,
    canonical,
    first_sentence,
    numbers_in,
    options_in,
    plain,
    statement_of,
    still_thinking,
    strip_thinking,
    taken_back,
)
from socratune.mathcheck import MathChecker, as_latex
from socratune.quantities import ASKS_FORM, Quantity, compare, joined, measure, quantities_in
from socratune.rows import Judgement, QARow

Judge = Callable[[QARow, str], Coroutine[Any, Any, Judgement]]
"""`await judge(row, response)`."""

_math = MathChecker()


async def mechanical_judge(row: QARow, response: str) -> Judgement:
    """The judge `rules/mechanical`: exact text, number, choice, formula; undecided for everything else."""
    judgement = judge_by_rules(row.question, row.reference, response)
    if judgement.verdict == "undecided" and (pair := _formulas(row.question, row.reference, response)):
        same = await _math.check_async(*pair)
        if same and not ASKS_FORM.search(row.question):  # "Factor x^2 - 1" wants a form, not a value
            return Judgement("correct", "math")
        if same is False and "log" not in pair[0] + pair[1]:  # whose base is read as 10 or as e
            return Judgement("incorrect", "math", "the formulas differ by value")
    return judgement


def judge_by_rules(question: str, reference: str, response: str) -> Judgement:
    """What rules can say of `response`, in the order exact (lists among them), numeric, choice, yes or no."""
    if still_thinking(response):
        return Judgement("undecided", "exact", "the think block was never closed: there is no answer yet")
    response, reference = strip_thinking(response).strip(), strip_thinking(reference).strip()
    if not response:
        return Judgement("incorrect", "exact", "empty answer")
    right, said = statement_of(reference), statement_of(response)
    if _same_text(reference, right, response, said):
        return Judgement("correct", "exact")
    for rule in (_by_list, _by_number, _by_choice, _by_polarity):
        if judgement := rule(question, right, said):
            return judgement
    return Judgement("undecided", "exact", "texts differ, and rules cannot tell whether they mean the same")


_NEGATION = re.compile(
    r"\b(?:not|never|neither|nor|cannot|wrong|incorrect|false|untrue|unlike|except|rather than|instead of)\b|n['’]t\b",
    re.I,
)


# --- exact ---------------------------------------------------------------------------------------------------------


def _same_text(reference: str, right: Statement, response: str, said: Statement) -> bool:
    """True where the answer, or its final statement, is the reference word for word."""
    # of a reference in several lines the last one alone is not the answer, unless it is marked as that
    texts = [reference, right.text] if right.marked else [reference]
    fold = not any(_case_matters(text) for text in texts)
    wanted = {canonical(text, fold) for text in texts} - {""}
    if canonical(response, fold) in wanted:
        return True
    return not said.doubtful and canonical(said.text, fold) in wanted


def _case_matters(text: str) -> bool:
    """True for symbols (`Co`, `Aa`, `5 mW`, `CO2`), where another case is another thing."""
    bare = text.strip(" .,;:!?()*$")
    return len(bare) <= 2 or (
        len(bare) <= 12 and re.search(r"[^\W\d]\d|\d\s?[^\W\d]{1,2}(?![^\W\d])", bare) is not None
    )


# --- lists and sets ------------------------------------------------------------------------------------------------

_ORDERED = re.compile(
    r"\b(?:order|sort|sequence|next|ascend|descend|arrange|coordinate|point|pair|respectively|rank)", re.I
)


_SEVERAL = re.compile(r"[,;{±]|\s(?:and|or|&)\s")


def _by_list(question: str, right: Statement, said: Statement) -> Judgement | None:
    """Lists and sets: the same members; in the same order where brackets or the question make order matter."""
    wanted = _members(right.text)
    if wanted is None:
        return None
    given = _members(said.text)
    if given is None or said.doubtful:
        return None
    (kind, members), (other_kind, others) = wanted, given
    brackets = {kind, other_kind} - {""}
    if len(brackets) > 1:  # a set against a tuple, an open interval against a closed one
        return None
    if members == others:
        return Judgement("correct", "exact")
    ordered = True if brackets and "{" not in brackets else not brackets and _ORDERED.search(question) is not None
    if sorted(members) == sorted(others) or ("{" in brackets and set(members) == set(others)):
        return None if ordered else Judgement("correct", "exact", "in another order")
    numbers = all(re.fullmatch(r"(?:\w=)?-?[\d/]+", member) for member in members + others)
    if not numbers or ("[" in brackets or "(" in brackets):
        return None
    return Judgement("incorrect", "numeric", "other members")


def _members(text: str) -> tuple[str, list[str]] | None:
    """The brackets and the members of a list of short items, or None."""
    text = plain(text).rstrip(" .")
    if not _SEVERAL.search(text) or len(text) > 300 or "\n" in text:
        return None
    bracket = ""
    if len(text) > 2 and text[0] + text[-1] in ("{}", "()", "[]"):
        bracket, text = text[0], text[1:-1]
    elif text[:1] in "([{" or text[-1:] in ")]}":
        return None
    if bracket or (re.fullmatch(r"-?\d+(?:,-?\d+){2,}", text) and not re.fullmatch(r"\d{1,3}(?:,\d{3})+", text)):
        items = re.split(r"\s*[,;]\s*", text)
    else:
        items = re.split(r"\s*(?:,\s+(?:and|or)\s|\s(?:and|or|&)\s|;|,\s)\s*", text)
    text = re.sub(r"±\s+", "±", text)
    if "±" in text and len(items) == 1:
        items = [text.replace("±", "", 1), text.replace("±", "-", 1)]
    if len(items) < 2:
        return None
    names = {found.group(1) for item in items if (found := re.match(r"([^\W\d])\s*=", item.strip()))}
    members = []
    for item in items:
        short = item.strip()
        if len(names) == 1:
            short = re.sub(r"^[^\W\d]\s*=\s*", "", short)
        short = re.sub(r"\s*=\s*", "=", short)
        if not short or len(short.split()) > 3:
            return None
        found = quantities_in(short)
        alone = len(found) == 1 and found[0].kind == "plain" and found[0].end - found[0].start == len(short)
        members.append(str(found[0].value) if alone and not found[0].unit else canonical(short))
    return bracket, members


# --- numbers -------------------------------------------------------------------------------------------------------

_FILLERS = frozenset(
    [
        "the",
        "answer",
        "result",
        "is",
        "it",
        "it's",
        "are",
        "was",
        "a",
        "an",
        "total",
        "of",
        "about",
        "approximately",
        "roughly",
        "around",
        "so",
        "there",
        "therefore",
        "thus",
        "hence",
        "approx",
        "ca",
        "exactly",
        "equals",
        "sum",
    ]
)
_ASIDE = re.compile(r"\s*(?:\b(?:because|since|as|which|where|given|after|when|if)\b|\()")
_NUMBER_WORDS = re.compile(
    r"\b(?:[a-z]*(?:teen|ty)(?:-\w+)?|hundred|thousand|million|dozen|half|third|quarter)\b", re.I
)
_ASSIGNED = re.compile(r"(?<![^\W\d])([^\W\d])\s*=")
_DIGIT, _WORD = re.compile(r"\d"), re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Claim:
    """The number an answer gives as its result. `sure` is one that is marked, stands alone or behind a `=`."""

    quantity: Quantity
    sure: bool
    negated: bool = False


def _by_number(question: str, right: Statement, said: Statement) -> Judgement | None:
    """A reference that is one number, with or without a unit, against the number the answer states."""
    wanted = _reference_quantity(right)
    if wanted is None:
        return None
    claim = None if said.doubtful else _claim(said, question)
    if claim is None:
        return None
    same, reason = compare(wanted, claim.quantity, question)
    if same is None or (same and claim.negated):
        return Judgement("undecided", "numeric", reason or "denied")
    if same:
        return Judgement("correct", "numeric")
    if not claim.sure:
        # a last line that names some number is no statement of the result if the right one stands elsewhere
        elsewhere = {quantity.value for quantity in quantities_in(plain(said.whole))}
        if wanted.value in elsewhere or wanted.other in elsewhere or _NUMBER_WORDS.search(said.whole):
            return Judgement("undecided", "numeric", "no clear final number")
    return Judgement("incorrect", "numeric", reason)


def _reference_quantity(right: Statement) -> Quantity | None:
    """The number that a reference is, or None for prose, expressions, bounds and several numbers."""
    text = plain(right.text)
    if _several_assigned(text):
        return None
    text = text.rsplit("=", 1)[-1].strip()
    found = joined(quantities_in(text), text)
    if len(found) != 1 or found[0].kind not in ("plain", "about") or text.endswith(("!", "?")):
        return None
    before, after = text[: found[0].start], text[found[0].end :]
    if not {word.lower() for word in re.findall(r"[\w']+", before)} <= _FILLERS or len(re.findall(r"\w+", after)) > 3:
        return None
    return None if re.search(r"[\\√π∞^_]", text[: found[0].start] + after) else found[0]


def _claim(said: Statement, question: str) -> Claim | None:
    """The number that an answer states as its result, or None where there is none or more than one."""
    text, sure = (plain(said.text), True) if said.marked else (_last_with_number(said), False)
    text, negated = _without_denied(text)
    aside = next((cut.start() for cut in _ASIDE.finditer(text) if _DIGIT.search(text, 0, cut.start())), None)
    if aside is not None and (said.marked or "=" not in text[aside:]):
        text = text[:aside]
    chain = "=" in text
    if (negated and not chain) or text.endswith("?") or _several_assigned(text):
        return None
    if chain:
        text, sure = text.rsplit("=", 1)[1], True
    found = joined(quantities_in(text), text)
    whole = [quantity for quantity in found if quantity.kind in ("plain", "about")]
    if not whole or found[-1].kind == "part" or any(quantity.kind == "bound" for quantity in found):
        return None
    if len(whole) > 1 and len({quantity.size for quantity in whole}) > 1:
        if re.search(r"\b(?:or|either|and)\b", text):
            return None
        known, sure = set(numbers_in(question)), False
        whole = [quantity for quantity in whole if quantity.value not in known]
        if len({quantity.size for quantity in whole}) != 1:
            return None
    result = whole[-1]
    if _contradicted(result, said) or (text.startswith("!", result.end) and re.search(r"\d!|factorial", question)):
        return None
    around = text[: result.start] + " " + text[result.end :]
    return Claim(result, sure or len(_WORD.findall(around)) <= 2, negated)


def _several_assigned(text: str) -> bool:
    """True for `x = 3, y = 5` and `x = 3 or x = 5`."""
    if "=" not in text:
        return False
    return len(set(_ASSIGNED.findall(text))) > 1 or re.search(r"=[^=]*\d[^=]*\bor\b", text) is not None


def _contradicted(result: Quantity, said: Statement) -> bool:
    """True where a calculation goes on behind the statement: `The result is 45. … 150 + 45 = 195`."""
    if "=" not in said.tail:
        return False
    later = quantities_in(plain(said.tail).rsplit("=", 1)[1])
    return bool(later) and later[0].value != result.value


def _last_with_number(said: Statement) -> str:
    """The last sentence that holds a number, of an answer that marks no final statement."""
    lines = [line.strip() for line in said.whole.splitlines() if line.strip()]
    tail = ""
    for back, line in enumerate(reversed(lines[-4:])):
        if re.search(r"\d", line):
            parts = SENTENCE_END.split(plain(line))
            while len(parts) > 1 and not re.search(r"\d", parts[-1]):
                tail = parts.pop() + " " + tail
            # further up than the last line only a line that ends in a result counts
            usable = back == 0 or "=" in parts[-1]
            return parts[-1] if usable and not taken_back(tail) else ""
        tail = line + " " + tail
    return ""


def _without_denied(text: str) -> tuple[str, bool]:
    """The text without the clauses that deny a number (`195, not 180`), and whether a denial is left."""
    if not _NEGATION.search(text):
        return text, False
    clauses = re.split(r",\s+|;|\bbut\b|\(", text)
    kept = [clause for clause in clauses if not _NEGATION.search(clause)]
    denied = [clause for clause in clauses if _NEGATION.search(clause)]
    stated = [clause for clause in kept if re.search(r"\d", clause)]
    if len(stated) == 1 and all(re.search(r"\d", clause) for clause in denied):
        return stated[0], False
    return text, True


# --- multiple choice -----------------------------------------------------------------------------------------------

_LETTER = re.compile(
    r"""^\W*(?:(?:[Oo]ption|[Aa]nswer|[Cc]hoice|[Ll]etter)\b\W*)?
    (?: \(([A-Ha-h])\) | ([A-Ha-h])(?=[).\]:](?:\s|$)|\W*$) | ([A-H])(?=\s+(?:because|since|as|is)\b|\s[-–—]|,) )""",
    re.VERBOSE,
)
_CHOSEN = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice|choose|pick|select|go with)\s+\(?([A-H])(?![\w'])"
    r"|\b(?:[Ii]t['’]s|[Ii]t is)\s+\(?([B-H])(?![\w'])|\b([B-H])\s+is\s+(?:the\s+)?(?:correct|right)"
)


def _by_choice(question: str, right: Statement, said: Statement) -> Judgement | None:
    """Multiple choice, by the option's letter or by its text."""
    options = options_in(question)
    if not options:
        return None
    wanted = _choices(right.text, options)
    if len(wanted) != 1 or not wanted <= set(options):
        return None
    chosen = set() if said.doubtful else _choices(said.text, options)
    if not said.marked and not said.doubtful:
        first, rest = (said.whole.splitlines()[0], "\n".join(said.whole.splitlines()[1:]))
        sentence, more = first_sentence(first)
        if not taken_back(more + rest):
            chosen |= _choices(sentence if more else first, options)
    if len(chosen) != 1 or not chosen <= set(options):
        return Judgement("undecided", "choice", "several options named" if len(chosen) > 1 else "no option named")
    verdict = "correct" if chosen == wanted else "incorrect"
    return Judgement(verdict, "choice", f"{min(chosen)}, expected {min(wanted)}")


def _choices(text: str, options: dict[str, str]) -> set[str]:
    """The letters of the options that a statement names, by letter or text."""
    text = plain(text).strip()
    if _NEGATION.search(text) or text.endswith("?") or re.search(r"\b(?:or|either|both)\b", text):
        return {letter for letter, option in options.items() if canonical(option) == canonical(text)}
    named: set[str] = set()
    rest = text
    if found := _LETTER.match(text):
        named.add((found.group(1) or found.group(2) or found.group(3)).upper())
        rest = text[found.end() :].strip(" ).]:-–—")
        named |= set(re.findall(r"^(?:and\b|[&/,])\s*\(?([A-H])\b(?!\s\w)", rest))
    else:
        named |= {"".join(groups) for groups in _CHOSEN.findall(text)}
    short = canonical(rest)
    for letter, option in options.items():
        name = canonical(option)
        if (name and (short == name or canonical(text) == name)) or (
            len(name) > 2 and re.match(rf"{re.escape(name)}(?!\w)|.*(?<!\w){re.escape(name)}$", short)
        ):
            named.add(letter)
    if not named and len(numbers := quantities_in(short.rsplit("=", 1)[-1])) == 1 and numbers[0].kind == "plain":
        for letter, option in options.items():
            found_in = quantities_in(plain(option))
            if len(found_in) == 1 and found_in[0].size == numbers[0].size:
                named.add(letter)
    return named


# --- yes or no -----------------------------------------------------------------------------------------------------

_POLAR = r"(yes|no|true|false)\b"
_POLAR_START = re.compile(
    rf"^\W*{_POLAR}(?=\s*(?:[.,;:!—–-]|$)|\s+(?:it|he|she|they|there|this|that)\b)", re.IGNORECASE
)
_POLAR_END = re.compile(
    rf"(?:^\W*(?:(?:so|therefore|thus|hence|answer|overall)\b[,:\s]*)*|\b(?:answer|statement|claim|it|this|that)\s+is\s+)"
    rf"{_POLAR}\W*$",
    re.IGNORECASE,
)
_POSITIVE = {"yes": True, "true": True, "no": False, "false": False}


def _by_polarity(question: str, right: Statement, said: Statement) -> Judgement | None:
    """References that are yes, no, true or false: by a clear word at the answer's start or in its final statement."""
    wanted = _POLAR_START.match(plain(right.text)) or _POLAR_START.match(plain(right.whole))
    if wanted is None or (right.marked and not _POLAR_START.match(plain(right.text))):
        return None
    words = _polar_words(said)
    if said.doubtful or len({_POSITIVE[word] for word in words}) != 1:
        return Judgement("undecided", "choice", "no clear yes or no")
    word, expected = words.pop(), wanted.group(1).casefold()
    if {word, expected} not in ({"yes"}, {"no"}, {"yes", "no"}, {"true"}, {"false"}, {"true", "false"}) and (
        _NEGATION.search(re.sub(r"(?i)true or false", "", question))
    ):
        return Judgement("undecided", "choice", "yes or no, true or false?")
    same = _POSITIVE[word] == _POSITIVE[expected]
    return Judgement("correct" if same else "incorrect", "choice", f"{word}, expected {expected}")


def _polar_words(said: Statement) -> set[str]:
    words = set()
    first, rest = first_sentence(plain(said.whole.splitlines()[0]))
    if start := _POLAR_START.match(first):
        word = start.group(1).casefold()
        remainder = first[start.end() :]
        if re.search(rf"\b(?:and|or|but)\s+{_POLAR}|,\s*{_POLAR}\s*[.!?]*$", remainder, re.IGNORECASE):
            return set()
        if (_POSITIVE[word] and _NEGATION.search(remainder)) or taken_back(remainder + " " + rest):
            return set()  # "Yes, it is not prime": which of the two?
        words.add(word)
    statement = plain(said.text)
    last = statement if said.marked else SENTENCE_END.split(statement)[-1]
    if end := (_POLAR_START.match(last) if said.marked else None) or _POLAR_END.search(last):
        word = end.group(1).casefold()
        if not _NEGATION.search(last.casefold().replace(word, "", 1)):
            words.add(word)
    return words


# --- formulas ------------------------------------------------------------------------------------------------------


def _formulas(question: str, reference: str, response: str) -> tuple[str, str] | None:
    """Reference and answer as LaTeX, where both are formulas and equality by value would say something."""
    right, said = statement_of(strip_thinking(reference).strip()), statement_of(strip_thinking(response).strip())
    if still_thinking(response) or said.doubtful or not said.text:
        return None
    pair = as_latex(right.text), as_latex(said.text)
    if not all(pair) or any(measure(number.unit) for text in pair for number in quantities_in(text)):
        return None
    given, wanted = re.sub(r"\s", "", plain(said.text)), re.sub(r"\s", "", plain(right.text))
    lists = [members[0] for part in (right.text, said.text) if (members := _members(part))]
    if lists not in ([], ["{", "{"]) or re.search(r":|\d\.\d+\.\d", given + wanted):
        return None  # math-verify takes every list for a set, and 3:4 for a quotient
    if re.fullmatch(r"[\d.,+*/×·÷()^-]+", given.rsplit("=", 1)[-1]) and quantities_in(wanted):
        return None  # a sum that was not done is no result
    if re.sub(r"[\\(){}.]", "", given) in re.sub(r"[\s\\(){}.]", "", plain(question)):
        return None  # the question said back
    brackets = wanted[:1] + wanted[-1:], given[:1] + given[-1:]
    if brackets[0] != brackets[1] and "," in wanted + given and re.search(r"[(\[]", wanted[:1] + given[:1]):
        return None  # an interval against a pair, or another interval
    return pair

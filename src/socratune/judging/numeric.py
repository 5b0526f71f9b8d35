"""Reads the number that an answer gives as its result and compares it with the reference."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from socratune.judging.forms import other_form
from socratune.judging.quantities import UNITS, Quantity, joined_quantities_in, measure, quantities_in
from socratune.judging.text import (
    LONGEST_STATEMENT,
    NEGATION,
    SENTENCE_END,
    Statement,
    numbers_in,
    plain_text,
    taken_back,
)
from socratune.rows import Judgement

_FILLERS = frozenset(
    """the answer result is it it's are was a an total of about
    approximately roughly around so there therefore thus hence approx ca exactly equals sum""".split()  # noqa: SIM905
)
_ASIDE = re.compile(r"(?<!\s)\s*(?:\b(?:because|since|as(?! an? m(?:in|ax)imum)|which|where|given|after|when)\b|\()")
_NUMBER_WORDS = re.compile(
    r"\b(?:[a-z]*(?:teen|ty)(?:-\w+)?|hundred|thousand|million|dozen|half|third|quarter)\b", re.I
)
_ASSIGNED = re.compile(r"(?<![^\W\d])([^\W\d])\s*=")
_RUN = re.compile(r"\d+(?:[.,]\d+)*")
_MOST_NUMBERS = 40
_DIGIT, _WORD = re.compile(r"\d"), re.compile(r"\w+")
_CONCLUDED = re.compile(
    r".*(?:\b(?:(?<!or )so|therefore|thus|hence|somit|daher|folglich|donc|leaving|making|giving|for a total of"
    r"|(?:which|that|this) (?:makes|leaves|gives|means|is))\b|所以|因此|→)",
    re.IGNORECASE | re.DOTALL,
)
_FACTORIALS = re.compile(r"\w!|factorial|permut|arrang|\bways\b|\borders\b")
_OR = re.compile(r"\b(?:or|either|and|oder|und|entweder|ou|et|o|y)\b|[或和与]|还是")
_DOWN = re.compile(r"\b(?:los[te]\w*|loss|drop\w*|f[ae]ll\w*|decreas\w*|declin\w*|below|down)\b", re.IGNORECASE)
_LESS = re.compile(r"\b(?:minus|negative)\b(?!\s+[\d.$€£¥])", re.IGNORECASE)
"""The sign of a numeral (`minus 3`) is excluded, because it is read as part of the number."""
_VAGUE = re.compile(
    r"\b(?:or|oder) so\b|\b(?:next|last) (?:year|month|week)|\b(?:ago|will be|would be|used to be)\b"
    r"|\b(?:some|many|most|people|others?) (?:would )?(?:say|claim|think|believe|argue)s?\b"
    r"|\b(?:refus\w*|doubt\w*|reject\w*|rul(?:e[sd]?|ing) out|den(?:y|ies|ied)|disagree\w*|unlikely|impossible|wish"
    r"|suppos\w*|imagine|assum\w*|let \w be|weigere|bezweif\w*|zweif\w*|refuse|doute)\b.*\d"
    r"|\d.*\b(?:if|unless|falls|sofern|maybe|perhaps|possibly|vielleicht|peut-être|quizás?|tal vez)\b"
    r"|\d.*(?:也许|可能)",
    re.IGNORECASE,
)
_EACH = re.compile(r"\s(?:each|apiece|a piece|per(?! cent| mille| mole?\b)|pro Stück|pièce)(?!\w)", re.IGNORECASE)
_ASKS_EACH = re.compile(
    r"\b(?:each|every|per|apiece|one|single|average|unit|pro|jede\w*|pièce|chacun|chaque|cada)\b", re.IGNORECASE
)
_RANGE = re.compile(r"\d\s?(?:to|bis|à|至|到)\s?\d")
_RISE = re.compile(r"\b(?:from|von|de)\b|从")


@dataclass(frozen=True, slots=True)
class Claim:
    """Holds the number that an answer gives as its result.

    Attributes:
        sure: it is marked, stands alone or behind a `=`.
        of: what it is said to be the value of, where that stands before a `=` and is no calculation: `x`, `2x`.
        negated: a denial stands in the same sentence.
    """

    quantity: Quantity
    sure: bool
    of: str = ""
    negated: bool = False


def by_number(question: str, right: Statement, stated: Statement) -> Judgement | None:
    """Judges an answer by its number if the reference is one number, with or without a unit. Returns None otherwise."""
    wanted = _reference_quantity(right.plain)
    if wanted is None:
        return None
    claim = None if stated.doubtful else _claim(stated, question)
    if claim is None:
        return None
    same, reason = _compared(wanted, claim.quantity, question)
    law = " §" if "§" in right.plain + stated.plain else ""
    if same and (unlike := other_form(question + law, wanted, claim.quantity)):
        same, reason = None, unlike
    if doubt := _doubt(wanted, right, claim, stated, question, same):
        return Judgement("undecided", "numeric", doubt)
    if same is None:
        return Judgement("undecided", "numeric", reason)
    return Judgement("correct", "numeric") if same else Judgement("incorrect", "numeric", reason)


def _doubt(
    wanted: Quantity, right: Statement, claim: Claim, stated: Statement, question: str, same: bool | None
) -> str | None:
    """Returns why the claimed number may not be the answer's result, or None if there is no doubt."""
    if claim.negated:
        return "denied"
    if claim.quantity.other == -claim.quantity.value and abs(claim.quantity.value) == abs(wanted.value):
        return "a minus sign, or the dash before an item"
    if claim.of and not _asked_for(claim.of, right, question, same):
        return f"the value of {claim.of}"
    known_down = _DOWN.search(question) or _DOWN.search(right.whole)
    if same and not known_down and (_DOWN.search(stated.text) or _LESS.search(stated.text)):
        return "a gain or a loss?"
    if claim.quantity.value == -wanted.value and (known_down or _DOWN.search(stated.whole)):
        return "a gain or a loss?"
    if same is False and _on_another_side(wanted, stated):
        return "the reference stands on another side of the equation"
    # a last line that names some number is no statement of the result if the right one stands elsewhere
    if same is False and not claim.sure and (_elsewhere(wanted, stated) or _NUMBER_WORDS.search(stated.whole)):
        return "no clear final number"
    return None


def _elsewhere(wanted: Quantity, stated: Statement) -> bool:
    """Returns True if the reference's number stands anywhere in an answer. In a long answer only digits count."""
    if len(stated.whole) > LONGEST_STATEMENT:
        return wanted.literal.replace(",", "") in {run.replace(",", "") for run in _RUN.findall(stated.whole)}
    values = {quantity.value for quantity in quantities_in(plain_text(stated.whole))}
    return wanted.value in values or wanted.other in values


@lru_cache(512)  # many answers are judged by one reference
def _reference_quantity(text: str) -> Quantity | None:
    """Returns the number that a reference is, or None for prose, expressions, bounds and several numbers."""
    if _crowded(text) or _several_assigned(text):
        return None
    text = _last_side(text)
    quantities = joined_quantities_in(text)
    if len(quantities) != 1 or quantities[0].kind not in ("plain", "about") or text.endswith(("!", "?")):
        return None
    before, after = text[: quantities[0].start], text[quantities[0].end :]
    if not {word.lower() for word in re.findall(r"[\w']+", before)} <= _FILLERS or len(re.findall(r"\w+", after)) > 3:
        return None
    return None if re.search(r"[\\√π∞^_]", text[: quantities[0].start] + after) else quantities[0]


def _claim(stated: Statement, question: str) -> Claim | None:
    """Returns the number that an answer states as its result, or None if it states no number or several."""
    text, sure = (stated.plain, True) if stated.marked else (_last_with_number(stated), False)
    text, negated = _without_denied("" if _crowded(text) else text)
    aside = next((cut.start() for cut in _ASIDE.finditer(text) if _DIGIT.search(text, 0, cut.start())), None)
    if aside is not None and (stated.marked or "=" not in text[aside:]):
        if re.match(r"\(\d", text[aside:]) or (text.startswith(" (", aside) and taken_back(text[aside:])):
            return None  # 5(2), 10 (or 12)
        text = text[:aside]
    if (concluded := _CONCLUDED.match(text)) and _DIGIT.search(text, concluded.end()):
        text = text[concluded.end() :].strip()
    chain, of = "=" in text, ""
    if (negated and not chain) or text.endswith("?") or _several_assigned(text) or _VAGUE.search(text):
        return None
    if chain:
        of, text, sure = _unknown_in(text, question), _last_side(text), True
    if _RANGE.search(text) and not _RISE.search(text):
        return None
    quantities = joined_quantities_in(text)
    whole = [quantity for quantity in quantities if quantity.kind in ("plain", "about")]
    if not whole or quantities[-1].kind == "part" or any(quantity.kind == "bound" for quantity in quantities):
        return None
    if len(whole) > 1 and len({quantity.size for quantity in whole}) > 1:
        if _OR.search(text):
            return None
        known, sure = set(numbers_in(question)), False
        whole = [quantity for quantity in whole if quantity.value not in known]
        if len({quantity.size for quantity in whole}) != 1:
            return None
    result = whole[-1]
    if _contradicted(result, stated) or _of_another_kind(text, result.end, question):
        return None
    around = text[: result.start] + " " + text[result.end :]
    return Claim(result, sure or len(_WORD.findall(around)) <= 2, of, negated)


def _of_another_kind(text: str, end: int, question: str) -> bool:
    """Returns True for `$100 each` if the question asks for no unit price, and for `5!` if it is about factorials."""
    each = _EACH.match(text, end) and not _ASKS_EACH.search(question)
    return bool(each or (text.startswith("!", end) and _FACTORIALS.search(question)))


def _crowded(text: str) -> bool:
    """Returns True if a text is longer, or has more numbers, than a statement of one result can."""
    return len(text) > LONGEST_STATEMENT or (len(text) > 2 * _MOST_NUMBERS and len(_RUN.findall(text)) > _MOST_NUMBERS)


def _last_side(text: str) -> str:
    """Returns the text behind the last `=`. A minus sign there may stand apart (`x = - 5`)."""
    _, equals, side = text.rpartition("=")
    return re.sub(r"^[-–]\s+(?=[\d.])", "-", side.strip()) if equals else text


_LETTER = re.compile(r"(?<![^\W\d_])[^\W\d_](?![^\W\d_])")
_FUNCTION = re.compile(r"\b(?:sqrt|log|ln|sin|cos|tan|exp)\b|[√|]")


def _unknown_in(text: str, question: str) -> str:
    """Returns the unknown to which the last `=` assigns a value (`x`, `2x`, `f(3)`), or "" for `6*7` or `Total`."""
    side = re.split(r"[=,;:]|\.\s", text.rpartition("=")[0])[-1].strip()
    letters = [letter for letter in _LETTER.findall(side) if letter != "x" or not re.search(r"\d\s?x\s?[\d$]", side)]
    if re.search(r"[^\W\d_]{3,}", _FUNCTION.sub("", side)):  # a sentence, or a formula in words
        return ""
    unknown = [letter for letter in letters if measure(letter) is None or _stands_in(letter, question)]
    return re.sub(r"\s", "", side) if unknown else ""


def _asked_for(side: str, right: Statement, question: str, same: bool | None) -> bool:
    """Returns True if the value of `side` can be the result: the reference names it, or the question asks for it."""
    named = _ASSIGNED.match(right.plain)
    if len(side) == 1:
        return named is None or named.group(1) == side
    asked = rf"(?<![-+*/^=\w]){re.escape(side)}(?![-+*/^=\d])"  # not a part of a given equation
    return bool(same) and re.search(asked, re.sub(r"\s*([-+*/^=()|])\s*", r"\1", plain_text(question))) is not None


def _on_another_side(wanted: Quantity, stated: Statement) -> bool:
    """Returns True for `8 bits = 1 byte` if 8 is right, and for `2^5 = 32` if 5 is right."""
    for side in stated.plain.split("=")[:-1]:
        alone = quantities_in(side.strip())
        if len(alone) == 1 and alone[0].value == wanted.value and len(_WORD.findall(side)) <= 3:
            return True
        if (power := re.search(r"\^\s*\{?(\d+)\}?\s*$", side)) and wanted.value == int(power.group(1)):
            return True
    return False


def _stands_in(letter: str, question: str) -> bool:
    """Returns True if a unit's letter is a name in the question: `t` in `3t`, but not in `2 t` or `km/t`."""
    return re.search(rf"(?<![^\W\d_])(?<!/)(?<!\d\s){letter}(?![^\W\d_]|/)", question) is not None


def _several_assigned(text: str) -> bool:
    """Returns True for `x = 3, y = 5` and `x = 3 or x = 5`."""
    if "=" not in text:
        return False
    return len(set(_ASSIGNED.findall(text))) > 1 or re.search(r"=[^=]*\d[^=]*\bor\b", text) is not None


def _contradicted(result: Quantity, stated: Statement) -> bool:
    """Returns True if a calculation continues behind the statement: `The result is 45. … 150 + 45 = 195`."""
    if "=" not in stated.tail:
        return False
    later = quantities_in(plain_text(stated.tail.rsplit("=", 1)[1][:LONGEST_STATEMENT]))
    return bool(later) and later[0].value != result.value


def _last_with_number(stated: Statement) -> str:
    """Returns the last sentence with a number, for an answer that marks no final statement."""
    lines = [line.strip() for line in stated.whole.splitlines() if line.strip()]
    behind: list[str] = []
    for back, line in enumerate(reversed(lines[-4:])):
        if _DIGIT.search(line):
            parts = SENTENCE_END.split(plain_text(line))
            while len(parts) > 1 and not _DIGIT.search(parts[-1]):
                behind.insert(0, parts.pop())
            if back and "=" not in parts[-1]:
                return ""  # further up than the last line only a line that ends in a result counts
            return "" if behind and taken_back(" ".join(behind)) else parts[-1]
        behind.insert(0, line)
    return ""


def _without_denied(text: str) -> tuple[str, bool]:
    """Returns the text without clauses that deny a number (`195, not 180`), and whether a denial remains."""
    if not NEGATION.search(text):
        return text, False
    clauses = re.split(r",\s+|;|(?i:(?<!thing )(?<!all )\bbut\b)|\(", text)
    kept = [clause for clause in clauses if not NEGATION.search(clause)]
    denied = [clause for clause in clauses if NEGATION.search(clause)]
    stated = [clause for clause in kept if re.search(r"\d", clause)]
    if len(stated) == 1 and all(re.search(r"\d", clause) for clause in denied):
        return stated[0], False
    return text, True


# --- the same? -----------------------------------------------------------------------------------------------------

ASKS_FORM = re.compile(
    r"""simplif|simplest|lowest\ terms|reduc | \bas\ an?\ |\bin\ (?:terms|scientific|standard|radical|percent)
      | \bin\ (?:the\ form|words) | \bfactor(?:i[sz]e)?\b | expand | rationali[sz]e | rounded|\bround\b
      | nearest|significant | decimal\ places
      | \b(?:convert|express)|mixed\ number|notation | complet\w*\ the\ square | partial\ fraction | \brewrite\b""",
    re.VERBOSE | re.IGNORECASE,
)
"""Words of a question that asks for a form. An equal value in another form may then be no answer."""


def _compared(right: Quantity, stated: Quantity, question: str) -> tuple[bool | None, str]:
    """Returns whether two quantities are equal, with a reason. None means that it depends on the question's meaning."""
    if (right.form, right.kind, right.unit, right.other) == ("integer", "plain", stated.unit, None) and (
        (stated.form, stated.kind, stated.other) == ("integer", "plain", None)
    ):  # the usual case, and the fast one
        return right.value == stated.value, str(stated.value)
    reason = f"{float(stated.value):.12g} {stated.unit}".strip() if abs(stated.value) < 10**300 else "a large number"
    scale = _common_scale(right, stated, question)
    if scale is None:
        return None, f"{reason}: the units cannot be compared"
    value = stated.value * scale
    changed = scale != 1 or (right.form != stated.form and "integer" not in (right.form, stated.form))
    changed = changed or right.form == stated.form == "fraction"  # 6/8 where 3/4 was asked for
    changed = changed or (right.form == stated.form == "scientific" and right.decimals != stated.decimals)  # 32e-6
    if value == right.value:
        if changed and (
            ASKS_FORM.search(question)
            or (scale != 1 and stated.value in {known.value for known in quantities_in(question)})
        ):
            return None, "equal by value, and the question asks for a form"
        return True, ""
    second = None if stated.other is None else stated.other * scale
    if (right.other in (value, second) and right.other is not None) or second == right.value:
        return None, f"{reason}: the separator has two readings"
    if right.unit != stated.unit and _in_another_unit(right, stated):
        return None, f"{reason}: perhaps in another unit"
    ratio = abs(stated.value / right.value) if right.value else None
    share = "percent" in question.lower() or "%" in question or max(abs(right.value), abs(stated.value)) <= 100
    units = {right.unit, stated.unit} - {"%", "percent", "pct"}
    if share and units <= {""} and ratio in (100, Fraction(1, 100)) and min(abs(right.value), abs(stated.value)) < 1:
        return None, f"{reason}: perhaps percent"
    return _rounded(right, stated, value, question, scale != 1), reason


@lru_cache(1024)
def _unit_ratios(unit: str) -> frozenset[Fraction]:
    """Returns the ratios by which a bare number may differ from one in `unit` and still mean the same amount."""
    known = measure(unit)
    sizes = [size for dimension, size in UNITS.values() if known and dimension == known[0]] or [Fraction(1)]
    powers = [Fraction(10) ** n for n in range(-9, 10) if n]
    large = [power for power in powers if not Fraction(1, 1000) < power < 1000]  # `mil`, `млн`: a scale, perhaps
    return frozenset([above / below for above in sizes for below in sizes] + (powers if known else large))


def _in_another_unit(right: Quantity, stated: Quantity) -> bool:
    """Returns True if two unequal numbers, one without a known unit, may be equal in two units after rounding."""
    unit = right.unit or stated.unit
    if (measure(right.unit) and measure(stated.unit)) or (measure(unit) or ("",))[0] == "parts" or not right.value:
        return False
    ratio = abs(stated.value / right.value)
    exact = "integer" in (right.form, stated.form) and right.form == stated.form
    return ratio in _unit_ratios(unit) or (
        not exact and any(likely != 1 and abs(ratio - likely) * 100 <= likely for likely in _unit_ratios(unit))
    )


def _common_scale(right: Quantity, stated: Quantity, question: str) -> Fraction | None:
    """Returns the factor from the answer's unit to the reference's unit, or None if the units are incompatible."""
    if right.unit == stated.unit:
        return Fraction(1)
    one, two = measure(right.unit), measure(stated.unit)
    if not right.unit or not stated.unit:
        return _scale_to_bare(right, stated, question)
    if one and two:
        return two[1] / one[1] if one[0] == two[0] else None
    if one or two:
        return None
    stems = [
        {word if len(word) <= 3 else word.lower().removesuffix("s") for word in quantity.unit.split()[-1:]}
        for quantity in (right, stated)  # Mb is not MB
    ]
    return Fraction(1) if stems[0] == stems[1] else None


def _scale_to_bare(right: Quantity, stated: Quantity, question: str) -> Fraction | None:
    """Returns the common scale if one quantity has no unit. It takes the other's unit, except for percent and money."""
    parts, whole = (right, stated) if right.unit else (stated, right)
    dimension, size = measure(parts.unit) or ("", Fraction(1))
    if parts.unit in ("BC", "BCE") or (parts is stated and _asked_in_another(dimension, parts.unit, question)):
        return None
    if dimension != "parts":
        return Fraction(1) if parts is right or _fits(dimension, size, question) else None
    if "percent" in question.lower() or "%" in question:
        return Fraction(1) if size == Fraction(1, 100) else None
    if parts.value == whole.value:
        return None  # 50 or 50 %?
    return size if parts is stated else 1 / size


_ASKED_IN = re.compile(r"\b(?:in|en) ([^\W\d_]+|[$€£¥])\s?[?.]?\s*$", re.IGNORECASE)


def _asked_in_another(dimension: str, unit: str, question: str) -> bool:
    """Returns True if a question ends in the unit it wants (`…, in euros?`) and an answer has another unit."""
    asked = _ASKED_IN.search(question[-60:])
    known = measure(asked.group(1)) if asked else None
    if known is None or known[0] == dimension:
        return False
    return bool(dimension) or re.search(rf"\b{re.escape(unit)}\b", question, re.IGNORECASE) is not None


_CURRENCIES = {"dollars", "euros", "yen", "sterling", "rupees", "yuan"}


def _fits(dimension: str, size: Fraction, question: str) -> bool:
    """Returns True if the question may mean a unit: it names this unit, or none of its dimension."""
    words = re.findall(r"[^\W\d_]+/[^\W\d_]+|[^\W\d_]{3,}|[$€£¥₹元]", question)
    named = {known for word in words if (known := measure(word))}
    if (asked := re.search(r"\b[Hh]ow many (\w+)", question)) and (known := measure(asked.group(1))):
        return known == (dimension, size)
    sizes = {other for kind, other in named if kind == dimension}
    if sizes or dimension not in _CURRENCIES:
        return not sizes or size in sizes
    return not any(kind in _CURRENCIES for kind, _ in named)


def _rounded(right: Quantity, stated: Quantity, value: Fraction, question: str, converted: bool) -> bool | None:
    """Compares two unequal values and returns True if the answer rounds to a reference of two or more decimals.

    False where the two differ by more than rounding explains, else None: a reference of fewer decimals, an answer that
    is less precise than the reference, and approximations are for somebody who knows what was asked.
    """
    apart = abs(value - right.value)
    if right.form == "integer" and not converted and stated.form in ("decimal", "fraction"):
        return None if apart < Fraction(1, 2) else False  # whatever the form of the answer
    relative = apart / abs(right.value) if right.value else Fraction(1)
    if converted or "scientific" in (right.form, stated.form):
        return None if relative <= Fraction(1, 50) else False
    if stated.kind == "about" or right.kind == "about":
        return None if relative <= Fraction(1, 10) else False
    if "fraction" in (right.form, stated.form):
        places = stated.decimals if right.form == "fraction" else right.decimals
        near = apart < Fraction(1, 2 * 10**places) or (places >= 2 and apart < Fraction(1, 10**places))
        return None if right.form != stated.form and places and near else False
    finer, coarser = max(right.decimals, stated.decimals), min(right.decimals, stated.decimals)
    if finer == coarser:
        return False
    half = Fraction(1, 2 * 10**coarser)
    if apart < half or (apart == half and (coarser or right.decimals > stated.decimals)):
        precise = stated.decimals > right.decimals >= 2 and not ASKS_FORM.search(question)
        return True if precise else None
    fine, coarse = (value, right.value) if stated.decimals == finer else (right.value, value)
    return None if coarser and Fraction(int(fine * 10**coarser), 10**coarser) == coarse else False

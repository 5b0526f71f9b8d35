"""Reads numbers with their units, as answers write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import factorial

_DIMENSIONS = {  # names of one unit, then what one of it is in the dimension's own measure
    "length": "nm 1e-9 µm|um 1e-6 mm|millimeter|millimetre 1e-3 cm|centimeter|centimetre|厘米 1e-2 dm 1e-1 "
    "m|meter|metre|米 1 km|kilometer|kilometre|公里|千米 1000 inch|inches .0254 ft|foot|feet .3048 yd|yard .9144 "
    "mi|mile 1609.344",
    "mass": "µg|ug|microgram 1e-6 mg|milligram 1e-3 g|gram|gramme|Gramm|克 1 "
    "kg|kilo|kilogram|kilogramme|公斤|千克 1000 t|tonne 1000000 lb|lbs 453.59237 oz|ounce 28.349523125",
    "time": "ms|millisecond 1e-3 s|sec|second|Sekunde|Sekunden|秒 1 min|mins|minute|Minuten|分钟 60 "
    "h|hr|hrs|hour|Stunde|Stunden|小时 3600 day|Tag|Tage|Tagen|天 86400 week|Woche|Wochen|周 604800",
    "months": "month|months|Monat|Monate 1 year|years|Jahr|Jahre 12",
    "length3": "ml|mL|milliliter|millilitre|cc 1e-6 cl|centiliter 1e-5 dl|dL 1e-4 l|L|liter|litre 1e-3",
    "length2": "ha|hectare 10000", "length/time": "kmh|kph 5/18 mph .44704", "angle": "°|degree 1",
    "dollars": "$|dollar|usd|USD|buck 1 cent .01", "euros": "€|euro|eur|EUR 1", "yen": "¥|yen|JPY 1",
    "sterling": "£|GBP 1", "rupees": "₹|rupee|INR 1", "celsius": "°C|celsius 1", "fahrenheit": "°F|fahrenheit 1",
    "energy": "J|joule 1 kJ 1000 MJ 1e6", "power": "mW 1e-3 W|watt 1 kW|kilowatt 1000 MW|megawatt 1e6",
    "voltage": "mV 1e-3 V|volt 1 kV 1000", "force": "N|newton 1 kN 1000", "current": "mA 1e-3 A|ampere|amp 1",
    "frequency": "Hz 1 kHz 1000 MHz 1e6", "yuan": "元|RMB|CNY|yuan 1",
    "parts": "%|percent|pct|Prozent .01 ‰|permille|Promille .001",
}  # fmt: skip
UNITS: dict[str, tuple[str, Fraction]] = {}
"""Name → (dimension, size of the unit in the dimension's base unit)."""
for _dimension, _spec in _DIMENSIONS.items():
    for _names, _size in zip(_spec.split()[::2], _spec.split()[1::2], strict=True):
        for _name in _names.split("|"):
            UNITS[_name] = UNITS[_name + "s" if len(_name) > 2 else _name] = (_dimension, Fraction(_size))
_SCALES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "bn": 10**9,
    "lakh": 10**5, "crore": 10**7, "hundert": 100, "tausend": 1000, "millionen": 10**6, "mio": 10**6, "mrd": 10**9,
    "milliarde": 10**9, "milliarden": 10**9, "milliard": 10**9, "billionen": 10**12, "dutzend": 12,
    "millones": 10**6, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8,
}  # fmt: skip
_NO_UNIT = frozenset(
    """a about above after again all altogether and are as at away because before below but by each exactly for from
    has have he here however if in including is it left less more of on or overall over per remain remains remaining
    she since so than that the then there they this thus to together total under was were when where which while who
    will with you not plus minus fewer squared cubed factorial pi ish divided multiplied apiece""".split()  # noqa: SIM905
)
_QUANTITY = re.compile(
    r"""(?<![\w.,])(?<!::)(?P<sign>[-+–](?=[\d.$€£¥₹]))?(?:(?P<money>[$€£¥₹]|USD|EUR|GBP|JPY|INR)\s?)?(?P<inner>-(?=\d))?(?:
        (?P<whole>\d{1,9})\s+(?P<top>\d{1,9})\s?/\s?(?P<under>\d{1,9})
      | (?P<above>\d{1,18})\s?/\s?(?P<below>\d{1,18})
      | (?P<mantissa> \d{1,3}(?:[,\u202f\u00a0' ]\d{3})+(?:\.\d+)?(?!,\d) | \d{1,2}(?:,\d\d)+,\d{3}(?:\.\d+)?
          | \d{1,3}(?:\.\d{3})+,\d+ | \d{1,3}(?:[ \u202f\u00a0]\d{3})+,\d\d?
          | \d{1,3}(?:\.\d{3}){2,} | \d+,\d+ | \d+(?:\.\d+)? | \.\d+ )
        (?: [eE](?P<exp>[-+]?\d{1,3})(?!\w) | \s?[×x*·]\s?10\s?(?:\^|\*\*)\s?[{(]?(?P<power>[-+]?\d{1,3})[)}]? )?
    )(?![.,]?\d)(?:\s?(?P<money2>[$€£¥₹](?!\d)))?""",
    re.VERBOSE,
)
_GLUED = frozenset(("bn", "mio", "mrd"))
_UNIT = re.compile(
    r"\s?([%‰]|per\s?cent\b|per\s?mille\b|°\s?[CF]?\b|°)|(?:[\s-]?[^\W\d_]+(?:/[^\W\d_]+)?(?:\^?[23](?!\d))?){1,4}"
)
BOUND = re.compile(
    r"""(?:\b(?:less|more|fewer|greater|larger|smaller|higher|lower|bigger)\ than(?:\ or\ equal\ to)?
      | \bat\ (?:least|most)
      | \b(?:over|under|above|below|up\ to|between|nearly|almost|within|exceeds?|beyond|from|before|until
          |without|short\ of|close\ to|near|minimum(?:\ of)?|maximum(?:\ of)?|max\.?
          |excluding|rarely|seldom|less|hardly|barely|scarcely|except|(?:anything|everything|all|nothing)\ but)
      | \b(?:mehr|weniger|größer|kleiner)\ als | \b(?:mindestens|höchstens|über|unter|fast|knapp|bis\ zu|vor|ohne|kaum)
      | \b(?:plus|moins)\ (?:de|que) | \b(?:au\ (?:moins|plus)|presque|jusqu['’]à|avant|sans)
      | \b(?:más|menos|mayor|menor)\ (?:de|que) | \b(?:al\ menos|como\ (?:máximo|mínimo)|casi|hasta|antes\ de|sin)
      | 超过 | 少于 | 至少 | 至多 | 多于 | 不到 | 大于 | 小于 | [<>≤≥≠±])\s*$""",
    re.VERBOSE | re.IGNORECASE,
)
"""Words and signs before a number that make it a bound: `at least 5`, `before 5`."""
BOUND_BEHIND = re.compile(
    r"""(?:,?\s?|\s{2,3})\(?(?:
      \b(?:(?:or|and|oder|und|ou|et|o|y)\ (?:more|less|fewer|greater|higher|lower|larger|bigger|smaller
          |longer|shorter|up(?:wards?)?|above|over|below|under|beyond|better|worse|newer|later|older|earlier|after|before
          |change|mehr|weniger|höher|niedriger|größer|kleiner|länger|kürzer|neuer|älter|später|früher|darüber|darunter
          |plus|moins|más|menos|(?:an?|one|three)\ (?:half|third|quarter)s?)
      | (?:at|as)\ (?:an?\ |the\ (?:very\ )?)?(?:most|least|minimum|maximum|latest|earliest)
      | minimum | maximum | max | tops
      | (?:up|down)wards? | short | excluded | exclusive
      | (?:is|are|was|were|would\ be)\ (?:too|my\ first|the\ first\ guess)
      | plus(?!\s?\d) | minus(?!\s?\d) | mindestens | höchstens | maximal | minimal | au\ (?:plus|moins)
      | como\ (?:máximo|mínimo) )\b | 以上 | 以下 | 以内 | 多)""",
    re.VERBOSE | re.IGNORECASE,
)
"""Words behind a number, or behind its unit, that make it a bound or only a part of the amount: `5 or more`."""
_FORMULA = re.compile(r"\\[A-Za-z]+(?:(?!\s[A-Za-z]{2})[^\n])*")
"""A LaTeX command that is more than formatting. A number inside such a formula is not read by itself."""
_COMMAND_BEHIND = re.compile(r"(?:(?!\s[A-Za-z]{2})[^\\\n.,;=]){0,20}\\[A-Za-z]")
_EXCLAIMED = re.compile(r"!{1,9}[\s*\")]{0,9}(?:$|[A-Z])")
"""The end of a sentence (`The answer is 5!`); elsewhere it is a factorial (`3! ways`)."""
_NEGATED = re.compile(r"(?:^|[^\d)])\b(?:negative|minus)\s$", re.IGNORECASE)
_DASHED = re.compile(r"(?:^|[^\W\d]\s?|[:.]\s)[-–]\s$")
_OPENING, _CLOSED = tuple("([{<⟨〈|]"), re.compile(r"\s*[])}>⟩〉|[]")
_BRACKET, _TOUCHING = re.compile(r"[({]\s*$"), re.compile(r"[^\s:=.,;*$\"'|(\[{]$")
_TOUCHED = re.compile(r"!|\^|_|\s?[({π√]|[^\W\d]")
"""Characters that make a number in brackets an operand: `-{5}`, `π(5)`, `(5)!`, `(5)(2)`."""
_DECADE = re.compile(r"['’]?s\b|\s?年代")
_PER = re.compile(r"\s?(?:/|(?:per|an?|each|every)\s)\s?(second|minute|hour|day|week|month|year|night|person|item)\b")
_BELOW_ZERO = re.compile(r"(?:\s(?:below|under)\s(?:zero|freezing|0)|\sunter\s(?:null|0))\b", re.IGNORECASE)
_APPROXIMATE = re.compile(r"(?:\b(?:about|approximately|approx\.?|roughly|around|circa|some)|[≈~∼])\s*$", re.IGNORECASE)
_OPERATOR_BEFORE = re.compile(
    r"(?:[\d)}%]|(?<![^\W\d_])[^\W\d_]|\b(?:sqrt|log|ln|sin|cos|tan|plus|minus|times|by))\s*(?:\*\*|[-+*/×·÷^–x])\s*[($€£]*$|\d:$"
    r"|log_\w{1,3}\s?$"
    r"|^\s*[-–+]\s*\($|^\s*/$"
    r"|[√∛∜^_$€£⌊⌈‖]\s*[({]*$|[^\W\d_]\($|\b(?:sqrt|log|ln|sin|cos|tan|plus|minus|times|divided by)\s*\(?$"
    r"|\b(?i:half|twice|thrice|double|triple|roots?|square|cube|sine|cosine|tangent|logarithm|factorial|reciprocal|inverse|"
    r"opposite|absolute value|multiples?)(?: of)?\s$"
    r"|\b(?i:none|one|some|any|most|each|first|last|many|few|out) of(?: the)?\s$"
)
_OPERATOR_AFTER = re.compile(
    r":[\d:]|_|\.\.|…|\s*[<>≤≥≠]|\+(?!\w)|[-–](?=\s*$|[.,;)\]])|\s*[-+*/×·÷–−±x]\s*(?:[\d(√π.$€£]|[b-hj-z]\b)|\s*(?:\^|\*\*|√|π)|\s(?:plus|minus|times|over|to|through|"
    r"divided by|multiplied by)\s\d|\s?(?:squared|cubed|factorial)\b|-ish\b|"
    r"\s(?:more|fewer|less)\s(?=[^.]*\bthan\b)|\s?(?:pi|sqrt|π|[a-zB-Z])(?![\w'/%^])|\s*\("
    r"(?=\s*\d+\s*[-+*/])|\(\d+\)|\{"
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """Holds a number as an answer states it.

    Attributes:
        value: in the unit written; percent are hundredths.
        other: the second reading of separators that mean two things (`1,234`, `1.234`), or None.
        form: integer, decimal, fraction or scientific.
        decimals: how many digits stand behind the point.
        unit: what stands behind it: a name of `UNITS`, a word or two, or nothing.
        kind: "plain"; "part" of a larger expression; "bound" (`at least 5`); "about".
        literal: the digits as they are written, without sign and unit.
    """

    value: Fraction
    other: Fraction | None
    form: str
    decimals: int
    unit: str
    kind: str
    start: int
    end: int
    literal: str

    @property
    def size(self) -> tuple[str, Fraction]:
        """The dimension and the value in the dimension's base unit. An unknown unit is its own dimension."""
        if not self.unit:
            return "", self.value
        dimension, factor = measure(self.unit) or (self.unit, Fraction(1))
        return dimension, self.value * factor


@lru_cache(4096)
def measure(unit: str) -> tuple[str, Fraction] | None:
    """Returns the dimension and size of a unit (`km`, `km/h`, `miles per hour`, `cm^2`, `square metres`), or None."""
    if unit in UNITS:
        return UNITS[unit]
    if (len(unit) > 3 or unit in ("KM", "Km", "KG", "Kg", "CM", "Cm")) and unit.lower() in UNITS:
        return UNITS[unit.lower()]
    if unit.lower() in ("degrees celsius", "degrees fahrenheit"):
        return UNITS[unit.lower()[8:]]
    if match := re.fullmatch(r"(.+?)(?: per |/)(.+)", unit):
        above, below = measure(match.group(1)), measure(match.group(2))
        return (f"{above[0]}/{below[0]}", above[1] / below[1]) if above and below else None
    if match := re.fullmatch(r"(?:(square|sq|cubic|cu) )?([^\W\d]+)(?:\^?([23]))?", unit):
        base = measure(match.group(2)) if match.group(1) or match.group(3) else None
        power = int(match.group(3) or (2 if match.group(1) in ("square", "sq") else 3))
        return (f"{base[0]}{power}", base[1] ** power) if base else None
    return None


@lru_cache(512)
def quantities_in(text: str) -> tuple[Quantity, ...]:
    """Returns the numbers of a plain text with unit, form and kind. Digits inside words or codes are ignored."""
    bare = text.strip().removesuffix(".")
    if bare.isdecimal() and len(bare) < 19:  # the usual case, and the fast one
        start = text.index(bare)
        return (Quantity(Fraction(int(bare)), None, "integer", 0, "", "plain", start, start + len(bare), bare),)
    quantities: list[Quantity] = []
    formulas = [formula.span() for formula in _FORMULA.finditer(text)] if "\\" in text else []
    for match in _QUANTITY.finditer(text):
        if quantities and match.start() < quantities[-1].end:  # the 2 of m/s^2
            continue
        if text[match.start() - 1 : match.start()] == "'" and not text.startswith("'", match.end()):  # '89 is 1989
            continue
        read = _read(match)
        unit, end = _unit_behind(text, match.end())
        if read is None or unit is None:
            continue
        value, other, form, decimals = read
        unit = unit or match["money"] or match["money2"] or ""
        if (rate := _PER.match(text, end)) and measure(unit):  # $12 an hour
            unit, end = f"{unit} per {rate.group(1)}", rate.end()
        before = text[max(0, match.start() - 40) : match.start()]
        inside = any(start < match.start() < stop for start, stop in formulas)
        kind = "part" if inside else _standing(match, before, text, end)
        if before[-1:].isspace():
            if _NEGATED.search(before):
                value, kind = -value, "bound" if kind == "bound" else "plain"
            elif other is None and _DASHED.search(before):
                other = -value  # an item of a list, or a minus sign
        if text.startswith("!", match.end()) and other is None and form == "integer" and 2 < value <= 20:
            other = Fraction(factorial(int(value)))
        if scaled := _scale_in(unit):
            value, other, form = value * scaled[0], None, "scientific"
            unit = scaled[1] or match["money"] or ""
        literal = match["mantissa"] or match.group().lstrip("-+–")
        quantities.append(Quantity(value, other, form, decimals, unit, kind, match.start(), end, literal))
    return tuple(quantities)


def _standing(match: re.Match[str], before: str, text: str, end: int) -> str:
    """Returns the kind of a quantity, judged by the text around it."""
    if BOUND.search(before) or _BELOW_ZERO.match(text, end):
        return "bound"
    if BOUND_BEHIND.match(text, end) or BOUND_BEHIND.search(text, match.end(), end):
        return "bound"
    if (
        _OPERATOR_BEFORE.search(before)
        or _OPERATOR_AFTER.match(text, end)
        or (match["sign"] and before.rstrip()[-1:].isdigit())
        or (before.endswith("|") and text.startswith("|", match.end()))
        or ("\\" in text and _COMMAND_BEHIND.match(text, match.end()))
        or text[end : end + 1].isdigit()  # 1h30
        or (text.startswith("!", match.end()) and not _EXCLAIMED.match(text, match.end()))
    ):
        return "part"
    if "," in (match["mantissa"] or "") and before.rstrip()[-1:] in _OPENING and _CLOSED.match(text, end):
        return "part"  # (2,5) may be a pair
    if (opened := _BRACKET.search(before)) and (closed := _CLOSED.match(text, end)):
        outside = before[: opened.start()]
        if BOUND.search(outside):
            return "bound"
        if _TOUCHING.search(outside) or _TOUCHED.match(text, closed.end()):
            return "part"
    return "about" if _APPROXIMATE.search(before) else "plain"


def _scale_in(unit: str) -> tuple[int, str] | None:
    """Splits a scale word off a unit (`million people`, `万人`): returns the factor and the other words, or None."""
    word, _, rest = unit.partition(" ")
    for name in (word.lower(), word.lower().removesuffix("s")):
        if name in _SCALES:
            return _SCALES[name], rest
    attached = word[:1] in _SCALES and not measure(word)
    return (_SCALES[word[0]], word[1:]) if attached else None


def _read(match: re.Match[str]) -> tuple[Fraction, Fraction | None, str, int] | None:
    sign = -1 if (match["sign"] or match["inner"] or "+") in "-–" else 1
    above, below, whole = match["above"] or match["top"], match["below"] or match["under"], match["whole"]
    if above:
        if int(below) == 0:
            return None
        return sign * (int(whole or 0) + Fraction(int(above), int(below))), None, "fraction", 0
    digits, other = match["mantissa"], None
    if digits.isdecimal() and len(digits) < 200 and not (match["exp"] or match["power"]):
        return Fraction(sign * int(digits)), None, "integer", 0
    if len(digits) > 200:
        return None
    exponent = match["exp"] or match["power"]
    if exponent and re.fullmatch(r"[1-9],\d{3}", digits):  # 6,022·10^23
        other, digits = Fraction(digits.replace(",", "")), digits.replace(",", ".")
    elif re.fullmatch(r"\d{1,3}[.,]\d{3}", digits) and digits[0] != "0":  # 1,234 and 1.234: which is it?
        other = Fraction(digits.replace(",", "." if "," in digits else "")) if "," in digits else None
        other = other if other is not None else Fraction(digits.replace(".", ""))
    elif re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}", digits):
        digits = digits.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"[\d \u202f\u00a0]+,\d\d?|\d+,\d+", digits) and not re.fullmatch(r"[1-9]\d{0,2},\d{3}", digits):
        digits = digits.replace(",", ".")
    digits = re.sub(r"[,\u202f\u00a0' ]", "", digits)
    decimals = len(digits.partition(".")[2])
    form = "decimal" if decimals else "integer"
    value = Fraction(digits) if decimals else Fraction(int(digits))
    if exponent:
        value, form = value * Fraction(10) ** int(exponent), "scientific"
        other = None if other is None else other * Fraction(10) ** int(exponent)
    if sign < 0:
        value, other = -value, None if other is None else -other
    return value, other, form, decimals


def _unit_behind(text: str, start: int) -> tuple[str | None, int]:
    """Returns the unit behind a number and its end. The unit is None if the digits belong to a word (`5th`)."""
    if start >= 4 and text[start - 1] == "0" and text[start - 4 : start].isdecimal() and _DECADE.match(text, start):
        return None, start  # the 1990s
    match = _UNIT.match(text, start)
    if match is None:
        return "", start
    if match.group(1):
        sign = match.group(1).replace(" ", "")
        return {"percent": "%", "permille": "‰"}.get(sign, sign), match.end()
    kept, end = "", start
    for word in re.finditer(r"[^\s-]+", match.group()):
        if (word.group().lower() in _NO_UNIT and not (kept and word.group() == "per")) or (
            len(word.group()) == 1 and measure(word.group()) is None and word.group() not in _SCALES
        ):
            break
        longer = f"{kept} {word.group()}".strip()
        if measure(kept) and not measure(longer) and word.group() != "per":
            break
        kept, end = longer, start + word.end()
    kept = kept.removesuffix(" per")
    attached = not text[start].isspace() and text[start] != "-"
    if attached and not measure(kept) and kept.partition(" ")[0].lower() not in _GLUED:
        return None, start
    return kept, end


_HOURS = re.compile(r"(\d|1[0-2])\s?h\s?([0-5]\d)(?:\s?m(?:in)?)?")


def joined_quantities_in(text: str) -> tuple[Quantity, ...]:
    """Returns `quantities_in(text)`, with `2 hours 30 minutes` or `1h30` as one quantity of 5/2 hours.

    From 13 hours on that is a time of day.
    """
    if clock := _HOURS.fullmatch(text.strip(" .")):
        hours = Fraction(int(clock[1])) + Fraction(int(clock[2]), 60)
        start = text.index(clock[0])
        return (Quantity(hours, None, "decimal", 1, "h", "plain", start, start + len(clock[0]), clock[0]),)
    quantities = quantities_in(text)
    if len(quantities) != 2 or not quantities[0].unit or any(quantity.kind != "plain" for quantity in quantities):
        return quantities
    first, second = quantities
    larger, smaller = measure(first.unit), measure(second.unit)
    between = text[first.end : second.start].strip(" ,")
    if (
        larger is None
        or smaller is None
        or larger[0] != smaller[0]
        or larger[1] <= smaller[1]
        or between not in ("", "and")
    ):
        return quantities
    value = first.value + second.value * smaller[1] / larger[1]
    literal = text[first.start : second.end]
    return (Quantity(value, None, "decimal", 1, first.unit, "plain", first.start, second.end, literal),)


_DENIED_BOX = re.compile(
    r"(?:\b(?:not|never|nicht|kein\w*|pas|no|but|than)|n['’]t|[不没沒]是?|非)"
    r"(?: equal(?: to)?| be| the answer)?[\s:$(\[\\*]*$",
    re.IGNORECASE,
)


_BOX_OPERAND = re.compile(r"[-^_√π\d]\Z|\\(?:sqrt|pi|cdot|times|pm|d?frac|log|ln|sin|cos|tan)\s*(?:\{[^{}]*\})?\s*\{?$")
_BOX_TIMES = re.compile(r"[\^_√π\d]|\\(?:sqrt|pi|cdot|times|pm|d?frac|log|ln)(?![A-Za-z])")


def changes_box(before: str, behind: str) -> bool:
    r"""Returns True if a box is denied or part of a claim: `not \boxed{5}`, `-\boxed{5}`, `\boxed{5} at most`."""
    outside = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", before).rstrip(" $:*")
    return bool(
        _DENIED_BOX.search(before)
        or BOUND.search(outside)
        or _BOX_OPERAND.search(before)
        or _BOX_TIMES.match(behind)
        or BOUND_BEHIND.match(behind.lstrip("$*"))
    )


# --- number words ---------------------------------------------------------------------------------------------------

# English number words as digits: `three quarters` is `3/4`, `two and a half` is `2.5`.

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen""".split()  # noqa: SIM905
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_WORD_SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_PARTS |= {f"{word}s": value for word, value in _PARTS.items()} | {"halves": 2}

_SMALL = rf"(?:(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_ONES[1:10])}))?|{'|'.join(reversed(_ONES))})"
_GROUP = rf"(?:(?:(?:an?|{_SMALL}) )?(?:hundred|dozen)(?:(?: and)? {_SMALL})?|{_SMALL})"
_WHOLE = rf"(?:(?:an?|{_GROUP}) (?:{'|'.join(_WORD_SCALES)})(?:(?:,| and)? {_GROUP})?|{_GROUP})"
_PART = rf"(?:{'|'.join(sorted(_PARTS, key=len, reverse=True))})"
_NUMBER = re.compile(
    rf"\b(?:(?:(?P<whole>{_WHOLE}) and )?(?P<count>an?|{_SMALL})[ -](?P<part>{_PART})"
    rf"|(?P<half>half)|(?P<only>{_WHOLE}))\b",
    re.IGNORECASE,
)

NUMBER_WORDS = frozenset((*_ONES, *_TENS, *_WORD_SCALES, *_PARTS, "hundred", "dozen"))
"""A text without any of these words has no number in words."""
_LETTERS = re.compile(r"[a-z]+")
_NUMBER_WORD = re.compile(rf"\b(?:{'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE)


def with_digits(text: str) -> str:
    """Returns the text with its number words written as digits. Ordinals (`the third`) stay words."""
    if text.isascii():  # ten times faster than the search
        spelled = not NUMBER_WORDS.isdisjoint(_LETTERS.findall(text.lower()))
    else:
        spelled = _NUMBER_WORD.search(text) is not None
    return _NUMBER.sub(_digits, text) if spelled else text


def _digits(match: re.Match[str]) -> str:
    if match["half"]:
        return "1/2"
    if match["only"]:
        return str(_value(match["only"]))
    share = Fraction(_value(match["count"]), _PARTS[match["part"].casefold()])
    if share >= 1:  # twenty-fifth
        return match.group()
    return str(float(_value(match["whole"]) + share)) if match["whole"] else str(share)


def _value(words: str) -> int:
    total = group = 0
    for word in re.split(r",? |-", words.casefold()):
        if word in ("hundred", "dozen"):
            group = max(group, 1) * (100 if word == "hundred" else 12)
        elif word in _WORD_SCALES:
            total, group = total + max(group, 1) * _WORD_SCALES[word], 0
        else:
            group += 1 if word in ("a", "an") else _VALUES.get(word, 0)
    return total + group

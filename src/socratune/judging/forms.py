"""Detects numerals whose form carries the meaning (versions, codes, sections): an equal value may be another thing."""

from __future__ import annotations

import re

from socratune.judging.quantities import Quantity, measure

_NAMES = re.compile(
    r"""\b(?: versions? | releases? | firmware | python | ubuntu | android | ios | macos | windows | kernel | php | java
      | usb | cuda | node\S* | linux | \w+\.js | prints? | printed | output | base\ \d+ | binary
      | sections? | chapters? | clauses? | subsections? | paragraphs? | verses? | articles? | appendix | dewey | icd\S*
      | codes? | zip | zip-?codes? | postcodes? | pin | passwords? | passcodes? | (?:tele)?phones? | dial\w* | extension
      | serial | isbn | issn | doi | iban | sku | barcode | registration | licen[cs]e | account\ number
      | (?:room|flight|gate|platform|bus|route|highway|agent|ticket|order|case|invoice|model|part|catalog\w*|jersey
        |apartment|house|bib|track|item|reference|customer|member|student|id|product|stock|lot|batch|plot
        |employee)\ (?:number|no\b|nr\b|id\b|\#)
      | hex\w* | octal | octets? | ids? | identifiers? | ipv?[46]? | (?:time|key)\ signatures? | bits?\ string
      | what\ time | which\ time | o'clock | clock | date | decade
      | kapitel | abschnitt\w* | paragraf\w* | artikel | postleitzahl | plz | vorwahl | kennzahl | telefon\w* | uhrzeit
      | wie\ spät | wann | uhr | nummernschild | aktenzeichen | \w*version | taktart | geheimzahl | (?:\w+)nummer
      | chapitre | rubrique | code\ postal | indicatif | quelle\ heure | numéro | alinéa
      | versión | capítulo | sección | apartado | código\w* | artículo | qué\ hora | prefijo
      )\b | § | 版本 | [第哪][^\s，。]{0,3}[章节節条條]
      | 邮编 | 郵編 | 邮政编码 | 编号 | 号码 | 代码 | 区号 | 密码 | 拍号 | 几点
      | \b(?:which|what|in\ which|on\ which|name\ the|give\ the|welche[rsnm]?|quel(?:le)?|qué|cuál)\ (?:\w+\ ){0,2}
        (?:page|figure|table|equation|theorem|lemma|exercise|step|rule|line|row|room|flight|gate|platform|bus|channel
        |route|model|form|standard|tag|build|edition|layer|item|number\ plate|plate|seite|zeile|zimmer|gleis|buch)\b""",
    re.VERBOSE | re.IGNORECASE,
)
_COUNTED = re.compile(
    r"\bhow\ (?:many|much|long|far|old|tall|large|big)\b|\bwie\ ?(?:viele?|lange|weit|alt|groß)\b|\bcombien\b"
    r"|\bcu[áa]nt[oa]s?\b|多少|几个",
    re.IGNORECASE,
)
_PAIRED = re.compile(
    r"""\b(?: signatures? | meter | metre | rhythm | beats? | score\w* | odds | ratios? | blood\ pressure | vision
      | aspect | date | scale | gear | f-stop | aperture | tyre | tire | proportions? | tally | record
      | takt\w* | blutdruck | verhältnis | maßstab | spielstand | ergebnis\ des | mesure | tension | rapport | compás
      | marcador | proporción | razón )\b | 拍 | 比分 | 比例 | 血压""",
    re.VERBOSE | re.IGNORECASE,
)
_ASKS_SEVERAL = re.compile(
    r"""\b(?: both | roots | two | three | pairs? | numbers | solutions | coordinates? | points? | values | zeros
      | factors | interval | vector | set | list | beiden? | lösungen | nullstellen | punkt\w* | zahlen | zahlenpaar
      | koordinaten | racines | nombres | coordonnées | raíces | soluciones | números | coordenadas )\b
      | 坐标 | 解集 | 两个""",
    re.VERBOSE | re.IGNORECASE,
)
_ASKS_WHICH = re.compile(
    r"\b(?:which|when|where|wann|wo|welche[rsnm]?|quel(?:le)?s?|quand|où|cuándo|dónde|cuál(?:es)?)\b"
    r"|哪|什么时候|何时",
    re.IGNORECASE,
)
_SECONDS = re.compile(
    r"\b(?:seconds?|how long|times?|fast|quick\w*|durations?|took|takes?|sekunden?|lange?)\b", re.IGNORECASE
)
_MEASURES = re.compile(
    r"""\d | [=+×÷√∫∑%$€£¥] | \b(?:
      how\ (?:many|much|long|far|old|tall|large|big|heavy|fast|high|deep|wide|often|quick)
      | prices? | costs? | pays? | paid | earn\w* | values? | sums? | totals? | average | mean | median | product
      | quotient | difference | calculate | compute | evaluate | solve\w* | simplify | convert | percent\w* | rate
      | area | volume | length | distance | weight | mass | height | width | depth | speed | velocity | density | radius
      | diameter | angle | probability | fractions? | part | share | amount | size | temperature | seconds? | minutes?
      | hours? | duration | times? | money | dollars | euros | cents
      | wie\ ?(?:viele?|lange?|weit|alt|groß|hoch|schwer|schnell|tief|breit) | preis | kostet | summe | wert
      | berechne\w* | löse | prozent | anteil | fläche | länge | höhe | temperatur | sekunden | minuten | stunden
      | combien | prix | coût\w* | somme | valeur | calcule\w* | résou\w* | moyenne | aire | longueur | durée
      | cu[áa]nt[oa]s? | precio | cuesta | suma | valor | calcula\w* | resuelve | área | longitud )\b
      | 多少 | 几 | 多长 | 多大 | 多高 | 多重 | 面积 | 体积 | 价格 | 计算 | 求""",
    re.VERBOSE | re.IGNORECASE,
)
"""Words of a question about an amount. Without them, digits may be a name, and their form counts."""
_SYMBOLS = re.compile(
    r"\b(?:symbol|abbreviat\w*|formula|acronym|initials|country\ code|stands?\ for|written|notation|zeichen|abkürzung"
    r"|formel|symbole|abréviation|símbolo|abreviatura)\b|符号|缩写",
    re.IGNORECASE,
)


def other_form(question: str, right: Quantity, stated: Quantity) -> str | None:
    """Returns why two numbers of equal value may still differ in meaning by their form, or None if only the value
    counts.
    """
    if {right.unit, stated.unit} == {"", "s"} and not _SECONDS.search(question):
        return "seconds, a decade, or a letter of a name"
    named = is_name(question)
    if named and right.unit != stated.unit and (right.unit or "§" in question) and not measure(right.unit):
        return "the question asks for a name made of digits, and another word belongs to it"
    return None if right.literal == stated.literal else _other_numeral(question, right, stated, named)


def _other_numeral(question: str, right: Quantity, stated: Quantity, named: bool) -> str | None:
    """Does the work of `other_form` for two numbers that are written differently."""
    if _leading_zero(right.literal) or _leading_zero(stated.literal):
        return "a leading zero: perhaps a code"
    if named:
        return "the question asks for a name made of digits, and it is written in another way"
    fraction = "fraction" in (right.form, stated.form)
    if fraction and _PAIRED.search(question):
        return "a pair of numbers in another form"
    if (_decimal_comma(right.literal) or _decimal_comma(stated.literal)) and _ASKS_SEVERAL.search(question):
        return "a comma may stand between two numbers"
    dotted = re.fullmatch(r"\d{1,3}\.\d\d0", right.literal) is not None and not right.unit
    if dotted and right.other is not None and stated.other is None:
        return "the separator has two readings"
    return None if _MEASURES.search(question) else _other_name(question, right, stated, fraction)


def _other_name(question: str, right: Quantity, stated: Quantity, fraction: bool) -> str | None:
    """Does the work of `other_form` for a question that mentions no amount."""
    which = _ASKS_WHICH.search(question) is not None
    if fraction and which:
        return "a pair of numbers in another form"
    zeros = any(re.fullmatch(r"\d+\.\d*0", literal) for literal in (right.literal, stated.literal))
    counts = zeros and not (right.unit or stated.unit) and (which or right.form != "integer")
    return "a final zero counts in a name" if counts else None


def _decimal_comma(literal: str) -> bool:
    return re.fullmatch(r"\d+,\d+", literal) is not None and re.fullmatch(r"[1-9]\d{0,2},\d{3}", literal) is None


def is_name(question: str) -> bool:
    """Returns True if a question asks for a name made of digits (`Which version …?`), not for an amount."""
    return _NAMES.search(question) is not None and not _COUNTED.search(question)


def is_symbol(question: str) -> bool:
    """Returns True if a question asks for a symbol: there `No` is nobelium, not a denial."""
    return _SYMBOLS.search(question) is not None


def _leading_zero(literal: str) -> bool:
    return literal[:1] == "0" and literal[1:2].isdecimal()

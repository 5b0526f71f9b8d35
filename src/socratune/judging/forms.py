"""Numerals whose form carries the meaning (versions, codes, sections): an equal value may be another thing."""

from __future__ import annotations

import re

from socratune.judging.quantities import Quantity

_NAMES = re.compile(
    r"""\b(?: versions? | releases? | firmware | python | ubuntu | android | ios | macos | windows | kernel | php | java
      | sections? | chapters? | clauses? | subsections? | paragraphs? | verses? | articles? | appendix
      | codes? | zip | zip-?codes? | postcodes? | pin | passwords? | passcodes? | (?:tele)?phones? | dial\w* | extension
      | serial | isbn | issn | doi | iban | sku | barcode | registration | licen[cs]e | account\ number
      | (?:room|flight|gate|platform|bus|route|highway|agent|ticket|order|case|invoice|model|part|catalog\w*|jersey
        |apartment|house|bib|track|item|reference|customer|member|student|employee|id)\ (?:number|no\b|nr\b|id\b|\#)
      | ids? | identifiers? | binary | hex\w* | octal | ipv?[46]? | octets? | (?:time|key)\ signatures? | meters?\ of
      | what\ time | which\ time | o'clock | clock | date | decade | bits?\ string
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
    r"""\b(?: signatures? | meter | metre | beats? | score\w* | odds | ratios? | blood\ pressure | vision | aspect
      | date | scale | gear | f-stop | aperture | tyre | tire | proportions? | tally | record | fraction\ strip
      | takt\w* | blutdruck | verhältnis | maßstab | spielstand | ergebnis\ des | mesure | tension | rapport | compás
      | marcador | proporción | razón )\b | 拍 | 比分 | 比例 | 血压""",
    re.VERBOSE | re.IGNORECASE,
)
_SYMBOLS = re.compile(
    r"\b(?:symbol|abbreviat\w*|formula|acronym|initials|country\ code|stands?\ for|written|notation|zeichen|abkürzung"
    r"|formel|symbole|abréviation|símbolo|abreviatura)\b|符号|缩写",
    re.IGNORECASE,
)


def other_form(question: str, right: Quantity, said: Quantity) -> str | None:
    """Why two numbers of equal value may still be two things, by how they are written; None where the value is all."""
    if right.literal == said.literal:
        return None
    if _leading_zero(right.literal) or _leading_zero(said.literal):
        return "a leading zero: perhaps a code"
    if is_name(question):
        return "the question asks for a name made of digits, and it is written in another way"
    if "fraction" in (right.form, said.form) and _PAIRED.search(question):
        return "a pair of numbers in another form"
    dotted = re.fullmatch(r"\d{1,3}\.\d\d0", right.literal) is not None and not right.unit
    if dotted and right.other is not None and said.other is None:
        return "the separator has two readings"
    return None


def is_name(question: str) -> bool:
    """Whether a question asks for digits that are a name (`Which version …?`), not for an amount."""
    return _NAMES.search(question) is not None and not _COUNTED.search(question)


def is_symbol(question: str) -> bool:
    """Whether a question asks for a symbol, where `No` is nobelium and no denial."""
    return _SYMBOLS.search(question) is not None


def _leading_zero(literal: str) -> bool:
    return literal[:1] == "0" and literal[1:2].isdecimal()

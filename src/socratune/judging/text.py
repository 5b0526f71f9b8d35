"""Reads an answer: its final statement, its numbers, its plain text. Judge and leak check share it."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from socratune.judging.quantities import changes_box

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
_FINAL = re.compile(
    r"""(?: \b(?:final\ answer | the\ answer | answer | result | (?:correct|right|best)\ (?:option|choice)
              | antwort | ergebnis | lösung | réponse | respuesta)(?:\ to\ [^.\n]{1,60}?)?\**\s*
            (?:is\b(?!n) | was\b(?!n) | ist\b | lautet\b | est\b | es\b | [:=：])
          | (?:答案|结果|結果)\s*(?:是|为|為|等于|等於|[:：]) )[\s:*：]*(?=(\S.{0,400}))""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_HASHES = re.compile(r"####\s*(.+)$", re.MULTILINE)
_THINK_OPEN, _THINK_CLOSE = re.compile(r"<think(?:ing)?>"), re.compile(r"</think(?:ing)?>")


def normalise(text: str) -> str:
    """Returns the text in lower case with single spaces, without surrounding punctuation, articles or markup."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"[*_`$\"“”]", "", text)
    text = re.sub(r"\s+", " ", text).strip(" .,;:!?()[]")
    return re.sub(r"^(?:the|a|an)\s+", "", text)


def parse_number(text: str) -> Fraction | None:
    """Returns the value of a text that is one number (`1,234`, `3/4`, `-0.5`, `−7`), otherwise None."""
    if text.isdecimal() and text.isascii() and len(text) < 400:  # as most are; `Fraction` of a text is slow
        return Fraction(int(text))
    text = text.strip().replace("−", "-")
    text = re.sub(r"(?<=\d)[,\u202f\u00a0' ](?=\d{3})", "", text)
    if len(text) > 400:  # nobody's answer, and int() is quadratic
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def numbers_in(text: str) -> list[Fraction]:
    """Returns the numbers that a text states, in order. Digits inside words or codes (`B12`) are ignored."""
    numbers = (parse_number(match.group().strip()) for match in NUMBER.finditer(text))
    return [number for number in numbers if number is not None]


def loose_numbers_in(text: str) -> set[Fraction]:
    """Returns every run of digits in a text, also inside words, for the leak check."""
    plain = re.sub(r"(?<=\d)[,\u202f\u00a0' ](?=\d{3})", "", text)
    return {Fraction(match) for match in _LOOSE_NUMBER.findall(plain) if len(match) <= 400} | set(numbers_in(text))


@lru_cache(maxsize=64)  # several questions are asked of one text in a row
def final_answer(text: str) -> str:
    r"""Returns the part of an answer that states the result: `\boxed{…}`, `#### …`, `The answer is …`, or its last
    line.
    """
    text = strip_thinking(text)
    if boxes := boxed_in(text):
        return boxes[-1][0].strip()
    for pattern in (_HASHES, _FINAL) if "#" in text or _MARK.search(text) else ():
        if statements := pattern.findall(text):
            return statements[-1].strip()
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def final_number(text: str) -> Fraction | None:
    """Returns the number that a text gives as its result: the last in its final statement, behind the last `=`."""
    numbers = numbers_in(final_answer(text).rsplit("=", 1)[-1])
    return numbers[-1] if numbers else None


def is_numeric_answer(text: str) -> bool:
    """Returns True if a reference is a number or a statement that ends in a number (`15 * 13 = 195.`, `195 pens`).

    A sentence that only happens to hold a number (`It was signed in 1648 in Münster by ten envoys.`) is not.
    """
    words = NUMBER.split(final_answer(text).rsplit("=", 1)[-1])
    return len(words) == 2 and len(re.findall(r"\w+", "".join(words))) <= 2


def strip_thinking(text: str) -> str:
    """Returns the text behind the last think block. Text inside or before a think block is no answer."""
    return _THINK_CLOSE.split(text)[-1] if "</think" in text else text


def still_thinking(text: str) -> bool:
    """Returns True if a think block was opened and never closed: the answer has not begun."""
    return "<think" in text and _THINK_OPEN.search(strip_thinking(text)) is not None


def boxed_in(text: str) -> list[tuple[str, int]]:
    r"""Returns the content and the end of every `\boxed{…}` with balanced braces."""
    boxes = []
    start = text.find("\\boxed{")
    while start >= 0:
        depth, end = 1, start + 7
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        if depth:
            break
        boxes.append((text[start + 7 : end - 1], end))
        start = text.find("\\boxed{", end)
    return boxes


# --- plain text ----------------------------------------------------------------------------------------------------

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5"}
_VULGAR |= {"⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8"}
_LATEX_WORDS = {
    "times": "×", "cdot": "×", "div": "/", "pm": "±", "approx": "≈", "neq": "≠", "ne": "≠", "leq": "≤", "le": "≤",
    "geq": "≥", "ge": "≥", "left": "", "right": "", "circ": "°", "degree": "°", "pi": "π", "infty": "∞", "quad": " ",
    "rightarrow": "=", "implies": "=", "Rightarrow": "=", "displaystyle": "", "lbrace": "{", "rbrace": "}",
    "qquad": " ", "therefore": " ", "checkmark": "", "blacksquare": "", "square": "", "Box": "",
    "large": "", "Large": "", "bf": "", "rm": "",
}  # fmt: skip
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*(-?\d+)\s*\}\s*\{\s*(-?\d+)\s*\}|(\d)\s*(\d))")
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf)?|math(?:rm|bf|it|sf|tt)|mbox|fbox|emph|underline|operatorname|boxed)\s*\{([^{}]*)\}"
)


def unbold(text: str) -> str:
    """Returns the text without Markdown's stars. `2**10` and `2*3` keep theirs."""
    text = re.sub(r"(?<![\w)])\*\*|\*\*(?![\w(])", "", text)
    return re.sub(r"(?<![\w*)])\*([^\W\d][^*\n]*|\S[^*\n]*\S|\w)\*(?![\w*(])", r"\1", text)


_DRESS = re.compile(r"[*`\\$]|[!<>=]=|=>|\{,\}|[^\x00-\x7f]")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_REORDERED = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Marks that change the direction of a text: a reader sees something else than the characters say."""
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
_CJK_EDGE = re.compile(rf"(?<=[{_CJK}])(?=[-+]?[\d$A-Za-z])|(?<=[\dA-Za-z%])(?=[{_CJK}])")
_CJK_SIGNS = str.maketrans("。，：；（）＝？！", ".,:;()=?!")


@lru_cache(512)  # a rule asks for the statement that the rule before it has read
def plain_text(text: str) -> str:
    r"""Returns the text without Markdown and LaTeX formatting: `**\frac{1}{2}**` is `1/2`, `x²` is `x^2`."""
    if not _DRESS.search(text):
        return text.strip()
    if "*" in text:
        text = unbold(text)
    if "`" in text:
        text = text.replace("`", "")
    if "\\" in text:
        text = _unlatex(text)
    if "{,}" in text:
        text = text.replace("{,}", ",")
    if "$" in text:  # $…$ around a formula; the one before a price stays
        text = re.sub(r"\$\$?(?!\s)([^$\n]*?[^\s$])\$\$?(?!\d)", r"\1", text)
    if not text.isascii():
        text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda run: "^" + run.group().translate(_SUPERSCRIPTS), text)
        for sign, fraction in _VULGAR.items():
            if sign in text:
                text = re.sub(rf"(?<=\d)\s?{sign}", f" {fraction}", text).replace(sign, fraction)
        text = text.replace("⁄", "/").replace("−", "-").replace("’", "'")
        text = _CJK_EDGE.sub(" ", _INVISIBLE.sub("", text).translate(_CJK_SIGNS))  # 答案是7 has no space
    if "=" in text:
        text = text.replace("!=", "≠").replace("<=", "≤").replace(">=", "≥").replace("=>", "=").replace("==", "=")
    return text.strip()


def _unlatex(text: str) -> str:
    text = re.sub(r"\\\(|\\\)|\\\[|\\\]", "", text)
    text = text.replace("\\%", "%").replace("\\{", "{").replace("\\}", "}")
    text = re.sub(r"\\sqrt\s*(\w)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<=\d)\\[,!;: ](?=\d{3})", "", text)
    text = re.sub(r"\\[,!;: ]", " ", text)
    for _ in range(3):
        text = _WRAPPER.sub(_unwrapped, _FRACTION.sub(_written_fraction, text))
    text = re.sub(r"\^\s*(?:\{\s*)?\\(?:circ|degree)\s*\}?", "°", text)
    text = re.sub(r"\\([A-Za-z]+)(?![A-Za-z])", lambda word: _LATEX_WORDS.get(word.group(1), word.group()), text)
    return re.sub(r"(?<!\s)\s+\^", "^", text.replace("\\$", "$"))


def _unwrapped(match: re.Match[str]) -> str:
    before, after = match.string[max(0, match.start() - 1) : match.start()], match.string[match.end() : match.end() + 1]
    return " " * before.isalnum() + match.group(1).strip() + " " * after.isalnum()


def _written_fraction(match: re.Match[str]) -> str:
    above, below = match.group(1) or match.group(3), match.group(2) or match.group(4)
    mixed = match.string[max(0, match.start() - 1) : match.start()].isdigit()  # 1\frac{1}{2}
    apart = " " if mixed else ""
    return f"{apart}{above}/{below}"


_FACTORIAL = re.compile(r"(?:\d|[)\]}]|(?<![^\W\d])[a-z])!+$", re.IGNORECASE)
_ELLIPSIS = re.compile(r"\d(?:\.\.\.|…)$")
_QUOTES = str.maketrans("", "", '"“”„«»')


@lru_cache(512)
def canonical(text: str, fold: bool = True) -> str:
    """Returns a form that equal answers share: plain, lower case, single spaces, no article and no final stop.

    Signs, decimal points, operators and brackets stay, as they carry meaning in an answer.
    """
    text = plain_text(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = " ".join((text.casefold() if fold else text).translate(_QUOTES).split())
    text = text if text.startswith("::") else text.lstrip(" ,;:")  # ::1 is an address
    text = text if _ELLIPSIS.search(text) else text.rstrip(" ,;:.")
    if text.endswith("!") and not _FACTORIAL.search(text):
        text = text.rstrip("!")
    if text.startswith("(") and text.endswith(")") and text.count("(") == 1 and "," not in text:
        text = text[1:-1].strip()
    article, _, rest = text.partition(" ")
    return rest if rest and article in ("the", "a", "an", "The", "A", "An") else text


# --- the final statement -------------------------------------------------------------------------------------------

UNSURE = re.compile(
    r"""\b(?:not | never | if | whether | unless | doubt | suppos\w* | assum\w* | claim\w* | why | say | says | said
      | thought | nicht | kein\w* | nie | wenn | falls | ob | behaupt\w* | ne | pas | jamais | si )\b
      | n['’]t\b | [不没沒若] | 如果""",
    re.VERBOSE | re.IGNORECASE,
)
_RETRACTION = re.compile(
    r"""\b(?:wait | actually | however | but | alternatively | maybe | perhaps | might | could\ (?:also\ )?be
      | not\ sure | unsure | mistake | correction | sorry | no(?=,) | scratch | second\ thought | instead | should\ be
      | re-?check | or
      | (?:that|this|it)(?:['’]s|\ is|\ was)\ (?:wrong|incorrect|not|false) | (?:is|am)\ wrong
      | moment(?=[,!.]) | warte | doch | aber | jedoch | oder | vielleicht | eigentlich | sondern | fehler | falsch
      | stimmt\ nicht
      | attends | mais | ou | peut-être | plutôt | pero | espera | quizás )\b
      | 等等 | 但 | 或 | 也许 | 也許 | 可能 | 其实 | 其實 | 不对 | 不對 | 错 | 錯 | 应该 | 應該""",
    re.VERBOSE | re.IGNORECASE,
)
_MARK = re.compile(
    r"[Aa]nswer|[Rr]esult|[Oo]ption|[Cc]hoice|ANSWER|RESULT|OPTION|CHOICE"
    r"|[Aa]ntwort|[Ee]rgebnis|[Ll]ösung|[Rr]éponse|[Rr]espuesta|答案|结果|結果"
)
_HEADING = re.compile(
    r"\W*(?:final answer|answer|result|solution|output|conclusion|antwort|ergebnis|lösung|答案)\W*", re.IGNORECASE
)
SENTENCE_END = re.compile(r"(?<=[.!?])[*)\"”]*\s+(?=[A-ZÀ-Þ(*])|(?<=[。！？])\s*(?=\S)")


NEGATION = re.compile(
    r"""\b(?:not | never | neither | nor | cannot | wrong | incorrect | false | untrue | unlike | except | rather\ than
      | instead\ of | refus(?:e|es|ed|al) | hardly | barely | scarcely | doubt(?:s|ed)?\ (?:it|that|the|if|whether)
      | (?:anything|everything)\ but | other\ than
      | nicht | kein\w* | nie | niemals | weder | falsch | statt | sondern | ne | pas | jamais | faux
      | no\ (?=[^\W\d]) | nunca | fals[oa] )\b
      | n['’](?:t|est|y|a)\b | [不没沒非错錯] | ない | ません""",
    re.VERBOSE | re.IGNORECASE,
)
"""A denial in the languages that rules read: English, German, French, Spanish, Chinese and Japanese."""


class Statement(NamedTuple):
    r"""Holds where an answer states its result.

    Attributes:
        text: the statement.
        plain: the same without Markdown and LaTeX dress.
        tail: what the answer says after it.
        marked: `\boxed{…}`, `#### …` or `The answer is …`; else it is only the last line.
        doubtful: it is denied, put as a condition, taken back afterwards, still being thought about, or there are
            several different ones.
        whole: the whole answer, without Markdown's stars unless a box marks the statement.
        raw: the whole answer as it stands behind its thinking.
        unreadable: why nobody can read an answer here, whatever the statement; else empty.
    """

    text: str
    plain: str
    tail: str
    marked: bool
    doubtful: bool
    whole: str
    raw: str
    unreadable: str


LONGEST, LONGEST_STATEMENT = 20_000, 500
"""Characters that rules read: of an answer behind its thinking, and of its final statement."""


def statement_of(answer: str) -> Statement:
    """Returns everything that a rule needs of an answer: the text behind its thinking, and its final statement."""
    if len(answer) > LONGEST and (close := answer.rfind("</think")) >= 0:  # thinking is long, and no rule reads it
        before = answer[: max(0, answer.find("<think"))].strip()
        answer = f"{before[:1]}<think>{answer[close:]}"
    if len(answer) > LONGEST + 100:
        too_long = f"longer than the {LONGEST:,} characters that rules read"
        return Statement("", "", "", False, True, "", strip_thinking(answer).strip(), too_long)
    return _read_statement(answer)


@lru_cache(512)  # a reference is read again for every answer that is judged by it
def _read_statement(answer: str) -> Statement:
    raw = strip_thinking(answer).strip()
    text, tail, marked, doubtful, whole = _stated(raw)
    if len(text) > LONGEST_STATEMENT and not marked:
        text = SENTENCE_END.split(text)[-1]
    unreadable = ""
    if still_thinking(answer):
        doubtful, unreadable = True, "the think block was never closed: there is no answer yet"
    elif not raw and (opened := _THINK_OPEN.search(answer)) and answer[: opened.start()].strip():
        unreadable = "nothing stands behind the last think block"
    elif _REORDERED.search(raw):
        unreadable = "direction marks: a reader sees another text"
    if len(text) > LONGEST_STATEMENT:
        text, doubtful = text[:LONGEST_STATEMENT], True
    return Statement(text, plain_text(text), tail, marked, doubtful, whole, raw, unreadable)


def _stated(text: str) -> tuple[str, str, bool, bool, str]:
    """Returns a statement's text, tail, marked, doubtful and whole."""
    if boxes := boxed_in(text):
        several = len(boxes) > 50 or len({plain_text(content).replace(" ", "") for content, _ in boxes}) > 1
        content, end = boxes[-1]
        start = end - len(content) - len("\\boxed{}")
        changed = changes_box(text[max(0, start - 40) : start], text[end : end + 40])
        return content, text[end:], True, several or changed or taken_back(text[end:]), text
    if "*" in text:
        text = unbold(text)
    if "####" in text and (marks := list(_HASHES.finditer(text))):
        return _marked(text, marks, False)
    if _MARK.search(text) and (marks := list(_FINAL.finditer(text))):
        return _marked(text, marks, True)
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1].strip() if lines else ""
    before = lines[-2].strip() if len(lines) > 1 else ""
    # "195\n180" gives two answers; "Answer:\n195" and "… = 45\n195." give one
    bare = bool(before) and before[-1] not in ".:;!,=" and "=" not in before and not _HEADING.fullmatch(before)
    several = bare and len(before.split()) <= 3 and len(last.split()) <= 3
    return last, "", False, several, text


def _marked(text: str, marks: list[re.Match[str]], worded: bool) -> tuple[str, str, bool, bool, str]:
    match = marks[-1]
    first, rest = first_sentence(match.group(1))
    tail = rest + text[match.end(1) :]
    lead = SENTENCE_END.split(text[: match.start()].rsplit("\n", 1)[-1])[-1]
    others = {plain_text(first_sentence(other.group(1))[0]).strip(" .").casefold() for other in marks[-20:]}
    several = len(others) > 1 and not (worded and match.group().casefold().startswith("final"))
    if several and _RETRACTION.search(text[marks[-2].start(1) : match.start()]):
        several = False  # "The answer is 180. No, wait: the answer is 195."
    unsure = worded and bool(lead) and UNSURE.search(lead) is not None and not _RETRACTION.search(lead)
    return first.strip(), tail, True, several or unsure or taken_back(tail), text


def first_sentence(text: str) -> tuple[str, str]:
    """Splits a text into its first sentence and the rest."""
    parts = SENTENCE_END.split(text, maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else ""


def taken_back(tail: str) -> bool:
    """Returns True if the text behind a statement takes it back or offers another (`Wait, …`, `or maybe …`)."""
    return bool(tail) and _RETRACTION.search(tail) is not None


def same_text(right: Statement, answer: Statement) -> bool:
    """Returns True if the answer, or its final statement, is the reference word for word."""
    # of a reference in several lines the last one alone is not the answer, unless it is marked as that
    texts = [right.raw, right.text] if right.marked else [right.raw]
    stated = [answer.raw] if answer.doubtful else [answer.raw, answer.text]
    pairs = ((left, other) for left in texts for other in stated if canonical(left) == canonical(other) != "")
    return any(caseless(left) == caseless(other) for left, other in pairs)


_TOKEN = re.compile(r"\w+")


def caseless(text: str) -> str:
    """Returns `canonical(text)` but keeps the case of words that another case would change.

    That is: symbols (`Co`, `CO2`, `x^2`), units (`MPa`), flags (`-a`) and names with digits. Words lose their case, and
    so does a letter or two among them: `vitamin c` is `Vitamin C`.
    """
    text = canonical(text, fold=False)
    if len(text) > LONGEST_STATEMENT:
        return text
    worded = re.search(r"[^\W\d_]{3}", text) is not None
    return _TOKEN.sub(lambda token: token.group() if _case_matters(token, worded) else token.group().casefold(), text)


def _case_matters(token: re.Match[str], worded: bool) -> bool:
    word, text = token.group(), token.string
    before, behind = text[max(0, token.start() - 2) : token.start()], text[token.end() : token.end() + 1]
    if not word.isalpha() or re.search(r"(?:^|[\s-])-$", before):
        return True
    if len(word) <= 2:
        return not worded or re.search(r"[^\s\"',;:]$", before) is not None or behind not in (*" ,;:!?.'\"", "")
    return len(word) <= 4 and word[1:] not in (word[1:].lower(), word[1:].upper())

"""Judges answers by rules. What rules cannot decide is undecided, and undecided never counts as wrong."""

from __future__ import annotations

import re

from socratune.judging.choices import options_in
from socratune.judging.forms import is_name, is_symbol
from socratune.judging.formulas import MathChecker, as_latex
from socratune.judging.guard import no_verdict, undecided_on_error
from socratune.judging.numeric import ASKS_FORM, by_number
from socratune.judging.quantities import measure, quantities_in
from socratune.judging.text import (
    LONGEST,
    LONGEST_STATEMENT,
    NEGATION,
    SENTENCE_END,
    UNSURE,
    Statement,
    canonical,
    caseless,
    first_sentence,
    plain_text,
    same_text,
    statement_of,
    taken_back,
)
from socratune.rows import Judgement, QARow

_LONGEST_QUESTION = 5_000
_math = MathChecker()


@undecided_on_error
async def mechanical_judge(row: QARow, response: str) -> Judgement:
    """Judges an answer as `rules/mechanical`: exact text, number, choice, formula; anything else is undecided."""
    question, reference = _shortened(row.question), row.reference
    judgement = judge_by_rules(question, reference, response)
    if judgement.verdict == "undecided" and (pair := _formulas(question, reference, response)):
        same = await _math.check_async(*pair)
        if same and not ASKS_FORM.search(question):  # "Factor x^2 - 1" wants a form, not a value
            return Judgement("correct", "math")
        both = pair[0] + pair[1]
        unclear = "log" in both or _FLAT_FRACTION.search(pair[1])  # log: of base 10 or e?
        unclear = unclear or (_ANGLE.search(both) and "\\pi" not in both and not _symbols(both))  # degrees?
        if same is False and not unclear:
            return Judgement("incorrect", "math", "the formulas differ by value")
    return judgement


def judge_by_rules(question: str, reference: str, response: str) -> Judgement:
    """Judges `response` by rules alone, in this order: exact text and lists, number, choice, yes or no."""
    try:
        return _judged(_shortened(question), reference, response)
    except Exception as error:  # a fault of a rule is no fault of the answer, nor of the run
        return no_verdict(error)


def _shortened(question: str) -> str:
    """Returns the part of a long question that rules read: its beginning, and its end with the options."""
    if len(question) <= _LONGEST_QUESTION:
        return question
    return f"{question[:1000]}\n{question[-_LONGEST_QUESTION:]}"


def _judged(question: str, reference: str, response: str) -> Judgement:
    right, answer = statement_of(reference), statement_of(response)
    if max(len(answer.raw), len(right.raw)) > LONGEST:
        same = answer.raw == right.raw
        return Judgement("correct" if same else "undecided", "exact", "" if same else "longer than rules read")
    if answer.unreadable:
        return Judgement("undecided", "exact", answer.unreadable)
    if not answer.raw:
        return Judgement("incorrect", "exact", "empty answer")
    if answer.raw == right.raw or same_text(right, answer):
        return Judgement("correct", "exact")
    if not answer.whole.strip():  # `**`
        return Judgement("undecided", "exact", "nothing but marks")
    for rule in (_by_list, by_number, _by_choice, _by_polarity):
        if judgement := rule(question, right, answer):
            return judgement
    return Judgement("undecided", "exact", "texts differ, and rules cannot tell whether they mean the same")


_WRONG = ("1234567.25", "9871, 9872, 9873", "yes", "no", "true", "false")
"""Answers of every form that rules can call wrong. No reference equals all of them."""


def can_judge(question: str, reference: str) -> bool:
    """Returns True if rules can tell right from wrong here: they accept the reference and reject some other answer.

    Of a name or a sentence they know the very words only: everything else stays undecided, so that no hint is asked
    for, and the proof has gaps.
    """
    if judge_by_rules(question, reference, reference).verdict != "correct":
        return False
    others = (*_WRONG, *options_in(question))
    if any(judge_by_rules(question, reference, other).verdict == "incorrect" for other in others):
        return True
    return _math.installed and _formulas(question, reference, "x^{17}+9871") is not None


# --- lists and sets ------------------------------------------------------------------------------------------------

_ORDERED = re.compile(
    r"\b(?:order|sort|sequence|next|ascend|descend|arrange|coordinate|point|pair|respectively|rank|first|begin|start)"
    r"|\band\s+(?:in\s+)?(?:which|what|when|who|where|how)\b|\bfrom\b.*\bto\b",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"[,;{±]|\s(?:and|or|&)\s")


def _by_list(question: str, right: Statement, answer: Statement) -> Judgement | None:
    """Judges lists and sets by their members. Order counts if the brackets or the question make it matter."""
    if answer.doubtful or (wanted := _members(right.plain)) is None:
        return None
    listed = _tuple_in(answer.plain) if wanted[0] else answer.plain
    if (stated := _members(listed)) is None:
        return None
    exact = is_name(question)
    if exact:
        wanted, stated = _members(right.plain, exact=True) or wanted, _members(listed, exact=True) or stated
    kind, other_kind = wanted[0], stated[0]
    brackets = {kind, other_kind} - {""}
    if len(brackets) > 1 or (kind != other_kind and (_INTERVAL.search(question) or brackets & _HALF_OPEN)):
        return Judgement("undecided", "exact", "other brackets")  # a set against a tuple, open against closed
    if kind != other_kind and "{}" not in brackets and _JOINED.search(listed if kind else right.plain):
        return Judgement("undecided", "exact", "a pair, or two answers?")  # (1, 2) and `1 or 2`
    if wanted[1] == stated[1]:
        return Judgement("correct", "exact")
    return _other_members(question, wanted, stated, exact=exact)


def _other_members(
    question: str, wanted: tuple[str, list[str]], stated: tuple[str, list[str]], *, exact: bool
) -> Judgement | None:
    """Returns the verdict on a list with other members or in another order, or None if rules cannot tell."""
    (kind, members), (other_kind, others) = wanted, stated
    brackets = {kind, other_kind} - {""}
    curly = "{}" in brackets
    ordered = not curly if brackets else _ORDERED.search(question) is not None
    vectors_differ = brackets and kind == other_kind and _other_vector(members, others) and not exact
    if sorted(members) == sorted(others) or (curly and set(members) == set(others)):
        if not ordered:
            return Judgement("correct", "exact", "in another order")
        surely = vectors_differ and _ONE_ORDER.search(question)
        return Judgement("incorrect", "numeric", "in another order") if surely else None
    if exact or not all(re.fullmatch(r"(?:\w=)?-?[\d/]+", member) for member in members + others):
        return None
    return Judgement("incorrect", "numeric", "other members") if curly or not brackets or vectors_differ else None


def _tuple_in(text: str) -> str:
    """Returns the pair at the end of a sentence that does not deny it, otherwise the text."""
    match = _TUPLE_SAID.fullmatch(text)
    return match.group(1) if match and not NEGATION.search(text) and not UNSURE.search(text) else text


def _other_vector(right: list[str], stated: list[str]) -> bool:
    """Returns True if whole coordinates differ in more than a factor, as a multiple may be the same direction."""
    if len(right) != len(stated) or not all(re.fullmatch(r"-?\d{1,9}", member) for member in right + stated):
        return False
    first, second = [int(member) for member in right], [int(member) for member in stated]
    return any(a * d != b * c for a, b in zip(first, second, strict=True) for c, d in zip(first, second, strict=True))


_HALF_OPEN = {"[)", "(]", "]["}
_JOINED = re.compile(r"\s(?:and|or|&)\s")
_ONE_ORDER = re.compile(
    r"\b(?:point|vertex|midpoint|centroid|coordinates|ordered (?:pair|triple)|vector|cross product|sort\w*|ascending"
    r"|descending|print|returns?|Punkt|Scheitelpunkt|Koordinaten|sommet)\b|\(x, ?y(?:, ?z)?\)",
    re.IGNORECASE,
)
"""Words of a question whose answer is a pair or list in one order only."""
_TUPLE_SAID = re.compile(
    r"(?:[^\W\d]|[ ,'*:=]){1,80}(?:\b(?:is|are|at|point|vector)|[:=])[ *]{0,3}"
    r"([(\[⟨][^()\[\]⟨⟩{}a-z]{3,100}[)\]⟩])[ .*]{0,9}",
    re.IGNORECASE,
)
"""Matches a sentence that ends in a pair: `The vertex is (2, 3).`"""
_INTERVAL = re.compile(r"\binterval|\bdomain\b|\brange\b|\breal numbers\b|\bintervalle|区间", re.IGNORECASE)
_ENCLOSED = {"()", "[]", "{}", "[)", "(]", "][", "[[", "]]", "⟨⟩", "〈〉", "<>"}


def _members(text: str, *, exact: bool = False) -> tuple[str, list[str]] | None:
    """Returns the brackets and the members of a list of short items, or None.

    Args:
        exact: members are names, so that a number among them is kept as it is written.
    """
    if len(text) > 300 or not _SEVERAL.search(text := text.rstrip(" .")) or "\n" in text:
        return None
    bracket = ""
    if len(text) > 2 and text[0] + text[-1] in _ENCLOSED:
        bracket, text = text[0] + text[-1], text[1:-1]
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
    names = {match.group(1) for item in items if (match := re.match(r"([^\W\d])\s*=", item.strip()))}
    members = []
    for item in items:
        short = item.strip()
        if len(names) == 1:
            short = re.sub(r"^[^\W\d]\s*=\s*", "", short)
        short = re.sub(r"\s*=\s*", "=", short)
        if not short or len(short.split()) > 3:
            return None
        numbers = quantities_in(short)
        alone = len(numbers) == 1 and numbers[0].kind == "plain" and numbers[0].end - numbers[0].start == len(short)
        by_value = alone and not numbers[0].unit and not exact and not re.match(r"-?0\d", short)
        members.append(str(numbers[0].value) if by_value else caseless(short))
    return bracket, members


# --- multiple choice -----------------------------------------------------------------------------------------------

_LETTER = re.compile(
    r"""^\W*(?:(?:[Oo]ption|[Aa]nswer|[Cc]hoice|[Ll]etter)\b\W*)?
    (?: \(([A-Za-z])\) | ([A-Za-z])(?=[).\]:](?:\s|$)|\W*$)
      | ([A-Z])(?=\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b)
      | ([A-HJ-Z])(?=\s+(?:because|since|as)\b|\s[-–—]|,) )""",
    re.VERBOSE,
)
_CHOSEN = re.compile(
    r"(?:\b(?:[Oo]ption|[Cc]hoice|choose|pick|select|go with)\s+|选择?\s*)\(?([A-HJ-Z](?![\w'])|I(?=[).:,]|\W*$))"
    r"|\b(?:[Ii]t['’]s|[Ii]t is)\s+\(?([B-HJ-Z](?![\w'])|I(?=[).:,]|\W*$))"
    r"|\b([B-Z])\s+is\s+(?:the\s+)?(?:correct|right)|\(([A-Z])\)\W*$"
)
"""`The option I prefer` names no option: the article and the pronoun stand before a word."""
_OTHER_LETTER = re.compile(r"(?<![\w'])([B-HJ-Z]|[AI](?!\s[a-z]))(?![\w'’])")
_REASON = re.compile(r"\b(?:because|since|as)\b|[.;]")
_DISMISSED = re.compile(r"\s+(?:is|are|was|were)\s+(?:too|less|more|also|only|\w+er)\b")


def _by_choice(question: str, right: Statement, answer: Statement) -> Judgement | None:
    """Judges multiple choice by the option's letter or by its text."""
    options = options_in(question)
    if not options:
        return None
    wanted = _choices(right.text, options)
    if len(wanted) != 1 or not wanted <= set(options):
        return None
    chosen = set() if answer.doubtful else _choices(answer.text, options)
    if not answer.marked and not answer.doubtful:
        first, rest = (answer.whole.splitlines()[0], "\n".join(answer.whole.splitlines()[1:]))
        sentence, more = first_sentence(first)
        if len(first) <= LONGEST_STATEMENT and not taken_back(more + rest):
            chosen |= _choices(sentence if more else first, options)
    if len(chosen) != 1 or not chosen <= set(options):
        return Judgement("undecided", "choice", "several options named" if len(chosen) > 1 else "no option named")
    verdict = "correct" if chosen == wanted else "incorrect"
    return Judgement(verdict, "choice", f"{min(chosen)}, expected {min(wanted)}")


def _choices(text: str, options: dict[str, str]) -> set[str]:
    """Returns the letters of the options that a statement names, by letter or by text."""
    text = plain_text(text).strip()
    if NEGATION.search(text) or text.endswith("?") or re.search(r"\b(?:or|either|both|oder)\b|或|还是", text):
        return {letter for letter, option in options.items() if canonical(option) == canonical(text)}
    match = _LETTER.match(text)
    if match and _may_be_option(letter := "".join(filter(None, match.groups())).upper(), options):
        named = {letter}
        rest = text[match.end() :].strip(" ).]:-–—")
        named |= set(_OTHER_LETTER.findall(_REASON.split(rest)[0])) & set(options)
        named |= {letter for letter, option in options.items() if canonical(option) == canonical(text)}
        return named | _by_text(canonical(rest), options, sole=False)
    named = {letter for groups in _CHOSEN.findall(text) if _may_be_option(letter := "".join(groups), options)}
    return named | _by_text(canonical(text), options, sole=True)


def _may_be_option(letter: str, options: dict[str, str]) -> bool:
    """Returns True if a letter can name an option, even a missing one. Letters behind H are also initials."""
    return letter in options or letter in "ABCDEFGH"


def _by_text(text: str, options: dict[str, str], *, sole: bool) -> set[str]:
    """Returns the letters of the options whose text equals a statement, begins it or ends it.

    Args:
        sole: nothing else names an option, so another one anywhere in the statement counts, too, and a number does.
    """
    names = {letter: canonical(option) for letter, option in options.items()}
    if same := {letter for letter, name in names.items() if name and name == text}:
        return same
    long = {letter: name for letter, name in names.items() if len(name) > 2}
    there = {letter for letter, name in long.items() if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)}
    edge = {letter for letter in there if text.startswith(long[letter]) or text.endswith(long[letter])}
    if there:
        starts = any(text.startswith(name) and _DISMISSED.match(text, len(name)) for name in long.values())
        return set() if starts or not edge else there if sole else edge
    return _by_value(text, options) if sole else set()


def _by_value(text: str, options: dict[str, str]) -> set[str]:
    """Returns the letters of the options that equal the number behind a statement's last `=`."""
    numbers = quantities_in(text.rsplit("=", 1)[-1])
    if len(numbers) != 1 or numbers[0].kind != "plain":
        return set()
    values = {letter: quantities_in(plain_text(option)) for letter, option in options.items()}
    wanted = [numbers[0].size]
    return {letter for letter, stated in values.items() if [quantity.size for quantity in stated] == wanted}


# --- yes or no -----------------------------------------------------------------------------------------------------

_POLAR = r"(yes|no|true|false|ja|nein|oui|non|是的|是|对|不是|不对|否)\b"
_POLAR_START = re.compile(
    rf"^\W*{_POLAR}(?=\s*(?:[.,;:!—–-]|$)|\s+(?:it|he|she|they|there|this|that)\b)", re.IGNORECASE
)
_POLAR_END = re.compile(
    rf"(?:^\W*(?:(?:so|therefore|thus|hence|answer|overall)\b[,:\s]*)*|\b(?:answer|statement|claim|it|this|that)\s+is\s+)"
    rf"{_POLAR}\W*$",
    re.IGNORECASE,
)
_ASKS_NAME = re.compile(r"\b(?:which|what|whose|who)\b(?!.*\byes\b)", re.IGNORECASE)
_AGREES = re.compile(
    r"\b(?:it|this|that|he|she|they)(?:['’]s| is| was| are| were) (?:not|false|wrong|incorrect)\b", re.IGNORECASE
)
"""Follows a *no* without contradicting it: `No, it is not.`"""
_ENGLISH = {"ja": "yes", "oui": "yes", "是": "yes", "是的": "yes", "对": "true"}
_ENGLISH |= {"nein": "no", "non": "no", "否": "no", "不是": "no", "不对": "false"}
_POSITIVE = {"yes": True, "true": True, "no": False, "false": False}


def _by_polarity(question: str, right: Statement, answer: Statement) -> Judgement | None:
    """Judges references that are yes, no, true or false by a clear word at the answer's start or in its statement."""
    wanted = _POLAR_START.match(right.plain) or _POLAR_START.match(plain_text(right.whole))
    if wanted is None or is_symbol(question) or (right.marked and not _POLAR_START.match(right.plain)):
        return None
    if right.plain == "NO" and _ASKS_NAME.search(question):  # nitric oxide
        return None
    words = _polar_words(answer, question)
    if answer.doubtful or len({_POSITIVE[word] for word in words}) != 1:
        return Judgement("undecided", "choice", "no clear yes or no")
    word, expected = words.pop(), _english(wanted)
    if {word, expected} not in ({"yes"}, {"no"}, {"yes", "no"}, {"true"}, {"false"}, {"true", "false"}) and (
        NEGATION.search(re.sub(r"(?i)true or false", "", question))
    ):
        return Judgement("undecided", "choice", "yes or no, true or false?")
    same = _POSITIVE[word] == _POSITIVE[expected]
    return Judgement("correct" if same else "incorrect", "choice", f"{word}, expected {expected}")


def _english(match: re.Match[str]) -> str:
    word = match.group(1).casefold()
    return _ENGLISH.get(word, word)


def _polar_words(answer: Statement, question: str) -> set[str]:
    words = set()
    first, rest = first_sentence(plain_text(answer.whole.splitlines()[0]))
    if start := _POLAR_START.match(first):
        word = _english(start)
        remainder = first[start.end() :]
        if re.search(rf"\b(?:and|or|but)\s+{_POLAR}|[,.;…]\s*{_POLAR}\W*$", remainder, re.IGNORECASE):
            return set()  # "Yes and no.", "Yes... no."
        if word == "no" and re.match(r"[^\w,]*\d", remainder):
            return set()  # "No. 5"
        if not _POSITIVE[word]:
            if _says_back(remainder, question):
                return set()  # "No, 91 is prime."
            remainder = _AGREES.sub("", remainder)
        if (_POSITIVE[word] and NEGATION.search(remainder)) or taken_back(remainder + " " + rest):
            return set()  # "Yes, it is not prime": which of the two?
        words.add(word)
    last = answer.plain if answer.marked else SENTENCE_END.split(answer.plain)[-1]
    end = (_POLAR_START.match(last) if answer.marked else None) or _POLAR_END.search(last)
    if end and not NEGATION.search(last[: end.start(1)] + last[end.end(1) :]):
        words.add(_english(end))
    return words


def _says_back(remainder: str, question: str) -> bool:
    """Returns True if the text behind a *no* repeats the question as a fact."""
    words = re.findall(r"\w+", remainder.casefold())
    return bool(words) and not NEGATION.search(remainder) and set(words) <= set(re.findall(r"\w+", question.casefold()))


# --- formulas --------------------------------------------------------------------------------------------------------

_FLAT_FRACTION = re.compile(r"^[^()]*(?:[a-z0-9]\s*[-+][^()]*/|/[^()]*[-+])[^()]*$", re.IGNORECASE)
"""`x+1/x-1` may mean (x+1)/(x-1)."""
_COMMAND = re.compile(r"\\[A-Za-z]+|sqrt|sin|cos|tan|log|ln|exp|pi", re.IGNORECASE)


def _coded(formula: str) -> bool:
    """Returns True if digits follow a letter or a leading zero: `B12`, `0x10`, `A-0042`."""
    return re.search(r"[^\W\d_]\d|(?<![\d.,])0\d", _COMMAND.sub(" ", formula)) is not None


def _symbols(formula: str) -> set[str]:
    """Returns the letters that the value of a formula depends on."""
    return set(re.findall(r"[^\W\d_]", _COMMAND.sub(" ", formula.rsplit("=", 1)[-1]))) - set("eiπ")


_ANGLE = re.compile(r"\b(?:sin|cos|tan)|\\(?:sin|cos|tan)")
_BARE = re.compile(r"[^\w√(){}\\|]*[\d.,]+[^\w√(){}\\|]*")


def _formulas(question: str, reference: str, response: str) -> tuple[str, str] | None:
    """Returns reference and answer as LaTeX if both are formulas whose values can be compared, otherwise None."""
    right, answer = statement_of(reference), statement_of(response)
    if answer.doubtful or answer.unreadable or right.unreadable or not answer.text:
        return None
    pair = as_latex(right.text), as_latex(answer.text)
    if not all(pair) or any(measure(number.unit) for text in pair for number in quantities_in(text)):
        return None
    stated, wanted = re.sub(r"\s", "", answer.plain), re.sub(r"\s", "", right.plain)
    if is_name(question) or not _comparable(stated, wanted):
        return None
    lists = [members[0] for part in (right.plain, answer.plain) if (members := _members(part))]
    if lists not in ([], ["{}", "{}"]):
        return None  # math-verify takes every list for a set
    if re.sub(r"[\\(){}.]", "", stated) in re.sub(r"[\s\\(){}.]", "", plain_text(question)):
        return None  # the question said back
    return pair


def _comparable(stated: str, wanted: str) -> bool:
    """Returns True if math-verify reads both correctly. It takes 1990s for 1990 and 3:4 for a quotient."""
    if _BARE.fullmatch(stated) and _BARE.fullmatch(wanted):
        return False  # two numbers: what the numeric rule leaves open stays open (70.000)
    if re.search(r"\d\}?_", stated + wanted):
        return False  # math-verify reads 10_2 as 10
    if _coded(stated) or _coded(wanted) or _symbols(stated) != _symbols(wanted):
        return False
    if re.search(r":|\d\.\d+\.\d", stated + wanted):
        return False
    if re.fullmatch(r"[\d.,+*/×·÷()^-]+", stated.rsplit("=", 1)[-1]) and quantities_in(wanted):
        return False  # a sum that was not done is no result
    brackets = wanted[:1] + wanted[-1:], stated[:1] + stated[-1:]
    # an interval against a pair, or another interval
    return brackets[0] == brackets[1] or "," not in wanted + stated or not re.search(r"[(\[]", wanted[:1] + stated[:1])

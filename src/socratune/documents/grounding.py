"""Checks that a draft follows from its passage: the evidence is in it letter for letter, the answer in the evidence.

A draft that cannot be checked is rejected, because a row that is not in the text teaches the model to make things up.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from socratune.documents.words import (
    EVERYDAY_STEMS,
    borne,
    content,
    folded_words,
    language_of,
    names_in,
    new_numbers,
    numbers_of,
    stem_of,
)
from socratune.documents.writing import TYPES, Draft
from socratune.judging import NUMBER_WORDS
from socratune.rows import Rejected

MOST_UNSUPPORTED = 1 / 8
"""The share of an answer's content words that may be missing from evidence and passage."""
MOST_UNSUPPORTED_ELSEWHERE = 1 / 3
"""The same in languages whose everyday words are not known here. Of three or fewer words, none may be missing."""
FEWEST_EVIDENCE_LETTERS = 8
FEWEST_WORDS_BEFORE = 2
"""The fewest content words of a question before its first "he" or "she"."""

_KEPT = re.compile(r"[^\W_]|[%$€£°]|(?<=\d)[.,:/](?=\d)|(?<![^\W_])[-−](?=\d)")
_OPPOSITES = (
    ("north", "south"), ("east", "west"), ("northern", "southern"), ("eastern", "western"), ("left", "right"),
    ("before", "after"), ("above", "below"), ("more", "less"), ("higher", "lower"), ("larger", "smaller"),
    ("longer", "shorter"), ("older", "younger"), ("older", "newer"), ("first", "last"), ("open", "closed"),
    ("opened", "closed"), ("always", "never"), ("increase", "decrease"), ("increases", "decreases"),
    ("increased", "decreased"), ("inside", "outside"), ("with", "without"), ("upper", "lower"), ("early", "late"),
    ("earlier", "later"), ("hot", "cold"), ("warmer", "colder"), ("minimum", "maximum"), ("forbidden", "allowed"),
    ("young", "old"), ("summer", "winter"), ("day", "night"), ("wet", "dry"), ("high", "low"), ("large", "small"),
    ("strong", "weak"), ("heavy", "light"), ("heavier", "lighter"), ("fast", "slow"), ("faster", "slower"),
    ("stronger", "weaker"), ("warm", "cold"), ("import", "export"), ("imports", "exports"), ("buys", "sells"),
    ("bought", "sold"),
)  # fmt: skip
_OPPOSITE: dict[str, set[str]] = {}
for _one, _other in _OPPOSITES:
    _OPPOSITE.setdefault(_one, set()).add(_other)
    _OPPOSITE.setdefault(_other, set()).add(_one)
_ORDINALS = frozenset(
    "second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()  # noqa: SIM905
)
_NEGATIONS = frozenset(
    """not never no nobody nothing none neither nor cannot without nicht nie kein keine keinen keiner keinem ohne
    ne pas jamais sans nunca sin""".split()  # noqa: SIM905
)
_TEXT = r"(?:passage|text|documents?|article|excerpt|paragraph|context|extract|snippet|source\ material|section\ above)"
_META = re.compile(
    rf"""\b(?: (?:according\ to|based\ on|as\ (?:per|stated|mentioned|described|noted|written)\ (?:in|by)
            | (?:stated|mentioned|described|given|provided|found|discussed|contained|listed)\ (?:in|by))
            \ (?:the|this|that|our|an?)\ (?:\w+\ )?{_TEXT}\b
        | (?:in|from|per|by|of)\ (?:the|this)\ (?:given|provided|above|following|present|supplied)\ (?:\w+\ )?{_TEXT}\b
        | (?:the|this|that)\ (?:(?:given|provided|above)\ )?{_TEXT}\ (?:above\ )?(?:says?|states?|stated|mentions?
            |mentioned|tells?|describes?|explains?|does|do|did|indicates?|notes?|provides?|gives?|above|refers?
            |discusses|is\ about)\b
        | (?:does|do|did|can)\ (?:the|this)\ (?:\w+\ )?{_TEXT}\ \w+
        | (?:in|from|within)\ (?:the|this)\ (?:passage|excerpt|snippet|extract|given\ text|above\ text)\b
        | (?:the|this)\ author\ (?:says?|states?|mentions?|describes?|claims?|argues?)
        | as\ (?:stated|mentioned|described|noted)\ above | (?:mentioned|stated|described)\ above
        | (?:laut|gemäß|nach)\ (?:dem|diesem)\ (?:\w+\ )?(?:text|abschnitt|dokument|artikel|auszug)\b
        | (?:im|in\ diesem)\ (?:text|abschnitt|auszug|dokument)\ (?:wird|steht|heißt|genannt|erwähnt)
        | (?:selon|d['’]après|dans)\ (?:le|ce|l['’]|cet)\ ?(?:texte|passage|document|article|extrait)\b
        | (?:según|en)\ (?:el|este)\ (?:texto|pasaje|documento|artículo|fragmento)\b )""",
    re.IGNORECASE | re.VERBOSE,
)
_UNKNOWN = re.compile(
    r"""\b(?:not|n't|no|never|unknown|unclear|nobody|nothing|nicht|kein\w*|nichts|unbekannt|ne|n['’]\w+|pas|aucun\w*|inconnu\w*
        |desconocid\w|ningun\w*)\b|n't\b|不|没|未""",
    re.IGNORECASE | re.VERBOSE,
)
_POINTING = frozenset(("he", "she", "him", "his", "hers"))
_INJECTION = re.compile(
    r"""(?: (?:ignore|disregard|forget|override)\ (?:\w+\ ){0,3}(?:previous|prior|above|earlier|preceding|your|system)
            \ (?:\w+\ ){0,2}(?:instruction|prompt|rule|message|direction|guideline)s?
        | \b(?:you\ are|act\ as|pretend\ to\ be|roleplay\ as)\ (?:now\ )?(?:an?\ )?(?:AI|ChatGPT|GPT|Claude|DAN
            |helpful\ assistant|language\ model)\b
        | \bas\ an?\ (?:AI|language\ model)\b | \b(?:system|developer)\ prompt\b | \bjailbreak
        | \bnew\ instructions?\s*:
        | \b(?:reply|respond|answer|output)\ (?:only\ )?with\ (?:the\ (?:word|text|json)\b|["'“{])
        | \b(?:do\ not|don't|stop)\ (?:write|generat|creat|ask|produc)\w*\ (?:any\ )?questions?\b
        | (?:instructions?|note)\ (?:to|for)\ (?:the\ )?(?:AI|LLM|model|assistant|language\ model)
        | ignorier\w*\ (?:\w+\ ){0,3}anweisung | ignore[zr]?\ (?:\w+\ ){0,3}instructions
        | ignora\ (?:\w+\ ){0,3}instrucciones
        | <\|[\w-]+\|> | \[/?INST\] | </?s> | </?think(?:ing)?> )""",
    re.IGNORECASE | re.VERBOSE,
)


_GIVEN = re.compile(
    r"""\b(?: (?:I|we)\ (?:was|were|am|are|(?:have|had)\ been)\ (?:given|told|shown|provided)
        | (?:given|provided|supplied)\ (?:information|material|content)\b
        | information\ (?:that\ (?:is|was)\ )?(?:given|provided|supplied)\b )""",
    re.IGNORECASE | re.VERBOSE,
)
_SOURCE = re.compile(
    r"""\b(?:the|this|that|these|those|given|provided)\ (?:\w+\ ){0,2}?(?P<noun>passage|text|document|section|excerpt
        |paragraph|sentence|source|article|snippet|extract|context|author|writer|material|chapter|page)s?\b
        (?!\ of\b)""",
    re.IGNORECASE | re.VERBOSE,
)
"""Mentions of a text, unless the text itself uses the word."""
_META_WORDS = (
    "passage", "text", "docum", "article", "excerpt", "paragraph", "snippet", "extract", "source", "section", "author",
    "above", "given", "told", "shown", "provided", "supplied", "sentence", "writer", "material", "chapter", "page",
    "abschnitt", "dokument", "artikel", "auszug", "extrait", "pasaje", "artículo", "fragmento",
)  # fmt: skip
_INJECTION_WORDS = (
    "instruc", "prompt", "ignor", "disregard", "forget", "override", "you are", "act as", "pretend", "roleplay",
    "as an ", "as a ", "jailbreak", "reply", "respond", "answer", "output", "question", "note", "<|", "[inst", "[/inst",
    "<s>", "</s>", "think",
)  # fmt: skip
"""A text without any of these is not searched for the whole pattern, which takes ten times as long."""


def injection_in(text: str) -> str | None:
    """Returns the words of a text that address the model that reads it, or None."""
    lower = text.casefold()
    if not any(word in lower for word in _INJECTION_WORDS):
        return None
    found = _INJECTION.search(lower)
    return found.group() if found else None


def fault_of(draft: Draft, passage: str) -> Rejected | None:
    """Returns why a draft cannot be a row, or None if it can. Its evidence has to be `located` first.

    Args:
        passage: the text that the writer received. For a question over several documents, all parts it may use.
    """
    if draft.type not in TYPES:
        return Rejected("unknown_type", draft.type[:40])
    if len(draft.question) < 5 or not draft.answer:
        return Rejected("incomplete", "no question or no answer")
    texts = (draft.question, draft.answer, draft.thinking)
    every = "\n".join((*texts, *draft.evidence)).casefold()
    if any(word in every for word in _META_WORDS):
        for text in texts[:2] if draft.type == "unanswerable" else texts:
            if found := _meta_talk(text, passage.casefold()):
                return Rejected("meta_talk", found)
    if found := _pointing_at_nobody(draft.question):
        return Rejected("unclear_reference", f"{found}, of nobody who is named")
    if found := injection_in(every):
        return Rejected("prompt_injection", found)
    if draft.type == "unanswerable":
        return _unanswerable_fault(draft, passage)
    if not draft.evidence or any(len(one) < FEWEST_EVIDENCE_LETTERS for one in draft.evidence):
        return Rejected("no_evidence", "none given, or too short to be one")
    return _answer_fault(draft, passage)


def _meta_talk(text: str, passage: str) -> str | None:
    """Returns words that mention the source and that the (folded) passage does not use itself, or None."""
    for pattern in (_META, _GIVEN):
        if (found := pattern.search(text)) and found.group().casefold() not in passage:
            return found.group()
    for found in _SOURCE.finditer(text):
        if found["noun"].casefold() not in passage:
            return found.group()
    return None


def _pointing_at_nobody(question: str) -> str | None:
    """Returns a pronoun that comes before any name or noun it could stand for, or None."""
    words = folded_words(question)
    at = next((at for at, word in enumerate(words) if word in _POINTING), None)
    if at is None or names_in(question):
        return None
    return None if len(content(" ".join(words[:at]))) >= FEWEST_WORDS_BEFORE else words[at]


def located(draft: Draft, passage: str) -> Draft | Rejected:
    """Returns the draft with its evidence as it stands in the passage, or the reason if it is not there."""
    found = []
    for stretch in draft.evidence:
        span = find(stretch, passage)
        if span is None:
            return Rejected("evidence_not_found", stretch[:100])
        found.append(passage[span[0] : span[1]])
    return replace(draft, evidence=tuple(found))


def find(stretch: str, passage: str) -> tuple[int, int] | None:
    """Returns where a part stands in the passage in whole words, or None.

    Letters, digits and signs of numbers have to be equal and adjacent. Spaces, quotes, hyphens and case may differ. A
    ratio of similarity would not do: an additional "not" in a long sentence leaves 98 of 100.
    """
    at = passage.find(stretch) if stretch else -1
    if at >= 0 and _whole_words(passage, at, at + len(stretch)) and any(map(str.isalnum, stretch)):
        return at, at + len(stretch)
    wanted, _ = _letters(stretch)
    there, places = _letters(passage)
    at = there.find(wanted) if wanted else -1
    while at >= 0:
        begin, end = places[at], places[at + len(wanted) - 1] + 1
        if _whole_words(passage, begin, end):
            return begin, end + (stretch.rstrip()[-1:] in ".!?" and passage[end : end + 1] in (".", "!", "?"))
        at = there.find(wanted, at + 1)
    return None


@lru_cache(maxsize=8)  # each passage is searched for the evidence of all its questions
def _letters(text: str) -> tuple[str, list[int]]:
    """Returns the letters, digits and signs of numbers of a text, folded, and the place of each."""
    found: list[str] = []
    places: list[int] = []
    for kept in _KEPT.finditer(text):
        for sign in unicodedata.normalize("NFKC", kept.group().replace("−", "-")).casefold():
            found.append(sign)
            places.append(kept.start())
    return "".join(found), places


def _whole_words(text: str, begin: int, end: int) -> bool:
    """Returns False if the part cuts a word or a number in two, as `in 187` cuts `in 1871`."""
    before = begin > 0 and text[begin - 1].isalnum() and text[begin].isalnum()
    number_goes_on = re.match(r"[.,]?\d", text[end : end + 2]) and text[end - 1].isdigit()
    after = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not (before or after or number_goes_on)


def _unanswerable_fault(draft: Draft, passage: str) -> Rejected | None:
    if draft.evidence:
        return Rejected("evidence_for_unanswerable", "it has evidence")
    if not _UNKNOWN.search(draft.answer):
        return Rejected("unanswerable_answered", "the answer does not say that it is not known")
    topic = set(content(draft.question))
    if not topic & set(content(passage)):
        return Rejected("off_topic", "the question shares no word with the passage")
    if extra := new_numbers(draft.answer, (draft.question, passage)):
        return Rejected("number_not_in_evidence", extra)
    return None


def _answer_fault(draft: Draft, passage: str) -> Rejected | None:
    """Returns why the answer does not follow from the evidence, as far as words show it."""
    evidence = " ".join(draft.evidence)
    known = (draft.question, evidence)
    if extra := new_numbers(draft.answer, known, derived=draft.type in _RECKONED):
        return Rejected("number_not_in_evidence", extra)
    said, told, asked = (set(folded_words(text)) for text in (draft.answer, evidence, draft.question))
    for word in _OPPOSITE.keys() & said - told:
        for opposite in _OPPOSITE[word] & told:
            if word not in asked or opposite in asked:  # else "not warmer", to a question for what is warmer
                return Rejected("says_the_opposite", f"{word} for {opposite}")
    if found := _turned_round(draft.answer, evidence):
        return Rejected("says_the_opposite", found)
    denied = _negations(folded_words(_SAID_FIRST.sub("", draft.answer)))
    if denied and draft.type != "hypothetical" and not _negations(told | asked):
        return Rejected("negation_not_in_evidence", ", ".join(denied))
    page = _page(passage)
    told_stems, asked_stems = page.title.union(map(stem_of, told)), set(map(stem_of, asked))
    for name in names_in(draft.answer) if page.capitals_tell else ():
        if not {stem_of(part) for part in folded_words(name)} <= told_stems | asked_stems:  # HP-40 has two
            return Rejected("name_not_in_evidence", name)
    own = [word for word in dict.fromkeys(content(draft.answer)) if stem_of(word) not in asked_stems]
    if page.language == "en":
        own = [word for word in own if stem_of(word) not in EVERYDAY_STEMS and word not in NUMBER_WORDS - _ORDINALS]
    if missing := _missing(
        own, told_stems, page, sure=bool(_SAID_FIRST.match(draft.answer) or numbers_of(draft.answer))
    ):
        return Rejected("answer_not_in_evidence", ", ".join(missing[:5]))
    chosen = draft.type == "comparison" or _SAID_FIRST.match(draft.answer)
    if not own and not chosen and said <= asked and not new_numbers(draft.answer, (draft.question,)):
        return Rejected("answer_in_question", "the question tells it already")
    return None


def _missing(own: list[str], told: frozenset[str], page: _Page, *, sure: bool) -> list[str]:
    """Returns the content words of an answer that nothing supports, if they are too many.

    A word elsewhere in the passage is enough, unless all words are elsewhere and nothing else (a yes, a no, a number of
    the evidence) makes the answer `sure`.
    """
    elsewhere = [word for word in own if not borne(stem_of(word), told)]
    missing = [word for word in elsewhere if not borne(stem_of(word), page.stems) or word in _ORDINALS]
    if elsewhere and elsewhere == own and not sure:
        return own
    if page.language == "en":
        return missing if len(missing) > MOST_UNSUPPORTED * len(own) or _ORDINALS & set(missing) else []
    few = len(own) <= 3 or len(missing) > MOST_UNSUPPORTED_ELSEWHERE * len(own)
    return missing if few or _ORDINALS & set(missing) else []


def _turned_round(answer: str, evidence: str) -> str | None:
    """Returns a comparison that reverses the evidence: `A is larger than B` for `B is larger than A`."""
    for said in _COMPARED.finditer(answer):
        for told in _COMPARED.finditer(evidence):
            if said["how"].casefold() != told["how"].casefold():
                continue
            left, right, first, second = (
                set(map(stem_of, content(part))) for part in (said["one"], said["other"], told["one"], told["other"])
            )
            if left - right and right - left and left - right <= second - first and right - left <= first - second:
                return f"{said['how']} than"
    return None


_COMPARED = re.compile(
    r"(?P<one>[^.!?;,]+?) (?P<how>\w+er|(?:more|less|fewer) \w+|more|less|fewer) than (?P<other>[^.!?;,]+)",
    re.IGNORECASE,
)
_RECKONED = ("comparison", "multi-hop", "hypothetical")
"""Types whose answer may contain a number that follows from two others."""
_SAID_FIRST = re.compile(r"(?:yes|no|ja|nein|oui|non|sí|si)\b", re.IGNORECASE)


def _negations(words: Iterable[str]) -> list[str]:
    return [word for word in words if word in _NEGATIONS or word.endswith(("n't", "n’t"))]


class _Page(NamedTuple):
    """Facts about a passage that are used often. `capitals_tell` is False for German, which capitalises all nouns."""

    language: str
    capitals_tell: bool
    stems: frozenset[str]
    title: frozenset[str]


@lru_cache(maxsize=8)
def _page(passage: str) -> _Page:
    language = language_of(passage)
    title = passage.lstrip().partition("\n")[0] if passage.lstrip().startswith("#") else ""
    stems, titled = (frozenset(map(stem_of, folded_words(text))) for text in (passage, title))
    return _Page(language, language != "de", stems, titled)

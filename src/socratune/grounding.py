"""Does a draft stand on its passage? The evidence is found in it letter for letter, the answer in the evidence.

What cannot be checked is rejected: a row that is not in the text would teach the model to make things up.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from socratune.language import language_of
from socratune.numberwords import NUMBER_WORDS, with_digits
from socratune.writing import TYPES, Draft

MOST_UNSUPPORTED = 1 / 3
"""Share of an answer's own words that may be in neither evidence nor passage; of three or fewer, none."""
FEWEST_EVIDENCE_LETTERS = 8

_WORD = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*")
_KEPT = re.compile(r"[^\W_]|[%$€£°]|(?<=\d)[.,:/](?=\d)|(?<![^\W_])[-−](?=\d)")
_DASH = str.maketrans("‐‑‒–—−’‘“”„«»", '------\'\'"""""')
_UNSUPPORTING = frozenset(
    """the a an of to in on at for by and or with from as into over under is are was were be been being it its they them
    their he she his her this that these those there then than so such which who whom whose what when where why how do
    does did has have had can could will would should may might must because if not no yes about also only both each
    every all one two more most very after before between during while up out off down
    time times year years day way kind stay stays stand stands take takes taken go goes come comes get gets make makes
    together roughly instead finally first last now still jahr zeit année año
    der die das ein eine einen einem einer und oder ist sind war waren wird werden von zu zum zur im in am an auf mit
    für aus bei nach durch den dem des sich er sie es weil wenn dass nicht auch
    le la les un une des et ou est sont était de du en au aux par pour avec dans sur il elle que qui ne pas car
    el los las una y o es son era del al por para con como su se lo no porque""".split()  # noqa: SIM905
)
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


_META_WORDS = (
    "passage", "text", "docum", "article", "excerpt", "paragraph", "snippet", "extract", "source", "section", "author",
    "above", "abschnitt", "dokument", "artikel", "auszug", "extrait", "pasaje", "artículo", "fragmento",
)  # fmt: skip
_INJECTION_WORDS = (
    "instruc", "prompt", "ignor", "disregard", "forget", "override", "you are", "act as", "pretend", "roleplay",
    "as an ", "as a ", "jailbreak", "reply", "respond", "answer", "output", "question", "note", "<|", "[inst", "[/inst",
    "<s>", "</s>", "think",
)  # fmt: skip
"""A text without any of these needs no look at the whole pattern: a tenth of the time."""


def injection_in(text: str) -> str | None:
    """What in a text speaks to the model that reads it, or None."""
    lower = text.casefold()
    if not any(word in lower for word in _INJECTION_WORDS):
        return None
    found = _INJECTION.search(lower)
    return found.group() if found else None


def fault_of(draft: Draft, passage: str) -> str | None:
    """Why a draft cannot be a row, `reason: words`; None where it can. Its evidence has to be `located` before.

    Args:
        passage: what the writer had, or for a question over several documents all stretches it may use.
    """
    if draft.type not in TYPES:
        return f"unknown_type: {draft.type[:40]}"
    if len(draft.question) < 5 or not draft.answer:
        return "incomplete: no question or no answer"
    texts = (draft.question, draft.answer, draft.thinking)
    every = "\n".join((*texts, *draft.evidence)).casefold()
    if any(word in every for word in _META_WORDS):
        for text in texts[:2] if draft.type == "unanswerable" else texts:
            if (found := _META.search(text)) and found.group().casefold() not in passage.casefold():
                return f"meta_talk: {found.group()}"
    if (found := _POINTING.intersection(_folded_words(draft.question))) and not names_in(draft.question):
        return f"unclear_reference: {', '.join(found)}, of nobody who is named"
    if found := injection_in(every):
        return f"prompt_injection: {found}"
    if draft.type == "unanswerable":
        return _unanswerable_fault(draft, passage)
    if not draft.evidence or any(len(one) < FEWEST_EVIDENCE_LETTERS for one in draft.evidence):
        return "no_evidence: none given, or too short to be one"
    return _answer_fault(draft, passage)


def located(draft: Draft, passage: str) -> Draft | str:
    """The draft with its evidence as it stands in the passage, letter for letter; or why there is none such."""
    found = []
    for stretch in draft.evidence:
        span = find(stretch, passage)
        if span is None:
            return f"evidence_not_found: {stretch[:100]}"
        found.append(passage[span[0] : span[1]])
    return replace(draft, evidence=tuple(found))


def find(stretch: str, passage: str) -> tuple[int, int] | None:
    """Where a stretch stands in the passage: every letter, digit and sign of a number the same and in a row, whatever
    spaces, quotes, hyphens and capitals between them. Whole words and whole numbers only.

    A ratio of similarity would not do: "not" more or a digit less in a long sentence leaves 98 of 100.
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


@lru_cache(maxsize=8)  # a passage is searched for the evidence of all its questions
def _letters(text: str) -> tuple[str, list[int]]:
    """The letters, digits and signs of numbers of a text, folded, and where each stands."""
    found: list[str] = []
    places: list[int] = []
    for kept in _KEPT.finditer(text):
        for sign in unicodedata.normalize("NFKC", kept.group().replace("−", "-")).casefold():
            found.append(sign)
            places.append(kept.start())
    return "".join(found), places


def _whole_words(text: str, begin: int, end: int) -> bool:
    """False where the stretch cuts a word or a number in two: `in 187` is not what `in 1871` says."""
    before = begin > 0 and text[begin - 1].isalnum() and text[begin].isalnum()
    number_goes_on = re.match(r"[.,]?\d", text[end : end + 2]) and text[end - 1].isdigit()
    after = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not (before or after or number_goes_on)


@lru_cache(maxsize=1 << 16)
def _folded(word: str) -> str:
    return unicodedata.normalize("NFKC", word).translate(_DASH).casefold()


@lru_cache(maxsize=1 << 10)
def _folded_words(text: str) -> tuple[str, ...]:
    return tuple(map(_folded, _WORD.findall(text)))


def _unanswerable_fault(draft: Draft, passage: str) -> str | None:
    if draft.evidence:
        return "evidence_for_unanswerable: it has evidence"
    if not _UNKNOWN.search(draft.answer):
        return "unanswerable_answered: the answer does not say that it is not known"
    topic = set(_content(draft.question))
    if not topic & set(_content(passage)):
        return "off_topic: the question shares no word with the passage"
    if extra := _new_numbers(draft.answer, (draft.question, passage)):
        return f"number_not_in_evidence: {extra}"
    return None


def _answer_fault(draft: Draft, passage: str) -> str | None:
    """Why the answer does not follow from the evidence, as far as words can tell."""
    evidence = " ".join(draft.evidence)
    known = (draft.question, evidence)
    if extra := _new_numbers(draft.answer, known):
        return f"number_not_in_evidence: {extra}"
    said, told, asked = (set(_folded_words(text)) for text in (draft.answer, evidence, draft.question))
    for word in _OPPOSITE.keys() & said - told:
        for opposite in _OPPOSITE[word] & told:
            if word not in asked or opposite in asked:  # else "not warmer", to a question for what is warmer
                return f"says_the_opposite: {word} for {opposite}"
    denied = _negations(_folded_words(_SAID_FIRST.sub("", draft.answer)))
    if denied and not _negations(told | asked):
        return f"negation_not_in_evidence: {', '.join(denied)}"
    told_stems, asked_stems = set(map(_stem, told)), set(map(_stem, asked))
    capitals_tell, around = _around(passage)
    for name in names_in(draft.answer) if capitals_tell else ():
        if _stem(name) not in told_stems | asked_stems:
            return f"name_not_in_evidence: {name}"
    own = [word for word in dict.fromkeys(_content(draft.answer)) if _stem(word) not in asked_stems]
    elsewhere = [word for word in own if _stem(word) not in told_stems]
    missing = [word for word in elsewhere if _stem(word) not in around or word in _ORDINALS or elsewhere == own]
    if missing and (len(own) <= 3 or len(missing) > MOST_UNSUPPORTED * len(own) or _ORDINALS & set(missing)):
        return f"answer_not_in_evidence: {', '.join(missing[:5])}"
    chosen = draft.type == "comparison" or _SAID_FIRST.match(draft.answer)
    if not own and not chosen and said <= asked and not _new_numbers(draft.answer, (draft.question,)):
        return "answer_in_question: the question tells it already"
    return None


_ONE_OR_TWO = re.compile(r"\b(?:one|two)\b", re.IGNORECASE)
_LISTED = re.compile(r"(?m)^\s*\d{1,2}[.)]\s")  # the numbers of a list are none of its content
_THOUSANDS = re.compile(r"(?<=\d)[,\u202f\u00a0](?=\d{3}\b)")
_NUMBER = re.compile(r"\d+(?:[.:]\d+)*")
_WITHIN = re.compile(r"(?<=[^\s.!?:\"“(] )\w[\w-]+")
_SAID_FIRST = re.compile(r"(?:yes|no|ja|nein|oui|non|sí|si)\b", re.IGNORECASE)


def _negations(words: Iterable[str]) -> list[str]:
    return [word for word in words if word in _NEGATIONS or word.endswith(("n't", "n’t"))]


def _new_numbers(answer: str, known: Iterable[str]) -> str:
    """The numbers of an answer that nothing known states, in words; digits of `31.` and `thirty-one` are the same."""
    if len(answer.split()) > 3:  # "the lower of the two", "a white one"
        answer = _ONE_OR_TWO.sub("", answer)
    stated = dict.fromkeys(_numbers(answer))
    there = {number for text in known for number in _numbers(text)} if stated else ()
    return ", ".join(number for number in stated if number not in there)


@lru_cache(maxsize=1 << 10)  # of an original and its siblings the evidence is the same
def _numbers(text: str) -> tuple[str, ...]:
    if not NUMBER_WORDS.isdisjoint(_folded_words(text)):
        text = with_digits(text)
    plain = _THOUSANDS.sub("", _LISTED.sub("", text))
    return tuple(number.lstrip("0") or "0" for number in _NUMBER.findall(plain))


def names_in(text: str) -> frozenset[str]:
    """The words with a capital that no sentence begins with, folded."""
    return frozenset(_folded(name) for name in _WITHIN.findall(text) if name[0].isupper())


@lru_cache(maxsize=8)
def _around(passage: str) -> tuple[bool, frozenset[str]]:
    """Whether capitals tell names (German writes all nouns so), and the stems of the passage's words."""
    return language_of(passage) != "de", frozenset(map(_stem, _folded_words(passage)))


def _content(text: str) -> list[str]:
    """The words that tell something, folded."""
    words = (word for word in _folded_words(text) if not word[0].isdigit())
    return [word for word in words if word not in _UNSUPPORTING and (len(word) > 2 or not word.isascii())]


_ENDINGS = (("s",), ("ing", "ed", "en"), ("ation", "er", "est", "ly"), ("e", "y", "i"))


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    """Of two forms of a word the same (`burns`, `burning`; `lit`, not `little`)."""
    word = word.removesuffix("'s").removesuffix("’s")
    for endings in _ENDINGS:
        for ending in endings:
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                word = word.removesuffix(ending)
                break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word

"""`rules/extract`: questions taken out of the sentences, mechanically. It knows forms, not meanings: no key, no model.

English sentences of a known form become wh-questions; any other, and any other language, becomes a gap to fill.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from socratune.documents.passages import sentences
from socratune.documents.words import language_of
from socratune.documents.writing import Draft, Task, Writer

GAP = "____"
_ASK_GAP = {
    "en": ("Which {kind} is missing? “{gapped}”", {"number": "number", "name": "name", "word": "word"}),
    "de": ("{kind} fehlt hier? „{gapped}“", {"number": "Welche Zahl", "name": "Welcher Name", "word": "Welches Wort"}),
    "fr": (
        "{kind} manque ici ? « {gapped} »",
        {"number": "Quel nombre", "name": "Quel nom", "word": "Quel mot"},
    ),
    "es": ("¿{kind} falta aquí? «{gapped}»", {"number": "Qué número", "name": "Qué nombre", "word": "Qué palabra"}),
}
_PRONOUNS = frozenset("it this that these those there he she they we i you its his her their our such here".split())  # noqa: SIM905
_POINTING = re.compile(r"\b(?:he|she|him|her|his|they|them|their)\b", re.IGNORECASE)
_BASE = {
    "has": "have", "had": "have", "holds": "hold", "held": "hold", "seats": "seat", "carries": "carry", "owns": "own",
    "keeps": "keep", "kept": "keep", "employs": "employ", "employed": "employ", "counts": "count",
    "contains": "contain", "needs": "need", "takes": "take", "took": "take", "uses": "use", "used": "use",
    "burns": "burn", "burned": "burn", "serves": "serve", "served": "serve", "covers": "cover", "sells": "sell",
    "produces": "produce", "produced": "produce", "weighs": "weigh", "costs": "cost", "lasts": "last",
    "runs": "run", "receives": "receive", "houses": "house", "lost": "lose", "bought": "buy", "sold": "sell",
}  # fmt: skip
_PAST = frozenset(
    "had held kept employed took used burned served produced lost bought sold".split()  # noqa: SIM905
)
_NAME = r"(?:[Tt]he )?[A-Z][\w'’-]*(?: (?:(?:of|the|de|von|van|del|da) )*[A-Z][\w'’-]*)*"
_THING = rf"(?:{_NAME}|(?:The|A|An|Each|Every) (?:[\w'’-]+ ){{0,3}}?[\w'’-]+)"
_DEFINED = re.compile(rf"(?P<x>{_THING}) (?P<v>is|are|was|were) (?P<d>(?:an?|the) [^;]+)\.")
_BY = re.compile(
    rf"(?P<x>{_THING}(?: of {_NAME})?) (?P<v>is|are|was|were) (?P<p>\w+) by (?P<y>{_NAME})"
    r"(?P<rest>(?: [a-z0-9][^;]*)?)\."
)
_WHEN = re.compile(
    rf"(?P<x>{_THING}(?: of {_NAME})?) (?P<v>was|were) (?P<p>\w+(?: by {_NAME})?) in (?P<year>1\d{{3}}|20\d\d)\b[^;]*\."
)
_MANY = re.compile(
    rf"(?P<x>{_THING}) (?P<v>{'|'.join(_BASE)}) (?P<about>(?:about|up to|at least|at most|nearly|over) )?"
    r"(?P<n>\d[\d,.]*\d|\d|[a-z]+) (?P<noun>[a-z]+(?: [a-z]+)?s)\b(?P<rest>[^;]*)\."
)
_SIZE = re.compile(
    rf"(?P<x>{_THING}) (?P<v>is|are|was|were) (?P<n>\d[\d,.]* (?:[a-z]+ )?"
    r"(?:metres?|meters?|years?|kilometres?|km|m|cm|mm|feet|tonnes?|hours?|minutes?|days?)) "
    r"(?P<a>tall|high|long|wide|deep|old|thick|heavy|away)\b[^;]*\."
)
_HOW = {"away": "far away"}
_THAN = re.compile(
    rf"(?P<x>{_THING}) (?P<v>is|are|was|were) (?P<a>(?:more|less) \w+|\w{{2,}}er) than (?P<y>{_NAME}|the [^,;.]+)\."
)
_BECAUSE = re.compile(r"(?P<main>[^;]+?),? because (?P<why>[^;]+)\.")
_BECAUSE_FIRST = re.compile(r"Because (?P<why>[^,;]+), (?P<main>[^;]+)\.")
_SO_THAT = re.compile(r"(?P<main>[^;]+?),? so that (?P<why>[^;]+)\.")
_IF = re.compile(r"(?:If|Whenever) (?P<case>[^,;]+), (?:then )?(?P<main>[^;]+)\.")
_ACTS = re.compile(
    rf"(?P<x>{_NAME}) (?P<predicate>(?!(?:of|and|or|in|at|on|with|to|for|by|is|was|are|were|has been)\b)"
    r"[a-z]+(?:s|ed|t|d|e|k|n|w|g)\b [^;]+)\."
)
_STEP = re.compile(r"(?m)^[ \t]*(\d{1,2})[.)][ \t]+(\S.*)$")
_NUMBER = re.compile(r"(?<![\w.,:-])\d[\d,.:]*\d(?![\w%])|(?<![\w.,:-])\d(?![\w.,:%])")
_MID_NAME = re.compile(r"(?<=[^\W_] )[A-Z][\w'’-]+(?: [A-Z][\w'’-]+)*")
_LONG_WORD = re.compile(r"(?<=\s)[^\W\d_A-Z]{5,}(?=[\s.,;])")

UNTOLD = {
    "weigh": "How much does {} weigh?", "nickname": "Which nickname does {} have?", "insur": "Who insures {}?",
    "song": "Which song is about {}?", "patron": "Who is the patron of {}?", "film movie": "Which film shows {}?",
    "telephone phone": "What is the telephone number of {}?", "portrait paint": "Who painted a picture of {}?",
}  # fmt: skip
"""Stems of words that tell it → a question that could be asked about any name."""
_UNKNOWN = "That is not known."


def mentioned(text: str) -> frozenset[str]:
    """The keys of `UNTOLD` that a document may tell something of."""
    lower = text.casefold()
    return frozenset(key for key in UNTOLD if any(stem in lower for stem in key.split()))


_INDEFINITE = re.compile(r"\b(?:[Tt]he|[Tt]hese|[Tt]hose|[Ii]ts|[Tt]heir) [a-z]")


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A sentence of a passage: as it stands there, and on one line."""

    evidence: str
    text: str
    names: frozenset[str]


def rules_extract(told_of: Callable[[str], frozenset[str]]) -> Writer:
    """The mechanical writer.

    Args:
        told_of: document → what `mentioned` finds in all of its text, so that nothing that another passage tells is
            called unknown.
    """

    async def write(task: Task) -> list[Draft]:
        found = list(drafts(task, told_of(task.passage.document)))
        found = [draft for draft in found if draft.type in task.wanted]
        order: list[Draft] = []
        for kind, count in task.wanted.items():
            order += [draft for draft in found if draft.type == kind][:count]
        order += [draft for draft in found if draft not in order and draft.type != "unanswerable"]
        return [replace(one, siblings=one.siblings[: task.siblings]) for one in order[: sum(task.wanted.values())]]

    return write


def drafts(task: Task, told: frozenset[str] = frozenset()) -> Iterator[Draft]:
    """All questions that the forms give to a passage, the best of each sentence first."""
    return (_placed(draft, task.title) for draft in _bare(task, told))


def _placed(draft: Draft, title: str) -> Draft:
    """With the document's title before a question that names nothing: without it, "the station" may be any."""
    siblings = tuple(_placed(one, title) for one in draft.siblings)
    bare = _INDEFINITE.search(draft.question) and not _MID_NAME.search(draft.question)
    return replace(draft, question=f"{title}: {draft.question}" if bare else draft.question, siblings=siblings)


def _bare(task: Task, told: frozenset[str]) -> Iterator[Draft]:
    passage = task.passage.text
    language = language_of(passage)
    spans = list(sentences(passage))
    some = [_sentence(passage[begin:end]) for begin, end in spans]
    prose = [one for one in some if one.text[-1:] in ".!?。" and len(one.text) < 400 and one.text[0] not in "|#->`"]
    every = frozenset(name for one in prose for name in one.names) | {task.title}
    gaps: list[Draft] = []
    if language == "en":
        yield from _procedures(passage, task)
    for one in prose:
        asked = list(_asked(one, every)) if language == "en" else []
        yield from asked
        gaps += list(_gapped(one, language))[: 1 if asked else 2]
    yield from gaps
    if language == "en":
        yield from _untold(prose, task, told)


def _sentence(evidence: str) -> _Sentence:
    text = " ".join(re.sub(r"\*\*|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)", "", evidence).split())
    text = re.sub(r"^(?:[-*•]|\d{1,2}[.)])\s+", "", text)
    return _Sentence(evidence, text, frozenset(_MID_NAME.findall(text)))


def _draft(kind: str, question: str, answer: str, one: _Sentence, *siblings: Draft) -> Draft:
    said = one.text if one.text.endswith((".", "!", "?")) else f"{one.text}."
    thinking = f"{said} So the answer is: {answer.rstrip('.')}."
    return Draft(kind, question, answer, thinking, (one.evidence,), "easy", siblings)


def _asked(one: _Sentence, names: frozenset[str]) -> Iterator[Draft]:
    """Wh-questions to one sentence, by its form."""
    text = one.text
    if text.split(" ", 1)[0].casefold() in _PRONOUNS:
        return
    if found := _BY.fullmatch(text):
        x, v, p, y = _inner(found["x"]), found["v"], found["p"], found["y"]
        back = _draft("reversal", f"What {v} {p} by {y}{found['rest']}?", found["x"], one)
        yield _draft("factual", f"By whom or what {v} {x} {p}?", y, one, back)
    if found := _WHEN.fullmatch(text):
        x, v, p = _inner(found["x"]), found["v"], found["p"]
        again = _draft("factual", f"When {v} {x} {p}?", found["year"], one)
        yield _draft("factual", f"In which year {v} {x} {p}?", found["year"], one, again)
    if found := _MANY.fullmatch(text):
        yield from _how_many(found, one)
    if found := _SIZE.fullmatch(text):
        how = f"How {_HOW.get(found['a'], found['a'])} {found['v']} {_inner(found['x'])}?"
        gap = _gap(one, found["n"].split(" ", 1)[0], "number", "en")
        yield _draft("factual", how, found["n"], one, *([gap] if gap else []))
    if found := _THAN.fullmatch(text):
        yield _comparison(found, one)
    if (found := _DEFINED.fullmatch(text)) and found["x"].split(" ", 1)[0].casefold() not in _PRONOUNS:
        x, v, d = _inner(found["x"]), found["v"], found["d"]
        back = _draft("reversal", f"Who or what {v} {d}?", found["x"], one)
        yield _draft("definition", f"Who or what {v} {x}?", text, one, back)
    elif (found := _ACTS.fullmatch(text)) and not _POINTING.search(text) and (" " in found["x"] or found["x"] in names):
        gapped = _gap(one, found["x"], "name", "en")
        yield _draft("reversal", f"Who or what {found['predicate']}?", found["x"], one, *([gapped] if gapped else []))
    yield from _reasons(one)


def _how_many(found: re.Match[str], one: _Sentence) -> Iterator[Draft]:
    x, v, noun, n = _inner(found["x"]), found["v"], found["noun"], found["n"]
    if not n[0].isdigit() and n not in _NUMBER_WORDS:
        return
    do = "did" if v in _PAST else "does"
    gap = _gap(one, n, "number", "en")
    answer, rest = f"{found['about'] or ''}{n}", found["rest"]
    if found_of := re.match(r" of (?:the |a |an )?[^\W\d_]+(?: [a-z]+(?=$|,))?", rest):  # nests of the storm tern
        noun, rest = noun + found_of[0], rest[found_of.end() :]
    yield _draft("factual", f"How many {noun} {do} {x} {_BASE[v]}{rest}?", answer, one, *([gap] if gap else []))


_NUMBER_WORDS = frozenset(
    "two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty".split()  # noqa: SIM905
)


def _comparison(found: re.Match[str], one: _Sentence) -> Draft:
    x, y, v, a = found["x"], found["y"], found["v"], found["a"]
    pair = sorted((_inner(x), _inner(y)), key=str.casefold)
    again = _draft("comparison", f"Than what {v} {_inner(x)} {a}?", y, one)
    return _draft("comparison", f"Which {v} {a}: {pair[0]} or {pair[1]}?", x, one, again)


def _reasons(one: _Sentence) -> Iterator[Draft]:
    """Why, what for, and what if."""
    if found := _BECAUSE_FIRST.fullmatch(one.text) or _BECAUSE.fullmatch(one.text):
        main, why = found["main"], found["why"]
        if _fit(main) and _fit(why):
            back = _draft("cause", f"What follows from this: {_inner(why)}?", _begun(main) + ".", one)
            yield _draft("cause", f"Why is it that {_inner(main)}?", f"Because {why}.", one, back)
    elif (found := _SO_THAT.fullmatch(one.text)) and _fit(found["main"]) and _fit(found["why"]):
        yield _draft("cause", f"For what purpose is it that {_inner(found['main'])}?", f"So that {found['why']}.", one)
    if (found := _IF.fullmatch(one.text)) and _fit(found["main"]) and _fit(found["case"]):
        main, case = found["main"], found["case"]
        back = _draft("reversal", f"In which case is this so: {main}?", f"If {case}.", one)
        question = f"What happens, or has to happen, if {case}?"
        yield _draft("hypothetical", question, _begun(main) + ".", one, back)


def _fit(clause: str) -> bool:
    """A clause that says by itself what it is about."""
    words = clause.split()
    return len(words) >= 3 and words[0].casefold() not in _PRONOUNS - {"there"}


def _inner(text: str) -> str:
    """As it stands within a sentence."""
    first, _, rest = text.partition(" ")
    small = {"The", "A", "An", "Each", "Every", "All", "Some", "In", "At", "On", "When", "No", "Most"}
    return f"{first.lower()} {rest}" if first in small and rest else text


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]


def _procedures(passage: str, task: Task) -> Iterator[Draft]:
    """Numbered steps under a heading or a line that ends in a colon."""
    run: list[re.Match[str]] = []
    for step in [*_STEP.finditer(passage), None]:
        if step and (
            not run or (int(step[1]) == int(run[-1][1]) + 1 and passage[run[-1].end() : step.start()].isspace())
        ):
            run.append(step)
            continue
        if len(run) > 1 and run[0][1] == "1":
            before = passage[: run[0].start()].strip().splitlines()
            lead = before[-1].strip("# :") if before and before[-1].startswith("#") | before[-1].endswith(":") else ""
            topic = lead or task.passage.place.rpartition(" › ")[2] or task.title
            yield _procedure(topic, run, passage)
        run = [step] if step else []


def _procedure(topic: str, run: list[re.Match[str]], passage: str) -> Draft:
    whole = _Sentence(passage[run[0].start() : run[-1].end()].strip(), "", frozenset())
    steps = [step[2].strip().rstrip(".") for step in run]
    answer = "\n".join(f"{at}. {step}." for at, step in enumerate(steps, start=1))
    told = f"There are {len(steps)} steps, the first is “{steps[0]}” and the last is “{steps[-1]}”."
    after = f"In “{topic}”, what is done right after this: {steps[0]}?"
    pair = _Sentence(passage[run[0].start() : run[1].end()].strip(), "", frozenset())
    sibling = replace(
        _draft("procedure", after, f"{steps[1]}.", pair), thinking=f"After “{steps[0]}” comes “{steps[1]}”."
    )
    question = f"“{topic}”: which steps does this take, in their order?"
    return replace(_draft("procedure", question, answer, whole, sibling), thinking=told)


def _gapped(one: _Sentence, language: str) -> Iterator[Draft]:
    """Gaps for a number, a name, else a long word."""
    if one.text.split(" ", 1)[0].casefold() in _PRONOUNS:
        return
    begin = len(one.text) // 4  # a gap for the subject can often be filled with more than one name
    for kind, pattern in (("number", _NUMBER), ("name", _MID_NAME), ("word", _LONG_WORD)):
        words = [found.group() for found in pattern.finditer(one.text) if kind == "number" or found.start() > begin]
        for word in sorted(dict.fromkeys(words), key=len, reverse=True)[:1]:
            if draft := _gap(one, word, kind, language):
                yield draft
                if kind == "name":
                    return


def _gap(one: _Sentence, word: str, kind: str, language: str) -> Draft | None:
    """The sentence without the word; None where it tells the word twice, or is too short without it."""
    gapped = one.text.replace(word, GAP, 1)
    if word.casefold() in gapped.casefold() or len(gapped.split()) < 4:
        return None
    form, kinds = _ASK_GAP.get(language, ("“{gapped}” — {gap} = ?", {}))
    return _draft("factual", form.format(kind=kinds.get(kind, ""), gapped=gapped, gap=GAP), word, one)


_NO_SUBJECT = _PRONOUNS | {"before", "after", "when", "while", "if", "since", "until", "in", "on", "at", "from", "for"}


def _untold(prose: Iterable[_Sentence], task: Task, told: frozenset[str]) -> Iterator[Draft]:
    """A question that the document does not answer, about what it speaks of."""
    subjects = [found["x"] for one in prose if (found := re.match(rf"(?P<x>{_NAME}) [a-z]", one.text))]
    subjects = [name for name in subjects if " " in name and name.split(" ", 1)[0].casefold() not in _NO_SUBJECT]
    keys = [key for key in UNTOLD if key not in told]
    if subjects and keys:
        name = _inner(subjects[0])
        key = keys[(task.passage.begin + sum(map(ord, task.passage.id))) % len(keys)]
        question = UNTOLD[key].format(name)
        thinking = f"Of {name} I know several things, but none that tells this. It would be a guess."
        yield Draft("unanswerable", question, _UNKNOWN, thinking, (), "medium")

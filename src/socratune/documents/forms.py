"""The forms of English sentences that people ask about: a definition, a date, a number, a default, a reason, a way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_CODE = r"`[^`\n]+`(?:\(\))?"
_WORD = rf"(?:{_CODE}|[\w'’.+/-]*\w)"
_NO_NOUN = (
    "is are was were has have had can will must should may does do that which who when if usually also a an the of"
)
_NO_NOUN += " for in to from with by and or as not you it they"
_NOUN = rf"(?!(?:{'|'.join(_NO_NOUN.split())})\b){_WORD}"
_NO_SUBJECT = frozenset(
    """it this that these those there they he she we i its his her their our such here what which who if when while
    where as in on at for by to from with after before since until because although though unless however also
    otherwise note another other more most some many both first second third next last but and or so yet only
    even thus then now nonetheless nevertheless therefore hence finally additionally similarly instead sometimes
    usually typically today generally currently perhaps maybe please again besides moreover furthermore
    meanwhile internally""".split()  # noqa: SIM905
)
_NAME = r"(?:[Tt]he )?[A-Z][\w'’.-]*\w(?: (?:(?:of|the|de|von|van|del|da) )*[A-Z0-9][\w'’.-]*\w)*"
_THING = (
    rf"(?:(?:The|the|Each|each|Every|every|An?|an?|All|all|No|no) (?:{_NOUN} ){{0,3}}?{_NOUN}"
    rf"(?: (?:of|for|in) (?:(?:the|an?) )?(?:{_NOUN} )?{_NOUN})?|{_NAME}|{_CODE}(?: {_NOUN})?)"
)
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_AUXILIARY = (
    r"(?:is|are|was|were|can|could|will|would|should|must|may|might|do|does|did|cannot|has been|have been|had been"
    r"|(?:is|are|was|were|do|does|did|ca|wo|could|would|should)n['’]t)"
)
_MEASURES = {
    "tall": "height",
    "high": "height",
    "long": "length",
    "wide": "width",
    "deep": "depth",
    "thick": "thickness",
}
_PARTS = {
    "<X>": rf"(?P<x>(?!(?:{'|'.join(_NO_SUBJECT)})\b)(?!(?:{'|'.join(map(str.capitalize, _NO_SUBJECT))})\b){_THING})",
    "<BE>": "(?P<v>is|are|was|were)",
    "<CAN>": "(?P<v>is|are|was|were|can)(?P<be> be)?",
    "<REST>": "[^;:]+",
    "<CLAUSE>": "[^,;:]+",
    "<CASE>": "(?P<when>If|When|Whenever) (?P<case>[^,;:]+), (?:then )?",
    "<WANT>": "(?:To|In order to|If you (?:want|need|would like|wish) to)",
    "<NAME>": _NAME,
    "<CODE>": _CODE,
    "<NOUN>": _NOUN,
    "<WORD>": _WORD,
    "<N>": (
        r"(?:\d[\d,.]*\d|\d|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty)"
    ),
    "<DATE>": (
        rf"(?:(?:{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? |\d{{1,2}}(?:st|nd|rd|th)? {_MONTH},? |{_MONTH},? )?"
        r"(?:1[5-9]|20)\d\d)"
    ),
    "<YOU>": "(?:[Yy]ou (?:can|could|must|should|need to|have to) (?:also |simply |just |always |then )?)",
    "<DO>": (
        "(?:simply |just )?(?:use|pass|set|add|run|call|make|specify|provide|give|put|write|create|define|install"
        "|override|configure|wrap|enable|disable|import|open|type|press|edit|send|mark|invoke|remove|place|subclass|register|return"
        "|upload|contact)"
    ),
    "<SOLE>": "the|an?|all|no|each|there|any",
    "<FREE>": rf"(?!(?:{'|'.join(_NO_SUBJECT)})\b)",
}  # fmt: skip
"""What stands for what in the patterns of forms."""


class _Form(NamedTuple):
    kind: str
    pattern: re.Pattern[str]
    question: str
    answer: str
    again: str


def _form(kind: str, pattern: str, question: str, answer: str, again: str = "") -> _Form:
    for name, meant in _PARTS.items():
        pattern = pattern.replace(name, meant)
    return _Form(kind, re.compile(rf"{pattern}\."), question, answer, again)


_FORMS = (
    _form("factual", r"<X> (?P<v>was|were) (?P<p>\w+) by (?P<y><NAME>)(?: (?:in|on|at|for) [^;,]*)?",
          "Who {v} {x} {p} by?", "{y}", "By whom {v} {x} {p}?"),
    _form("factual", r"(?P<main><REST>?) (?:in|on) (?P<y><DATE>)"
          "(?: by <NAME>|,? (?:and|after|when|because|with) [^;]+)?",
          "When {asked}?", "{y}", "At what time {asked}?"),
    _form("factual", r"(?:In|On) (?P<y><DATE>),? (?P<main><CLAUSE>)", "When {asked}?", "{y}", "At what time {asked}?"),
    _form("factual", r"<X> (?P<v>has|have|holds|seats|carries|owns|contains|needs|takes|uses|burns|serves|covers|costs"
          r"|lasts|requires|weighs) (?P<y>(?:(?:about|up to|at least|at most|exactly|nearly|over) )?<N>) "
          r"(?P<noun>(?:[a-z-]+ ){0,2}?[a-z]+s(?: of (?:the |an? )?[a-z]+(?: [a-z]+(?=\.| in ))?)?)"
          r"(?P<rest>(?: (?:in|for|per|a|each|every) [^;:,]*)?)",
          "How many {noun} {do} {x} {base}{rest}?", "{y}", "What number of {noun} {do} {x} {base}{rest}?"),
    _form("factual", r"There are (?:currently )?(?P<y><N>) (?P<noun>(?:[a-z-]+ ){0,3}?[a-z]+s) "
          "(?P<rest>(?:of|in|for|to|on) <REST>)",
          "How many {noun} are there {rest}?", "{y}", "What is the number of {noun} {rest}?"),
    _form("factual", rf"<X> <BE> (?P<y>\d[\d,.]* [a-z]+) (?P<a>{'|'.join(_MEASURES)})\b[^;]*",
          "How {a} {v} {x}?", "{y}", "What {v} the {measure} of {x}?"),
    _form("factual", r"(?P<main><REST>?) (?P<y>(?:once |twice )?every (?:<N> )?(?:second|minute|hour|day|week|month)s?"
          r"|(?:once|twice) an? \w+)",
          "How often {asked}?", "{y}", "At what intervals {asked}?"),
    _form("factual", r"<X> <CAN> (?P<p>located|based|stored|kept|defined|installed|hosted|held|saved|(?<=be )found)"
          r" (?P<y>(?:in|at|under|inside|(?<!based )on) <REST>?)"
          "(?:(?:,? (?:and|or))? (?:so that|because|when|if|where) <REST>)?",
          "Where {v} {x}{be} {p}?", "{y}", "In which place {v} {x}{be} {p}?"),
    _form("comparison", r"<X> <BE> (?P<a>(?:more|less) \w+|\w{2,}er) than (?P<y><NAME>|the [^,;.]+)",
          "Which {v} {a}: {one} or {two}?", "{x}", "Which {v} {a}: {two} or {one}?"),
    _form("reversal", r"(?P<x>[A-Z][a-z]+ [A-Z]\w+(?: [A-Z]\w+)?) "
          r"(?P<p>(?:built|wrote|drew|founded|designed|created|invented"
          r"|led|discovered|introduced|started|proposed|organi[sz]ed|won|began|painted|composed|bought|sold|teaches|keeps"
          r"|maintains) <REST>)",
          "Who {p}?", "{x}", "Which person {p}?"),
    _form("factual", r"<X> defaults to (?P<y><CLAUSE>)", "What does {x} default to?", "{y}",
          "What is the default of {x}?"),
    _form("definition", r"<X> (?P<v>means|stands(?= for)|refers(?= to))(?P<p> for| to|) (?P<y><REST>)",
          "What does {x} {base}{p}?", "{y}", "Which thing does {x} {base}{p}?"),
    _form("factual", r"<X> <CAN> (?P<p>used|useful|intended|designed|meant) (?P<y>(?:to [a-z]|for )<REST>)",
          "What {v} {x}{be} {p} for?", "{y}", "What is the purpose of {x}?"),
    _form("factual", r"<X> (?P<v>uses|needs) (?P<y>(?:<WORD> ){0,4}?<WORD>)(?P<rest> (?:for|to|as) [a-z]<CLAUSE>)",
          "What does {x} {base}{rest}?", "{y}", "Which thing does {x} {base}{rest}?"),
    _form("factual", r"<X> (?P<v>requires|returns|provides|accepts|raises|prints|creates|generates|ignores|disables"
          "|enables|sets|adds|reports) (?P<y><REST>?)(?P<rest> (?:if|when|unless) <CLAUSE>)",
          "What does {x} {base}{rest}?", "{y}", "Which thing does {x} {base}{rest}?"),
    _form("factual", r"(?P<x><CODE>(?: \w+)?|(?:The|Each|An?) (?:<NOUN> )+<NOUN>) "
          r"(?P<v>returns|represents|determines|defines|controls|prints|raises|replaces|prevents|implements) "
          "(?P<y>(?:[^;:, ]+ ){0,11}?[^;:, ]+)",
          "What does {x} {base}?", "{y}", "Which thing does {x} {base}?"),
    _form("cause", r"(?P<main><REST>?),? because (?P<y><FREE><REST>)",
          "Why {why}?", "Because {y}", "For what reason {why}?"),
    _form("cause", r"Because (?P<y><FREE><CLAUSE>), (?P<main><REST>)",
          "Why {why}?", "Because {y}", "For what reason {why}?"),
    _form("cause", r"(?P<main><REST>?),? so that (?P<y><FREE><REST>)",
          "Why {why}?", "So that {y}", "For what reason {why}?"),
    _form("procedure", r"<WANT> (?P<y>[a-z]\w+ <CLAUSE>), (?P<main>(?:<YOU>|<DO> )<REST>)",
          "How do you {y}?", "{main}", "What do you do to {y}?"),
    _form("procedure", r"<YOU>?[Uu]se (?P<x>(?:(?!(?:it|this|them|that|which)\b)<WORD> ){0,7}?<WORD>) to "
          r"(?P<y>(?!(?:the|an?|your?|be|have|it|see|know|get)\b)[a-z]\w+ <CLAUSE>)",
          "How can you {y}?", "Use {x}", "In what way can you {y}?"),
    _form("procedure", r"(?P<main>(?:[Yy]ou can|<X> can be) (?:(?!that\b|which\b|who\b)[^;:, ]+ )+?)(?:and |or )?"
          r"(?P<y>by (?:[a-z]+ly )?[a-z]+ing <REST>|(?:using|via|through|with) (?:the |a )?<CODE>[^;:]*)",
          "How {asked}?", "{y}", "In what way {asked}?"),
    _form("hypothetical", r"<CASE>(?P<main>you (?P<v>can|must|should) <REST>)",
          "What {v} you do {when} {case}?", "{main}", "{When} {case}, what {v} you do?"),
    _form("hypothetical", r"<CASE>(?P<main>you (?P<v>have to|need to) <REST>)",
          "What do you {v} do {when} {case}?", "{main}", "{When} {case}, what do you {v} do?"),
    _form("hypothetical", r"<CASE>(?P<main>(?:(?:<SOLE>) |[`A-Z]|[a-z]+ (?:is|are) )<REST>)",
          "What happens {when} {case}?", "{main}", "{When} {case}, what happens?"),
    _form("hypothetical", r"(?P<main>(?:(?i:<SOLE>) |`)"
          r"(?:(?!\b(?:that|which|who|when|because|but|only|even|as)\b)[^,;:])+?)"
          r" (?P<when>if) (?P<case><CLAUSE>)",
          "What happens {when} {case}?", "{main}", "{When} {case}, what happens?"),
)  # fmt: skip
_DEFINED = re.compile(f"{_PARTS['<X>']} {_PARTS['<BE>']} (?P<d>(?:an?|the) (?!bit |little |lot )[^;:]+)\\.")
_NO_DEFINED = re.compile(r"(?:No|All|Each|Every|Any|An? (?:second|similar|third|few|good|better|common|simple|new)) ")
_PERSON = re.compile(
    r"\b(?:\w*m[ae]n|person|boy|girl|child|son|daughter|brother|sister|mother|father|wife|husband|friend|king|queen|captain"
    r"|priest|doctor|smith|baker|keeper|teacher|author|founder|leader|maintainer|developer|member|president|secretary"
    r"|treasurer|programmer|painter|apprentice|pilot|engineer|student|professor|artist|musician|mayor|clerk|nurse)$",
    re.IGNORECASE,
)
_WITHIN = re.compile(r"\b(?:that|which|who|whose|where|when|if|because|but)\b|[,;:]")
_NO_CASE = re.compile(
    r"\b(?:was|were|had|did|became|went|left|came|got)\b|^(?:\S+ ){0,5}(?:its?|their)\b"
    r"|^(?:\w+ing|\w+ed|not|possible|needed|necessary)\b|^you (?:want|need|would like|wish) to\b"
)
_NO_RESULT = re.compile(
    r"\b(?:useful|helpful|handy|recommended|possible|common|important|best|better|safe|okay|fine|worth|good|great|may|might"
    r"|want|we|necessary|easier|likely|if|when)\b|^\S+, (?:or|and)\b"
)
_LOWERED = frozenset(
    "The A An Each Every All Some In At On When No Most Any You There If Your Nobody Nothing Two Three".split()  # noqa: SIM905
)


def asked_of(sentence: str, topic: str) -> Iterator[tuple[str, str, str, str]]:
    """Yields the questions that the forms give to a sentence: type, question, answer, and a second wording or "".

    Args:
        topic: what the text around it is about. "The result is a list" defines nothing unless the topic names it.
    """
    for form in _FORMS:
        if (found := form.pattern.fullmatch(sentence)) and (parts := _parts(form, found)):
            yield form.kind, form.question.format(**parts), form.answer.format(**parts), form.again.format(**parts)
    if (found := _DEFINED.fullmatch(sentence)) and len(found["d"].split()) > 3 and not _NO_DEFINED.match(found["x"]):
        x, v, d = found["x"], found["v"], found["d"]
        head = re.split(r" (?:of|in|at|for|from|who|which|that|by|with|to|on|and|now)\b|,", d, maxsplit=1)[0]
        who, named = "Who" if _PERSON.search(head) else "What", re.sub("^[Tt]he ", "", x)
        if named[0] in "`ABCDEFGHIJKLMNOPQRSTUVWXYZ" or named == x or named.casefold() in topic.casefold():
            yield "definition", f"{who} {v} {_inner(x)}?", sentence, f"Explain {who.lower()} {_inner(x)} {v}."
            if d.startswith("the ") and len(d.split()) > 4 and not x.startswith(("A ", "An ")):
                yield "reversal", f"{who} {v} {d}?", x, ""


def _parts(form: _Form, found: re.Match[str]) -> dict[str, str] | None:
    """Returns what a form's questions are made of, or None where they would make no sense."""
    parts = {name: value or "" for name, value in found.groupdict().items()}
    main = parts.get("main", "").strip()
    if "case" in parts:
        case, when = parts["case"], parts["when"].casefold().replace("whenever", "when")
        if not 3 <= len(case.split()) <= 16 or _NO_CASE.search(case) or _NO_RESULT.search(main):
            return None
        parts |= {"when": when, "When": when.capitalize()}
    verb = parts.get("v", "")
    parts |= {
        "base": _base(verb),
        "do": "do" if verb == "have" else "does",
        "measure": _MEASURES.get(parts.get("a", ""), ""),
    }
    parts |= {"asked": _inverted(main), "why": _why(main)}
    if any(f"{{{name}}}" in form.question and not parts[name] for name in ("asked", "why")):
        return None
    if form.kind == "comparison":
        parts["one"], parts["two"] = sorted((_inner(parts["x"]), _inner(parts["y"])), key=str.casefold)
    elif form.answer != "{x}":
        parts["x"] = _inner(parts.get("x", ""))
    return parts


def _inner(text: str) -> str:
    """Returns the beginning of a sentence as it would stand within one."""
    first, _, rest = text.partition(" ")
    return f"{first.lower()} {rest}" if first in _LOWERED and rest else text


def _inverted(clause: str) -> str:
    """Returns a statement in the order of a question (`the lens was moved` → `was the lens moved`), or nothing."""
    found = re.fullmatch(rf"(?P<x>(?:{_WORD} ){{0,7}}?{_WORD}) (?P<v>{_AUXILIARY})(?P<rest> .+)", _inner(clause))
    if found is None or found["x"].partition(" ")[0].casefold() in _NO_SUBJECT or _WITHIN.search(found["x"]):
        return ""
    verb, _, been = found["v"].replace("cannot", "can not").partition(" ")
    return f"{verb} {found['x']}{f' {been}' if been else ''}{found['rest']}"


def _why(main: str) -> str:
    if len(main.split()) < 3 or main.partition(" ")[0].casefold().strip(",") in _NO_SUBJECT | {"you"}:
        return ""
    spoken = f"is it that {_inner(main)}" if re.match(_THING, main) and not _WITHIN.search(main) else ""
    return _inverted(main) or spoken


def _base(verb: str) -> str:
    """Returns the infinitive of a verb in the third person."""
    if verb.endswith("ies"):
        return f"{verb[:-3]}y"
    return "have" if verb in ("has", "have") else verb[:-2] if re.search(r"(?:ch|sh|ss|x|o)es$", verb) else verb[:-1]

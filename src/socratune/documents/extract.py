"""`rules/extract`: questions taken out of English sentences by their form. It needs no key and no model.

Sentences of a known form become questions (`forms`); so do numbered steps, and headings that ask something themselves.
Most passages give none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from socratune.documents.forms import asked_of
from socratune.documents.passages import sentences
from socratune.documents.words import language_of
from socratune.documents.writing import Draft, Task, Writer

MOST_ANSWER_WORDS, MOST_PARAGRAPH_WORDS = 35, 80

_POINTING = re.compile(
    r"\b(?:this|these|those|such|above|below|following|previous|preceding|former|latter|here|same|another|others?|he|she|his"
    r"|her|him|examples?|sections?|chapters?|figure|listing|snippet|we|our|us|I|my|then|also|too|mentioned|described|so"
    r"|of that|that way|you probably|similar|either|instead|again)\b",
    re.IGNORECASE,
)
"""Words that refer to something outside of the question, or to the text."""
_VAGUE = re.compile(
    r"^(?:\W*\w+\W+){0,5}(?:its?|their)\b|\b(?:they|them)\b|\bthat(?:\?|,| (?:is|are|can|was|has|way|possible)\b)"
    r"|`\w`|\b(?:about|of|for|with|like|to|do|find) that\b"
    r"|(?:is|are|was|were|does|do|did|can|must|should|will) the (?:information|releases?|reports?|files?|values?"
    r"|options?|functions?|methods?|results?|outputs?|names?|arguments?|texts?|data|lists?|programs?|commands?|types?|class"
    r"|objects?|rest|code|messages?|packages?|versions?|tests?|requests?|scripts?|lines?|formats?|process|systems?"
    r"|changes?) (?!of\b|for\b|in\b)",
    re.IGNORECASE,
)
"""Pronouns without a noun before them, and nouns that could be any."""
_NO_ANSWER = re.compile(
    r"^(?:its?|this|that|(?:the )?former|the latter|they|their|these|those|s?he|see|him|her|them|as|not)\b"
    r"|\b(?:this|these|above|below|following|here|(?:should|must|can|to) first|(?:as|is|are) (?:described|explained"
    r"|documented|shown)|so by|(?:section|chapter|figure|table|appendix) [\dA-Z])\b"
    r"|\byour own\.$|^you (?:must|should) not\b|^you may have\b|\bthem there\b|^there are two\b",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"(?:What|Who|When|Where|Why|How (?:many \w+|long|high|tall)) (?:is|are|was|were|does|did|do|can|will) (?:you )?"
    r"(?:the )?(?:\w+ and )?[A-Z][\w'’.-]|(?:Who|Which|Explain)\b.* [A-Z]"
)
_STEP = re.compile(r"(?m)^[ \t]*(\d{1,2})[.)][ \t]+(\S.*(?:\n[ \t]+(?!\d{1,2}[.)]\s)\S.*)*)$")


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A sentence of a passage, as it stands there and as plain text on one line."""

    evidence: str
    text: str
    common: str = ""
    """Its first word, where that is no name."""


def rules_extract(types: Collection[str]) -> Writer:
    """Returns the mechanical writer.

    Args:
        types: the types that the mix allows. Those that a passage is asked for come first.
    """

    async def write(task: Task) -> list[Draft]:
        found = [draft for draft in drafts(task) if draft.type in types]
        order = [
            draft for kind, count in task.wanted.items() for draft in [one for one in found if one.type == kind][:count]
        ]
        order += [draft for draft in found if draft not in order]
        return [replace(one, siblings=one.siblings[: task.siblings]) for one in order[: sum(task.wanted.values())]]

    return write


def drafts(task: Task) -> Iterator[Draft]:
    """Yields all questions that the forms give to a passage; none for a passage that is not in English."""
    text = task.passage.text
    if language_of(text) != "en":
        return
    topic = _topic(task)
    seen: set[str] = set()
    for draft in (*_procedures(text), *_headed(text), *_formed(text, topic)):
        if draft.question not in seen:
            seen.add(draft.question)
            yield _placed(draft, topic)


def _formed(text: str, topic: str) -> Iterator[Draft]:
    for sentence in _prose(text):
        for kind, question, answer, again in asked_of(sentence.text, topic):
            draft = _draft(kind, question, answer, sentence, again)
            if _fits(draft):
                yield draft


def _topic(task: Task) -> str:
    heading = task.passage.place.rpartition(" › ")[2]
    parts = [re.sub(r"^(?:[Cc]hapter\s)?[\d.]+\s+|[¶`*]", "", part).strip() for part in (task.title, heading)]
    return ", ".join(dict.fromkeys(part for part in parts if re.fullmatch(r"[\w\s’'.,&/+:()-]+", part)))


def _placed(draft: Draft, topic: str) -> Draft:
    """Puts the topic before a question that asks about nothing with a name: "the station" may be any."""
    if not topic or _NAMED.match(draft.question):
        return draft
    siblings = tuple(_placed(one, topic) for one in draft.siblings)
    return replace(draft, question=f"{topic}: {draft.question}", siblings=siblings)


def _fits(draft: Draft, most: int = MOST_ANSWER_WORDS) -> bool:
    """Returns True if a question can be understood by itself and its answer does not point elsewhere."""
    inner = draft.question.partition(" ")[2]
    return (
        len(draft.answer.split()) <= most
        and len(inner.split()) >= 2
        and all(text.count("(") == text.count(")") for text in (inner, draft.answer))
        and not _POINTING.search(inner)
        and not _VAGUE.search(draft.question)
        and not _NO_ANSWER.search(draft.answer)
    )


# --- sentences -----------------------------------------------------------------------------------------------------

_FENCED = re.compile(r"(?ms)^[ \t]*(```|~~~|:::).*?(?:^[ \t]*\1|\Z)")
_LINE_OF_CODE = re.compile(r"[ \t]{3,}|\t|\.\. |[|+>$#]|:\w+:|-{3}|={3}|\(.*\)=$")
_MARKUP = (
    (re.compile(r"(?::[\w:+-]+:|\{[\w:+-]+\})`([^`<]*?)\s*<[^`>]*>`"), r"\1"),
    (re.compile(r"(?::[\w:+-]+:|\{[\w:+-]+\})`[~!]?([^`]*)`"), r"`\1`"),
    (re.compile(r"``([^`]+)``"), r"`\1`"),
    (re.compile(r"`([^`<]+?)\s*<[^`>]+>`__?"), r"\1"),
    (re.compile(r"`([^`]+)`__?(?=\W|$)"), r"\1"),
    (re.compile(r"\[([^\]]+)\](?:\([^)]*\)|\[[^\]]*\])"), r"\1"),
    (re.compile(r"(?<![`\w])(\w+)_(?=[\s.,;)])"), r"\1"),
    (re.compile(r"\s*\((?:see|cf)\b[^()]*\)"), ""),
    (re.compile(r"\*\*?([^*\s][^*]*)\*\*?"), r"\1"),
)  # fmt: skip
_NO_PROSE = re.compile(r"[{}<>|*]|``|::|://|\S\$|\.\.\.|…|[“”\"]$|(?<!e\.g)(?<!i\.e)(?<!etc)[.!?] \S")


def _prose(passage: str) -> Iterator[_Sentence]:
    """Yields the sentences of paragraphs and lists; none out of code, tables, directives and headings."""
    text = _FENCED.sub(lambda found: re.sub(r"\S", " ", found[0]), passage)
    prose = re.sub(r"`[^`\n]+`|(?m:^[ \t].*)|`", "", text)
    capital = {name.casefold() for name in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", prose)}
    small = frozenset(re.findall(r"\b[a-z]+\b", prose)) - capital
    for block in re.finditer(r"(?:^|(?<=\n))(?:[^\n]*\S[^\n]*(?:\n|$))+", text):
        lines = block[0].splitlines()
        item = re.match(r"(?:[-*•]|\d{1,2}[.)]|#\.)\s", lines[0])
        if _LINE_OF_CODE.match(lines[0]) or (not item and any(line.startswith((" ", "\t")) for line in lines[1:])):
            continue
        for begin, end in sentences(block[0]):
            stretch = passage[block.start() + begin : block.start() + end]
            plain = _plain(re.sub(r"^(?:[-*•]|\d{1,2}[.)]|#\.)\s+", "", stretch))
            whole = plain.endswith(".") and plain.count("(") == plain.count(")") and plain.count("`") % 2 == 0
            if (
                whole
                and 20 <= len(plain) < 300
                and (plain[0].isupper() or plain[0] == "`")
                and not _NO_PROSE.search(plain)
            ):
                first = plain.split(" ", 1)[0]
                low = first.casefold()
                common = low in small or low.removesuffix("s") in small
                common = common or bool(low not in capital and re.match(r"\w+ing |\w+s (?:are|were|have|can)\b", plain))
                yield _Sentence(stretch, plain, first if common and first[1:] == low[1:] else "")


def _plain(text: str) -> str:
    """The text on one line, without the markup of Markdown and reStructuredText; code keeps its ticks."""
    text = " ".join(text.split())
    for pattern, meant in _MARKUP:
        text = pattern.sub(meant, text)
    return text


def _draft(kind: str, question: str, answer: str, one: _Sentence, again: str = "") -> Draft:
    """Returns a draft with its sibling. An answer that is a clause gets a capital and a full stop."""
    if len(answer.split()) > 3 or kind in ("cause", "hypothetical", "procedure"):
        answer = answer[:1].upper() + answer[1:].rstrip(".") + "."
    if one.common:
        first = re.compile(rf"(?<=\w ){one.common}\b")
        question, again = (first.sub(one.common.casefold(), text, count=1) for text in (question, again))
    thinking = f"{one.text} So the answer is: {answer.rstrip('.')}."
    draft = Draft(kind, question, answer, thinking, (one.evidence,), "easy")
    return replace(draft, siblings=(replace(draft, question=again),) if again else ())


# --- headings and steps -------------------------------------------------------------------------

_QUESTION = re.compile(
    r"(?m)^#{1,6}\s+(?:[\d.]+\s+)?(?P<q>(?:(?:What|How|Why|Where|Which|Who) (?:is|are|was|were|do|does|did|can)\b"
    r"|(?:Can|Is|Are|Does|Do|Should) )[^\n]{8,150}\?)[ ¶#]*\n\s*(?P<text>[^\n#](?:[^\n]|\n(?!\s*\n))*)"
)


def _headed(passage: str) -> Iterator[Draft]:
    """Questions that the author has put into a heading. The answer is the paragraph below it, if it is short prose."""
    for found in _QUESTION.finditer(passage):
        question = _plain(found["q"])
        told = list(_prose(found["text"]))
        answer = " ".join(one.text for one in told)
        if len(answer) < 0.9 * len(_plain(found["text"])) or not 5 <= len(answer.split()) <= MOST_PARAGRAPH_WORDS:
            continue
        kind = {"How": "procedure", "Why": "cause"}.get(question.split()[0], "factual")
        kind = "definition" if re.match(r"What (?:is|are) ", question) else kind
        draft = _draft(kind, question, answer, _Sentence(found["text"].strip(), answer))
        if _fits(draft, MOST_PARAGRAPH_WORDS):
            yield draft


def _procedures(passage: str) -> Iterator[Draft]:
    """Yields a question for each list of numbered steps under a heading or a line that ends in a colon."""
    run: list[re.Match[str]] = []
    for step in [*_STEP.finditer(passage), None]:
        if step and (
            not run or (int(step[1]) == int(run[-1][1]) + 1 and passage[run[-1].end() : step.start()].isspace())
        ):
            run.append(step)
            continue
        if len(run) > 1 and run[0][1] == "1":
            before = passage[: run[0].start()].strip().rpartition("\n")[2]
            if lead := re.fullmatch(
                r"(?:#+ |.*[.,] )?(?:How to|To|In order to) (?P<do>[a-z][^:.,?]{4,80}):?", _plain(before)
            ):
                yield _procedure(lead["do"], run, passage)
        run = [step] if step else []


def _procedure(doing: str, run: list[re.Match[str]], passage: str) -> Draft:
    whole = _Sentence(passage[run[0].start() : run[-1].end()].strip(), "")
    pair = _Sentence(passage[run[0].start() : run[1].end()].strip(), "")
    steps = [_plain(step[2]).rstrip(".") for step in run]
    told = f"There are {len(steps)} steps, the first is “{steps[0]}” and the last is “{steps[-1]}”."
    asked = f"When you {doing}, what do you do right after this: {steps[0]}?"
    sibling = replace(_draft("procedure", asked, steps[1], pair), thinking=f"After “{steps[0]}” comes “{steps[1]}”.")
    answer = "\n".join(f"{at}. {step}." for at, step in enumerate(steps, start=1))
    draft = _draft("procedure", f"How do you {doing}?", answer, whole)
    return replace(draft, answer=answer, thinking=told, siblings=(sibling,))

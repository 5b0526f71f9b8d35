"""Questions out of a graph's edges, right by construction: A —works_at→ B —located_in→ C."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from socratune.documents.document import Document, Link, Passage
from socratune.documents.passages import sentences
from socratune.documents.writing import Draft

_PREPOSITIONS = ("in", "by", "at", "on", "to", "of", "from", "with", "for", "as", "under")
_STATES = re.compile(
    r"(?:\w+(?:ed|en|wn|lt|nt|ght)|based|made|led|held|sold|born|run|part|member|capital|child|parent|sister|brother|author|owner|head)$"
)
READ_CHARACTERS = 20_000
"""A mention of a neighbour is searched for in so many characters of a document."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A link as a sentence, with the words of a document that state it, if there are any."""

    link: Link
    said: str
    evidence: Passage


def phrase(relation: str) -> str:
    """Returns a relation's name as a predicate: `WORKS_AT` → `works at`, `locatedIn` → `is located in`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", relation).replace("_", " ").replace("-", " ").lower().split()
    if len(words) > 1 and words[1] in _PREPOSITIONS and _STATES.match(words[0]):
        words = ["is", *words]
    return " ".join(words) or "is linked to"


class Graph:
    """The links between known documents, and the questions they give."""

    def __init__(self, documents: Mapping[str, Document], links: Iterable[Link]) -> None:
        self._documents = documents
        self._out: dict[str, list[Link]] = defaultdict(list)
        self._leads: Counter[tuple[str, str]] = Counter()  # (start, relation) → ends
        self._comes: Counter[tuple[str, str]] = Counter()  # (relation, end) → starts
        for link in links:
            if link.start in documents and link.end in documents and link.start != link.end:
                self._out[link.start].append(link)
                self._leads[link.start, link.relation] += 1
                self._comes[link.relation, link.end] += 1

    def neighbours(self, document: str) -> tuple[str, ...]:
        """Returns what the first ten links of a document say."""
        return tuple(self._said(link) for link in self._out.get(document, ())[:10])

    def facts(self, most: int) -> Iterator[tuple[Draft, list[Edge]]]:
        """Yields a question for each edge with a unique end, and its reversal if the start is unique too.

        Args:
            most: questions of a document at most.
        """
        for links in self._out.values():
            for link in [one for one in links if self._only(one)][:most]:
                edge, (start, end) = self._edge(link), self._titles(link)
                back = ()
                if self._comes[link.relation, link.end] == 1:
                    question = f"X {phrase(link.relation)} {end}. What is X?"
                    back = (_draft("reversal", question, start, [edge]),)
                yield _draft("factual", f"{start} {phrase(link.relation)} X. What is X?", end, [edge], *back), [edge]

    def paths(self) -> Iterator[tuple[Draft, list[Edge]]]:
        """Yields a question for each edge with a unique end that a second such edge follows."""
        for links in self._out.values():
            for first in filter(self._only, links):
                seconds = [one for one in self._out.get(first.end, ()) if self._only(one) and one.end != first.start]
                if not seconds:
                    continue
                second = seconds[sum(map(ord, first.start)) % len(seconds)]
                edges = [self._edge(first), self._edge(second)]
                start, end = self._titles(first)[0], self._titles(second)[1]
                one, two = phrase(first.relation), phrase(second.relation)
                again = _draft(
                    "multi-hop", f"Starting from {start}, where do “{one}” and then “{two}” lead?", end, edges
                )
                yield _draft("multi-hop", f"{start} {one} X, and X {two} Y. What is Y?", end, edges, again), edges

    def _only(self, link: Link) -> bool:
        return self._leads[link.start, link.relation] == 1

    def _titles(self, link: Link) -> tuple[str, str]:
        return self._documents[link.start].title, self._documents[link.end].title

    def _said(self, link: Link) -> str:
        start, end = self._titles(link)
        return f"{start} {phrase(link.relation)} {end}."

    def _edge(self, link: Link) -> Edge:
        """Returns a link with its evidence: a sentence of either document that names the other and shares a word
        with the relation, or the link itself if there is none.
        """
        told = [word for word in phrase(link.relation).split() if len(word) > 3]
        for own, other in ((link.start, link.end), (link.end, link.start)):
            document, title = self._documents[own], self._documents[other].title
            text = document.text[:READ_CHARACTERS]
            if title not in text:
                continue
            for begin, end in sentences(text):
                stretch = text[begin:end]
                if title in stretch and (not told or any(word[:4] in stretch.casefold() for word in told)):
                    passage = Passage(f"{own}#{begin}-{end}", own, stretch, begin, end, link.relation)
                    return Edge(link, self._said(link), passage)
        said = self._said(link)
        return Edge(link, said, Passage(link.id, link.start, said, 0, len(said), f"edge {link.relation}"))


def _draft(kind: str, question: str, answer: str, edges: list[Edge], *siblings: Draft) -> Draft:
    thinking = f"{' '.join(edge.said for edge in edges)} So the answer is: {answer}."
    difficulty = "medium" if len(edges) > 1 else "easy"
    evidence = tuple(edge.evidence.text for edge in edges)
    return Draft(kind, question, answer, thinking, evidence, difficulty, siblings)

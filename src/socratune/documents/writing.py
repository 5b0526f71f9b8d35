"""Writers: functions that turn a passage into drafts of questions, each with the words its answer comes from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from socratune.documents.document import Passage
from socratune.llm import (
    CHECKER_SCHEMA,
    WRITER_SCHEMA,
    ChatModel,
    Sampling,
    grounding_messages,
    parse_grounded,
    parse_questions,
    writer_messages,
)

TYPES = (
    "factual", "definition", "comparison", "cause", "procedure", "multi-hop", "reversal", "hypothetical",
    "unanswerable",
)  # fmt: skip
CHECKER_SAMPLING = Sampling(temperature=0.0, max_new_tokens=512, json_schema=CHECKER_SCHEMA)


@dataclass(frozen=True, slots=True)
class Draft:
    """A question as its writer returned it, unchecked.

    Attributes:
        type: one of TYPES.
        evidence: the parts of the passage that the answer follows from; empty for `unanswerable`.
        siblings: further questions about the same fact.
    """

    type: str
    question: str
    answer: str
    thinking: str = ""
    evidence: tuple[str, ...] = ()
    difficulty: str = ""
    siblings: tuple[Draft, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A request to a writer.

    Attributes:
        title: the title of the document.
        neighbours: what the document's links say. The writer may use them to understand, not as evidence.
        wanted: the number of questions by type.
        siblings: the number of further questions to each.
    """

    passage: Passage
    title: str
    neighbours: tuple[str, ...]
    wanted: Mapping[str, int]
    siblings: int


Writer = Callable[[Task], Awaitable[list[Draft]]]
Checker = Callable[[Passage, Draft], Awaitable[bool | None]]
"""Returns True if the passage supports the answer, and None if there was no verdict."""


def questions_by_type(passage_id: str, mix: Mapping[str, float], count: int) -> Counter[str]:
    """Returns how many questions of each type to ask of a passage, over many passages in the shares of `mix`.

    The hash of the passage's id decides, so that the result does not depend on the other passages.
    """
    weights = {name: mix[name] for name in TYPES if mix.get(name)}
    total = sum(weights.values())
    digest = hashlib.sha256(passage_id.encode("utf-8", "replace")).digest()
    start = int.from_bytes(digest[:6], "big") / 2**48
    wanted: Counter[str] = Counter()
    for at in range(count):
        left = (at + start) / count * total
        for name, weight in weights.items():
            left -= weight
            if left < 0 or name == list(weights)[-1]:
                wanted[name] += 1
                break
    return wanted


def llm_writer(model: ChatModel, sampling: Sampling) -> Writer:
    """Returns a writer that asks a model. If a reply has no question, the model is asked once more."""
    sampling = replace(sampling, json_schema=WRITER_SCHEMA)

    async def write(task: Task) -> list[Draft]:
        passage = task.passage
        messages = writer_messages(
            passage.text,
            title=task.title,
            place=passage.place,
            neighbours=task.neighbours,
            wanted=task.wanted,
            siblings=task.siblings,
        )
        for again in range(2):
            completion = await model.generate(messages, sampling.drawn(sampling.seed + again))
            if drafts := drafts_of(parse_questions(completion.text)):
                return drafts
        return []

    return write


def llm_checker(model: ChatModel, sampling: Sampling = CHECKER_SAMPLING) -> Checker:
    """Returns a checker that asks a model whether the passage supports the answer."""

    async def check(passage: Passage, draft: Draft) -> bool | None:
        messages = grounding_messages(passage.text, draft.question, draft.answer)
        for seed in range(2):
            completion = await model.generate(messages, sampling.drawn(seed))
            if (found := parse_grounded(completion.text)) is not None:
                return found
        return None

    return check


def drafts_of(values: list[dict[str, Any]]) -> list[Draft]:
    """Returns decoded questions as drafts. A missing field is empty, and the checks report it."""
    return [_draft(value) for value in values]


def _draft(value: dict[str, Any], kind: str = "") -> Draft:
    own = _text(value.get("type")).lower().replace("_", "-").replace(" ", "-")
    own = own if own in TYPES or not kind else kind  # a sibling may be called a paraphrase
    evidence = value.get("evidence")
    siblings = value.get("siblings")
    return Draft(
        type=own,
        question=_text(value.get("question")),
        answer=_text(value.get("answer")),
        thinking=_text(value.get("thinking")),
        evidence=tuple(filter(None, map(_text, evidence if isinstance(evidence, list) else [evidence]))),
        difficulty=_text(value.get("difficulty")),
        siblings=tuple(_draft(one, own) for one in siblings if isinstance(one, dict))
        if isinstance(siblings, list)
        else (),
    )


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""

"""What a writer is: from a passage to drafts of questions, each with the words that its answer comes from."""

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
    """A question as its writer gave it; nothing of it is checked.

    Attributes:
        type: one of TYPES.
        evidence: the stretches of the passage that the answer follows from; none for `unanswerable`.
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
    """What a writer is asked for.

    Attributes:
        title: of the document.
        neighbours: what the document's links say, for understanding alone.
        wanted: type → number of questions.
        siblings: to each of them.
    """

    passage: Passage
    title: str
    neighbours: tuple[str, ...]
    wanted: Mapping[str, int]
    siblings: int


Writer = Callable[[Task], Awaitable[list[Draft]]]
Checker = Callable[[Passage, Draft], Awaitable[bool | None]]
"""Whether the passage bears the answer; None where no verdict came."""


def questions_by_type(passage_id: str, mix: Mapping[str, float], count: int) -> Counter[str]:
    """How many questions of each type one passage is asked for: over many passages the shares of `mix`.

    Stratified by the passage's hash, so that it does not depend on the other passages.
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
    """A writer that asks a model; a reply without any question is asked for once more."""
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
    """A checker that asks a model whether the passage bears the answer."""

    async def check(passage: Passage, draft: Draft) -> bool | None:
        messages = grounding_messages(passage.text, draft.question, draft.answer)
        for seed in range(2):
            completion = await model.generate(messages, sampling.drawn(seed))
            if (found := parse_grounded(completion.text)) is not None:
                return found
        return None

    return check


def drafts_of(values: list[dict[str, Any]]) -> list[Draft]:
    """Decoded questions as drafts; what is missing in one is empty, so that its check says so."""
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

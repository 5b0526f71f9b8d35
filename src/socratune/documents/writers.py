"""Turns the configured references into writer and checker, and checked drafts into rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from socratune.config import GenerateConfig
from socratune.documents.extract import rules_extract
from socratune.documents.gathering import Gathered
from socratune.documents.grounding import fault_of, located
from socratune.documents.writing import (
    CHECKER_SAMPLING,
    Checker,
    Draft,
    Task,
    Writer,
    drafts_of,
    llm_checker,
    llm_writer,
)
from socratune.errors import CallError
from socratune.inference import LocalModels
from socratune.llm import (
    RULES,
    ChatModel,
    Ledger,
    Role,
    Sampling,
    called_safely,
    load_function,
    reached_model,
    resolve_alias,
    writer_endpoints,
)
from socratune.rows import Rejected, content_id
from socratune.runs import Journal

SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True, slots=True)
class Writers:
    """The configured writer and checker as functions."""

    writer: Writer
    checker: Checker | None


@asynccontextmanager
async def attending_writers(
    config: GenerateConfig, gathered: Gathered, *, seed: int, journal: Journal, ledger: Ledger
) -> AsyncIterator[Writers]:
    """Yields the configured writer and checker, which stay loaded and connected until the block ends."""
    reached = writer_endpoints(config)
    async with AsyncExitStack() as stack:
        models = stack.enter_context(LocalModels())

        def asked(role: Role, ref: str, sampling: Sampling) -> tuple[ChatModel, Sampling]:
            found = reached_model(
                ref, reached[role], sampling, role=f"generate.{role}", journal=journal, ledger=ledger, local=models.load
            )
            for model in found.connected:
                stack.push_async_callback(model.close)
            return found.model, found.sampling

        ref = resolve_alias(config.writer_model)
        if ref == RULES["writer"]:
            mix = config.mix.model_dump(by_alias=True)
            types = {kind for kind, weight in mix.items() if weight}
            writer = rules_extract(types)
        elif ref.startswith("python:"):
            writer = python_writer(ref)
        else:
            sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens, seed=2 * seed)
            writer = llm_writer(*asked("writer", ref, sampling))
        checker = None
        if config.checker_model is not None:
            checker = llm_checker(*asked("checker", resolve_alias(config.checker_model), CHECKER_SAMPLING))
        yield Writers(writer, checker)


def python_writer(ref: str) -> Writer:
    """Returns a writer that calls `function(passage, title, wanted)`, which may be async.

    The function returns a list of dicts with question, answer, evidence and type.
    """
    function = load_function(ref)

    async def write(task: Task) -> list[Draft]:
        found = await called_safely(function, task.passage.text, task.title, dict(task.wanted))
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise CallError(f"{function.__name__} returned {str(found)[:80]!r}; a writer returns a list of dicts.")
        return drafts_of(found)

    return write


async def checked_draft(draft: Draft, task: Task, checker: Checker | None) -> list[dict[str, Any] | Rejected]:
    """Returns a draft and its siblings, each as a row or with the reason why it is rejected.

    If the draft is rejected, its siblings are rejected with it.
    """
    row = await _row(draft, task, checker)
    if isinstance(row, Rejected):
        lost = (_rejected(one, task, Rejected("original_rejected", row.reason)) for one in draft.siblings)
        return [row, *lost]
    original = content_id(row["messages"])
    found: list[dict[str, Any] | Rejected] = [row]
    for one in draft.siblings:
        sibling = await _row(one, task, checker)
        if not isinstance(sibling, Rejected):
            sibling["metadata"]["sibling_of"] = original
        found.append(sibling)
    return found


async def _row(draft: Draft, task: Task, checker: Checker | None) -> dict[str, Any] | Rejected:
    passage = task.passage
    sure = located(draft, passage.text)
    if isinstance(sure, Rejected):
        return _rejected(draft, task, sure)
    if fault := fault_of(sure, passage.text):
        return _rejected(draft, task, fault)
    if checker is not None:
        grounded = await checker(passage, sure)
        if not grounded:
            refused = Rejected("not_grounded", "by the checker")
            return _rejected(draft, task, Rejected("unchecked", "no verdict") if grounded is None else refused)
    return row_of(sure, passage_id=passage.id, source=passage.document, place=passage.place)


def row_of(draft: Draft, *, passage_id: str, source: str, place: str) -> dict[str, Any]:
    """Returns the row of a checked draft, in the format of `--dataset`."""
    evidence = draft.evidence[0] if draft.evidence else ""
    metadata = {
        "thinking": draft.thinking,
        "source": source,
        "evidence": evidence,
        **({"evidence_all": list(draft.evidence)} if len(draft.evidence) > 1 else {}),
        "type": draft.type,
        "difficulty": draft.difficulty,
        "passage_id": passage_id,
        "place": place,
    }
    return {
        "messages": _messages(draft),
        "metadata": {key: value for key, value in metadata.items() if value or key in _ALWAYS},
    }


_ALWAYS = ("thinking", "source", "evidence", "type", "passage_id")


def _messages(draft: Draft) -> list[dict[str, str]]:
    turns = (("system", SYSTEM), ("user", draft.question), ("assistant", draft.answer))
    return [{"role": role, "content": text} for role, text in turns]


def _rejected(draft: Draft, task: Task, why: Rejected) -> Rejected:
    shown = {**asdict(replace(draft, siblings=())), "passage_id": task.passage.id}
    del shown["siblings"]
    return replace(why, id=content_id(_messages(draft)), row=shown)


def as_journal_value(found: list[dict[str, Any] | Rejected]) -> dict[str, Any]:
    """Returns what the journal keeps of a passage: its rows and its rejected drafts."""
    return {
        "rows": [one for one in found if not isinstance(one, Rejected)],
        "rejected": [one.to_json() for one in found if isinstance(one, Rejected)],
    }

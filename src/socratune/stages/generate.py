"""generate: turns documents into questions and answers, each traceable to the words it came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from socratune.config import GenerateConfig
from socratune.documents import (
    Draft,
    Edge,
    Gathered,
    Graph,
    Passage,
    Task,
    Writers,
    as_journal_value,
    asked_before,
    attending_writers,
    checked_draft,
    cut_passages,
    estimated_tokens,
    gather_passages,
    injection_in,
    linked_documents,
    questions_by_type,
    read_passages,
    token_counter,
)
from socratune.errors import CallError, OutsideError
from socratune.llm import RULES, UNLIMITED, Ledger, Limits
from socratune.rows import Rejected, content_id
from socratune.runs import (
    Journal,
    StageResult,
    Tick,
    file_hash,
    fingerprint,
    json_decode,
    json_encode,
    map_rows,
    write_lines,
    write_rejected,
)

FIRST_PASSAGES = 50
"""After so many passages, a writer that refuses most of them stops the run."""
FEWEST_PATHS = 20
"""Multi-hop questions from a graph, even if few other rows would allow fewer by their share."""


@dataclass(frozen=True, slots=True)
class GeneratedFiles:
    """Where rows and rejected rows are written, and the folder for what is read of the source."""

    rows: Path
    rejected: Path
    source: Path


_NO_QUESTION = "No question passed its checks, so there is nothing to train on."
_BY_RULES = (
    f" The writer {RULES['writer']} knows about thirty forms of English sentences, and found too few of them here. A "
    "model asks about any text: --writer-model gpt-4o-mini, ollama/llama3 or local/NAME."
)


async def generate_questions(
    place: GeneratedFiles,
    config: GenerateConfig,
    *,
    model_name: str | None,
    seed: int,
    journal: Journal,
    key: str,
    tick: Tick,
    limits: Limits = UNLIMITED,
) -> StageResult:
    """Writes the rows and the rejected rows. The figures tell how far they cover the source.

    Args:
        model_name: the model whose tokenizer sizes the passages; None uses an estimate.
        key: name and fingerprint of the stage in the journal.

    Raises:
        UserError: there is no such source, or nothing in it can be read.
        BudgetSpent: the limit of money or tokens is reached; finished passages are kept.
    """
    gathered = gather_passages(config, place.source)
    count = token_counter(model_name)
    documents, total, tokens = cut_passages(gathered, config, count)
    ledger = Ledger(limits)
    graph = Graph(linked_documents(gathered), gathered.links())
    key = f"{key}.{fingerprint(file_hash(gathered.passages))}"

    def tell(done: int, total: int) -> None:
        tick(done, total, spent=ledger.summary())

    async with attending_writers(config, gathered, seed=seed, journal=journal, ledger=ledger) as writers:
        step = passage_step(config, gathered, graph, writers)
        passages, at_once = read_passages(gathered), config.concurrency
        await map_rows(passages, step, total=total, journal=journal, stage=key, concurrency=at_once, tick=tell)
        rows = sum(len(value["rows"]) for value in map(json_decode, journal.row_texts(key)))
        edges = [value async for value in _of_graph(graph, config, rows)]
    figures = {
        "documents": documents,
        "passages": total,
        "tokens": tokens,
        "tokens_by": "estimate" if count is estimated_tokens else "tokenizer",
        "writer_model": config.writer_model,
        "spent": ledger.summary(),
    }
    figures |= _written(place, gathered, lambda: chain(map(json_decode, journal.row_texts(key)), edges))
    figures["questions_per_1000_tokens"] = round(figures["rows"] / max(1, tokens) * 1000, 2)
    failure = None if figures["rows"] else f"{_NO_QUESTION}{_BY_RULES * (config.writer_model == RULES['writer'])}"
    return StageResult(rows_in=total, rows_out=figures["rows"], figures=figures, failure=failure)


def passage_step(
    config: GenerateConfig, gathered: Gathered, graph: Graph, writers: Writers
) -> Callable[[Passage], Any]:
    """Returns a step that asks and checks a passage's questions. It stops if the writer refuses most at first."""
    mix = config.mix.model_dump(by_alias=True)
    seen = failed = 0

    async def step(passage: Passage) -> dict[str, Any]:
        nonlocal seen, failed
        if injection := injection_in(passage.text):
            row = {"text": passage.text[:2000]}
            return as_journal_value([Rejected("prompt_injection", injection, id=passage.id, row=row)])
        wanted = questions_by_type(passage.id, mix, config.questions_per_passage)
        title, near = gathered.titles[passage.document], graph.neighbours(passage.document)
        task = Task(passage, title, near, wanted, config.siblings)
        seen += 1
        try:
            drafts = await writers.writer(task)
            rows = [row for draft in drafts for row in await checked_draft(draft, task, writers.checker)]
        except CallError as error:
            failed += 1
            if seen >= FIRST_PASSAGES > failed - 1 and failed > seen / 2:
                raise OutsideError(
                    f"{failed} of the first {seen} passages failed; the last error was: {error}"
                ) from error
            return as_journal_value([Rejected("call_failed", str(error), id=passage.id)])
        return as_journal_value(rows or [Rejected("no_question", "the writer found none", id=passage.id)])

    return step


async def _of_graph(graph: Graph, config: GenerateConfig, rows: int) -> AsyncIterator[dict[str, Any]]:
    """Yields the graph's questions like those of passages. Multi-hop questions keep to their share of the mix."""
    mix = config.mix.model_dump(by_alias=True)
    share = mix["multi-hop"] / sum(mix.values())
    most = max(FEWEST_PATHS, int(rows * share / (1 - share))) if share < 1 else None
    for at, (draft, edges) in enumerate(graph.paths() if share else ()):
        if at == most:
            break
        yield await _over_edges(draft, edges, config)
    if config.writer_model == RULES["writer"] and mix["factual"]:
        for draft, edges in graph.facts(config.questions_per_passage):
            yield await _over_edges(draft, edges, config)


async def _over_edges(draft: Draft, edges: list[Edge], config: GenerateConfig) -> dict[str, Any]:
    """Checks a draft like any other, on the stretches that tell the edges, and on nothing else."""
    stretches = [edge.evidence for edge in edges]
    name, text = "+".join(part.id for part in stretches), "\n".join(part.text for part in stretches)
    passage = Passage(name, stretches[0].document, text, 0, len(text), stretches[0].place)
    siblings = draft.siblings[: config.siblings]
    task = Task(passage, "", (), {}, len(siblings))
    return as_journal_value(await checked_draft(replace(draft, siblings=siblings), task, None))


def _written(
    place: GeneratedFiles, gathered: Gathered, values: Callable[[], Iterator[dict[str, Any]]]
) -> dict[str, Any]:
    """Writes both files, without repeated questions, and returns the figures."""
    dropped = asked_before(row for value in values() for row in value["rows"])
    types: Counter[str] = Counter()
    passages, used = {passage.id for passage in read_passages(gathered)}, set[str]()
    counts = Counter(rows=0, siblings=0)

    def kept() -> Iterator[dict[str, Any]]:
        for at, row in enumerate(row for value in values() for row in value["rows"]):
            if at in dropped:
                continue
            metadata = row["metadata"]
            types[metadata["type"]] += 1
            used.add(metadata["passage_id"])
            counts["rows"] += 1
            counts["siblings"] += "sibling_of" in metadata
            yield row

    write_lines(place.rows, (f"{json_encode(row).decode()}\n" for row in kept()))
    rejected = write_rejected(place.rejected, _all_rejected(gathered, values, dropped), compact=True)
    return {
        "rows": counts["rows"],
        "siblings": counts["siblings"],
        "passages_used": len(used & passages),
        "types": dict(types.most_common()),
        "rejected": dict(rejected.most_common()),
    }


def _all_rejected(
    gathered: Gathered, values: Callable[[], Iterator[dict[str, Any]]], dropped: dict[int, Rejected]
) -> Iterator[Rejected]:
    yield from gathered.unread
    at = 0
    for value in values():
        yield from map(Rejected.from_json, value["rejected"])
        for row in value["rows"]:
            if rejected := dropped.get(at):
                yield replace(rejected, id=content_id(row["messages"]), row=row)
            at += 1

"""Provides the student of a run: in this process, behind a server of the run, or behind a server of the user."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import ProxyHandler, build_opener

from socratune.config import StudentTeacherConfig
from socratune.errors import CallError, OutsideError
from socratune.inference import controls_of, identity, load_tokenizer, with_sampling
from socratune.judging import Judge
from socratune.llm import (
    ChatModel,
    Endpoint,
    Find,
    Ledger,
    MeteredModel,
    Sampling,
    connected_model,
    endpoints_of,
    model_location,
    served_sampling,
    student_of,
    usual_markers,
    vllm_serving,
    weights_fingerprint,
)
from socratune.rows import CUT_OFF, Judgement, QARow
from socratune.runs import Journal, fingerprint, map_rows

if TYPE_CHECKING:
    from socratune.inference import LocalModels, LocalStudent

ROLE = "enhance.student"
ASK_TIMEOUT_S = 30.0


class Student(NamedTuple):
    """Holds the model that attempts, how its answers are drawn, and its identity (`socratune.inference.provenance`).

    `loaded` is the model where it is in this process, else None.
    """

    model: MeteredModel
    sampling: Sampling
    identity: dict[str, Any]
    loaded: LocalStudent | None = None

    def recorded(self) -> dict[str, Any]:
        """Returns the identity with the sampling as it was sent. None stands for a value that the server refused."""
        return {**self.identity, "sampling": {**self.identity["sampling"], **self.model.sent(self.sampling)}}


class ServedStudent(NamedTuple):
    """Holds a student that this run serves on another machine.

    Attributes:
        api_base: as it is reached from here, with its `/v1`.
        model: its name at that server.
        identity: from `inference.identity` on that machine, which `socratune serve` tells in `/v1/models`;
            with the engine `served`, or `vllm` where that answers.
    """

    api_base: str
    model: str
    identity: dict[str, Any]


def served_student(api_base: str) -> ServedStudent:
    """Returns the student behind a `socratune serve` that this run started: its model without an adapter.

    Raises:
        OutsideError: no such server answers there.
    """
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(f"{api_base}/models", timeout=ASK_TIMEOUT_S) as reply:
            card = next(card for card in json.load(reply)["data"] if card["parent"] is None)
            return ServedStudent(api_base, card["id"], {**card["identity"], "engine": "served"})
    except (OSError, ValueError, LookupError, TypeError, StopIteration) as error:
        raise OutsideError(f"{api_base}: no socratune serve answers there ({error!r}).") from error


@asynccontextmanager
async def attending_student(
    config: StudentTeacherConfig,
    model_name: str,
    models: LocalModels,
    *,
    adapter: Path | None = None,
    vllm_log: Path,
    journal: Journal,
    ledger: Ledger,
    served: ServedStudent | None = None,
) -> AsyncIterator[Student]:
    """Yields the student until the block ends.

    Args:
        model_name: the model to be trained.
        models: those of this process.
        adapter: what a student in this process wears; preflight refuses it elsewhere.
        vllm_log: where vLLM writes, if it is started.
        served: takes the place of a student on this machine; one behind a server of the user's stays there.

    Raises:
        UserError: the model cannot be loaded, or not be asked as configured.
        OutsideError: vLLM did not come up, or ended by itself.
    """
    engine, name = student_of(config, model_name)
    endpoint = endpoints_of(config)["student"]
    asked = {"temperature": config.temperature, "top_p": config.top_p, "max_new_tokens": config.max_new_tokens}
    if served is not None and engine != "http":
        sampling = served_sampling(name, **asked)
        who = {**served.identity, "name": name}
        ours = replace(endpoint, api_bases=(served.api_base,), api_key_env=None, token_ids=True)
        known = {
            "fingerprint": fingerprint(who),
            "markers": None,
            "vocabulary": len(load_tokenizer(name)),
        }  # `socratune serve` knows text from turns
        async with _connected(f"openai/{served.model}", ours, journal, **known) as model:
            yield Student(model, sampling, with_sampling(who, sampling))
    elif engine == "local":
        loaded = models.load(name, adapter=adapter)
        sampling = loaded.sampling(**asked)
        four_bit = getattr(loaded.model, "is_loaded_in_4bit", False)
        who = identity(name, load_in_4bit=four_bit, sampling=sampling, adapter=adapter)
        yield Student(MeteredModel(loaded, journal, ROLE), sampling, who, loaded)
    elif engine == "vllm":
        sampling = served_sampling(name, **asked)
        who = identity(name, engine=engine, sampling=sampling)
        kind = f"vllm/{weights_fingerprint(model_location(name))}"
        if more := config.vllm_args:  # they may change what is answered
            who, kind = {**who, "vllm_args": more}, f"{kind}/{fingerprint(more)}"
        async with vllm_serving(name, log_path=vllm_log, more=more) as base:
            ours = replace(endpoint, api_bases=(base,), api_key_env=None, token_ids=True)
            known = {"fingerprint": kind, "markers": _markers_of(name), "vocabulary": len(load_tokenizer(name))}
            async with _connected(f"openai/{name}", ours, journal, **known) as model:
                yield Student(model, sampling, who)
    else:
        sampling = served_sampling(model_name, **asked)  # it is meant to be the base, or to be like it
        markers = _markers_of(model_name) if endpoint.api_bases else None
        async with _connected(name, endpoint, journal, ledger=ledger, markers=markers) as model:
            yield Student(model, sampling, identity(name, engine=engine, sampling=sampling))


def _markers_of(name: str) -> Find:
    """Returns a finder of the control tokens of a model that another server renders, and of related models."""
    controls = controls_of(load_tokenizer(name))
    return lambda text: [*controls.found(text), *usual_markers(text)]


@asynccontextmanager
async def _connected(
    ref: str,
    endpoint: Endpoint,
    journal: Journal,
    *,
    markers: Find | None,
    ledger: Ledger | None = None,
    fingerprint: str | None = None,
    vocabulary: int | None = None,
) -> AsyncIterator[MeteredModel]:
    """Yields the model behind an API. `fingerprint` identifies it beyond its name."""
    model, price = connected_model(ref, endpoint)
    model.markers, model.vocabulary = markers, vocabulary
    if fingerprint is not None:
        model.fingerprint = fingerprint
    try:
        yield MeteredModel(model, journal, ROLE, ledger=ledger, price=price)
    finally:
        await model.close()


# --- a set of questions, asked and judged --------------------------------------------------------------------------


async def answer_and_judge(
    rows: list[QARow],
    model: ChatModel,
    judge: Judge,
    sampling: Sampling,
    *,
    journal: Journal,
    key: str,
    concurrency: int,
    tick: Callable[[int, int], None],
    samples: int = 1,
) -> list[dict[str, Any]]:
    """Returns the judged answers to each row, in the rows' order: `response`, `verdict`, `judged_by`, `tokens`, `stop`.

    An answer that is cut off is incorrect here: a model that does not come to an end has not answered, and leaving the
    pair out would favour an adapter that rambles. One that the judge's provider refuses to look at is undecided.

    Args:
        samples: answers drawn to each row, with seeds of their own; those behind the first are in `more`.
    """

    async def one(row: QARow, sampling: Sampling) -> dict[str, Any]:
        completion = await model.generate(row.prompt, sampling)
        if completion.stop != "end":
            judgement = Judgement("incorrect", CUT_OFF[completion.stop])
        else:
            try:
                judgement = await judge(row, completion.text)
            except CallError as error:
                judgement = Judgement("undecided", "error", str(error))
        return {
            "response": completion.text,
            "verdict": judgement.verdict,
            "judged_by": judgement.judged_by,
            **({"reason": judgement.kept_reason} if judgement.kept_reason else {}),
            "tokens": completion.completion_tokens,
            "stop": completion.stop,
        }

    async def step(row: QARow) -> dict[str, Any]:
        drawn = [sampling.drawn(draw_seed(row.id, number)) for number in range(samples)]
        if samples == 1:
            return await one(row, drawn[0])
        first, *more = await asyncio.gather(*(one(row, each) for each in drawn))
        return {**first, "more": more}

    await map_rows(rows, step, journal=journal, stage=key, concurrency=concurrency, tick=tick)
    return list(journal.rows(key))


def counted_from(tick: Callable[[int, int], None], before: int, total: int) -> Callable[[int, int], None]:
    """Returns the tick of one of several sets that share a progress bar of `total` rows, `before` of which are done."""
    return lambda done, _: tick(before + done, total)


def draw_seed(row_id: str, number: int) -> int:
    """Returns the seed of one answer: the same for base and adapter, and different for every question."""
    return int.from_bytes(hashlib.sha256(f"{row_id}/{number}".encode("utf-8", "replace")).digest()[:7], "big")


def accuracy(rows: list[QARow], model: ChatModel, judge: Judge, sampling: Sampling, concurrency: int) -> float:
    """Returns the share of right answers. Nothing is stored."""
    with TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.sqlite")
        answers = asyncio.run(
            answer_and_judge(
                rows,
                model,
                judge,
                sampling,
                journal=journal,
                key="accuracy",
                concurrency=concurrency,
                tick=lambda done, total: None,
            )
        )
        journal.close()
    return sum(answer["verdict"] == "correct" for answer in answers) / len(answers)

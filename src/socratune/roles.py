"""Who judges and who teaches: from a model's reference to a function the loop can call.

rules/mechanical   rules/arithmetic      no model at all
openai/NAME        anthropic/NAME        their APIs, or with an API base any server that speaks OpenAI's protocol
python:FILE.py:FUNCTION                  the user's own
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from socratune.config import StudentTeacherConfig
from socratune.errors import CallError, Fault, Shown, UserError
from socratune.hints import HintRequest, Teacher, arithmetic_teacher
from socratune.journal import Journal
from socratune.judge import Judge, mechanical_judge
from socratune.ledger import FREE, Ledger, Price, price_of
from socratune.llm.base import ChatModel, Sampling
from socratune.llm.metered import MeteredModel
from socratune.prompts import JUDGE_SCHEMA, judge_messages, parse_hint, parse_verdict, teacher_messages
from socratune.rows import Judgement, QARow

Role = Literal["student", "teacher", "judge"]

ALIASES = {"anthropic/max": "anthropic/claude-opus-4-5", "gpt-4o-mini": "openai/gpt-4o-mini"}
"""The guide's names."""

PROVIDERS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
RULES = {"judge": "rules/mechanical", "teacher": "rules/arithmetic"}
JUDGE_SAMPLING = Sampling(temperature=0.0, max_new_tokens=1024, json_schema=JUDGE_SCHEMA)
TEACHER_SAMPLING = Sampling(temperature=0.7, max_new_tokens=1024)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a role's model is reached.

    Attributes:
        api_bases: none is the provider's own address.
        api_key_env: the environment variable with the key. Without it a server at an API base of one's own gets no
            key: a provider's key must not travel to another host.
    """

    api_bases: tuple[str, ...] = ()
    api_key_env: str | None = None
    call_timeout_s: float = 600.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


def endpoints(config: StudentTeacherConfig) -> dict[Role, Endpoint]:
    """How each role is reached, by the configuration."""
    bases: dict[Role, list[str]] = {
        "student": config.student_api_base,
        "teacher": config.teacher_api_base,
        "judge": config.judge_api_base,
    }
    return {
        role: Endpoint(
            api_bases=tuple(base),
            call_timeout_s=config.call_timeout_s,
            **getattr(config.endpoints, role).model_dump(),
        )
        for role, base in bases.items()
    }


def resolve_alias(ref: str) -> str:
    """The reference behind one of the guide's names."""
    return ALIASES.get(ref, ref)


def reference_fault(role: str, ref: str, endpoint: Endpoint) -> Fault | None:
    """Why `ref` cannot be the model of a role (`judge`, `teacher`, `student`), or None. Asks nobody."""
    where, provider = f"enhance.{role}_model", ref.split("/", 1)[0]
    if ref == RULES.get(role):
        return None
    if ref.startswith("rules/"):
        return Fault(where, f"{RULES.get(role, 'a model, as rules cannot attempt')}", ref)
    if ref.startswith("python:"):
        return _python_fault(where, ref)
    known_provider = provider in PROVIDERS and bool(ref.partition("/")[2])
    if known_provider or endpoint.api_bases:
        variable = endpoint.api_key_env or (None if endpoint.api_bases else PROVIDERS[provider])
        if variable and not os.environ.get(variable):
            fix = f"Run: export {variable}=…"
            return Fault(where, f"{variable} in the environment, for {ref}", Shown("no such variable"), fix)
        return None
    known = [name for name in (RULES.get(role), "openai/NAME", "anthropic/NAME", "python:FILE.py:FUNCTION") if name]
    return Fault(where, f"one of {', '.join(known)}, or a name with --{role}-api-base", ref)


def price_fault(role: str, ref: str, endpoint: Endpoint) -> Fault | None:
    """Why a limit in USD cannot be kept with this model, or None."""
    provider, _, name = ref.partition("/")
    if provider not in PROVIDERS or (endpoint.api_bases and endpoint.api_key_env is None):
        return None
    if price_of(provider, name).per_completion_token_usd is not None:
        return None
    fix = "Limit tokens instead: --max-total-tokens."
    return Fault("enhance.max_usd", f"a model whose price is known as {role}", ref, fix)


def connect(ref: str, endpoint: Endpoint) -> tuple[ChatModel, Price]:
    """A model behind an API, and its price. Nothing is sent yet."""
    from socratune.llm.http import HttpModel

    provider, _, name = ref.partition("/")
    if provider not in PROVIDERS or not name:
        provider, name = "openai", ref
    kind: Literal["openai", "anthropic"] = "anthropic" if provider == "anthropic" else "openai"
    variable = endpoint.api_key_env or (None if endpoint.api_bases else PROVIDERS[provider])
    bases = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
    model = HttpModel(
        kind=kind,
        model=name,
        api_bases=endpoint.api_bases or (bases[provider],),
        api_key=os.environ.get(variable) if variable else None,
        call_timeout_s=endpoint.call_timeout_s,
        requests_per_minute=endpoint.requests_per_minute,
        tokens_per_minute=endpoint.tokens_per_minute,
    )
    local = endpoint.api_bases and endpoint.api_key_env is None
    return model, FREE if local else price_of(provider, name)


@dataclass(slots=True)
class Cast:
    """Judge and teacher of a run, and what has to be closed when it ends."""

    judge: Judge
    teacher: Teacher
    models: list[Any]

    async def close(self) -> None:
        """Close the connections."""
        for model in self.models:
            await model.close()


def cast(config: StudentTeacherConfig, *, stage: str, journal: Journal, ledger: Ledger) -> Cast:
    """The functions behind the configured judge and teacher; their calls are kept as calls of `stage`."""
    judge_ref, teacher_ref = resolve_alias(config.judge_model), resolve_alias(config.teacher_model)
    reached = endpoints(config)
    models: list[Any] = []

    def metered(role: Role, ref: str) -> ChatModel:
        model, price = connect(ref, reached[role])
        models.append(model)
        return MeteredModel(model, journal, f"{stage}.{role}", ledger=ledger, price=price)

    judge: Judge = mechanical_judge
    if judge_ref.startswith("python:"):
        judge = python_judge(load_function(judge_ref))
    elif judge_ref != RULES["judge"] and config.judge_mode != "mechanical":
        judge = llm_judge(metered("judge", judge_ref))
    if config.judge_mode == "cascade" and judge is not mechanical_judge:
        judge = cascade(mechanical_judge, judge)
    teacher: Teacher = arithmetic_teacher
    if teacher_ref.startswith("python:"):
        teacher = python_teacher(load_function(teacher_ref))
    elif teacher_ref != RULES["teacher"]:
        teacher = llm_teacher(metered("teacher", teacher_ref))
    return Cast(judge, teacher, models)


def llm_judge(model: ChatModel) -> Judge:
    """A judge that asks a model; a reply without a verdict is asked for once more, then the answer is undecided."""

    async def judge(row: QARow, response: str) -> Judgement:
        messages = judge_messages(row.question, row.reference, response)
        for seed in range(2):
            completion = await model.generate(messages, replace(JUDGE_SAMPLING, seed=seed))
            if (found := parse_verdict(completion.text)) is not None:
                correct, reason = found
                return Judgement("correct" if correct else "incorrect", "llm", reason)
        return Judgement("undecided", "llm", "the judge gave no verdict")

    return judge


def cascade(first: Judge, then: Judge) -> Judge:
    """A judge that asks `then` only what `first` leaves undecided."""

    async def judge(row: QARow, response: str) -> Judgement:
        judgement = await first(row, response)
        return judgement if judgement.verdict != "undecided" else await then(row, response)

    return judge


def llm_teacher(model: ChatModel) -> Teacher:
    """A teacher that asks a model for a hint."""

    async def teach(request: HintRequest) -> str | None:
        attempts = []
        for attempt in request.attempts:
            shown = {"response": attempt.response}
            attempts.append(shown | ({"hint_given": attempt.hint} if attempt.hint else {}))
        messages = teacher_messages(request.row.question, request.row.reference, attempts)
        sampling = replace(TEACHER_SAMPLING, seed=request.seed)
        return parse_hint((await model.generate(messages, sampling)).text)

    return teach


def python_judge(function: Callable[..., Any]) -> Judge:
    """`function(question, reference, response)` → True, False, or None where it cannot tell; may be async."""

    async def judge(row: QARow, response: str) -> Judgement:
        verdict = await _called(function, row.question, row.reference, response)
        if verdict is not None and not isinstance(verdict, bool):
            raise CallError(f"{function.__name__} gave {verdict!r}; a judge gives True, False or None.")
        return Judgement("undecided" if verdict is None else "correct" if verdict else "incorrect", "python")

    return judge


def python_teacher(function: Callable[..., Any]) -> Teacher:
    """`function(question, reference, responses)` → a hint, or None where it has nothing to say; may be async."""

    async def teach(request: HintRequest) -> str | None:
        responses = [attempt.response for attempt in request.attempts]
        hint = await _called(function, request.row.question, request.row.reference, responses)
        if hint is not None and not isinstance(hint, str):
            raise CallError(f"{function.__name__} gave {hint!r}; a teacher gives a text or None.")
        return hint or None

    return teach


async def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    return await asyncio.to_thread(function, *arguments)


def load_function(ref: str) -> Callable[..., Any]:
    """The function behind `python:FILE.py:FUNCTION`.

    Raises:
        UserError: no such file or function, or the file fails when it is imported.
    """
    if fault := _python_fault("--judge-model or --teacher-model", ref):
        raise UserError(fault)
    _, path, name = ref.split(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            Fault(path, "a file that can be imported", Shown(f"{type(error).__name__}: {error}"))
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(Fault(ref, f"a function {name} in {path}", Shown("none of that name")))
    return function


def _python_fault(where: str, ref: str) -> Fault | None:
    parts = ref.split(":")
    if len(parts) != 3 or not all(parts):
        return Fault(where, "python:FILE.py:FUNCTION", ref)
    if not Path(parts[1]).is_file():
        return Fault(where, "python:FILE.py:FUNCTION with a file that is there", Shown(f"no file {parts[1]}"))
    return None

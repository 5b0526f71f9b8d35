"""Resolves judge and teacher: from a model's reference to a function the loop can call.

rules/mechanical   rules/arithmetic      no model at all
rules/environment  rules/solution        no model either: what an environment's row brings
none                                     no teacher
local/NAME                               a model in this process: a folder, a Hub id or `demo`
openai/NAME        gemini/NAME     …     the APIs of `vendors.VENDORS`, whose own `gpt-…` and `claude-…` need no prefix
NAME                                     with an API base: any server that speaks OpenAI's protocol
python:FILE.py:FUNCTION                  the user's own
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import inspect
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from socratune.config import GenerateConfig, StudentTeacherConfig
from socratune.errors import CallError, Fault, Shown, UserError
from socratune.llm.base import THINKING, ChatModel, Sampling, StudentEngine
from socratune.llm.ledger import FREE, Ledger, MeteredModel, Price, price_of
from socratune.llm.locate import local_name, model_fault
from socratune.llm.markers import Find
from socratune.llm.prompts import JUDGE_SCHEMA
from socratune.llm.proxies import host_of, is_this_machine, proxy_of
from socratune.llm.vendors import BASES, OWN_ADDRESS, VENDORS, vendor_of
from socratune.runs import Journal

if TYPE_CHECKING:
    from socratune.llm.http import HttpModel
    from socratune.llm.places import Places

Role = Literal["student", "teacher", "judge", "writer", "checker"]

ALIASES = {"anthropic/max": "anthropic/claude-opus-4-5", "gpt-4o-mini": "openai/gpt-4o-mini"}
"""The guide's names."""

RULES: dict[Role, str] = {"judge": "rules/mechanical", "teacher": "rules/arithmetic", "writer": "rules/extract"}
OF_ROWS: dict[Role, str] = {"judge": "rules/environment", "teacher": "rules/solution"}
"""Rules that use what an environment's row brings: its verifier, its worked solution."""
NOBODY = "none"
"""The reference of a missing teacher."""
_SECTIONS: dict[Role, str] = {"writer": "generate", "checker": "generate"}
"""The section that configures a role; all others are in `enhance`."""
JUDGE_SAMPLING = Sampling(temperature=0.0, max_new_tokens=1024, json_schema=JUDGE_SCHEMA)
TEACHER_SAMPLING = Sampling(temperature=0.7, max_new_tokens=1024)
_RETIRED = "litellm"
"""A provider of earlier versions, which called LiteLLM in this process."""
LABORATORY_MOVED = "The laboratory's judge and teachers are in experiments/lab/lab.py of the repository."
THOUGHT_TOKENS = 4096
"""Tokens that a local thinking model may use for its thoughts, beside its answer."""


class ClosableModel(ChatModel, Protocol):
    """Asks a model and holds connections.

    Attributes:
        markers, vocabulary: see `HttpModel`.
    """

    markers: Find | None
    vocabulary: int | None

    async def close(self) -> None:
        """Closes them."""
        ...


class LocalModel(ChatModel, Protocol):
    """Answers in this process."""

    thinking: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Holds how a role's model is reached.

    Attributes:
        api_bases: none is the provider's own address.
        api_key_env: the environment variable with the key. Without it a server at an API base of one's own gets no
            key: a provider's key must not travel to another host.
        token_ids: ask for the ids that were sampled; for servers of which it is known that they tell.
        batch: gather calls into batches, at half price.
    """

    api_bases: tuple[str, ...] = ()
    api_key_env: str | None = None
    call_timeout_s: float = 600.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    token_ids: bool = False
    batch: bool = False


def endpoints_of(config: StudentTeacherConfig) -> dict[Role, Endpoint]:
    """Returns how student, teacher and judge are reached, by the configuration."""
    return {role: _endpoint(config, role) for role in ("student", "teacher", "judge")}


def writer_endpoints(config: GenerateConfig) -> dict[Role, Endpoint]:
    """Returns how writer and checker are reached, by the configuration."""
    return {role: _endpoint(config, role) for role in ("writer", "checker")}


def _endpoint(config: StudentTeacherConfig | GenerateConfig, role: Role) -> Endpoint:
    own = getattr(config.endpoints, role).model_dump()
    return Endpoint(tuple(getattr(config, f"{role}_api_base")), call_timeout_s=config.call_timeout_s, **own)


def resolve_alias(ref: str) -> str:
    """Returns the reference behind one of the guide's names."""
    return ALIASES.get(ref, ref)


def teacher_of(config: StudentTeacherConfig) -> str:
    """Returns the reference of the teacher, `NOBODY` if none was named."""
    return resolve_alias(config.teacher_model or NOBODY)


def student_of(config: StudentTeacherConfig, model_name: str) -> tuple[StudentEngine, str]:
    """Returns where the student answers, and its name or reference there.

    Args:
        model_name: the model to be trained: the student, unless the configuration names another.
    """
    ref = resolve_alias(config.student_model or model_name)
    # a base on the Hub may be called openai/…; only a student that was named is one of the vendor's
    elsewhere = vendor_of(ref) is not None or ref.split("/", 1)[0] in (*OWN_ADDRESS, _RETIRED)
    if config.student_api_base or (ref != model_name and elsewhere):
        return "http", ref
    return config.student_engine, local_name(ref) or ref


def reference_fault(role: Role, ref: str, endpoint: Endpoint) -> Fault | None:
    """Returns why `ref` cannot be the model of a role, or None.

    Raises:
        OutsideError: it is `local/` and a Hub id that is not in the local cache, and the Hub could not be asked.
    """
    where, provider = f"{_SECTIONS.get(role, 'enhance')}.{role}_model", ref.split("/", 1)[0]
    if ref in (RULES.get(role), OF_ROWS.get(role)) or (role == "teacher" and ref == NOBODY):
        return None
    if ref.startswith("rules/"):
        return Fault(where, f"{RULES.get(role, 'a model, as rules cannot attempt')}", ref)
    if ref.startswith("python:") and role not in ("student", "checker"):
        return _python_fault(where, ref)
    if (name := local_name(ref)) is not None:
        return model_fault(name, where) if not endpoint.api_bases else Fault(where, "no API base beside local/", ref)
    if provider == _RETIRED:
        return _retired_fault(role, where, ref)
    if endpoint.api_bases:
        return _key_fault(where, ref, endpoint.api_key_env) or _proxy_fault(endpoint.api_bases)
    if (vendor_name := vendor_of(ref)) is not None:
        vendor = VENDORS[vendor_name[0]]
        return _key_fault(where, ref, endpoint.api_key_env or vendor.key_variable) or _proxy_fault([vendor.base])
    return _unknown_fault(role, where, ref)


def _key_fault(where: str, ref: str, variable: str | None) -> Fault | None:
    if not variable or os.environ.get(variable):
        return None
    fix = f"Run: export {variable}=…"
    return Fault(where, f"{variable} in the environment, for {ref}", Shown("no such variable"), fix)


def _unknown_fault(role: Role, where: str, ref: str) -> Fault:
    """Returns the fault of a reference to an unknown model, with what to write if that can be guessed."""
    provider, _, name = ref.partition("/")
    if provider in OWN_ADDRESS:
        base, variable = OWN_ADDRESS[provider]
        fix = f"Give --{role}-api-base {base} --{role}-model {name or 'NAME'}"
        fix += (
            f" --set {_SECTIONS.get(role, 'enhance')}.endpoints.{role}.api_key_env={variable}, with your own address."
        )
        return Fault(where, f"a model behind an address, as every customer of {provider} has another", ref, fix)
    known = [name for name in (RULES.get(role), "local/NAME", "openai/NAME", "anthropic/NAME") if name]
    known += ["python:FILE.py:FUNCTION"] * (role not in ("student", "checker"))
    expected = f"one of {', '.join(known)}, another vendor's NAME, or a name with --{role}-api-base"
    fix = ""
    if name and "/" not in name:
        fix = f"A model of the Hub is loaded here as local/{ref}, and asked at Hugging Face's router as hf/{ref}. "
    return Fault(where, expected, ref, f"{fix}docs/guides/models.md has them all.")


def _proxy_fault(bases: Sequence[str]) -> Fault | None:
    """Returns what is wrong with the proxy for one of these addresses, or None."""
    try:
        for base in bases:
            proxy_of(base)
    except UserError as error:
        return error.faults[0]
    return None


def _retired_fault(role: Role, where: str, ref: str) -> Fault:
    model = ref.partition("/")[2] or "PROVIDER/MODEL"
    flag = f"--{role}-model {model}"
    if vendor_of(model):
        fix = f"Give {flag}: this provider is asked without LiteLLM."
    else:
        fix = f"Run its proxy, litellm --model {model}, and give --{role}-api-base http://127.0.0.1:4000/v1 {flag}"
        fix += " (docs/guides/models.md#gateways)."
    return Fault(where, "a model behind an address, as LiteLLM is no longer called in this process", ref, fix)


def price_fault(role: Role, ref: str, endpoint: Endpoint) -> Fault | None:
    """Returns why a limit in USD cannot be kept with this model, or None."""
    if price_at(ref, endpoint).per_completion_token_usd is not None:
        return None
    part = "generate" if role in ("writer", "checker") else "enhance"
    fix = f"Limit tokens instead: --set {part}.max_total_tokens=N."
    return Fault("max_usd", f"a model whose price is known as {role}", ref, fix)


def price_at(ref: str, endpoint: Endpoint) -> Price:
    """Returns the price of a reference, or the price in a batch where the calls go in batches.

    A model is `FREE` in this process, on a server without a key, and on this machine. The price of a name that only a
    gateway with a key knows is not known.
    """
    vendor, name = _addressed(ref, endpoint)
    hosts = [host_of(base) for base in endpoint.api_bases]
    if (hosts and endpoint.api_key_env is None) or (vendor is not None and VENDORS[vendor].is_here):
        return FREE
    if vendor is None:
        return FREE if all(map(is_this_machine, hosts)) else Price(None, None)
    prices = VENDORS[vendor].prices
    return Price(None, None) if prices is None else price_of(prices, name, batch=endpoint.batch)


def _addressed(ref: str, endpoint: Endpoint) -> tuple[str | None, str]:
    """Returns the vendor and the model's name there. At the user's own address the name stays as it is, except for
    `openai/` or `anthropic/`, which only names the protocol.
    """
    if endpoint.api_bases:
        protocol, _, name = ref.partition("/")
        return (protocol, name) if protocol in BASES and name else (None, ref)
    return vendor_of(ref) or (None, ref)


def connected_model(ref: str, endpoint: Endpoint) -> tuple[HttpModel, Price]:
    """Returns a model behind an API, and the price of a direct call. It sends nothing yet."""
    named, name = _addressed(ref, endpoint)
    vendor = VENDORS[named or "openai"]
    variable = endpoint.api_key_env or (None if endpoint.api_bases else vendor.key_variable)
    from socratune.llm.http import HttpModel

    # an address of one's own, or one of OpenAI's kin: what it fills in where nothing is said is not known
    known = vendor.base == BASES[vendor.protocol]
    model = HttpModel(
        kind=vendor.protocol,
        model=name,
        api_bases=endpoint.api_bases or (() if known else (vendor.base,)),
        api_key=os.environ.get(variable) if variable else None,
        token_ids=endpoint.token_ids,
        call_timeout_s=endpoint.call_timeout_s,
        requests_per_minute=endpoint.requests_per_minute,
        tokens_per_minute=endpoint.tokens_per_minute,
    )
    if not endpoint.api_bases and named is not None:
        model.name = model.fingerprint = f"{named}/{name}"  # the same name elsewhere may be another model
    gateway = endpoint.api_bases and endpoint.api_key_env and named is None
    return model, price_of("openai", name) if gateway else price_at(ref, replace(endpoint, batch=False))


@dataclass(frozen=True, slots=True)
class Reached:
    """Holds a role's model behind the journal, its sampling, and what must be closed in the end."""

    model: ChatModel
    sampling: Sampling
    connected: tuple[ClosableModel, ...] = ()


def reached_model(
    ref: str,
    endpoint: Endpoint,
    sampling: Sampling,
    *,
    role: str,
    journal: Journal,
    ledger: Ledger,
    local: Callable[[str], LocalModel] | None,
    places: Places | None = None,
) -> Reached:
    """Returns the model behind a reference.

    Args:
        role: `STAGE.WHO`, in the journal and the ledger.
        local: gives the model in this process of a name.
        places: the rows of a stage whose calls may go in batches; None: all are direct.
    """
    if (name := local_name(ref)) is not None:
        assert local is not None, f"{ref}: nobody loads models here"
        loaded = local(name)
        return Reached(MeteredModel(loaded, journal, role), thoughtful(sampling) if loaded.thinking else sampling)
    model, price = connected_model(ref, endpoint)
    direct = MeteredModel(model, journal, role, ledger=ledger, price=price)
    if not endpoint.batch or places is None:
        return Reached(direct, sampling, (model,))
    from socratune.llm.batched import BatchedModel

    cheaper = price_at(ref, endpoint)
    batched = BatchedModel(model, direct, journal=journal, role=role, ledger=ledger, price=cheaper, places=places)
    return Reached(batched, sampling, (batched,))


def thoughtful(sampling: Sampling) -> Sampling:
    """Returns the sampling for a model that thinks first: never greedy, and with room for the thoughts."""
    temperature, top_p = THINKING
    return replace(
        sampling, temperature=temperature, top_p=top_p, max_new_tokens=THOUGHT_TOKENS + sampling.max_new_tokens
    )


MOST_THREADS = 32
_places = threading.BoundedSemaphore(MOST_THREADS)


async def _in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Works like `asyncio.to_thread` in a daemon thread, because the loop waits for those of its own executor."""
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    result: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if result.cancelled():
            return
        result.set_result(value) if error is None else result.set_exception(error)

    def work() -> None:
        value = error = None
        try:
            with _places:
                value = None if result.cancelled() else context.run(function, *arguments)
        except StopIteration as ended:  # which no future takes
            error = RuntimeError(f"StopIteration: {ended}")
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name="users-function", daemon=True).start()
    return await result


async def called_safely(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns the result of a user's function. One that is not async runs in a thread that no interrupt waits for.

    Raises:
        CallError: it raised.
    """
    try:
        if inspect.iscoroutinefunction(function):
            return await function(*arguments)
        return await _in_thread(function, *arguments)
    except Exception as error:  # the user's own code may raise anything; it is this row's outcome
        name = getattr(function, "__name__", type(function).__name__)
        raise CallError(f"{name} raised {type(error).__name__}: {error}") from error


HANDED = "<python>"
"""The file part in the reference of a function that was passed as an object."""
_handed: dict[str, Callable[..., Any]] = {}


def reference_to(role: Role, function: Callable[..., Any]) -> str:
    """Returns a reference to a function of this process, valid until the process ends."""
    name = f"{role}_{getattr(function, '__name__', type(function).__name__)}"
    _handed[name] = function
    return f"python:{HANDED}:{name}"


def load_function(ref: str) -> Callable[..., Any]:
    """Returns the function behind `python:FILE.py:FUNCTION`.

    Raises:
        UserError: no such file or function, or the file fails when it is imported.
    """
    if fault := _python_fault("--judge-model or --teacher-model", ref):
        raise UserError(fault)
    _, path, name = ref.split(":")
    if path == HANDED:
        return _handed[name]
    function = getattr(module_of(path, path), name, None)
    if not callable(function):
        raise UserError(Fault(ref, f"a function {name} in {path}", Shown("none of that name")))
    return function


def module_of(path: str, where: str) -> ModuleType:
    """Returns the module in a user's Python file.

    Raises:
        UserError: its name does not end in .py, or it fails when it is imported.
    """
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise UserError(Fault(where, "a Python file", Shown("another one"), "Its name ends in .py."))
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code may raise anything
        got = Shown(f"{type(error).__name__}: {error}")
        raise UserError(Fault(where, "a file that can be imported", got)) from error
    return module


def _python_fault(where: str, ref: str) -> Fault | None:
    parts = ref.split(":")
    if len(parts) != 3 or not all(parts):
        return Fault(where, "python:FILE.py:FUNCTION", ref)
    if parts[1] == HANDED:
        fix = "Call socratune.run with the function again, or name its file: python:FILE.py:FUNCTION."
        got = Shown("none of that name in this process")
        return None if parts[2] in _handed else Fault(where, "a function that was handed over", got, fix)
    if not Path(parts[1]).is_file():
        fix = LABORATORY_MOVED if parts[1].endswith("socratune/lab.py") else ""
        return Fault(where, "python:FILE.py:FUNCTION with an existing file", Shown(f"no file {parts[1]}"), fix)
    return None

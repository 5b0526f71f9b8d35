"""Serves `/health`, `/v1/models`, `/v1/chat/completions` and `/v1/completions` for one or more students."""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from socratune.errors import Fault, Shown, UserError
from socratune.inference import end_of_turn_id, prompt_ids
from socratune.llm import Sampling
from socratune.publishing import openai_protocol
from socratune.publishing.openai_models import Served
from socratune.publishing.openai_protocol import Asked, AskedText, BadRequest, Choice, Saying
from socratune.publishing.webserver import Hosts, address, listening, meant_for_us, serve_until_stopped

_MOST_BODY = 16_000_000  # bytes
HEALTH = "/health"


def openai_server(models: Sequence[Served], key: str | None = None, *, hosts: Hosts) -> ASGIApp:
    """Returns the server of these models. It answers only requests meant for it (`webserver.meant_for_us`).

    Args:
        hosts: the names it answers to.
        models: each is asked by its name.
        key: what a request has to bring as `Authorization: Bearer KEY`, except to `/health`; None: nothing.
    """
    by_name = {served.name: served for served in models}
    listed = {"object": "list", "data": [_card(served) for served in models]}

    async def complete(kind: type[Asked] | type[AskedText], request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _refused("expected application/json", 415)  # what pages of other sites can send without asking
        if int(request.headers.get("content-length", _MOST_BODY + 1)) > _MOST_BODY:
            return _refused(f"expected a body of at most {_MOST_BODY} bytes with a Content-Length", 413)
        try:
            asked = openai_protocol.parse(kind, await request.body())
            if (served := by_name.get(asked.model)) is None:
                return _refused(f"the model {asked.model!r} does not exist; this server has {', '.join(by_name)}", 404)
            return await _completed(served, asked, request)
        except BadRequest as error:
            return _refused(str(error), 400)

    routes = [
        Route(HEALTH, lambda _: Response()),
        Route("/v1/models", lambda _: JSONResponse(listed)),
        Route("/v1/chat/completions", partial(complete, Asked), methods=["POST"]),
        Route("/v1/completions", partial(complete, AskedText), methods=["POST"]),
    ]
    plain = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_route, Exception: _failed})
    return meant_for_us(plain if key is None else _with_key(plain, key), hosts, _refused)


async def _completed(served: Served, asked: Asked | AskedText, request: Request) -> Response:
    tokenizer = served.student.tokenizer
    if isinstance(asked, Asked):
        try:
            prompts = [prompt_ids(tokenizer, asked.chat)]
        except Exception as error:  # whatever a template raises of turns it does not know
            raise BadRequest(f"messages: the model's chat template refuses them ({error})") from None
    else:
        prompts = [tokenizer(text)["input_ids"] for text in asked.prompts]
    if asked.odds is not None and (asked.stream or (isinstance(asked, AskedText) and asked.echo)):
        raise BadRequest("logprobs: available only for whole answers without their prompt; leave out stream and echo")
    field = "messages" if isinstance(asked, Asked) else "prompt"
    most = getattr(served.student.model.config, "max_position_embeddings", None)
    for ids in prompts:
        if not ids:
            raise BadRequest(f"{field}: expected at least one token")
        if most and len(ids) >= most:
            raise BadRequest(f"{field}: {len(ids)} tokens, but the model has room for {most}")
    if asked.stream:
        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(_events(served, asked, prompts), media_type="text/event-stream", headers=headers)
    heard = lambda index, piece: None  # noqa: E731
    with _Answers(served, asked, heard) as answers:
        working = asyncio.create_task(answers.all(prompts))
        leaving = asyncio.ensure_future(request.receive())  # behind the body nothing comes but that the caller has gone
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
    return JSONResponse(openai_protocol.answer(asked, await working))


async def _events(served: Served, asked: Asked | AskedText, prompts: list[list[int]]) -> AsyncIterator[bytes]:
    """Yields every piece of text as soon as it is certain. A caller who hangs up ends the answers."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
    events = openai_protocol.Events(asked)

    def put(event: bytes | None) -> None:
        with suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(pieces.put_nowait, event)

    async def work(answers: _Answers) -> None:
        try:
            choices = await answers.all(prompts, lambda choice: put(events.ended(choice)))
            put(events.last(choices))
        except Exception as error:  # the student failed: the status is sent already
            put(events.failed(f"{type(error).__name__}: {error}"))
        finally:
            put(None)

    with _Answers(served, asked, lambda index, text: put(events.piece(index, text))) as answers:
        working = asyncio.create_task(work(answers))
        while (event := await pieces.get()) is not None:
            yield event
        await working


class _Answers:
    """The choices of one request, decoded together with those of others. Leaving the block abandons them.

    Args:
        heard: is called with index and text, as it becomes certain, in the thread that decodes.
    """

    def __init__(self, served: Served, asked: Asked | AskedText, heard: Callable[[int, str], None]) -> None:
        self._served, self._asked, self._heard = served, asked, heard
        self._left = False

    def __enter__(self) -> _Answers:
        return self

    def __exit__(self, *error: object) -> None:
        self._left = True

    async def all(
        self, prompts: list[list[int]], ended: Callable[[Choice], None] = lambda choice: None
    ) -> list[Choice]:
        """Returns all choices by index. `ended` is called with each as it is complete."""
        sampling, several = _sampling(self._served, self._asked), self._asked.n
        work = [
            self._one(at * several + way, ids, replace(sampling, seed=sampling.seed + way), ended)
            for at, ids in enumerate(prompts)
            for way in range(several)
        ]
        return await asyncio.gather(*work)

    async def _one(self, index: int, ids: list[int], sampling: Sampling, ended: Callable[[Choice], None]) -> Choice:
        asked, tokenizer = self._asked, self._served.student.tokenizer
        decode = partial(tokenizer.decode, skip_special_tokens=False)
        saying = Saying(decode, asked.stops, stripped=isinstance(asked, Asked))
        echoed = asked.prompts[index // asked.n] if isinstance(asked, AskedText) and asked.echo else ""
        self._heard(index, echoed)

        def told(token: int) -> bool:
            if piece := saying.hear(token):
                self._heard(index, piece)
            return saying.stopped or self._left

        said = await self._served.student.go_on(ids, sampling, told)
        if piece := saying.end():
            self._heard(index, piece)
        over = [end_of_turn_id(tokenizer)] if said.stop == "end" else []
        reason = "length" if said.stop == "length" and not saying.stopped else "stop"
        odds = None if asked.odds is None else await self._logprobs(ids, saying.shown_ids, asked.odds)
        choice = Choice(
            index, echoed + saying.text, [*saying.ids, *over], reason, len(ids), said.completion_tokens, odds
        )
        ended(choice)
        return choice

    async def _logprobs(self, ids: list[int], new_ids: list[int], likeliest: int) -> Any:
        student = self._served.student
        text = lambda token: student.tokenizer.decode([token], skip_special_tokens=False)  # noqa: E731
        found = await student.odds(ids, new_ids, likeliest)
        others = [[(text(token), odds) for token, odds in each.likeliest] for each in found]
        own = [each.log_probability for each in found]
        return openai_protocol.logprobs(self._asked, [text(token) for token in new_ids], own, others)


def _sampling(served: Served, asked: Asked | AskedText) -> Sampling:
    """Returns the model's own settings for a request without a temperature, else neutral values for what it omits."""
    longest = asked.longest or served.max_new_tokens
    if asked.temperature is not None:
        found = Sampling(asked.temperature, 1.0 if asked.top_p is None else asked.top_p, max_new_tokens=longest)
    else:
        found = served.student.sampling(temperature=None, top_p=asked.top_p, max_new_tokens=longest)
    return Sampling(
        found.temperature,
        found.top_p,
        found.top_k if asked.top_k is None else max(0, asked.top_k),
        longest,
        secrets.randbits(53) if asked.seed is None else asked.seed,
    )


def _card(served: Served) -> dict[str, Any]:
    """Returns the model as OpenAI's list has it, with vLLM's `parent` of an adapter, and its identity."""
    card = {"id": served.name, "object": "model", "created": int(time.time()), "owned_by": "socratune"}
    base = served.identity["name"]
    return {**card, "parent": None if served.name == base else base, "identity": served.identity}


def _refused(message: str, status: int) -> Response:
    return JSONResponse(openai_protocol.error(message, "invalid_request_error"), status)


def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _refused(f"{request.method} {request.url.path}: {error.detail}", error.status_code)


def _failed(request: Request, error: Exception) -> Response:
    """Answers that the student failed, usually for lack of memory."""
    return JSONResponse(openai_protocol.error(f"{type(error).__name__}: {error}", "server_error"), 500)


def _with_key(inner: ASGIApp, key: str) -> ASGIApp:
    """Refuses a request without the key."""
    expected = f"Bearer {key}".encode()

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", [])).get(b"authorization", b"")
        if scope["type"] == "http" and scope["path"] != HEALTH and not hmac.compare_digest(given, expected):
            await _refused("expected Authorization: Bearer and the key of this server", 401)(scope, receive, send)
        else:
            await inner(scope, receive, send)

    return guard


# --- `socratune serve` ---------------------------------------------------------------------------------------------


def serve_models(
    what: str, say: Callable[[str], None], *, host: str, port: int, key_env: str | None,
    names: Sequence[str] = (), template: str | None = None,
) -> None:  # fmt: skip
    """Serves a model, or a run's base and adapter, until Ctrl-C. Port 0 takes a free port.

    Args:
        what: the folder of a run, or a model: a folder, a Hub id or `demo`.
        say: hears the address when the models are loaded.
        host: the address to listen at.
        port: the port there.
        key_env: the environment variable with the key that requests have to bring; None: they need none.
        names: host names by which it is reached besides its address, as behind a proxy.
        template: the chat template of a model, as the setting means it; None: its own.

    Raises:
        UserError: no such run or model, the port is taken, or there is no such variable.
        OutsideError: the Hub could not be asked about the model.
    """
    key = None if key_env is None else os.environ.get(key_env)
    if key_env is not None and not key:
        fix = f"Run: export {key_env}=…"
        raise UserError(Fault("--api-key-env", f"{key_env} in the environment", Shown("no such variable"), fix))
    from socratune.publishing.openai_models import serving_models

    place = listening(host, port)  # before minutes of loading
    answered = Hosts(place.getsockname()[0], [host, *names])
    with serving_models(what, template) as models:
        names = " and ".join(served.name for served in models)
        say(f"{names}: {address(place)}/v1  (press Ctrl-C to stop)")
        serve_until_stopped(openai_server(models, key, hosts=answered), place)

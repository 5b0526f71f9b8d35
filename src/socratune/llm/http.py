"""Models behind HTTP: OpenAI's chat completions and Anthropic's messages, as the vendors and model servers speak them.

One pooled session per model. An answer costs a fraction of a millisecond of this process, so that hundreds of calls in
flight wait for the server and not for the client.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from socratune.errors import CallError, Fault, OutsideError, Shown, UserError
from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.limits import Breaker, Bucket, Endpoint, Endpoints, retry_after_s

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

BACKOFF_BASE_S = 0.5
BACKOFF_FACTOR = 3.0
BACKOFF_CAP_S = 60.0
"""Waits of 0.5, 1.5, 4.5, 13.5, 40.5, 60 s (each times 0.5 to 1): the first retry is soon, six outlast a restart."""

LONGEST_WAIT_S = 900.0
"""A server that asks for more (a daily quota) stops the run; the user decides when to go on."""

CONNECT_TIMEOUT_S = 30.0
"""A host that swallows packets must not hold a call for its whole time when another address could take it."""

KEEP_ALIVE_S = 4.0
"""Below the 5 s after which uvicorn, and with it vLLM, closes idle connections: a reused one is not closed under us."""

SHORTEST_SECRET = 8
"""Shorter keys are placeholders ("EMPTY", "ollama"); blotting them out would spoil answers."""

SHOWN_CHARACTERS = 300
"""Of what a server says in an error."""

_BASES = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
_KEY_VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
_OPTIONAL = ("seed", "top_k", "top_p", "temperature")
_OUT_OF_CREDIT = ("insufficient_quota", "credit balance is too low")
_SCHEMA_WORDS = ("response_format", "output_config", "schema", "grammar", "structured output")
_NOT_TAKEN = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|extra inputs|extra_forbidden|not permitted|not allowed"
    r"|unexpected|only the default|deprecated|cannot both"
)

# ASCII with escapes: a lone surrogate in a text reaches the server instead of failing in `encode`
_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class _Failure(Exception):
    """A try that may go better next time.

    Attributes:
        what: what happened, for people.
        wait_s: what the server asks to wait; None where it does not.
        unreachable: no connection came about.
        throttled: the server is well and wants fewer calls.
    """

    def __init__(
        self, what: str, *, wait_s: float | None = None, unreachable: bool = False, throttled: bool = False
    ) -> None:
        super().__init__(what)
        self.what = what
        self.wait_s = wait_s
        self.unreachable = unreachable
        self.throttled = throttled


class HttpModel:
    """A model behind one or more addresses that speak the same protocol.

    Attributes:
        name: `KIND/MODEL`.
        fingerprint: the same; addresses, key, timeouts and limits do not change an answer.
        dropped: parameters this model refused, left out since ("max_tokens": sent as max_completion_tokens).

    Args:
        kind: the protocol.
        model: as the server calls it.
        api_bases: `http(s)://HOST[/PATH]`, the openai ones with their `/v1`; empty for the vendor's.
        api_key: None or empty sends no key.
        call_timeout_s: of each try, from connecting to the last byte.
        max_retries: of one call. Being throttled while other calls get answers does not count.
        requests_per_minute: over all addresses; None is no limit.
        tokens_per_minute: prompt and answer, over all addresses; None is no limit.

    Raises:
        UserError: an address or the key cannot be one.
    """

    def __init__(
        self,
        *,
        kind: Literal["openai", "anthropic"],
        model: str,
        api_bases: Sequence[str],
        api_key: str | None,
        call_timeout_s: float = 600,
        max_retries: int = 6,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        self.name = f"{kind}/{model}"
        self.fingerprint = self.name
        self.dropped: set[str] = set()
        self._kind = kind
        self._model = model
        self._key = (api_key or "").strip()
        if not self._key.isprintable():
            raise UserError(Fault(f"API key of {self.name}", "a key without line breaks or control characters"))
        self._call_timeout_s = call_timeout_s
        self._max_retries = max_retries
        self._requests = Bucket(requests_per_minute) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute) if tokens_per_minute else None
        self._answer_tokens = 256.0  # running mean; the first guess only shapes the first seconds
        self._answered = 0
        self._endpoints = Endpoints([self._endpoint(base) for base in api_bases or (_BASES[kind],)])
        self._breaker = Breaker()
        self._random = random.Random()  # its own, so that retries do not move the run's seeded draws
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"HttpModel({self.name!r})"

    def _endpoint(self, base: str) -> Endpoint:
        base = base.strip().rstrip("/")
        try:
            parts = urlsplit(base)
            good = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0
        except ValueError:  # a port that is none
            good = False
        if not good:
            raise UserError(Fault("API base", "http(s)://HOST[:PORT][/PATH]", self._clean(base), "Mend the address."))
        if self._kind == "anthropic":
            return Endpoint(base, base.removesuffix("/v1") + "/v1/messages")
        if self._key and urlsplit(base).password is not None:
            # both would be the Authorization header
            raise UserError(Fault("API base", "no password beside an API key", self._clean(base), "Drop one of them."))
        return Endpoint(base, base + "/chat/completions")

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        """The answer to `messages`.

        Raises:
            CallError: this call is refused, filtered or malformed; another may well pass.
            UserError: the key is not accepted, or the address redirects.
            OutsideError: no answer after all retries, the server is down, or the account's credit is used up.
        """
        tries = spent = 0
        answered = self._answered
        while True:
            estimate = await self._within_limits(messages)
            endpoint = self._endpoints.pick()
            try:
                completion = await self._ask(endpoint, messages, sampling)
            except _Failure as failure:
                tries += 1
                # throttled while others get through is a queue, not a failure
                spent += not (failure.throttled and self._answered > answered)
                answered = self._answered
                wait_s = self._count_failure(endpoint, failure, tries, spent)
            else:
                self._breaker.worked()
                endpoint.worked()
                if completion is None:
                    continue
                self._answered += 1
                if self._tokens:
                    self._tokens.correct(completion.prompt_tokens + completion.completion_tokens - estimate)
                    self._answer_tokens += (completion.completion_tokens - self._answer_tokens) / 16
                return completion
            await self._breaker.bounded(None, asyncio.sleep, wait_s)

    async def close(self) -> None:
        """Close the connections; to be awaited in the loop that made the calls. A later call opens new ones."""
        session, self._session = self._session, None
        if session:
            await session.close()

    async def _within_limits(self, messages: Chat) -> float:
        """Wait for the allowance. Returns the tokens reserved, about four characters each."""
        estimate = sum(len(message["content"]) for message in messages) / 4 + self._answer_tokens
        wait_s = self._requests.reserve(1) if self._requests else 0.0
        if self._tokens:
            wait_s = max(wait_s, self._tokens.reserve(estimate))
        if wait_s:
            await self._breaker.bounded(None, asyncio.sleep, wait_s)
        return estimate

    def _count_failure(self, endpoint: Endpoint, failure: _Failure, tries: int, spent: int) -> float:
        """Seconds to wait before the next try.

        Raises:
            OutsideError: there is no next try.
        """
        what = f"{self._clean(f'{self.name} at {endpoint.base}')}: {failure.what}"
        if not failure.throttled:
            endpoint.failed(unreachable=failure.unreachable)
            self._breaker.failed(what)
        if spent > self._max_retries:
            if not failure.throttled:
                self._breaker.spent(what)
            raise OutsideError(f"{what}. Gave up after {tries} tries")
        if failure.wait_s is not None and failure.wait_s > LONGEST_WAIT_S:
            raise OutsideError(f"{what}. It asks to wait {failure.wait_s:.0f} s")
        if failure.unreachable and self._endpoints.another_is_able(endpoint):
            return 0.0
        longest = min(BACKOFF_BASE_S * BACKOFF_FACTOR ** min(tries - 1, 10), BACKOFF_CAP_S)
        backoff_s = longest * self._random.uniform(0.5, 1.0)
        # a little more than was asked for, so that the calls throttled together do not come back together
        return backoff_s if failure.wait_s is None else failure.wait_s + min(backoff_s, BACKOFF_BASE_S)

    async def _ask(self, endpoint: Endpoint, messages: Chat, sampling: Sampling) -> Completion | None:
        """One try. None where the server refused a parameter that will be left out of the next one."""
        import aiohttp

        build = _openai_body if self._kind == "openai" else _anthropic_body
        body = build(self._model, messages, sampling, self.dropped)
        endpoint.in_flight += 1
        endpoint.sent += 1
        try:
            status, headers, data = await self._breaker.bounded(
                self._call_timeout_s, self._post, endpoint.url, _to_json(body).encode()
            )
        except OutsideError:  # is an OSError too
            raise
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            failure = _Failure(f"cannot connect ({self._shown(error)})", unreachable=True)
        except TimeoutError:
            failure = _Failure(f"no answer within {self._call_timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            failure = _Failure(f"the connection broke ({type(error).__name__}: {self._shown(error)})")
        else:
            if status in range(200, 300):
                return self._read_answer(headers, data)
            self._read_error(endpoint, status, headers, data, body)
            return None
        finally:
            endpoint.in_flight -= 1
        raise failure  # out here it does not drag along the library's error, which holds the request's headers

    async def _post(self, url: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        session = self._session or self._open()
        async with session.post(url, data=body, allow_redirects=False) as response:
            data = await response.read()
            if len(self._key) >= SHORTEST_SECRET:  # here, so that no frame holds an echoed key
                data = data.replace(self._key.encode(), b"[key]")
            return response.status, response.headers, data

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        headers = {"Content-Type": "application/json", "User-Agent": "socratune"}
        if self._kind == "anthropic":
            headers["anthropic-version"] = "2023-06-01"
        if self._key and self._kind == "anthropic":
            headers["x-api-key"] = self._key
        elif self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT_TIMEOUT_S, self._call_timeout_s)),
        )
        return self._session

    def _read_answer(self, headers: Mapping[str, str], data: bytes) -> Completion:
        """The completion in a 200's body."""
        try:
            parsed = json.loads(data)
        except (ValueError, RecursionError):
            kind = self._shown(headers.get("Content-Type", "no content type"))
            raise _Failure(f"status 200 with {kind} that is not JSON: {self._shown(_message_in(data))}") from None
        try:
            read = _openai_answer if self._kind == "openai" else _anthropic_answer
            completion = read(parsed)
        except CallError as error:
            raise CallError(f"{self.name}: {self._shown(error)}") from None
        except (LookupError, TypeError, AttributeError, ValueError):
            raise _Failure(f"status 200 without an answer in it: {self._shown(_message_in(data))}") from None
        if len(self._key) >= SHORTEST_SECRET and self._key in completion.text:
            text = completion.text.replace(self._key, "[key]")
            return Completion(text, completion.stop, completion.prompt_tokens, completion.completion_tokens)
        return completion

    def _read_error(
        self, endpoint: Endpoint, status: int, headers: Mapping[str, str], data: bytes, body: dict[str, Any]
    ) -> None:
        """Raise what an error answer means. Returns where a parameter was refused that can be left out."""
        said = data[:10_000].decode("utf-8", "replace").lower()
        if status in (400, 422) and (name := _refused_parameter(self._kind, body, said)):
            if name not in self.dropped:
                self.dropped.add(name)
                log.warning("%s does not take %s; it is left out from now on", self.name, name)
            return
        what = f"status {status}: {self._shown(_message_in(data))}"
        where = self._clean(f"{self.name} at {endpoint.base}")
        if status in (401, 403):
            fix = f"Set {_KEY_VARIABLES[self._kind]}, or the variable that api_key_env names, to a key of this server."
            raise UserError(Fault(where, "an API key that is accepted", Shown(what), fix))
        if status in range(300, 400):
            to = self._shown(headers.get("Location", "nowhere"))
            raise UserError(
                Fault(where, "an address that answers itself", Shown(f"a redirect to {to}"), "Give that as API base.")
            )
        if status == 402 or any(words in said for words in _OUT_OF_CREDIT):
            raise OutsideError(f"{where}: the account's credit is used up ({what})")
        # OpenAI answers 429 to a prompt that is longer than a whole minute's allowance
        too_large = status == 429 and "request too large" in said
        if (status in (408, 409, 429) and not too_large) or status >= 500:
            raise _Failure(what, wait_s=retry_after_s(headers), throttled=status in (409, 429))
        self._breaker.worked()
        endpoint.worked()
        raise CallError(f"{self.name}: {what}")

    def _shown(self, text: object) -> str:
        """The start of what someone else said. Cleaned first: half a key is a secret too."""
        return self._clean(str(text))[:SHOWN_CHARACTERS]

    def _clean(self, text: str) -> str:
        """`text` without the key and without a password in an address."""
        if len(self._key) >= SHORTEST_SECRET:
            text = text.replace(self._key, "[key]")
        return re.sub(r"://[^/@\s]+@", "://[password]@", text)


def _openai_body(model: str, messages: Chat, sampling: Sampling, dropped: set[str]) -> dict[str, Any]:
    limit = "max_completion_tokens" if "max_tokens" in dropped else "max_tokens"
    body: dict[str, Any] = {"model": model, "messages": messages, limit: sampling.max_new_tokens}
    body |= _draw(sampling, dropped)
    if "seed" not in dropped:
        body["seed"] = sampling.seed
    if sampling.json_schema is not None and "response_format" not in dropped:
        schema = {"name": "answer", "strict": True, "schema": json.loads(sampling.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _anthropic_body(model: str, messages: Chat, sampling: Sampling, dropped: set[str]) -> dict[str, Any]:
    turns = [message for message in messages if message["role"] != "system"]
    body: dict[str, Any] = {"model": model, "messages": turns, "max_tokens": sampling.max_new_tokens}
    body |= _draw(sampling, dropped)
    if len(turns) < len(messages):
        body["system"] = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    if sampling.json_schema is not None and "output_config" not in dropped:
        body["output_config"] = {"format": {"type": "json_schema", "schema": json.loads(sampling.json_schema)}}
    return body


def _draw(sampling: Sampling, dropped: set[str]) -> dict[str, float]:
    """Temperature, and what is not off: a server may refuse even the neutral value of what it does not know."""
    drawn: dict[str, float] = {"temperature": sampling.temperature}
    if sampling.top_p < 1:
        drawn["top_p"] = sampling.top_p
    if sampling.top_k > 0:
        drawn["top_k"] = sampling.top_k
    return {name: value for name, value in drawn.items() if name not in dropped}


def _openai_answer(data: Any) -> Completion:
    """The first choice. Anything missing raises what plain indexing raises; the caller takes it as no answer."""
    choice = data["choices"][0]
    message = choice["message"]
    reason = choice.get("finish_reason")
    if refusal := message.get("refusal"):
        raise CallError(f"the model refused: {refusal}")
    if reason == "content_filter":
        raise CallError("the answer was stopped by the provider's content filter")
    if reason == "error":
        raise ValueError("the provider's server failed in mid-answer")
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    usage = data.get("usage") or {}
    return Completion(
        _with_thought(thought, content),
        "length" if reason == "length" else "end",
        usage.get("prompt_tokens") or 0,
        usage.get("completion_tokens") or 0,
    )


def _anthropic_answer(data: Any) -> Completion:
    """All text blocks, the thinking ones first."""
    reason = data.get("stop_reason")
    if reason == "refusal":
        raise CallError("the model refused")
    blocks = data["content"]
    thought = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    usage = data.get("usage") or {}
    return Completion(
        _with_thought(thought, text),
        "length" if reason in ("max_tokens", "model_context_window_exceeded") else "end",
        usage.get("input_tokens") or 0,
        usage.get("output_tokens") or 0,
    )


def _with_thought(thought: str, text: str) -> str:
    """As reasoning models write it themselves where no server takes it apart."""
    thought = thought.strip("\n")
    return f"<think>\n{thought}\n</think>\n\n{text.lstrip()}" if thought else text


def _refused_parameter(kind: str, body: dict[str, Any], said: str) -> str | None:
    """The parameter of `body` that a 400 says is not taken; None where the 400 is about something else.

    Args:
        kind: the protocol.
        body: as it was sent.
        said: the server's whole answer in lower case, since the name may stand in a field beside the message.
    """
    for name in ("response_format", "output_config"):
        if name in body and any(word in said for word in _SCHEMA_WORDS):
            return name
    if not _NOT_TAKEN.search(said):
        return None
    if kind == "openai" and "max_tokens" in body and "max_completion_tokens" in said:
        return "max_tokens"
    return next((name for name in _OPTIONAL if name in body and re.search(rf"\b{name}\b", said)), None)


def _message_in(data: bytes) -> str:
    """What an error body says, on one line: the message field of the usual shapes, else the text."""
    text = data[:10_000].decode("utf-8", "replace")
    try:
        said = json.loads(data)
        error = said.get("error", said)
        found = error if isinstance(error, str) else error.get("message") or error.get("detail")
        text = found if isinstance(found, str) else json.dumps(found or said)
    except (ValueError, RecursionError, AttributeError):
        pass
    return " ".join(text.split())

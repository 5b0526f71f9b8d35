"""Asks models over HTTP: OpenAI's chat completions and Anthropic's messages, as vendors and model servers speak them.

One pool of connections per address. A call costs about a tenth of a millisecond of this process, so that hundreds in
flight wait for the server and not for the client.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn
from urllib.parse import urlsplit

from socratune.errors import CallError, Fault, OutsideError, Shown, UserError
from socratune.llm import wire
from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.connection import LONGEST_ANSWER, CannotConnect, EndlessResponse, Pool, Response
from socratune.llm.failures import Failure, NoRoom
from socratune.llm.ledger import credible_tokens, most_prompt_tokens, reserve_again, waste
from socratune.llm.limits import Breaker, Bucket, Endpoints, RateLimits, retry_after_s
from socratune.llm.markers import Find, spelt_out, usual_markers, without_markers
from socratune.llm.vendors import BASES, VENDORS, WireProtocol
from socratune.runs import json_decode, json_encode

log = logging.getLogger(__name__)

BACKOFF_BASE_S = 0.5
BACKOFF_FACTOR = 3.0
_BACKOFF_CAP_S = 60.0
"""Waits of 0.5, 1.5, 4.5, 13.5, 40.5, 60 s (each times 0.5 to 1): the first retry is soon, six outlast a restart."""

LONGEST_WAIT_S = 900.0
"""A server that asks for a longer wait (a daily quota) stops the run; the user decides when to continue."""

_CONNECT_TIMEOUT_S = 30.0
"""A host that swallows packets must not hold a call for all its time if another address could take it."""

KEEP_ALIVE_S = 4.0
"""Below the 5 s after which uvicorn, and with it vLLM, closes idle connections: a reused one is not closed under us."""

SHORTEST_SECRET = 8
"""Shorter keys are placeholders ("EMPTY", "ollama"); removing them would corrupt answers."""

_BESIDE_BYTES, _TOKEN_BYTES, _ECHO = 1 << 20, 256, 8
"""Bytes of an answer: a megabyte of extras from the server, 256 bytes a token (escaped, with its id), and the prompt's
ids, up to eight times as long as its text: 1.3 MB of a judge with 1,024 tokens."""

UNUSABLE_TRIES = 3
"""Tries of a call with unusable answers (empty, broken off, endless) while the server works: the row is the cause."""

SHOWN_CHARACTERS = 300
"""Characters of a server's text that an error shows."""

_OUT_OF_CREDIT = ("insufficient_quota", "credit balance is too low")


class HttpModel:
    """Asks a model behind one or more addresses that speak the same protocol.

    Attributes:
        name: `KIND/MODEL`; whoever makes it for another vendor (`VENDORS`) puts that one's name before the slash.
        kind: the protocol.
        fingerprint: the same; addresses, key, timeouts and limits do not change an answer.
        markers: finds the control tokens in texts that this server might read as turns; they are sent spelt out. None
            for a vendor's own address and for a server that knows text from turns itself.
        vocabulary: an answer with ids from here on is taken by its text alone. None: not known.

    Args:
        kind: the protocol.
        model: as the server calls it.
        api_bases: `http(s)://HOST[/PATH]`, the openai ones with their `/v1`; empty for the vendor's.
        api_key: None or empty sends no key.
        call_timeout_s: of each try, from connecting to the last byte.
        max_retries: of one call. Being throttled while other calls get answers does not count.
        requests_per_minute: over all addresses; None is no limit.
        tokens_per_minute: prompt and answer, over all addresses; None is no limit.
        token_ids: ask for the ids that were sampled, which vLLM and `socratune serve` tell.

    Raises:
        UserError: an address or the key cannot be one.
    """

    def __init__(
        self,
        *,
        kind: WireProtocol,
        model: str,
        api_bases: Sequence[str],
        api_key: str | None,
        call_timeout_s: float = 600,
        max_retries: int = 6,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        token_ids: bool = False,
    ) -> None:
        self.name = f"{kind}/{model}"
        self.fingerprint = self.name
        self.vocabulary: int | None = None
        self.markers: Find | None = usual_markers if api_bases else None
        self._unasked = set() if token_ids else {wire.TOKEN_IDS}
        # a vendor's own defaults are known to be neutral, and it refuses what is not of its protocol
        self._neutral = bool(api_bases)
        self.kind: WireProtocol = kind
        self._model = model
        self._key = (api_key or "").strip()
        if not self._key.isprintable():
            raise UserError(Fault(f"API key of {self.name}", "a key without line breaks or control characters"))
        self._call_timeout_s = call_timeout_s
        self._max_retries = max_retries
        self._requests = Bucket(requests_per_minute) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute) if tokens_per_minute else None
        self._short_of_room = False
        self._answer_tokens = 256.0  # running mean; the first guess only shapes the first seconds
        self._answered = 0
        self._pools = dict(self._reach(base) for base in api_bases or (BASES[kind],))
        self._endpoints = Endpoints(list(self._pools))
        self._breaker = Breaker()
        self._has_said = False
        self._random = random.Random()  # its own, so that retries do not move the run's seeded draws

    def __repr__(self) -> str:
        return f"HttpModel({self.name!r})"

    def _reach(self, base: str) -> tuple[RateLimits, Pool]:
        base = base.strip().rstrip("/")
        try:
            parts = urlsplit(base)
            good = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0
        except ValueError:  # an invalid port
            good = False
        if not good:
            raise UserError(Fault("API base", "http(s)://HOST[:PORT][/PATH]", self._clean(base), "Fix the address."))
        if self._key and self.kind == "openai" and urlsplit(base).password is not None:
            # both would be the Authorization header
            raise UserError(Fault("API base", "no password beside an API key", self._clean(base), "Drop one of them."))
        pool = Pool(
            wire.url_of(self.kind, base),
            wire.headers_of(self.kind, self._key),
            connect_timeout_s=min(_CONNECT_TIMEOUT_S, self._call_timeout_s),
            keep_alive_s=KEEP_ALIVE_S,
        )
        return RateLimits(base), pool

    @property
    def dropped(self) -> set[str]:
        """Returns the parameters that an address of this model refused."""
        return {name for endpoint in self._pools for name in endpoint.dropped}

    def sent(self, sampling: Sampling) -> dict[str, Any]:
        """Returns how answers are drawn as it is sent. None is what a server refused and decides itself."""
        body = wire.request(self.kind, self._model, [], sampling, self._left_out(self.dropped, sampling))
        return {name: body.get(name) for name in wire.drawn_by(sampling) if name in body or name in self.dropped}

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        """Returns the answer to `messages`. If the server has room for fewer tokens, it asks once for fewer.

        Raises:
            CallError: this call is refused, filtered or malformed, or all its tries failed while others were answered.
            UserError: the key is not accepted, or the address redirects.
            OutsideError: the server is down, as far as can be seen, or the account's credit is used up.
        """
        messages = self._without_markers(messages)
        tries = spent = unusable = 0
        room: int | None = None
        answered = first_failed = self._answered
        while True:
            estimate = await self._within_limits(messages)
            endpoint = self._endpoints.pick()
            try:
                answer = await self._ask(endpoint, messages, sampling, room)
            except NoRoom as less:
                room = less.room
                continue
            except Failure as failure:
                tries += 1
                # throttled while others get through is a queue, not a failure
                spent += not (failure.throttled and self._answered > answered)
                answered = self._answered
                first_failed = answered if tries == 1 else first_failed
                self._count_failure(endpoint, failure)
                unusable += failure.unusable
                if billed := failure.paid is not None:
                    waste(*failure.paid)
                if unusable > min(self._max_retries, UNUSABLE_TRIES - 1):
                    raise CallError(f"{self._told(endpoint, failure)}. Gave up after {tries} tries") from None
                if spent > self._max_retries:
                    self._give_up(endpoint, failure, tries, alone=answered > first_failed)
                wait_s = self._wait_s(endpoint, failure, tries)
            else:
                self._breaker.worked()
                endpoint.worked()
                if answer is None:
                    continue
                self._answered += 1
                if self.vocabulary is not None and max(answer.token_ids or (0,)) >= self.vocabulary:
                    answer = replace(answer, token_ids=None)
                if self._tokens:
                    read, written = credible_tokens(answer, messages, sampling)
                    self._tokens.correct(read + written - estimate)
                    self._answer_tokens += (written - self._answer_tokens) / 16
                return answer
            await self._breaker.bounded(None, asyncio.sleep, wait_s)
            if billed:
                await reserve_again()

    def _without_markers(self, messages: Chat) -> Chat:
        """Returns the conversation as it is sent, and warns the first time that it was changed."""
        messages, marker = without_markers(messages, self.markers) if self.markers else (messages, None)
        if marker is not None and not self._has_said:
            self._has_said = True
            text = "%s: %r in a text might end a turn at that server, so it and its like are sent as %r"
            log.warning(text, self.name, marker, spelt_out(marker))
        return messages

    def body(self, messages: Chat, sampling: Sampling) -> dict[str, Any]:
        """Returns the body of a call without the parameters that the addresses have refused so far."""
        left_out = self._left_out(self.dropped, sampling)
        return wire.request(self.kind, self._model, self._without_markers(messages), sampling, left_out)

    async def send(
        self, method: str, path: str, body: bytes = b"", *, form: str = "", longest: int = LONGEST_ANSWER
    ) -> bytes:
        """Returns the first address's answer at another path, behind its `/v1`. It tries once.

        Args:
            method, path, body: of the request.
            form: boundary of a multipart body; empty for JSON.
            longest: bytes of the answer.

        Raises:
            Failure: another try may go better; whether this one was heard is not known.
            CallError: it is refused.
            UserError, OutsideError: as for `generate`.
        """
        endpoint, pool = next(iter(self._pools.items()))
        headers = wire.headers_of(self.kind, self._key)
        headers |= {"Content-Type": f"multipart/form-data; boundary={form}"} if form else {}
        url = wire.root_of(self.kind, endpoint.base) + path
        try:
            async with asyncio.timeout(self._call_timeout_s):
                status, answered, data = await pool.send(method, url, headers, body, longest)
        except OSError as error:
            raise Failure(f"the connection broke ({type(error).__name__}: {self._shown(error)})") from None
        if len(self._key) >= SHORTEST_SECRET:
            data = data.replace(self._key.encode(), b"[key]")
        if status not in range(200, 300):
            self._read_error(endpoint, status, answered, data, {})
        return data

    async def close(self) -> None:
        """Closes the connections, awaited in the loop that made the calls. A later call opens new ones."""
        for pool in self._pools.values():
            await pool.close()

    async def _within_limits(self, messages: Chat) -> float:
        """Waits for the allowance and returns the tokens reserved, about four characters each, or 0 without a limit."""
        estimate = wait_s = 0.0
        if self._requests:
            wait_s = self._requests.reserve(1)
        if self._tokens:
            estimate = sum(len(message["content"]) for message in messages) / 4 + self._answer_tokens
            wait_s = max(wait_s, self._tokens.reserve(estimate))
        if wait_s:
            await self._breaker.bounded(None, asyncio.sleep, wait_s)
        return estimate

    def _count_failure(self, endpoint: RateLimits, failure: Failure) -> None:
        if failure.unusable:
            self._breaker.worked()
            endpoint.worked()
        elif not failure.throttled:
            endpoint.failed(unreachable=failure.unreachable)
            self._breaker.failed(self._told(endpoint, failure))

    def _give_up(self, endpoint: RateLimits, failure: Failure, tries: int, *, alone: bool) -> NoReturn:
        """Ends a call whose retries are spent. `alone`: other calls were answered since its first failure.

        Such a call fails by itself (a question that crashes the server), and its row can bear that. Where nobody is
        answered, or nobody gets a connection, it is the server, and rows must not pay for it.
        """
        what = f"{self._told(endpoint, failure)}. Gave up after {tries} tries"
        if failure.throttled:
            raise OutsideError(what)
        self._breaker.spent(self._told(endpoint, failure))
        self._breaker.check()
        if alone and not failure.unreachable:
            raise CallError(f"{what}, while other calls were answered")
        raise OutsideError(what)

    def _wait_s(self, endpoint: RateLimits, failure: Failure, tries: int) -> float:
        """Returns the seconds to wait before the next try.

        Raises:
            OutsideError: the server asks for more than anyone waits.
        """
        if failure.wait_s is not None and failure.wait_s > LONGEST_WAIT_S:
            raise OutsideError(f"{self._told(endpoint, failure)}. It asks to wait {failure.wait_s:.0f} s")
        if failure.unreachable and self._endpoints.another_is_able(endpoint):
            return 0.0
        longest = min(BACKOFF_BASE_S * BACKOFF_FACTOR ** min(tries - 1, 10), _BACKOFF_CAP_S)
        backoff_s = longest * self._random.uniform(0.5, 1.0)
        # a little more than was asked for, so that the calls throttled together do not come back together
        return backoff_s if failure.wait_s is None else failure.wait_s + min(backoff_s, BACKOFF_BASE_S)

    def _told(self, endpoint: RateLimits, failure: Failure) -> str:
        return f"{self._clean(f'{self.name} at {endpoint.base}')}: {failure.what}"

    def _left_out(self, dropped: set[str], sampling: Sampling) -> set[str]:
        if self._neutral:
            return dropped | self._unasked
        own = wire.drawn_by(sampling)
        return dropped | self._unasked | {name for name, value in wire.NEUTRAL.items() if own[name] == value}

    async def _ask(
        self, endpoint: RateLimits, messages: Chat, sampling: Sampling, room: int | None
    ) -> Completion | None:
        """Tries once. Returns None if the server refused a parameter that the next try will omit.

        Raises:
            NoRoom: the server has room for fewer tokens; not with a `room` that was found before.
        """
        asked = sampling if room is None else replace(sampling, max_new_tokens=room)
        left_out = self._left_out(endpoint.dropped, sampling)
        body = wire.request(self.kind, self._model, messages, asked, left_out)
        endpoint.in_flight += 1
        endpoint.sent += 1
        sent = json_encode(body)
        longest = _BESIDE_BYTES + _TOKEN_BYTES * sampling.max_new_tokens + _ECHO * len(sent)
        try:
            status, headers, data = await self._breaker.bounded(
                self._call_timeout_s, self._post, self._pools[endpoint], sent, longest
            )
        except OutsideError:  # is an OSError too
            raise
        except CannotConnect as error:
            raise Failure(f"cannot connect ({self._shown(error)})", unreachable=True) from None
        except TimeoutError:
            raise Failure(f"no answer within {self._call_timeout_s:g} s") from None
        except EndlessResponse as error:
            raise Failure(
                f"{error}, where {sampling.max_new_tokens} tokens were asked for",
                unusable=True,
                paid=(0, sampling.max_new_tokens),
            ) from None
        except OSError as error:
            raise Failure(f"the connection broke ({type(error).__name__}: {self._shown(error)})") from None
        finally:
            endpoint.in_flight -= 1
        if status in range(200, 300):
            return self.read_answer(headers, data)
        if room is None and status in (400, 413, 422):
            self._look_for_room(data, messages, sampling)
        self._read_error(endpoint, status, headers, data, body)
        return None

    def _look_for_room(self, data: bytes, messages: Chat, sampling: Sampling) -> None:
        """Raises NoRoom if an error reports that the server has room for fewer tokens."""
        read = most_prompt_tokens(messages, sampling)
        room = wire.room_for_answer(wire.start_of(data), sampling.max_new_tokens, read)
        if room is None:
            return
        if not self._short_of_room:
            self._short_of_room = True
            text = (
                "%s has no room for an answer of %d tokens, so it is asked for %d; the same goes for others from now on"
            )
            log.warning(text, self.name, sampling.max_new_tokens, room)
        raise NoRoom(room)

    async def _post(self, pool: Pool, body: bytes, longest: int) -> Response:
        answer = await pool.post(body, longest)
        if len(self._key) >= SHORTEST_SECRET:  # here, so that no frame holds an echoed key
            return answer._replace(body=answer.body.replace(self._key.encode(), b"[key]"))
        return answer

    def read_answer(self, headers: Mapping[str, str], data: bytes) -> Completion:
        """Returns the completion in the body of a 200.

        Raises CallError where the model or a filter refused, Failure where there is no answer in it.
        """
        try:
            parsed = json_decode(data)
        except ValueError:
            kind = self._shown(headers.get("content-type", "no content type"))
            raise Failure(f"status 200 with {kind} that is not JSON: {self._shown(wire.message_in(data))}") from None
        try:
            answer = wire.completion(self.kind, parsed)
        except CallError as error:
            waste(*wire.usage(self.kind, parsed))
            raise CallError(f"{self.name}: {self._shown(error)}") from None
        except wire.NoWords as error:
            paid = wire.usage(self.kind, parsed)
            raise Failure(f"status 200 with {self._shown(error)}", unusable=True, paid=paid) from None
        except (LookupError, TypeError, AttributeError, ValueError):
            what, paid = self._shown(wire.message_in(data)), wire.usage(self.kind, parsed)
            text = f"status 200 without an answer in it: {what}"
            raise Failure(text, paid=paid if any(paid) else None) from None
        if len(self._key) >= SHORTEST_SECRET and self._key in answer.text:
            text = answer.text.replace(self._key, "[key]")
            return Completion(text, answer.stop, answer.prompt_tokens, answer.completion_tokens)
        return answer

    def _read_error(
        self, endpoint: RateLimits, status: int, headers: Mapping[str, str], data: bytes, body: dict[str, Any]
    ) -> None:
        """Raises what an error answer means. Returns if a refused parameter can be omitted."""
        text = wire.start_of(data)
        if status in (400, 422) and (names := wire.refused_parameters(self.kind, body, text)):
            if new := [name for name in names if name not in endpoint.dropped]:
                endpoint.dropped.update(new)
                log.warning("%s does not take %s; it is left out from now on", self.name, ", ".join(new))
            return
        what = f"status {status}: {self._shown(wire.message_in(data))}"
        where = self._clean(f"{self.name} at {endpoint.base}")
        if status in (401, 403):
            usual = VENDORS[self.name.split("/", 1)[0]].key_variable or "a variable"
            fix = f"Set {usual}, or what api_key_env names, to a key of this server."
            raise UserError(Fault(where, "an API key that is accepted", Shown(what), fix))
        if status == 407:
            fix = "Give it in the variable, as http://USER:PASSWORD@HOST:PORT."
            raise UserError(Fault("HTTP_PROXY", "user and password that the proxy takes", Shown(what), fix))
        if status in range(300, 400):
            to = Shown(f"a redirect to {self._shown(headers.get('location', 'nowhere'))}")
            raise UserError(Fault(where, "an address that answers itself", to, "Give that as API base."))
        if status == 402 or any(words in text for words in _OUT_OF_CREDIT):
            raise OutsideError(f"{where}: the account's credit is used up ({what})")
        # OpenAI answers 429 to a prompt that is longer than a whole minute's allowance
        too_large = status == 429 and "request too large" in text
        if (status in (408, 409, 429) and not too_large) or status >= 500:
            raise Failure(what, wait_s=retry_after_s(headers), throttled=status in (409, 429))
        self._breaker.worked()
        endpoint.worked()
        raise CallError(f"{self.name}: {what}")

    def _shown(self, text: object) -> str:
        """Returns the start of a foreign text. It is cleaned first, because half a key is a secret too."""
        return self._clean(str(text))[:SHOWN_CHARACTERS]

    def _clean(self, text: str) -> str:
        """Returns `text` without the key and without a password in an address."""
        if len(self._key) >= SHORTEST_SECRET:
            text = text.replace(self._key, "[key]")
        return re.sub(r"://[^/@\s]+@", "://[password]@", text)

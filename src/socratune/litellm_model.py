"""Any provider that LiteLLM knows, as a model: `litellm/PROVIDER/MODEL`, with the extra `[litellm]`.

The package takes seconds to import and milliseconds per call, so it is for providers that nothing else here speaks to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from dataclasses import replace
from functools import cache
from importlib import metadata
from typing import Any

from packaging.version import Version

from socratune.errors import CallError, Fault, OutsideError, Shown, UserError
from socratune.llm import wire
from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.limits import Bucket

OLDEST = Version("1.84")
"""Older ones have known holes."""
STOLE_CREDENTIALS = ("1.82.7", "1.82.8")
"""Releases that someone else had put on PyPI; they sent the machine's keys away (BerriAI/litellm#24512)."""

MAX_RETRIES = 6
BACKOFF_S, BACKOFF_CAP_S = 0.5, 60.0
"""Waits of 0.5, 1.5, 4.5, 13.5, 40.5, 60 s, each times 0.5 to 1."""

LONGEST_WAIT_S = 900.0
"""A provider that asks for more (a daily quota) stops the run; the user decides when to go on."""

SHORTEST_SECRET = 8
_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")


def litellm_fault(where: str) -> Fault | None:
    """Why LiteLLM cannot be used, or None; imports nothing of it."""
    install = "Run: pip install 'socratune[litellm]'"
    try:
        version = metadata.version("litellm")
    except metadata.PackageNotFoundError:
        return Fault(where, "the package litellm", Shown("not installed"), install)
    if version in STOLE_CREDENTIALS:
        fix = "Uninstall it, and replace every key this machine has held: this release sends them away."
        return Fault(where, f"litellm {OLDEST} or newer", Shown(f"the compromised release {version}"), fix)
    if Version(version) < OLDEST:
        return Fault(where, f"litellm {OLDEST} or newer", Shown(version), install)
    return None


class _Failure(Exception):
    """A try that may go better next time; `wait_s` is what the provider asks to wait, None where it does not."""

    def __init__(self, what: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class LiteLLMModel:
    """A model behind LiteLLM.

    Attributes:
        name: `litellm/PROVIDER/MODEL`.
        fingerprint: the same; address, key, timeouts and limits do not change an answer.

    Args:
        model: `PROVIDER/MODEL`.
        api_base: None is the provider's own.
        api_key: None lets LiteLLM look into the provider's own variable.
        call_timeout_s: of each try.
        requests_per_minute: None is no limit.
        tokens_per_minute: prompt and answer; None is no limit.
    """

    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        api_key: str | None = None,
        call_timeout_s: float = 600.0,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        self.name = self.fingerprint = f"litellm/{model}"
        self._model = model
        self._reached = {name: value for name, value in (("api_base", api_base), ("api_key", api_key)) if value}
        self._call_timeout_s = call_timeout_s
        self._requests = Bucket(requests_per_minute) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute) if tokens_per_minute else None
        self._random = random.Random()  # its own, so that retries do not move the run's seeded draws

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        """The answer to `messages`.

        Raises:
            CallError: this call is refused or filtered; another may well pass.
            UserError: the key is missing or not accepted.
            OutsideError: no answer after all retries, or the account's credit is used up.
        """
        retry = 0
        while True:
            estimate = await self._within_limits(messages, sampling)
            try:
                completion = await self._ask(messages, sampling)
            except _Failure as failure:
                await self._wait(failure, retry)
                retry += 1
            else:
                if self._tokens:
                    self._tokens.correct(completion.prompt_tokens + completion.completion_tokens - estimate)
                return completion

    async def close(self) -> None:
        """Close the connections LiteLLM keeps."""
        litellm = _litellm()
        await litellm.close_litellm_async_clients()

    async def _ask(self, messages: Chat, sampling: Sampling) -> Completion:
        """One try."""
        litellm = _litellm()
        call = wire.request("openai", self._model, messages, sampling, set())
        call |= {"drop_params": True, "timeout": self._call_timeout_s, "num_retries": 0, "max_retries": 0}
        try:
            async with asyncio.timeout(self._call_timeout_s):
                response = await litellm.acompletion(**call, **self._reached)
            completion = wire.completion("openai", response.model_dump())
            return replace(completion, text=self._blotted(completion.text))
        except TimeoutError:
            failure = _Failure(f"no answer within {self._call_timeout_s:g} s")
        except CallError as error:
            raise CallError(f"{self.name}: {self._shown(error)}") from None
        except (LookupError, TypeError, AttributeError, ValueError):
            failure = _Failure("an answer without a message in it")
        except Exception as error:  # LiteLLM's errors have no class in common, but each has a status
            failure = self._failure(error)
        raise failure  # out here it does not drag along the library's error, which may hold the key

    async def _wait(self, failure: _Failure, retry: int) -> None:
        """Wait before the next try.

        Raises:
            OutsideError: there is no next try.
        """
        if failure.wait_s is not None and failure.wait_s > LONGEST_WAIT_S:
            raise OutsideError(f"{self.name}: {failure}. It asks to wait {failure.wait_s:.0f} s")
        if retry == MAX_RETRIES:
            raise OutsideError(f"{self.name}: {failure}. Gave up after {retry + 1} tries")
        backoff_s = min(BACKOFF_S * 3.0**retry, BACKOFF_CAP_S) * self._random.uniform(0.5, 1.0)
        await asyncio.sleep(backoff_s if failure.wait_s is None else failure.wait_s + min(backoff_s, BACKOFF_S))

    async def _within_limits(self, messages: Chat, sampling: Sampling) -> float:
        """Wait for the allowance. Returns the tokens reserved: four characters each, and a quarter of the limit."""
        estimate = sum(len(message["content"]) for message in messages) / 4 + sampling.max_new_tokens / 4
        wait_s = self._requests.reserve(1) if self._requests else 0.0
        if self._tokens:
            wait_s = max(wait_s, self._tokens.reserve(estimate))
        if wait_s:
            await asyncio.sleep(wait_s)
        return estimate

    def _failure(self, error: Exception) -> _Failure:
        """The error as one that may go better next time; raises where it will not."""
        status = getattr(error, "status_code", 500)
        said = f"{type(error).__name__} {status}: {self._shown(error)}"
        if status in (401, 403):
            fix = "Set the provider's key in its own variable, or name one in endpoints.ROLE.api_key_env."
            raise UserError(Fault(self.name, "an API key that is accepted", Shown(said), fix)) from None
        if status == 402:
            raise OutsideError(f"{self.name}: the account's credit is used up ({said})") from None
        if status not in (408, 409, 429) and status < 500:
            raise CallError(f"{self.name}: {said}") from None
        headers = getattr(error, "litellm_response_headers", None) or {}
        asked = str(headers.get("retry-after", ""))
        return _Failure(said, float(asked) if asked.replace(".", "", 1).isdigit() else None)

    def _shown(self, error: Exception) -> str:
        """The start of what someone else said. Cleaned first: half a key is a secret too."""
        return " ".join(self._blotted(str(error)).split())[:300]

    def _blotted(self, text: str) -> str:
        """`text` without the key, and without any variable's value whose name says that it is a secret."""
        secrets = [value for name, value in os.environ.items() if name.upper().endswith(_SECRET_NAMES)]
        for secret in (self._reached.get("api_key", ""), *secrets):
            if len(secret) >= SHORTEST_SECRET:
                text = text.replace(secret, "[key]")
        return text


@cache
def _litellm() -> Any:
    """The package, told to keep to itself: no price list from the network, no `.env` file, no advertisements."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    import litellm  # pyright: ignore[reportMissingImports]

    litellm.suppress_debug_info = True
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    return litellm

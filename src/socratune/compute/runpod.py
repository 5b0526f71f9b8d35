"""RunPod by its REST API v2, https://docs.runpod.io/api-reference-v2: four calls and the catalog.

The key is sent only to `where.api_base`: redirects are not followed.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from socratune.compute.provider import NoCapacity, Offer, Order, Pod
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.llm import proxy_of

log = logging.getLogger(__name__)

KEY = "RUNPOD_API_KEY"
MIN_CUDA = "13.0"
"""Lowest CUDA version of the machine's driver: PyPI's torch in `constraints-gpu.txt` is built for it."""
_TIMEOUT_S = 60.0
_LONGEST_ANSWER = 1 << 24
"""Bytes; a list of all machines and prices takes a few hundred thousand."""
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pauses between the tries of a call. A pause requested by the server is kept up to `_LONGEST_PAUSE_S`."""
_LONGEST_PAUSE_S = 60.0

_STATUS = {"PROVISIONING": "starting", "STARTING": "starting", "RUNNING": "running"}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Refused(OutsideError):
    """The server answered and refused; `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Unclear(OutsideError):
    """The call may or may not have had its effect; asking again may help. `pause_s`: the server's requested pause."""

    pause_s: float | None = None


class RunPod:
    """A `ComputeProvider`.

    Args:
        api_base: URL including the version.

    Raises:
        UserError: there is no key, or the address would reveal it to others.
    """

    def __init__(self, api_base: str) -> None:
        try:
            parts = urlsplit(api_base)
            self._tls, self._host, self._port = parts.scheme == "https", parts.hostname or "", parts.port
        except ValueError as error:
            raise UserError(Fault("where.api_base", "an address like https://api.runpod.io/v2", api_base)) from error
        self._path = parts.path.rstrip("/")
        if not self._host or not (self._tls or (parts.scheme == "http" and self._host in _LOOPBACK)):
            raise UserError(
                Fault(
                    "where.api_base", "an https:// address", api_base, "Otherwise the key would be sent in clear text."
                )
            )
        self._key = os.environ.get(KEY, "")
        if not self._key:
            fix = f"Make one at https://console.runpod.io/user/settings, then: export {KEY}=…"
            raise UserError(Fault(KEY, "RunPod's API key in the environment", Shown("nothing"), fix))

    def offers(self, gpu_count: int, cloud: str) -> list[Offer]:
        query = {"include": "AVAILABILITY", "product": "POD", "count": gpu_count, "cloud": cloud.upper()}
        query["minCudaVersion"] = MIN_CUDA
        kinds = self._settled("GET", f"/catalog/gpus?{urlencode(query)}")["gpus"]
        return [
            Offer(
                gpu=kind["id"],
                name=kind["name"],
                memory_gb=kind["memory"],
                stock=kind.get("availability", "NONE"),
                usd_per_hour=kind["price"][cloud] * gpu_count,
            )
            for kind in kinds
            if kind[cloud] and kind["maxCount"][cloud] >= gpu_count and kind["price"][cloud] > 0
        ]

    def create(self, order: Order) -> Pod:
        """Rents a machine. The API has no idempotency key, so after a lost answer it looks for the pod by name."""
        body = {
            "name": order.name,
            "image": order.image,
            "gpu": {"id": order.gpu, "count": order.gpu_count, "minCudaVersion": MIN_CUDA},
            "cloud": order.cloud.upper(),
            "disk": order.disk_gb,
            "ports": ["22/tcp"],
            "env": order.env,
        }
        try:
            return _pod(self._settled("POST", "/pods", body, done=lambda: self._named(order.name)))
        except Refused as error:
            if error.status in (400, 403):  # 400 also means "none is free", for which the API has no code
                raise NoCapacity(str(error)) from None
            raise

    def get(self, pod_id: str) -> Pod | None:
        try:
            pod = self._settled("GET", f"/pods/{pod_id}")
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return None if pod["status"] == "TERMINATED" else _pod(pod)

    def list(self) -> list[Pod]:
        return [_pod(pod) for pod in self._listed()]

    def terminate(self, pod_id: str) -> None:
        try:
            self._settled("DELETE", f"/pods/{pod_id}")
        except Refused as error:
            if error.status != 404:
                raise

    def _listed(self) -> list[dict[str, Any]]:
        return [pod for pod in self._settled("GET", "/pods")["pods"] if pod["status"] != "TERMINATED"]

    def _named(self, name: str) -> dict[str, Any] | None:
        pods = (pod for pod in self._listed() if pod["name"] == name and pod["status"] in _STATUS)
        return next(pods, None)

    def _settled(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, done: Callable[[], Any] = lambda: None
    ) -> Any:
        """Returns the answer to a call, repeated while it is unclear.

        Args:
            done: returns the effect of a try whose answer was lost, or None.
        """
        for pause_s in (*_PAUSES_S, None):
            try:
                return self._ask(method, path, body)
            except _Unclear as error:
                if pause_s is None:
                    raise
                own_s, server_s = pause_s * random.uniform(0.5, 1), error.pause_s
                wait_s = own_s if server_s is None else min(server_s, _LONGEST_PAUSE_S)
                log.info("%s Trying again in %.0f s.", error, wait_s)
                time.sleep(wait_s)
            if (effect := done()) is not None:
                return effect
        raise AssertionError("the last try returns or raises")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Tries a call once.

        Raises:
            UserError: the key is refused, or the account has no money.
            Refused: another answer that will not change.
            _Unclear: there is no answer, or one that may change.
        """
        connect = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        proxy = proxy_of(f"https://{self._host}:{self._port or 443}") if self._tls else None
        connection = connect(*((proxy.host, proxy.port) if proxy else (self._host, self._port)), timeout=_TIMEOUT_S)
        if proxy:
            own = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
            connection.set_tunnel(self._host, self._port, own)
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        try:
            connection.request(method, self._path + path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read(_LONGEST_ANSWER + 1).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise _Unclear(f"RunPod ({self._host}) did not answer: {error or type(error).__name__}.") from None
        finally:
            connection.close()
        if len(text) > _LONGEST_ANSWER:
            raise _Unclear(f"RunPod ({self._host}) answered with more than {_LONGEST_ANSWER:,} characters.")
        if response.status < 300:
            try:
                return json.loads(text) if text else None
            except ValueError:
                raise _Unclear(f"RunPod ({self._host}) answered with something other than JSON.") from None
        raise _failure(response.status, text, response.headers)


def _pod(answer: dict[str, Any]) -> Pod:
    direct = (answer.get("ssh") or {}).get("direct") or {}  # the proxy knows neither rsync nor forwarding
    return Pod(
        id=answer["id"],
        name=answer["name"],
        status=_STATUS.get(answer["status"], "ended"),  # pyright: ignore[reportArgumentType]
        usd_per_hour=answer["cost"],
        host=direct.get("host"),
        port=direct.get("port", 22),
        user=direct.get("username", "root"),
        env=answer.get("env") or {},
    )


def _failure(status: int, text: str, headers: Any) -> Exception:
    """Returns the error for an answer, whose body has the form of RFC 9457."""
    try:
        problem = json.loads(text)
        reason = " ".join([problem.get("detail") or problem.get("title") or "", *problem.get("errors", [])])
    except (ValueError, AttributeError, TypeError):
        reason = text
    answer = f"{status}: {' '.join(reason.split())[:300]}"
    if status == 401:
        fix = "Check it, or make another at https://console.runpod.io/user/settings."
        return UserError(Fault(KEY, "a key that RunPod accepts", Shown(answer), fix))
    if status == 402:
        fix = "Add money at https://console.runpod.io/user/billing."
        return UserError(Fault("RunPod", "an account with enough money", Shown(answer), fix))
    if status == 429 or status >= 500:
        unclear = _Unclear(f"RunPod answered {answer}.")
        unclear.pause_s = _pause_s(headers)
        return unclear
    return Refused(status, f"RunPod answered {answer}.")


def _pause_s(headers: Any) -> float | None:
    """Returns the server's requested pause: Retry-After, or else the reset time of an exhausted RateLimit."""
    if (after := headers.get("Retry-After", "")).isdigit():
        return float(after)
    limit = headers.get("RateLimit", "")
    reset = re.search(r"\bt=(\d+)", limit)
    return float(reset[1]) if reset and re.search(r"\br=0\b", limit) else None

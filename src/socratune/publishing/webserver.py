"""Runs a web app on a socket of this machine until Ctrl-C, for `socratune ui` and `socratune serve`.

Both answer only who means them. A page of another site can make a visitor's browser send requests to this machine, and
a name of its own can be made to point here (DNS rebinding): the browser then takes our answers for that site's. So the
Host header has to be a name by which this server is meant to be reached, and an Origin has to be that very server.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable, Iterable
from errno import EACCES, EADDRINUSE
from ipaddress import ip_address
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from socratune.errors import Fault, Shown, UserError

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
Refuse = Callable[[str, int], Response]
"""The answer to who is refused, of a sentence and a status."""


class Hosts:
    """The names by which a server may be reached.

    One that listens on loopback is reached by a name of loopback. One that listens elsewhere is reached by any address
    in numbers, which no other site can call its own, and by the name of this machine; either by the names it is given.
    """

    def __init__(self, bound: str, names: Iterable[str] = ()) -> None:
        place = _as_ip(bound)
        self._any_address = place is not None and not place.is_loopback
        known = [*LOOPBACK_HOSTS, f"[{bound}]" if ":" in bound else bound, *names]
        if self._any_address:
            known.append(socket.gethostname())
        self.names = {name.lower() for name in known if name}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self.names or (self._any_address and _as_ip(name.strip("[]")) is not None)


def _as_ip(text: str) -> Any:
    try:
        return ip_address(text)
    except ValueError:
        return None


def meant_for_us(inner: ASGIApp, hosts: Hosts, refuse: Refuse) -> ASGIApp:
    """Returns `inner` for requests that use this server's name and come from no other site's page."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (said := _stranger(scope["headers"], hosts)):
            await refuse(said, 403)(scope, receive, send)
        else:
            await inner(scope, receive, send)

    return guard


def _stranger(headers: Iterable[tuple[bytes, bytes]], hosts: Hosts) -> str:
    """Returns why a request is not meant for this server, or an empty text."""
    given = [(name.lower(), value.decode("latin-1")) for name, value in headers]
    named, origins = ([value for name, value in given if name == wanted] for wanted in (b"host", b"origin"))
    host = named[0] if len(named) == 1 else ""
    if not host or re.sub(r":\d+$", "", host) not in hosts:
        return f"This server does not answer to the host {host[:100]!r}, only to {', '.join(sorted(hosts.names))}."
    own = {f"{scheme}://{host.lower()}" for scheme in ("http", "https")}
    if any(origin.lower() not in own for origin in origins):
        return "This server does not answer to pages of other servers."
    return ""


def listening(host: str, port: int) -> socket.socket:
    """Returns a socket that accepts connections. Port 0 takes a free port.

    Raises:
        UserError: the port is taken, or the host is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, TypeError, UnicodeError) as error:  # the last two: a name that is no name of a host
        if isinstance(error, OverflowError) or getattr(error, "errno", None) in (EACCES, EADDRINUSE):
            fix = "Choose another port, or 0 for any free port."
            raise UserError(Fault(f"--port {port}", f"a free port of {host}", Shown(str(error)), fix)) from None
        fix = "Use 127.0.0.1 for this machine alone, or 0.0.0.0 for every address that it has."
        raise UserError(Fault(f"--host {host}", "an address of this machine", Shown(str(error)), fix)) from None


def address(listening: socket.socket) -> str:
    """Returns `http://HOST:PORT` of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_until_stopped(app: Any, listening: socket.socket) -> None:
    """Serves until Ctrl-C or SIGTERM, which raise KeyboardInterrupt. Requests in flight have one second.

    Args:
        app: an ASGI application.
        listening: from the function of that name.
    """
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(_worth_telling)
    uvicorn.Server(config).run(sockets=[listening])


def _worth_telling(record: logging.LogRecord) -> bool:
    """Returns False for a request that Ctrl-C ended or whose caller has hung up."""
    ended = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not ended and record.msg != "socket.send() raised exception."

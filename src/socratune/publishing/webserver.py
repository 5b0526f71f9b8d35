"""A web app of ours on a socket of this machine, until Ctrl-C: what `socratune ui` and `socratune serve` share."""

from __future__ import annotations

import socket
from typing import Any

from socratune.errors import Fault, Shown, UserError


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections; port 0 takes a free one.

    Raises:
        UserError: the port is taken, or the host is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        fix = "Take another, or 0 for a free one."
        raise UserError(Fault(f"--port {port}", f"a free port of {host}", Shown(str(error)), fix)) from None


def address(listening: socket.socket) -> str:
    """`http://HOST:PORT` of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_until_stopped(app: Any, listening: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM, which end it as a KeyboardInterrupt; requests in flight have one second.

    Args:
        app: an ASGI application.
        listening: from the function of that name.
    """
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])

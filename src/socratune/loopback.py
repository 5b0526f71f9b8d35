"""Servers on this machine, or at the near end of a tunnel: a port for one, and whether one is well."""

from __future__ import annotations

import http.client
import socket


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_well(port: int) -> bool:
    """Whether a server at a port of 127.0.0.1 says so at `/health`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)  # heeds no proxy
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

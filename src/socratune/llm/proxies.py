"""Finds the forward proxy between this machine and a server, by the variables that curl, pip and git use."""

from __future__ import annotations

import os
from base64 import b64encode
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment

from socratune.errors import Fault, Shown, UserError

ASKED = "SOCRATUNE_PROXY_LOOPBACK"
"""If this variable is set to anything, addresses on this machine use the proxy too."""


class Proxy(NamedTuple):
    """Holds a forward proxy.

    Attributes:
        variable: the one of the environment that names it.
        tls: it is spoken to over TLS.
        authorization: the header's value with user and password, or empty.
    """

    variable: str
    host: str
    port: int
    tls: bool
    authorization: str

    @property
    def shown(self) -> str:
        """Returns the address and its variable for people, without a password."""
        return f"{self.host}:{self.port} ({self.variable})"


def proxy_of(url: str) -> Proxy | None:
    """Returns the proxy for a URL, or None for a direct connection.

    HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in capitals or not; loopback is always asked directly.

    Raises:
        UserError: the variable names no proxy that can be used.
    """
    proxies = getproxies_environment()
    try:
        parts = urlsplit(url)
        host, at = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # another check refuses an invalid address
        return None
    name = parts.scheme if proxies.get(parts.scheme) else "all"
    if not proxies.get(name) or is_bypassed(host, at):
        return None
    variable = next(filter(os.environ.get, (f"{name}_proxy", f"{name.upper()}_PROXY")), name)
    address = proxies[name]
    try:
        proxy = urlsplit(address if "://" in address else f"http://{address}")
        port = proxy.port or (443 if proxy.scheme == "https" else 80)
        good = proxy.scheme in ("http", "https") and proxy.hostname
    except ValueError:  # an invalid port
        proxy, port, good = None, 0, False
    if proxy is None or not good:
        fix = f"Give one that speaks HTTP, or ask {host} directly: export NO_PROXY={host}"
        got = address.rsplit("@", 1)[-1] if "@" in address else address
        raise UserError(Fault(variable, "http(s)://[USER:PASSWORD@]HOST[:PORT]", Shown(got), fix))
    return Proxy(variable, proxy.hostname or "", port, proxy.scheme == "https", basic_authorization(proxy))


def basic_authorization(address: SplitResult) -> str:
    """Returns the header's value for the user and the password in an address, or "" without a user."""
    if address.username is None:
        return ""
    pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
    return f"Basic {b64encode(pair.encode()).decode()}"


def is_bypassed(host: str, port: int) -> bool:
    """Returns True if a host never uses a proxy: loopback, and what NO_PROXY names.

    An entry is `*`, a host with all below it, `HOST:PORT`, an address, or a network like `10.0.0.0/8`.
    """
    host = host.casefold().rstrip(".")
    if is_this_machine(host) and not os.environ.get(ASKED):
        return True
    for entry in (getproxies_environment().get("no") or "").casefold().replace(",", " ").split():
        name, _, its_port = entry.rpartition(":") if entry.rpartition(":")[2].isdigit() else (entry, "", "")
        if entry.count(":") > 1:  # IPv6
            name, its_port = entry, ""
        name = name.strip("[]").removeprefix("*").lstrip(".") or entry
        same = entry == "*" or host == name or host.endswith(f".{name}") or _is_within(host, name)
        if same and its_port in ("", str(port)):
            return True
    return False


def host_of(url: str) -> str:
    """Returns the host of a URL, or "" if it names none; whoever connects reports a URL that cannot be read."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # http://[::1
        return ""


def is_this_machine(host: str) -> bool:
    """Returns True for a name or a number that can only be this machine's own."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_within(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False

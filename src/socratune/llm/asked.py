"""Lists the models that a configuration asks outside this process, and their hosts, before and after a run."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from socratune.config import RunConfig
from socratune.llm.proxies import host_of, is_this_machine
from socratune.llm.references import (
    NOBODY,
    Endpoint,
    Role,
    endpoints_of,
    resolve_alias,
    student_of,
    teacher_of,
    writer_endpoints,
)
from socratune.llm.vendors import VENDORS, vendor_of

FIELDS: dict[Role, str] = {
    "student": "questions, with hints",
    "teacher": "question, reference answer and the student's wrong answers",
    "judge": "question, reference answer and the student's answers",
    "writer": "passages of the source",
    "checker": "passage, question and answer",
}
"""What each role is sent."""


@dataclass(frozen=True, slots=True)
class AskedModel:
    """Holds a model behind an address.

    Attributes:
        setting: the key that says so.
        hosts: by name, without port.
    """

    role: Role
    setting: str
    model: str
    hosts: tuple[str, ...]


def asked_models(config: RunConfig) -> Iterator[AskedModel]:
    """Returns every model that a run asks behind an address, so none in this process, no rules and no functions."""
    loop, reached = config.enhance, endpoints_of(config.enhance)
    refs: dict[Role, str] = {"teacher": teacher_of(loop)}
    if loop.judge_mode != "mechanical":
        refs["judge"] = resolve_alias(loop.judge_model)
    engine, student = student_of(loop, config.model)
    if engine == "http":
        refs["student"] = student
    yield from _asked("enhance", refs, reached)
    writing = config.generate
    if writing.source:
        named: dict[Role, str | None] = {"writer": writing.writer_model, "checker": writing.checker_model}
        yield from _asked(
            "generate", {role: resolve_alias(ref) for role, ref in named.items() if ref}, writer_endpoints(writing)
        )


def _asked(section: str, refs: dict[Role, str], reached: dict[Role, Endpoint]) -> Iterator[AskedModel]:
    for role, ref in refs.items():
        bases = reached[role].api_bases
        if ref == NOBODY or ref.startswith(("rules/", "python:", "local/")):
            continue
        if bases:
            hosts = tuple(dict.fromkeys(host_of(base) or base for base in bases))
            yield AskedModel(role, f"{section}.{role}_api_base", ref, hosts)
        elif (vendor := vendor_of(ref)) is not None:
            host = urlsplit(VENDORS[vendor[0]].base).hostname or vendor[0]
            yield AskedModel(role, f"{section}.{role}_model", ref, (host,))


def terms_of(asked: AskedModel) -> str | None:
    """Returns the page with the vendor's terms on training on outputs, None for other addresses and unread terms."""
    vendor = vendor_of(asked.model) if asked.setting.endswith("_model") else None
    return VENDORS[vendor[0]].terms if vendor else None


def note_asked(sent: dict[str, Any], config: RunConfig, called: Collection[str]) -> None:
    """Records in `sent_to` of a run's results which model did a role behind an address, what it got, and which hosts.

    Args:
        called: the roles that were asked so far, `STAGE.WHO`, as the journal has them.
    """
    for asked in asked_models(config):
        for role in (name for name in called if name.rsplit(".", 1)[-1] == asked.role):
            hosts = dict.fromkeys([*sent.get(role, {}).get("hosts", []), *asked.hosts])
            sent[role] = {"model": asked.model, "hosts": list(hosts), "fields": FIELDS[asked.role]}


def shown_host(host: str) -> str:
    """Returns a host as others may read it: names within a private network are hidden."""
    if is_this_machine(host):
        return "this machine"
    try:
        private = not ipaddress.ip_address(host).is_global
    except ValueError:
        private = "." not in host.rstrip(".") or host.rstrip(".").lower().endswith(_INNER)
    return "a server of one's own network" if private else host


_INNER = (".local", ".lan", ".internal", ".intranet", ".corp", ".home", ".home.arpa", ".test", ".example", ".invalid")

"""How a setting is declared, and the section that says on which machine a model is trained.

A setting is a field of a section, declared once: its key in YAML, type, default and docstring are also those of its
flag, where it is marked with `Flag`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True)
class Flag:
    """Marks a setting that can be given on the command line.

    Attributes:
        name: of the flag; None is the field's own name with dashes.
        metavar: what stands for the value in the help; None shows its type.
        commas: a list is given as one value with commas. Without it, a list's flag is repeated.
    """

    name: str | None = None
    metavar: str | None = None
    commas: bool = False


@dataclass(frozen=True, slots=True)
class Free:
    """Marks a setting, or a whole section, that changes no result, so that it may differ when a run goes on."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as its field declares it. `key` is its dotted name in YAML."""

    key: str
    field: FieldInfo
    free: bool

    @property
    def flag(self) -> Flag | None:
        """Its mark, where it has a flag."""
        return next((mark for mark in self.field.metadata if isinstance(mark, Flag)), None)

    @property
    def flag_name(self) -> str | None:
        """`--teacher-model`, or None."""
        return self.flag and (self.flag.name or "--" + self.key.rpartition(".")[2].replace("_", "-"))

    @property
    def meaning(self) -> str:
        """The field's docstring, on one line."""
        return " ".join((self.field.description or "").split())

    @property
    def help(self) -> str:
        """The first sentence of its meaning."""
        return re.split(r"(?<=[.?]) ", self.meaning, maxsplit=1)[0].replace("`", "")


def settings_of(section: type[BaseModel], prefix: str = "", *, free: bool = False) -> Iterator[Setting]:
    """Every setting of a section and of the sections in it.

    Args:
        prefix: the section's own key with a dot behind it.
        free: the section is marked so.
    """
    for name, field in section.model_fields.items():
        key, kind = prefix + (field.alias or name), field.annotation
        marked = free or any(isinstance(mark, Free) for mark in field.metadata)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings_of(kind, f"{key}.", free=marked)
        else:
            yield Setting(key, field, marked)


class Section(BaseModel):
    """A section knows its keys and refuses all others."""

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        populate_by_name=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


class WhereConfig(Section):
    """The machine: on which the model answers and is trained."""

    place: Annotated[Literal["auto", "local", "runpod", "sky"], Flag("--where")] = "auto"
    """Where it is trained; auto: here if it fits, else on a rented machine; `socratune plan` gives the reason."""
    gpus: Annotated[Annotated[int, Field(ge=1)] | Literal["all"], Flag(metavar="N|all")] = 1
    """Cards of this machine that train together."""
    max_local_hours: float = Field(default=12.0, gt=0)
    """Without a card: how long training here may take by the estimate before a machine is rented instead."""
    pod_name: Annotated[str, Flag()] = Field(default="socratune", pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,40}$")
    """What the names of rented machines begin with."""
    preferred_gpus: list[str] = ["H100 PCIe", "H100 SXM"]
    """Types of card to rent, the best first; the next where one is sold out."""
    gpu_count: int = Field(default=1, ge=1, le=8)
    """Cards of a rented machine."""
    cloud: Literal["secure", "community"] = "secure"
    """RunPod's own data centres, or machines of others."""
    image: str = "runpod/pytorch:2.8.0-py3.11-cuda12.8.1-cudnn-devel-ubuntu22.04"
    """The container image of a pod; it has to bring an SSH server, Python and CUDA."""
    disk_gb: Annotated[int, Field(ge=10)] | None = None
    """Disk of a rented machine. None: by the size of the model."""
    max_hours: float = Field(default=12.0, gt=0)
    """A rented machine ends itself after so long, whatever happens."""
    max_usd: float | None = Field(default=50.0, gt=0)
    """Nothing is rented whose price times `max_hours` is above this. None: no limit."""
    api_base: Annotated[str, Flag(metavar="URL")] = "https://api.runpod.io/v2"
    """RunPod's REST API."""
    student_server: Literal["auto", "vllm", "socratune"] = "auto"
    """What serves the student on a rented machine. auto: vLLM where the image has it, else `socratune serve`."""
    send_hf_token: bool = False
    """Give the rented machine `HF_TOKEN`, for a base that is gated. No other key ever travels."""
    spot: bool = False
    """Cheap machines that may be taken away; training goes on elsewhere (SkyPilot only)."""
    sky: dict[str, Any] = {}
    """Further `resources` of the SkyPilot task: cloud, region, instance_type, …"""

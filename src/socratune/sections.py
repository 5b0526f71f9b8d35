"""What all sections of the configuration have in common, and the one that says on which machine a model is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


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

    place: Literal["auto", "local", "runpod", "sky"] = "auto"
    """auto: here where it fits, else on a rented machine; `socratune plan` gives the reason."""
    gpus: Annotated[int, Field(ge=1)] | Literal["all"] = 1
    """Cards of this machine that train."""
    max_local_hours: float = Field(default=12.0, gt=0)
    """Without a card: how long training here may take by the estimate before a machine is rented instead."""
    pod_name: str = Field(default="socratune", pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,40}$")
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
    api_base: str = "https://api.runpod.io/v2"
    """RunPod's REST API."""
    student_server: Literal["auto", "vllm", "socratune"] = "auto"
    """What serves the student on a rented machine. auto: vLLM where the image has it, else `socratune serve`."""
    send_hf_token: bool = False
    """Give the rented machine `HF_TOKEN`, for a base that is gated. No other key ever travels."""
    spot: bool = False
    """Cheap machines that may be taken away; training goes on elsewhere (SkyPilot only)."""
    sky: dict[str, Any] = {}
    """Further `resources` of the SkyPilot task: cloud, region, instance_type, …"""

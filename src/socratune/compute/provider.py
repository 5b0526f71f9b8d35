"""The interface that a cloud needs so that machines can be rented there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from socratune.errors import OutsideError

Stock = Literal["NONE", "LOW", "MEDIUM", "HIGH"]


@dataclass(frozen=True, slots=True)
class Offer:
    """A kind of machine that can be rented.

    Attributes:
        gpu: the provider's id of the GPU.
        name: its usual name.
        memory_gb: memory of one GPU.
        usd_per_hour: price of the whole machine, all its GPUs.
    """

    gpu: str
    name: str
    memory_gb: float
    stock: Stock
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class Order:
    """The machine to rent. Its container, and the provider, see `env`."""

    name: str
    gpu: str
    gpu_count: int
    image: str
    disk_gb: int
    cloud: Literal["secure", "community"]
    env: dict[str, str]


@dataclass(frozen=True, slots=True)
class Pod:
    """A rented machine.

    Attributes:
        status: `starting`, `running`, or `ended`: it computes no more, but its disk may still be billed.
        host: the address of its SSH server; None until that can be reached.
        env: as ordered.
    """

    id: str
    name: str
    status: Literal["starting", "running", "ended"]
    usd_per_hour: float
    host: str | None = None
    port: int = 22
    user: str = "root"
    env: dict[str, str] = field(default_factory=dict)


class NoCapacity(OutsideError):
    """This kind of machine is not available now; another may be."""


class ComputeProvider(Protocol):
    """Rents machines. Every method raises OutsideError if the provider cannot be asked."""

    def offers(self, gpu_count: int, cloud: str) -> list[Offer]:
        """Returns the kinds of machine with so many GPUs."""
        ...

    def create(self, order: Order) -> Pod:
        """Rents a machine. If the answer is lost, it looks for the pod of the order's name, so that none is rented
        twice.

        Raises:
            NoCapacity: none of this kind is free.
        """
        ...

    def get(self, pod_id: str) -> Pod | None:
        """Returns the pod as it is now; None if it is gone."""
        ...

    def list(self) -> list[Pod]:
        """Returns all pods of the account."""
        ...

    def terminate(self, pod_id: str) -> None:
        """Ends the pod for good; does nothing if it is gone already."""
        ...

"""What a cloud has to offer so that machines can be rented there, and nothing else of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from socratune.errors import OutsideError

Stock = Literal["NONE", "LOW", "MEDIUM", "HIGH"]


@dataclass(frozen=True, slots=True)
class Offer:
    """A kind of machine that can be rented.

    Attributes:
        gpu: the provider's id of the card.
        name: what people call it.
        memory_gb: of one card.
        usd_per_hour: of the whole machine, all its cards.
    """

    gpu: str
    name: str
    memory_gb: float
    stock: Stock
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class Order:
    """The machine that is wanted. `env` is what its container sees; the provider can read it."""

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
        status: `starting`, `running`, or `ended`: it computes no more, but may still be billed for its disk.
        host: of its SSH server, None until that can be reached.
        env: as it was ordered.
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
    """This kind of machine cannot be had now; another may."""


class ComputeProvider(Protocol):
    """Rents machines. Every method raises OutsideError where the provider cannot be asked."""

    def offers(self, gpu_count: int, cloud: str) -> list[Offer]:
        """The kinds of machine with so many cards."""
        ...

    def create(self, order: Order) -> Pod:
        """Rent. Where the answer was lost, the pod of the order's name is looked for, so that none is rented twice.

        Raises:
            NoCapacity: none of this kind is free.
        """
        ...

    def get(self, pod_id: str) -> Pod | None:
        """The pod as it is now; None where it is gone."""
        ...

    def list(self) -> list[Pod]:
        """All pods of the account."""
        ...

    def terminate(self, pod_id: str) -> None:
        """Give it back for good; nothing happens where it is gone already."""
        ...

"""The processes that train together, one a card: which of them this is, its part of a step, sums over all.

A process that trains alone is the only one of its kind: everything here is then free and changes nothing.

The adapter's gradients are added up once a step, in one all-reduce, and not by `DistributedDataParallel`. A step's loss
is the mean over all its trained tokens, and ranks do not hold equally many, so that gradients have to be added, where
DDP takes the mean of means. DDP overlaps the reduction with the backward pass, which is worth little here: the 42
million adapter parameters of an 8B model are 168 MB, some milliseconds beside a step of a second. And the model that is
saved and that answers stays PEFT's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol, TypeVar

import torch
import torch.distributed as dist

from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown, UserError
from socratune.inference.memory import torch_device

_TIMEOUT_S = 1800.0
"""Of one exchange within training: a rank that is behind by so much has stopped."""
PATIENCE = timedelta(days=7)
"""Of the exchanges in which a rank waits for others that may answer questions for hours."""


class Sized(Protocol):
    """A row, or a pair of rows."""

    @property
    def ids(self) -> list[int]: ...


_Item = TypeVar("_Item", bound=Sized)
Part = TypeVar("Part")
Found = TypeVar("Found")

Parallel = Literal["auto", "data", "sharded"]
"""How ranks hold the base: each the whole, or each a part. auto: the whole where it fits one card."""


@dataclass(slots=True)
class _Joined:
    """What this process joined.

    Attributes:
        patient: the group of the exchanges that have patience; they are of single numbers, and on the CPU.
    """

    patient: Any = None
    parallel: Parallel = "auto"


_joined = _Joined()


def join_ranks(timeout_s: float = _TIMEOUT_S, parallel: Parallel = "auto") -> None:
    """Become one of the processes that torchrun started, before anything is done on a card."""
    _take_own_card()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    _joined.patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    _joined.parallel = parallel


def _take_own_card() -> None:
    """Of the cards this process sees one, which is then the first in all its threads and libraries."""
    at = int(os.environ["LOCAL_RANK"])
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if seen != "":  # which hides all cards
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[at] if seen else str(at)
    os.environ["LOCAL_RANK"] = "0"  # torch takes it for the card's number


def leave() -> None:
    """Train alone from here on; waits for the others."""
    dist.barrier(group=_joined.patient)
    dist.destroy_process_group()


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if size() > 1 else 0


def parallel() -> Parallel:
    """As it was joined."""
    return _joined.parallel


def leads() -> bool:
    """Whether this is the one that writes files and tells of progress."""
    return rank() == 0


def leader_first(work: Callable[[], Found]) -> Found:
    """What `work` gives; the leading rank has done it before the others begin."""
    if not leads():
        dist.barrier(group=_joined.patient)
    found = work()
    if leads() and size() > 1:
        dist.barrier(group=_joined.patient)
    return found


def total(value: float) -> float:
    """The sum over all ranks, on each of them; waits for all."""
    return _agreed(value, dist.ReduceOp.SUM)


def least(value: float) -> float:
    """The smallest of all ranks', on each of them; waits for all."""
    return _agreed(value, dist.ReduceOp.MIN)


def _agreed(value: float, how: Any) -> float:
    if size() == 1:
        return value
    exchanged = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(exchanged, how, group=_joined.patient)
    return exchanged.item()


def add_up(tensors: Sequence[torch.Tensor]) -> None:
    """Put the sum over all ranks into each of these tensors of one device; in float32, and in one exchange."""
    if size() > 1:
        together = torch.cat([tensor.flatten().float() for tensor in tensors])
        dist.all_reduce(together)
        _back(together, tensors)


def as_first(tensors: Sequence[torch.Tensor]) -> None:
    """Put what the leading rank has into each of these tensors of one device."""
    if size() > 1:
        together = torch.cat([tensor.flatten().float() for tensor in tensors])
        dist.broadcast(together, 0)
        _back(together, tensors)


def _back(together: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    for tensor, part in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def rank_passes(items: Sequence[_Item], group: Callable[[list[_Item]], list[Part]]) -> Iterator[tuple[Part, float]]:
    """This rank's micro-batches of a step's items, each with its weight.

    All ranks get equally many, as a sharded model computes only where all do: one that has fewer of its own repeats
    one with the weight 0.

    Args:
        group: items → micro-batches; the same on every rank.
    """
    by_rank = [group(share) for share in shares(items, size())]
    own = by_rank[rank()]
    yield from ((part, 1.0) for part in own)
    idle = own or next(filter(None, by_rank))
    yield from ((idle[-1], 0.0) for _ in range(len(own), max(map(len, by_rank))))


def shares(items: Sequence[_Item], count: int) -> list[list[_Item]]:
    """The items in `count` parts of nearly equally many tokens: longest first, each to the part that has least.

    The largest part has at most 4/3 of the tokens it must have (Graham 1969).
    """
    if count == 1:
        return [list(items)]
    parts: list[list[_Item]] = [[] for _ in range(count)]
    tokens = [0] * count
    for item in sorted(items, key=lambda item: -len(item.ids)):
        at = tokens.index(min(tokens))
        parts[at].append(item)
        tokens[at] += len(item.ids)
    return parts


# --- a base model spread over all cards ----------------------------------------------------------------------------
# A base model that does not fit one card, spread over all of them (FSDP2, arXiv:2304.11277).

ANY_TOKEN = 5


def load_in_turn(load: Callable[[], Any]) -> Any:
    """The model that `load` puts into main memory, spread over the ranks; one after the other, so that it lies there
    only once.
    """
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(torch_device().type, (size(),))
    model = None
    for turn in range(size()):
        if turn == rank():
            model = _spread(load(), mesh)
        total(0)
    with torch.no_grad():  # the buffers that blocks are gathered into; made in inference mode they could not train
        _pass_through(model)
    return model


def _spread(model: Any, mesh: Any) -> Any:
    from torch.distributed.fsdp import fully_shard

    decoder = model.get_decoder()
    blocks = list(decoder.layers)
    for block in blocks:
        fully_shard(block, mesh=mesh)
    spread = {weight for block in blocks for weight in block.parameters()}
    whole = {weight for weight in model.parameters() if weight not in spread}
    for weight in whole:
        weight.data = weight.data.to(torch_device())
    fully_shard(decoder, mesh=mesh, ignored_params=whole)
    return model


def is_sharded(model: Any) -> bool:
    """Whether a model (or the base of an adapter) is spread over ranks."""
    if size() == 1:
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(_decoder(model), FSDPModule)


def refuse_sharded(model: Any, config: EnhancedTrainingConfig) -> None:
    """Nothing, for a model that is not.

    Raises:
        UserError: asked is for what needs whole weights in between.
    """
    if is_sharded(model):
        asked = {"train.fp8": config.fp8, "train.peft.use_dora": config.peft.get("use_dora")}
        expected = "what can be done with a base that is spread over cards because it does not fit one"
        faults = [Fault(name, expected, Shown("true"), "Leave it out.") for name, given in asked.items() if given]
        if faults:
            raise UserError(*faults)


@contextmanager
def whole_on_each_rank(model: Any) -> Iterator[None]:
    """Every rank may ask `model` what it likes, and as much; when the block ends, all of them have finished.

    A sharded model answers only where all ranks compute: before each pass a rank says so, and one that has nothing
    (any more) to ask goes through the model with one token as long as any other does.
    """
    if size() == 1:
        yield
        return
    saying = _decoder(model).register_forward_pre_hook(_say, prepend=True) if is_sharded(model) else None
    yield
    if saying is not None:
        saying.remove()
    with torch.no_grad():
        while total(0):
            _pass_through(model)


def _say(*_: Any) -> None:
    total(1)


def _pass_through(model: Any) -> None:
    _decoder(model)(input_ids=torch.tensor([[ANY_TOKEN]], device=torch_device()), use_cache=False)


def _decoder(model: Any) -> Any:
    return getattr(model, "get_base_model", lambda: model)().get_decoder()

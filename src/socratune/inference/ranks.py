"""The processes that train together, one per GPU: this process's rank, its part of a step, sums over all ranks.

For a process that trains alone, everything here is free and changes nothing.

The adapter's gradients are added up once per step in one all-reduce, not by `DistributedDataParallel`. A step's loss is
the mean over all its trained tokens, and ranks hold different numbers of them, so gradients have to be added, where DDP
takes the mean of means. DDP overlaps the reduction with the backward pass, which gains little here: the 42 million
adapter parameters of an 8B model are 168 MB, some milliseconds beside a step of a second. And the model that is saved
and that answers stays PEFT's own.
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
"""Seconds of one exchange within training. A rank that is later has stopped."""
PATIENCE = timedelta(days=7)
"""Timeout of exchanges in which a rank waits for others that may answer questions for hours."""


class Sized(Protocol):
    """A row, or a pair of rows."""

    @property
    def ids(self) -> list[int]: ...


_Item = TypeVar("_Item", bound=Sized)
Part = TypeVar("Part")
_T = TypeVar("_T")

Parallel = Literal["auto", "data", "sharded"]
"""How ranks hold the base: each the whole, or each a part. auto: the whole if it fits one GPU."""


@dataclass(slots=True)
class _Joined:
    """The group that this process has joined.

    Attributes:
        patient: the group of the patient exchanges, which are of single numbers on the CPU.
    """

    patient: Any = None
    parallel: Parallel = "auto"


_joined = _Joined()


def join_ranks(timeout_s: float = _TIMEOUT_S, parallel: Parallel = "auto") -> None:
    """Joins the processes that torchrun started. Call it before anything is done on a GPU."""
    _take_own_card()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    _joined.patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    _joined.parallel = parallel


def _take_own_card() -> None:
    """Hides all GPUs but this rank's, which is then the first in all threads and libraries."""
    at = int(os.environ["LOCAL_RANK"])
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if seen != "":  # an empty value hides all GPUs
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[at] if seen else str(at)
    os.environ["LOCAL_RANK"] = "0"  # torch takes it for the GPU's number


def leave() -> None:
    """Waits for the other ranks, and trains alone from here on."""
    dist.barrier(group=_joined.patient)
    dist.destroy_process_group()


def size() -> int:
    """Returns the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process, from 0."""
    return dist.get_rank() if size() > 1 else 0


def parallel() -> Parallel:
    """Returns how the ranks hold the base."""
    return _joined.parallel


def leads() -> bool:
    """Returns True for the rank that writes files and reports progress."""
    return rank() == 0


def leader_first(work: Callable[[], _T]) -> _T:
    """Returns what `work` returns. The leading rank completes it before the others begin."""
    if not leads():
        dist.barrier(group=_joined.patient)
    result = work()
    if leads() and size() > 1:
        dist.barrier(group=_joined.patient)
    return result


def total(value: float) -> float:
    """Returns the sum over all ranks, on each of them, and waits for all."""
    return _agreed(value, dist.ReduceOp.SUM)


def least(value: float) -> float:
    """Returns the minimum over all ranks, on each of them, and waits for all."""
    return _agreed(value, dist.ReduceOp.MIN)


def _agreed(value: float, how: Any) -> float:
    if size() == 1:
        return value
    exchanged = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(exchanged, how, group=_joined.patient)
    return exchanged.item()


def add_up(tensors: Sequence[torch.Tensor]) -> None:
    """Replaces each of these tensors of one device by its sum over all ranks, in float32 and in one exchange."""
    if size() > 1:
        together = torch.cat([tensor.flatten().float() for tensor in tensors])
        dist.all_reduce(together)
        _back(together, tensors)


def as_first(tensors: Sequence[torch.Tensor]) -> None:
    """Replaces each of these tensors of one device by that of the leading rank."""
    if size() > 1:
        together = torch.cat([tensor.flatten().float() for tensor in tensors])
        dist.broadcast(together, 0)
        _back(together, tensors)


def _back(together: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    for tensor, part in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def rank_passes(items: Sequence[_Item], group: Callable[[list[_Item]], list[Part]]) -> Iterator[tuple[Part, float]]:
    """Yields this rank's micro-batches of a step's items, each with its weight.

    All ranks get equally many, as a sharded model computes only if all ranks do. A rank that has fewer repeats one with
    weight 0.

    Args:
        group: maps items to micro-batches, in the same way on every rank.
    """
    by_rank = [group(share) for share in shares(items, size())]
    own = by_rank[rank()]
    yield from ((part, 1.0) for part in own)
    idle = own or next(filter(None, by_rank))
    yield from ((idle[-1], 0.0) for _ in range(len(own), max(map(len, by_rank))))


def shares(items: Sequence[_Item], count: int) -> list[list[_Item]]:
    """Returns the items in `count` parts of nearly equally many tokens: longest first, each to the smallest part.

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


# --- a base model that does not fit one GPU, spread over all of them (FSDP2, arXiv:2304.11277) ----------------------

ANY_TOKEN = 5


def load_in_turn(load: Callable[[], Any]) -> Any:
    """Spreads the model that `load` reads over the ranks, in turn, so that main memory holds it once."""
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
    """Returns True if a model (or the base of an adapter) is spread over ranks."""
    if size() == 1:
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(_decoder(model), FSDPModule)


def refuse_sharded(model: Any, config: EnhancedTrainingConfig) -> None:
    """Refuses settings that a sharded model does not support.

    Raises:
        UserError: a setting needs whole weights in between.
    """
    if is_sharded(model):
        settings = {"train.fp8": config.fp8, "train.peft.use_dora": config.peft.get("use_dora")}
        expected = "a setting for a base that fits one GPU; this one is spread over several"
        faults = [Fault(name, expected, Shown("true"), "Leave it out.") for name, value in settings.items() if value]
        if faults:
            raise UserError(*faults)


@contextmanager
def whole_on_each_rank(model: Any) -> Iterator[None]:
    """Lets every rank call `model` as often as it likes. When the block ends, all ranks have finished.

    A sharded model answers only if all ranks compute. So a rank announces each pass, and a rank that has nothing left
    to ask passes one token through the model as long as any other asks.
    """
    if size() == 1:
        yield
        return
    hook = _decoder(model).register_forward_pre_hook(_announce, prepend=True) if is_sharded(model) else None
    yield
    if hook is not None:
        hook.remove()
    with torch.no_grad():
        while total(0):
            _pass_through(model)


def _announce(*_: Any) -> None:
    total(1)


def _pass_through(model: Any) -> None:
    _decoder(model)(input_ids=torch.tensor([[ANY_TOKEN]], device=torch_device()), use_cache=False)


def _decoder(model: Any) -> Any:
    return getattr(model, "get_base_model", lambda: model)().get_decoder()

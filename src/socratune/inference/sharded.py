"""A base model that does not fit one card, spread over all of them (FSDP2, arXiv:2304.11277).

The blocks are spread, each gathered while it is computed with. What is used outside of them stays whole on every card:
embeddings and output layer (2 GiB of an 8B model's 15, 4 of a 70B model's 131), and the adapter, whose optimizer
and gradients are small. So training, saving and checkpoints know nothing of the spreading, and are the same as on one
card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown, UserError
from socratune.inference import ranks
from socratune.inference.memory import torch_device

ANY_TOKEN = 5


def load_in_turn(load: Callable[[], Any]) -> Any:
    """The model that `load` puts into main memory, spread over the ranks; one after the other, so that it lies there
    only once.
    """
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(torch_device().type, (ranks.size(),))
    model = None
    for turn in range(ranks.size()):
        if turn == ranks.rank():
            model = _spread(load(), mesh)
        ranks.total(0)
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
    if ranks.size() == 1:
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
    if ranks.size() == 1:
        yield
        return
    saying = _decoder(model).register_forward_pre_hook(_say, prepend=True) if is_sharded(model) else None
    yield
    if saying is not None:
        saying.remove()
    with torch.no_grad():
        while ranks.total(0):
            _pass_through(model)


def _say(*_: Any) -> None:
    ranks.total(1)


def _pass_through(model: Any) -> None:
    _decoder(model)(input_ids=torch.tensor([[ANY_TOKEN]], device=torch_device()), use_cache=False)


def _decoder(model: Any) -> Any:
    return getattr(model, "get_base_model", lambda: model)().get_decoder()

"""Policy gradients on whole groups: every sample of a question counts by its verdict, against the mean of the group.

GRPO (Shao et al. 2024, arXiv:2402.03300) without what biases it: the mean is subtracted and nothing is divided by the
group's deviation, and all tokens of a step weigh alike, so that no answer gains by its length (Dr. GRPO,
arXiv:2503.20783). The ratio to the policy that sampled is clipped, further above than below (DAPO, arXiv:2503.14476). A
group that is all right or all wrong says nothing and is left out; one that is all wrong but for an answer found with a
hint is trained with that answer, as if the plain prompt had brought it (SAGE, arXiv:2602.03143). Nobody sampled that
one behind the plain prompt, and its decisive tokens are those that are rare there, which a clipped ratio would never
let rise: it is trained by its advantage alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from socratune.inference import ranks
from socratune.training.packing import PackedRow, join_rows
from socratune.training.weights import Weighted, grouped

CLIP_LOW, CLIP_HIGH = 0.2, 0.28
"""How far the ratio may fall and rise before a token is trained no further; DAPO's."""


@dataclass(frozen=True, slots=True)
class Sampled(Weighted):
    """An answer of a group; its `weight` is the advantage.

    Attributes:
        off_policy: it was not sampled behind the plain prompt by the model that training begins with.
        before: log p of its trained tokens by the model that training begins with, in nats; (L,), on the CPU.
    """

    off_policy: bool = False
    before: torch.Tensor | None = None


def advantages(rewards: Sequence[float]) -> list[float] | None:
    """Each reward less the mean of the group; None for a group in which all are alike."""
    mean = sum(rewards) / max(1, len(rewards))
    return None if len(set(rewards)) < 2 else [reward - mean for reward in rewards]


def with_samplers(engine: Any, items: list[Sampled]) -> list[Sampled]:
    """The answers with what the model that begins thinks of each token."""
    lengths = [len(item.trained_ids) for item in items]
    begins = dict(zip(map(id, items), torch.tensor([0, *lengths]).cumsum(0).tolist(), strict=False))
    found = torch.zeros(sum(lengths), device=engine.model.device)
    engine.model.eval()
    with torch.no_grad(), engine.training():
        for members, share in ranks.rank_passes(items, lambda own: grouped(own, engine.micro_tokens)):
            said = -engine.token_losses(_packed(members))
            if share:
                places = [torch.arange(len(item.trained_ids)) + begins[id(item)] for item in members]
                found[torch.cat(places).to(found.device)] = said
    ranks.add_up([found])
    parts = found.cpu().split(lengths)
    return [replace(item, before=part) for item, part in zip(items, parts, strict=True)]


def clipped_mean(engine: Any, items: list[Sampled]) -> Iterator[torch.Tensor]:
    """−min(ρA, clip(ρ)A) over the tokens of a step, by their number; see `steps.Losses`."""
    trained = sum(len(item.trained_ids) for item in items)
    for members, share in ranks.rank_passes(items, lambda own: grouped(own, engine.micro_tokens)):
        packed = _packed(members)
        said = -engine.token_losses(packed)
        before = torch.cat([item.before for item in members if item.before is not None]).to(said.device)
        advantage, off_policy = (
            said.new_tensor([float(getattr(item, name)) for item in members])[packed.owners]
            for name in ("weight", "off_policy")
        )
        before = torch.where(off_policy > 0, said.detach(), before)
        ratio = (said - before).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH) * advantage)
        yield -gain.sum() * share / trained


def _packed(items: list[Sampled]) -> PackedRow:
    return join_rows([(item.ids, item.labels) for item in items])

"""Policy gradients on whole groups: every sample of a question counts by its verdict, relative to the group's mean.

GRPO (Shao et al. 2024, arXiv:2402.03300) without what biases it: the mean is subtracted and nothing is divided by the
group's deviation, and all tokens of a step weigh alike, so that no answer gains by its length (Dr. GRPO,
arXiv:2503.20783). The ratio to the policy that sampled is clipped, further above than below (DAPO, arXiv:2503.14476). A
group that is all right or all wrong teaches nothing and is left out. A group that is all wrong except for an answer
with a hint is trained with that answer, as if it followed the plain prompt (SAGE, arXiv:2602.03143). That answer was
never sampled after the plain prompt. Its decisive tokens are rare there, and a clipped ratio would never let them rise,
so it is trained by its advantage alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from socratune.inference import ranks
from socratune.training.steps import micro_batches
from socratune.training.weights import Weighted

CLIP_LOW, CLIP_HIGH = 0.2, 0.28
"""How far the ratio may fall and rise before a token is trained no further, as in DAPO."""


@dataclass(frozen=True, slots=True)
class Sampled(Weighted):
    """An answer of a group; its `weight` is the advantage.

    Attributes:
        off_policy: True if the initial model did not sample it after the plain prompt.
        before: log p of its trained tokens by the initial model, in nats, (L,), on the CPU.
    """

    off_policy: bool = False
    before: torch.Tensor | None = None


def advantages(rewards: Sequence[float]) -> list[float] | None:
    """Returns each reward minus the group's mean, or None for a group whose rewards are all equal."""
    mean = sum(rewards) / max(1, len(rewards))
    return None if len(set(rewards)) < 2 else [reward - mean for reward in rewards]


def with_samplers(engine: Any, items: list[Sampled]) -> list[Sampled]:
    """Returns the answers with the log p that the initial model assigns to each token."""
    lengths = [len(item.trained_ids) for item in items]
    begins = dict(zip(map(id, items), torch.tensor([0, *lengths]).cumsum(0).tolist(), strict=False))
    logs = torch.zeros(sum(lengths), device=engine.model.device)
    engine.model.eval()
    with torch.no_grad(), engine.training():
        for members, packed, share in micro_batches(engine, items):
            losses = engine.token_losses(packed)
            if share:
                places = [torch.arange(len(item.trained_ids)) + begins[id(item)] for item in members]
                logs[torch.cat(places).to(logs.device)] = -losses
    ranks.add_up([logs])
    parts = logs.cpu().split(lengths)
    return [replace(item, before=part) for item, part in zip(items, parts, strict=True)]


def clipped_mean(engine: Any, items: list[Sampled]) -> Iterator[torch.Tensor]:
    """Yields parts of the mean of −min(ρA, clip(ρ)A) over the trained tokens of a step. See `steps.Losses`."""
    trained = sum(len(item.trained_ids) for item in items)
    for members, packed, share in micro_batches(engine, items):
        logs = -engine.token_losses(packed)
        before = torch.cat([item.before for item in members if item.before is not None]).to(logs.device)
        advantage, off_policy = (
            logs.new_tensor([float(getattr(item, name)) for item in members])[packed.owners]
            for name in ("weight", "off_policy")
        )
        before = torch.where(off_policy > 0, logs.detach(), before)
        ratio = (logs - before).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH) * advantage)
        yield -gain.sum() * share / trained

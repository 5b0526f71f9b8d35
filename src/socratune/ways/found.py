"""What an ablation has found so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from socratune.ways.folders import AblationJob


@dataclass(slots=True)
class Findings:
    """What is known so far.

    Attributes:
        base: for each held-out question, whether the model as it is answers it right.
        done: of each finished job what `work.do` gives; the arm `prompt` has `right` and `prompt`.
        not_done: job → why.
        broke: an arm was cut because the budget was spent; no other pays anything after it.
    """

    arms: list[str]
    clusters: list[str]
    base: list[bool]
    base_paid_usd: float = 0.0
    broke: bool = False
    done: dict[AblationJob, dict[str, Any]] = field(default_factory=dict)
    not_done: dict[AblationJob, str] = field(default_factory=dict)

    def verdicts(self, arm: str, reading: str = "rows") -> list[list[bool]]:
        """(S, Q) of the seeds that are finished."""
        return [found["right"] for job, found in self.done.items() if (job.arm, job.reading) == (arm, reading)]

    def paid_usd(self) -> float:
        """By the base's exam and all jobs; a training that serves two readings is paid once."""
        paid = {done.get("key", job.arm): done["paid_usd"] for job, done in self.done.items()}
        return self.base_paid_usd + sum(paid.values())

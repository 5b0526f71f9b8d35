"""The ways to compare, in order of usefulness. If time or money run out, the last ones are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from socratune.errors import Fault, UserError

ArmKind = Literal["loop", "written", "prompt"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way.

    Attributes:
        does: its description in the table.
        kind: `loop`: a run with other settings; `written`: a run on traces of another writer; `prompt`: no training.
        settings: settings of the run by dotted key; those that depend on the data are in `work._settings`.
        control: it explains another arm's gain, and is no choice itself.
    """

    does: str
    kind: ArmKind
    settings: dict[str, Any] = field(default_factory=dict)
    control: bool = False


DIRECT = {"enhance.thinking_format": "direct"}
FOREIGN = {"train.allow_foreign_student": True}

ARMS = {
    "direct": Arm("own right traces after hints", "loop", DIRECT),
    "prompt": Arm("best system prompt or few-shot, no training", "prompt"),
    "rft": Arm("own right samples, no teacher", "loop", {"enhance.max_iterations": 1}),
    "sft": Arm("the reference answers", "written", FOREIGN),
    "teacher-in-student-format": Arm("the teacher's solutions in the student's style", "written", FOREIGN),
    "bare-retry": Arm('"Try again." instead of the hint', "loop", DIRECT),
    "mix": Arm("as many samples as rft, then hints", "loop", DIRECT),
    "wrong-hints": Arm("hints of other rows", "loop", DIRECT, control=True),
    "teacher": Arm("the teacher's solutions in its own words", "written", FOREIGN),
    "iterative": Arm('attempt, "Aha!", corrected attempt', "loop", {"enhance.thinking_format": "iterative"}),
    "distil": Arm(
        "direct, and what the hinted base says to wrong attempts", "loop", {"train.method": "distil", **DIRECT}
    ),
    "grpo": Arm("all samples by their verdicts, hints where none is right", "loop", {"train.method": "grpo"}),
    "weights": Arm("direct, rows by what they have to teach", "loop", {"train.method": "weights", **DIRECT}),
    "gepa": Arm("an instruction evolved by the judge, no training", "prompt"),
    "star": Arm("own wording of the answer where no sample is right", "loop", {"train.method": "star"}),
}

REFERENCE = "direct"
"""The arm whose tokens and money the others get. It is always included."""

BY_NEED = (
    "prompt", "gepa", "sft", "rft", "bare-retry", "star", "direct", "weights", "distil", "iterative", "mix", "grpo",
    "teacher-in-student-format", "teacher",
)  # fmt: skip
"""Among arms that no interval separates, the first is named, since it needs the least (no training; no samples; no
teacher; hints only; more samples besides; whole solutions by a capable writer)."""

TRY_RATES = (0.3, 1.0, 3.0)
"""Multiples of the learning rate, from which the dev rows choose per arm, since the rate changes an arm more than arms
differ."""


def chosen_arms(names: str | None) -> list[str]:
    """Returns the named arms in order of usefulness, or all. The reference is always included.

    Raises:
        UserError: a name is unknown.
    """
    if not names:
        return list(ARMS)
    asked = {name.strip() for name in names.split(",")} - {""}
    if unknown := sorted(asked - ARMS.keys()):
        raise UserError(Fault("--arms", f"some of {', '.join(ARMS)}", ", ".join(unknown)))
    return [name for name in ARMS if name in asked | {REFERENCE}]


def by_need(names: Sequence[str]) -> list[str]:
    """Returns the arms that are possible choices, the least demanding first."""
    return [name for name in BY_NEED if name in names]

"""The ways that are compared, in order of usefulness: time and money that run out cut the last ones first."""

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
        does: for the table.
        kind: `loop`: a run with other settings; `written`: a run on traces that somebody else wrote; `prompt`: no
            training.
        settings: of the run, by dotted key; what depends on the data is in `work.settings`.
        control: it shows what another arm's gain is owed to; nobody would choose it.
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
    "bare-retry": Arm('"Try again." in the place of the hint', "loop", DIRECT),
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
"""The arm whose tokens and money the others are given; always part of it."""

BY_NEED = (
    "prompt", "gepa", "sft", "rft", "bare-retry", "star", "direct", "weights", "distil", "iterative", "mix", "grpo",
    "teacher-in-student-format", "teacher",
)  # fmt: skip
"""Of arms that no interval tells apart the first is named: it asks the least of whoever goes that way (no training;
no samples; no teacher; hints only; more samples besides; whole solutions by someone who can write them).
"""

TRY_RATES = (0.3, 1.0, 3.0)
"""Multiples of the learning rate, of which the dev rows choose per arm: it moves an arm by more than arms differ."""


def chosen_arms(names: str | None) -> list[str]:
    """The named arms in order of usefulness, all where nothing is named; the reference is always one.

    Raises:
        UserError: a name that is none.
    """
    if not names:
        return list(ARMS)
    asked = {name.strip() for name in names.split(",")} - {""}
    if unknown := sorted(asked - ARMS.keys()):
        raise UserError(Fault("--arms", f"some of {', '.join(ARMS)}", ", ".join(unknown)))
    return [name for name in ARMS if name in asked | {REFERENCE}]


def by_need(names: Sequence[str]) -> list[str]:
    """Those that one might choose, the least demanding first."""
    return [name for name in BY_NEED if name in names]

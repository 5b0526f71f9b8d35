"""Late generalisation: what weight decay can do in a run of this length, and whether it happened.

AdamW's decoupled decay multiplies a weight by (1 - lr × weight_decay) at every step, so nothing happens on a shorter
scale than τ = 1/(lr × weight_decay) steps. On the measured task (addition modulo 41, one net, one seed) the net
generalised after 3.5 τ and not before, whatever lr and decay were; elsewhere the share of the data and the initial norm
matter too (Power et al. 2022, arXiv:2201.02177; Liu et al. 2023, arXiv:2210.01117). In a LoRA adapter the decay pulls
towards the base model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MEASURED_TAUS = 3.5
"""The measured task generalised after so many τ."""
MEMORISED = 0.98
"""Train accuracy from which a net has memorised."""
SMALLEST_GAP = 0.2
"""Train minus dev accuracy at that moment. A smaller gap leaves nothing to be delayed."""
CLOSED = 0.9
"""Share of the gap that must close before a net counts as generalised."""


@dataclass(frozen=True, slots=True)
class Point:
    """Train and dev accuracy after the same step."""

    step: int
    train: float
    dev: float


@dataclass(frozen=True, slots=True)
class Phases:
    """The phases that two curves show.

    Attributes:
        memorised_step: the first step from which the train accuracy stays high; None if it never does.
        generalised_step: the first step from which the dev accuracy stays near it; None if it never does.
        delayed_generalisation: True if the net memorised first and generalised clearly later.
    """

    memorised_step: int | None
    generalised_step: int | None
    delayed_generalisation: bool


def grokking_phases(curve: Sequence[Point]) -> Phases:
    """Returns the phases of a training whose accuracies were measured at the same steps, in order.

    A phase begins only if the next measurement confirms it, so that one lucky evaluation does not count.
    """
    memorised = _first_lasting(point.train >= MEMORISED for point in curve)
    if memorised is None:
        return Phases(None, None, delayed_generalisation=False)
    start = curve[memorised]
    gap = start.train - start.dev
    if gap < SMALLEST_GAP:  # it generalised while it learnt
        along = _first_lasting(point.train - point.dev < SMALLEST_GAP for point in curve[: memorised + 2])
        return Phases(start.step, curve[along or memorised].step, delayed_generalisation=False)
    rest = curve[memorised:]
    closed = _first_lasting(point.dev >= start.dev + CLOSED * (point.train - start.dev) for point in rest)
    return Phases(start.step, None if closed is None else rest[closed].step, delayed_generalisation=closed is not None)


def _first_lasting(holds: Iterable[bool]) -> int | None:
    """Returns the first place that holds and whose successor holds too (the last place needs no successor)."""
    places = list(holds)
    return next((at for at, here in enumerate(places) if here and all(places[at : at + 2])), None)


def time_constant_steps(learning_rate: float, weight_decay: float) -> float | None:
    """Returns τ in steps at a constant rate, or None without decay."""
    return 1 / (learning_rate * weight_decay) if learning_rate * weight_decay > 0 else None


def run_length_taus(learning_rates: Iterable[float], weight_decay: float) -> float:
    """Returns the run's length in τ, the integral of lr × weight_decay over the steps of its schedule."""
    return sum(learning_rates) * weight_decay


def grokking_outlook(learning_rates: Sequence[float], weight_decay: float) -> str:
    """Returns a sentence or two on what to expect of these settings, and which values would suit better."""
    steps, taus = len(learning_rates), run_length_taus(learning_rates, weight_decay)
    if not taus:
        return "Without weight decay nothing dissolves a memorised solution, so expect no late generalisation."
    peak = max(learning_rates)
    tau = time_constant_steps(peak, weight_decay)
    text = f"τ = 1/(lr × weight_decay) is {tau:,.0f} steps; the run has {steps:,} steps, which is {taus:.2g} τ."
    if taus >= MEASURED_TAUS:
        return f"{text} The one measured task generalised after {MEASURED_TAUS} τ, so there is time for it."
    factor = MEASURED_TAUS / taus
    return (
        f"{text} The one measured task needed {MEASURED_TAUS} τ: weight_decay {weight_decay * factor:.2g} "
        f"or {steps * factor:,.0f} steps would give that. As it is, expect memorised answers."
    )

"""Where a model is trained, and why: one pure function of its shape, the settings, the machine and the work.

    fits here            → local (without a card only where it takes at most `where.max_local_hours`)
    does not             → runpod, on the first of `where.preferred_gpus` that it fits
    place is not auto    → there; refused, with what would make it fit, where it does not

A machine is rented where that was asked for (`may_rent`): a key in the environment is no such word.

What was set is never changed: a 4-bit base that was refused stays refused, and then it is said what would help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from socratune.compute.machine import Machine
from socratune.config import RunConfig, WhereConfig
from socratune.errors import Fault, Shown
from socratune.inference import (
    FREE_SHARE,
    GIB,
    HEADROOM,
    Card,
    Shape,
    Training,
    card_named,
    plan_memory,
    rentable,
    training_gib,
    training_in_words,
    training_s,
)

CPU_TOKENS = 4096
"""Of a micro-batch on a CPU (`training.engine`)."""
SHORTER = (1024, 512, 256)
"""Lengths of rows that are tried where longer ones do not fit."""
RUNPOD_KEY = "RUNPOD_API_KEY"
UNASKED = "where.place auto"
"""Where the fault lies of a run that would rent and does not say so."""
_OF_A_POD = ("pod_name", "preferred_gpus", "gpu_count", "cloud", "image", "disk_gb", "max_hours", "spot", "sky")
"""Settings that speak of nothing but a rented machine."""


@dataclass(frozen=True, slots=True)
class PlacementSettings:
    """What of the configuration decides.

    Attributes:
        gpus: cards of a machine one sits at that train.
        may_rent: `auto` may rent a machine.
        longest: tokens of the longest row.
        step_tokens: of an optimizer step.
        checkpointing, load_in_4bit: None: as memory has it.
    """

    place: Literal["auto", "local", "runpod", "sky"] = "auto"
    gpus: int | Literal["all"] = 1
    max_local_hours: float = 12.0
    preferred_gpus: tuple[str, ...] = ("H100 PCIe", "H100 SXM")
    gpu_count: int = 1
    may_rent: bool = True
    rank: int = 16
    longest: int = 2048
    step_tokens: int = 16 * 2048
    checkpointing: bool | None = None
    load_in_4bit: bool | None = None
    fp8: bool = False


@dataclass(frozen=True, slots=True)
class TrainingWork:
    """What a training computes: floating-point operations and optimizer steps."""

    flops: float
    steps: int


@dataclass(frozen=True, slots=True)
class Fit:
    """How a model would be trained on some cards, or without one.

    Attributes:
        way: the fastest that fits; where none does, the smallest.
        gib: its peak memory by part on one card, `total` last.
        free_gib: of one card; without a card, of main memory.
        cards: 0: none.
        seconds: of the training; None where the card's rate is not known.
    """

    fits: bool
    way: Training
    gib: dict[str, float]
    free_gib: float
    cards: int
    seconds: float | None

    @property
    def cards_gb(self) -> float:
        """What its cards need together, in the GB that cards are named by."""
        return self.cards * self.gib["total"] / (HEADROOM * FREE_SHARE)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where, why, and what would change it.

    Attributes:
        fit: how it is trained there; where the answer is `sky`, how it would be here.
        card: what is rented.
        remedies: each would make it fit: a setting, and the memory it takes then.
        fault: why it cannot begin so; None where it can.
    """

    where: Literal["local", "runpod", "sky"]
    reason: str
    fit: Fit
    card: Card | None = None
    remedies: tuple[str, ...] = ()
    fault: Fault | None = None


def may_rent(config: RunConfig) -> bool:
    """Whether a configuration asks for a rented machine where it may be needed: by its place, by money for it, or by
    saying what it should be like or be called.
    """
    where, usual = config.where, WhereConfig()
    said = any(getattr(where, name) != getattr(usual, name) for name in _OF_A_POD)
    return where.place in ("runpod", "sky") or said or config.max_usd is not None or config.budget.where is not None


def decide_placement(
    shape: Shape, settings: PlacementSettings, machine: Machine, work: TrainingWork, *, has_key: bool
) -> Placement:
    """Where to train.

    Args:
        has_key: RunPod's key is in the environment.
    """
    here = fit_here(shape, settings, machine, work)
    if settings.place == "sky":
        return Placement("sky", "asked for; SkyPilot finds the machine", here)
    if settings.place == "runpod":
        fits_here = ("--where local",) if here.fits else ()
        return _rented(shape, settings, work, here, "asked for", has_key=has_key, remedies=fits_here)
    hours = None if here.seconds is None else here.seconds / 3600
    too_long = not machine.gpus and hours is not None and hours > settings.max_local_hours
    if here.fits and (settings.place == "local" or not too_long):
        return Placement("local", _said(here, machine), here)
    remedies = tuple(_remedies(shape, settings, machine, work))
    if here.fits:
        why = f"about {hours:.0f} h without a card, where.max_local_hours is {settings.max_local_hours:g}"
        return _rented(shape, settings, work, here, why, has_key=has_key, remedies=("--where local",))
    why = f"{training_in_words(here.way)} take {gb(here.gib['total'])}, {_has(here, machine)}"
    if settings.place == "local":
        bigger = tuple(_larger_cards(shape, settings, work))
        fault = Fault("where.place local", "a model that fits here", Shown(why), _advice((*remedies, *bigger)))
        return Placement("local", why, here, remedies=(*remedies, *bigger), fault=fault)
    return _rented(shape, settings, work, here, why, has_key=has_key, remedies=remedies)


def fit_here(shape: Shape, settings: PlacementSettings, machine: Machine, work: TrainingWork) -> Fit:
    """How the model would be trained on a machine: on the cards that may, else without one."""
    if not machine.gpus:
        return _without_card(shape, settings, machine, work)
    count = len(machine.gpus) if settings.gpus == "all" else min(settings.gpus, len(machine.gpus))
    used = machine.gpus[:count]
    tflops = min((gpu.tflops or 0.0) for gpu in used)
    return fit_on(shape, settings, work, min(gpu.free_gib for gpu in used), tflops or None, count)


def fit_on(
    shape: Shape, settings: PlacementSettings, work: TrainingWork, free_gib: float, tflops: float | None, cards: int
) -> Fit:
    """How the model would be trained on so many equal cards: whole on each in 16 bits; else spread over them; else
    whole on each in 4 bits (`inference.load_model` chooses in the same order).
    """
    asked = {
        "longest": settings.longest,
        "rank": settings.rank,
        "checkpointing": settings.checkpointing,
        "most_tokens": settings.step_tokens if cards == 1 else settings.step_tokens // cards + settings.longest,
        "fp8": settings.fp8,
    }
    found = None
    if settings.load_in_4bit is not True:
        found = plan_memory(shape, free_gib, load_in_4bit=False, **asked)
        if found is None and cards > 1 and not settings.fp8:
            found = plan_memory(shape, free_gib, load_in_4bit=False, shards=cards, **asked)
    if found is None and settings.load_in_4bit is not False:
        found = plan_memory(shape, free_gib, load_in_4bit=True, **asked)
    recompute = settings.checkpointing is not False
    four_bit = settings.load_in_4bit is not False
    smallest = Training(settings.longest, settings.rank, recompute, recompute, four_bit, settings.fp8)
    way = found.training if found else smallest
    seconds = None
    if tflops:
        seconds = training_s(work.flops, shape, way, peak=tflops * 1e12, cards=cards, steps=work.steps)
    return Fit(found is not None, way, training_gib(shape, way), free_gib, cards, seconds)


def _without_card(shape: Shape, settings: PlacementSettings, machine: Machine, work: TrainingWork) -> Fit:
    tokens = max(settings.longest, min(CPU_TOKENS, settings.step_tokens))
    way = Training(tokens, settings.rank, checkpointing=settings.checkpointing is True, cpu=True)
    gib = training_gib(shape, way)
    seconds = training_s(work.flops, shape, way, peak=machine.cpu_flops)
    return Fit(gib["total"] <= HEADROOM * machine.free_ram_gib, way, gib, machine.free_ram_gib, 0, seconds)


def _rented(
    shape: Shape,
    settings: PlacementSettings,
    work: TrainingWork,
    here: Fit,
    why: str,
    *,
    has_key: bool,
    remedies: tuple[str, ...] = (),
) -> Placement:
    """On the first of the preferred cards that it fits."""
    for name in settings.preferred_gpus:
        card = card_named(name)
        if card is None:
            continue
        fit = fit_on(shape, settings, work, card.free_gib, card.tflops, settings.gpu_count)
        if fit.fits:
            which = f"{settings.gpu_count} × {card.name}" if settings.gpu_count > 1 else card.name
            reason = f"{why}; on RunPod it fits {which}: {training_in_words(fit.way)} take {gb(fit.gib['total'])}"
            asked = settings.may_rent or settings.place == "runpod"
            fault = _no_key(why, remedies, asked=asked) if not has_key else None if asked else _unasked(why, remedies)
            return Placement("runpod", reason, fit, card, remedies, fault)
    bigger = tuple(_larger_cards(shape, settings, work))
    names = ", ".join(settings.preferred_gpus)
    expected = f"a card that it fits, {settings.gpu_count} at a time"
    fault = Fault("where.preferred_gpus", expected, names, _advice((*remedies, *bigger)))
    reason = f"{why}; none of the preferred cards holds it either ({names})"
    return Placement("runpod", reason, here, None, (*remedies, *bigger), fault)


def _unasked(why: str, remedies: tuple[str, ...]) -> Fault:
    """A key in the environment is there for whatever needs it, and never says that this run may spend money."""
    fix = f"Add --where runpod, or --max-usd USD for all it may cost. {_or_here(remedies)}"
    return Fault(UNASKED, f"a word that a machine may be rented ({why})", Shown("none"), fix)


def _or_here(remedies: tuple[str, ...]) -> str:
    return f"Or here, with {'; or '.join(remedies)}." if remedies else "No setting makes it fit here."


def _no_key(why: str, remedies: tuple[str, ...], *, asked: bool) -> Fault:
    more = "" if asked else "Then add --where runpod. "
    fix = f"Run: export {RUNPOD_KEY}=… {more}{_or_here(remedies)}"
    expected = f"RunPod's key in the environment, as a machine has to be rented ({why})"
    return Fault(RUNPOD_KEY, expected, Shown("no such variable"), fix)


def _remedies(shape: Shape, settings: PlacementSettings, machine: Machine, work: TrainingWork) -> Iterator[str]:
    """Changes of the settings with which the model fits here: one at a time, else all of them together."""
    together, names, alone = settings, [], 0
    for name, change in _changes(settings, machine):
        changed = replace(settings, **change)
        together, fit = replace(together, **change), fit_here(shape, changed, machine, work)
        if not name.startswith("train.max_seq_length") or change["longest"] == SHORTER[-1]:
            names.append(name)
        if fit.fits:
            alone += 1
            yield f"{name} ({gb(fit.gib['total'])})"
        if fit.fits and name.startswith("train.max_seq_length"):
            break
    fit = fit_here(shape, together, machine, work)
    if not alone and len(names) > 1 and fit.fits:
        yield f"{' and '.join(names)} ({gb(fit.gib['total'])})"


def _changes(settings: PlacementSettings, machine: Machine) -> Iterator[tuple[str, dict[str, object]]]:
    if machine.gpus:
        if settings.checkpointing is False:
            yield "train.gradient_checkpointing=auto", {"checkpointing": None}
        if settings.fp8:
            yield "train.fp8=false", {"fp8": False}
        if settings.load_in_4bit is False:
            yield "train.load_in_4bit=true", {"load_in_4bit": True}
        if settings.gpus != "all" and settings.gpus < len(machine.gpus):
            yield "--gpus all", {"gpus": "all"}
    else:
        if settings.checkpointing is not True:
            yield "train.gradient_checkpointing=true", {"checkpointing": True}
        if settings.step_tokens > settings.longest:
            names = ("per_device_train_batch_size", "gradient_accumulation_steps")
            yield " and ".join(f"train.{name}=1" for name in names), {"step_tokens": settings.longest}
    for longest in SHORTER:
        if longest < settings.longest:
            step_tokens = settings.step_tokens * longest // settings.longest
            yield f"train.max_seq_length={longest}", {"longest": longest, "step_tokens": step_tokens}


def _larger_cards(shape: Shape, settings: PlacementSettings, work: TrainingWork) -> Iterator[str]:
    """The cheapest rented card that holds it; where none does, so many of the preferred ones."""
    for card in rentable():
        if fit_on(shape, settings, work, card.free_gib, card.tflops, 1).fits:
            yield f"--where runpod --set 'where.preferred_gpus=[{card.name}]' ({card.secure_usd:g} USD an hour)"
            return
    for count in (2, 4, 8):
        for card in filter(None, map(card_named, settings.preferred_gpus)):
            if fit_on(shape, settings, work, card.free_gib, card.tflops, count).fits:
                yield f"--where runpod --set 'where.preferred_gpus=[{card.name}]' --set where.gpu_count={count}"
                return


def _advice(remedies: tuple[str, ...]) -> str:
    return f"It fits with {'; or '.join(remedies)}." if remedies else "No setting makes it fit: take a smaller model."


def _said(fit: Fit, machine: Machine) -> str:
    return f"it fits: {training_in_words(fit.way)} take {gb(fit.gib['total'])}, {_has(fit, machine)}"


def _has(fit: Fit, machine: Machine) -> str:
    """`H100 has 84.6 GB free`."""
    if not fit.cards:
        return f"main memory has {gb(fit.free_gib)} free"
    each = "each of them" if fit.cards > 1 else machine.gpus[0].name
    return f"{each} has {gb(fit.free_gib)} free"


def gb(gib: float) -> str:
    """GiB as text in GB of 10⁹ bytes."""
    return f"{gib * GIB / 1e9:.1f} GB"

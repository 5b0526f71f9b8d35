"""Decides where a model is trained, and why: one pure function of its shape, the settings, the machine and the work.

    fits here            → local (without a GPU only if it takes at most `where.max_local_hours`)
    does not             → runpod, on the first of `where.preferred_gpus` that it fits
    place is not auto    → there; refused, with what would make it fit, if it does not

A machine is rented only if the configuration asks for it (`may_rent`); a key in the environment is no permission.

Settings are never changed. If they exclude a 4-bit base, the advice names it instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

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
"""Tokens of a micro-batch on a CPU (`training.engine`)."""
SHORTER = (1024, 512, 256)
"""Lengths of rows to try if longer ones do not fit."""
RUNPOD_KEY = "RUNPOD_API_KEY"
UNASKED = "where.place auto"
"""The place of the fault of a run that would rent without permission."""
_OF_A_POD = ("pod_name", "preferred_gpus", "gpu_count", "cloud", "image", "disk_gb", "max_hours", "spot", "sky")
"""Settings that concern only a rented machine."""


@dataclass(frozen=True, slots=True)
class PlacementSettings:
    """The settings that decide.

    Attributes:
        gpus: GPUs of the user's machine that train.
        may_rent: True if `auto` may rent a machine.
        longest: tokens of the longest row.
        step_tokens: tokens of an optimizer step.
        checkpointing, load_in_4bit: None leaves it to the memory.
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
    """How a model would be trained on some GPUs, or without one.

    Attributes:
        way: the fastest way that fits; if none does, the smallest.
        gib: its peak memory by part on one GPU, `total` last.
        free_gib: free memory of one GPU, or main memory without one.
        cards: number of GPUs, may be 0.
        seconds: time of the training; None if the GPU's rate is unknown.
    """

    fits: bool
    way: Training
    gib: dict[str, float]
    free_gib: float
    cards: int
    seconds: float | None

    @property
    def cards_gb(self) -> float:
        """Returns the memory that its GPUs need together, in the GB that GPUs are named by."""
        return self.cards * self.gib["total"] / (HEADROOM * FREE_SHARE)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where to train, why, and what would change it.

    Attributes:
        fit: how it is trained there; for `sky`, how it would be here.
        card: the GPU to rent.
        remedies: settings that would each make it fit, with the memory it takes then.
        fault: why it cannot begin like this; None if it can.
    """

    where: Literal["local", "runpod", "sky"]
    reason: str
    fit: Fit
    card: Card | None = None
    remedies: tuple[str, ...] = ()
    fault: Fault | None = None


def may_rent(config: RunConfig) -> bool:
    """Returns True if a configuration permits a rented machine: by its place, by money for it, or by describing it."""
    where, usual = config.where, WhereConfig()
    described = any(getattr(where, name) != getattr(usual, name) for name in _OF_A_POD)
    return (
        where.place in ("runpod", "sky") or described or config.max_usd is not None or config.budget.where is not None
    )


def decide_placement(
    shape: Shape, settings: PlacementSettings, machine: Machine, work: TrainingWork, *, has_key: bool
) -> Placement:
    """Returns where to train.

    Args:
        has_key: True if RunPod's key is in the environment.
    """
    here = fit_here(shape, settings, machine, work)
    if settings.place == "sky":
        return Placement("sky", "asked for; SkyPilot finds the machine", here)
    if settings.place == "runpod":
        fits_here = ("--where local",) if here.fits else ()
        return _rented(shape, settings, work, here, "asked for", has_key=has_key, remedies=fits_here)
    need = f"{training_in_words(here.way)} take {gb(here.gib['total'])}, {_has(here, machine)}"
    hours = None if here.seconds is None else here.seconds / 3600
    too_long = not machine.gpus and hours is not None and hours > settings.max_local_hours
    if here.fits and (settings.place == "local" or not too_long):
        return Placement("local", f"it fits: {need}", here)
    remedies = tuple(_remedies(shape, settings, machine, work))
    if here.fits:
        why = f"about {hours:.0f} h without a GPU, where.max_local_hours is {settings.max_local_hours:g}"
        return _rented(shape, settings, work, here, why, has_key=has_key, remedies=("--where local",))
    if settings.place == "local":
        remedies += tuple(_larger_cards(shape, settings, work))
        fault = Fault("where.place local", "a model that fits here", Shown(need), _advice(remedies))
        return Placement("local", need, here, remedies=remedies, fault=fault)
    return _rented(shape, settings, work, here, need, has_key=has_key, remedies=remedies)


def fit_here(shape: Shape, settings: PlacementSettings, machine: Machine, work: TrainingWork) -> Fit:
    """Returns how the model would be trained on a machine: on its GPUs, or without one."""
    if not machine.gpus:
        return _without_card(shape, settings, machine, work)
    count = len(machine.gpus) if settings.gpus == "all" else min(settings.gpus, len(machine.gpus))
    used = machine.gpus[:count]
    tflops = min((gpu.tflops or 0.0) for gpu in used)
    return fit_on(shape, settings, work, min(gpu.free_gib for gpu in used), tflops or None, count)


def fit_on(
    shape: Shape, settings: PlacementSettings, work: TrainingWork, free_gib: float, tflops: float | None, cards: int
) -> Fit:
    """Returns how the model would be trained on so many equal GPUs.

    The order is: whole on each in 16 bits; spread over them; whole on each in 4 bits (as `inference.load_model`
    chooses).
    """
    options: dict[str, Any] = {
        "longest": settings.longest,
        "rank": settings.rank,
        "checkpointing": settings.checkpointing,
        "most_tokens": settings.step_tokens if cards == 1 else settings.step_tokens // cards + settings.longest,
        "fp8": settings.fp8,
    }
    plan = None
    if settings.load_in_4bit is not True:
        plan = plan_memory(shape, free_gib, load_in_4bit=False, **options)
        if plan is None and cards > 1 and not settings.fp8:
            plan = plan_memory(shape, free_gib, load_in_4bit=False, shards=cards, **options)
    if plan is None and settings.load_in_4bit is not False:
        plan = plan_memory(shape, free_gib, load_in_4bit=True, **options)
    recompute = settings.checkpointing is not False
    four_bit = settings.load_in_4bit is not False
    smallest = Training(settings.longest, settings.rank, recompute, recompute, four_bit, settings.fp8)
    way = plan.training if plan else smallest
    seconds = None
    if tflops:
        seconds = training_s(work.flops, shape, way, peak=tflops * 1e12, cards=cards, steps=work.steps)
    return Fit(plan is not None, way, training_gib(shape, way), free_gib, cards, seconds)


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
    """Returns the first of the preferred GPUs that the model fits."""
    for name in settings.preferred_gpus:
        card = card_named(name)
        if card is None:
            continue
        fit = fit_on(shape, settings, work, card.free_gib, card.tflops, settings.gpu_count)
        if fit.fits:
            which = f"{settings.gpu_count} × {card.name}" if settings.gpu_count > 1 else card.name
            reason = f"{why}; on RunPod it fits {which}: {training_in_words(fit.way)} take {gb(fit.gib['total'])}"
            permitted = settings.may_rent or settings.place == "runpod"
            fault = None if permitted else _unasked(why, remedies)
            if not has_key:
                fault = _no_key(why, remedies, permitted=permitted)
            return Placement("runpod", reason, fit, card, remedies, fault)
    bigger = tuple(_larger_cards(shape, settings, work))
    names = ", ".join(settings.preferred_gpus)
    expected = f"a GPU that it fits, {settings.gpu_count} at a time"
    fault = Fault("where.preferred_gpus", expected, names, _advice((*remedies, *bigger)))
    reason = f"{why}; none of the preferred GPUs holds it either ({names})"
    return Placement("runpod", reason, here, None, (*remedies, *bigger), fault)


def _unasked(why: str, remedies: tuple[str, ...]) -> Fault:
    """Returns the fault of a run that would rent without permission. A key in the environment is none."""
    fix = f"Add --where runpod, or --max-usd USD for all it may cost. {_or_here(remedies)}"
    return Fault(UNASKED, f"permission to rent a machine ({why})", Shown("none"), fix)


def _or_here(remedies: tuple[str, ...]) -> str:
    return f"Or here, with {'; or '.join(remedies)}." if remedies else "No setting makes it fit here."


def _no_key(why: str, remedies: tuple[str, ...], *, permitted: bool) -> Fault:
    more = "" if permitted else "Then add --where runpod. "
    fix = f"Run: export {RUNPOD_KEY}=… {more}{_or_here(remedies)}"
    expected = f"RunPod's key in the environment, as a machine must be rented ({why})"
    return Fault(RUNPOD_KEY, expected, Shown("no such variable"), fix)


def _remedies(shape: Shape, settings: PlacementSettings, machine: Machine, work: TrainingWork) -> Iterator[str]:
    """Yields settings with which the model fits here: one at a time, or else all of them together."""
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
    """Yields the cheapest rented GPU that holds the model, or else enough of the preferred ones."""
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


def _has(fit: Fit, machine: Machine) -> str:
    """Returns the free memory in words: `H100 has 84.6 GB free`."""
    if not fit.cards:
        return f"main memory has {gb(fit.free_gib)} free"
    each = "each of them" if fit.cards > 1 else machine.gpus[0].name
    return f"{each} has {gb(fit.free_gib)} free"


def gb(gib: float) -> str:
    """Returns GiB as text in GB of 10⁹ bytes."""
    return f"{gib * GIB / 1e9:.1f} GB"

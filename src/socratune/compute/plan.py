"""Plans a run before anything is loaded: parameters, memory, time, money, and where it will be trained.

    settings + config.json + data set  →  size, work  →  `decision.decide_placement`  →  table, JSON, or a refusal

Memory on a GPU is exact to a few percent (docs/reference/memory.md). Time and money are rough, and the plan lists their
assumptions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from socratune.compute.decision import (
    RUNPOD_KEY,
    UNASKED,
    Fit,
    Placement,
    PlacementSettings,
    TrainingWork,
    decide_placement,
    fit_on,
    may_rent,
)
from socratune.compute.machine import Machine, this_machine
from socratune.compute.workload import ANSWER_TOKENS, Workload, load_of
from socratune.config import EnhancedTrainingConfig, RunConfig, StudentTeacherConfig, WhereConfig
from socratune.errors import Fault, Shown, UserError
from socratune.inference import GIB, Shape, Size, answering_s, card_named, size_of, training_flops
from socratune.llm import (
    BATCH_TIMES,
    FREE,
    Budget,
    Price,
    Role,
    batch_shares,
    endpoints_of,
    price_at,
    resolve_alias,
    shared_out,
    student_of,
    teacher_of,
    writer_endpoints,
)
from socratune.runs import Results, RunDir

log = logging.getLogger(__name__)

_SAMPLES, JUDGED_SHARE, HINTED_SHARE = 3.0, 0.5, 0.4
"""Assumed for a row: its samples in the loop; the share of them that rules leave to the judge model; its hints."""
READ_TOKENS, WRITTEN_TOKENS = 600, 150
"""Assumed for a call to judge or teacher."""
ANSWERING_ROOM = 1.3
"""Memory of a model that answers, as a multiple of its weights."""
SET_UP_HOURS = 0.3
"""Hours until a rented machine has its libraries and the model."""
_SMALL = 50_000_000
"""Below so many parameters, a run begins without measuring the processor and counting its rows."""


@dataclass(frozen=True, slots=True)
class Money:
    """USD. None if a price is unknown; then so is the sum.

    Attributes:
        gpu_per_hour: all rented GPUs per hour.
        gpu: rent for training, the loop and setting up.
        enhancement: judge, teacher and a student behind an API.
    """

    gpu_per_hour: float | None
    gpu: float | None
    enhancement: float | None

    @property
    def total(self) -> float | None:
        """Returns the sum of rent and calls."""
        return None if self.gpu is None or self.enhancement is None else self.gpu + self.enhancement


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that `socratune plan` shows.

    Attributes:
        tokens: trained tokens, all epochs together.
        loop_s: seconds of the student's answers, in the loop and for the proof; None if a server gives them.
        assumed: assumptions of time and money besides the settings.
        cautions: limits of the settings that this plan would reach.
    """

    size: Size
    machine: Machine
    decision: Placement
    load: Workload
    tokens: int
    loop_s: float | None
    money: Money
    budget: Budget
    assumed: tuple[str, ...]
    cautions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns what `--json` prints: memory in GB of 10⁹ bytes, hours, USD; null for unknown values."""
        decision, fit = self.decision, self.decision.fit
        return {
            "parameters": self.size.shape.parameters,
            "parameters_by": self.size.by,
            "memory_gb": {part: _gb(gib) for part, gib in fit.gib.items()},
            "free_gb": _gb(fit.free_gib),
            "fits": fit.fits,
            "where": decision.where,
            "reason": decision.reason,
            "remedies": list(decision.remedies),
            "problem": str(decision.fault) if decision.fault else None,
            "training": _way(fit),
            "machine": {
                "gpus": [{"name": gpu.name, "free_gb": _gb(gpu.free_gib)} for gpu in self.machine.gpus],
                "free_ram_gb": _gb(self.machine.free_ram_gib),
            },
            "rented": _rented(decision, self.money, fit.cards),
            "rows": self.load.rows,
            "tokens": self.tokens,
            "hours": {"training": _hours(fit.seconds), "loop": _hours(self.loop_s)},
            "usd": {"gpu": self.money.gpu, "enhancement": self.money.enhancement, "total": self.money.total},
            "budget": self.budget.to_json({}),
            "assumed": list(self.assumed),
            "cautions": list(self.cautions),
        }


def make_plan(config: RunConfig, *, dataset: bool = True, gpu: str | None = None) -> Plan:
    """Plans a run without writing anything.

    Args:
        dataset: False if none was named; its size is then assumed.
        gpu: other GPUs instead of those here, as `machine.described` reads them.

    Raises:
        UserError: there is no such model or data set; `gpu` describes no GPUs.
        OutsideError: the Hub could not be asked.
    """
    size = size_of(config.model)
    load = load_of(config, known=dataset)
    machine = this_machine(gpu=gpu, measure=size.shape.parameters > _SMALL)
    decision = _decision(size, load, machine, config)
    loop_s = _loop_s(size.shape, config, load, machine, decision)
    enhancement, assumed = _enhancement(config, load)
    money = _money(decision, loop_s, enhancement, config.where.cloud)
    tokens = round(sum(load.lengths) * _times(config.train))
    here = ("main memory and processors of this machine",) if gpu is not None and not machine.gpus else ()
    budget = budget_of(config, rented=decision.where != "local")
    assumed, cautions = (
        (*load.assumed, *assumed, *here),
        tuple(_cautions(decision, loop_s, money, config.where, budget)),
    )
    return Plan(size, machine, decision, load, tokens, loop_s, money, budget, assumed, cautions)


def settle_placement(config: RunConfig, *, fits: bool = True, told: bool = True) -> Placement:
    """Decides where this run trains, before it begins, and logs it.

    Args:
        fits: False if nothing is trained any more, so it need not fit.
        told: False if it is decided again later, and logged then.

    Raises:
        UserError: it cannot begin like this; the text names the necessary changes.
        OutsideError: the Hub could not be asked about the model.
    """
    size = size_of(config.model)
    load = load_of(config, known=size.shape.parameters > _SMALL)
    machine = this_machine(measure=size.shape.parameters > _SMALL)
    decision = _decision(size, load, machine, config)
    if not fits and config.where.place == "auto" and _can_answer(decision, machine):
        decision = replace(decision, where="local", reason="nothing is trained any more, and it can answer here")
    if decision.fault and (fits or decision.fault.where == UNASKED):
        raise UserError(decision.fault)
    place = "on this machine" if decision.where == "local" else f"elsewhere ({decision.where})"
    if told and (fits or decision.where != "local"):
        log.info("%s %s: %s.", "The training will run" if fits else "The model will answer", place, decision.reason)
    return decision


def _can_answer(decision: Placement, machine: Machine) -> bool:
    """Returns True if the model fits a machine when it only answers: its weights, and some room."""
    weights = decision.fit.gib["weights"]
    room = max((gpu.free_gib for gpu in machine.gpus), default=machine.free_ram_gib / 2)  # 32 bits without a GPU
    return ANSWERING_ROOM * weights <= room


def placement_settings(config: RunConfig, lengths: tuple[int, ...]) -> PlacementSettings:
    """Returns the settings that decide, for rows of these lengths."""
    train, where = config.train, config.where
    longest = max(lengths) if train.max_seq_length == "auto" else min(max(lengths), train.max_seq_length)
    per_step = train.per_device_train_batch_size * train.gradient_accumulation_steps
    return PlacementSettings(
        place=where.place,
        gpus=where.gpus,
        max_local_hours=where.max_local_hours,
        preferred_gpus=tuple(where.preferred_gpus),
        gpu_count=where.gpu_count,
        may_rent=may_rent(config),
        rank=train.r,
        longest=longest,
        step_tokens=sum(min(length, longest) for length in sorted(lengths)[-per_step:]),
        checkpointing=None if train.gradient_checkpointing == "auto" else train.gradient_checkpointing,
        load_in_4bit=None if train.load_in_4bit == "auto" else train.load_in_4bit,
        fp8=train.fp8,
    )


def _decision(size: Size, load: Workload, machine: Machine, config: RunConfig) -> Placement:
    """Returns the decision for what a training computes, with every token counted as labelled."""
    train, times = config.train, _times(config.train)
    flops = training_flops(size.shape, [(length, length) for length in load.lengths])
    steps = -(-len(load.lengths) // (train.per_device_train_batch_size * train.gradient_accumulation_steps))
    work = TrainingWork(flops * times, round(steps * times))
    settings = placement_settings(config, load.lengths)
    if size.four_bit:
        settings = replace(settings, load_in_4bit=True)
    decision = decide_placement(size.shape, settings, machine, work, has_key=bool(os.environ.get(RUNPOD_KEY)))
    return _paid(decision, size.shape, settings, work, config)


def training_hours(fit: Fit) -> float:
    """Returns the estimated hours of a rented machine: setting up, and training if the GPU's rate is known."""
    return SET_UP_HOURS + (fit.seconds or 0.0) / 3600


def _paid(
    decision: Placement, shape: Shape, settings: PlacementSettings, work: TrainingWork, config: RunConfig
) -> Placement:
    """Returns the decision with the first preferred GPU that the budget pays; if none, with a fault."""
    budget = budget_of(config, rented=True)
    rent = budget.limit("where", {})
    if decision.fault or decision.where != "runpod" or rent is None:
        return decision
    dear: list[tuple[float, str]] = []
    for card in filter(None, map(card_named, settings.preferred_gpus)):
        fit = fit_on(shape, settings, work, card.free_gib, card.tflops, settings.gpu_count)
        if not fit.fits:
            continue
        price = card.usd_per_hour(config.where.cloud)
        hours = min(training_hours(fit), config.where.max_hours)
        usd = 0.0 if price is None else hours * price * fit.cards  # an unknown price is asked when it is rented
        if usd <= rent:
            reason = f"{decision.reason}; the budget pays no dearer one than {card.name}"
            return replace(decision, card=card, fit=fit, reason=reason) if dear else decision
        listed = f"at {price:.2f} USD an hour, list of {card.priced}"
        dear.append((usd, f"about {hours:.2g} hours of {fit.cards} x {card.name} ({listed})"))
    usd, what = min(dear)
    fix = f"Give {budget.enough_for('where', usd)}, or name a cheaper card in where.preferred_gpus."
    expected = f"at least {usd:.2f} USD for the training, {what}"
    return replace(decision, fault=Fault("budget.where", expected, Shown(f"{rent:.4g} USD"), fix))


def _times(train: EnhancedTrainingConfig) -> float:
    """Returns how often every row is trained: epochs, times the learning rates that are tried."""
    grokking = train.grokking
    epochs = train.num_train_epochs * (grokking.grokking_multiplier if grokking.enable_grokking else 1)
    return epochs * (len(train.by_dev.sweep_lr) or 1)


def _loop_s(shape: Shape, config: RunConfig, load: Workload, machine: Machine, decision: Placement) -> float | None:
    """Returns the seconds of the student's answers where it is trained: measured by a pilot, or else assumed."""
    engine, _ = student_of(config.enhance, config.model)
    pilot = _pilot(config)
    if pilot and pilot.get("seconds") and decision.where == "local":
        return float(pilot["seconds"][0])
    if engine == "http":
        return None
    answer = min(ANSWER_TOKENS, config.enhance.max_new_tokens)
    samples = min(_SAMPLES, float(config.enhance.attempts * config.enhance.max_iterations))
    answers = (load.rows - load.held_out) * samples + 2 * load.held_out
    card = decision.card
    tflops = card.tflops if card else machine.gpus[0].tflops if machine.gpus else None
    if not tflops and (decision.where != "local" or machine.gpus):
        return None
    peak = tflops * 1e12 if tflops else machine.cpu_flops
    return answering_s(shape, answers * answer, peak=peak, cpu=not tflops)


def _pilot(config: RunConfig) -> dict[str, Any] | None:
    """Returns the result of `--estimate` in the run folder."""
    run = RunDir(config.output)
    return Results(run).data.get("estimate") if run.results.is_file() else None


def _enhancement(config: RunConfig, load: Workload) -> tuple[float | None, tuple[str, ...]]:
    """Returns the USD of the loop's paid calls (None without a price), and the assumptions."""
    if pilot := _pilot(config):
        usd = pilot["usd"]["all"]
        return usd[0] if usd else None, ("the loop costs what its pilot in the run folder says",)
    usd, calls = loop_usd(config.enhance, config.model, load.rows - load.held_out)
    if not calls:
        return 0.0, ()
    text = ", ".join(f"{count:g} calls of the {role}" for role, count in calls.items())
    text += f" per row, {READ_TOKENS} tokens read and {WRITTEN_TOKENS} written each (--estimate measures it)"
    return usd, (text, *_batches(config, usd, load.rows - load.held_out))


def _batches(config: RunConfig, usd: float | None, rows: int) -> Iterator[str]:
    """Yields what batches save, and how long they may take."""
    if not (shares := batch_shares(config.enhance)):
        return
    direct = config.enhance.model_copy(deep=True)
    for role in shares:
        getattr(direct.endpoints, role).batch = False
    whole, _ = loop_usd(direct, config.model, rows)
    saved = "" if usd is None or whole is None else f", which saves about {whole - usd:.2g} USD"
    loop = config.enhance
    most = (loop.attempts + 1) * ("judge" in shares)
    most += (loop.max_iterations - 1) * (loop.hint_attempts * ("judge" in shares) + ("teacher" in shares))
    yield (
        f"the calls of {' and '.join(shares)} go in batches{saved}; a batch is {BATCH_TIMES}, and up to "
        f"about {most} follow one another, the last ones small or none"
    )


def loop_usd(
    config: StudentTeacherConfig, model_name: str, rows: int, *, judged_share: float = JUDGED_SHARE
) -> tuple[float | None, dict[Role, float]]:
    """Returns the assumed USD of the loop's paid calls, None without a price, and the calls per row by role.

    Args:
        judged_share: the share of the samples that rules leave to the judge model.
    """
    usual: dict[Role, float] = {"student": _SAMPLES, "judge": _SAMPLES * judged_share, "teacher": HINTED_SHARE}
    paid = paid_roles(config, model_name)
    calls: dict[Role, float] = {role: usual[role] for role in paid}
    usd = [price.usd(round(rows * calls[role] * READ_TOKENS), round(rows * calls[role] * WRITTEN_TOKENS))
           for role, price in paid.items()]  # fmt: skip
    return (None if None in usd else round(sum(filter(None, usd)), 4)), calls


def paid_roles(config: StudentTeacherConfig, model_name: str) -> dict[Role, Price]:
    """Returns the roles of the loop that are paid for, with their prices."""
    engine, student = student_of(config, model_name)
    refs: dict[Role, str] = {"teacher": teacher_of(config), "judge": config.judge_model}
    if engine == "http":
        refs["student"] = student
    reached = endpoints_of(config)
    prices: dict[Role, Price] = {
        role: price_at(resolve_alias(refs[role]), reached[role]) for role in reached if role in refs
    }
    return {role: price for role, price in prices.items() if price is not FREE}


def budget_of(config: RunConfig, *, rented: bool) -> Budget:
    """Returns what the parts of a run may spend. `rented`: it uses a machine that is paid by the hour."""
    writing, reached = config.generate, writer_endpoints(config.generate)
    refs: dict[Role, str | None] = {"writer": writing.writer_model, "checker": writing.checker_model}
    written = any(ref and price_at(resolve_alias(ref), reached[role]) is not FREE for role, ref in refs.items())
    has = {
        "generate": writing.source is not None and written,
        "enhance": bool(paid_roles(config.enhance, config.model)),
        "where": rented,
    }
    return shared_out(config.max_usd, config.budget, [part for part, exists in has.items() if exists])


def _money(decision: Placement, loop_s: float | None, enhancement: float | None, cloud: str) -> Money:
    if decision.where == "local":
        return Money(0.0, 0.0, enhancement)
    price = decision.card.usd_per_hour(cloud) if decision.card else None
    if price is None:
        return Money(None, None, enhancement)
    per_hour = price * decision.fit.cards
    if decision.fit.seconds is None:
        return Money(per_hour, None, enhancement)
    hours = SET_UP_HOURS + (decision.fit.seconds + (loop_s or 0.0)) / 3600
    return Money(per_hour, round(hours * per_hour, 2), enhancement)


def _cautions(
    decision: Placement, loop_s: float | None, money: Money, where: WhereConfig, budget: Budget
) -> Iterator[str]:
    calls, rent = budget.shares.get("enhance"), budget.shares.get("where")
    if calls is not None and money.enhancement is not None and money.enhancement > calls:
        yield f"the loop's calls cost about {money.enhancement:.2f} USD, above their share of the budget, {calls:.4g}"
    if decision.where != "runpod":
        return
    hours = training_hours(decision.fit) + (loop_s or 0.0) / 3600
    if hours > where.max_hours:
        yield f"about {hours:.0f} h are needed, and the machine ends itself after where.max_hours, {where.max_hours:g}"
    if money.gpu is not None and rent is not None and money.gpu > rent:
        paid = rent / (money.gpu_per_hour or 1.0)
        text = f"about {hours:.2g} h are needed, and the machine ends itself after {paid:.2g} h"
        yield f"{text}, as its share of the budget (budget.where) is {rent:.4g} USD"


def _way(fit: Fit) -> dict[str, Any]:
    return {
        "load_in_4bit": fit.way.load_in_4bit,
        "gradient_checkpointing": fit.way.checkpointing,
        "offload": fit.way.offload,
        "micro_tokens": fit.way.micro_tokens,
        "gpus": fit.cards,
        "sharded": fit.way.shards > 1,
    }


def _rented(decision: Placement, money: Money, cards: int) -> dict[str, Any] | None:
    if decision.card is None:
        return None
    card = decision.card
    priced = {"usd_per_hour": money.gpu_per_hour, "priced": card.priced}
    return {"gpu": card.name, "runpod_id": card.runpod_id, "count": cards, **priced}


def _gb(gib: float) -> float:
    return round(gib * GIB / 1e9, 3)


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds / 3600, 3)

"""Everything that can be wrong with a command, found at once, before anything is written or loaded."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import urlsplit

from socratune.compute import loop_outlook, ray_fault
from socratune.config import DEMO, GenerateConfig, RunConfig, StudentTeacherConfig
from socratune.data import data_path, data_set, forget_data_sets, hub_name
from socratune.documents import DATABASES, files_of
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.evaluation import forgetting_rows, lm_eval_fault, read_prompts
from socratune.inference import foreign_fault, identity
from socratune.llm import (
    NOBODY,
    RULES,
    Role,
    StudentEngine,
    asked_models,
    endpoints_of,
    is_here,
    is_this_machine,
    local_name,
    model_fault,
    price_fault,
    reference_fault,
    resolve_alias,
    student_of,
    teacher_of,
    vllm_fault,
    writer_endpoints,
)
from socratune.resolve import Resolved, deep_merge, flatten, resolve_settings, unflatten, validated
from socratune.runs import STAGES, RunDir, former_defaults, output_fault, parse_shard
from socratune.stages import gpus_fault, hub_access_fault, hub_id_fault
from socratune.training import tracker_faults

log = logging.getLogger(__name__)


def check_run(
    given: dict[str, Any],
    *,
    where: str,
    restart: str | None = None,
    start: str | None = None,
    until: str | None = None,
) -> Resolved:
    """The resolved configuration of a command that can begin; what it will not do is said in the log.

    Args:
        restart: the first stage that will be redone; what is deleted for it must be makeable again.
        start, until: the first and the last stage that are wanted; None: from the first, to the last.

    Raises:
        UserError: every fault of configuration, data set, model and output together.
        OutsideError: nothing is wrong so far, but the Hub could not be asked about the model or the data set.
    """
    forget_data_sets()  # of an earlier command
    flat = flatten(given)
    faults: list[Fault] = []
    resolved = None
    if flat.get("local_only") is True:
        stay_offline()
    try:
        resolved = resolve_settings(_as_begun(given, restart), where=where)
        flat = {**flatten(resolved.config.model_dump(by_alias=True)), **flat}
    except UserError as error:
        faults += error.faults
    output = flat.get("output")
    if isinstance(output, str) and output and (fault := output_fault(output)):
        faults.append(fault)
    unreachable: list[OutsideError] = []
    if restart in ("generate", "split") or not (isinstance(output, str) and RunDir(output).rows("train_in").exists()):
        faults += _unless_unreachable(unreachable, _data_faults, flat)
    sound = resolved is not None and not faults and not unreachable  # what was read so far
    if resolved:
        faults += _faults_of(resolved.config, restart)
    faults += _unless_unreachable(unreachable, _reference_faults, flat, resolved)
    if isinstance(flat.get("model"), str) and flat["model"]:
        faults += _unless_unreachable(unreachable, lambda: [*filter(None, [model_fault(flat["model"])])])
    if resolved and until in (None, "publish"):
        faults += _upload_faults(resolved.config)
    at = STAGES.index
    if sound and resolved and at(start or STAGES[0]) <= at("enhance") <= at(until or STAGES[-1]):
        outlook = loop_outlook(resolved, restart=restart)
        faults += outlook.faults
        for text in () if faults else outlook.notices:
            log.warning("%s", text)
    if faults:
        raise UserError(*faults)
    if unreachable:
        raise unreachable[-1]
    assert resolved is not None
    return resolved


def _upload_faults(config: RunConfig) -> list[Fault]:
    """Why what passes could not be published in the end, as far as the Hub tells."""
    if config.hub_id is None or config.local_only or hub_id_fault(config.hub_id):
        return []
    return [*filter(None, [hub_access_fault(config.hub_id)])]


def _unless_unreachable(unreachable: list[OutsideError], find: Callable[..., list[Fault]], *what: Any) -> list[Fault]:
    """The faults that `find` finds; where the Hub could not be asked, none, and the error is noted."""
    try:
        return find(*what)
    except OutsideError as error:
        unreachable.append(error)
        return []


def _faults_of(config: RunConfig, restart: str | None) -> list[Fault]:
    """What is wrong with settings that can be looked at without the model and without the rows."""
    faults = [*_engine_faults(config), *_round_faults(config), *_budget_faults(config)]
    if config.local_only:
        faults += local_only_faults(config)
    if restart or not RunDir(config.output).rows("held_out_answers").exists():
        faults += _proof_faults(config)
    if config.generate.source:
        faults += generate_faults(config.generate, limited=_limited(config, "generate"))
    return faults


def _as_begun(given: dict[str, Any], restart: str | None) -> dict[str, Any]:
    """What was given, and what the run folder began with where the default was another then."""
    output = flatten(given).get("output")
    if not isinstance(output, str) or not output:
        return given
    return deep_merge(unflatten(former_defaults(output, restart)), given)


def stay_offline() -> None:
    """From here on nothing in this process asks the Hub: what is in its cache here does."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if "huggingface_hub" in sys.modules:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True


def local_only_faults(config: RunConfig) -> list[Fault]:
    """Every setting that would call another machine; a machine is not rented unasked either.

    What a function of the user's calls nobody can know.
    """
    if config.where.place == "auto":
        config.where.place = "local"
    outside = {asked.setting: [host for host in asked.hosts if not is_this_machine(host)]
               for asked in asked_models(config)}  # fmt: skip
    called = [(setting, ", ".join(hosts)) for setting, hosts in outside.items() if hosts]
    called += _hub_names(config)
    if (source := config.generate.source) and source.startswith(DATABASES):
        host = urlsplit(source).hostname or source
        called += [] if is_this_machine(host) else [("--source", host)]
    called += [("where.place", config.where.place)] if config.where.place != "local" else []
    if "wandb" in config.report_to and os.environ.get("WANDB_MODE") not in ("offline", "disabled"):
        called.append(("report_to", "wandb (WANDB_MODE=offline keeps it here)"))
    if "mlflow" in config.report_to and (host := urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).hostname):
        called += [] if is_this_machine(host) else [("report_to", f"mlflow at {host}")]
    if "trackio" in config.report_to and os.environ.get("TRACKIO_SPACE_ID"):
        called.append(("report_to", "a Space of the Hugging Face Hub (TRACKIO_SPACE_ID)"))
    if config.engine == "ray" and (address := os.environ.get("RAY_ADDRESS", "local")) not in ("local", "auto"):
        host = urlsplit(address if "://" in address else f"ray://{address}").hostname or address
        called += [] if is_this_machine(host) else [("engine", f"Ray at {host}")]
    fix = "Leave it out, name something on this machine, or leave --local-only out."
    return [Fault(setting, "nothing that calls another machine, with --local-only", Shown(got), fix)
            for setting, got in called]  # fmt: skip


def _hub_names(config: RunConfig) -> list[tuple[str, str]]:
    """(setting, what) of all that would be fetched from the Hub, or sent to it."""
    models = {"--model": config.model, "enhance.student_model": config.enhance.student_model}
    for role, ref in (("judge", config.enhance.judge_model), ("teacher", teacher_of(config.enhance))):
        models[f"enhance.{role}_model"] = local_name(resolve_alias(ref))
    if student_of(config.enhance, config.model)[0] == "http":
        models.pop("enhance.student_model")
    tests = {"--dataset": None if config.generate.source else config.dataset, "--held-out": config.split.held_out}
    tests |= {f"--eval-file {name}": name for name in config.split.eval_file}
    tests["validate.forgetting"] = config.validate_.forgetting
    hub = "the Hugging Face Hub"
    found = [(setting, f"{name} of {hub}") for setting, name in models.items() if name and not is_here(name)]
    found += [(setting, f"{name} of {hub}") for setting, name in tests.items() if name and hub_name(name)]
    found += [("--hub-id", hub)] if config.hub_id else []
    return found + ([("validate.lm_eval", hub)] if config.validate_.lm_eval else [])


def _data_faults(flat: dict[str, Any]) -> list[Fault]:
    faults = []
    skip = flat.get("split.on_bad_row") == "skip"
    tests = flat.get("split.eval_file")
    given = None if flat.get("generate.source") else flat.get("dataset")  # else the rows are yet to be written
    names = [given, flat.get("split.held_out"), *(tests if isinstance(tests, list) else [])]
    for at, name in enumerate(names):
        if isinstance(name, str) and name:
            found = data_set(data_path(name, held_out=at == 1))
            faults += found.damage
            if not (skip and found.reading.rows):
                faults += found.reading.faults
    return faults


def _reference_faults(flat: dict[str, Any], resolved: Resolved | None) -> list[Fault]:
    faults = []
    if resolved is not None:
        config = resolved.config.enhance
        refs: dict[Role, str] = {
            "teacher": teacher_of(config),
            "judge": resolve_alias(config.judge_model),
        }
        engine, name = student_of(config, resolved.config.model)
        if engine == "http":
            refs["student"] = name
        else:
            faults += _student_faults(resolved.config, engine, name)
        faults += _people_faults(config, refs, limited=_limited(resolved.config, "enhance"))
    hub_id = flat.get("hub_id")
    if isinstance(hub_id, str) and (fault := hub_id_fault(hub_id)):
        faults.append(fault)
    return faults


def _limited(config: RunConfig, part: Literal["generate", "enhance"]) -> bool:
    """Whether a part of the run has a limit in USD."""
    return config.max_usd is not None or getattr(config.budget, part) is not None


def _budget_faults(config: RunConfig) -> list[Fault]:
    own = {name: usd for name, usd in config.budget if isinstance(usd, float)}
    if config.max_usd is None or sum(own.values()) <= config.max_usd:
        return []
    got = Shown(", ".join(f"{name} {usd:g}" for name, usd in own.items()))
    return [Fault("budget", f"amounts of at most max_usd together, {config.max_usd:g} USD", got)]


def _place_faults(source: str) -> list[Fault]:
    from socratune.documents import parse_place

    try:
        parse_place(source)
    except UserError as error:
        return [*error.faults]
    return []


def generate_faults(config: GenerateConfig, *, limited: bool) -> list[Fault]:
    """What is wrong with the source of questions and with those who write and check them.

    Args:
        limited: there is a limit in USD, so their prices have to be known.

    Raises:
        OutsideError: a `local/` model is a Hub id, and the Hub could not be asked.
    """
    source, faults = config.source, []
    if not source:
        faults.append(Fault("--source", "files, arangodb://HOST:8529/DB or demo", Shown("nothing")))
    elif source.startswith(DATABASES):
        if "@" in source.split("://", 1)[1]:
            fix = "It would be written into files. Run: export ARANGO_USER=… ARANGO_PASSWORD=…"
            faults.append(Fault("--source", "an address without user and password", Shown("one with them"), fix))
        else:
            faults += _place_faults(source)
    elif source != DEMO:
        try:
            files_of(source)
        except UserError as error:
            faults += error.faults
    reached = writer_endpoints(config)
    refs: dict[Role, str | None] = {"writer": config.writer_model, "checker": config.checker_model}
    for role, named in refs.items():
        if named is None or (ref := resolve_alias(named)) == RULES.get(role):
            if reached[role].api_bases:
                expected = f"a --{role}-model, as the server calls it"
                faults.append(Fault(f"generate.{role}_api_base", expected, Shown("none")))
            continue
        fault = reference_fault(role, ref, reached[role])
        if fault is None and limited:
            fault = price_fault(role, ref, reached[role])
        faults += [fault] if fault else []
    return faults


def judge_settings(given: dict[str, Any], where: str) -> StudentTeacherConfig:
    """The settings of a judge that can be asked without a run.

    Raises:
        UserError: every fault of them.
    """
    config = validated(StudentTeacherConfig, given, where)
    if faults := _people_faults(config, {"judge": resolve_alias(config.judge_model)}):
        raise UserError(*faults)
    return config


def _people_faults(config: StudentTeacherConfig, refs: dict[Role, str], *, limited: bool = False) -> list[Fault]:
    """What is wrong with the models that are to be asked; `limited` as in `generate_faults`."""
    faults, reached = _idle_faults(config, refs), endpoints_of(config)
    for role, ref in refs.items():
        fault = reference_fault(role, ref, reached[role])
        if fault is None and limited:
            fault = price_fault(role, ref, reached[role])
        faults += [fault] if fault else []
    return faults


def _idle_faults(config: StudentTeacherConfig, refs: dict[Role, str]) -> list[Fault]:
    """Settings for a model that nobody would ask."""
    faults = []
    if config.judge_mode == "llm" and refs["judge"] == RULES["judge"]:
        faults.append(Fault("enhance.judge_mode llm", "a --judge-model", Shown("none")))
    if config.trace_pick == "judged" and (
        refs["judge"].startswith(("rules/", "python:")) or config.judge_mode == "mechanical"
    ):
        faults.append(Fault("enhance.trace_pick judged", "a judge model that is asked", refs["judge"]))
    for role in RULES.keys() & endpoints_of(config).keys():
        if endpoints_of(config)[role].api_bases and refs.get(role) in (RULES[role], NOBODY):
            faults.append(Fault(f"enhance.{role}_api_base", f"a --{role}-model, as the server calls it", Shown("none")))
    return faults


def _engine_faults(config: RunConfig) -> list[Fault]:
    """What is wrong with where the loop runs, and with what training hands on."""
    faults = [ray_fault() if config.engine == "ray" else None]
    faults += tracker_faults(config.report_to)
    faults.append(gpus_fault(config))
    if config.train.peft:
        from socratune.training import peft_faults

        faults += peft_faults(config.train.peft)
    if config.shard is not None:
        if config.generate.source:
            fix = "Write the rows first, with socratune generate, and give them as --dataset."
            faults.append(Fault("--shard", "a --dataset that all shards read", Shown("--source"), fix))
        try:
            parse_shard(config.shard)
        except UserError as error:
            faults += error.faults
    return [fault for fault in faults if fault]


def _round_faults(config: RunConfig) -> list[Fault]:
    """What does not go with several rounds."""
    if config.rounds == 1:
        return []
    engine, name = student_of(config.enhance, config.model)
    wears = "From the second round on the student wears the adapter of the round before."
    dev, place = config.split.dev_share and config.split.max_dev_rows, config.where.place
    refused = (
        (config.shard, "--shard", "none", config.shard, "Every round stands on the whole one before it."),
        (config.engine == "ray", "--engine", "here", config.engine, wears),
        (engine != "local", "enhance.student_engine", "a student in this process", Shown("one behind a server"), wears),
        (engine == "local" and name != config.model, "enhance.student_model", f"{config.model!r}", name, wears),
        (config.train.method == "dpo", "train.method", "sft", "dpo", "What is solved at once leaves no pair."),
        (place in ("runpod", "sky"), "where.place", "auto or local", place, "Rounds are played on this machine."),
        (not dev, "split.dev_share, split.max_dev_rows", "dev rows", Shown("none"), "They choose the round."),
    )
    return [
        Fault(where, f"{expected}, with --rounds", got, fix) for wrong, where, expected, got, fix in refused if wrong
    ]


def _proof_faults(config: RunConfig) -> list[Fault]:
    """What is wrong with the user's own questions for the proof."""
    faults = [lm_eval_fault(config.validate_.lm_eval)]
    for read, name in ((read_prompts, config.validate_.prompts_file), (forgetting_rows, config.validate_.forgetting)):
        try:
            if name is not None:
                read(name)
        except UserError as error:
            faults += error.faults
    return [fault for fault in faults if fault]


def _student_faults(config: RunConfig, engine: StudentEngine, name: str) -> list[Fault]:
    """What is wrong with a student on this machine; another model than the base has to be allowed."""
    faults = [vllm_fault()] if engine == "vllm" and config.where.place != "runpod" else []
    if name != config.model:
        missing = model_fault(name, "enhance.student_model")
        base, allowed = config.model, config.train.allow_foreign_student
        faults.append(missing or foreign_fault([identity(name, engine=engine)], identity(base), allowed=allowed))
    return [fault for fault in faults if fault]

"""Finds everything that can be wrong with a command at once, before anything is written or loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from socratune.compute import local_only_faults, loop_outlook, may_rent, paid_notice, ray_fault, stay_offline
from socratune.config import GenerateConfig, RunConfig, StudentTeacherConfig
from socratune.data import Screen, data_path, data_set, forget_data_sets
from socratune.documents import source_faults
from socratune.environments import environment_faults
from socratune.errors import Fault, OutsideError, Shown, UserError, need_train_extra
from socratune.evaluation import forgetting_rows, lm_eval_fault, read_prompts
from socratune.inference import RowScreen, chat_fitness, foreign_fault, has_tokenizer, identity
from socratune.llm import (
    NOBODY,
    RULES,
    Role,
    StudentEngine,
    batch_faults,
    budget_faults,
    endpoints_of,
    local_name,
    model_fault,
    price_fault,
    reference_fault,
    resolve_alias,
    student_of,
    teacher_of,
    vllm_args_fault,
    vllm_fault,
    writer_endpoints,
)
from socratune.publishing import gguf_base_fault
from socratune.resolve import Resolved, deep_merge, flatten, resolve_settings, unflatten, validated
from socratune.runs import NEEDED, STAGES, Results, RunDir, former_defaults, output_fault, parse_shard
from socratune.stages import gpus_fault, hub_access_fault, hub_id_fault, method_faults
from socratune.training import layer_faults, tracker_faults, unsloth_faults

log = logging.getLogger(__name__)


def check_run(
    given: dict[str, Any],
    *,
    where: str,
    restart: str | None = None,
    start: str | None = None,
    until: str | None = None,
) -> Resolved:
    """Returns the resolved configuration of a command that can start; what only finished stages need may be missing.

    Args:
        restart: the first stage that will be redone; what is deleted for it must be makeable again.
        start, until: the first and the last stage that are wanted; None: from the first, to the last.

    Raises:
        UserError: every fault of configuration, data set, model and output together, or the extra `train` is missing.
        OutsideError: nothing is wrong so far, but the Hub could not be asked about the model or the data set.
    """
    need_train_extra()
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
    screen, name = None, flat.get("model")
    if isinstance(name, str) and name:
        own = _unless_unreachable(unreachable, _model_faults, name, resolved, restart)
        faults += own
        screen = None if own or unreachable or resolved is None else RowScreen(name)
    if restart in ("generate", "split") or not (isinstance(output, str) and RunDir(output).rows("train_in").exists()):
        faults += _unless_unreachable(unreachable, _data_faults, flat, screen)
    to_do = _to_do(resolved.config, restart, until) if resolved else frozenset(STAGES)
    sound = resolved is not None and not faults and not unreachable  # what was read so far
    if resolved:
        faults += _faults_of(resolved.config, restart, to_do)
    faults += _unless_unreachable(unreachable, _reference_faults, flat, resolved, to_do)
    if resolved and until in (None, "publish"):
        faults += _upload_faults(resolved.config)
    at = STAGES.index
    if sound and resolved and at(start or STAGES[0]) <= at("enhance") <= at(until or STAGES[-1]):
        outlook = loop_outlook(resolved, restart=restart)
        faults += outlook.faults
        for text in () if faults else outlook.notices:
            log.warning("%s", text)
    if faults or unreachable:
        raise UserError(*faults) if faults else unreachable[-1]
    assert resolved is not None
    if notice := paid_notice(resolved.config, to_do):
        log.warning("%s", notice)
    return resolved


def _upload_faults(config: RunConfig) -> list[Fault]:
    """Returns why an adapter that passes could not be published, as far as the Hub reveals it."""
    if config.hub_id is None or config.local_only or hub_id_fault(config.hub_id):
        return []
    return [*filter(None, [hub_access_fault(config.hub_id), gguf_base_fault(config.model, config.publish.base)])]


def _unless_unreachable(unreachable: list[OutsideError], find: Callable[..., list[Fault]], *what: Any) -> list[Fault]:
    """Returns the errors that `find` finds. If the Hub is unreachable, it returns none and logs the error."""
    try:
        return find(*what)
    except OutsideError as error:
        unreachable.append(error)
        return []


def _faults_of(config: RunConfig, restart: str | None, to_do: frozenset[str]) -> list[Fault]:
    """Returns the errors in settings that can be checked without the model and without the rows."""
    faults = [*_engine_faults(config, to_do), *settings_faults(config, to_do)]
    if config.local_only:
        faults += local_only_faults(config)
    if restart or not RunDir(config.output).rows("held_out_answers").exists():
        faults += _proof_faults(config)
    if config.env.tasks:
        faults += environment_faults(config, asked="generate" in to_do)
    if config.generate.source and "generate" in to_do:
        faults += generate_faults(config.generate, limited=_limited(config, "generate"))
    return faults


def settings_faults(config: RunConfig, to_do: Collection[str] = STAGES) -> list[Fault]:
    """Returns errors that no machine, key or row could fix: settings that conflict, or a limit that cannot be kept. A
    run and its plan share these checks.

    Args:
        to_do: the stages to come.
    """
    faults = [*_shard_faults(config), *_round_faults(config), *budget_faults(config.max_usd, config.budget)]
    if config.train.peft:
        from socratune.training import peft_faults

        faults += peft_faults(config.train.peft)
    if "enhance" in to_do:
        faults += batch_faults(config.enhance, _loop_models(config), engine=config.engine)
    return faults + (_price_faults(config, to_do) if _limited(config, "enhance") else [])


def _price_faults(config: RunConfig, to_do: Collection[str]) -> list[Fault]:
    """Returns the models of the loop and the proof whose price is unknown, if spending is limited."""
    asked = {"student", "teacher", "judge"} if "enhance" in to_do else {"judge"} if "validate" in to_do else set()
    reached, refs = endpoints_of(config.enhance), _loop_models(config)
    faults = (price_fault(role, ref, reached[role]) for role, ref in refs.items() if role in asked)
    return [fault for fault in faults if fault]


def _loop_models(config: RunConfig) -> dict[Role, str]:
    """Returns the models used in the loop by role, without a student that runs in this process."""
    loop = config.enhance
    refs: dict[Role, str] = {"teacher": teacher_of(loop), "judge": resolve_alias(loop.judge_model)}
    engine, name = student_of(loop, config.model)
    return {**refs, "student": name} if engine == "http" else refs


def _as_begun(given: dict[str, Any], restart: str | None) -> dict[str, Any]:
    """Returns the given settings, plus those with which the run folder began if their default was different then."""
    output = flatten(given).get("output")
    if not isinstance(output, str) or not output:
        return given
    return deep_merge(unflatten(former_defaults(output, restart)), given)


def _to_do(config: RunConfig, restart: str | None, until: str | None) -> frozenset[str]:
    """Returns the stages that a command will run, as far as the run folder shows."""
    wanted = STAGES[: STAGES.index(until) + 1] if until in STAGES else STAGES
    run = RunDir(config.output)
    if config.rounds > 1 or not run.results.is_file():  # rounds have folders of their own
        return frozenset(wanted)
    try:
        results = Results(run)
    except UserError:  # damaged: said where the run is opened
        return frozenset(wanted)
    again = STAGES[STAGES.index(restart) :] if restart in STAGES else ()

    def is_done(stage: str) -> bool:
        made = all((run / name).exists() for name in NEEDED[stage])
        return made and stage not in again and results.stage(stage).get("status") == "done"

    return frozenset(stage for stage in wanted if not is_done(stage))


def _model_faults(name: str, resolved: Resolved | None, restart: str | None) -> list[Fault]:
    """Returns what is wrong with the base model and with the layers that are to be adapted.

    Raises:
        OutsideError: it is on the Hub, and the Hub could not be asked.
    """
    if fault := model_fault(name):
        return [fault]
    if resolved is None:  # nor is it known which chat template it is given
        return []
    faults = chat_faults(name)
    if restart or not (RunDir(resolved.config.output).adapter / "adapter_config.json").exists():
        faults += layer_faults(name, resolved.config.train)
    rented = resolved.config.where.place != "local" and may_rent(resolved.config)  # a pod has another Unsloth
    if resolved.config.train.backend == "unsloth" and not rented and not faults:
        faults += unsloth_faults(name, resolved.config.train)
    return faults + method_faults(resolved.config)


def chat_faults(name: str, where: str = "--model") -> list[Fault]:
    """Returns why a model cannot answer or be trained, judging by its small files. Lesser problems are only logged.

    Args:
        name: a folder, a Hub id, or `demo`, of which `model_fault` has found nothing.
        where: names it in the faults.

    Raises:
        OutsideError: it is on the Hub, and the Hub could not be asked.
    """
    found = chat_fitness(name, where)
    for note in found.notes:
        log.warning("%s", note)
    return [*found.faults]


def plan_faults(config: RunConfig) -> list[Fault]:
    """Returns what would prevent a planned run from starting. Its model may be a mere `config.json`.

    Raises:
        OutsideError: it is on the Hub, and the Hub could not be asked.
    """
    faults = settings_faults(config)
    if fault := model_fault(config.model):
        return [fault, *faults]
    asked = chat_faults(config.model) if has_tokenizer(config.model) else []
    return [*asked, *layer_faults(config.model, config.train), *faults]


def _data_faults(flat: dict[str, Any], screen: Screen | None) -> list[Fault]:
    """Returns what is wrong with the data sets. `screen` is set for those whose rows are put to the model."""
    faults = []
    skip = flat.get("split.on_bad_row") == "skip"
    tests = flat.get("split.eval_file")
    written = flat.get("generate.source") or flat.get("env.tasks")
    given = None if written else flat.get("dataset")  # else the rows are yet to be written
    names = [given, flat.get("split.held_out"), *(tests if isinstance(tests, list) else [])]
    for at, name in enumerate(names):
        if isinstance(name, str) and name:
            found = data_set(data_path(name, held_out=at == 1), screen if at <= 1 else None)
            faults += found.damage
            if not (skip and found.reading.rows):
                faults += [fault for fault in found.reading.faults if fault not in found.damage]
            if (left := found.reading.left_out) and not found.reading.rows:
                got = Shown(", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in left.items()))
                faults.append(Fault(name, "rows that the model has positions for and nobody has refused", got))
    return faults


def _reference_faults(flat: dict[str, Any], resolved: Resolved | None, to_do: Collection[str]) -> list[Fault]:
    faults = []
    if resolved is not None:
        config = resolved.config.enhance
        refs = _loop_models(resolved.config)
        engine, name = student_of(config, resolved.config.model)
        if engine != "http" and "enhance" in to_do:
            faults += _student_faults(resolved.config, engine, name)
        if "enhance" in to_do and (fault := _no_vllm_fault(resolved.config, engine)):
            faults.append(fault)
        asked: set[Role] = {"student", "teacher", "judge"} if "enhance" in to_do else set()
        asked |= {"judge"} if "validate" in to_do else set()
        faults += _people_faults(config, refs, asked=asked)
        faults += _local_faults({role: ref for role, ref in refs.items() if role != "student"})
    hub_id = flat.get("hub_id")
    if isinstance(hub_id, str) and (fault := hub_id_fault(hub_id)):
        faults.append(fault)
    return faults


def _local_faults(refs: Mapping[Role, str | None]) -> list[Fault]:
    """Returns what is wrong with models in this process that answer but are not trained, if they exist."""
    faults: list[Fault] = []
    for role, ref in refs.items():
        name = local_name(resolve_alias(ref)) if ref else None
        if name is not None and model_fault(name) is None:
            faults += chat_faults(name, f"{role} model")
    return faults


def _limited(config: RunConfig, part: Literal["generate", "enhance"]) -> bool:
    """Returns True if a part of the run has a limit in USD."""
    return config.max_usd is not None or getattr(config.budget, part) is not None


def generate_faults(config: GenerateConfig, *, limited: bool) -> list[Fault]:
    """Returns what is wrong with the source of questions and with the models that write and check them.

    Args:
        limited: there is a limit in USD, so their prices have to be known.

    Raises:
        OutsideError: a `local/` model is a Hub id, and the Hub could not be asked.
    """
    faults = source_faults(config.source)
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
    return [*faults, *_local_faults(refs)]


def judge_settings(given: dict[str, Any], where: str) -> StudentTeacherConfig:
    """Returns the settings of a judge that can be used without a run.

    Raises:
        UserError: every fault of them.
    """
    config = validated(StudentTeacherConfig, given, where)
    if faults := _people_faults(config, {"judge": resolve_alias(config.judge_model)}):
        raise UserError(*faults)
    return config


def _people_faults(
    config: StudentTeacherConfig, refs: dict[Role, str], *, asked: Collection[Role] | None = None
) -> list[Fault]:
    """Returns what is wrong with the models that are to be called.

    Args:
        asked: those of `refs` whom the stages to come will ask; None is all.
    """
    faults, reached = _idle_faults(config, refs), endpoints_of(config)
    for role, ref in refs.items():
        if asked is not None and role not in asked:
            continue
        fault = reference_fault(role, ref, reached[role])
        faults += [fault] if fault else []
    return faults


def _idle_faults(config: StudentTeacherConfig, refs: dict[Role, str]) -> list[Fault]:
    """Returns the errors for settings of a model that would never be used."""
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


def _engine_faults(config: RunConfig, to_do: Collection[str]) -> list[Fault]:
    """Returns what is wrong with where the loop runs and with the files that training passes on."""
    faults = [ray_fault() if config.engine == "ray" and "enhance" in to_do else None]
    faults += tracker_faults(config.report_to) if "train" in to_do else []
    faults.append(gpus_fault(config))
    return [fault for fault in faults if fault]


def _shard_faults(config: RunConfig) -> list[Fault]:
    faults: list[Fault] = []
    if config.shard is not None:
        if config.writes_rows:
            fix = "Write the rows first (socratune generate, or run --until split), and give them as --dataset."
            faults.append(Fault("--shard", "a --dataset that all shards read", Shown("--source or --env"), fix))
        try:
            parse_shard(config.shard)
        except UserError as error:
            faults += error.faults
    return faults


def _round_faults(config: RunConfig) -> list[Fault]:
    """Returns the settings that cannot be combined with several rounds."""
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
    """Returns what is wrong with the user's own questions for the proof."""
    faults = [lm_eval_fault(config.validate_.lm_eval)]
    for read, name in ((read_prompts, config.validate_.prompts_file), (forgetting_rows, config.validate_.forgetting)):
        try:
            if name is not None:
                read(name)
        except UserError as error:
            faults += error.faults
    return [fault for fault in faults if fault]


def _student_faults(config: RunConfig, engine: StudentEngine, name: str) -> list[Fault]:
    """Returns what is wrong with a student on this machine. A model other than the base must be allowed explicitly."""
    faults = [vllm_fault()] if engine == "vllm" and config.where.place != "runpod" else []
    faults.append(vllm_args_fault(config.enhance.vllm_args))
    if name == config.enhance.student_model != config.model:  # local/NAME would be there without its prefix
        fix = "Leave it out: the student is the very model that is trained. Or local/NAME, or --student-api-base URL."
        faults.append(Fault("enhance.student_model", f"the model to train, {config.model!r}", name, fix))
    elif name != config.model:
        missing = model_fault(name, "enhance.student_model")
        faults += [] if missing else chat_faults(name, "enhance.student_model")
        base, allowed = config.model, config.train.allow_foreign_student
        faults.append(missing or foreign_fault([identity(name, engine=engine)], identity(base), allowed=allowed))
    return [fault for fault in faults if fault]


def _no_vllm_fault(config: RunConfig, engine: StudentEngine) -> Fault | None:
    """Returns the error for vLLM arguments that have no effect here, and mentions it if only a rented machine would
    use them.
    """
    if not config.enhance.vllm_args or engine == "vllm":
        return None
    fix = "Add --student-engine vllm, or leave them out."
    if engine == "http" or config.where.place == "local" or config.where.student_server == "socratune":
        return Fault("enhance.vllm_args", "a vLLM that is started for the student", Shown("none that is"), fix)
    if config.where.place == "auto":
        log.warning("enhance.vllm_args count on a rented machine only: here no vLLM is started. %s", fix)
    return None

"""Everything that can be wrong with a command, found at once, before anything is written or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from socratune.config import Resolved, flatten, resolve
from socratune.errors import Fault, OutsideError, Shown, UserError
from socratune.modelref import model_fault
from socratune.roles import Role, endpoints, price_fault, reference_fault, resolve_alias
from socratune.rundir import RunDir, output_fault
from socratune.sources.qa_files import data_path, read_qa_rows


def preflight(given: dict[str, Any], *, where: str, restart: str | None = None) -> Resolved:
    """The resolved configuration of a command that can begin.

    Args:
        restart: the first stage that will be redone; what is deleted for it must be makeable again.

    Raises:
        UserError: every fault of configuration, data set, model and output together.
        OutsideError: nothing is wrong so far, but the Hub could not be asked about the model.
    """
    flat = flatten(given)
    faults: list[Fault] = []
    resolved = None
    try:
        resolved = resolve(given, where=where)
        flat = {**flatten(resolved.config.model_dump(by_alias=True)), **flat}
    except UserError as error:
        faults += error.faults
    output = flat.get("output")
    if isinstance(output, str) and output and (fault := output_fault(output)):
        faults.append(fault)
    if restart == "split" or not (isinstance(output, str) and RunDir(output).rows("train_in").exists()):
        faults += _data_faults(flat)
    faults += _reference_faults(flat, resolved)
    unreachable = None
    if isinstance(flat.get("model"), str) and flat["model"]:
        try:
            if fault := model_fault(flat["model"]):
                faults.append(fault)
        except OutsideError as error:
            unreachable = error
    if faults:
        raise UserError(*faults)
    if unreachable:
        raise unreachable
    assert resolved is not None
    return resolved


def _data_faults(flat: dict[str, Any]) -> list[Fault]:
    faults = []
    skip = flat.get("split.on_bad_row") == "skip"
    for key, held_out in (("dataset", False), ("split.held_out", True)):
        name = flat.get(key)
        if isinstance(name, str) and name:
            read = read_qa_rows(data_path(name, held_out=held_out))
            if not (skip and read.rows):
                faults += read.faults
    return faults


def _reference_faults(flat: dict[str, Any], resolved: Resolved | None) -> list[Fault]:
    faults = []
    if resolved is not None:
        config = resolved.config.enhance
        reached = endpoints(config)
        refs: dict[Role, str] = {
            "teacher": resolve_alias(config.teacher_model),
            "judge": resolve_alias(config.judge_model),
        }
        if config.student_api_base:
            refs["student"] = resolve_alias(config.student_model or resolved.config.model)
        for role, ref in refs.items():
            fault = reference_fault(role, ref, reached[role])
            if fault is None and config.max_usd is not None:
                fault = price_fault(role, ref, reached[role])
            faults += [fault] if fault else []
    hub_id = flat.get("hub_id")
    if isinstance(hub_id, str) and (hub_id.count("/") != 1 or not all(part.strip() for part in hub_id.split("/"))):
        faults.append(Fault("--hub-id", "a Hub name like myusername/my-adapter", hub_id))
    return faults


def existing_run(path: str) -> RunDir:
    """The run folder at `path`.

    Raises:
        UserError: there is none.
    """
    run = RunDir(path)
    if not run.config.is_file():
        got = Shown("a folder without config.yaml" if Path(path).is_dir() else "no such folder")
        raise UserError(Fault(path, "the folder of a run", got, "Make one with socratune run or socratune demo."))
    return run

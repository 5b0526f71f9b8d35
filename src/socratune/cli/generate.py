"""`socratune generate`: the first stage alone, into a file of one's own."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from pydantic import field_validator

from socratune.compute import local_only_faults, paid_notice, stay_offline
from socratune.config import DEMO, BudgetConfig, GenerateConfig, RunConfig, Section, is_free, read_template
from socratune.errors import Fault, Shown, UserError
from socratune.llm import Limits, budget_faults, model_fault, shared_out
from socratune.preflight import chat_faults, generate_faults
from socratune.resolve import deep_merge, dump, flatten, give_template, validated
from socratune.runs import Journal, Tell, fingerprint, locked_file
from socratune.stages import GeneratedFiles, generate_questions

log = logging.getLogger(__name__)


class Writing(Section):
    """The settings of a run that concern questions. `model` is the one whose tokenizer measures the passages."""

    generate: GenerateConfig = GenerateConfig()
    local_only: bool = False
    max_usd: float | None = RunConfig.model_fields["max_usd"].default
    budget: BudgetConfig = BudgetConfig()
    model: str | None = None
    chat_template: str | None = None
    seed: int = 0

    _read_template = field_validator("chat_template", mode="before")(read_template)

    def limits(self) -> Limits:
        """Returns what writer and checker may spend together."""
        budget = shared_out(self.max_usd, self.budget, ["generate"])
        usd = budget.limit("generate", {})
        return Limits(usd, self.generate.max_total_tokens, "generate", budget.raised_by("generate"))


def checked(
    given: dict[str, Any], output: str | None, database: str | None, faults: list[Fault]
) -> tuple[Writing, Path]:
    """Returns the settings, and the file for the rows.

    Args:
        given: nested, as for a run; what does not concern questions is left out, so that a run's file does as well.
        database: of ArangoDB, in the place of a source.
        faults: of `given`, found before.

    Raises:
        UserError: every fault of settings, file, source, models and output.
    """
    if database:
        from socratune.documents import place_of

        given = deep_merge({"generate": {"source": place_of(database)}}, given)
    known = {name: given[name] for name in Writing.model_fields if name in given}
    faults = [*faults, *filter(None, [_output_fault(output)])]
    try:
        settings = validated(Writing, known, "socratune generate")
        as_run = RunConfig(model=settings.model or DEMO, dataset=DEMO, output="-", generate=settings.generate)
        if settings.local_only:
            stay_offline()
            faults += local_only_faults(as_run)
        faults += budget_faults(settings.max_usd, settings.budget)
        faults += generate_faults(settings.generate, limited=settings.limits().usd is not None)
        if settings.model is not None:
            give_template(settings.model, settings.chat_template)
            missing = model_fault(settings.model)
            faults += [missing] if missing else chat_faults(settings.model)
    except UserError as error:
        raise UserError(*faults, *error.faults) from None
    if faults:
        raise UserError(*faults)
    notice = "" if _journal(Path(str(output))).exists() else paid_notice(as_run, ["generate"])
    if notice:
        log.warning("%s", notice)
    return settings, Path(str(output))


def _journal(output: Path) -> Path:
    return output.with_suffix(".journal.sqlite")


def _output_fault(given: str | None) -> Fault | None:
    if given is None:
        return Fault("--output", "a file for the rows, like qa.jsonl", Shown("nothing"))
    output = Path(given)
    if output.suffix != ".jsonl" or output.name.endswith(".rejected.jsonl"):
        return Fault("--output", "a file named *.jsonl", str(output))
    if output.is_dir() or not output.parent.is_dir():
        got = Shown("a folder" if output.is_dir() else f"no folder {output.parent}")
        return Fault(f"--output {output}", "a file in a folder that is there", got)
    if output.exists() and not _journal(output).exists():
        fix = "Move it away, or name another file."
        return Fault(f"--output {output}", "a new file, or one of an earlier generate", Shown("a file of yours"), fix)
    return None


def write_questions(settings: Writing, output: Path, *, tell: Tell) -> dict[str, Any]:
    """Writes `output`, `*.rejected.jsonl` and, beside them, the journal and what was read from the source.

    Killed at any moment, the same call goes on: a passage that is finished is not asked for again.

    Args:
        settings: without faults.

    Returns:
        The figures of the stage, and `reason` where nothing came of it.

    Raises:
        UserError: nothing in the source can be read, or another process writes this file.
        OutsideError: the budget is spent, or something outside failed; call again to go on.
    """
    place = GeneratedFiles(output, output.with_suffix(".rejected.jsonl"), output.with_suffix(".source"))
    config, model_name, seed = settings.generate, settings.model, settings.seed
    lasting = {name: value for name, value in flatten(dump(config)).items() if not is_free(f"generate.{name}")}
    started = time.monotonic()
    entry: dict[str, Any] = {"done": 0, "total": 0}

    def tick(done: int, total: int, **live: Any) -> None:
        entry.update(done=done, total=total, seconds=time.monotonic() - started, **live)
        tell("tick", "generate", entry)

    with locked_file(output.with_suffix(".lock"), Fault(str(output), "a file nobody writes")):
        journal = Journal(_journal(output))
        tell("begin", "generate", entry)
        try:
            work = generate_questions(
                place,
                config,
                model_name=model_name,
                seed=seed,
                journal=journal,
                key=f"generate.{fingerprint(lasting, model_name, seed)}",
                tick=tick,
                limits=settings.limits(),
            )
            result = asyncio.run(work)
        finally:
            journal.close()
    entry |= {**result.figures, "seconds": time.monotonic() - started, "reason": result.failure}
    tell("done", "generate", entry)
    return entry
